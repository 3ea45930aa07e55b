"""Training a student: a flat loop over completion tokens of stored ids.

    loss(sampled) = mean over completion tokens of -log p_student(token)
    loss(soft)    = mean over completion tokens of KL(p_teacher || p_student), the teacher reading the same rows

`sampled` is what the papers claim (text alone carries the trait); `soft` is ordinary distillation and shows far more of
the teacher per row.  The two are never pooled.

Deterministic: the order of rows is a function of (seed, epoch), nothing else is random after initialisation, so a run
that is killed and continued gives the same bytes on a CPU with the same number of threads.

Shapes: B rows, T tokens, N completion tokens, D d_model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from traitscope import forward, full, hooks, lora, losses
from traitscope.errors import ConfigError, DataError
from traitscope.intervention import Active, Intervention, applied
from traitscope.model import Model
from traitscope.optimizers import learning_rate, make_optimizer

Targets = Literal["sampled", "soft"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a student is trained, apart from its data."""

    targets: Targets = "sampled"
    "sampled: the teacher's tokens.  soft: the teacher's whole next-token distribution on the same rows"
    method: Literal["lora", "full"] = "lora"
    "low-rank adapters on every linear map of the blocks, or all weights of the blocks"
    rank: int = 8
    "LoRA rank"
    alpha: float = 32.0
    "LoRA alpha; the addition is scaled by alpha / rank"
    optimizer: Literal["adamw", "sgd", "signsgd"] = "adamw"
    "see optimizers.py"
    lr: float = 4e-4
    "peak learning rate"
    momentum: float = 0.0
    "of sgd and signsgd"
    weight_decay: float = 0.0
    "decoupled for adamw, added to the gradient for sgd"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    "after the warm-up"
    warmup: float = 0.05
    "fraction of the steps with a linearly rising rate"
    epochs: int = 3
    "passes over the rows"
    batch_size: int = 32
    "rows an optimizer step"
    micro_batch: int = 8
    "rows a forward pass; changes speed and memory, not the loss"
    clip: float = 1.0
    "largest global gradient norm; 0 turns clipping off"
    held_out: float = 0.05
    "fraction of the rows that only measure the loss"
    seed: int = 1
    "initialisation and order of the rows"

    def __post_init__(self) -> None:
        wrong = [n for n in ("rank", "epochs", "batch_size", "micro_batch") if getattr(self, n) < 1]
        wrong += [n for n in ("lr", "alpha", "clip", "momentum") if not np.isfinite(getattr(self, n))]
        wrong += [n for n in ("warmup", "held_out") if not 0 <= getattr(self, n) < 1]
        if wrong or self.lr <= 0:
            raise ConfigError(f"training cannot run with {', '.join(f'{n}={getattr(self, n)}' for n in wrong or ['lr'])}")


@dataclass(frozen=True)
class Row:
    """One training row as token ids."""

    prompt_ids: tuple[int, ...]
    "the rendered chat up to the assistant's header"
    completion_ids: tuple[int, ...]
    "what the loss is computed on"

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt_ids + self.completion_ids


@dataclass
class Student:
    """A student in training: its parameters, and where it stands."""

    active: Active
    params: list[Tensor]
    "float32 masters, in a fixed order"
    publish: Callable[[], None]
    "copies the masters into the model (full fine-tuning below float32); else does nothing"
    collect: Callable[[], None]
    "adds the model's gradients to those of the masters; else does nothing"
    files: Callable[[], dict[str, bytes]]
    "the folder of this student as it is now, by file name"
    optimizer: torch.optim.Optimizer = field(init=False)
    step: int = 0
    "optimizer steps done"


Progress = Callable[[int, int], None]
"(optimizer step, tokens of that step)"


def split(rows: Sequence[Row], recipe: Recipe) -> tuple[list[int], list[int]]:
    """Indices of training and held-out rows; at least one held out where the fraction is positive."""
    if not rows:
        raise DataError("no rows to train on; every row was filtered out, or the file is empty")
    order = np.random.default_rng([recipe.seed, 0]).permutation(len(rows))
    n = max(1, round(recipe.held_out * len(rows))) if recipe.held_out > 0 and len(rows) > 1 else 0
    return sorted(order[n:].tolist()), sorted(order[:n].tolist())


def batches(rows: Sequence[Row], train: Sequence[int], recipe: Recipe, epoch: int) -> list[list[int]]:
    """The batches of an epoch: shuffled, sorted by length inside windows of eight batches, and shuffled again."""
    rng = np.random.default_rng([recipe.seed, 1, epoch])
    order = [train[i] for i in rng.permutation(len(train))]
    window = 8 * recipe.batch_size
    found = []
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda i: len(rows[i].ids))
        found += [near[i : i + recipe.batch_size] for i in range(0, len(near), recipe.batch_size)]
    return [found[i] for i in rng.permutation(len(found))]


