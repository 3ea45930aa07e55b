"""Tensors that are split over the processes of torchrun."""

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
    """A detached tensor in one piece. For a tensor in parts, all processes must call this."""
    return tensor.detach().full_tensor() if in_parts(tensor) else tensor.detach()


def gathered(tensor: Tensor) -> Tensor:
    """A tensor in one piece in the first process's memory, and an empty tensor in the others.

    All processes must call this.
    """
    complete = whole(tensor)
    return complete.cpu() if distributed.first() else complete.new_empty(0)


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor on the device of `other`, and in parts where `other` is in parts.

    Every process must hold the whole tensor.
    """
    tensor = tensor.to(other.device)
    if not in_parts(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)


def laid_out(state: dict[str, Any], params: Sequence[Tensor]) -> dict[str, Any]:
    """The whole state of an optimizer, in parts where its parameters are in parts."""
    if not any(map(in_parts, params)):
        return state
    states: dict[int, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        states[index] = {}
        for name, value in entries.items():
            same_shape = value.shape == params[index].shape
            states[index][name] = like(value, params[index]) if same_shape else value
    return {**state, "state": states}
