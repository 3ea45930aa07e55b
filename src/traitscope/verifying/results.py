"""What `verify` found, and verify.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from traitscope.config.students.verify import VerifyConfig
from traitscope.screening.answers import DOUBLED, critical_z
from traitscope.stats.measurement import Measurement
from traitscope.verifying.contrasts import Contrast
from traitscope.verifying.rows import SharedRows
from traitscope.verifying.students import Participant
from traitscope.verifying.units import Matching

SCHEMA = 1
"""Version of verify.json."""
Status = Literal["trait", "nothing-found", "no-verdict"]
"""trait: a trait lies above the controls, or comes back in students more than in controls.
nothing-found: none does, and what would have been found is said. no-verdict: too few controls have
rows and a seed of their own, a student is broken, or the controls are none."""


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
    matching: Matching
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
    shared: Sequence[SharedRows] = ()
    """What controls learnt of the students' rows, by control and student."""
    sets: Mapping[str, str | None] = field(default_factory=dict)
    """The set of rows of students and controls, by name; None where it is not known."""

    @property
    def students(self) -> list[Participant]:
        """The students."""
        return [item for item in self.participants if item.role == "student"]

    @property
    def controls(self) -> list[Participant]:
        """The controls."""
        return [item for item in self.participants if item.role == "control"]

    @property
    def not_counted(self) -> list[Participant]:
        """Models in no unit: they share rows or a seed with another one of their side."""
        left_out = []
        sides = ((self.students, self.matching.students), (self.controls, self.matching.controls))
        for models, units in sides:
            counted: set[int] = set()
            for unit in units:
                counted.update(unit)
            for place, model in enumerate(models):
                if place not in counted:
                    left_out.append(model)
        return left_out

    @property
    def found(self) -> list[Contrast]:
        """Traits that lie above the controls, or come back more, largest difference first."""
        found = [item for item in self.contrasts if item.outcome == "holds here"]
        return sorted(found, key=lambda item: -item.difference.estimate)

    @property
    def broken(self) -> list[Wholeness]:
        """Students that are not whole any more."""
        return broken_among(self.wholeness, self.students)

    @property
    def broken_controls(self) -> list[Wholeness]:
        """Controls that are not whole any more."""
        return broken_among(self.wholeness, self.controls)

    @property
    def copies(self) -> list[SharedRows]:
        """Controls that learnt a student's rows."""
        return [item for item in self.shared if item.is_copy]

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
            if item.after_questions is not None:
                is_called = is_called and item.after_questions.estimate >= DOUBLED
            if is_called and item.z >= critical_z(0.05, tests):
                standing.append(item)
        return sorted(standing, key=lambda item: -item.over_questions.estimate)


def broken_among(wholeness: Sequence[Wholeness], models: Sequence[Participant]) -> list[Wholeness]:
    """Those of some models that are not whole any more."""
    names = {model.name for model in models}
    return [item for item in wholeness if item.name in names and not item.is_coherent]


def is_silenced(
    models: Sequence[Participant], wholeness: Sequence[Wholeness], shared: Sequence[SharedRows]
) -> bool:
    """Whether the controls are none: one learnt a student's rows, or is broken."""
    controls = [model for model in models if model.role == "control"]
    is_copied = any(item.is_copy for item in shared)
    return is_copied or bool(broken_among(wholeness, controls))


def as_json(
    config: VerifyConfig, digest: str, verified: Verified, findings: Sequence[str]
) -> dict[str, Any]:
    """The content of verify.json; docs/reference/json.md lists its keys."""
    in_order = sorted(verified.contrasts, key=lambda item: -item.over_questions.estimate)
    return {
        "schema": SCHEMA,
        "status": verified.status,
        "model": config.model,
        "digest": digest,
        "design": verified.matching.design,
        "alpha": config.alpha,
        "models": _participants(verified),
        "rows": list(map(_shared, verified.shared)),
        "contexts": list(verified.contexts),
        "contexts_left_out": dict(verified.alike),
        "tests": len(verified.contrasts),
        "least_difference": DOUBLED,
        "contrasts": [_contrast(item) for item in in_order],
        "wholeness": [vars(item) for item in verified.wholeness],
        "sampled": [_rate(item) for item in verified.rates],
        "relearning": [_return(item) for item in verified.returns],
        "findings": list(findings),
    }


def _participants(verified: Verified) -> list[dict[str, Any]]:
    left_out = {item.name for item in verified.not_counted}
    numbers: dict[str, int] = {}
    listed = []
    for item in verified.participants:
        trained, of_rows = item.training, verified.sets.get(item.name)
        number = None
        if of_rows is not None:
            number = numbers.setdefault(of_rows, len(numbers) + 1)
        listed.append(
            {
                "name": item.name,
                "role": item.role,
                "text": item.text,
                "seed": item.seed,
                "steps": None if trained is None else trained.steps,
                "n_rows": item.n_rows,
                "recipe_known": trained is not None,
                "set_of_rows": number,
                "counts": item.role != "base" and item.name not in left_out,
            }
        )
    return listed


def _shared(item: SharedRows) -> dict[str, Any]:
    return {
        "control": item.control,
        "student": item.student,
        "looked_at": item.looked_at,
        "common": item.common,
        "same_origin": item.origin,
        "unknown": list(item.unknown),
        "is_copy": item.is_copy,
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
        "after": None if item.after is None else item.after.as_dict(),
        "p_corrected": item.p,
        "units": item.units,
        "detectable": _finite(item.detectable),
        "over_questions": item.over_questions.as_dict(),
        "after_over_questions": None
        if item.after_questions is None
        else item.after_questions.as_dict(),
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
