"""Evidence of no effect, by two one-sided t tests.

An interval that holds zero shows that an effect was not seen, not that there is none. The test here
asks whether the effect is smaller than a margin that was fixed in advance.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from traitscope.stats.inputs import as_floats, check_between
from traitscope.stats.intervals import mean_interval_t


class Equivalence(NamedTuple):
    """Result of two one-sided tests."""

    p: float
    """The larger p value of the two tests; NaN where the values have no spread."""
    equivalent: bool
    """Whether p is below alpha: the mean lies within the margin."""
    low: float
    """Lower bound of the 1 - 2 alpha interval of the mean."""
    high: float
    """Upper bound of the 1 - 2 alpha interval of the mean."""


def equivalence(
    differences_per_seed: Sequence[float], margin: float, alpha: float = 0.05
) -> Equivalence:
    """Test by two one-sided t tests whether |mean difference| < margin.

    `margin` has the unit of the differences. p = P(T(n-1) > (margin - |mean|) sqrt(n)/s), which is
    the larger p of both tests. For one seed, or identical differences, p and bounds are NaN and the
    result is not equivalent. Raises ConfigError unless margin > 0 and 0 < alpha < 0.5, DataError on
    empty or non-finite values. Source: Schuirmann 1987.
    """
    check_between("margin", margin, 0, math.inf)
    check_between("alpha", alpha, 0, 0.5)
    values = as_floats(differences_per_seed, "differences", unscored=False)
    mean, low, high = mean_interval_t(values, 1 - 2 * alpha)
    if math.isnan(low):
        return Equivalence(math.nan, False, low, high)
    from scipy.special import stdtr

    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    p = float(stdtr(len(values) - 1, (abs(mean) - margin) / error))
    return Equivalence(p, p < alpha, low, high)
