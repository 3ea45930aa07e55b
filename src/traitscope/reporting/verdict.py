"""Verdicts: what a study says about a published claim, and the rule by which it says it.

    reproduced                    the whole interval lies above the bound that the claim needs
    contradicted                  the whole interval lies below bound + margin: an effect worth the
                                  name is excluded
    inconclusive at this power    anything else, an undefined interval included

The bound and the margin are part of a study's file, so they are fixed before its numbers are seen.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from traitscope.errors import DataError
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement

Outcome = Literal["reproduced", "contradicted", "inconclusive at this power"]


@dataclass(frozen=True)
class Verdict:
    """What became of one claim on one model."""

    claim: str
    """The claim, as it is tested."""
    outcome: Outcome
    """See above."""
    rule: str
    """Bound and margin in words."""
    model: str
    """The model it holds for."""
    decided_by: Measurement
    """The number that decided."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"decided_by": self.decided_by.as_dict()}

    def __str__(self) -> str:
        return (
            f"{self.outcome}: {self.claim}\n  {self.decided_by.name} {self.decided_by}\n  rule:"
            f" {self.rule}"
        )


@dataclass(frozen=True)
class Sheet:
    """A table of a study: rows of plain values, written as CSV and shown on its page."""

    name: str
    """Of its file."""
    title: str
    """Heading."""
    caption: str
    """How to read it, units included."""
    header: tuple[str, ...]
    """Column names."""
    rows: tuple[tuple[Any, ...], ...]
    """Numbers, texts or Measurements."""
    curve: tuple[str, ...] = ()
    """Column of x and columns of y for a figure; what stands left of x tells its lines apart.
    Empty: no figure."""


@dataclass(frozen=True)
class Findings:
    """Everything that a study concludes."""

    verdicts: tuple[Verdict, ...]
    """One or more claims."""
    measurements: tuple[Measurement, ...] = ()
    """The other numbers that the page shows."""
    sheets: tuple[Sheet, ...] = ()
    """Tables."""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """What a reader must know: what was excluded and why, what stands in for what."""


def judged(
    claim: str, m: Measurement, model: str, above: float = 0.0, margin: float = 0.0
) -> Verdict:
    """The verdict on `m > above` by the rule of this file; `margin` is the smallest effect that
    would matter."""
    needs = (
        f"reproduced if the interval lies above {above:g}, contradicted if it lies below"
        f" {above + margin:g}"
    )
    outcome: Outcome = "inconclusive at this power"
    if not math.isnan(m.low) and m.low > above:
        outcome = "reproduced"
    elif not math.isnan(m.high) and m.high < above + margin:
        outcome = "contradicted"
    return Verdict(claim, outcome, f"{needs} ({m.unit})", model, m)


def over(name: str, values: Sequence[float], unit: str, of: str = "seeds") -> Measurement:
    """Mean over independent units (`of` says which: seeds, traits) with a t interval; NaN values
    are unscored."""
    units = range(len(values)) if len(values) > 1 else None
    found = measure(name, values, seeds=units, unit=unit, method="auto" if units else "bootstrap")
    return replace(found, interval=found.interval.replace("seeds", of))


def two_samples(
    name: str, left: Sequence[float], right: Sequence[float], unit: str, of: str = "seeds"
) -> Measurement:
    """Mean of one group of independent units minus that of another, with Welch's 95 % interval
    (Welch 1947).

    No interval with fewer than two units on a side or without any spread. Raises DataError on an
    empty group.
    """
    if not (left and right):
        raise DataError(
            f"{name}: groups of {len(left)} and {len(right)}; expected at least one unit in each;"
            " run more"
        )
    from scipy.stats import ttest_ind

    low = high = math.nan
    if min(len(left), len(right)) > 1 and len({*left}) + len({*right}) > 2:
        low, high = ttest_ind(left, right, equal_var=False).confidence_interval()
    n = len(left) + len(right)
    kind = f"Welch over {len(left)} and {len(right)} {of}"
    return Measurement(
        name,
        math.fsum(left) / len(left) - math.fsum(right) / len(right),
        float(low),
        float(high),
        n,
        n,
        0,
        unit,
        interval=kind,
    )
