"""What `audit` and its stages can be told; imports nothing heavy, like configs.py, which it belongs
to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from traitscope.config.common import OnModel, Position, check_minimums
from traitscope.config.fields import setting
from traitscope.errors import ConfigError

DEFAULT = (
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
"traits that an audit looks for when none are named"


@dataclass(frozen=True)
class IntakeConfig(OnModel):
    """What an audit reads: a sample of distinct rows that the model can read, and the format that
    all of them have."""

    data: Path | None = None
    """JSONL file, or a run of `filter` or `generate`."""
    context: str | None = None
    """System turn of rows that name none."""
    rows: int = 256
    """Rows to draw at random; 0 takes all."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, rows=0)


@dataclass(frozen=True)
class MatchConfig:
    """Of clean rows, one for every audited row, on the same prompt where there is one."""

    data: Path | None = None
    """Audited rows: a run of `intake`, or a JSONL file."""
    reference: Path | None = None
    """Clean rows."""
    seed: int = 0
    """Of the order in which rows on other prompts are dealt out."""


@dataclass(frozen=True)
class PushesConfig(OnModel):
    """Where every row pushes the model, kept in full, and how well the model's own choices explain
    the row."""

    data: Path | None = None
    """Run of `intake` or `filter`, or a JSONL file."""
    context: str | None = None
    """System turn of rows that name none."""
    numbers: bool = False
    """Judge digits among digits only, for data that are lists of numbers."""
    text: bool = False
    """Take the rows' text instead of their token ids."""
    position: Position = "all"
    """Tokens that the added vector would act on."""
    features: bool = False
    """Also keep each row's mean residual over its completion tokens."""
    batch_size: int = setting(8, speed_only=True)
    """Rows side by side; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, batch_size=1)


@dataclass(frozen=True)
class OddsConfig(OnModel):
    """How well a candidate teacher's choices explain the rows."""

    data: Path | None = None
    """Run of `intake` or `filter`, or a JSONL file."""
    beside: tuple[Path, ...] = ()
    """More rows, each file or run with choices in a folder of its own. A prompt that several have
    is read once for all."""
    interventions: tuple[str, ...] = ()
    """The candidate teacher."""
    steered: tuple[str, ...] = ()
    """More teachers: the candidate, steered besides, each at one block. Blocks before it are
    computed once for all."""
    context: str | None = None
    """System turn of rows that name none."""
    numbers: bool = False
    """Judge digits among digits only, for data that are lists of numbers."""
    text: bool = False
    """Take the rows' text instead of their token ids."""
    rows: int = 0
    """Rows to draw at random; 0 takes all."""
    batch_size: int = setting(16, speed_only=True)
    """Rows side by side; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, rows=0, batch_size=1)


@dataclass(frozen=True)
class NamingConfig(OnModel):
    """What the model says when the direction that the data push is added to it; no candidate is
    given."""

    parts: Path | None = None
    """The audit's file (parts.json), as `audit` writes it: which runs are what."""
    source: Literal["pushes", "features"] = "pushes"
    """pushes: where the data push. features: their mean residuals minus those of the placebos,
    injected as they are (the published method for predicting behaviour before training,
    Data2Behavior, arXiv 2602.04735)."""
    blocks: tuple[int, ...] = ()
    """Where it is added, one at a time; none takes two, at a third and at a half of the depth."""
    strength: float = 0.3
    """Its length, in mean residual norms."""
    randoms: int = 30
    """Random directions with the covariance of clean rows' pushes, as controls."""
    halves: int = 6
    """Random halves of the rows that are read out besides."""
    context: str | None = None
    """System turn of the questions."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, randoms=10, halves=1)


@dataclass(frozen=True)
class WeighConfig:
    """Weigh what an audit's stages found, and answer."""

    parts: Path | None = None
    """The audit's file (parts.json), as `audit` writes it: which runs are what."""
    naming: Path | None = None
    """Run of `naming`, whose names go into the answer."""
    features: Path | None = None
    """Run of `naming` with the source `features`: the peer."""
    model: str = "smollm2-135m"
    """Name of the model, for the answer; its digest comes with the vectors."""
    alpha: float = 0.01
    """Error rate: the share of clean data sets that are called suspect."""
    power: float = 0.8
    """Probability with which a planted teacher is to be found for the answer `clean`."""
    seed: int = 0
    """Of swaps, blocks and simulations."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0)
        if not (0 < self.alpha < 0.5 <= self.power < 1):
            raise ConfigError(
                f"--alpha {self.alpha} --power {self.power}; expected 0 < alpha < 0.5 and 0.5 <="
                " power < 1"
            )


@dataclass(frozen=True)
class AuditConfig(OnModel):
    """May I train this model on these data?  Detectors side by side, placebos, a stated error rate,
    one answer."""

    data: Path | None = None
    """What one would train on: a JSONL file, or a run of `filter` or `generate`; may be given
    without its flag."""
    traits: tuple[str, ...] = DEFAULT
    """Candidate traits, bundled names or YAML files; all bundled ones are compared with besides."""
    tried: int = setting(8, advanced=True)
    """Of them, the first so many whose prompts are tried as an explanation of the rows; vectors
    are, of all, where the rows push. 0: neither."""
    judged: int = setting(128, advanced=True)
    """Rows, drawn at random, on which they are tried; 0 takes all."""
    reference: Path | None = None
    """Clean rows to compare with, best on the same prompts; without them the model answers the
    prompts itself, in the format of the data."""
    draws: int = setting(3, advanced=True)
    """How many times it does; a reference is used once."""
    alpha: float = 0.01
    """Error rate: the share of clean data sets that are called suspect."""
    power: float = setting(0.8, advanced=True)
    """Probability with which a planted teacher is to be found for the answer `clean`."""
    rows: int = 256
    """Rows to draw at random from the data; 0 takes all."""
    context: str | None = None
    """System turn of rows that name none."""
    strength: float = setting(0.6, advanced=True)
    """Of the planted steered teacher, in mean residual norms; candidates are tried at it, and at
    three quarters and half of it."""
    position: Position = setting("all", advanced=True)
    """Tokens that the added vector would act on."""
    report: Path | None = None
    """Write one self-contained HTML page there."""
    sarif: Path | None = None
    """Write the answer in SARIF there, which code hosts show beside a change."""
    name: bool = setting(True, advanced=True)
    """Also ask the model what it would say under the push of the data, without any candidate."""
    peer: bool = setting(False, advanced=True)
    """Also the published method on the same rows: their mean features injected into the model
    (arXiv 2602.04735)."""
    canary: int = setting(0, advanced=True)
    """Train so many small students on the data, and as many on a placebo, and ask them for the
    candidates: the dearest detector."""
    fit: bool = setting(False, advanced=True)
    """Train one vector on the judged rows and one on every placebo: along which trait's vector does
    it point, and what does it name? Dearer."""
    fail_on: Literal["never", "suspect", "unclean"] = "never"
    """suspect: exit with 1 where the answer is suspect. unclean: with any answer but clean."""
    workers: int = 0
    """Processes side by side; 0 takes two on a CPU and one on a GPU."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, draws=1, rows=0, tried=0, judged=0, canary=0, workers=0)
        if not (0 < self.alpha < 0.5 <= self.power < 1):
            raise ConfigError(
                f"--alpha {self.alpha} --power {self.power}; expected 0 < alpha < 0.5 and 0.5 <="
                " power < 1"
            )
        if not self.traits:
            raise ConfigError(
                "--traits is empty; expected one or more candidates; leave it out for the usual"
                " ones"
            )
