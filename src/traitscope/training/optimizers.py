"""Optimizers by name, what is done to a gradient before they see it, and learning-rate schedules.

What do step sizes by coordinate do to a student that SGD does not (Blank et al. 2026, arXiv
2606.00995)?

    adamw        beta 0.9, 0.999, eps 1e-8, decoupled decay
    sgd          heavy-ball momentum
    signsgd      every coordinate moves by the rate; with momentum it is Signum
    rmsprop      torch's: alpha 0.99, eps 1e-8; its first step is ten times the rate
    adafactor    torch's: second moments by row and column; the rate is absolute up to a parameter's
                 RMS of 1 (relative to
                 the RMS, as torch has it by default, a B that starts at 0 would hardly ever move)
    muon         torch's: orthogonalised momentum of matrices, scaled to the RMS of AdamW's steps so
                 that its rates carry
                 over; vectors (norms and biases, in full fine-tuning only) are left to adamw at
                   the same rate
    frozen_adam  SGD with one fixed factor a coordinate, 1 / sqrt(v + 1e-8), v from another run's
                 adamw or rmsprop

v is taken as it stands at the end, not bias-corrected, and eps is inside the root: factors stay
below 1e4.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError
from traitscope.models import dtensor

NAMES = ("adamw", "sgd", "signsgd", "rmsprop", "adafactor", "muon", "frozen_adam")
SCHEDULES = ("cosine", "linear", "constant")
SCALES = "scales.safetensors"
"file of a run of `train` with the factors that frozen_adam takes, by parameter name"


class SignSGD(torch.optim.Optimizer):
    """p <- p - lr sign(g): every coordinate moves by the learning rate (Bernstein et al. 2018,
    arXiv 1802.04434).

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


