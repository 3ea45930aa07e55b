"""The stage `train`: a run directory with a student, its metrics, its checkpoints and its EAS.

The training itself is in training/loop.py. What is here reads the config, continues an interrupted
run, and writes files.
"""

import io
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from traitscope import atomic_files, distributed
from traitscope.config.common import Output
from traitscope.config.stages import TrainConfig
from traitscope.data.records import Record
from traitscope.errors import ConfigError, StoreError
from traitscope.inference.token_rows import Row, row_check, rows_from
from traitscope.interventions import short_form
from traitscope.interventions.checks.vectors import check_vector, check_vectors
from traitscope.interventions.vector import (
    Vector,
    load_vector,
    vector_bytes,
)
from traitscope.models import chat, dtensor
from traitscope.models.identity.experts import experts_of
from traitscope.models.model import Model
from traitscope.runs import manifests, model_cache, opening, row_intake, store
from traitscope.runs.progress import progress, track
from traitscope.stages import generate, registry
from traitscope.stages.directions.data_direction import with_directions
from traitscope.training import fsdp
from traitscope.training.eas import (
    UNMOVED,
    EasProbe,
    ShiftMeter,
    StudentEas,
    completion_probe,
    eas,
    is_unmoved,
    number_probe,
    rounded,
)
from traitscope.training.inputs import beside
from traitscope.training.loop import train_student
from traitscope.training.optimizers import SCALES, scales_file
from traitscope.training.plan import TrainingPlan, plan_training
from traitscope.training.preference.pairs import Pair, pair_check, read_pairs
from traitscope.training.safeguards.acting import safeguards
from traitscope.training.safeguards.anchors import read_anchors
from traitscope.training.safeguards.masks import masked_rows
from traitscope.training.soft_targets import SoftTargets, read_soft_targets
from traitscope.training.step import Metrics
from traitscope.training.student import Student, new_student

STATE = "scratch/state.pt"
METRICS = "metrics.jsonl"
NOT_ADAPTED = "not_adapted"
"key of a manifest that says which weights LoRA left as they are"


def run_train(config: TrainConfig, out: Output) -> store.Run:
    """The sealed run with `student/` (peft adapter, full weights or vector), `metrics.jsonl`,
    `checkpoints/` where they are asked for, and `eas.json` where a vector is."""
    config = opening.settled(config)
    check_scales(config)
    if distributed.world() > 1:
        return _run_on_processes(config, out)
    with registry.opened(config, out, facts=not_adapted(config)) as run:
        if not run.sealed:
            records = training_records(config, run)
            _train_into(run, config, records, model_cache.model_of(config))
    return run


def _run_on_processes(config: TrainConfig, out: Output) -> store.Run:
    """Train as in one process; the first process alone opens the run, writes into it and seals
    it."""
    fsdp.check(config.recipe, config.dtype)
    fsdp.begin(config.device)
    facts = {"processes": distributed.world(), **not_adapted(config)}
    with ExitStack() as stack:
        to_open = registry.opened(config, out, facts=facts)
        run = fsdp.from_first(lambda: stack.enter_context(to_open))
        if not run.sealed:
            records = training_records(config, run)
            trains_all_weights = config.recipe.method == "full"
            model = fsdp.load_sharded(config.model, config.device, config.dtype, trains_all_weights)
            _train_into(run, config, records, model)
    return fsdp.from_first(lambda: run)  # once it is sealed


def not_adapted(config: TrainConfig) -> dict[str, Any]:
    """For the manifest: what a LoRA student of a mixture of experts leaves as it is."""
    experts = experts_of(config.model) if config.recipe.method == "lora" else {}
    return {NOT_ADAPTED: experts} if experts else {}


def check_scales(config: TrainConfig) -> None:
    """Raise ConfigError where factors are asked for that the optimizer neither takes nor leaves."""
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


def training_records(config: TrainConfig, run: store.Run) -> list[Record]:
    """The rows of a config, which are read before the model is loaded: a broken file is named at
    once."""
    return row_intake.kept_rows(run, config)


def readable_records(
    config: TrainConfig, run: store.Run, records: Sequence[Record], model: Model
) -> list[Record]:
    """The first rows of a config that its model can read, also as a teacher of soft targets."""
    teachers = []
    if config.recipe.targets == "soft":
        teachers.append(short_form.parse_all(config.teacher))
    check = row_check(model, config.context, config.text, *teachers)
    if config.recipe.targets == "preference":
        check = pair_check(check)
    return row_intake.readable(run, config, records, check, row_intake.first(config.max_rows))


