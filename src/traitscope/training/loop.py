"""Training a student: a flat loop over completion tokens of stored ids.

    loss(sampled) = mean over completion tokens of -log p_student(token)
    loss(soft)    = mean over completion tokens of KL(p_teacher || p_student), the teacher reading
                  the same rows

`sampled` is what the papers claim (text alone carries the trait); `soft` is ordinary distillation
and shows far more of the teacher per row. The two are never pooled.

Deterministic: the order of rows is a function of (seed, epoch), nothing else is random after
initialisation, so a run that is killed and continued gives the same bytes on a CPU with the same
number of threads.

Shapes: B rows, T tokens, N completion tokens, D d_model.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from traitscope import atomic_files, distributed
from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.config.stages import TrainConfig
from traitscope.data.records import Record
from traitscope.errors import ConfigError, DataError
from traitscope.inference import forward, losses
from traitscope.inference.token_rows import Row, completion_hidden, rows_from, teacher_hidden
from traitscope.interventions.intervention import Active, context_of
from traitscope.models import chat, dtensor
from traitscope.models.model import Model
from traitscope.runs import stage, store
from traitscope.runs.progress import progress
from traitscope.training import fsdp
from traitscope.training.eas import Watch
from traitscope.training.optimizers import SCALES, learning_rate, limit_gradient, scales_file
from traitscope.training.student import Student, new_student

Metrics = dict[str, float | None]
"what a step leaves in metrics.jsonl"

STATE = "scratch/state.pt"
READ = 16
"rows that the teacher reads at one time"

Progress = Callable[[int, int], None]
"(optimizer step, tokens of that step)"


def split(rows: Sequence[Row], recipe: Recipe, seed: int) -> tuple[list[int], list[int]]:
    """Indices of training and held-out rows; at least one of each where the fraction is positive
    and there are two rows."""
    if not rows:
        raise DataError("no rows to train on; every row was filtered out, or the file is empty")
    order = np.random.default_rng([seed, 0]).permutation(len(rows))
    n = min(max(1, round(recipe.held_out * len(rows))), len(rows) - 1) if recipe.held_out > 0 else 0
    return sorted(order[n:].tolist()), sorted(order[:n].tolist())


def batches(
    rows: Sequence[Row], train: Sequence[int], recipe: Recipe, seed: int, epoch: int
) -> list[list[int]]:
    """The batches of an epoch: shuffled, sorted by length inside windows of eight batches, and
    shuffled again."""
    rng = np.random.default_rng([seed, 1, epoch])
    order = [train[i] for i in rng.permutation(len(train))]
    window = 8 * recipe.batch_size
    found = []
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda i: len(rows[i].ids))
        found += [near[i : i + recipe.batch_size] for i in range(0, len(near), recipe.batch_size)]
    return [found[i] for i in rng.permutation(len(found))]


def remaining(
    rows: Sequence[Row], train: Sequence[int], recipe: Recipe, seed: int, done: int
) -> Iterator[list[int]]:
    """The batches of the whole training behind the first `done` steps."""
    per_epoch = -(-len(train) // recipe.batch_size)
    for epoch in range(done // per_epoch, recipe.epochs):
        yield from batches(rows, train, recipe, seed, epoch)[max(0, done - epoch * per_epoch) :]


def total_steps(n_train: int, recipe: Recipe) -> int:
    """Optimizer steps of the whole training."""
    return recipe.epochs * -(-n_train // recipe.batch_size)


def loss_sum(
    model: Model, active: Active, rows: Sequence[Row], soft: Sequence[Tensor] | None
) -> Tensor:
    """Sum of the loss over the completion tokens of some rows; `soft` holds the teacher's states of
    the same rows."""
    hidden_ND, targets_N = completion_hidden(model, active, rows)
    if soft is None:
        return losses.cross_entropy(model, hidden_ND, targets_N)
    return losses.soft_cross_entropy(
        model, hidden_ND, forward.sent(torch.cat(list(soft)), model.device)
    )


def train_step(
    model: Model,
    student: Student,
    recipe: Recipe,
    rows: Sequence[Row],
    soft: Sequence[Tensor] | None,
    total: int,
) -> Metrics:
    """One optimizer step on one batch.

    Returns the loss per token, the gradient's norm before anything is cut off it, the rate used,
    the norm of the parameters' change, and of a LoRA student the share of its square that is in the
    B factors. Full fine-tuning leaves the last two out: they would take another copy of all
    weights.
    """
    tokens = sum(len(r.completion_ids) for r in rows)
    loss = torch.zeros((), device=model.device)
    for part, counts in fsdp.shares(len(rows), recipe.micro_batch):
        micro = (
            counts
            * loss_sum(model, student.active, rows[part], None if soft is None else soft[part])
            / tokens
        )
        micro.backward()
        student.collect()
        loss += micro.detach()
    loss = fsdp.summed(loss, student.params)
    return stepped(student, recipe, advance(student, recipe, loss, total).tolist())


def advance(student: Student, recipe: Recipe, loss: Tensor, total: int) -> Tensor:
    """The optimizer's part of a step, on the gradients that are there; what `stepped` reads, still
    on the device.

    Loss, gradient norm and rate; but of full students also the norms of what the B factors and all
    others moved by.
    """
    lr = learning_rate(recipe.schedule, student.step, total, recipe.lr, recipe.warmup)
    for group in student.optimizer.param_groups:
        group["lr"] = lr
    norm = dtensor.whole(limit_gradient(student.params, recipe))
    with torch.no_grad():
        before = (
            [] if recipe.method == "full" else torch._foreach_mul(student.params, 1.0)
        )  # copies, in few kernels
    student.optimizer.step()
    student.optimizer.zero_grad(set_to_none=True)
    student.publish()
    student.step += 1
    moved = _moved(student, before) if before else []
    return torch.stack(
        [
            x.double().to(loss.device)
            for x in (loss, norm, torch.tensor(lr, dtype=torch.float64), *moved)
        ]
    )


@torch.no_grad()
def _moved(student: Student, before: Sequence[Tensor]) -> list[Tensor]:
    """Norms of what the B factors, and all other parameters, moved by."""
    change: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, moved in zip(student.names, torch._foreach_sub(student.params, before), strict=True):
        change[name.endswith(".lora_B")].append(moved)
    return [torch.nn.utils.get_total_norm(change[inside]) for inside in (True, False)]


def stepped(student: Student, recipe: Recipe, values: Sequence[float]) -> Metrics:
    """The metrics of the step that `advance` has done.  Raises ConfigError where it diverged."""
    loss, norm, lr, *moved = values
    found = {"step": student.step, "loss": loss, "grad_norm": norm, "lr": lr}
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise ConfigError(
            f"step {student.step}: loss {loss:.3g}, gradient norm {norm:.3g}; training diverged,"
            " lower --lr"
        )
    if not moved:
        return found
    change = math.hypot(*moved)
    if not math.isfinite(change):
        raise ConfigError(
            f"step {student.step}: the weights moved by {change}; training diverged, lower --lr"
        )
    share = (
        {"update_share_B": (moved[0] / change) ** 2 if change else None}
        if recipe.method == "lora"
        else {}
    )
    return found | {"update_norm": change} | share


@torch.no_grad()
def held_out_loss(
    model: Model,
    student: Student,
    rows: Sequence[Row],
    soft: Sequence[Tensor] | None,
    batch_size: int,
) -> float:
    """Loss per completion token on rows that are not trained on."""
    total = torch.zeros((), dtype=torch.float64)
    for part, counts in fsdp.shares(len(rows), batch_size):
        total += (
            counts
            * loss_sum(
                model, student.active, rows[part], None if soft is None else soft[part]
            ).item()
        )
    return fsdp.summed(total.to(model.device)).item() / sum(len(r.completion_ids) for r in rows)


def held_out(
    model: Model,
    student: Student,
    recipe: Recipe,
    total: int,
    held: Sequence[int],
    rows: Sequence[Row],
    soft: Sequence[Tensor] | None,
) -> Metrics:
    """The loss on held-out rows, where there are any, after the last step of an epoch; else
    nothing."""
    if not held or student.step % (total // recipe.epochs):
        return {}
    states = None if soft is None else [soft[i] for i in held]
    return {
        "held_out_loss": held_out_loss(
            model, student, [rows[i] for i in held], states, recipe.micro_batch
        )
    }


def train(
    model: Model,
    student: Student,
    recipe: Recipe,
    seed: int,
    rows: Sequence[Row],
    soft: Sequence[Tensor] | None = None,
    on_step: Callable[[Metrics, Student], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Train `student` from where it stands to the end of its recipe; `on_step` sees the metrics
    after each step."""
    keep, held = split(rows, recipe, seed)
    total = total_steps(len(keep), recipe)
    for batch in remaining(rows, keep, recipe, seed, student.step):
        picked = [rows[i] for i in batch]
        metrics = train_step(
            model,
            student,
            recipe,
            picked,
            None if soft is None else [soft[i] for i in batch],
            total,
        )
        metrics |= held_out(model, student, recipe, total, held, rows, soft)
        if on_step:
            on_step(metrics, student)
        if progress:
            progress(student.step, sum(len(r.ids) for r in picked))


