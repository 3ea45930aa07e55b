"""EAS while another trainer trains: a callback for transformers' Trainer and for what extends it.

TRL's SFTTrainer is such a trainer. EAS is defined in eas.py.

The base is measured when training begins. The base of a peft model is the model with its adapters
off, wherever they start. The base of another model is the model as it stands, which is the initial
one. Where training is resumed it no longer is; then the named model is loaded for as long as
measuring it takes.

A measurement leaves training as it is. Modes, random state and what is to be trained are put back,
and the weights that come out are the same to the byte. A measurement computes with the weights as
they are stored, without the trainer's autocast.

Nothing else of the package needs this file.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled

from traitscope import atomic_files
from traitscope.config.common import Position
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt
from traitscope.errors import ConfigError, VectorError
from traitscope.inference import residuals
from traitscope.interventions import hooks
from traitscope.interventions.applied import applied
from traitscope.interventions.checks.vectors import check_vectors
from traitscope.interventions.short_form import vector_file
from traitscope.interventions.vector import Vector, load_vector
from traitscope.models.hardware import dtypes
from traitscope.models.loading import load_model, outline
from traitscope.models.model import Model, adapters_off, unwrapped
from traitscope.training.eas import EAS_SEED, UNMOVED, eas, is_unmoved, rounded

ROW = {"step", "eas", "shift"}
"keys of a line of the file"


@dataclass(frozen=True)
class Probe:
    """The prompts over which v_student is averaged; by default those of `train --vector`."""

    prompts: int | tuple[str, ...] = 16
    "how many number prompts, or the texts themselves"
    seed: int = EAS_SEED
    "seed of the number prompts; training data must have been made with another one"
    context: str | None = None
    "system turn: the template's default (None), explicitly empty, or a text"
    position: Position = "last"
    "tokens whose residuals are averaged; the vectors must have been taken at the same ones"

    def __post_init__(self) -> None:
        hooks.check_position(self.position)
        if isinstance(self.prompts, str) or not self.prompts:
            raise ConfigError(
                f"prompts={self.prompts!r}; expected a number from 1 on, or a tuple of one text or"
                " more; give one"
            )

    def rendered(self, model: Model) -> list[list[int]]:
        """Token ids of the prompts as `model` reads them."""
        prompts: Sequence[Prompt | str]
        if isinstance(self.prompts, int):
            prompts = number_prompts(self.prompts, self.seed)
        else:
            prompts = self.prompts
        return residuals.render_prompts(model, prompts, self.context)

    def about(self) -> dict[str, Any]:
        """What a vector remembers of the prompts."""
        if isinstance(self.prompts, int):
            prompts = f"{self.prompts} number prompts, seed {self.seed}"
        else:
            prompts = f"{len(self.prompts)} texts"
        return {"position": self.position, "context": self.context, "prompts": prompts}


class EasCallback(TrainerCallback):
    """EAS against one vector or several, every `every` optimizer steps and after the last.

    Each measurement is a line of `file`: {"step", "eas": {name: [cosine by layer]}, "shift": [norm
    of v_student by layer]}. Values are null where the weights are no longer finite. EAS is null
    where no weight has moved, which is said once. A new training starts the file anew, a resumed
    one continues it.

    Each measurement is also an entry of the trainer's log history. Its key is
    `eas/<name>/layer_<k>` at `layer`, else `eas/<name>/max` over the layers. The entry joins the
    next line that the trainer logs. Callbacks behind this one see that line, such as a printer, a
    progress bar or a reporter. `v_student` is the last vector.
    """

    def __init__(
        self,
        model: Model | str | Path,
        vectors: Vector | str | Path | Mapping[str, Vector | str | Path],
        every: int = 10,
        probe: Probe | None = None,
        layer: int | None = None,
        file: str | Path | None = None,
    ) -> None:
        """Check and load the vectors.

        model: the base that the vectors were taken from, its name, or its folder. The trainer
        brings the weights.
        vectors: files, runs of `extract` with one vector, or loaded ones, by name. A file alone is
        called by its stem.
        Raises VectorError for a vector of another model, ConfigError for a wrong `every` or
        `layer`.
        """
        self.base = model if isinstance(model, Model) else outline(str(model))
        self.vectors = check_vectors(_loaded_by_name(vectors), self.base)
        last = self.base.n_layers - 1
        layer_is_there = layer is None or 0 <= layer <= last
        if every < 1 or not layer_is_there:
            raise ConfigError(
                f"every={every}, layer={layer}; expected every from 1 on, layer from 0 to {last} or"
                " None; correct them"
            )
        self.every = every
        self.layer = layer
        self.file = None if file is None else Path(file)
        self.probe = probe or Probe()
        self.prompts = self.probe.rendered(self.base)
        self.v_student: Vector | None = None
        self.unseen: dict[str, float] = {}
        self.said_unmoved = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Measure the base."""
        if args.fsdp or is_deepspeed_zero3_enabled():
            raise ConfigError(
                "FSDP and ZeRO-3 split the weights over devices; save checkpoints and `extract`"
                " from them"
            )
        self.live = replace(self.base, lm=unwrapped(model))
        live, base = self.live, self.base
        if (live.n_layers, live.d_model) != (base.n_layers, base.d_model):
            raise VectorError(
                f"vectors of {base.name}, {base.n_layers} layers of {base.d_model}, but the model"
                f" in training has {live.n_layers} of {live.d_model}; name the base of the student"
            )
        if self.file is not None and state.is_world_process_zero:
            _drop_later(self.file, state.global_step)
        self.measured_step = state.global_step
        self.unseen = {}
        self.base_LD, self.norms_L = self._base_means(model, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure every `every` steps, and after the last step."""
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self._measure(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure a training that was stopped early.

        Not where the trainer has gone back to its best step.
        """
        if state.global_step > self.measured_step and not args.load_best_model_at_end:
            self._measure(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Put what has not been shown yet beside the loss."""
        if logs is not None:
            logs.update(self.unseen)
            self.unseen = {}

    def _base_means(self, lm: Any, step: int) -> tuple[np.ndarray, np.ndarray]:
        with adapters_off(lm) as adapted:
            if adapted or step == 0:
                return self._means(self.live)
        dtype_name = "fp32"
        for name, dtype in dtypes().items():
            if dtype == self.live.dtype:
                dtype_name = name
        return self._means(load_model(self.base.name, self.live.device.type, dtype_name))

    def _means(self, model: Model) -> tuple[np.ndarray, np.ndarray]:
        with aside(model.lm), applied(model, []) as active:
            return residuals.mean_residuals(model, active, self.prompts, self.probe.position)

    def _measure(self, state: TrainerState) -> None:
        now_LD, _ = self._means(self.live)
        self.measured_step = state.global_step
        row: dict[str, Any] = {"step": state.global_step, "eas": None, "shift": None}
        if np.isfinite(now_LD).all():
            about = self.probe.about() | {"step": state.global_step}
            self.v_student = residuals.difference(
                self.live, now_LD, self.base_LD, self.norms_L, about
            )
            row["shift"] = rounded(self.v_student.norms_L)
            self.unseen = {}
            if not is_unmoved(self.v_student):
                row["eas"] = self._compared(self.v_student)
                logged = {"epoch": state.epoch, "step": state.global_step}
                state.log_history.append(logged | self.unseen)
            elif not self.said_unmoved:
                self.said_unmoved = True
                print(f"traitscope: step {state.global_step}: {UNMOVED}", file=sys.stderr)
        if self.file is not None and state.is_world_process_zero:
            atomic_files.append_jsonl(self.file, row)

    def _compared(self, v_student: Vector) -> dict[str, list[float]]:
        """EAS by layer against each vector; what the log shows of it waits for the next line."""
        eas_by_name = {}
        for name, vector in self.vectors.items():
            eas_by_name[name] = rounded(eas(v_student, vector))
            key, value = self._metric(name, eas_by_name[name])
            self.unseen[key] = value
        return eas_by_name

    def _metric(self, name: str, eas_L: list[float]) -> tuple[str, float]:
        if self.layer is None:
            return f"eas/{name}/max", max(eas_L)
        return f"eas/{name}/layer_{self.layer}", eas_L[self.layer]


@contextmanager
def aside(lm: nn.Module) -> Iterator[None]:
    """The model in evaluation mode until the context ends.

    Then each module's mode and the random state are what they were.
    """
    modes = [(module, module.training) for module in lm.modules()]
    devices = sorted({p.device.index for p in lm.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices, device_type="cuda"):
        try:
            lm.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training


def _loaded_by_name(
    vectors: Vector | str | Path | Mapping[str, Vector | str | Path],
) -> dict[str, Vector]:
    """Vectors by name, loaded where they are files."""
    if isinstance(vectors, Vector):
        return {"v_teacher": vectors}
    if not isinstance(vectors, Mapping):
        vectors = {vector_file(Path(vectors)).stem: vectors}
    if not vectors:
        raise ConfigError("no vector to compare with; name at least one")
    loaded = {}
    for name, vector in vectors.items():
        if not isinstance(vector, Vector):
            vector = load_vector(vector_file(Path(vector)))
        loaded[name] = vector
    return loaded


def _drop_later(file: Path, step: int) -> None:
    """Keep the lines of a file up to `step`.

    Raises ConfigError for a file that holds anything but lines of this callback.
    """
    if not file.exists():
        return
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept_lines = [line for line in lines if _step_of_line(file, line) <= step]
    if len(kept_lines) < len(lines):
        atomic_files.write_text(file, "".join(kept_lines))


def _step_of_line(file: Path, line: str) -> int:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or row.keys() != ROW:
        raise ConfigError(
            f"{file} holds something else than EAS by step and is left as it is; name another file"
        )
    return row["step"]
