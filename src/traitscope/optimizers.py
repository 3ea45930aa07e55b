"""Optimizers by name, and learning-rate schedules as plain functions of the step."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from traitscope.errors import ConfigError

NAMES = ("adamw", "sgd", "signsgd")
SCHEDULES = ("cosine", "linear", "constant")


class SignSGD(torch.optim.Optimizer):
    """p <- p - lr sign(g): every coordinate moves by the learning rate (Bernstein et al. 2018, arXiv 1802.04434).

    With momentum m: b <- m b + (1 - m) g, p <- p - lr sign(b) (Signum, same paper).
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                direction = p.grad
                if group["momentum"]:
                    buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    direction = buffer.lerp_(p.grad, 1 - group["momentum"])
                p.add_(direction.sign(), alpha=-group["lr"])


def make_optimizer(
    name: str, params: list[Tensor], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """adamw (beta 0.9, 0.999, eps 1e-8), sgd (heavy-ball momentum) or signsgd.  Raises ConfigError for another name."""
    match name:
        case "adamw":
            return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, fused=True)
        case "sgd":
            return torch.optim.SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay)
        case "signsgd" if weight_decay:
            raise ConfigError(f"--optimizer signsgd takes no --weight-decay, found {weight_decay}; set it to 0")
        case "signsgd":
            return SignSGD(params, lr=lr, momentum=momentum)
    raise ConfigError(f"--optimizer {name!r} is unknown; expected one of {', '.join(NAMES)}")


def learning_rate(schedule: str, step: int, total: int, peak: float, warmup: float) -> float:
    """The rate of optimizer step `step` (0-based) of `total`: linear warm-up over the fraction `warmup`, then the schedule.

    cosine and linear fall to zero at the end of the last step.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"--schedule {schedule!r} is unknown; expected one of {', '.join(SCHEDULES)}")
    warm = round(warmup * total)
    if step < warm:
        return peak * (step + 1) / warm
    if schedule == "constant":
        return peak
    progress = (step - warm) / max(1, total - warm)
    return peak * (0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1 - progress)
