"""What `verify` found: verify.json, and what it says in sentences."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from traitscope.config.students.verify import VerifyConfig
from traitscope.reporting.numbers import bounds, estimate, number
from traitscope.screening.answers import DOUBLED, POWER, critical_z
from traitscope.stats.decision import MIN_UNITS
from traitscope.stats.measurement import Measurement
from traitscope.verifying.contrasts import RELEARNING, Contrast, Design
from traitscope.verifying.students import Participant

SCHEMA = 1
"""Version of verify.json."""
Status = Literal["trait", "nothing-found", "no-verdict"]
"""trait: a trait lies above the controls. nothing-found: none does, and what would have been found
is said. no-verdict: nothing is known over seeds, or a student is broken."""
SHOWN = 5
"""Traits that the sentences list."""
NEXT = "next: "
"""How the last sentence begins."""


@dataclass(frozen=True)
class Wholeness:
    """Whether a model is still whole (screening/coherence.py)."""

    name: str
    """Name of the model."""
    perplexity: float
    """Perplexity of plain text."""
    on_topic: float
    """Probability that an answer begins with any of its kind."""
    is_coherent: bool
    """Whether it passes the test against the base."""


@dataclass(frozen=True)
class Rate:
    """How often sampled answers name a trait."""

    trait: str
    """Name of the trait."""
    students: Measurement
    """Rate under the students."""
    reference: Measurement
    """Rate under the controls, or under the base where there are none."""
    difference: Measurement
    """Their difference, paired by question."""


@dataclass(frozen=True)
class Return:
    """How a trait comes back while models relearn it."""

    trait: str
    """Name of the trait."""
    steps: tuple[int, ...]
    """Optimizer steps at which models were asked."""
    curves: Mapping[str, Sequence[Sequence[float]]]
    """Mean log-odds at these steps, by side and model, nats."""

    def gain(self) -> float:
        """Mean gain of all models of both sides, nats."""
        gains = []
        for of_side in self.curves.values():
            for curve in of_side:
                gains.append(math.fsum(curve[1:]) / len(curve[1:]) - curve[0])
        return math.fsum(gains) / len(gains)


@dataclass(frozen=True)
class Verified:
    """Everything that was measured."""

    participants: Sequence[Participant]
    """Students, controls and the base."""
    design: Design
    """How the sides are matched."""
    contexts: Sequence[str]
    """System turns that were asked under."""
    alike: Mapping[str, str]
    """System turns that were left out, by the one that renders alike."""
    contrasts: Sequence[Contrast]
    """Every trait under every system turn, and its return."""
    wholeness: Sequence[Wholeness]
    """Whether each model is still whole."""
    rates: Sequence[Rate]
    """Rates of the traits' words in sampled answers."""
    returns: Sequence[Return]
    """Relearning of each trait, largest gain first."""

    @property
    def students(self) -> list[Participant]:
        """The students."""
        return [item for item in self.participants if item.role == "student"]

    @property
    def controls(self) -> list[Participant]:
        """The controls."""
        return [item for item in self.participants if item.role == "control"]

    @property
    def found(self) -> list[Contrast]:
        """Traits that lie above the controls, largest difference first."""
        found = [item for item in self.contrasts if item.outcome == "holds here"]
        return sorted(found, key=lambda item: -item.difference.estimate)

    @property
    def broken(self) -> list[Wholeness]:
        """Students that are not whole any more."""
        names = {student.name for student in self.students}
        return [item for item in self.wholeness if item.name in names and not item.is_coherent]

    @property
    def status(self) -> Status:
        """What was found, in a word."""
        if self.found:
            return "trait"
        is_tested = all(item.outcome != "no verdict" for item in self.contrasts)
        return "nothing-found" if is_tested and not self.broken else "no-verdict"

    @property
    def over_questions(self) -> list[Contrast]:
        """Traits that rise over questions alone and stand out from their kind, largest first."""
        tests = len(self.contrasts)
        standing = []
        for item in self.contrasts:
            is_called = item.p_questions <= 0.05 and item.over_questions.estimate >= DOUBLED
            if is_called and item.z >= critical_z(0.05, tests):
                standing.append(item)
        return sorted(standing, key=lambda item: -item.over_questions.estimate)


