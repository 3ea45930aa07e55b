"""What a screening found: screen.json, and what it says in sentences."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from traitscope.config.screen import ScreenConfig
from traitscope.information.power import DEMO as CALIBRATION
from traitscope.information.power import POWER, rows_needed
from traitscope.models.identity.words import model_words
from traitscope.reporting.numbers import bounds, estimate
from traitscope.screening.answers import DOUBLED, AnswerShift, SampledRate
from traitscope.screening.questions import Kind
from traitscope.screening.rows import STUDENT_SEEDS, NumberRows
from traitscope.screening.vectors import Displacement, OneVector
from traitscope.stats.measurement import Measurement

SCHEMA = 1
"""Version of screen.json."""
Answer = Literal["named", "changed", "same"]
"""named: the teacher prefers an answer. changed: it differs, and no answer is called. same: it
computes what the model computes."""
SHOWN = 5
"""Named answers that the sentences list."""
SETS = ("questions", "numbers")
"""Sets of prompts over which vectors are taken."""


@dataclass(frozen=True)
class Screened:
    """Everything that was measured."""

    kinds: Sequence[Kind]
    """What was asked."""
    shifts: Sequence[AnswerShift]
    """Every answer's shift, largest part of the divergence first."""
    detectable: float
    """Shift in nats that would be called of a median answer; NaN where none has a spread."""
    rates: Sequence[SampledRate]
    """Rates of the traits' words in sampled answers."""
    displacements: Mapping[str, Displacement]
    """Vectors by set of prompts; empty where the two have other shapes."""
    one_vector: Mapping[str, OneVector | None]
    """What one vector explains, by set of prompts; None where there is no divergence."""
    vectors_left_out: str
    """Why no vectors were taken; empty where they were."""
    rows: NumberRows
    """Number rows of both sides."""
    influence: Sequence[Measurement]
    """Influence of the teacher's rows on named traits."""

    @property
    def named(self) -> list[AnswerShift]:
        """Answers that the teacher prefers, largest part of the divergence first."""
        return [item for item in self.shifts if item.named]

    @property
    def answer(self) -> Answer:
        """What was found, in a word."""
        if self.named:
            return "named"
        apart = any(item.shift.estimate != 0 for item in self.shifts)
        return "changed" if apart or self.rows.of_teacher().estimate > 0 else "same"


def as_json(config: ScreenConfig, digest: str, screened: Screened) -> dict[str, Any]:
    """The content of screen.json; docs/reference/file-formats.md lists its keys."""
    rows = screened.rows
    return {
        "schema": SCHEMA,
        "answer": screened.answer,
        "model": config.model,
        "digest": digest,
        "teacher": config.teacher,
        "alpha": config.alpha,
        "named": [item.answer for item in screened.named],
        "kinds": [_kind(kind) for kind in screened.kinds],
        "least_shift": DOUBLED,
        "detectable_shift": _number(screened.detectable),
        "answers": [_shift(item) for item in screened.shifts],
        "sampled": [_rate(item) for item in screened.rates],
        "vectors": {name: _displacement(x) for name, x in screened.displacements.items()},
        "one_vector": {name: _one_vector(x) for name, x in screened.one_vector.items()},
        "vectors_left_out": screened.vectors_left_out,
        "digits": {
            "teacher_from_model": rows.of_teacher().as_dict(),
            "model_from_teacher": rows.of_model().as_dict(),
            "rows": len(rows.records),
            "effective_rows": round(rows.effective_rows(), 1),
        },
        "influence": [item.as_dict() for item in screened.influence],
        "student_rows": _number(_rows_needed(rows.of_teacher())),
        "student_rows_about": f"power {POWER:g} with {STUDENT_SEEDS} seeds, {CALIBRATION.source}",
        "findings": sentences(config, screened),
    }


def _number(value: float) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    return round(value, 6) if math.isfinite(value) else None


def _numbers(values: Any) -> list[float]:
    return [round(float(value), 6) for value in values]


def _kind(kind: Kind) -> dict[str, Any]:
    return {
        "name": kind.name,
        "questions": len(kind.questions),
        "answers": len(kind.answers),
        "left_out": list(kind.left_out),
    }


def _shift(item: AnswerShift) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "answer": item.answer,
        "shift": item.shift.as_dict(),
        "p_corrected": item.p,
        "nats": round(item.nats, 6),
        "p_teacher": round(item.p_teacher, 6),
        "p_model": round(item.p_model, 6),
        "z_among_kind": _number(item.z),
        "called": item.called,
        "named": item.named,
    }


def _rate(item: SampledRate) -> dict[str, Any]:
    return {
        "trait": item.trait,
        "teacher": item.teacher.as_dict(),
        "model": item.model.as_dict(),
        "difference": item.difference.as_dict(),
    }


def _displacement(item: Displacement) -> dict[str, Any]:
    return {
        "prompts": item.prompts,
        "norms": _numbers(item.norms_L),
        "share_of_mean": _numbers(item.share_L),
        "share_of_first_component": _numbers(item.first_L),
        "split_half_cosine": _numbers(item.cosine_L),
    }


