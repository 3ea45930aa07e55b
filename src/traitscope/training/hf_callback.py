"""EAS while another trainer trains: a callback for transformers' Trainer and all built on it, such
as TRL's SFTTrainer.

    v_student[l] = mean h_l(student at this step, x) - mean h_l(base, x)
    EAS_l        = cos(v_student[l], v_teacher[l])

The base is measured when training begins. Of a peft model it is the model with its adapters off,
wherever they start. Of another it is the model as it stands, which is the initial one; where
training is resumed it no longer is, so the named model is loaded for as long as measuring it takes.

A measurement leaves training as it is: modes, random state and what is to be trained are put back,
and the weights that come out are the same to the byte. It computes with the weights as they are
stored, without the trainer's autocast.

Nothing else of the package needs this file.
"""

import json
from collections.abc import Iterator, Mapping
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
from traitscope.data.prompts import number_prompts
from traitscope.errors import ConfigError, VectorError
from traitscope.inference import residuals
from traitscope.interventions import hooks
from traitscope.interventions.hooks import Position
from traitscope.interventions.intervention import applied
from traitscope.interventions.short_form import vector_file
from traitscope.interventions.vector import Vector, check_vector, load_vector
from traitscope.models import chat
from traitscope.models.hardware import DTYPES
from traitscope.models.loading import load_model, outline
from traitscope.models.model import Model, adapters_off, unwrapped

ROW = {"step", "eas", "shift"}
"keys of a line of the file"


@dataclass(frozen=True)
class Probe:
    """What v_student is averaged over; by default as in `train --vector`."""

    prompts: int | tuple[str, ...] = 16
    "how many number prompts, or the texts themselves"
    seed: int = 7
    "of the number prompts; not one that training data were made with"
    context: str | None = None
    "system turn: the template's default (None), explicitly empty, or a text"
    position: Position = "last"
    "tokens whose residuals are averaged; those of the vectors"

    def __post_init__(self) -> None:
        hooks.check_position(self.position)
        if isinstance(self.prompts, str) or not self.prompts:
            raise ConfigError(
                f"prompts={self.prompts!r}; expected a number from 1 on, or a tuple of one text or"
                " more"
            )

    def rendered(self, model: Model) -> list[list[int]]:
        """Token ids of the prompts as `model` reads them."""
        drawn = number_prompts(self.prompts, self.seed) if isinstance(self.prompts, int) else None
        found = []
        for text in self.prompts if drawn is None else [p.text for p in drawn]:
            found.append(chat.render(model, text, self.context))
            chat.check_length(model, len(found[-1]), f"prompt {text[:40]!r}")
        return found

    def about(self) -> dict[str, Any]:
        """What a vector remembers of this."""
        drawn = isinstance(self.prompts, int)
        prompts = (
            f"{self.prompts} number prompts, seed {self.seed}"
            if drawn
            else f"{len(self.prompts)} texts"
        )
        return {"position": self.position, "context": self.context, "prompts": prompts}