def run_train(config: TrainConfig, out: Output) -> store.Run:
    """The sealed run with `student/` (peft adapter or full weights), `checkpoints/`,
    `metrics.jsonl`, `eas.json`."""
    config = stage.settled(config)
    if config.data is None:
        raise ConfigError(
            "--data is missing: name a run of `filter` or `generate`, or a JSONL file"
        )
    check_scales(config)
    if distributed.world() > 1:
        return _train_sharded(config, out)
    with stage.opened("train", config, out, resumable=True) as run:
        if not run.sealed:
            _train_into(run, config, stage.model_of(config))
    return run


def _train_sharded(config: TrainConfig, out: Output) -> store.Run:
    """As in one process, but of all of them the first alone opens the run, writes into it and seals
    it."""
    fsdp.check(config.recipe, config.dtype)
    fsdp.begin(config.device)
    with ExitStack() as opened:
        opening = stage.opened(
            "train", config, out, resumable=True, facts={"processes": distributed.world()}
        )
        run = fsdp.told(lambda: opened.enter_context(opening))
        if not run.sealed:
            trained = config.recipe.method == "full"
            _train_into(
                run,
                config,
                fsdp.load_sharded(config.model, config.device, config.dtype, trained),
            )
    return fsdp.told(lambda: run)  # once it is sealed