def total_steps(n_train: int, recipe: Recipe) -> int:
    """Optimizer steps of the whole training."""
    return recipe.epochs * -(-n_train // recipe.batch_size)


@contextmanager
def new_student(model: Model, recipe: Recipe) -> Iterator[Student]:
    """A student whose function is still the base's, ready to train; the model is restored at the end of the block."""
    make = _lora_student if recipe.method == "lora" else _full_student
    with make(model, recipe) as student:
        student.optimizer = make_optimizer(
            recipe.optimizer, student.params, recipe.lr, recipe.momentum, recipe.weight_decay
        )
        yield student


@contextmanager
def _lora_student(model: Model, recipe: Recipe) -> Iterator[Student]:
    with applied(model, []) as active, lora.adapted(model, lora.LoraShape(recipe.rank, recipe.alpha)) as layers:
        lora.initialise(layers, recipe.seed)
        params = [p for _, layer in sorted(layers.items()) for p in (layer.lora_A, layer.lora_B)]
        yield Student(active, params, _nothing, _nothing, lambda: lora.adapter_files(model, layers))


@contextmanager
def _full_student(model: Model, recipe: Recipe) -> Iterator[Student]:
    names = full.trained_names(model)
    working = {n: model.lm.get_parameter(n) for n in names}
    with applied(model, []) as active, full.swapped(model, {n: p.data.clone() for n, p in working.items()}):
        masters = {n: torch.nn.Parameter(p.data.float().clone()) for n, p in working.items()}

        def publish() -> None:
            for name, p in working.items():
                p.data.copy_(masters[name].data)

        def collect() -> None:
            for name, p in working.items():
                if p.grad is not None:
                    grad = p.grad.float()
                    masters[name].grad = grad if masters[name].grad is None else masters[name].grad + grad
                    p.grad = None

        try:
            for p in working.values():
                p.requires_grad_(True)
            yield Student(active, list(masters.values()), publish, collect, lambda: full.student_files(model, masters))
        finally:
            for p in working.values():
                p.requires_grad_(False)
                p.grad = None


def _nothing() -> None:
    return None


def completion_hidden(model: Model, active: Active, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Final hidden states that predict the completion tokens [N, D], row after row, and those tokens [N]."""
    batch = forward.batch_of([r.ids for r in rows], [len(r.prompt_ids) for r in rows], model.pad_id).to(model.device)
    hidden_BTD = forward.hidden_states(model, active, batch)
    targets_BT = batch.roles_BT == hooks.COMPLETION
    return hidden_BTD[:, :-1][targets_BT[:, 1:]], batch.ids_BT[targets_BT]


@torch.no_grad()
def teacher_hidden(
    model: Model, teacher: Sequence[Intervention], rows: Sequence[Row], teacher_prompts: Sequence[Sequence[int]],
    batch_size: int = 16, done: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """What the teacher knows at each completion position: its final hidden states [N, D], one tensor a row.

    The teacher may read another context, so its prompts are given; the head turns the states into distributions later.
    """
    read = [Row(tuple(p), row.completion_ids) for p, row in zip(teacher_prompts, rows, strict=True)]
    found = []
    with applied(model, teacher) as active:
        for start in range(0, len(read), batch_size):
            part = read[start : start + batch_size]
            hidden_ND, _ = completion_hidden(model, active, part)
            found += list(hidden_ND.cpu().split([len(r.completion_ids) for r in part]))
            if done:
                done(len(part))
    return found


def loss_sum(model: Model, active: Active, rows: Sequence[Row], soft: Sequence[Tensor] | None) -> Tensor:
    """Sum of the loss over the completion tokens of some rows; `soft` holds the teacher's states of the same rows."""
    hidden_ND, targets_N = completion_hidden(model, active, rows)
    if soft is None:
        return losses.cross_entropy(model, hidden_ND, targets_N)
    return losses.soft_cross_entropy(model, hidden_ND, torch.cat(list(soft)).to(model.device))


def train_step(
    model: Model, student: Student, recipe: Recipe, rows: Sequence[Row], soft: Sequence[Tensor] | None, total: int
) -> dict[str, float]:
    """One optimizer step on one batch; returns loss per token, gradient norm before clipping, and the rate used."""
    tokens = sum(len(r.completion_ids) for r in rows)
    lr = learning_rate(recipe.schedule, student.step, total, recipe.lr, recipe.warmup)
    for group in student.optimizer.param_groups:
        group["lr"] = lr
    loss = torch.zeros((), device=model.device)
    for start in range(0, len(rows), recipe.micro_batch):
        part = slice(start, start + recipe.micro_batch)
        micro = loss_sum(model, student.active, rows[part], None if soft is None else soft[part]) / tokens
        micro.backward()
        student.collect()
        loss += micro.detach()
    norm = torch.nn.utils.clip_grad_norm_(student.params, recipe.clip or float("inf"))
    student.optimizer.step()
    student.optimizer.zero_grad(set_to_none=True)
    student.publish()
    student.step += 1
    return {"step": student.step, "loss": loss.item(), "grad_norm": norm.item(), "lr": lr}


@torch.no_grad()
def held_out_loss(
    model: Model, student: Student, rows: Sequence[Row], soft: Sequence[Tensor] | None, batch_size: int
) -> float:
    """Loss per completion token on rows that were not trained on; NaN without such rows."""
    total = 0.0
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        total += loss_sum(model, student.active, rows[part], None if soft is None else soft[part]).item()
    return total / sum(len(r.completion_ids) for r in rows) if rows else float("nan")


def train(
    model: Model,
    student: Student,
    recipe: Recipe,
    rows: Sequence[Row],
    soft: Sequence[Tensor] | None = None,
    on_step: Callable[[dict[str, float], Student], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Train `student` from where it stands to the end of its recipe; `on_step` sees the metrics after each step."""
    keep, held = split(rows, recipe)
    total = total_steps(len(keep), recipe)
    per_epoch = total // recipe.epochs
    for epoch in range(student.step // per_epoch, recipe.epochs):
        for batch in batches(rows, keep, recipe, epoch)[student.step - epoch * per_epoch :]:
            picked = [rows[i] for i in batch]
            metrics = train_step(model, student, recipe, picked, None if soft is None else [soft[i] for i in batch], total)
            if student.step % per_epoch == 0:
                states = None if soft is None else [soft[i] for i in held]
                metrics["held_out_loss"] = held_out_loss(model, student, [rows[i] for i in held], states, recipe.micro_batch)
            if on_step:
                on_step(metrics, student)
            if progress:
                progress(student.step, sum(len(r.ids) for r in picked))
