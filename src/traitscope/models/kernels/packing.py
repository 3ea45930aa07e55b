"""Weights of linear maps in the order in which the processor takes them, while rows are decoded.

A decoding step multiplies few tokens by every weight. torch then puts each weight in another order
first, in every step anew. Here it is done once, by the same library (oneDNN), so that no bit of a
product changes.

Shapes: N tokens, I in, O out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

MOST_BYTES = 2**30
"largest memory of the weights that are kept twice"
FEWEST_STEPS = 32
"passes from which it pays to pack the weights first"
ROWS = 128
"tokens of a product that the order is best for; it serves for any number"


@contextmanager
def packed_weights(lm: nn.Module, steps: int) -> Iterator[None]:
    """Let a model's linear maps multiply by packed weights, as far as memory is granted.

    Only maps in bf16 on a CPU are packed; others compute as before. No gradient can be taken.

    steps: Passes that follow; for fewer than FEWEST_STEPS nothing is packed.
    """
    packed: list[nn.Module] = []
    room = MOST_BYTES
    try:
        for module in lm.modules():
            if steps < FEWEST_STEPS or not can_be_packed(module):
                continue
            room -= module.weight.nbytes
            if room < 0:
                break
            weight = module.weight.detach()
            packed_OI = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
            module.forward = partial(_product, module, packed_OI, weight.data_ptr())
            packed.append(module)
        yield
    finally:
        for module in packed:
            del module.forward


def can_be_packed(module: nn.Module) -> bool:
    """Whether a module is a plain linear map that torch multiplies by oneDNN in half precision."""
    if type(module) is not nn.Linear or "forward" in vars(module):
        return False
    weight = module.weight
    is_plain = type(weight) is nn.Parameter and weight.is_cpu and weight.is_contiguous()
    return is_plain and weight.dtype == torch.bfloat16 and _is_supported()


def is_packed(module: nn.Module) -> bool:
    """Whether a map multiplies by a packed weight now."""
    forward = vars(module).get("forward")
    return isinstance(forward, partial) and forward.func is _product


def _is_supported() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _product(linear: nn.Linear, packed_OI: Tensor, place: int, x: Tensor) -> Tensor:
    """x [..., I] times a packed weight, as [..., O].

    Where the map has another weight now, as in a pass of the base, it multiplies by that one. The
    place is the address of the weight that was packed.
    """
    if linear.weight.data_ptr() != place:
        return nn.functional.linear(x, linear.weight, linear.bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed_OI, linear.bias, "none", [], "")
    return out
