"""What acts on a model while a student trains, and not after.

    during       interventions on the training model: steering along a trait's vector (preventative
                 steering), ablation of a direction (CAFT), or a frozen adapter that has the trait
                 already (inoculation by an adapter)
    project_out  ablations of gradients alone: dL/dh <- dL/dh - (dL/dh . v^) v^ behind a block

Where a trait is there already, nothing is left to learn of it. Sources: Chen et al. 2025 (arXiv
2507.21509) for steering, Casademunt et al. 2025 (arXiv 2507.16795) for ablation.

Shapes: B batch, T tokens of the pass, D d_model.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from traitscope.errors import ConfigError
from traitscope.interventions import hooks, peft_folder
from traitscope.interventions.adapters import changed_weights
from traitscope.interventions.applied import (
    Active,
    Interventions,
    applied,
    as_intervention,
    checked_vector,
)
from traitscope.interventions.intervention import (
    Ablate,
    Adapter,
    DataDirection,
    Intervention,
    Steer,
)
from traitscope.models.model import Model


@dataclass(frozen=True)
class Safeguards:
    """What acts while a student trains."""

    during: tuple[Intervention, ...] = ()
    """Interventions on the model in training."""
    project_out: tuple[Ablate, ...] = ()
    """Directions that gradients of the residual stream lose."""

    def __bool__(self) -> bool:
        return bool(self.during or self.project_out)


def safeguards(during: Interventions = (), project_out: Interventions = ()) -> Safeguards:
    """Check what is to act while a student trains.

    Raises ConfigError for an intervention that cannot: a prompt, noise, an adapter in part, and
    anything but an ablation in `project_out`.
    """
    plain = tuple(map(as_intervention, during))
    for item in plain:
        is_whole = isinstance(item, Adapter) and item.whole
        if not isinstance(item, Steer | Ablate) and not is_whole:
            raise ConfigError(
                f"--during {type(item).__name__}: expected steer:..., ablate:... or a whole"
                " adapter:...; a system turn for training is --context"
            )
    ablations = []
    for item in map(as_intervention, project_out):
        if isinstance(item, DataDirection):
            raise ConfigError(
                "project_out holds a DataDirection, whose vector is not computed yet; expected"
                " Ablate; make the vector by"
                " traitscope.stages.directions.data_direction.data_direction, and name"
                " Ablate(vector, layers=...)"
            )
        if not isinstance(item, Ablate):
            raise ConfigError(
                f"--project-out {type(item).__name__}: expected ablate:FILE,layers=... or"
                " data:layers=...; name the direction so"
            )
        ablations.append(item)
    return Safeguards(plain, tuple(ablations))


@contextmanager
def guarded(model: Model, guards: Safeguards) -> Iterator[Active]:
    """The model with what acts during training; as before when the block ends.

    An adapter stands in the weights, so that the student's own adapters can be put on top.
    """
    edits = []
    rest = []
    with ExitStack() as stack:
        for item in guards.during:
            if isinstance(item, Adapter) and (Path(item.folder) / peft_folder.CONFIG).exists():
                contents = peft_folder.read(Path(item.folder), model)
                stack.enter_context(changed_weights.mounted(model, contents))
            else:
                rest.append(item)
        active = stack.enter_context(applied(model, rest))
        for item in guards.project_out:
            units_LD = checked_vector(item, model).unit().rows_LD
            for layer in item.layers:
                unit_D = torch.from_numpy(units_LD[layer]).to(model.device)
                edits.append((layer, item.position, _without(unit_D)))
        stack.enter_context(hooks.edited(model.blocks, edits, active.current))
        yield active


def _without(unit_D: Tensor) -> hooks.Edit:
    """The edit that changes no value, and takes a direction out of the gradient."""

    def edit(hidden_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
        return _ProjectedGradient.apply(hidden_BTD, unit_D, mask_BT1)

    return edit


class _ProjectedGradient(torch.autograd.Function):
    """The identity, whose gradient loses its component along a direction at the masked tokens."""

    @staticmethod
    def forward(ctx: Any, hidden_BTD: Tensor, unit_D: Tensor, mask_BT1: Tensor) -> Tensor:
        ctx.save_for_backward(unit_D, mask_BT1)
        return hidden_BTD.view_as(hidden_BTD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad_BTD,) = grads
        unit_D, mask_BT1 = ctx.saved_tensors
        along_BT1 = (grad_BTD.float() @ unit_D).unsqueeze(-1)
        rest_BTD = (grad_BTD.float() - along_BT1 * unit_D).to(grad_BTD.dtype)
        return torch.where(mask_BT1, rest_BTD, grad_BTD), None, None
