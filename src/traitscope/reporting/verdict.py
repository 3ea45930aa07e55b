"""What a study concludes about its claims: preconditions first, then the statistical decision.

A claim whose precondition fails gets `no verdict`, with the reason in words. The others are decided
together by `traitscope.stats.decision`, whose docstring defines the outcomes and the correction.

Bounds, margins and preconditions are part of a study's file, so they are fixed before its numbers
are seen.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from traitscope import plurals
from traitscope.errors import ConfigError
from traitscope.reporting.figures import Figure
from traitscope.reporting.numbers import bounds, estimate, of_unit
from traitscope.reporting.tables import Table
from traitscope.stats import decision
from traitscope.stats.decision import MIN_UNITS, ClaimUnderTest, Decision, Outcome
from traitscope.stats.measurement import Measurement
from traitscope.stats.power import detectable, spread_between_units

HAS_TRAIT = "the teacher names the trait more than the base does"
"name of the precondition of every transfer"
SHOWS_BEHAVIOUR = "the teacher shows the behaviour more than the base does"
"name of the same precondition, where a judge decides"
NO_TRANSFER = "nothing below can be read as transfer"
"what follows where a teacher lacks its trait"


@dataclass(frozen=True)
class Precondition:
    """What must be so for a claim to be about what it says."""

    name: str
    """What is required, as the end of `it needs that ...`."""
    met: bool
    """Whether it is so."""
    found: str
    """The numbers that decided, in words."""

    def __str__(self) -> str:
        return f"{'met' if self.met else 'not met'}: {self.name} ({self.found})"


@dataclass(frozen=True)
class Claim:
    """A claim as a study states it, with what was measured for it."""

    text: str
    """The claim, as it is tested: the quantity exceeds the bound."""
    measurement: Measurement
    """The quantity."""
    margin: float
    """Smallest effect that would matter, above 0, in the unit of the measurement."""
    above: float = 0.0
    """The bound."""
    needs: tuple[Precondition, ...] = ()
    """What must be so; where one is not met, there is no verdict."""
    primary: bool = False
    """Whether this is the study's primary claim: exactly one is."""
    units: int | None = None
    """Independent units, where they are fewer than the measurement's clusters."""
    counted: str = ""
    """What these units are, where the measurement counts something else."""
    explanation: tuple[str, ...] = ()
    """Sentences that put the number into words."""

    @property
    def tested(self) -> ClaimUnderTest:
        """What the statistical decision tests."""
        silenced = not all(need.met for need in self.needs)
        return ClaimUnderTest(self.measurement, self.margin, self.above, self.units, silenced)

    @property
    def rule(self) -> str:
        """Bound, margin and units in sentences."""
        bound, margin = f"{self.above:g}", f"{self.margin:g}"
        edges = f"{self.above - self.margin:g} and {self.above + self.margin:g}"
        return (
            f"The claim holds above {bound} with an estimate of at least"
            f" {self.above + self.margin:g}. It is negligible between {edges}, and opposite below"
            f" {bound}. The unit is {self.measurement.unit}, the margin {margin}. A verdict needs"
            f" {MIN_UNITS} {self.counted or self.measurement.counted} or more."
        )


