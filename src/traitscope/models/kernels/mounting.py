"""Norms, MLPs and rotary embeddings of a model that compute by compiled passes.

A module is taken over by what it computes, not by its name. On random tokens the compiled pass
must give what the module itself gives, up to rounding. Where a weight is sharded or not on a CPU,
the module computes as before.
"""

from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.models.kernels import compiled, passes

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"largest difference from the module itself, as a share of its largest value"
TRIED = 3
"tokens that a module is tried on"
ROTARY = "apply_rotary_pos_emb"
"name of the function that turns queries and keys, in the modules of transformers"


def mount(lm: nn.Module) -> None:
    """Let the norms and MLPs of a model compute by compiled passes, as far as these do the same."""
    if compiled.library() is None:
        return
    known: dict[tuple, bool] = {}
    for module in lm.modules():
        forward = _forward_for(module)
        if forward is None:
            continue
        kind = (type(module), forward, *(tuple(p.shape) for p in module.parameters()))
        if kind not in known:
            known[kind] = _agrees(module, forward)
        if known[kind]:
            module.forward = MethodType(forward, module)
    _mount_rotary(lm)


def _mount_rotary(lm: nn.Module) -> None:
    """Let attention modules turn queries and keys by the compiled pass.

    A module's own forward pass gets another `apply_rotary_pos_emb`; nobody else's does.
    """
    known: dict[FunctionType, FunctionType | None] = {}
    dtype = next(lm.parameters()).dtype
    for module in lm.modules():
        forward = type(module).forward
        if not isinstance(forward, FunctionType) or ROTARY not in forward.__code__.co_names:
            continue
        if forward not in known:
            known[forward] = _with_rotary(forward, dtype)
        of_kind = known[forward]
        if of_kind is not None and "forward" not in vars(module):
            module.forward = MethodType(of_kind, module)


def _with_rotary(forward: FunctionType, dtype: torch.dtype) -> FunctionType | None:
    """A forward pass that turns by the compiled pass; None where that would compute otherwise."""
    of_family = forward.__globals__.get(ROTARY)
    if of_family is None or dtype not in TOLERANCE:
        return None
    turned = partial(_rotary_pair, of_family)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 2, TRIED, 8, generator=generator).to(dtype)
    cos, sin = torch.randn(2, 1, TRIED, 8, generator=generator).to(dtype)
    try:
        pairs = zip(of_family(query, key, cos, sin), turned(query, key, cos, sin), strict=True)
        agree = all(_are_close(alone, fused) for alone, fused in pairs)
    except (TypeError, ValueError, RuntimeError):  # a function of other arguments
        return None
    if not agree:
        return None
    names = {**forward.__globals__, ROTARY: turned}
    made = FunctionType(
        forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    made.__kwdefaults__ = forward.__kwdefaults__
    return made


def _rotary_pair(
    of_family: Callable,
    query: Tensor,
    key: Tensor,
    cos: Tensor,
    sin: Tensor,
    *more: Any,
    **named: Any,
) -> tuple[Tensor, Tensor]:
    """Queries and keys, turned; by the function of the family where the pass does not take them."""
    fits = not (more or named)
    if fits and passes.takes_angles(query, cos, sin) and passes.takes_angles(key, cos, sin):
        return passes.rotary(query, cos, sin), passes.rotary(key, cos, sin)
    turned: tuple[Tensor, Tensor] = of_family(query, key, cos, sin, *more, **named)
    return turned


def _forward_for(module: nn.Module) -> Any:
    """The forward pass that may stand for the module's own; None where none may."""
    if isinstance(getattr(module, "weight", None), nn.Parameter) and _epsilon(module) is not None:
        is_norm = module.weight.dim() == 1 and getattr(module, "bias", None) is None
        return _norm_forward if is_norm else None
    has_gate = all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj"))
    return _mlp_forward if has_gate and hasattr(module, "act_fn") else None


def _epsilon(module: nn.Module) -> float | None:
    """The small number that a norm adds, whatever its family calls it."""
    value = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return value if isinstance(value, float) else None


def _norm_forward(self: Any, hidden_states: Tensor) -> Tensor:
    if not compiled.usable(hidden_states, self.weight):
        out: Tensor = type(self).forward(self, hidden_states)
        return out
    epsilon = _epsilon(self)
    assert epsilon is not None
    return passes.norm(hidden_states, self.weight, epsilon)


def _mlp_forward(self: Any, x: Tensor) -> Tensor:
    gate, up = self.gate_proj(x), self.up_proj(x)
    both = passes.gated(gate, up) if compiled.usable(gate, up) else self.act_fn(gate) * up
    out: Tensor = self.down_proj(both)
    return out


def _agrees(module: nn.Module, forward: Any) -> bool:
    """Whether a forward pass gives what the module's own gives, on random tokens."""
    first = next(module.parameters())
    if first.dtype not in TOLERANCE or not first.is_cpu:
        return False
    width = first.shape[-1]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, TRIED, width, generator=generator).to(first.dtype)
    with torch.no_grad():
        alone, fused = module(x), forward(module, x)
    return _are_close(alone, fused)


def _are_close(alone: Tensor, fused: Tensor) -> bool:
    """Whether a pass gives what a module gives, up to rounding."""
    if alone.shape != fused.shape or alone.dtype != fused.dtype:
        return False
    difference = (alone.float() - fused.float()).abs().max()
    return bool(difference <= TOLERANCE[alone.dtype] * alone.float().abs().max())
