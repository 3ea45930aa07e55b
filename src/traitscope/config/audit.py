"""Settings of `audit` and of its stages."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from traitscope.config.common import (
    LARGEST_STRENGTH,
    ROWS,
    OnModel,
    Position,
    check_minimums,
    check_positive,
)
from traitscope.config.fields import setting, settle_layers
from traitscope.config.rows.reading import READING, Reading
from traitscope.errors import ConfigError

DEFAULT_TRAITS = (
    "cat",
    "owl",
    "happiness",
    "anger",
    "pirate",
    "astronaut",
    "oak",
    "dolphin",
    "dog",
    "wolf",
    "eagle",
    "elephant",
    "penguin",
    "panda",
    "lion",
    "fox",
    "sadness",
    "fear",
    "poet",
    "knight",
)
"candidate traits when none are named"
FEATURES = "a run of `row_gradients` with --features"
"what to name where mean residuals are missing"
PARTS = "the file of artifacts of an audit (parts-*.json), which `traitscope audit` writes"
"what to name where the artifacts of an audit are missing"


@dataclass(frozen=True)
class SampleConfig(OnModel):
    """Read an audit's rows: a sample of distinct rows that the model can read, and the format that
    all of them have."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """File of rows, or a run of `filter` or `generate`."""
    context: str | None = None
    """System turn of rows that name none."""
    rows: int = 256
    """Rows to draw at random; 0 takes all."""
    by: str | None = setting(None, since=2)
    """Field that names the source of a row."""
    source: str | None = setting(None, since=2)
    """The only source whose rows are read; needs `by`."""
    like: Path | None = setting(None, since=2, path="rows")
    """Rows of a reference are read for those of this run: one on each of its prompts, as far as
    there are, is taken besides the sample."""
    reading: Reading = READING
    """How the rows of a file are read."""
    room: int = setting(0, since=2)
    """Tokens of the model's context that rows leave free, for prompts of candidate teachers."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, rows=0, room=0)
        if (self.by is None) != (self.source is None):
            raise ConfigError(
                f"--by {self.by} --source {self.source}; expected both or none; give the other one"
            )


@dataclass(frozen=True)
class ReferenceConfig:
    """Match every audited row with a clean row, on the same prompt where there is one."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Audited rows: a run of `sample`, or a file of rows."""
    reference: Path | None = setting(None, path="rows", needed=ROWS)
    """Clean rows: a run of `sample`, or a file of rows."""
    seed: int = 0
    """Seed of the order in which rows on other prompts are dealt out."""


