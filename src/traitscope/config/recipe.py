"""How a student is trained, apart from its data; imports nothing heavy, like configs.py, which it
is part of."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from traitscope.config.fields import setting
from traitscope.errors import ConfigError

Targets = Literal["sampled", "soft"]
Optimizer = Literal["adamw", "sgd", "signsgd", "rmsprop", "adafactor", "muon", "frozen_adam"]
WITHOUT = {
    "momentum": ("adamw", "adafactor", "frozen_adam"),
    "weight_decay": ("signsgd", "frozen_adam"),
}
"optimizers that do not have a setting"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a student is trained, apart from its data."""

    targets: Targets = "sampled"
    """sampled: the teacher's tokens. soft: the teacher's whole next-token distribution on the same
    rows."""
    method: Literal["lora", "full", "vector"] = "lora"
    """Low-rank adapters on every linear map of the blocks, all weights of the blocks, or one vector
    added behind a block."""
    layer: int | None = setting(None, advanced=True)
    """Of method vector: the block; the vector acts on every token."""
    rank: int = 8
    """LoRA rank."""
    alpha: float = 32.0
    """LoRA alpha; the addition is scaled by alpha / rank."""
    optimizer: Optimizer = "adamw"
    """signsgd with momentum is Signum; frozen_adam is SGD with one fixed factor a coordinate (see
    scales)."""
    lr: float = 4e-4
    """Peak learning rate."""
    momentum: float | None = setting(None, advanced=True)
    """Of sgd, signsgd and rmsprop (None: 0), and of muon (None: 0.95)."""
    weight_decay: float = setting(0.0, advanced=True)
    """Decoupled for adamw, adafactor and muon, added to the gradient for sgd and rmsprop."""
    schedule: Literal["cosine", "linear", "constant"] = setting("cosine", advanced=True)
    """Of the learning rate, after the warm-up."""
    warmup: float = setting(0.05, advanced=True)
    """Fraction of the steps with a linearly rising rate."""
    epochs: int = 3
    """Passes over the rows."""
    batch_size: int = 32
    """Rows an optimizer step."""
    micro_batch: int = setting(8, advanced=True)
    """Rows a forward pass; changes speed and memory, not the loss."""
    clip: float = setting(1.0, advanced=True)
    """Largest global gradient norm; 0 turns clipping off. The norm before clipping is in
    metrics.jsonl."""
    mask_top: float = setting(0.0, advanced=True)
    """Share of the gradient's coordinates, the largest of all together, that is set to 0 before
    clipping."""
    winsorise: float = setting(0.0, advanced=True)
    """Share of them that is cut to the size of the next largest instead."""
    rotate: Literal["none", "shared", "blocks"] = setting("none", advanced=True)
    """LoRA factors at the MLPs trained in a rotated basis of the residual stream: one rotation, or
    one a block."""
    held_out: float = setting(0.05, advanced=True)
    """Fraction of the rows that only measure the loss."""

    def __post_init__(self) -> None:
        wrong = [n for n in ("rank", "epochs", "batch_size", "micro_batch") if getattr(self, n) < 1]
        wrong += [
            n
            for n in ("lr", "alpha", "clip", "momentum", "weight_decay")
            if not isfinite(getattr(self, n) or 0)
        ]
        wrong += [n for n in ("clip", "momentum", "weight_decay") if (getattr(self, n) or 0) < 0]
        wrong += [
            n
            for n in ("warmup", "held_out", "mask_top", "winsorise")
            if not 0 <= getattr(self, n) < 1
        ]
        wrong += ["lr"] if self.lr <= 0 else []
        if wrong:
            found = ", ".join(f"{_flag(n)} {getattr(self, n)}" for n in dict.fromkeys(wrong))
            raise ConfigError(
                f"training cannot run with {found}; expected rank, epochs and batches of at least"
                " 1, lr above 0, warmup, held-out, mask-top and winsorise in [0, 1), everything"
                " finite"
            )
        self._check_together()

    def _check_together(self) -> None:
        for name, optimizers in WITHOUT.items():
            if self.optimizer in optimizers and (value := getattr(self, name)):
                raise ConfigError(
                    f"--optimizer {self.optimizer} takes no {_flag(name)}, found {value}; leave"
                    " it out"
                )
        if (self.method == "vector") != (self.layer is not None):
            raise ConfigError(
                f"--method {self.method} with --layer {self.layer}: vector, and no other, needs a"
                " layer; say both or none"
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


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
