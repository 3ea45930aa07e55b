"""The ratio of two means over the same units, with Fieller's interval.

Both means come from the same units, so they are correlated. The ratio of two estimates has no
variance that could be trusted where the lower one may be zero. Fieller's interval holds all values
v for which the mean of top - v bottom is not distinguishable from zero. It is finite only where the
interval of the lower mean excludes zero. Elsewhere there is no estimate.

Source: Fieller 1954, Journal of the Royal Statistical Society B 16, 175-185.

Shapes: N units.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from traitscope.errors import DataError
from traitscope.stats.inputs import as_floats, has_no_spread
from traitscope.stats.intervals import mean_interval_t
from traitscope.stats.measurement import Measurement
from traitscope.stats.tails import student_tail


@dataclass(frozen=True)
class FiellerTail:
    """The t test of the mean of top - value bottom, which Fieller's interval inverts."""

    top_N: np.ndarray
    """Upper values of the units."""
    bottom_N: np.ndarray
    """Lower values of the units, with a mean above 0."""

    def p_above(self, value: float) -> float:
        """Return p of the test of `the ratio is at most value`; small: it lies above."""
        return self._p_of_positive(self.top_N - value * self.bottom_N)

    def p_below(self, value: float) -> float:
        """Return p of the test of `the ratio is at least value`; small: it lies below."""
        return self._p_of_positive(value * self.bottom_N - self.top_N)

    def _p_of_positive(self, rest_N: np.ndarray) -> float:
        tail = student_tail(rest_N)
        if tail is None:
            return 0.5
        return tail.p_above(0.0)


def ratio_of_means(
    name: str, top: Sequence[float], bottom: Sequence[float], of: str = "seeds"
) -> Measurement:
    """Return mean(top) / mean(bottom) over units [N], with Fieller's 95 % interval.

    It is undefined where the t interval of mean(bottom) does not exclude zero; `interval` says so.
    It has no bounds where the units do not vary. Raises DataError on other lengths, or on values
    that are not finite.
    """
    top_N = as_floats(top, "top", unscored=False)
    bottom_N = as_floats(bottom, "bottom", unscored=False)
    n = len(top_N)
    if n != len(bottom_N):
        raise DataError(
            f"{name}: top and bottom have {n} and {len(bottom_N)} units; expected equal lengths;"
            " align them"
        )
    lower, low, high = mean_interval_t(bottom_N.tolist())
    if not (low > 0 or high < 0):
        reason = f"the lower mean is {lower:.3g} [{low:.3g}, {high:.3g}], which is not away from 0"
        return Measurement.undefined(name, "", reason, n, n)
    if lower < 0:
        top_N, bottom_N = -top_N, -bottom_N
    low, high = _fieller(top_N, bottom_N)
    return Measurement(
        name=name,
        estimate=float(top_N.mean() / bottom_N.mean()),
        low=low,
        high=high,
        n=n,
        n_clusters=n,
        n_unscored=0,
        unit="",
        interval=f"Fieller over {n} {of}",
        counted=of,
        tail=FiellerTail(top_N, bottom_N),
    )


def _fieller(top_N: np.ndarray, bottom_N: np.ndarray) -> tuple[float, float]:
    """Return the bounds, the roots of a quadratic; NaN where the units do not vary around them."""
    from scipy.special import stdtrit

    n = len(top_N)
    ratio = top_N.mean() / bottom_N.mean()
    if has_no_spread(top_N - ratio * bottom_N):
        return math.nan, math.nan
    share = float(stdtrit(n - 1, 0.975)) ** 2 / n
    covariance = np.cov(top_N, bottom_N)
    square = bottom_N.mean() ** 2 - share * covariance[1, 1]
    middle = top_N.mean() * bottom_N.mean() - share * covariance[0, 1]
    constant = top_N.mean() ** 2 - share * covariance[0, 0]
    half_width = math.sqrt(max(0.0, middle**2 - square * constant)) / square
    return middle / square - half_width, middle / square + half_width
