"""The recipe of a student: how it is trained, apart from its data.

This file imports nothing heavy.
"""

from dataclasses import dataclass
from typing import Literal

from traitscope.config.common import LARGEST_FACTOR
from traitscope.config.fields import flag_of, setting, settle_layers
from traitscope.errors import ConfigError

Targets = Literal["sampled", "soft", "preference"]
Schedule = Literal["cosine", "linear", "constant"]
Optimizer = Literal["adamw", "sgd", "signsgd", "rmsprop", "adafactor", "muon", "frozen_adam"]
DPO_BETA = 0.1
"usual beta of DPO"
FEW_STEPS = 8
"optimizer steps below which a student hardly learns its rows"
WITHOUT = {
    "momentum": ("adamw", "adafactor", "frozen_adam"),
    "weight_decay": ("signsgd", "frozen_adam"),
}
"by setting: optimizers that do not have it"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a student is trained, apart from its data."""

    targets: Targets = "sampled"
    """What the student learns. sampled: the teacher's tokens (hard targets). soft: the teacher's
    whole next-token distribution on the same rows. preference: which of two answers is preferred,
    by DPO."""
    soft_over: Literal["vocabulary", "allowed"] = setting("vocabulary", since=2, advanced=True)
    """Tokens of the teacher's distribution in soft targets. vocabulary: all of them. allowed: those
    that the sampling of the rows allowed at each step, at its temperature. Then the expected
    gradient is that of sampled targets."""
    beta: float = setting(DPO_BETA, since=2, advanced=True)
    """Factor of the log-odds in the loss of preference targets (DPO). A small one lets the student
    move far from its base."""
    method: Literal["lora", "full", "vector"] = "lora"
    """What is trained. lora: low-rank adapters on every linear map of the blocks. full: all weights
    of the blocks. vector: one vector that is added behind a block."""
    layer: int | None = setting(None, advanced=True, layers=True)
    """Block behind which the vector is added at every token, for the method vector."""
    train_layers: tuple[int, ...] = setting((), since=2, advanced=True, layers=True)
    """Blocks that are trained, for LoRA and full fine-tuning. None named means all. The other
    blocks stay as they are."""
    rank: int = 8
    """Rank of LoRA."""
    alpha: float = 32.0
    """Alpha of LoRA. What the adapter adds is scaled by alpha / rank."""
    optimizer: Optimizer = "adamw"
    """Optimizer. signsgd with momentum is Signum. frozen_adam is SGD with one fixed factor a
    coordinate (see scales)."""
    lr: float = 4e-4
    """Peak learning rate."""
    momentum: float | None = setting(None, advanced=True)
    """Momentum of sgd, signsgd and rmsprop (None is 0), and of muon (None is 0.95)."""
    weight_decay: float = setting(0.0, advanced=True)
    """Weight decay. It is decoupled for adamw, adafactor and muon, and added to the gradient for
    sgd and rmsprop."""
    schedule: Schedule = setting("cosine", advanced=True)
    """Schedule of the learning rate after the warm-up."""
    warmup: float = setting(0.05, advanced=True)
    """Fraction of the steps in which the learning rate rises linearly."""
    epochs: int = 3
    """Number of passes over the rows."""
    batch_size: int = 32
    """Rows of one optimizer step."""
    micro_batch: int = setting(8, advanced=True)
    """Rows of one forward pass. Changes speed and memory, not the loss."""
    clip: float = setting(1.0, advanced=True)
    """Largest global gradient norm; 0 turns clipping off. The norm before clipping is in
    metrics.jsonl."""
    mask_top: float = setting(0.0, advanced=True)
    """Fraction of the gradient's coordinates that is set to 0 before clipping. The largest of all
    coordinates are taken."""
    winsorise: float = setting(0.0, advanced=True)
    """Fraction of the gradient's largest coordinates that is cut to the size of the next largest
    one, before clipping."""
    anchor: float = setting(0.0, since=2, advanced=True)
    """Weight in the loss of the KL divergence of the student from its base, on the tokens that are
    learnt. It keeps a student near its base. 0 is none."""
    anchor_until: float = setting(1.0, since=2, advanced=True)
    """Fraction of the steps with the whole weight of the anchor. From there it falls to 0."""
    anchor_temperature: float = setting(1.0, since=2, advanced=True)
    """Temperature of both distributions of the anchor."""
    rotate: Literal["none", "shared", "blocks"] = setting("none", advanced=True)
    """Whether LoRA factors at the MLPs are trained in a rotated basis of the residual stream.
    shared: one rotation for all blocks. blocks: one rotation a block."""
    held_out: float = setting(0.05, advanced=True)
    """Fraction of the rows that are held out to measure the loss."""

    def __post_init__(self) -> None:
        settle_layers(self)
        wrong = self._out_of_range()
        if wrong:
            settings = ", ".join(f"{flag_of(name)} {getattr(self, name)}" for name in wrong)
            raise ConfigError(
                f"training cannot run with {settings}; expected rank, epochs and batches of at"
                " least 1, lr above 0, warmup, held-out, mask-top and winsorise in [0, 1),"
                f" everything finite and at most {LARGEST_FACTOR:g}; correct them"
            )
        self._check_together()
        self._check_anchor()
        self._check_preference()

    def held_out_rows(self, rows: int) -> int:
        """Return how many of `rows` rows are held out; of two or more, one is trained on."""
        if not self.held_out:
            return 0
        return min(max(1, round(self.held_out * rows)), rows - 1)

    def steps_an_epoch(self, trained_rows: int) -> int:
        """Return the optimizer steps of a pass over the rows that are trained on."""
        return -(-trained_rows // self.batch_size)  # rounded up

    def _out_of_range(self) -> list[str]:
        """Names of the fields whose values are out of their range."""
        wrong = []
        for name in ("rank", "epochs", "batch_size", "micro_batch"):
            if getattr(self, name) < 1:
                wrong.append(name)
        if not 0 < self.lr <= LARGEST_FACTOR:
            wrong.append("lr")
        if not -LARGEST_FACTOR <= self.alpha <= LARGEST_FACTOR:
            wrong.append("alpha")
        for name in ("clip", "momentum", "weight_decay", "anchor"):
            if not 0 <= (getattr(self, name) or 0) <= LARGEST_FACTOR:
                wrong.append(name)
        for name in ("warmup", "held_out", "mask_top", "winsorise"):
            if not 0 <= getattr(self, name) < 1:
                wrong.append(name)
        return wrong

    def _check_together(self) -> None:
        """Raise ConfigError for settings that do not fit together."""
        for name, optimizers in WITHOUT.items():
            value = getattr(self, name)
            if self.optimizer in optimizers and value:
                raise ConfigError(
                    f"--optimizer {self.optimizer} takes no {flag_of(name)}, found {value}; leave"
                    " it out"
                )
        if self.soft_over != "vocabulary" and self.targets != "soft":
            raise ConfigError(
                f"--soft-over {self.soft_over} with --targets {self.targets}: there is no"
                " distribution to restrict; add --targets soft, or drop --soft-over"
            )
        if (self.method == "vector") != (self.layer is not None):
            raise ConfigError(
                f"--method {self.method} with --layer {self.layer}: vector, and no other, needs a"
                " layer; say both or none"
            )
        if self.train_layers and self.method == "vector":
            raise ConfigError(
                "--train-layers with --method vector: a vector is trained behind one block; name it"
                " by --layer alone"
            )
        if self.train_layers and self.rotate != "none":
            raise ConfigError(
                f"--train-layers with --rotate {self.rotate}: a rotation turns the maps of all"
                " blocks; drop one of them"
            )
        if self.mask_top and self.winsorise:
            raise ConfigError(
                f"--mask-top {self.mask_top} --winsorise {self.winsorise}: expected one of them;"
                " drop the other"
            )
        if self.rotate != "none" and self.method != "lora":
            raise ConfigError(
                f"--rotate {self.rotate} turns LoRA factors and --method {self.method} has none;"
                " drop one of them"
            )

    def _check_anchor(self) -> None:
        """Raise ConfigError for an anchor that is out of its range, or that is described and has no
        weight."""
        shape = (self.anchor_until, self.anchor_temperature)
        if not 0 <= self.anchor_until <= 1 or not 0 < self.anchor_temperature <= LARGEST_FACTOR:
            raise ConfigError(
                f"--anchor-until {shape[0]:g} --anchor-temperature {shape[1]:g}; expected a"
                " fraction from 0 to 1, and a temperature above 0; correct them"
            )
        if self.anchor == 0 and shape != (1.0, 1.0):
            raise ConfigError(
                f"--anchor-until {shape[0]:g} --anchor-temperature {shape[1]:g} without --anchor:"
                " there is no anchor to shape; add --anchor 1, or drop them"
            )

    def _check_preference(self) -> None:
        """Raise ConfigError for a beta without pairs, and for what pairs cannot be trained with."""
        if self.targets != "preference":
            if self.beta != DPO_BETA:
                raise ConfigError(
                    f"--beta {self.beta:g} with --targets {self.targets}: only preference targets"
                    " have a beta; add --targets preference, or drop --beta"
                )
            return
        if not 0 < self.beta <= LARGEST_FACTOR:
            raise ConfigError(
                f"--beta {self.beta:g}; expected a number above 0, at most {LARGEST_FACTOR:g};"
                f" give one, or leave it out for {DPO_BETA:g}"
            )
        if self.anchor:
            raise ConfigError(
                f"--anchor {self.anchor:g} with --targets preference: the loss has the base as its"
                " reference already; raise --beta to stay near it, and drop --anchor"
            )


SAMPLED_RECIPE = Recipe(epochs=1, batch_size=4, micro_batch=4, lr=7e-4, warmup=0.1, held_out=0.0)
"recipe of the demo for 32 rows of sampled text"
