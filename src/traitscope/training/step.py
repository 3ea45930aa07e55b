"""One optimizer step of one student, or of packed ones side by side.

    loss(sampled) = mean over completion tokens of -log p_student(token)
    loss(soft)    = mean over completion tokens of KL(p_teacher || p_student)  (soft_targets.py)

Tokens that a row masks are left out of both means (safeguards/masks.py).

An anchor to the base (safeguards/anchors.py) adds to what is minimised, and not to the loss that is
reported.

A batch is cut into micro-batches, whose gradients add up. Micro-batches of packed students share
forward passes (multi_lora.py). A student alone is a pack of one.

Shapes: N completion tokens, D d_model.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError
from traitscope.inference import forward, losses
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.interventions.applied import Active
from traitscope.models import dtensor
from traitscope.models.model import Model
from traitscope.training import fsdp
from traitscope.training.optimizers import learning_rate, limit_gradient
from traitscope.training.preference.pairs import Pair
from traitscope.training.safeguards import anchors, masks
from traitscope.training.soft_targets import SoftTargets, soft_loss
from traitscope.training.student import Student

Metrics = dict[str, float | None]
"what one optimizer step measured, by name"

CPU_PASS_ROWS = 16
"""rows of all packed students in one pass on a CPU, where more rows take memory and no less time
(benchmarks/packing.py)"""


@dataclass(frozen=True)
class StudentBatch:
    """What one student learns from in one optimizer step."""

    student: Student
    "who learns"
    recipe: Recipe
    "how it learns"
    rows: Sequence[Row]
    "what it reads"
    soft_targets: Sequence[SoftTargets] | None
    "what the teacher says of every row; None for sampled targets"
    total_steps: int
    "optimizer steps of the whole training, which the schedule of the rate needs"
    anchors: Sequence[Tensor] | None = None
    "what the base says of every row; None without an anchor (safeguards/anchors.py)"
    pairs: Sequence[Pair] | None = None
    "the rejected answer of every row; None without preference targets (preference/step.py)"


def take_step(model: Model, batches: Sequence[StudentBatch]) -> list[list[float]]:
    """Take one optimizer step of each student; returns what `step_metrics` reads of each.

    A GPU is waited for once, however many students there are.
    """
    all_values = []
    for batch, loss in zip(batches, _accumulate_gradients(model, batches), strict=True):
        loss = fsdp.sum_over_processes(loss, batch.student.params)
        all_values.append(advance(batch.student, batch.recipe, loss, batch.total_steps))
    return torch.stack(all_values).tolist()


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one student in one forward pass."""

    place: int
    "of the student's batch in the step"
    part: slice
    "of the batch's rows"
    counts: bool
    "false where a process runs rows for nothing, so that all meet in the same passes (fsdp.py)"
    n_rows: int
    "number of rows"
    longest: int
    "tokens of the longest row"


def _accumulate_gradients(model: Model, batches: Sequence[StudentBatch]) -> list[Tensor]:
    """Fill the gradients of every student from its batch; returns each loss per token, in nats.

    Micro-batches of different students stand side by side in a pass.
    """
    batch_losses = []
    for _ in batches:
        batch_losses.append(torch.zeros((), device=model.device))
    batch_tokens = [masks.learnt_tokens(batch.rows) for batch in batches]
    pass_rows = CPU_PASS_ROWS if model.device.type == "cpu" else None
    micro_batches_of_students = map(_micro_batches, batches, range(len(batches)))
    for side_by_side in zip_longest(*micro_batches_of_students):
        present = filter(None, side_by_side)  # a student with few rows has no micro-batch left
        for group in share_passes(present, pass_rows):
            total = torch.zeros((), device=model.device)
            of_each = zip(group, _losses(model, batches, group), strict=True)
            for micro_batch, (loss, anchor) in of_each:
                loss = micro_batch.counts * loss / batch_tokens[micro_batch.place]
                batch_losses[micro_batch.place] += loss.detach()
                total = total + loss
                if anchor is not None:
                    total = total + micro_batch.counts * anchor / batch_tokens[micro_batch.place]
            total.backward()
            for micro_batch in group:
                batches[micro_batch.place].student.collect()
    return batch_losses


