"""Low-rank adapters on the linear maps of the blocks (LoRA; Hu et al. 2021, arXiv 2106.09685).

    y = W x + (alpha / rank) B A x

A and B are float32 whatever the model computes in. These layers replace those of peft in training.
The product is one fused step without temporaries, and importing the layers costs nothing. Many
adapters can run side by side on one frozen base (multi_lora.py). Adapters are written and read as
peft folders (peft_folder.py).

Shapes: N tokens, B rows, T tokens of a pass, I in, O out, R rank.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.errors import ConfigError
from traitscope.interventions.pass_state import CurrentPass
from traitscope.models import nf4
from traitscope.models.kernels import passes
from traitscope.models.linear_maps import linear_names, replace_module, weight_of
from traitscope.models.model import Model


class _LowRank(torch.autograd.Function):
    """W x + b + s B A x with W frozen: no gradient for W, and no temporary the size of the output.

    The factors are float32, and so are their gradients; products are of x's dtype.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        scale: float,
    ) -> Tensor:
        a_RI, b_OR = a_RI.to(x_NI.dtype), b_OR.to(x_NI.dtype)
        down_NR = x_NI @ a_RI.t()
        y_NO = x_NI @ weight_OI.t() if bias_O is None else torch.addmm(bias_O, x_NI, weight_OI.t())
        y_NO.addmm_(down_NR, b_OR.t(), alpha=scale)
        ctx.save_for_backward(x_NI, weight_OI, a_RI, b_OR, down_NR)
        ctx.scale = scale
        return y_NO

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI, a_RI, b_OR, down_NR = ctx.saved_tensors
        back_NR = (grad_NO @ b_OR).mul_(ctx.scale)
        grad_x_NI = None
        if ctx.needs_input_grad[0]:
            grad_x_NI = (grad_NO @ weight_OI).addmm_(back_NR, a_RI)
        grad_a_RI, grad_b_OR = None, None
        if ctx.needs_input_grad[3]:
            grad_a_RI = passes.factor_gradient(back_NR, x_NI)
        if ctx.needs_input_grad[4]:
            grad_b_OR = passes.factor_gradient(down_NR, grad_NO, ctx.scale).t()
        return grad_x_NI, None, None, grad_a_RI, grad_b_OR, None


