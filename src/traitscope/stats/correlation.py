"""Does one number of a trait go with another?  Rank correlation and discrimination, with
permutation p and intervals.

Traits are the units: with sixteen of them only strong associations can be told from none, and the
intervals say so.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from traitscope.errors import DataError
from traitscope.stats.inputs import as_floats
from traitscope.stats.measurement import Measurement

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"of two arrays [..., N], along the last axis; NaN where it is undefined"


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> np.ndarray:
    """Correlation of ranks along the last axis, ties at their mean rank; NaN where either does not
    vary. Source: Spearman 1904."""
    a, b = (_centred_ranks(values) for values in (x, y))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def _centred_ranks(x: Sequence[float] | np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = rankdata(x, axis=-1)
    return ranks - ranks.mean(-1, keepdims=True)


def permutation_p(
    x: Sequence[float], y: Sequence[float], statistic: Statistic, draws: int = 5000, seed: int = 0
) -> float:
    """One-sided p: the share of shuffles of y whose statistic is at least the observed one, (1 +
    hits) / (1 + draws).

    NaN where the statistic is undefined. Raises DataError for lists of different lengths or under
    three units.
    """
    x, y = _both(x, y)
    observed = statistic(x, y)
    if np.isnan(observed):
        return math.nan
    shuffled_DN = np.random.default_rng(seed).permuted(np.tile(y, (draws, 1)), axis=1)
    hits = (statistic(np.broadcast_to(x, shuffled_DN.shape), shuffled_DN) >= observed - 1e-12).sum()
    return float((1 + hits) / (1 + draws))


def association(
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    statistic: Statistic,
    unit: str,
    draws: int = 2000,
    seed: int = 0,
) -> Measurement:
    """The statistic with a percentile interval over resampled units; resamples in which it is
    undefined are left out."""
    x, y = _both(x, y)
    picked_DN = np.random.default_rng(seed).integers(len(x), size=(draws, len(x)))
    found = statistic(x[picked_DN], y[picked_DN])
    found = found[~np.isnan(found)]
    low, high = (
        np.quantile(found, [0.025, 0.975]) if len(found) > draws / 2 else (math.nan, math.nan)
    )
    kind = f"bootstrap over {len(x)} units" + (
        "" if len(found) == draws else f", {draws - len(found)} draws undefined"
    )
    return Measurement(
        name,
        float(statistic(x, y)),
        float(low),
        float(high),
        len(x),
        len(x),
        0,
        unit,
        interval=kind,
    )


def auc_above(threshold: float) -> Statistic:
    """Statistic: P(x of a unit with y above the threshold > x of one without), ties half; NaN where
    there is one kind only."""

    def found(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        from scipy.stats import rankdata

        above = np.asarray(y) > threshold
        n, rest = above.sum(-1), (~above).sum(-1)
        with np.errstate(invalid="ignore"):
            return ((rankdata(x, axis=-1) * above).sum(-1) - n * (n + 1) / 2) / (n * rest)

    return found


def _both(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) != len(b) or len(a) < 3 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError(
            f"{len(a)} and {len(b)} values; expected finite ones, as many of each, three or more;"
            " align them"
        )
    return a, b


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """P(score of a positive > of a negative) + P(equal)/2 = Mann-Whitney U / (n_pos n_neg); 0.5 is
    chance.

    Raises DataError on non-finite scores, or labels that are not 0/1 with both present. Source:
    Hanley and McNeil 1982.
    """
    scores, labels = as_floats(scores, "scores", unscored=False), as_floats(labels, "labels")
    if len(labels) != len(scores) or set(labels.tolist()) != {0.0, 1.0}:
        found = (
            f"{len(scores)} scores, {len(labels)} labels with values"
            f" {np.unique(labels)[:5].tolist()}"
        )
        raise DataError(
            f"{found}; expected one label a score, 0 or 1, both present; add the missing class"
        )
    negatives, positives = np.sort(scores[labels == 0]), scores[labels == 1]
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(
        negatives, positives, "right"
    )
    return float(below.mean() / 2 / len(negatives))
