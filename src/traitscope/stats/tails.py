"""One-sided p values of an estimate, each by the law that made its interval.

An interval says whether one value lies inside it at one level. A correction for several tests, and
a test of equivalence, need the p value of other values at other levels. A tail answers both with
the same law, so test and interval never disagree:

    StudentTail     means over units, paired differences, Welch's difference
    ScoreTail       a proportion with Wilson's interval
    ResampledTail   percentile bootstrap
    IntervalTail    a published or stored interval, of which nothing more is known
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np

from traitscope.stats.inputs import has_no_spread


class Tail(Protocol):
    """What the data say against any value of the quantity that was estimated."""

    def p_above(self, value: float) -> float:
        """Return p of the test of `the true value is at most value`; small: it lies above."""

    def p_below(self, value: float) -> float:
        """Return p of the test of `the true value is at least value`; small: it lies below."""


@dataclass(frozen=True)
class StudentTail:
    """Student's t: (estimate - true value) / error follows t(df).  Source: Student 1908."""

    estimate: float
    """Mean, or difference of means."""
    error: float
    """Its standard error, above 0."""
    df: float
    """Degrees of freedom; for Welch's difference those of Welch 1947."""

    def p_above(self, value: float) -> float:
        """Return P(T(df) >= (estimate - value) / error)."""
        from scipy.special import stdtr

        return float(stdtr(self.df, (value - self.estimate) / self.error))

    def p_below(self, value: float) -> float:
        """Return P(T(df) <= (estimate - value) / error)."""
        from scipy.special import stdtr

        return float(stdtr(self.df, (self.estimate - value) / self.error))


def student_tail(values: np.ndarray) -> StudentTail | None:
    """Return the t law of the mean of independent units; None for one unit and without spread."""
    if has_no_spread(values):
        return None
    n = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    return StudentTail(float(values.mean()), error, n - 1)


@dataclass(frozen=True)
class ScoreTail:
    """The score test of a proportion, which Wilson's interval inverts.  Source: Wilson 1927."""

    successes: float
    """Number of ones."""
    n: int
    """Number of independent trials."""

    def p_above(self, value: float) -> float:
        """Return the normal tail of (successes/n - value) / sqrt(value (1 - value) / n)."""
        return NormalDist().cdf(-self._score(value))

    def p_below(self, value: float) -> float:
        """Return the normal tail on the other side."""
        return NormalDist().cdf(self._score(value))

    def _score(self, value: float) -> float:
        difference = self.successes / self.n - value
        variance = value * (1 - value) / self.n
        if variance > 0:
            return difference / math.sqrt(variance)
        return math.copysign(math.inf, difference) if difference else 0.0


class ResampledTail:
    """Inversion of the percentile interval.  Source: Efron and Tibshirani 1993, section 13.3.

    p is (1 + number of resamples on the other side) / (1 + number of resamples), so it is never 0.
    """

    def __init__(self, resampled: Sequence[float] | np.ndarray) -> None:
        self._sorted = np.sort(np.asarray(resampled, dtype=float))

    def p_above(self, value: float) -> float:
        """Return the fraction of resamples at or below the value."""
        return self._share(np.searchsorted(self._sorted, value, "right"))

    def p_below(self, value: float) -> float:
        """Return the fraction of resamples at or above the value."""
        return self._share(len(self._sorted) - np.searchsorted(self._sorted, value, "left"))

    def _share(self, hits: int) -> float:
        return float((1 + hits) / (1 + len(self._sorted)))


@dataclass(frozen=True)
class IntervalTail:
    """An interval alone: a value outside it has a p of at most (1 - level) / 2.

    That bound is returned, and 1 inside, so a test never claims more than the interval shows.
    """

    low: float
    """Lower bound."""
    high: float
    """Upper bound."""
    level: float = 0.95
    """Confidence level of the interval."""

    def p_above(self, value: float) -> float:
        """Return (1 - level) / 2 where the interval lies above the value, else 1."""
        return (1 - self.level) / 2 if self.low > value else 1.0

    def p_below(self, value: float) -> float:
        """Return (1 - level) / 2 where the interval lies below the value, else 1."""
        return (1 - self.level) / 2 if self.high < value else 1.0
