"""Does one number of a trait go with another?  Rank correlation and discrimination, with permutation p and intervals.

Traits are the units: with sixteen of them only strong associations can be told from none, and the intervals say so.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from traitscope.errors import DataError
from traitscope.stats import Measurement, auroc

Statistic = Callable[[np.ndarray, np.ndarray], float]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Correlation of ranks, ties at their mean rank; NaN where either does not vary.  Source: Spearman 1904."""
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y)
    return math.nan if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a, b)[0, 1])


def permutation_p(x: Sequence[float], y: Sequence[float], statistic: Statistic, draws: int = 5000, seed: int = 0) -> float:
    """One-sided p: the share of shuffles of y whose statistic is at least the observed one, (1 + hits) / (1 + draws).

    NaN where the statistic is undefined.  Raises DataError for lists of different lengths or under three units.
    """
    x, y = _both(x, y)
    observed = statistic(x, y)
    if math.isnan(observed):
        return math.nan
    rng = np.random.default_rng(seed)
    hits = sum(statistic(x, rng.permutation(y)) >= observed - 1e-12 for _ in range(draws))
    return (1 + hits) / (1 + draws)


def association(
    name: str, x: Sequence[float], y: Sequence[float], statistic: Statistic, unit: str, draws: int = 2000, seed: int = 0
) -> Measurement:
    """The statistic with a percentile interval over resampled units; resamples in which it is undefined are left out."""
    x, y = _both(x, y)
    rng = np.random.default_rng(seed)
    picked = (rng.integers(len(x), size=len(x)) for _ in range(draws))
    found = np.array([value for i in picked if not math.isnan(value := statistic(x[i], y[i]))])
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) > draws / 2 else (math.nan, math.nan)
    kind = f"bootstrap over {len(x)} units" + ("" if len(found) == draws else f", {draws - len(found)} draws undefined")
    return Measurement(name, statistic(x, y), float(low), float(high), len(x), len(x), 0, unit, interval=kind)


def auc_above(threshold: float) -> Statistic:
    """Statistic: P(x of a unit with y above the threshold > x of one without); NaN where there is one kind only."""

    def found(x: np.ndarray, y: np.ndarray) -> float:
        labels = y > threshold
        return math.nan if labels.all() or not labels.any() else auroc(x.tolist(), labels.tolist())

    return found


def _both(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) != len(b) or len(a) < 3 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError(f"{len(a)} and {len(b)} values; expected finite ones, as many of each, three or more; align them")
    return a, b
