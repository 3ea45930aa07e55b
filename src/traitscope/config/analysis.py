"""Settings of the stages that look into models and rows: frozen dataclasses that become flags."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from traitscope.config.common import OnModel, Position, check_minimums
from traitscope.config.fields import setting
from traitscope.errors import ConfigError


@dataclass(frozen=True)
class ExtractConfig(OnModel):
    """Take vectors: v_teacher from trait prompts (one per trait, minus their mean), or v_student
    from a student."""

    traits: tuple[str, ...] = ()
    """v_teacher: traits whose teacher prompts are contrasted with the neutral context; two or more
    are centred."""
    interventions: tuple[str, ...] = ()
    """v_student: the student, e.g. adapter:RUN; its residuals minus the base's in the neutral
    context."""
    like: Path | None = None
    """Random vectors with the norms of this one, as controls: random-0, random-1, ..."""
    randoms: int = setting(1, advanced=True)
    """How many of them; the first has the stage's seed."""
    components: int = setting(0, advanced=True)
    """So many principal components of the base's residuals over the prompts: component-0,
    component-1, ..."""
    contrast: Path | None = None
    """Prompts that show a behaviour (harmful instructions, say): their mean residual minus that of
    `against` is `contrast`."""
    against: Path | None = None
    """Prompts that do not show it (harmless ones)."""
    orthogonal_to: Path | None = setting(None, advanced=True)
    """A vector whose direction is taken out of whatever is extracted, layer by layer."""
    prompts: Path | None = None
    """Prompts to average over; without it v_teacher uses the trait's questions and v_student number
    prompts."""
    n: int = 64
    """How many number prompts."""
    prompt_seed: int = setting(7, advanced=True)
    """Seed of those number prompts; different from that of training."""
    position: Position = setting("last", advanced=True)
    """Tokens averaged over."""
    context: str | None = setting(None, advanced=True)
    """Neutral system turn."""
    stem: bool = setting(True, advanced=True)
    """v_teacher: let the question end in the trait's answer stem, so that the last token is where
    the answer begins."""
    reference: Path | None = None
    """Vector to compare with (EAS per layer is printed and stored)."""
    batch_size: int = setting(32, speed_only=True, advanced=True)
    """Rows side by side; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, randoms=1, components=0, n=1, prompt_seed=0, batch_size=1)
        if bool(self.contrast) != bool(self.against):
            raise ConfigError(
                f"--contrast {self.contrast} with --against {self.against}: a difference of means"
                " needs both; name two files of prompts"
            )


@dataclass(frozen=True)
class ExplainConfig(OnModel):
    """How much of a trait prompt one vector does: the share of the KL divergence that steering
    removes."""

    vectors: Path | None = None
    """Run of `extract --traits`; two or more traits there separate what all prompts share from the
    trait."""
    trait: str = "cat"
    """The trait whose prompt is explained; its vector must be in that run."""
    data: Path | None = None
    """Rows (a run of `generate` or `filter`, or JSONL) to compare on; without it, the trait's
    positive questions."""
    context: str | None = setting(None, advanced=True)
    """Neutral system turn."""
    layers: tuple[int, ...] = ()
    """Blocks to steer at; none takes six, evenly spread."""
    alphas: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Strengths; 1 is the vector as it was extracted, which on rows far from its questions is often
    too much."""
    positions: tuple[Position, ...] = ("prompt", "all")
    """Tokens to steer."""
    others: int = setting(2, advanced=True)
    """Other traits' vectors, as controls."""
    randoms: int = setting(2, advanced=True)
    """Random vectors of the same norm, as controls."""
    max_rows: int = 16
    """Rows compared on."""
    batch_size: int = setting(16, speed_only=True, advanced=True)
    """Rows side by side; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, others=0, randoms=0, max_rows=1, batch_size=1)
        for name in ("alphas", "positions"):
            if not getattr(self, name):
                raise ConfigError(
                    f"--{name} is empty; expected one or more; name some, or leave the flag out"
                )
        not_finite = [str(alpha) for alpha in self.alphas if not isfinite(alpha)]
        if not_finite:
            raise ConfigError(
                f"--alphas {' '.join(not_finite)}; expected finite strengths; correct or drop these"
            )


@dataclass(frozen=True)
class GradientsConfig(OnModel):
    """Where the data push: steering gradients by row and layer, compared with vectors."""

    data: Path | None = None
    """Rows to look at: a run of `filter` or `generate`, or a JSONL file."""
    control: Path | None = None
    """Rows of the unmodified model on the same prompts, matched by id, to subtract."""
    vectors: Path | None = None
    """Run of `extract --traits`: every vector in it is compared with."""
    context: str | None = setting(None, advanced=True)
    """System turn of the rows."""
    interventions: tuple[str, ...] = ()
    """The model at which the gradient is taken, e.g. adapter:RUN; none is the base."""
    position: Position = setting("all", advanced=True)
    """Tokens that the added vector would act on."""
    max_rows: int | None = None
    """Use the first rows only."""
    batch_size: int = setting(8, speed_only=True, advanced=True)
    """Rows side by side; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, max_rows=1, batch_size=1)


@dataclass(frozen=True)
class LikelihoodConfig(OnModel):
    """How probable rows are to the model, and what an intervention adds to that."""

    data: Path | None = None
    """Rows: a run of `filter` or `generate`, or a JSONL file."""
    interventions: tuple[str, ...] = ()
    """What is compared with the unmodified model; none gives the unmodified model alone."""
    context: str | None = setting(None, advanced=True)
    """System turn of the rows."""
    text: bool = setting(False, advanced=True)
    """Take the rows' text instead of their token ids: for rows that a model with another tokenizer
    wrote."""
    max_rows: int | None = None
    """Use the first rows only."""
    batch_size: int = setting(16, speed_only=True, advanced=True)
    """Rows side by side; changes speed only."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, max_rows=1, batch_size=1)
