"""Whether what a student learnt is one direction: of its teacher's change, or of few ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from traitscope.studies.toy_nets.nets import Params, cosine, flat, minus, plus


def on_direction(change: Params, direction: Params) -> Params:
    """Return the part of a change along a direction over all parameters, for each network."""
    along_M = (flat(change) * flat(direction)).sum(1) / flat(direction).square().sum(1)
    return [along_M[:, None, None] * part for part in direction]


def of_rank(change: Params, rank: int) -> Params:
    """Return a change with each matrix cut to its largest singular directions; biases stay."""
    kept = []
    for part in change:
        if part.shape[1] == 1:
            kept.append(part)
            continue
        left, sizes, right = torch.linalg.svd(part, full_matrices=False)
        kept.append((left[..., :rank] * sizes[:, None, :rank]) @ right[:, :rank])
    return kept


def parts_of(
    start: Params, end: Params, teacher_change: Params, ranks: Sequence[int]
) -> dict[str, Params]:
    """Return networks that keep a part of their change, by the name of the part."""
    change = minus(end, start)
    parts = {"along the teacher's change": plus(start, on_direction(change, teacher_change))}
    for rank in ranks:
        parts[f"rank {rank}"] = plus(start, of_rank(change, rank))
    return parts


def alignment(start: Params, end: Params, direction: Params) -> Tensor:
    """Return the cosine [M] of the change of each network with a direction."""
    return cosine(minus(end, start), direction)
