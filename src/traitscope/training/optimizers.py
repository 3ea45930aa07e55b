"""Optimizers by name, limits on gradients, and learning-rate schedules.

They serve one question: what do step sizes by coordinate do to a student that SGD does not (Blank
et al. 2026, arXiv 2606.00995)?

    adamw        beta 0.9, 0.999, eps 1e-8, decoupled decay
    sgd          heavy-ball momentum
    signsgd      every coordinate moves by the rate; with momentum it is Signum
    rmsprop      torch's: alpha 0.99, eps 1e-8; its first step is ten times the rate
    adafactor    torch's: second moments by row and column. The rate is absolute up to a parameter's
                 RMS of 1. Relative to the RMS, which is torch's default, a B that starts at 0 would
                 hardly ever move.
    muon         torch's: orthogonalised momentum of matrices, scaled to the RMS of AdamW's steps,
                 so that its rates carry over. Vectors are left to adamw at the same rate: norms and
                 biases, in full fine-tuning only.
    frozen_adam  SGD with one fixed factor a coordinate, 1 / sqrt(v + 1e-8), where v is the second
                 moment of another run's adamw or rmsprop

The second moment v is taken as it stands at the end, without bias correction. As eps is inside the
root, factors stay below 1e4.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from traitscope import array_files
from traitscope.config.recipe import Optimizer, Recipe, Schedule
from traitscope.errors import ConfigError
from traitscope.models import dtensor

NAMES = get_args(Optimizer)
SCHEDULES = get_args(Schedule)
SCALES = "scales.safetensors"
"file of a run of `train` with the factors that frozen_adam takes, by parameter name"


class SignSGD(torch.optim.Optimizer):
    """p <- p - lr sign(g): every coordinate moves by the learning rate.

    With momentum m it is Signum: b <- m b + (1 - m) g, p <- p - lr sign(b). Both are from Bernstein
    et al. 2018, arXiv 1802.04434.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                direction = p.grad
                if group["momentum"]:
                    buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    direction = buffer.lerp_(p.grad, 1 - group["momentum"])
                p.add_(direction.sign(), alpha=-group["lr"])