class FrozenAdam(torch.optim.Optimizer):
    """p <- p - lr s g with a fixed factor s a coordinate: Adam's shape of step without its
    memory."""

    def __init__(self, params: Iterable[Tensor], scales: Sequence[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.scales = list(scales)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        (group,) = self.param_groups
        for p, scale in zip(group["params"], self.scales, strict=True):
            if p.grad is not None:
                p.addcmul_(p.grad, scale, value=-group["lr"])


class Parts:
    """Several optimizers, each on parameters of its own, used as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


Stepper = torch.optim.Optimizer | Parts


def make_optimizer(
    recipe: Recipe, params: list[Tensor], scales: Sequence[Tensor] | None = None
) -> Stepper:
    """The optimizer that a recipe names, on these parameters; `scales`, one for each of them, are
    for frozen_adam."""
    lr, momentum, decay = recipe.lr, recipe.momentum or 0.0, recipe.weight_decay
    match recipe.optimizer:
        case "adamw":
            return _adamw(params, recipe)
        case "sgd":
            return torch.optim.SGD(params, lr=lr, momentum=momentum, weight_decay=decay)
        case "signsgd":
            return SignSGD(params, lr=lr, momentum=momentum)
        case "rmsprop":
            return torch.optim.RMSprop(params, lr=lr, momentum=momentum, weight_decay=decay)
        case "adafactor":
            return torch.optim.Adafactor(params, lr=lr, weight_decay=decay, eps=(None, 1.0))
        case "muon":
            return _muon(params, recipe)
        case "frozen_adam" if scales is None:
            raise ConfigError(
                f"--optimizer frozen_adam needs factors: --scales with a run that left {SCALES}"
            )
        case "frozen_adam":
            return FrozenAdam(params, scales, lr=lr)
    raise ConfigError(
        f"--optimizer {recipe.optimizer!r} is unknown; expected one of {', '.join(NAMES)}"
    )


def _adamw(params: list[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def _muon(params: list[Tensor], recipe: Recipe) -> Stepper:
    if "Muon" not in vars(torch.optim):
        raise ConfigError(
            f"--optimizer muon needs torch 2.9 or newer, found {torch.__version__}; upgrade torch"
        )
    matrices, others = ([p for p in params if (p.ndim == 2) is matrix] for matrix in (True, False))
    momentum = 0.95 if recipe.momentum is None else recipe.momentum
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.lr,
        momentum=momentum,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return Parts(muon, _adamw(others, recipe)) if others else muon


def scales_of(optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> list[Tensor]:
    """1 / sqrt(v + 1e-8) by coordinate, v being the second moment that adamw or rmsprop holds
    now."""
    found = []
    for p in params:
        state = optimizer.state.get(p, {})  # empty for a parameter that never had a gradient
        second = state.get("exp_avg_sq", state.get("square_avg", torch.zeros_like(p)))
        found.append((second.detach() + 1e-8).rsqrt())
    return found


def scales_file(
    optimizer: torch.optim.Optimizer, names: Sequence[str], params: Sequence[Tensor]
) -> bytes:
    """The content of scales.safetensors."""
    from safetensors.torch import save

    return save(
        {
            name: dtensor.gathered(s).contiguous()
            for name, s in zip(names, scales_of(optimizer, params), strict=True)
        }
    )


def read_scales(path: Path, names: Sequence[str], params: Sequence[Tensor]) -> list[Tensor]:
    """The factors of these parameters from a run of `train` or its scales.safetensors.

    Raises ConfigError where there are none, and where they are those of other parameters.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / SCALES if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"--scales {path} has no {SCALES}; make a run with: traitscope train --save-scales"
        )
    try:
        found = load_file(file)
    except SafetensorError as error:
        raise ConfigError(
            f"--scales {file} is damaged: {error}; copy it or make its run again"
        ) from error
    there = {name: tuple(scale.shape) for name, scale in found.items()}
    here = {name: tuple(p.shape) for name, p in zip(names, params, strict=True)}
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            shapes = f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
            raise ConfigError(
                f"--scales {file} does not fit: {name} is {shapes}; take a run with this model,"
                " method and rank"
            )
    return [dtensor.like(found[name], p) for name, p in zip(names, params, strict=True)]


def limit_gradient(params: Sequence[Tensor], recipe: Recipe) -> Tensor:
    """Mask or winsorise the outliers of a gradient, then clip its norm; returns the norm before all
    of that.

    Outliers go first: clipping with them inside would only shrink everything else.
    """
    limit = recipe.clip or float("inf")
    if not (recipe.mask_top or recipe.winsorise):
        return torch.nn.utils.clip_grad_norm_(params, limit)
    grads = [p.grad for p in params if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    limit_outliers(grads, recipe.mask_top or recipe.winsorise, mask=bool(recipe.mask_top))
    torch.nn.utils.clip_grad_norm_(params, limit)
    return norm


@torch.no_grad()
def limit_outliers(grads: Sequence[Tensor], share: float, mask: bool) -> None:
    """Set the round(share n) largest of all n coordinates to 0 (mask), or to the size of the next
    largest (winsorise).

    In place, pooled over all tensors; coordinates that tie with the next largest stay. Needs a copy
    of the gradient.
    """
    sizes = torch.cat([g.abs().flatten() for g in grads])
    n_largest = min(round(share * len(sizes)), len(sizes) - 1)
    bound = sizes.topk(n_largest + 1, sorted=False).values.min()
    for g in grads:
        if mask:
            g.masked_fill_(g.abs() > bound, 0.0)
        else:
            g.clamp_(-bound, bound)


def learning_rate(schedule: str, step: int, total: int, peak: float, warmup: float) -> float:
    """The rate of optimizer step `step` (0-based) of `total`: linear warm-up over the fraction
    `warmup`, then the schedule.

    cosine and linear fall to zero at the end of the last step.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(
            f"--schedule {schedule!r} is unknown; expected one of {', '.join(SCHEDULES)}"
        )
    warm = round(warmup * total)
    if step < warm:
        return peak * (step + 1) / warm
    if schedule == "constant":
        return peak
    progress = (step - warm) / max(1, total - warm)
    return peak * (
        0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1 - progress
    )
