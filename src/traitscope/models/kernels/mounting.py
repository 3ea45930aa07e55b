"""Norms and MLPs of a model that compute by compiled passes.

A module is taken over by what it computes, not by its name. On random tokens the compiled pass
must give what the module itself gives, up to rounding. Where a weight is sharded or not on a CPU,
the module computes as before.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.models.kernels import compiled, passes

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"largest difference from the module itself, as a share of its largest value"
TRIED = 3
"tokens that a module is tried on"


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
    if alone.shape != fused.shape or alone.dtype != fused.dtype:
        return False
    difference = (alone.float() - fused.float()).abs().max()
    return bool(difference <= TOLERANCE[first.dtype] * alone.float().abs().max())
