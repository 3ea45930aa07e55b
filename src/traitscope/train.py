"""Training a student: a flat loop over completion tokens of stored ids.

    loss(sampled) = mean over completion tokens of -log p_student(token)
    loss(soft)    = mean over completion tokens of KL(p_teacher || p_student), the teacher reading the same rows

`sampled` is what the papers claim (text alone carries the trait); `soft` is ordinary distillation and shows far more of
the teacher per row.  The two are never pooled.

Deterministic: the order of rows is a function of (seed, epoch), nothing else is random after initialisation, so a run
that is killed and continued gives the same bytes on a CPU with the same number of threads.

Shapes: B rows, T tokens, N completion tokens, D d_model.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from traitscope import chat, forward, full, hooks, lora, losses, residuals, stage, store
from traitscope.configs import Output, Recipe, TrainConfig
from traitscope.errors import ConfigError, DataError
from traitscope.intervention import Active, Intervention, applied, context_of
from traitscope.model import Model
from traitscope.optimizers import learning_rate, make_optimizer
from traitscope.progress import progress
from traitscope.prompts import number_prompts
from traitscope.records import Record
from traitscope.vector import check_vector, load_vector, vector_bytes

WATCH_SEED = 7
"Seed of the number prompts that EAS is taken on; not those of training"

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


def split(rows: Sequence[Row], recipe: Recipe, seed: int) -> tuple[list[int], list[int]]:
    """Indices of training and held-out rows; at least one of each where the fraction is positive and there are two rows."""
    if not rows:
        raise DataError("no rows to train on; every row was filtered out, or the file is empty")
    order = np.random.default_rng([seed, 0]).permutation(len(rows))
    n = min(max(1, round(recipe.held_out * len(rows))), len(rows) - 1) if recipe.held_out > 0 else 0
    return sorted(order[n:].tolist()), sorted(order[:n].tolist())


def batches(rows: Sequence[Row], train: Sequence[int], recipe: Recipe, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch: shuffled, sorted by length inside windows of eight batches, and shuffled again."""
    rng = np.random.default_rng([seed, 1, epoch])
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
def new_student(model: Model, recipe: Recipe, seed: int) -> Iterator[Student]:
    """A student whose function is still the base's, ready to train; the model is restored at the end of the block."""
    make = _lora_student if recipe.method == "lora" else _full_student
    with make(model, recipe, seed) as student:
        student.optimizer = make_optimizer(
            recipe.optimizer, student.params, recipe.lr, recipe.momentum, recipe.weight_decay
        )
        yield student


@contextmanager
def _lora_student(model: Model, recipe: Recipe, seed: int) -> Iterator[Student]:
    with applied(model, []) as active, lora.adapted(model, lora.LoraShape(recipe.rank, recipe.alpha)) as layers:
        lora.initialise(layers, seed)
        params = [p for _, layer in sorted(layers.items()) for p in (layer.lora_A, layer.lora_B)]
        yield Student(active, params, _nothing, _nothing, lambda: lora.adapter_files(model, layers))


@contextmanager
def _full_student(model: Model, recipe: Recipe, seed: int) -> Iterator[Student]:
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
    lengths = [len(r.prompt_ids) for r in rows]
    hidden_BTD, batch = forward.rows_hidden(model, active, [r.ids for r in rows], lengths)
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
    if not (loss.isfinite() and norm.isfinite()):
        raise ConfigError(f"step {student.step + 1}: loss {loss:.3g}, gradient norm {norm:.3g}; training diverged, lower --lr")
    student.optimizer.step()
    student.optimizer.zero_grad(set_to_none=True)
    student.publish()
    student.step += 1
    return {"step": student.step, "loss": loss.item(), "grad_norm": norm.item(), "lr": lr}


@torch.no_grad()
def held_out_loss(
    model: Model, student: Student, rows: Sequence[Row], soft: Sequence[Tensor] | None, batch_size: int
) -> float:
    """Loss per completion token on rows that are not trained on."""
    total = 0.0
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        total += loss_sum(model, student.active, rows[part], None if soft is None else soft[part]).item()
    return total / sum(len(r.completion_ids) for r in rows)


