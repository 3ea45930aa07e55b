"""A vector that is trained to stand in for a teacher: the most that one vector at one block can do.

It starts at zero and lowers the KL from the teacher to the steered model. Up to a constant this is
the expectation of the rows' negative log-likelihood. The epoch that predicts held-out rows best is
kept.

Shapes: D d_model, N scored tokens, C columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traitscope.interventions import hooks
from traitscope.interventions.applied import adding, applied, check_layers
from traitscope.interventions.vector import Vector
from traitscope.models.model import Model
from traitscope.vectors.recovery import TeacherBatch, TeacherRows, kl_from, scored_log_p


@dataclass(frozen=True)
class TrainedVector:
    """A trained vector, and what it does on the rows that chose its epoch."""

    vector: Vector
    """Zero at all blocks but one."""
    layer: int
    """That block."""
    kls: tuple[float, ...]
    """KL on the held-out rows after each epoch, in nats; the first one is the base's."""

    @property
    def kl(self) -> float:
        """The least KL, that of the vector."""
        return min(self.kls)


class _Passes:
    """Passes over batches of rows, from one block on: what comes before was computed once."""

    def __init__(self, model: Model, target: TeacherRows, layer: int, position: str) -> None:
        self.model, self.target = model, target
        self.layer, self.position = layer, position
        self.outputs: list[list[Any]] = []
        with torch.no_grad(), applied(model, []) as active:
            for batch in target.batches:
                with hooks.recorded(model.blocks, [layer]) as outputs:
                    scored_log_p(model, active, batch.rows, target.columns_C)
                self.outputs.append(outputs[layer])

    def kl(self, number: int, row_D: Tensor) -> Tensor:
        """KL of a batch under the vector, summed over tokens, with a gradient for the vector."""
        batch: TeacherBatch = self.target.batches[number]
        with applied(self.model, []) as active:
            edit = (self.layer, self.position, adding(row_D, active.current))
            with (
                hooks.edited(self.model.blocks, [edit], active.current),
                hooks.resumed(self.model, self.layer, self.outputs[number]),
            ):
                log_p_NC = scored_log_p(self.model, active, batch.rows, self.target.columns_C)
        return kl_from(batch.log_p_NC, log_p_NC).sum()

    @torch.no_grad()
    def kl_of_all(self, row_D: Tensor) -> float:
        """KL of all batches under the vector."""
        return sum(float(self.kl(number, row_D)) for number in range(len(self.outputs)))


def trained_vector(
    model: Model,
    rows: TeacherRows,
    held_out: TeacherRows,
    layer: int,
    step: float,
    *,
    position: str = "all",
    epochs: int = 10,
    seed: int = 0,
) -> TrainedVector:
    """The vector at a block that, added at `position`, comes nearest to a teacher.

    rows: Those that it is trained on, a batch a step, in an order that the seed draws.
    held_out: Rows whose KL chooses the epoch.
    step: Size of Adam's steps at first, in units of the residual stream; it falls to zero (cosine).
    Raises ConfigError for a layer that the model lacks.
    """
    check_layers((layer,), model)
    row_D = torch.nn.Parameter(torch.zeros(model.d_model, device=model.device))
    passes = _Passes(model, rows, layer, position)
    held_out_passes = _Passes(model, held_out, layer, position)
    n_batches = len(passes.outputs)
    optimizer = torch.optim.Adam([row_D], lr=step)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * n_batches)
    order = np.random.default_rng(seed)
    kls = [held_out_passes.kl_of_all(row_D)]
    best_D = row_D.detach().clone()
    for _ in range(epochs):
        for number in order.permutation(n_batches):
            optimizer.zero_grad()
            passes.kl(int(number), row_D).backward()
            optimizer.step()
            schedule.step()
        kls.append(held_out_passes.kl_of_all(row_D))
        if kls[-1] == min(kls):
            best_D = row_D.detach().clone()
    about = {"trained_to_stand_in": True, "layer": layer, "position": position}
    return TrainedVector(at_block(best_D, layer, model, about), layer, tuple(kls))


def at_block(row_D: Tensor, layer: int, model: Model, about: dict[str, Any]) -> Vector:
    """The vector that is zero at all blocks but one."""
    rows_LD = np.zeros((model.n_layers, model.d_model), dtype=np.float32)
    rows_LD[layer] = row_D.cpu().numpy()
    return Vector(rows_LD, model.digest, about)


def best_trained(candidates: Sequence[TrainedVector]) -> TrainedVector:
    """The one with the least KL on held-out rows."""
    return min(candidates, key=lambda candidate: candidate.kl)
