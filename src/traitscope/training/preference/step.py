"""One optimizer step on pairs: the loss of DPO (Rafailov et al. 2023, arXiv 2305.18290).

    logit = beta (log p(chosen) / p(rejected) - log p_base(chosen) / p_base(rejected))
    loss  = mean over pairs of -log sigmoid(logit)

A student trains alone: its passes are not shared with other students.

Shapes: R pairs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from traitscope.config.recipe import Recipe
from traitscope.inference.token_rows import Row
from traitscope.interventions.applied import Active
from traitscope.models.model import Model
from traitscope.training.preference.pairs import Pair, log_odds
from traitscope.training.step import Metrics, StudentBatch, advance, step_metrics
from traitscope.training.student import Student


def pair_logits(
    model: Model, active: Active, beta: float, rows: Sequence[Row], pairs: Sequence[Pair]
) -> Tensor:
    """The logit of each pair [R]: above 0 where the student prefers the chosen answer more than its
    base does."""
    rejected = [pair.rejected for pair in pairs]
    references = [pair.reference for pair in pairs]
    moved_R = log_odds(model, active, rows, rejected)
    return beta * (moved_R - torch.tensor(references, device=moved_R.device))


def pair_losses(logits_R: Tensor) -> Tensor:
    """The loss of each pair [R], in nats."""
    return -torch.nn.functional.logsigmoid(logits_R)


def take_pair_step(model: Model, batch: StudentBatch) -> list[float]:
    """Take one optimizer step on the pairs of a batch; returns what `pair_metrics` reads."""
    rows, pairs = batch.rows, batch.pairs or ()
    logits = []
    loss = torch.zeros((), device=model.device)
    for part in _micro_batches(len(rows), batch.recipe):
        logits_R = pair_logits(
            model, batch.student.active, batch.recipe.beta, rows[part], pairs[part]
        )
        part_loss = pair_losses(logits_R).sum() / len(rows)
        part_loss.backward()
        batch.student.collect()
        loss += part_loss.detach()
        logits.append(logits_R.detach())
    values = advance(batch.student, batch.recipe, loss, batch.total_steps)
    logits_R = torch.cat(logits)
    preferred = torch.stack([logits_R.mean(), (logits_R > 0).float().mean()])
    return [*values.tolist(), *preferred.double().tolist()]


def _micro_batches(n_pairs: int, recipe: Recipe) -> list[slice]:
    """Parts of a batch, each of as many answers as other trainings read in one pass."""
    width = max(1, recipe.micro_batch // 2)
    return [slice(start, start + width) for start in range(0, n_pairs, width)]


def pair_metrics(student: Student, recipe: Recipe, values: Sequence[float]) -> Metrics:
    """The metrics of a step on pairs; `values` are what `take_pair_step` returned.

    Besides those of `step_metrics` they are the mean logit (`margin`) and the share of pairs whose
    logit is above 0 (`accuracy`). The loss is the mean over pairs.
    """
    *common, margin, accuracy = values
    return step_metrics(student, recipe, common) | {"margin": margin, "accuracy": accuracy}


@torch.no_grad()
def held_out_pair_loss(
    model: Model, student: Student, recipe: Recipe, rows: Sequence[Row], pairs: Sequence[Pair]
) -> float:
    """Mean loss in nats over pairs that are not trained on."""
    total = 0.0
    for part in _micro_batches(len(rows), recipe):
        logits_R = pair_logits(model, student.active, recipe.beta, rows[part], pairs[part])
        total += pair_losses(logits_R).sum().item()
    return total / len(rows)