def _one_vector(item: OneVector | None) -> dict[str, Any] | None:
    if item is None:
        return None
    return {
        "block": item.block,
        "strength": item.strength,
        "tried": item.tried,
        "kl": item.kl.as_dict(),
        "left": item.left.as_dict(),
        "explained": item.explained.as_dict(),
    }


def _rows_needed(nats: Measurement) -> float:
    """Rows a seed with which students would show the teacher with power POWER."""
    efficiency = CALIBRATION.efficiency().estimate
    return rows_needed(max(0.0, nats.estimate), STUDENT_SEEDS, efficiency)


def sentences(config: ScreenConfig, screened: Screened) -> list[str]:
    """What was found, and at the end what to do next."""
    return [
        _about_answers(config, screened),
        *_about_samples(screened),
        *_about_vectors(screened),
        *_about_rows(screened),
        _next(config, screened),
    ]


def _about_answers(config: ScreenConfig, screened: Screened) -> str:
    tests = len(screened.shifts)
    if screened.answer == "same":
        return f"same: the teacher computes what the model computes; none of {tests} answers moves"
    if not screened.named:
        power = "nothing is known of smaller shifts"
        if math.isfinite(screened.detectable):
            power = (
                f"a shift of {screened.detectable:.2f} nats of a median answer would be called"
                f" with power {POWER:g}"
            )
        return (
            f"changed: the teacher differs from the model, but none of {tests} answers is named;"
            f" {_called(screened)}; {power}"
        )
    named = []
    for item in screened.named[:SHOWN]:
        shift = item.shift
        named.append(
            f"{item.answer} ({item.kind}): log-odds"
            f" {estimate(shift, sign=True)} nats {bounds(shift, sign=True)} over {shift.n}"
            f" questions, corrected p {item.p:.2g}"
        )
    further = len(screened.named) - len(named)
    rest = f"; and {further} more" * (further > 0)
    return f"named: the teacher prefers {'; '.join(named)}{rest}; {_called(screened)}"


def _called(screened: Screened) -> str:
    """How many answers move, up and down."""
    called = [item for item in screened.shifts if item.called]
    up = sum(item.shift.estimate > 0 for item in called)
    return (
        f"{up} of {len(screened.shifts)} answers rise and {len(called) - up} fall by log 2"
        " (0.69 nats) or more"
    )


def _about_samples(screened: Screened) -> list[str]:
    named = {item.answer for item in screened.named}
    texts = []
    for rate in screened.rates:
        if rate.trait in named and len(texts) < SHOWN:
            texts.append(
                f"{rate.trait}: {rate.teacher.estimate:.1%} of its sampled answers against"
                f" {rate.model.estimate:.1%} of the model's, difference"
                f" {estimate(rate.difference, sign=True)} {bounds(rate.difference, sign=True)}"
            )
    return texts


def _about_vectors(screened: Screened) -> list[str]:
    if screened.vectors_left_out:
        return [screened.vectors_left_out]
    texts = []
    for name, item in screened.displacements.items():
        block = int(item.norms_L.argmax())
        text = (
            f"residuals on {name}: they move most behind block {block}, by"
            f" {item.norms_L[block]:.2g} residual norms; one direction has"
            f" {item.share_L[block]:.0%} of the squared difference"
        )
        one = screened.one_vector.get(name)
        if one is not None:
            text += (
                f"; added behind block {one.block} it explains"
                f" {one.explained.estimate:.0%} of the KL"
                f" [{one.explained.low:.0%}, {one.explained.high:.0%}]"
            )
        texts.append(text)
    return texts


def _about_rows(screened: Screened) -> list[str]:
    nats = screened.rows.of_teacher()
    text = f"number rows: {estimate(nats)} nats a row {bounds(nats)} over {nats.n} rows in digits"
    needed = _rows_needed(nats)
    if math.isfinite(needed):
        text += (
            f"; students of about {needed:.0f} rows each would show it with power {POWER:g}, if"
            " they learn as those of the demo do"
        )
    else:
        text += "; such rows carry nothing of it"
    texts = [text]
    for item in screened.influence:
        texts.append(f"{item.name}: {estimate(item, sign=True)} {bounds(item, sign=True)} z a row")
    return texts


def _next(config: ScreenConfig, screened: Screened) -> str:
    if screened.answer == "same":
        return "next: nothing can pass from this teacher; name another one"
    dtype = "auto" if config.dtype == ScreenConfig.dtype else config.dtype
    words = model_words({**vars(config), "dtype": dtype}, with_context=False)
    audit = shlex.join(["traitscope", "audit", "DATA", *words, "--teacher", str(config.teacher)])
    if screened.answer == "changed":
        return f"next: ask about a trait of your own (--traits FILE.yaml), or test data: {audit}"
    return f"next: do not train on its rows without a test of them: {audit}"