@dataclass(frozen=True)
class ClaimVerdict:
    """The outcome of one claim on one model."""

    stated: Claim
    """The claim with its number, bound, margin and preconditions."""
    decision: Decision
    """The outcome, and the corrected p values."""
    model: str
    """The model that the verdict holds for."""
    n_claims: int = 1
    """Claims that share the error rate of the study."""

    @property
    def claim(self) -> str:
        """The claim in words."""
        return self.stated.text

    @property
    def outcome(self) -> Outcome:
        """The answer."""
        return self.decision.outcome

    @property
    def decided_by(self) -> Measurement:
        """The number that decided."""
        return self.stated.measurement

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why there is no verdict; empty where there is one."""
        if self.outcome != "no verdict":
            return ()
        stated = self.stated
        reasons = []
        for need in stated.needs:
            if not need.met:
                reasons.append(f"It needs that {need.name}. Found: {need.found}.")
        n_units, counted = stated.tested.n_units, stated.counted or self.decided_by.counted
        if n_units < MIN_UNITS:
            reasons.append(f"It has {n_units} of the {MIN_UNITS} {counted} that a verdict needs.")
        if math.isnan(self.decided_by.estimate) or not reasons:
            reasons.append(f"No interval could be given: {self.decided_by.interval}.")
        return tuple(reasons)

    @property
    def p_value_text(self) -> str:
        """The corrected p values that the outcome rests on; empty where nothing was tested."""
        if self.outcome == "no verdict":
            return ""
        directions = min(self.decision.p_above, self.decision.p_below)
        return (
            f"p corrected over the study's claims: {directions:.2g} for the direction,"
            f" {self.decision.p_negligible:.2g} for an effect within the margin."
        )

    @property
    def power_text(self) -> str:
        """What as many units would have found at the spread that was seen; only if undecided."""
        sd = spread_between_units(self.decided_by)
        n_units, counted = self.stated.tested.n_units, self.decided_by.counted
        if self.outcome != "undecided" or not sd > 0 or n_units != self.decided_by.n_clusters:
            return ""
        bound = f" above {self.stated.above:g}" if self.stated.above else ""
        unit = of_unit(self.decided_by.unit)
        effect = detectable(sd, n_units, alpha=decision.ALPHA / self.n_claims)
        return (
            f"The sd between {counted} was {sd:.2g}{unit}. With {n_units} such {counted} an effect"
            f" of {effect:.2g}{unit}{bound} is found with power 0.8"
            f" ({plurals.counted(self.n_claims, 'claim')} tested together)."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "claim": self.claim,
            "primary": self.stated.primary,
            "outcome": self.outcome,
            "reasons": list(self.reasons),
            "rule": self.stated.rule,
            "above": self.stated.above,
            "margin": self.stated.margin,
            "units": self.stated.tested.n_units,
            "counted": self.stated.counted or self.decided_by.counted,
            "p_above": self.decision.p_above,
            "p_below": self.decision.p_below,
            "p_negligible": self.decision.p_negligible,
            "preconditions": [asdict(need) for need in self.stated.needs],
            "model": self.model,
            "decided_by": self.decided_by.as_dict(),
        }

    def __str__(self) -> str:
        primary = "primary claim, " if self.stated.primary else ""
        lines = [
            f"{primary}{self.outcome}: {self.claim}",
            f"  {self.decided_by.name} {self.decided_by}",
            f"  rule: {self.stated.rule}",
        ]
        for sentence in (
            *self.reasons,
            self.p_value_text,
            self.power_text,
            *self.stated.explanation,
        ):
            if sentence:
                lines.append(f"  {sentence}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Findings:
    """Everything that a study concludes."""

    verdicts: tuple[ClaimVerdict, ...]
    """One or more claims."""
    measurements: tuple[Measurement, ...] = ()
    """The other numbers that the page shows."""
    tables: tuple[Table, ...] = ()
    """Tables of the page; each is also written as CSV."""
    notes: tuple[str, ...] = ()
    """What a reader must know: what was excluded and why, what stands in for what."""
    figures: tuple[Figure, ...] = ()
    """Figures beside those of the tables and measurements."""
    teachers: tuple[Measurement, ...] = ()
    """The score of each teacher minus the base's: the page says first whether they have their
    traits."""


def verdicts_of(
    claims: Sequence[Claim], model: str, *needs: Precondition
) -> tuple[ClaimVerdict, ...]:
    """Return the verdicts on all claims of a study, decided together; `needs` are those of all.

    Raises ConfigError unless exactly one claim is primary.
    """
    n_primary = sum(claim.primary for claim in claims)
    if n_primary != 1:
        raise ConfigError(
            f"{n_primary} of {len(claims)} claims are primary; expected exactly one; mark it"
        )
    claims = [replace(claim, needs=(*needs, *claim.needs)) for claim in claims]
    decisions = decision.decide([claim.tested for claim in claims])
    verdicts = []
    for claim, decided in zip(claims, decisions, strict=True):
        verdicts.append(ClaimVerdict(claim, decided, model, len(claims)))
    return tuple(verdicts)


def has_trait_name(which: str = "") -> str:
    """Return the name of the precondition that teachers have their traits; `which` says which."""
    return f"{HAS_TRAIT} ({which})" if which else HAS_TRAIT


def teacher_has_trait(rise: Measurement, which: str = "") -> Precondition:
    """Return the precondition that a teacher has its trait: the positive control of a transfer.

    `rise` is the teacher's score minus the base's, paired over questions. `which` says which
    teacher it is, where a study has several.
    """
    name = has_trait_name(which)
    difference = f"teacher − base = {estimate(rise, True)} {rise.unit} {bounds(rise, True)}"
    if rise.low > 0:
        return Precondition(name, True, f"{difference}: the teacher has the trait")
    lacks = "does not have the trait" if rise.estimate <= 0 else "is not shown to have the trait"
    found = f"{difference}: this teacher {lacks}; {NO_TRANSFER}"
    return Precondition(name, False, found)


def above_zero(measurement: Measurement, name: str) -> Precondition:
    """Return the precondition that a measurement lies above zero, interval and all."""
    low, high = measurement.low, measurement.high
    between = f"[{low:.3f}, {high:.3f}]" if math.isfinite(high - low) else "(no interval)"
    found = f"{measurement.estimate:+.3f} {between} {measurement.unit}"
    return Precondition(name, measurement.low > 0, found)