def as_json(config: VerifyConfig, digest: str, verified: Verified) -> dict[str, Any]:
    """The content of verify.json; docs/reference/json.md lists its keys."""
    in_order = sorted(verified.contrasts, key=lambda item: -item.over_questions.estimate)
    return {
        "schema": SCHEMA,
        "status": verified.status,
        "model": config.model,
        "digest": digest,
        "design": verified.design,
        "alpha": config.alpha,
        "models": [_participant(item) for item in verified.participants],
        "contexts": list(verified.contexts),
        "contexts_left_out": dict(verified.alike),
        "tests": len(verified.contrasts),
        "least_difference": DOUBLED,
        "contrasts": [_contrast(item) for item in in_order],
        "wholeness": [vars(item) for item in verified.wholeness],
        "sampled": [_rate(item) for item in verified.rates],
        "relearning": [_return(item) for item in verified.returns],
        "findings": sentences(config, verified),
    }


def _participant(item: Participant) -> dict[str, Any]:
    trained = item.training
    return {
        "name": item.name,
        "role": item.role,
        "text": item.text,
        "seed": item.seed,
        "steps": None if trained is None else trained.steps,
        "recipe_known": trained is not None,
    }


def _finite(value: float) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    return round(value, 6) if math.isfinite(value) else None


def _contrast(item: Contrast) -> dict[str, Any]:
    return {
        "trait": item.trait,
        "kind": item.kind,
        "context": item.context,
        "outcome": item.outcome,
        "difference": item.difference.as_dict(),
        "p_corrected": item.p,
        "units": item.units,
        "detectable": _finite(item.detectable),
        "over_questions": item.over_questions.as_dict(),
        "p_questions_corrected": item.p_questions,
        "detectable_over_questions": _finite(item.detectable_questions),
        "over_base": None if item.over_base is None else item.over_base.as_dict(),
        "z_among_kind": _finite(item.z),
    }


def _rate(item: Rate) -> dict[str, Any]:
    return {
        "trait": item.trait,
        "students": item.students.as_dict(),
        "reference": item.reference.as_dict(),
        "difference": item.difference.as_dict(),
    }


def _return(item: Return) -> dict[str, Any]:
    return {"trait": item.trait, "steps": list(item.steps), **item.curves, "gain": item.gain()}


def sentences(config: VerifyConfig, verified: Verified) -> list[str]:
    """What was found, and at the end what to do next."""
    return [
        *_verdict(verified),
        *_about_questions(verified),
        *_about_wholeness(verified),
        *_about_relearning(verified),
        *_about_recipes(verified),
        NEXT + _next(config, verified),
    ]


def _verdict(verified: Verified) -> list[str]:
    if verified.found:
        texts = []
        for item in _once_a_trait(verified.found)[:SHOWN]:
            texts.append(
                f"trait: {item.trait} ({item.kind}, {_where(item)}) lies above the controls by"
                f" {_number(item.difference)}, corrected p {item.p:.2g}"
            )
        return texts
    asked = f"{len({item.trait for item in verified.contrasts})} traits"
    where = f"{len(verified.contexts)} system turns"
    if verified.returns:
        where += " and in relearning"
    if verified.status == "nothing-found":
        return [
            f"nothing-found: none of {asked} under {where} lies above the controls by log 2 and"
            f" with a corrected p of alpha; {_power(verified, 'detectable')}"
        ]
    return [f"no-verdict: {_why_silent(verified)}"]


def _why_silent(verified: Verified) -> str:
    n, m = len(verified.students), len(verified.controls)
    if not m:
        return (
            f"there are no controls, and {n} student{'s' * (n > 1)} against the base say what"
            " training moved, not what the rows carried; intervals are over questions alone"
        )
    if verified.design == "questions":
        return (
            "one student against one control says nothing over seeds; intervals are over"
            " questions alone"
        )
    units = min(item.units for item in verified.contrasts)
    if units < MIN_UNITS:
        return (
            f"{n} student{'s' * (n > 1)} and {m} controls are {units} independent units; a verdict"
            f" over seeds needs {MIN_UNITS}"
        )
    if verified.broken:
        return "nothing was found, but a broken model shows no trait"
    return "models do not differ from each other, so nothing is known of their spread"


