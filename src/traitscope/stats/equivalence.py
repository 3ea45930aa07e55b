"""Evidence of no effect: two one-sided t tests."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from traitscope.stats.inputs import (
    as_floats,
    check_between,
)
from traitscope.stats.intervals import mean_interval_t


class Equivalence(NamedTuple):
    """Result of two one-sided tests: the larger p, the decision, the (1 - 2 alpha) interval of the
    mean."""

    p: float
    equivalent: bool
    low: float
    high: float


def equivalence(
    differences_per_seed: Sequence[float], margin: float, alpha: float = 0.05
) -> Equivalence:
    """Two one-sided t tests of |mean difference| < margin: evidence of no effect, not lack of
    evidence.

    p = P(T(n-1) > (margin - |mean|) sqrt(n)/s), the larger of both. One seed, or identical
    differences: p and bounds are NaN, not equivalent. Raises ConfigError unless margin > 0,
    DataError on bad values. Source: Schuirmann 1987.
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