class FrozenAdam(torch.optim.Optimizer):
    """p <- p - lr s g, with a fixed factor s for each coordinate.

    A step has the shape of Adam's, without its memory.
    """

    def __init__(self, params: Iterable[Tensor], scales: Sequence[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.scales = list(scales)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        (group,) = self.param_groups
        for p, scale in zip(group["params"], self.scales, strict=True):
            if p.grad is not None:
                p.addcmul_(p.grad, scale, value=-group["lr"])


class OptimizerGroup:
    """Several optimizers, each on parameters of its own, used as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        groups = []
        for part in self.parts:
            groups += part.param_groups
        return groups

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


Stepper = torch.optim.Optimizer | OptimizerGroup


def make_optimizer(
    recipe: Recipe, params: list[Tensor], scales: Sequence[Tensor] | None = None
) -> Stepper:
    """The optimizer that a recipe names, on some parameters.

    scales: the factors of frozen_adam, one tensor for each parameter.
    """
    lr = recipe.lr
    momentum = recipe.momentum or 0.0
    decay = recipe.weight_decay
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
        f"--optimizer {recipe.optimizer!r} is unknown; expected one of {', '.join(NAMES)}; name one"
    )


def _adamw(params: list[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def _muon(params: list[Tensor], recipe: Recipe) -> Stepper:
    if "Muon" not in vars(torch.optim):
        raise ConfigError(
            f"--optimizer muon needs torch 2.9 or newer, found {torch.__version__}; upgrade torch"
        )
    matrices, others = [], []
    for parameter in params:
        if parameter.ndim == 2:
            matrices.append(parameter)
        else:
            others.append(parameter)
    momentum = 0.95 if recipe.momentum is None else recipe.momentum
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.lr,
        momentum=momentum,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return OptimizerGroup(muon, _adamw(others, recipe)) if others else muon


def scales_of(optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> list[Tensor]:
    """1 / sqrt(v + 1e-8) by coordinate; v is the second moment that adamw or rmsprop holds now."""
    scales = []
    for p in params:
        state = optimizer.state.get(p, {})  # empty for a parameter that never had a gradient
        second_moment = state.get("exp_avg_sq", state.get("square_avg", torch.zeros_like(p)))
        scales.append((second_moment.detach() + 1e-8).rsqrt())
    return scales


def scales_file(
    optimizer: torch.optim.Optimizer, names: Sequence[str], params: Sequence[Tensor]
) -> bytes:
    """The content of scales.safetensors."""
    from safetensors.torch import save

    tensors = {}
    for name, scale in zip(names, scales_of(optimizer, params), strict=True):
        tensors[name] = dtensor.gathered(scale).contiguous()
    return save(tensors)


def read_scales(path: Path, names: Sequence[str], params: Sequence[Tensor]) -> list[Tensor]:
    """The factors of some parameters, from a run of `train` or its scales.safetensors.

    Raises ConfigError where the file is missing or damaged, or holds other parameters.
    """
    file = path / SCALES if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"--scales {path} has no {SCALES}; make a run with: traitscope train --save-scales"
        )
    try:
        scales = array_files.read_tensors(file)
    except ValueError as error:
        raise ConfigError(
            f"--scales {file} is damaged: {error}; copy it or make its run again"
        ) from error
    parameter_of = dict(zip(names, params, strict=True))
    for name in sorted(scales.keys() | parameter_of.keys()):
        there, here = _shape_of(scales.get(name)), _shape_of(parameter_of.get(name))
        if there != here:
            raise ConfigError(
                f"--scales {file} does not fit: {name} is {there} there and {here} here; take a run"
                " with this model, method and rank"
            )
    return [dtensor.like(scales[name], p) for name, p in parameter_of.items()]


def _shape_of(tensor: Tensor | None) -> tuple[int, ...] | str:
    return "missing" if tensor is None else tuple(tensor.shape)


def limit_gradient(params: Sequence[Tensor], recipe: Recipe) -> Tensor:
    """Mask or winsorise the outliers of a gradient, then clip its norm.

    Returns the norm before all of that. Outliers go first: clipping with them inside would only
    shrink everything else.
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
def limit_outliers(grads: Sequence[Tensor], fraction: float, mask: bool) -> None:
    """Set the round(fraction n) largest of all n coordinates to 0, or to the next largest size.

    mask: 0; else the size of the largest coordinate that stays (winsorising).
    Works in place, and pools all tensors. Coordinates that tie with the next largest stay. Needs a
    copy of the gradient.
    """
    sizes = torch.cat([g.abs().flatten() for g in grads])
    n_largest = min(round(fraction * len(sizes)), len(sizes) - 1)
    bound = sizes.topk(n_largest + 1, sorted=False).values.min()
    for g in grads:
        if mask:
            g.masked_fill_(g.abs() > bound, 0.0)
        else:
            g.clamp_(-bound, bound)


def learning_rate(schedule: str, step: int, total: int, peak: float, warmup: float) -> float:
    """The learning rate of optimizer step `step`, counted from 0, of `total`.

    It rises linearly over the fraction `warmup` of all steps, up to `peak`. Then it follows the
    schedule; cosine and linear fall to zero at the end of the last step.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(
            f"--schedule {schedule!r} is unknown; expected one of {', '.join(SCHEDULES)}; name one"
        )
    warm = round(warmup * total)
    if step < warm:
        return peak * (step + 1) / warm
    if schedule == "constant":
        return peak
    progress = (step - warm) / max(1, total - warm)
    if schedule == "linear":
        return peak * (1 - progress)
    return peak * (0.5 * (1 + math.cos(math.pi * progress)))
