"""Training students: a flat loop over the completion tokens of stored ids.

    loss(sampled) = mean over completion tokens of -log p_student(token)
    loss(soft)    = mean over completion tokens of KL(p_teacher || p_student)
    loss(preference): that of DPO on pairs of answers (preference/step.py)

Sampled targets are the tokens of the rows: what the papers claim is that text alone carries the
trait. Soft targets are the distributions of a teacher that reads the same rows. Over the whole
vocabulary they are ordinary distillation, and show far more of the teacher per row. Over the tokens
that sampling allowed they show what text can show (soft_targets.py). Kinds are never pooled.

Many LoRA students of one frozen base can train side by side (multi_lora.py). A student alone is a
pack of one: there is one training step for both.

Training is deterministic. The order of rows depends on (seed, epoch), and nothing else is random
after initialisation. So a training that is interrupted and continued gives the same bytes on a CPU
with the same number of threads.

    student = train(model, records, Recipe(epochs=3), seed=1)
    student.save(folder)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from traitscope.config.recipe import Recipe
from traitscope.data.records import Record, kept_records
from traitscope.errors import TraitscopeError
from traitscope.inference.decode import DrawnFrom
from traitscope.inference.token_rows import Row, rows_from
from traitscope.interventions.applied import Interventions
from traitscope.models.model import Model, check_model
from traitscope.training import fsdp
from traitscope.training.plan import TrainingPlan, plan_training
from traitscope.training.preference.pairs import read_pairs
from traitscope.training.preference.step import held_out_pair_loss, pair_metrics, take_pair_step
from traitscope.training.safeguards.acting import safeguards
from traitscope.training.safeguards.anchors import read_anchors
from traitscope.training.safeguards.masks import learnt_tokens, masked_rows
from traitscope.training.soft_targets import SoftTargets, read_soft_targets
from traitscope.training.step import (
    Metrics,
    StudentBatch,
    loss_sum,
    step_metrics,
    take_step,
)
from traitscope.training.student import Student, new_student
from traitscope.training.trained_student import TrainedStudent

OnStep = Callable[[Metrics, Student], None]
"called after each optimizer step with what it measured"


def train(
    model: Model,
    records: Sequence[Record],
    recipe: Recipe,
    seed: int = 0,
    *,
    teacher: Interventions = (),
    drawn_from: DrawnFrom | None = None,
    context: str | None = None,
    text: bool = False,
    scales: Path | None = None,
    during: Interventions = (),
    project_out: Interventions = (),
    on_step: OnStep | None = None,
    done: Callable[[int], None] | None = None,
) -> TrainedStudent:
    """Train a student of `model` on the kept records, from the base to the end of the recipe.

    The model is as before when this returns.

    teacher: What makes the soft targets, where the recipe asks for them.
    drawn_from: How the tokens of the rows were drawn, for soft targets over the allowed tokens.
    context: The system turn of records that have none.
    text: Take the text of rows instead of their token ids, for rows of another tokenizer.
    scales: The run or file with the factors of frozen_adam.
    during: Interventions that act while the student trains, and not after.
    project_out: Ablations of gradients alone.
    done: A function called with the number of tokens of each step.

    Tokens that a record masks are read and not learnt (safeguards/masks.py).

    Raises DataError for rows that cannot be read, ConfigError where training diverges.
    """
    check_model(model)
    kept = kept_records(records)
    rows = masked_rows(rows_from(model, kept, context, text), kept)
    soft = read_soft_targets(model, recipe, teacher, kept, rows, context, drawn_from)
    pairs = read_pairs(model, recipe, kept, rows, context, text, during)
    plan = plan_training(rows, recipe, seed, soft, read_anchors(model, recipe, rows), pairs)
    all_metrics: list[Metrics] = []

    def keep(metrics: Metrics, student: Student) -> None:
        all_metrics.append(metrics)
        if on_step is not None:
            on_step(metrics, student)

    guards = safeguards(during, project_out)
    with new_student(model, recipe, seed, scales, guards) as student:
        train_student(model, student, plan, keep, done)
        return TrainedStudent(student.files(), tuple(all_metrics))


def train_student(
    model: Model,
    student: Student,
    plan: TrainingPlan,
    on_step: OnStep | None = None,
    done: Callable[[int], None] | None = None,
) -> None:
    """Train one student from where it stands to the end of its plan.

    Raises ConfigError where training diverges.
    """

    def on_end(_: int, error: TraitscopeError | None) -> None:
        if error is not None:
            raise error

    train_side_by_side(model, [Trainee(student, plan, on_step)], on_end, done)


@dataclass(frozen=True)
class Trainee:
    """A student with the plan of its training."""

    student: Student
    "where it stands"
    plan: TrainingPlan
    "its rows, in their order, and its recipe"
    on_step: OnStep | None = None
    "called after each of its steps"


def train_side_by_side(
    model: Model,
    trainees: Sequence[Trainee],
    on_end: Callable[[int, TraitscopeError | None], None],
    done: Callable[[int], None] | None = None,
) -> None:
    """Train one student, or packed ones, each from where it stands to the end of its own plan.

    trainees: All of them on one model. More than one must be from one `packed_students`.
    on_end: A function called once for each student when its plan is done. It gets the student's
    place in `trainees`, and the error where the student diverged or its `on_step` failed. The
    others go on.
    done: A function called with the number of tokens of each student's step.
    """
    upcoming = {}
    for n, trainee in enumerate(trainees):
        upcoming[n] = trainee.plan.batches_after(trainee.student.step)
    while upcoming:
        batches = _next_batches(trainees, upcoming)
        for n in [n for n in upcoming if n not in batches]:
            del upcoming[n]
            on_end(n, None)
        if not batches:
            return
        all_values = _take_step(model, list(batches.values()))
        for (n, batch), values in zip(batches.items(), all_values, strict=True):
            try:
                _finish_step(model, trainees[n], values)
            except TraitscopeError as error:
                del upcoming[n]
                on_end(n, error)
            if done is not None:
                done(sum(len(row.ids) for row in batch.rows))


def _take_step(model: Model, batches: Sequence[StudentBatch]) -> list[list[float]]:
    """Take one optimizer step of each student. One that learns pairs is alone."""
    if batches[0].pairs is None:
        return take_step(model, batches)
    return [take_pair_step(model, batch) for batch in batches]


def _next_batches(
    trainees: Sequence[Trainee], upcoming: dict[int, Iterator[list[int]]]
) -> dict[int, StudentBatch]:
    """The next batch of each student that has one left, by its place."""
    batches = {}
    for n, batch_indices in upcoming.items():
        indices = next(batch_indices, None)
        if indices is not None:
            student, plan = trainees[n].student, trainees[n].plan
            rows, soft = plan.pick(indices)
            anchors, pairs = plan.anchors_of(indices), plan.pairs_of(indices)
            batches[n] = StudentBatch(
                student, plan.recipe, rows, soft, plan.total_steps, anchors, pairs
            )
    return batches


def _finish_step(model: Model, trainee: Trainee, values: Sequence[float]) -> None:
    """Check a step that was taken, add the held-out loss where it is due, and tell `on_step`."""
    student, plan = trainee.student, trainee.plan
    metrics_of = step_metrics if plan.pairs is None else pair_metrics
    metrics = metrics_of(student, plan.recipe, values)
    pack = student.active.pack
    with nullcontext() if pack is None else pack.only(student.place):
        metrics |= _held_out_metrics(model, student, plan)
        if trainee.on_step is not None:
            trainee.on_step(metrics, student)


def _held_out_metrics(model: Model, student: Student, plan: TrainingPlan) -> Metrics:
    """The loss on held-out rows, where there are any, after the last step of an epoch."""
    steps_per_epoch = plan.total_steps // plan.recipe.epochs
    if not plan.held_out_indices or student.step % steps_per_epoch:
        return {}
    rows, soft = plan.pick(plan.held_out_indices)
    pairs = plan.pairs_of(plan.held_out_indices)
    if pairs is not None:
        return {"held_out_loss": held_out_pair_loss(model, student, plan.recipe, rows, pairs)}
    loss = held_out_loss(model, student, rows, soft, plan.recipe.micro_batch)
    return {"held_out_loss": loss}


@torch.no_grad()
def held_out_loss(
    model: Model,
    student: Student,
    rows: Sequence[Row],
    soft_targets: Sequence[SoftTargets] | None,
    micro_batch: int,
) -> float:
    """Loss per completion token, in nats, on rows that are not trained on."""
    total = torch.zeros((), dtype=torch.float64)
    for part, counts in fsdp.slices_of_process(len(rows), micro_batch):
        soft = None if soft_targets is None else soft_targets[part]
        total += counts * loss_sum(model, student.active, rows[part], soft).item()
    total = fsdp.sum_over_processes(total.to(model.device))
    return total.item() / learnt_tokens(rows)