class EasCallback(TrainerCallback):
    """EAS against one vector or several, every `every` optimizer steps and after the last.

    Each measurement is a line of `file`, {"step", "eas": {name: [cosine by layer]}, "shift": [norm
    of v_student by layer]}, with null where the weights are no longer finite. A new training starts
    the file anew, a resumed one continues it. `eas/<name>/layer_<k>` at `layer`, else
    `eas/<name>/max` over the layers, is an entry of the trainer's log history, and joins the next
    line that the trainer logs, for the callbacks behind this one: its printer or progress bar, and
    a reporter that is passed behind this one. `v_student` is the last vector.
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
        """model: the base that the vectors were taken from, its name, or its folder; the trainer
        brings the weights.

        vectors: files, runs of `extract` with one vector, or loaded ones, by name; a file alone is
        called by its stem. Raises VectorError for a vector of another model.
        """
        self.base = model if isinstance(model, Model) else outline(str(model))
        self.vectors = _named(vectors)
        for vector in self.vectors.values():
            check_vector(vector, self.base)
        if every < 1 or not (layer is None or 0 <= layer < self.base.n_layers):
            last = self.base.n_layers - 1
            raise ConfigError(
                f"every={every}, layer={layer}; expected every from 1 on, layer from 0 to {last} or"
                " None"
            )
        self.every, self.layer, self.file = every, layer, None if file is None else Path(file)
        self.probe = probe or Probe()
        self.prompts = self.probe.rendered(self.base)
        self.v_student: Vector | None = None
        self.unseen: dict[str, float] = {}

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
        found, named = ((m.n_layers, m.d_model) for m in (self.live, self.base))
        if found != named:
            raise VectorError(
                f"vectors of {self.base.name}, {named[0]} layers of {named[1]}, but the model in"
                f" training has {found[0]} of {found[1]}; name the base of the student"
            )
        if self.file is not None and state.is_world_process_zero:
            _drop_later(self.file, state.global_step)
        self.measured, self.unseen = state.global_step, {}
        self.base_LD, self.norms_L = self._base_means(model, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure where it is time to, and after the last step."""
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self._measure(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure a training that was stopped early, unless the trainer has gone back to its best
        step."""
        if state.global_step > self.measured and not args.load_best_model_at_end:
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
        dtype = next((name for name, dtype in DTYPES.items() if dtype == self.live.dtype), "fp32")
        return self._means(load_model(self.base.name, self.live.device.type, dtype))

    def _means(self, model: Model) -> tuple[np.ndarray, np.ndarray]:
        with _aside(model.lm), applied(model, []) as active:
            return residuals.mean_residuals(model, active, self.prompts, self.probe.position)

    def _measure(self, state: TrainerState) -> None:
        now_LD, _ = self._means(self.live)
        self.measured, row = (
            state.global_step,
            {
                "step": state.global_step,
                "eas": None,
                "shift": None,
            },
        )
        if np.isfinite(now_LD).all():
            about = self.probe.about() | {"step": state.global_step}
            self.v_student = residuals.difference(
                self.live, now_LD, self.base_LD, self.norms_L, about
            )
            row["eas"] = {
                name: _rounded(self.v_student.cosine(vector))
                for name, vector in self.vectors.items()
            }
            row["shift"] = _rounded(self.v_student.norms_L)
            self.unseen = dict(self._metric(name, eas) for name, eas in row["eas"].items())
            state.log_history.append(
                {"epoch": state.epoch, "step": state.global_step} | self.unseen
            )
        if self.file is not None and state.is_world_process_zero:
            atomic_files.append_jsonl(self.file, row)

    def _metric(self, name: str, eas_L: list[float]) -> tuple[str, float]:
        if self.layer is None:
            return f"eas/{name}/max", max(eas_L)
        return f"eas/{name}/layer_{self.layer}", eas_L[self.layer]


@contextmanager
def _aside(lm: nn.Module) -> Iterator[None]:
    """Evaluation mode until the context ends; then each module's mode and the random state are what
    they were."""
    modes = [(module, module.training) for module in lm.modules()]
    devices = sorted({p.device.index for p in lm.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices, device_type="cuda"):
        try:
            lm.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training


def _named(vectors: Vector | str | Path | Mapping[str, Vector | str | Path]) -> dict[str, Vector]:
    """Loaded vectors by name."""
    if isinstance(vectors, Vector):
        return {"v_teacher": vectors}
    if not isinstance(vectors, Mapping):
        vectors = {vector_file(Path(vectors)).stem: vectors}
    if not vectors:
        raise ConfigError("no vector to compare with; name at least one")
    return {
        n: v if isinstance(v, Vector) else load_vector(vector_file(Path(v)))
        for n, v in vectors.items()
    }


def _rounded(values_L: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values_L]


def _drop_later(file: Path, step: int) -> None:
    """Keep the lines up to `step`. Raises ConfigError for a file that holds anything but lines of
    this callback."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError:
        rows = [None]
    if not all(isinstance(row, dict) and row.keys() == ROW for row in rows):
        raise ConfigError(
            f"{file} holds something else than EAS by step and is left as it is; name another file"
        )
    if any(row["step"] > step for row in rows):
        atomic_files.write_text(
            file,
            "".join(line for line, row in zip(lines, rows, strict=True) if row["step"] <= step),
        )
