"""Tensors of which each process of torchrun holds a part."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from traitscope import distributed


def in_parts(tensor: Tensor) -> bool:
    """Whether this process holds only a part of a tensor."""
    if distributed.world() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """A tensor in one piece; all processes must ask for one that is in parts."""
    return tensor.detach().full_tensor() if in_parts(tensor) else tensor.detach()


def gathered(tensor: Tensor) -> Tensor:
    """A tensor in one piece, in the memory of the first process; the others must ask, too, and get
    an empty one."""
    found = whole(tensor)
    return found.cpu() if distributed.first() else found.new_empty(0)


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor that every process has, on the device of `other`, in parts where that is."""
    tensor = tensor.to(other.device)
    if not in_parts(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)


def laid_out(state: dict[str, Any], params: Sequence[Tensor]) -> dict[str, Any]:
    """The whole state of an optimizer, in parts as its parameters are."""
    if not any(map(in_parts, params)):
        return state
    each = {
        n: {key: like(x, params[n]) if x.shape == params[n].shape else x for key, x in own.items()}
        for n, own in state["state"].items()
    }
    return state | {"state": each}