def _train_into(
    run: store.Run, config: TrainConfig, records: Sequence[Record], model: Model
) -> None:
    records = readable_records(config, run, records, model)
    project_out = with_directions(run, config, records, model)
    guards = safeguards(short_form.parse_all(config.during), project_out)
    training = TrainingRun(run, config, records, model)
    with new_student(model, config.recipe, config.seed, config.scales, guards) as student:
        training.restore(student)
        tokens_left = training.plan.tokens_left(student.step)
        with progress(f"train {config.recipe.targets}", tokens_left, "tokens") as advance:
            train_student(model, student, training.plan, training.on_step, advance)
        training.finish(student)


class TrainingRun:
    """The training that a config describes, and the run directory that it writes into."""

    def __init__(
        self, run: store.Run, config: TrainConfig, records: Sequence[Record], model: Model
    ) -> None:
        """Prepare the rows of a settled config, and what the teacher knows of them."""
        self.run = run
        self.config = config
        rows = masked_rows(rows_from(model, records, config.context, config.text), records)
        soft_targets = None
        if config.recipe.targets == "soft":
            soft_targets = _soft_targets(model, config, records, rows)
        anchors = read_anchors(model, config.recipe, rows)
        pairs = _pairs(model, config, records, rows)
        self.plan = plan_training(rows, config.recipe, config.seed, soft_targets, anchors, pairs)
        run.facts[manifests.TRAINED_ON] = {
            **_trained_on(self.plan),
            **_trimmed(model, config, [records[place] for place in self.plan.train_indices]),
        }
        self.eas = None if config.vector is None else EasOfRun(run, model, config)

    def on_step(self, metrics: Metrics, student: Student) -> None:
        """Write what an optimizer step leaves: its metrics, and files where they are due."""
        config = self.config
        is_last = student.step == self.plan.total_steps
        eas_is_due = config.eas_every and student.step % config.eas_every == 0
        if self.eas is not None and (eas_is_due or is_last):
            metrics |= self.eas.measure(student)
        if distributed.first():
            atomic_files.append_jsonl(self.run.file(METRICS), metrics)
            track(_numbers(metrics))
        if config.checkpoint_every and student.step % config.checkpoint_every == 0:
            self._write(student.files(), f"checkpoints/step-{student.step:06d}/")
        if is_last:
            self._write(student.files(), "student/")
        elif student.step % config.resume_every == 0:
            self._write({STATE: _state(student)})

    def finish(self, student: Student) -> None:
        """Write what the end of training leaves: EAS, and the optimizer's factors if asked for."""
        files = {} if self.eas is None else self.eas.files()
        if self.config.save_scales:
            files[SCALES] = scales_file(student.optimizer, student.names, student.params)
        self._write(files)

    def restore(self, student: Student) -> None:
        """Put the student where an interrupted run left its state: parameters, optimizer, step.

        Metrics of later steps are dropped.
        """
        state_file = self.run.file(STATE)
        if state_file.exists():
            state = _read_state(state_file)
            for parameter, saved in zip(student.params, state["params"], strict=True):
                parameter.data.copy_(dtensor.like(saved, parameter))
            optimizer_state = dtensor.laid_out(state["optimizer"], student.params)
            student.optimizer.load_state_dict(optimizer_state)
            student.publish()
            student.step = state["step"]
        if distributed.first():
            self._drop_metrics_after(student.step)

    def _drop_metrics_after(self, step: int) -> None:
        metrics_file = self.run.file(METRICS)
        lines = []
        if metrics_file.exists():
            lines = metrics_file.read_text().splitlines(keepends=True)
        atomic_files.write_text(metrics_file, "".join(lines[:step]))

    def _write(self, files: dict[str, bytes], folder: str = "") -> None:
        if distributed.first():
            for name, content in files.items():
                atomic_files.write_bytes(self.run.file(folder + name), content)


def _trained_on(plan: TrainingPlan) -> dict[str, int]:
    """For the manifest: how many rows and tokens are learnt, and how many rows are held out."""
    learnt, _ = plan.pick(plan.train_indices)
    masked = sum(len(row.masked) for row in learnt)
    return {
        "rows": len(learnt),
        "tokens": sum(len(row.completion_ids) for row in learnt) - masked,
        "masked_tokens": masked,
        "held_out_rows": len(plan.held_out_indices),
    }


