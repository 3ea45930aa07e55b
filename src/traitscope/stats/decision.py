"""What the data say of several claims that are tested together: numbers in, outcomes out.

A claim says that a quantity lies above a bound by at least a margin, the smallest effect that would
matter. Each claim comes out in one of five ways:

    holds here        the interval lies above the bound, and the estimate reaches bound + margin
    negligible here   two one-sided tests put the quantity inside bound - margin to bound + margin
    opposite here     the interval lies below the bound
    undecided         none of these
    no verdict        the claim was silenced, has under MIN_UNITS units, or has no interval

**The correction.** All claims of a study are tested together, and `holm` corrects their p values in
two families, at ALPHA each.

Directions. Each of K claims is two one-sided null hypotheses: `at most the bound` and `at least the
bound`. Holm's procedure runs over all 2K. By Holm 1979 the probability of rejecting any true one is
at most ALPHA, whatever the dependence between tests. A wrong `holds here` rejects a true `at most`,
a wrong `opposite here` a true `at least`. So the chance of any wrong direction in a study is at
most ALPHA, with any number of true effects beside it. With one claim this is the 95 % interval.

Negligible effects. Each claim is one null hypothesis, `at least a margin away from the bound`, and
Holm's procedure runs over K. Its p is the larger of two one-sided p values. The union of two
hypotheses needs no correction inside (Berger 1982): one is true, and its p is valid. So the chance
of any wrong `negligible here` is at most ALPHA.

A claim may need a second quantity above the bound, too. Then `holds here` needs both, and its p is
the larger one (Berger 1982, intersection-union). The other outcomes are those of the first.

The families answer different errors, so they do not share ALPHA. A claim without any effect can
only err in the first, a claim at its margin mostly in the second.

**Which claims belong to the family.** All that the study states, also those without a verdict,
whose p counts as 1. The number of claims is then fixed before the data. If a failed precondition
shrank the family, the data would choose how strict the correction is.

Source: Holm 1979; Schuirmann 1987 (two one-sided tests).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from traitscope.errors import ConfigError, DataError
from traitscope.stats.inputs import as_floats
from traitscope.stats.measurement import Measurement

Outcome = Literal["holds here", "negligible here", "opposite here", "undecided", "no verdict"]
OUTCOMES: tuple[Outcome, ...] = (
    "holds here",
    "negligible here",
    "opposite here",
    "undecided",
    "no verdict",
)
ALPHA = 0.05
"largest probability of any wrong outcome of one family"
MIN_UNITS = 5
"independent units below which there is no verdict"


@dataclass(frozen=True)
class ClaimUnderTest:
    """A quantity, and the bound that a claim says it exceeds."""

    measurement: Measurement
    """The quantity; its tail gives the p values."""
    margin: float
    """Smallest effect that would matter, above 0, in the unit of the measurement."""
    above: float = 0.0
    """The bound that the claim says the quantity exceeds."""
    units: int | None = None
    """Independent units, where they are fewer than the measurement's clusters."""
    silenced: bool = False
    """Whether a precondition failed."""
    also: Measurement | None = None
    """A second quantity that the claim says exceeds the bound by the margin; None is none."""

    @property
    def n_units(self) -> int:
        """Number of independent units."""
        return self.measurement.n_clusters if self.units is None else self.units

    @property
    def is_tested(self) -> bool:
        """Whether the data can answer at all."""
        has_interval = not math.isnan(self.measurement.low)
        if self.also is not None:
            has_interval = has_interval and not math.isnan(self.also.low)
        return not self.silenced and self.n_units >= MIN_UNITS and has_interval


@dataclass(frozen=True)
class Decision:
    """The outcome of one claim. The p values are corrected for all claims tested together."""

    outcome: Outcome
    """The answer; see the docstring of this module."""
    p_above: float
    """p of `the quantity is at most the bound`; 1 where it was not tested."""
    p_below: float
    """p of `the quantity is at least the bound`; 1 where it was not tested."""
    p_negligible: float
    """p of `the quantity is a margin or more away from the bound`; 1 where it was not tested."""


def decide(claims: Sequence[ClaimUnderTest], alpha: float = ALPHA) -> list[Decision]:
    """Return the decision on every claim, in their order.

    Raises ConfigError for a margin that is not above 0: without one no effect is negligible.
    """
    above, below, negligible = [], [], []
    for claim in claims:
        _check_margin(claim)
        p_above, p_below, p_negligible = _p_values(claim)
        above.append(p_above)
        below.append(p_below)
        negligible.append(p_negligible)
    if not claims:
        return []
    directions = holm([*above, *below])
    within_margin = holm(negligible)
    decisions = []
    for number, claim in enumerate(claims):
        adjusted = directions[number], directions[len(above) + number], within_margin[number]
        decisions.append(Decision(_outcome(claim, adjusted, alpha), *adjusted))
    return decisions


def _check_margin(claim: ClaimUnderTest) -> None:
    if not claim.margin > 0:
        raise ConfigError(
            f"{claim.measurement.name}: margin {claim.margin}; expected a number above 0, the"
            " smallest effect that would matter; state one"
        )


def _p_values(claim: ClaimUnderTest) -> tuple[float, float, float]:
    """Return p of `at most the bound`, of `at least the bound` and of `a margin away`."""
    if not claim.is_tested:
        return 1.0, 1.0, 1.0
    tail, bound = claim.measurement.p_values, claim.above
    p_over_lower_edge = tail.p_above(bound - claim.margin)
    p_under_upper_edge = tail.p_below(bound + claim.margin)
    p_above = tail.p_above(bound)
    if claim.also is not None:
        p_above = max(p_above, claim.also.p_values.p_above(bound))
    return p_above, tail.p_below(bound), max(p_over_lower_edge, p_under_upper_edge)


def _outcome(claim: ClaimUnderTest, adjusted: tuple[float, float, float], alpha: float) -> Outcome:
    """Return the outcome that corrected p values, interval and estimate allow."""
    p_above, p_below, p_negligible = adjusted
    measurement, bound = claim.measurement, claim.above
    if not claim.is_tested:
        return "no verdict"
    is_above = _lies_above(measurement, claim)
    if claim.also is not None:
        is_above = is_above and _lies_above(claim.also, claim)
    if p_above <= alpha and is_above:
        return "holds here"
    if p_negligible <= alpha:
        return "negligible here"
    if p_below <= alpha and measurement.high < bound:
        return "opposite here"
    return "undecided"


def _lies_above(measurement: Measurement, claim: ClaimUnderTest) -> bool:
    """Whether the interval lies above the bound, and the estimate a margin above it."""
    is_enough = measurement.estimate >= claim.above + claim.margin
    return measurement.low > claim.above and is_enough


def holm(pvalues: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the order given.

    With p(1) <= ... <= p(m): adjusted p(k) = max over j <= k of min(1, (m - j + 1) p(j)). Rejecting
    the adjusted p values below alpha bounds the family-wise error by alpha, under any dependence.
    Raises DataError for a p value outside 0..1 or undefined. Source: Holm 1979.
    """
    p_values = as_floats(pvalues, "pvalues")
    if not np.all((p_values >= 0) & (p_values <= 1)):
        raise DataError(
            f"p-values {p_values.tolist()}; expected numbers from 0 to 1; leave undefined tests out"
        )
    order = np.argsort(p_values, kind="stable")
    n_remaining = np.arange(len(p_values), 0, -1)
    stepwise = np.minimum(1.0, p_values[order] * n_remaining)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(stepwise)
    return adjusted.tolist()