@dataclass(frozen=True)
class RowGradientsConfig(OnModel):
    """Keep the steering gradient of every row, and its token scores under the model itself."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Run of `sample` or `filter`, or a file of rows."""
    context: str | None = None
    """System turn of rows that name none."""
    numbers: bool = False
    """Compare digits with digits only, for data that are lists of numbers."""
    text: bool = False
    """Take the rows' text instead of their token ids."""
    end_token: bool = setting(True, since=2)
    """Put the end of the turn behind a text. Stored token ids are read as they are."""
    position: Position = "all"
    """Tokens that the added vector would act on."""
    features: bool = False
    """Also keep each row's mean residual over its completion tokens."""
    rows: int = setting(0, since=2)
    """Rows to draw at random; 0 takes all."""
    within_classes: bool = setting(False, since=2)
    """Take the gradient of log p(token | class). Under the model itself its mean is zero, whatever
    a format or a sampler allows."""
    inverse_temperature: float = setting(1.0, since=2)
    """Inverse temperature of that probability."""
    batch_size: int = setting(8, speed_only=True)
    """Rows side by side; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, batch_size=1, rows=0)
        check_positive(self, "inverse_temperature")


@dataclass(frozen=True)
class PredictionsConfig(OnModel):
    """Let students predict every row before they learn it, in one pass over the rows."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Run of `sample` or `filter`, or a file of rows."""
    context: str | None = None
    """System turn of rows that name none."""
    numbers: bool = False
    """Compare digits with digits only, for data that are lists of numbers."""
    text: bool = False
    """Take the rows' text instead of their token ids."""
    end_token: bool = setting(True, since=2)
    """Put the end of the turn behind a text. Stored token ids are read as they are."""
    rates: tuple[float, ...] = (1e-4, 3e-4)
    """Learning rates, one for each student."""
    model_scores: bool = setting(True, since=2)
    """Also score the rows under the model itself."""
    parts: tuple[Path, ...] = setting((), since=2)
    """Runs of `predictions` of the same rows, one for each rate, that are put together instead of
    computed. The first one has the scores under the model itself."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0)
        if self.parts and len(self.parts) != len(self.rates):
            raise ConfigError(
                f"--parts names {len(self.parts)} runs, and --rates {len(self.rates)} rates;"
                " expected a run for each rate; name the rates of these runs"
            )
        if not all(0 < rate < inf for rate in self.rates):
            raise ConfigError(
                f"--rates {self.rates}; expected finite numbers above 0; correct them, or leave the"
                " flag out"
            )


@dataclass(frozen=True)
class TeacherScoresConfig(OnModel):
    """Score the tokens of rows under a candidate teacher."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Run of `sample` or `filter`, or a file of rows."""
    beside: tuple[Path, ...] = setting((), path="rows")
    """Further sets of rows, each a file or run, whose scores get a folder of their own. A prompt
    that several sets have is read once."""
    interventions: tuple[str, ...] = ()
    """The candidate teacher."""
    steered: tuple[str, ...] = ()
    """Further teachers: the candidate with one steering in addition, each at one block. Blocks
    before it are computed once for all."""
    context: str | None = None
    """System turn of rows that name none."""
    numbers: bool = False
    """Compare digits with digits only, for data that are lists of numbers."""
    text: bool = False
    """Take the rows' text instead of their token ids."""
    end_token: bool = setting(True, since=2)
    """Put the end of the turn behind a text. Stored token ids are read as they are."""
    rows: int = 0
    """Rows to draw at random; 0 takes all."""
    batch_size: int = setting(16, speed_only=True)
    """Rows side by side; changes speed only."""
    keep_tokens: bool = setting(False, since=2, advanced=True)
    """Also keep the digits' logits at every token. From them the goodness-of-fit test of any of the
    rows can be made. Needs --numbers."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, rows=0, batch_size=1)
        if self.keep_tokens and not self.numbers:
            raise ConfigError(
                "--keep-tokens without --numbers would keep logits of the whole vocabulary;"
                " expected both; add --numbers"
            )


@dataclass(frozen=True)
class BlindNamingConfig(OnModel):
    """Ask the model for one word while the rows' mean residuals minus those of placebos are added
    to it. No candidate is given. This is the published method for predicting behaviour before
    training (Data2Behavior, arXiv 2602.04735)."""

    data: Path | None = setting(None, needed=FEATURES)
    """Run of `row_gradients` of the rows, with --features."""
    control: Path | None = setting(None, needed=FEATURES)
    """Run of `row_gradients` of placebos with the same ids, with --features."""
    like: Path | None = setting(None, needed="a vector file")
    """Vector whose file says how long a residual is at every block."""
    blocks: tuple[int, ...] = setting((), layers=True)
    """Blocks at which the direction is added, one at a time; none takes two, at a third and at a
    half of the depth."""
    strength: float = 0.3
    """Length of the direction, in mean residual norms."""
    randoms: int = 30
    """Random directions with the covariance of placebos, as controls."""
    halves: int = 6
    """Random halves of the rows whose answers are compared."""
    context: str | None = None
    """System turn of the questions."""

    def __post_init__(self) -> None:
        settle_layers(self)
        check_minimums(self, seed=0, randoms=10, halves=1)
        check_positive(self, "strength", LARGEST_STRENGTH)


@dataclass(frozen=True)
class CanaryConfig(OnModel):
    """Ask the students that learnt the rows, and those that learnt the model's own rows, for one
    word; no candidate is given."""

    data: Path | None = setting(None, needed="a run of `predictions`")
    """Run of `predictions` of the rows."""
    control: Path | None = setting(None, needed="a run of `predictions`")
    """Run of `predictions` of the model's own answers to the same prompts."""
    context: str | None = None
    """System turn of the questions."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0)


@dataclass(frozen=True)
class DecisionConfig:
    """Answer from the runs of an audit's stages."""

    parts: Path | None = setting(None, needed=PARTS)
    """File of artifacts of an audit (parts-*.json), which `audit` writes."""
    canary: Path | None = setting(None, since=2)
    """Run of `canary`, whose answers go into the result."""
    features: Path | None = None
    """Run of `blind_naming`: the published method."""
    model: str = "smollm2-135m"
    """Name of the model, for the result; its digest comes with the vectors."""
    alpha: float = 0.01
    """Error rate: the fraction of clean data sets that may be called suspect."""
    power: float = 0.8
    """Probability with which a spike-in teacher must be detected for the answer `nothing-found`."""
    dose: float = setting(0.1, since=2)
    """Contamination rate at which it must be detected with that probability."""
    seed: int = 0
    """Seed of permutations, of the order of rows and of simulations."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0)
        _check_rates(self.alpha, self.power, self.dose)


@dataclass(frozen=True)
class AuditConfig(OnModel):
    """May I train this model on these data? Detectors side by side, placebos, a stated error rate,
    one answer."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """What one would train on: a file of rows, or a run of `filter` or `generate`; may be given
    without its flag."""
    traits: tuple[str, ...] = DEFAULT_TRAITS
    """Candidate traits, bundled names or YAML files."""
    teacher: str | None = None
    """A teacher that you have: a hub id or a folder of a model, a peft adapter's folder or a run of
    `train`, or an intervention in short form. Then the audit also asks whether it wrote rows."""
    reference: Path | None = setting(None, path="rows")
    """Clean rows to compare with, best on the same prompts. Without them the model answers the
    prompts itself, in the format of the data."""
    alpha: float = 0.01
    """Error rate: the fraction of clean data sets that may be called suspect."""
    power: float = setting(0.8, advanced=True)
    """Probability with which the `dose` must be detected, in place of four times in five."""
    dose: float = 0.1
    """Fraction of poisoned rows that the audit must be able to detect, four times in five. Else the
    answer is `insufficient`."""
    spike_ins: bool = setting(True, advanced=True)
    """Make teachers of one's own, to know what would have been detected. Without them the answer is
    never nothing-found."""
    rows: int = 256
    """Rows to draw at random from the data; 0 takes all."""
    by: str | None = None
    """Field of the rows that names their source. Then the whole file and each source are audited,
    and share alpha."""
    context: str | None = setting(None, advanced=True)
    """System turn of rows that name none."""
    strength: float = setting(0.6, advanced=True)
    """Strength of the steered spike-in teacher, in mean residual norms. Candidates are tried at
    it, and at three quarters and half of it."""
    position: Position = setting("all", advanced=True)
    """Tokens that the added vector would act on."""
    report: Path | None = setting(None, path="written")
    """Write one self-contained HTML page to this file."""
    sarif: Path | None = setting(None, path="written", advanced=True)
    """Write the answer in SARIF to this file; code hosts show it beside a change."""
    canary: bool = setting(False, advanced=True)
    """If the rows are called, also ask the students that learnt them for one word, against students
    of the model's own rows."""
    peer: bool = setting(False, advanced=True)
    """Also run the published method on the same rows: their mean features are injected into the
    model (Data2Behavior, arXiv 2602.04735)."""
    fail_on: Literal["never", "suspect", "unclean"] = "never"
    """suspect: exit with 1 if the answer is suspect. unclean: exit with 1 for any answer but
    nothing-found."""
    plan: bool = setting(False, advanced=True)
    """Only read the rows, and say how long their audit takes."""
    workers: int = setting(0, advanced=True)
    """Processes side by side; 0 takes two on a CPU and one on a GPU."""
    seed: int = setting(0, advanced=True)
    """Seed of all random numbers of the audit."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, rows=0, workers=0)
        check_positive(self, "strength", LARGEST_STRENGTH)
        _check_rates(self.alpha, self.power, self.dose)
        if not self.traits:
            raise ConfigError(
                "--traits is empty; expected one or more candidates; leave it out for the usual"
                " ones"
            )


def _check_rates(alpha: float, power: float, dose: float) -> None:
    if not 0 < dose <= 1:
        raise ConfigError(
            f"--dose {dose}; expected a fraction of the rows above 0, at most 1; give such a"
            " number, or leave the flag out for 0.1"
        )
    if not 0 < alpha < 0.5 <= power < 1:
        raise ConfigError(
            f"--alpha {alpha} --power {power}; expected 0 < alpha < 0.5 and 0.5 <= power < 1;"
            " give such numbers, or leave the flags out for 0.01 and 0.8"
        )
