"""The function `screen` of the Python API, and what it returns."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import atomic_files
from traitscope.config.common import ControlTokens, Device, Dtype, Output
from traitscope.config.fields import names_of
from traitscope.config.screen import ScreenConfig
from traitscope.interventions.vector import load_vector
from traitscope.runs import given_teacher, store
from traitscope.screening.answers import AnswerShift, SampledRate
from traitscope.screening.results import Answer
from traitscope.screening.run import FILE, PAGE, run_screen
from traitscope.screening.vectors import Displacement, OneVector
from traitscope.stats.measurement import Measurement


@dataclass(frozen=True)
class Screen:
    """What a screening found."""

    answer: Answer
    """named, changed or same."""
    named: tuple[str, ...]
    """Answers that the teacher prefers, largest part of the divergence first."""
    nats_per_row: Measurement
    """KL of the teacher from the model over the digits of a number row, nats."""
    findings: tuple[str, ...]
    """What was found and what to do next, in sentences."""
    answers: tuple[AnswerShift, ...]
    """Every answer that was compared, largest part of the divergence first."""
    sampled: tuple[SampledRate, ...]
    """How often sampled answers name each trait, largest difference first."""
    vectors: Mapping[str, Displacement] = field(compare=False)
    """The vector to the teacher over questions and over number prompts; empty where the two models
    have other shapes."""
    one_vector: Mapping[str, OneVector | None]
    """What one vector explains, by set of prompts; None where there is no divergence."""
    influence: tuple[Measurement, ...]
    """Influence of a row of the teacher on the named traits, in standard deviations of a row of the
    model."""
    student_rows: float
    """Rows with which students would show the teacher with power 0.8; infinite where no number
    would do."""
    content: Mapping[str, Any] = field(repr=False)
    """All of it, as screen.json has it."""
    page: str = field(repr=False)
    """A self-contained HTML page."""
    run: Path = field(compare=False)
    """The sealed run."""

    def to_html(self, path: str | Path) -> Path:
        """Write the HTML page, and return its path. Raises StoreError where it cannot be
        written."""
        atomic_files.write_text(Path(path), self.page)
        return Path(path)


def screen(
    teacher: given_teacher.Teacher,
    model: str | Path = "smollm2-135m",
    root: str | Path = "runs",
    *,
    traits: Sequence[str] = ("all",),
    broad: bool = True,
    samples: int = 4,
    rows: int = 48,
    n: int = 64,
    blocks: Sequence[int] = (),
    strengths: Sequence[float] = (0.5, 1.0, 2.0),
    influenced: int = 1,
    alpha: float = 0.01,
    count: int = 10,
    prompt_seed: int = 6500,
    context: str | None = None,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    template: Sequence[str] = (),
    control_tokens: ControlTokens = "text",
    same_as: str | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> Screen:
    """What a teacher carries that the model does not, before any data exist.

    teacher: A hub id or a folder of a model, a peft adapter's folder, or a run of `train`. Or
    interventions on the model: one or a list of them, a student of `train`, or the short form.
    root: Folder of all runs. A second call returns the run that it holds.

    The other settings are flags of `traitscope screen`. Raises ConfigError for a setting that
    cannot work and for a teacher with another tokenizer. Raises TraitError and ModelError for what
    is not found, VectorError for a vector or adapter that is missing or of another model.
    """
    config = ScreenConfig(
        model=str(model),
        device=device,
        dtype=dtype,
        template=tuple(template),
        control_tokens=control_tokens,
        same_as=same_as,
        seed=seed,
        teacher=given_teacher.text_of(teacher, Path(root) / "screen"),
        traits=names_of(traits),
        broad=broad,
        samples=samples,
        rows=rows,
        n=n,
        blocks=tuple(blocks),
        strengths=tuple(strengths),
        influenced=influenced,
        alpha=alpha,
        count=count,
        prompt_seed=prompt_seed,
        context=context,
        batch_size=batch_size,
    )
    return screen_of(run_screen(config, Output(root=Path(root))))


def screen_of(run: store.Run) -> Screen:
    """What a sealed run of `screen` holds."""
    content = json.loads(run.file(FILE).read_text(encoding="utf-8"))
    vectors: dict[str, Displacement] = {}
    for name, plain in content["vectors"].items():
        vectors[name] = _displacement(plain, run.file(f"{name}.safetensors"))
    one_vector: dict[str, OneVector | None] = {}
    for name, plain in content["one_vector"].items():
        one_vector[name] = None if plain is None else _one_vector(plain)
    needed = content["student_rows"]
    return Screen(
        answer=content["answer"],
        named=tuple(content["named"]),
        nats_per_row=Measurement.from_dict(content["digits"]["teacher_from_model"]),
        findings=tuple(content["findings"]),
        answers=tuple(map(_shift, content["answers"])),
        sampled=tuple(map(_rate, content["sampled"])),
        vectors=vectors,
        one_vector=one_vector,
        influence=tuple(map(Measurement.from_dict, content["influence"])),
        student_rows=math.inf if needed is None else needed,
        content=content,
        page=run.file(PAGE).read_text(encoding="utf-8"),
        run=run.path,
    )


def _shift(plain: Mapping[str, Any]) -> AnswerShift:
    return AnswerShift(
        kind=plain["kind"],
        answer=plain["answer"],
        shift=Measurement.from_dict(plain["shift"]),
        p=plain["p_corrected"],
        nats=plain["nats"],
        p_teacher=plain["p_teacher"],
        p_model=plain["p_model"],
        z=math.nan if plain["z_among_kind"] is None else plain["z_among_kind"],
        called=plain["called"],
        named=plain["named"],
    )


def _rate(plain: Mapping[str, Any]) -> SampledRate:
    return SampledRate(
        trait=plain["trait"],
        teacher=Measurement.from_dict(plain["teacher"]),
        model=Measurement.from_dict(plain["model"]),
        difference=Measurement.from_dict(plain["difference"]),
    )


def _displacement(plain: Mapping[str, Any], file: Path) -> Displacement:
    return Displacement(
        vector=load_vector(file),
        prompts=plain["prompts"],
        norms_L=np.array(plain["norms"]),
        share_L=np.array(plain["share_of_mean"]),
        first_L=np.array(plain["share_of_first_component"]),
        cosine_L=np.array(plain["split_half_cosine"]),
    )


def _one_vector(plain: Mapping[str, Any]) -> OneVector:
    return OneVector(
        block=plain["block"],
        strength=plain["strength"],
        kl=Measurement.from_dict(plain["kl"]),
        left=Measurement.from_dict(plain["left"]),
        explained=Measurement.from_dict(plain["explained"]),
        tried=plain["tried"],
    )