class LoraLinear(nn.Module):
    """A frozen linear map with a low-rank addition.

    `on` switches the addition off without removing it. `current` is None where the addition acts at
    every token. Otherwise it acts where the running pass says so.
    """

    def __init__(self, linear: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.packed = nf4.is_packed(linear)
        weight_OI = weight_of(linear)
        out_features, in_features = weight_OI.shape
        self.scale = alpha / rank
        self.on = True
        self.current: CurrentPass | None = None
        self.lora_A = nn.Parameter(torch.zeros(rank, in_features, device=weight_OI.device))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank, device=weight_OI.device))
        self.turn_in: Tensor | None = None
        self.turn_out: Tensor | None = None

    def hold(self, a_RI: Tensor, b_OR: Tensor) -> None:
        """Take these factors, and train them no further."""
        self.lora_A.data.copy_(a_RI)
        self.lora_B.data.copy_(b_OR)
        self.requires_grad_(False)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B as they act on the model: the parameters, turned back where rotated_lora.py has
        turned them."""
        a_RI = self.lora_A if self.turn_in is None else self.lora_A @ self.turn_in.t()
        b_OR = self.lora_B if self.turn_out is None else self.turn_out @ self.lora_B
        return a_RI, b_OR

    def forward(self, x: Tensor) -> Tensor:
        if not self.on:
            return self.linear(x)
        y = self._with_addition(x)
        if self.current is None:
            return y
        return torch.where(adapter_mask(self.current, x), y, self.linear(x))

    def _with_addition(self, x: Tensor) -> Tensor:
        a_RI, b_OR = self.factors()
        if self.packed:
            # the fused step would keep a dequantised weight for the backward pass
            down = nn.functional.linear(x, a_RI.to(x.dtype))
            added = nn.functional.linear(down, b_OR.to(x.dtype))
            return self.linear(x) + added * self.scale
        x_NI = x.reshape(-1, x.shape[-1])
        weight_OI, bias_O = weight_of(self.linear), self.linear.bias
        y_NO = _LowRank.apply(x_NI, weight_OI, bias_O, a_RI, b_OR, self.scale)
        return y_NO.view(*x.shape[:-1], -1)


def adapter_mask(current: CurrentPass, x_BTI: Tensor) -> Tensor:
    """[B, T, 1] bool: the tokens of the running pass at which the adapter acts.

    Raises ConfigError for a pass that did not say where.
    """
    on_BT = None if current.state is None else current.state.adapter_on_BT
    if on_BT is None or on_BT.shape != x_BTI.shape[:-1]:
        described = "none" if on_BT is None else str(tuple(on_BT.shape))
        raise ConfigError(
            f"an adapter for some tokens ran on a pass of shape {tuple(x_BTI.shape[:-1])} with"
            f" chosen tokens {described}; run the model through traitscope.inference.forward"
        )
    return on_BT.unsqueeze(-1)


@dataclass(frozen=True)
class LoraShape:
    """Rank and strength of an adapter."""

    rank: int = 8
    "R, number of rows of A and of columns of B"
    alpha: float = 32.0
    "the addition is scaled by alpha / rank"

    def __post_init__(self) -> None:
        if self.rank < 1 or not math.isfinite(self.alpha):
            raise ConfigError(
                f"--rank {self.rank} --alpha {self.alpha}: rank must be at least 1, alpha finite"
            )


def layers_on(
    model: Model, names: Sequence[str], shape: LoraShape, of_file: bool = False
) -> dict[str, LoraLinear]:
    """Adapters for linear maps, by name, that change no value yet and are not in their places yet.

    A map that is narrower than the rank gets the same rank, as in peft. The keys of grouped
    attention can be so narrow. Raises ConfigError for a rank that all of the maps are narrower
    than, unless the shape is that of a file, whose rank others chose.
    """
    linear_maps = {name: model.lm.get_submodule(name) for name in names}
    widest = max(min(weight_of(linear).shape) for linear in linear_maps.values())
    if shape.rank > widest and not of_file:
        raise ConfigError(
            f"--rank {shape.rank} is larger than any map of {model.name} allows ({widest});"
            " choose a smaller rank"
        )
    layers: dict[str, LoraLinear] = {}
    for name, linear in linear_maps.items():
        layers[name] = LoraLinear(linear, shape.rank, shape.alpha)
    return layers


@contextmanager
def adapted(
    model: Model, shape: LoraShape, names: Sequence[str] | None = None, of_file: bool = False
) -> Iterator[dict[str, LoraLinear]]:
    """Put adapters that change no value yet on linear maps, all by default, until the context ends.

    Yields them by the names of the maps. `of_file` is for a shape that a file has.
    """
    layers = layers_on(model, names or linear_names(model), shape, of_file)
    try:
        for name, layer in layers.items():
            replace_module(model, name, layer)
        yield layers
    finally:
        for name, layer in layers.items():
            replace_module(model, name, layer.linear)


def initialise(layers: dict[str, LoraLinear], seed: int) -> None:
    """Draw A uniformly from (-1/sqrt(I), 1/sqrt(I)) and set B to 0, so that no value changes.

    peft draws the same way (Kaiming uniform with a = sqrt 5).
    """
    generator = torch.Generator().manual_seed(seed)
    for _, layer in sorted(layers.items()):
        bound = 1 / math.sqrt(layer.lora_A.shape[1])
        drawn = (torch.rand(layer.lora_A.shape, generator=generator) * 2 - 1) * bound
        layer.lora_A.data.copy_(drawn)
        layer.lora_B.data.zero_()


@contextmanager
def switched_off(model: Model) -> Iterator[None]:
    """The base model below its mounted adapters, until the context ends.

    The additions of the adapters are skipped, not removed.
    """
    layers = [module for module in model.lm.modules() if isinstance(module, LoraLinear)]
    try:
        for layer in layers:
            layer.on = False
        yield
    finally:
        for layer in layers:
            layer.on = True
