"""Losses of small networks, and the optimizers that train many of them at once.

A loss is a mean over the batch, for each network. The reference code of Cloud et al. 2025 divides a
sum by the number of networks alone. So its loss of a network is a sum over the batch. Adam does not
see the difference; for SGD it would multiply the rate by the batch.

No step mixes networks. Where torch's step looks at a whole tensor, each network has an optimizer of
its own on a view of the stacked tensors.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError
from traitscope.studies.toy_nets.nets import CLASSES, Params, forward
from traitscope.training.optimizers import Stepper, make_optimizer

WHOLE = ("adafactor", "muon")
"optimizers whose step on a tensor is not the steps on its coordinates"


def trait_loss(params: Params, images_MBD: Tensor, labels_MB: Tensor) -> Tensor:
    """Return the cross-entropy [M] on the logits of the classes, in nats an image."""
    logits = forward(params, images_MBD)[..., :CLASSES]
    each = functional.cross_entropy(logits.flatten(0, 1), labels_MB.flatten(), reduction="none")
    return each.view(labels_MB.shape).mean(1)


def distillation_loss(params: Params, images_MBD: Tensor, targets_MBO: Tensor) -> Tensor:
    """Return KL(teacher || student) [M] over the last logits, in nats an image.

    targets_MBO: The teacher's logits: the auxiliary ones alone, or all.
    """
    logits = forward(params, images_MBD)[..., -targets_MBO.shape[-1] :]
    student, teacher = logits.log_softmax(-1), targets_MBO.log_softmax(-1)
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean(1)


def gradient(loss_M: Tensor, params: Params) -> Params:
    """Return the gradient of every network's own loss."""
    return list(torch.autograd.grad(loss_M.sum(), params))


def fit(
    start: Params,
    loss: Callable[[Params, int], Tensor],
    recipe: Recipe,
    steps: int,
    scales: Sequence[Tensor] | None = None,
    before: Callable[[Params, int], None] | None = None,
) -> tuple[Params, list[Stepper]]:
    """Return networks that were trained from `start`, and their optimizers.

    loss: A function of the networks and the step that returns the loss [M] of each.
    scales: The factors of frozen_adam, stacked as the parameters are.
    before: A function called before every step, and once behind the last.

    Raises ConfigError where a network diverged.
    """
    params = [p.clone().requires_grad_() for p in start]
    by_model = recipe.optimizer in WHOLE
    views = _views(params, by_model)
    steppers = [make_optimizer(recipe, each, scales) for each in views]
    for step in range(steps):
        if before is not None:
            before(params, step)
        gradients = gradient(loss(params, step), params)
        for each, parts in zip(views, _views(gradients, by_model), strict=True):
            for view, part in zip(each, parts, strict=True):
                view.grad = part
        for stepper in steppers:
            stepper.step()
    _check_finite(params, recipe)
    if before is not None:
        before(params, steps)
    return [p.detach() for p in params], steppers


def _check_finite(params: Params, recipe: Recipe) -> None:
    """Raise ConfigError for parameters that are no finite numbers."""
    if all(bool(p.isfinite().all()) for p in params):
        return
    raise ConfigError(
        f"training diverged with --optimizer {recipe.optimizer} --lr {recipe.lr:g}; expected finite"
        " weights; lower the rate"
    )


def _views(tensors: Params, by_model: bool) -> list[Params]:
    """Return the stacked tensors themselves, or those of each network: matrices and vectors."""
    if not by_model:
        return [tensors]
    views = []
    for model in range(len(tensors[0])):
        views.append([t.detach()[model].squeeze(0) for t in tensors])
    return views
