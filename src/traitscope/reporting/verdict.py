"""What a study concludes about a published claim, and the rule by which it concludes it.

    reproduced                    the whole interval lies above the bound that the claim needs
    contradicted                  the whole interval lies below bound + margin: an effect that would
                                  matter is excluded
    inconclusive at this power    anything else, an undefined interval included

The bound and the margin are part of a study's file, so they are fixed before its numbers are seen.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from traitscope.reporting.figures import Figure
from traitscope.reporting.tables import Table
from traitscope.stats.measurement import Measurement

Outcome = Literal["reproduced", "contradicted", "inconclusive at this power"]


@dataclass(frozen=True)
class ClaimVerdict:
    """The outcome of one claim on one model."""

    claim: str
    """The claim, as it is tested."""
    outcome: Outcome
    """The answer; see the docstring of this module."""
    rule: str
    """Bound and margin in words."""
    model: str
    """The model that the verdict holds for."""
    decided_by: Measurement
    """The number that decided."""
    explanation: tuple[str, ...] = ()
    """Sentences that put the number into words."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = asdict(self)
        del plain["explanation"]
        return plain | {"decided_by": self.decided_by.as_dict()}

    def __str__(self) -> str:
        lines = [
            f"{self.outcome}: {self.claim}",
            f"  {self.decided_by.name} {self.decided_by}",
            f"  rule: {self.rule}",
        ]
        for sentence in self.explanation:
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


def judged(
    claim: str, m: Measurement, model: str, above: float = 0.0, margin: float = 0.0
) -> ClaimVerdict:
    """Return the verdict on the claim that `m` is greater than `above`.

    `margin` is the smallest effect that would matter, in the unit of `m`. The rule is that of this
    module's docstring.
    """
    rule = (
        f"reproduced if the interval lies above {above:g}, contradicted if it lies below"
        f" {above + margin:g} ({m.unit})"
    )
    outcome: Outcome = "inconclusive at this power"
    if not math.isnan(m.low) and m.low > above:
        outcome = "reproduced"
    elif not math.isnan(m.high) and m.high < above + margin:
        outcome = "contradicted"
    return ClaimVerdict(claim, outcome, rule, model, m)