def _micro_batches(batch: StudentBatch, place: int) -> Iterator[MicroBatch]:
    """The micro-batches of a student's batch that this process computes."""
    for part, counts in fsdp.slices_of_process(len(batch.rows), batch.recipe.micro_batch):
        rows = batch.rows[part]
        longest = max(len(row.ids) for row in rows)
        yield MicroBatch(place, part, counts, len(rows), longest)


def share_passes(
    micro_batches: Iterable[MicroBatch], pass_rows: int | None
) -> Iterator[list[MicroBatch]]:
    """Groups of micro-batches that share a pass, students in order.

    A group has at most `pass_rows` rows, or is a single micro-batch; None means no limit. A pass is
    padded to its longest row, so micro-batches with a like longest row go together.
    """
    groups: list[list[MicroBatch]] = []
    rows_of_last = 0
    for micro_batch in sorted(micro_batches, key=lambda micro_batch: micro_batch.longest):
        rows_together = rows_of_last + micro_batch.n_rows
        fits = pass_rows is None or rows_together <= pass_rows
        if groups and fits:
            groups[-1].append(micro_batch)
            rows_of_last = rows_together
        else:
            groups.append([micro_batch])
            rows_of_last = micro_batch.n_rows
    for group in groups:
        yield sorted(group, key=lambda micro_batch: micro_batch.place)


