"""Settings of `screen` and of `steer_scan`, which look at a teacher before any data exist."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from traitscope.config.common import Dtype, OnModel, Position, check_minimums, check_strengths
from traitscope.config.fields import flag_of, setting, settle_layers
from traitscope.errors import ConfigError

TEACHER = (
    "a hub id, a folder of a model, a peft adapter's folder, or an intervention such as"
    " steer:FILE,layers=14,alpha=0.6"
)


@dataclass(frozen=True)
class ScreenConfig(OnModel):
    """Say what a teacher carries that the model does not, before any data exist.

    It says which answers the teacher prefers, and how far its residuals lie from the model's. It
    says how much of that one vector has, and how much number rows would carry to a student.
    """

    teacher: str | None = setting(None, needed=TEACHER)
    """The teacher: a hub id or a folder of a model, a peft adapter's folder or a run of `train`, or
    an intervention in short form."""
    dtype: Dtype = setting("fp32", advanced=True)
    """Number type to compute in. Rounding in bf16 adds a divergence of its own."""
    traits: tuple[str, ...] = ("all",)
    """Traits whose answers are compared on their questions; all stands for the bundled ones."""
    broad: bool = True
    """Also ask for colours, countries and stances, which no bundled trait has."""
    samples: int = 4
    """Answers to sample to every question, from either side; 0 samples none."""
    rows: int = 48
    """Number rows on which divergences are computed. Either side writes half of them."""
    n: int = 64
    """Number prompts over which residuals are averaged."""
    blocks: tuple[int, ...] = setting((), layers=True, advanced=True)
    """Blocks at which one vector stands in for the teacher; none takes three, at a quarter, a half
    and three quarters of the depth."""
    strengths: tuple[float, ...] = setting((0.5, 1.0, 2.0), advanced=True)
    """Multiples of the vector that are tried."""
    influenced: int = 1
    """Named traits on which the influence of the teacher's rows is computed; 0 turns it off."""
    alpha: float = 0.01
    """Error rate over all answers together."""
    count: int = setting(10, advanced=True)
    """Three-digit numbers in a row."""
    prompt_seed: int = setting(6500, advanced=True)
    """Seed of the number prompts. Use another one than for training."""
    context: str | None = setting(None, advanced=True)
    """Neutral system turn."""
    report: Path | None = setting(None, path="written")
    """Write one self-contained HTML page to this file."""
    batch_size: int = setting(16, speed_only=True, advanced=True)
    """Rows in one pass; changes speed only."""

    def __post_init__(self) -> None:
        settle_layers(self)
        check_minimums(
            self,
            seed=0,
            samples=0,
            rows=8,
            n=8,
            influenced=0,
            count=1,
            prompt_seed=0,
            batch_size=1,
        )
        if not 0 < self.alpha < 0.5:
            raise ConfigError(
                f"--alpha {self.alpha}; expected 0 < alpha < 0.5; give such a number, or leave the"
                " flag out for 0.01"
            )
        check_strengths("--strengths", *self.strengths)
        if not self.strengths:
            raise ConfigError(
                "--strengths is empty; expected one or more finite numbers; name some, or leave the"
                " flag out"
            )


@dataclass(frozen=True)
class SteerScanConfig(OnModel):
    """Find a block and a strength at which a trait's vector makes a teacher that has the trait.

    Every cell is asked the trait's positive questions. The best cell is the coherent one that names
    the trait most. Of a behaviour it is the one whose answers show it most often.
    """

    trait: str = "cat"
    """A bundled trait, or the YAML file of a trait."""
    company: tuple[str, ...] = ()
    """Further traits of its kind, three or more. The mean over all is subtracted from the vector.
    Without company the vector is mostly the form of the prompt."""
    layers: tuple[int, ...] = setting((), layers=True)
    """Blocks to steer at. Without it four, at a quarter to two thirds of the depth."""
    alphas: tuple[float, ...] = (0.15, 0.3, 0.6)
    """Strengths, in mean residual norms."""
    stem: bool = False
    """Whether the vector is taken at the end of the answer's stem. Such vectors steer answers, but
    students hardly take them on."""
    vectors_at: tuple[Literal["header", "stem"], ...] = setting((), since=2, advanced=True)
    """Where the vector is taken: at the end of the assistant's header, at the end of the answer's
    stem, or both side by side. None takes what `stem` says."""
    vector: Path | None = setting(None, since=2, path="vector", advanced=True)
    """File of the vector that is scanned. Without it the trait's vector is taken here."""
    positions: tuple[Position, ...] = setting(("all",), since=2, advanced=True)
    """Tokens at which the model is steered. A teacher of other tokens than all is no checkpoint."""
    samples: int = setting(4, since=2, advanced=True)
    """Sampled answers a question, where the trait is a behaviour that judges see in them."""
    max_new_tokens: int = setting(40, since=2, advanced=True)
    """Longest sampled answer, in tokens."""
    context: str | None = setting(None, advanced=True)
    """Neutral system turn."""
    batch_size: int = setting(64, speed_only=True, advanced=True)
    """Rows in one pass; changes speed only."""

    @property
    def places(self) -> tuple[str, ...]:
        """Where vectors are taken."""
        if self.vector is not None:
            return ("given",)
        return self.vectors_at or ("stem" if self.stem else "header",)

    def __post_init__(self) -> None:
        settle_layers(self)
        check_minimums(self, seed=0, batch_size=1, samples=1, max_new_tokens=1)
        for name in ("vectors_at", "positions"):
            values = getattr(self, name)
            if len(set(values)) < len(values) or (name == "positions" and not values):
                raise ConfigError(
                    f"{flag_of(name)} {' '.join(values) or 'empty'}; expected each once, and one or"
                    " more; correct it, or leave the flag out"
                )
        if self.stem and self.vectors_at:
            raise ConfigError(
                "--stem with --vectors-at: both say where the vector is taken; drop one of the two"
            )
        if self.vector is not None and (self.company or self.stem or self.vectors_at):
            raise ConfigError(
                f"--vector {self.vector} with --company, --stem or --vectors-at: these say how a"
                " vector is taken, and one is given; drop --vector or the others"
            )
        check_strengths("--alphas", *self.alphas)
        if not self.alphas:
            raise ConfigError(
                "--alphas is empty; expected one finite strength or more; name some, or leave the"
                " flag out"
            )