def check_scales(config: TrainConfig) -> None:
    """Raise ConfigError where factors are asked for that this optimizer neither takes nor
    leaves."""
    name = config.recipe.optimizer
    if config.save_scales and name not in ("adamw", "rmsprop"):
        raise ConfigError(
            f"--save-scales with --optimizer {name}: only adamw and rmsprop hold them; drop"
            " --save-scales"
        )
    if config.scales and name != "frozen_adam":
        raise ConfigError(
            f"--scales {config.scales} with --optimizer {name}: expected frozen_adam; drop one of"
            " the two"
        )
    if name == "frozen_adam" and not config.scales:
        raise ConfigError(
            "--scales is missing: frozen_adam takes the factors of a run of `train --save-scales`;"
            " name it"
        )


def _train_into(run: store.Run, config: TrainConfig, model: Model) -> None:
    course = course_of(run, config, model)
    with new_student(model, config.recipe, config.seed, config.scales) as student:
        restore(run, student)
        with progress(
            f"train {config.recipe.targets}", course.left(student.step), "tokens"
        ) as told:
            train(
                model,
                student,
                config.recipe,
                config.seed,
                course.rows,
                course.soft,
                course.on_step,
                lambda _, n: told(n),
            )
        course.finish(student)


@dataclass
class Course:
    """A student's way through its rows, and what it leaves on disk."""

    run: store.Run
    config: TrainConfig
    rows: list[Row]
    soft: list[Tensor] | None
    "the teacher's states of the same rows"
    watch: Watch
    keep: list[int]
    "rows that are trained on"
    held: list[int]
    "rows that only measure the loss"
    total: int
    "optimizer steps"

    def left(self, step: int) -> int:
        """Tokens of the steps behind `step`."""
        return (
            self.config.recipe.epochs
            * sum(len(self.rows[i].ids) for i in self.keep)
            * (self.total - step)
            // self.total
        )

    def batches(self, step: int) -> Iterator[list[int]]:
        """The batches behind `step`."""
        return remaining(self.rows, self.keep, self.config.recipe, self.config.seed, step)

    def on_step(self, metrics: Metrics, student: Student) -> None:
        """What a step leaves."""
        last = student.step == self.total
        if self.config.eas_every and student.step % self.config.eas_every == 0 or last:
            metrics |= self.watch(student)
        if distributed.first():
            atomic_files.append_jsonl(self.run.file("metrics.jsonl"), metrics)
        self._keep(student, last)

    def _keep(self, student: Student, last: bool) -> None:
        """Write what this step leaves on disk: the student, a checkpoint, or the state to continue
        from."""
        if self.config.checkpoint_every and student.step % self.config.checkpoint_every == 0:
            self._write(
                {
                    f"checkpoints/step-{student.step:06d}/{name}": data
                    for name, data in student.files().items()
                }
            )
        if last:
            self._write({f"student/{name}": data for name, data in student.files().items()})
        elif student.step % self.config.resume_every == 0:
            self._write({STATE: _state(student)})

    def _write(self, files: dict[str, bytes]) -> None:
        for name, data in files.items() if distributed.first() else ():
            atomic_files.write_bytes(self.run.file(name), data)

    def finish(self, student: Student) -> None:
        """What the end leaves."""
        files = self.watch.files()
        if self.config.save_scales:
            files[SCALES] = scales_file(student.optimizer, student.names, student.params)
        self._write(files)