def _losses(
    model: Model, batches: Sequence[StudentBatch], group: Sequence[MicroBatch]
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The loss of each micro-batch of one shared pass, and the weighted anchor where there is one.

    Both are sums over completion tokens.
    """
    active = batches[group[0].place].student.active
    all_rows: list[Row] = []
    token_counts = []
    for micro_batch in group:
        rows = batches[micro_batch.place].rows[micro_batch.part]
        all_rows += rows
        token_counts.append(completion_tokens(rows))
    if active.pack is not None:
        rows_of_students = [0] * active.pack.size
        for micro_batch in group:
            rows_of_students[batches[micro_batch.place].student.place] = micro_batch.n_rows
        active.pack.rows = tuple(rows_of_students)
    hidden_ND, targets_N = completion_hidden(model, active, all_rows)
    of_each = zip(group, hidden_ND.split(token_counts), targets_N.split(token_counts), strict=True)
    for micro_batch, student_ND, student_N in of_each:
        rows = batches[micro_batch.place].rows[micro_batch.part]
        student_ND, student_N = _learnt(rows, student_ND, student_N)
        soft_targets = batches[micro_batch.place].soft_targets
        if soft_targets is not None:
            soft_targets = soft_targets[micro_batch.part]
        loss = _target_loss(model, student_ND, student_N, soft_targets)
        yield (
            loss,
            _weighted_anchor(model, batches[micro_batch.place], micro_batch.part, student_ND),
        )


def _weighted_anchor(
    model: Model, batch: StudentBatch, part: slice, hidden_ND: Tensor
) -> Tensor | None:
    """The anchor's term of a micro-batch; None where its weight is 0."""
    weight = anchors.weight(batch.recipe, batch.student.step, batch.total_steps)
    if batch.anchors is None or weight == 0:
        return None
    return weight * anchors.anchor_loss(model, batch.recipe, hidden_ND, batch.anchors[part])


def advance(student: Student, recipe: Recipe, loss: Tensor, total_steps: int) -> Tensor:
    """Let the optimizer step on the gradients that are there; returns what `step_metrics` reads.

    These are the loss, the gradient norm and the rate, in float64 and still on the device. Students
    other than full ones add how far the B factors moved, and how far all other parameters did.
    """
    rate = learning_rate(recipe.schedule, student.step, total_steps, recipe.lr, recipe.warmup)
    for group in student.optimizer.param_groups:
        group["lr"] = rate
    gradient_norm = dtensor.whole(limit_gradient(student.params, recipe))
    copies: Sequence[Tensor] = ()
    if recipe.method != "full":
        with torch.no_grad():
            copies = torch._foreach_mul(student.params, 1.0)  # few kernels copy them all
    student.optimizer.step()
    student.optimizer.zero_grad(set_to_none=True)
    student.publish()
    student.step += 1
    values = [loss, gradient_norm, torch.tensor(rate, dtype=torch.float64)]
    if copies:
        values += _distances_moved(student, copies)
    return torch.stack([value.double().to(loss.device) for value in values])


@torch.no_grad()
def _distances_moved(student: Student, copies: Sequence[Tensor]) -> list[Tensor]:
    """How far the B factors moved from these copies, and how far all other parameters did."""
    changes_of_B, other_changes = [], []
    changes = torch._foreach_sub(student.params, copies)
    for name, change in zip(student.names, changes, strict=True):
        if name.endswith(".lora_B"):
            changes_of_B.append(change)
        else:
            other_changes.append(change)
    get_norm = torch.nn.utils.get_total_norm
    return [get_norm(changes_of_B), get_norm(other_changes)]


def step_metrics(student: Student, recipe: Recipe, values: Sequence[float]) -> Metrics:
    """The metrics of the step that `advance` has taken; `values` are what it returned.

    They are the loss per token in nats, the learning rate, the gradient's norm before clipping, and
    the norm of the parameters' change. A LoRA student adds the fraction of the squared change that
    is in the B factors. Full fine-tuning leaves out both changes, which would take another copy of
    all weights.

    Raises ConfigError where training diverged.
    """
    loss, gradient_norm, rate, *distances = values
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise ConfigError(
            f"step {student.step}: loss {loss:.3g}, gradient norm {gradient_norm:.3g}; training"
            " diverged, lower --lr"
        )
    metrics = {"step": student.step, "loss": loss, "grad_norm": gradient_norm, "lr": rate}
    if not distances:
        return metrics
    change = math.hypot(*distances)
    if not math.isfinite(change):
        raise ConfigError(
            f"step {student.step}: the weights moved by {change}; training diverged, lower --lr"
        )
    metrics["update_norm"] = change
    if recipe.method == "lora":
        distance_of_B = distances[0]
        metrics["update_share_B"] = (distance_of_B / change) ** 2 if change else None
    return metrics


def loss_sum(
    model: Model,
    active: Active,
    rows: Sequence[Row],
    soft_targets: Sequence[SoftTargets] | None,
) -> Tensor:
    """Sum of the loss, in nats, over the completion tokens of some rows of one student."""
    hidden_ND, targets_N = _learnt(rows, *completion_hidden(model, active, rows))
    return _target_loss(model, hidden_ND, targets_N, soft_targets)


def _learnt(rows: Sequence[Row], hidden_ND: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states and completion tokens of some rows, without the masked tokens."""
    if not masks.has_masks(rows):
        return hidden_ND, targets_N
    places_N = forward.sent(masks.learnt_places(rows), hidden_ND.device)
    return hidden_ND.index_select(0, places_N), targets_N.index_select(0, places_N)


def _target_loss(
    model: Model,
    hidden_ND: Tensor,
    targets_N: Tensor,
    soft_targets: Sequence[SoftTargets] | None,
) -> Tensor:
    if soft_targets is None:
        return losses.cross_entropy(model, hidden_ND, targets_N)
    return soft_loss(model, hidden_ND, soft_targets)


def completion_tokens(rows: Sequence[Row]) -> int:
    """Number of completion tokens of some rows."""
    return sum(len(row.completion_ids) for row in rows)