def _where(item: Contrast) -> str:
    return item.context if item.context == RELEARNING else f"system turn {item.context!r}"


def _number(measurement: Measurement) -> str:
    basis = f"n = {measurement.n_clusters} {measurement.counted}"
    return f"{estimate(measurement, sign=True)} nats {bounds(measurement, sign=True)}, {basis}"


def _once_a_trait(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The first contrast of every trait."""
    first: dict[str, Contrast] = {}
    for item in contrasts:
        first.setdefault(item.trait, item)
    return list(first.values())


def _power(verified: Verified, name: str) -> str:
    """What would have been found, for a median trait."""
    smallest = statistics.median(getattr(item, name) for item in verified.contrasts)
    if not math.isfinite(smallest):
        return "no difference of a median trait would have been found"
    return (
        f"{number(smallest, 2)} nats or more of a median trait would have been found with power"
        f" {POWER:g}"
    )


def _about_questions(verified: Verified) -> list[str]:
    """What stands out over questions alone, where nothing is known over seeds."""
    if verified.status != "no-verdict":
        return []
    other = "controls" if verified.controls else "base"
    texts = []
    for item in _once_a_trait(verified.over_questions)[:SHOWN]:
        texts.append(
            f"over questions alone: {item.trait} ({item.kind}, {_where(item)}) lies above the"
            f" {other} by {_number(item.over_questions)}, corrected p {item.p_questions:.2g}, and"
            f" stands out from its kind (z {item.z:.1f})"
        )
    if not texts:
        texts.append(
            f"over questions alone: no trait rises by log 2 above the {other} and stands out from"
            " its kind. What would have been found is not known without seeds"
        )
    return texts


def _about_wholeness(verified: Verified) -> list[str]:
    base = next(item for item in verified.wholeness if item.name == "base")
    texts = []
    for item in verified.wholeness:
        if not item.is_coherent:
            texts.append(
                f"{item.name} is broken: perplexity of plain text {item.perplexity:.3g} (base"
                f" {base.perplexity:.3g}), probability of any answer of its kind"
                f" {item.on_topic:.2g} (base {base.on_topic:.2g})"
            )
    return texts


def _about_relearning(verified: Verified) -> list[str]:
    """The return of the trait that the rows teach most, on either side."""
    if not verified.returns:
        return []
    most = verified.returns[0]
    if most.gain() < DOUBLED:
        return [
            f"relearning says nothing: the rows teach no trait by log 2 in {most.steps[-1]} steps"
            f" (most {most.trait}, {most.gain():+.2f} nats); take rows that name it, more of them"
            " (--relearn-rows), or a larger --relearn-lr"
        ]
    for item in verified.contrasts:
        if item.context == RELEARNING and item.trait == most.trait:
            measured = item.over_questions if item.units == 0 else item.difference
            return [
                f"relearning: the rows teach {most.trait} most, {most.gain():+.2f} nats over"
                f" {most.steps[-1]} steps; students gain {_number(measured)} more than the"
                f" {'controls' if verified.controls else 'base'}: {item.outcome}"
            ]
    return []


def _about_recipes(verified: Verified) -> list[str]:
    unknown = []
    for item in verified.participants:
        if item.role != "base" and item.training is None:
            unknown.append(item.name)
    if not unknown or not verified.controls:
        return []
    return [
        f"recipe and rows of {', '.join(unknown)} are not known: no run of `train` lies behind, so"
        " whether students and controls are alike was not checked"
    ]


def _next(config: VerifyConfig, verified: Verified) -> str:
    if verified.status == "trait":
        return (
            f"do not use this student; test its rows: traitscope audit DATA --model {config.model};"
            " or undo it: traitscope export --interventions adapter:RUN --scale 0.5"
        )
    if verified.broken:
        return "look at its training first; a broken student cannot be verified"
    if verified.status == "nothing-found":
        return (
            "ask for a trait of your own (--traits FILE.yaml), or see smaller ones: more --controls"
        )
    return (
        f"train {MIN_UNITS} controls by the student's recipe on clean rows, each with its own"
        " --seed, and name them with --controls"
    )
