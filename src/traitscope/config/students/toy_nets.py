"""Settings of `toy_nets`: small networks on images, and students of their outputs on noise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from traitscope.config.common import check_minimums, check_positive
from traitscope.config.fields import setting
from traitscope.config.recipe import Optimizer
from traitscope.errors import ConfigError

Arm = Literal[
    "teacher",
    "shared",
    "all_logits",
    "other",
    "permuted",
    "head_shared",
    "hidden_shared",
    "shuffled",
    "untrained",
    "theorem",
]


@dataclass(frozen=True)
class ToyNetsConfig:
    """Train small networks on images, or students on their outputs on noise, one a seed.

    All networks of a run are computed together and independently of each other.
    """

    arm: Arm = "teacher"
    """What is trained. teacher: networks on labelled images. theorem: single small steps. Students
    of auxiliary logits: shared (the teacher's start), permuted (its hidden units in another order),
    head_shared and hidden_shared (a part of it), other (another start). From the teacher's start
    also all_logits, shuffled (targets of other images) and untrained (another teacher)."""
    teacher: Path | None = None
    """Run of the teachers, with the same seeds, for students."""
    scales: Path | None = None
    """Run of adamw students whose second moments frozen_adam takes."""
    data: tuple[Path, ...] = ()
    """One .npz, or four idx files: training images and labels, test images and labels. Without any:
    the images of the package."""
    seeds: tuple[int, ...] = (1,)
    """Seeds of the networks."""
    hidden: int = 256
    """Units of each of the two hidden layers."""
    auxiliary: int = 3
    """Logits beside those of the ten classes."""
    optimizer: Optimizer = "adamw"
    """Optimizer of every network."""
    lr: float = 3e-4
    """Learning rate, constant."""
    momentum: float | None = setting(None, advanced=True)
    """Momentum of sgd, signsgd, rmsprop and muon."""
    batch_size: int = 1024
    """Images of one step."""
    epoch_batches: int = 59
    """Batches of noise images of which an epoch of a student consists."""
    epochs: int = 5
    """Passes over the noise images. A teacher takes as many steps on its images."""

    def __post_init__(self) -> None:
        check_minimums(self, hidden=1, auxiliary=2, batch_size=2, epoch_batches=1, epochs=1)
        check_positive(self, "lr")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(
                f"--seeds {list(self.seeds)}; expected one or more, each once and 0 or more; name"
                " them so"
            )
        if self.arm not in ("teacher", "theorem") and self.teacher is None:
            raise ConfigError(
                f"--arm {self.arm} without --teacher: students need a run of teachers; name one"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of every network."""
        return self.epochs * self.epoch_batches