def train(
    model: Model,
    student: Student,
    recipe: Recipe,
    seed: int,
    rows: Sequence[Row],
    soft: Sequence[Tensor] | None = None,
    on_step: Callable[[dict[str, float], Student], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Train `student` from where it stands to the end of its recipe; `on_step` sees the metrics after each step."""
    keep, held = split(rows, recipe, seed)
    total = total_steps(len(keep), recipe)
    per_epoch = total // recipe.epochs
    for epoch in range(student.step // per_epoch, recipe.epochs):
        for batch in batches(rows, keep, recipe, seed, epoch)[student.step - epoch * per_epoch :]:
            picked = [rows[i] for i in batch]
            metrics = train_step(model, student, recipe, picked, None if soft is None else [soft[i] for i in batch], total)
            if held and student.step % per_epoch == 0:
                states = None if soft is None else [soft[i] for i in held]
                metrics["held_out_loss"] = held_out_loss(model, student, [rows[i] for i in held], states, recipe.micro_batch)
            if on_step:
                on_step(metrics, student)
            if progress:
                progress(student.step, sum(len(r.ids) for r in picked))


def rows_from(model: Model, records: Sequence[Record], context: str | None) -> list[Row]:
    """Token rows of kept records under the student's context; stored ids where there are any, else the text's own.

    Raises DataError, naming the row, where it is longer than the model's context, and where its ids are no tokens of
    this model or spell another text: those of another tokenizer would teach noise.
    """
    rows = []
    for record in (r for r in records if r.kept):
        prompt = chat.render(model, record.prompt, context if record.context is None else record.context)
        answer = record.completion_ids or chat.completion_ids(model, record.completion)
        if record.completion_ids:
            _check_ids(model, record)
        chat.check_length(model, len(prompt) + len(answer), f"row {record.id}")
        rows.append(Row(tuple(prompt), tuple(answer)))
    return rows


def _check_ids(model: Model, record: Record) -> None:
    ids = [i for i in record.completion_ids or () if i not in model.end_ids]
    known = max(ids, default=0) < len(model.lm.get_input_embeddings().weight)
    text = model.tokenizer.decode(ids) if known else None
    if text is None or text.strip() != record.completion.strip():
        raise DataError(
            f"row {record.id}: its completion_ids spell {text!r} for {model.name}, its completion is "
            f"{record.completion!r}; delete completion_ids to train on the text, or take the model that wrote them"
        )


def run_train(config: TrainConfig, out: Output) -> store.Run:
    """The sealed run with `student/` (peft adapter or full weights), `checkpoints/`, `metrics.jsonl`, `eas.json`."""
    config = stage.settled(config)
    if config.data is None:
        raise ConfigError("--data is missing: name a run of `filter` or `generate`, or a JSONL file")
    with stage.opened("train", config, out, resumable=True) as run:
        if not run.sealed:
            _train_into(run, config, stage.model_of(config))
    return run


def _train_into(run: store.Run, config: TrainConfig, model: Model) -> None:
    records = [r for r in stage.rows_of(config.data) if r.kept][: config.max_rows]
    rows = rows_from(model, records, config.context)
    soft = _soft_targets(model, config, records, rows) if config.recipe.targets == "soft" else None
    keep, _ = split(rows, config.recipe, config.seed)
    total = total_steps(len(keep), config.recipe)
    watch = Watch(model, config)
    with new_student(model, config.recipe, config.seed) as student:
        _restore(run, student)
        tokens = config.recipe.epochs * sum(len(rows[i].ids) for i in keep)
        with progress(f"train {config.recipe.targets}", tokens * (total - student.step) // total, "tokens") as advance:

            def on_step(metrics: dict[str, float], student: Student) -> None:
                last = student.step == total
                if config.eas_every and student.step % config.eas_every == 0 or last:
                    metrics |= watch(student)
                store.append_jsonl(run.file("metrics.jsonl"), metrics)
                _keep(run, config, student, last)

            train(model, student, config.recipe, config.seed, rows, soft, on_step, lambda _, n: advance(n))
    for name, data in watch.files().items():
        store.write_bytes(run.file(name), data)


def _soft_targets(model: Model, config: TrainConfig, records: Sequence[Record], rows: Sequence[Row]) -> list[Tensor]:
    teacher = stage.parse_all(config.teacher)
    contexts = [context_of(teacher, config.context if r.context is None else r.context) for r in records]
    prompts = [chat.render(model, r.prompt, c) for r, c in zip(records, contexts, strict=True)]
    for prompt, row, record in zip(prompts, rows, records, strict=True):
        chat.check_length(model, len(prompt) + len(row.completion_ids), f"row {record.id} as the teacher reads it")
    with progress("teacher distributions", len(rows), "rows") as advance:
        return teacher_hidden(model, teacher, rows, prompts, done=advance)


class Watch:
    """EAS while training: cos(v_student after n steps, v_teacher) per layer (Blank et al., section 3).

    Equal to what `extract` finds on the checkpoint of that step, with the same prompts.  Without a vector it measures
    nothing.
    """

    def __init__(self, model: Model, config: TrainConfig) -> None:
        self.model, self.vector = model, None
        if config.vector is None:
            return
        file = stage.vector_file(config.vector)
        self.vector = load_vector(file)
        near = sorted(file.parent.glob("*.safetensors")) if stage.run_folder(file) == file.parent else []
        self.named = {"v_student": self.vector} | {f"other/{p.stem}": load_vector(p) for p in near if p != file}
        self.about = {"position": "last", "context": config.context, "prompts": f"{config.eas_prompts} number prompts"}
        for vector in self.named.values():
            check_vector(vector, model)
        prompts = number_prompts(config.eas_prompts, seed=WATCH_SEED)
        self.prompts = [chat.render(model, p.text, config.context) for p in prompts]
        with applied(model, []) as active:
            self.base_LD, self.norms_L = residuals.mean_residuals(model, active, self.prompts)

    def __call__(self, student: Student) -> dict[str, list[float]]:
        """{"eas": cosine per layer, "shift": norm of v_student per layer}, rounded to 6 digits; {} without a vector."""
        if self.vector is None:
            return {}
        now_LD, _ = residuals.mean_residuals(self.model, student.active, self.prompts)
        self.v_student = residuals.difference(self.model, now_LD, self.base_LD, self.norms_L, self.about)
        cosine = self.v_student.cosine(self.vector)
        return {"eas": [round(float(c), 6) for c in cosine], "shift": [round(float(n), 6) for n in self.v_student.norms_L]}

    def files(self) -> dict[str, bytes]:
        """The last v_student, and its EAS against the vector and against those of other traits in the same run."""
        if self.vector is None:
            return {}
        eas = {name: [round(float(c), 6) for c in self.v_student.cosine(v)] for name, v in self.named.items()}
        return {"v_student.safetensors": vector_bytes(self.v_student), "eas.json": (json.dumps(eas) + "\n").encode()}


def _keep(run: store.Run, config: TrainConfig, student: Student, last: bool) -> None:
    """Write what this step leaves on disk: the student, a checkpoint, or the state to continue from."""
    if config.checkpoint_every and student.step % config.checkpoint_every == 0:
        _write_student(run, f"checkpoints/step-{student.step:06d}", student)
    if last:
        _write_student(run, "student", student)
    elif student.step % config.resume_every == 0:
        buffer = io.BytesIO()
        state = {"step": student.step, "params": [p.detach() for p in student.params]}
        torch.save(state | {"optimizer": student.optimizer.state_dict()}, buffer)
        store.write_bytes(run.file("scratch/state.pt"), buffer.getvalue())


def _write_student(run: store.Run, folder: str, student: Student) -> None:
    for name, data in student.files().items():
        store.write_bytes(run.file(f"{folder}/{name}"), data)


def _restore(run: store.Run, student: Student) -> None:
    """Continue where an interrupted run left its state: weights, optimizer, step; later metrics are dropped."""
    path, metrics = run.file("scratch/state.pt"), run.file("metrics.jsonl")
    if path.exists():
        state = torch.load(path, weights_only=True)
        for p, saved in zip(student.params, state["params"], strict=True):
            p.data.copy_(saved)
        student.optimizer.load_state_dict(state["optimizer"])
        student.publish()
        student.step = state["step"]
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    store.write_text(metrics, "".join(lines[: student.step]))