def _trimmed(model: Model, config: TrainConfig, records: Sequence[Record]) -> dict[str, int]:
    """For the manifest: how many rows have white space at their ends that the template takes off.

    Empty where there are none. Answers that the model sampled itself are no text.
    """
    n_rows = 0
    for record in records:
        answers = [record.completion] if config.text or not record.completion_ids else []
        if config.recipe.targets == "preference" and (config.text or not record.rejected_ids):
            answers.append(record.rejected or "")
        context = config.context if record.context is None else record.context
        n_rows += any(chat.is_trimmed(model, answer, context) for answer in answers)
    return {manifests.TRIMMED: n_rows} if n_rows else {}


def _numbers(metrics: Metrics) -> dict[str, float]:
    """What a tracker gets of an optimizer step; values by layer have a name for each layer."""
    numbers = {}
    for name, value in metrics.items():
        if isinstance(value, list):
            for layer, of_layer in enumerate(value):
                numbers[f"train/{name}/layer-{layer:02d}"] = of_layer
        else:
            numbers[f"train/{name}"] = value
    return numbers


def _soft_targets(
    model: Model, config: TrainConfig, records: Sequence[Record], rows: Sequence[Row]
) -> list[SoftTargets] | None:
    teacher = short_form.parse_all(config.teacher)
    drawn_from = None
    if config.recipe.soft_over == "allowed":
        drawn_from = generate.drawn_from(model, config.data)
    with progress("teacher distributions", len(rows), "rows") as advance:
        return read_soft_targets(
            model, config.recipe, teacher, records, rows, config.context, drawn_from, advance
        )


def _pairs(
    model: Model, config: TrainConfig, records: Sequence[Record], rows: Sequence[Row]
) -> list[Pair] | None:
    if config.recipe.targets != "preference":
        return None
    during = short_form.parse_all(config.during)
    with progress("reference", len(rows), "pairs") as advance:
        return read_pairs(
            model, config.recipe, records, rows, config.context, config.text, during, advance
        )


def _read_state(file: Path) -> dict[str, Any]:
    """What `_state` wrote. Raises StoreError for a damaged file."""
    try:
        return torch.load(file, weights_only=True)
    except Exception as error:  # torch raises many types for damaged files
        broken = StoreError(
            f"{file} cannot be read ({type(error).__name__}), so training cannot go on from it;"
            " delete it to begin again, with the same command"
        )
        raise atomic_files.exhausted(error) or broken from error


def _state(student: Student) -> bytes:
    """What an interrupted run continues from; the same whether one process trains or several."""
    state = {
        "step": student.step,
        "params": [dtensor.gathered(parameter) for parameter in student.params],
        "optimizer": tree_map_only(Tensor, dtensor.gathered, student.optimizer.state_dict()),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


class EasOfRun:
    """EAS of the student against the vector of its config, while it trains.

    At the end it is also taken against the other vectors of the same run of `extract`.
    """

    def __init__(self, run: store.Run, model: Model, config: TrainConfig) -> None:
        """Read the vectors and measure the base.  Raises VectorError for another model's."""
        vector_file = short_form.vector_file(config.vector)
        self.vector = check_vector(load_vector(vector_file), model, str(vector_file))
        self.other_vectors = check_vectors(
            {file.stem: load_vector(file) for file in beside(vector_file)}, model
        )
        self.meter = ShiftMeter(model, _probe(run, model, config))
        self.v_student: Vector | None = None

    def measure(self, student: Student) -> dict[str, list[float]]:
        """EAS and the norm of v_student, each by layer."""
        self.v_student = self.meter.v_student(student.active)
        return {
            "eas": rounded(eas(self.v_student, self.vector)),
            "shift": rounded(self.v_student.norms_L),
        }

    def files(self) -> dict[str, bytes]:
        """The last v_student, and its EAS along every vector."""
        if is_unmoved(self.v_student):
            print(f"traitscope: {UNMOVED}", file=sys.stderr)
        others = {}
        for name, vector in self.other_vectors.items():
            others[name] = rounded(eas(self.v_student, vector))
        last = StudentEas(rounded(eas(self.v_student, self.vector)), others)
        return {
            "v_student.safetensors": vector_bytes(self.v_student),
            "eas.json": (json.dumps(last.as_json()) + "\n").encode(),
        }


def _probe(run: store.Run, model: Model, config: TrainConfig) -> EasProbe:
    if config.eas_data is None:
        return number_probe(model, config.eas_prompts, config.context)
    records = row_intake.kept_rows(run, config, field="eas_data")
    check = row_check(model, config.context, config.text)
    first = row_intake.first(config.eas_prompts)
    records = row_intake.readable(run, config, records, check, first, "eas_data")
    rows = rows_from(model, records, config.context, config.text)
    return completion_probe(rows, config.context)