def course_of(run: store.Run, config: TrainConfig, model: Model) -> Course:
    """The rows of a settled config, what the teacher knows of them, and the watch."""
    records = [r for r in stage.rows_of(config.data) if r.kept][: config.max_rows]
    rows = rows_from(model, records, config.context, config.text)
    soft = _soft_targets(model, config, records, rows) if config.recipe.targets == "soft" else None
    keep, held = split(rows, config.recipe, config.seed)
    return Course(
        run,
        config,
        rows,
        soft,
        Watch(model, config),
        keep,
        held,
        total_steps(len(keep), config.recipe),
    )


def _soft_targets(
    model: Model, config: TrainConfig, records: Sequence[Record], rows: Sequence[Row]
) -> list[Tensor]:
    teacher = stage.parse_all(config.teacher)
    contexts = [
        context_of(teacher, config.context if r.context is None else r.context) for r in records
    ]
    prompts = [chat.render(model, r.prompt, c) for r, c in zip(records, contexts, strict=True)]
    for prompt, row, record in zip(prompts, rows, records, strict=True):
        chat.check_length(
            model, len(prompt) + len(row.completion_ids), f"row {record.id} as the teacher reads it"
        )
    with progress("teacher distributions", len(rows), "rows") as advance:
        return fsdp.dealt(
            len(rows),
            READ,
            lambda part: teacher_hidden(model, teacher, rows[part], prompts[part], READ, advance),
        )


def _state(student: Student) -> bytes:
    """What an interrupted run continues from; the same whether one process trains or several."""
    buffer = io.BytesIO()
    optimizer = tree_map_only(Tensor, dtensor.gathered, student.optimizer.state_dict())
    params = [dtensor.gathered(p) for p in student.params]
    torch.save({"step": student.step, "params": params, "optimizer": optimizer}, buffer)
    return buffer.getvalue()


def restore(run: store.Run, student: Student) -> None:
    """Continue where an interrupted run left its state: weights, optimizer, step; later metrics are
    dropped."""
    path, metrics = run.file(STATE), run.file("metrics.jsonl")
    if path.exists():
        state = torch.load(path, weights_only=True)
        for p, saved in zip(student.params, state["params"], strict=True):
            p.data.copy_(dtensor.like(saved, p))
        student.optimizer.load_state_dict(dtensor.laid_out(state["optimizer"], student.params))
        student.publish()
        student.step = state["step"]
    if not distributed.first():
        return
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    atomic_files.write_text(metrics, "".join(lines[: student.step]))
