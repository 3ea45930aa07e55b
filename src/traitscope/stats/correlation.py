"""Rank correlation and discrimination over traits, with permutation p and intervals.

Traits are the units. With sixteen traits only a strong association differs visibly from none, and
the intervals show this.

Shapes: N units, D draws (permutations or resamples).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from traitscope.errors import DataError
from traitscope.stats.inputs import as_floats
from traitscope.stats.measurement import Measurement
from traitscope.stats.tails import ResampledTail

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"function of two arrays [..., N] along the last axis; NaN where it is undefined"


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the correlation of ranks along the last axis.

    Ties get their mean rank. NaN where either side does not vary. Source: Spearman 1904.
    """
    x_ranks, y_ranks = _centred_ranks(x), _centred_ranks(y)
    x_squares, y_squares = (x_ranks * x_ranks).sum(-1), (y_ranks * y_ranks).sum(-1)
    with np.errstate(invalid="ignore"):
        return (x_ranks * y_ranks).sum(-1) / np.sqrt(x_squares * y_squares)


def _centred_ranks(x: Sequence[float] | np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = rankdata(x, axis=-1)
    return ranks - ranks.mean(-1, keepdims=True)


def permutation_p(
    x: Sequence[float], y: Sequence[float], statistic: Statistic, draws: int = 5000, seed: int = 0
) -> float:
    """Return the one-sided p of the statistic under permutations of y.

    p = (1 + hits) / (1 + draws); a hit is a permutation whose statistic is at least the observed
    one. NaN where the statistic is undefined. Raises DataError for lists of different lengths or
    under three units.
    """
    x, y = _paired_arrays(x, y)
    observed = statistic(x, y)
    if np.isnan(observed):
        return math.nan
    permuted_DN = np.random.default_rng(seed).permuted(np.tile(y, (draws, 1)), axis=1)
    statistics_D = statistic(np.broadcast_to(x, permuted_DN.shape), permuted_DN)
    hits = (statistics_D >= observed - 1e-12).sum()
    return float((1 + hits) / (1 + draws))


def association(
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    statistic: Statistic,
    unit: str,
    draws: int = 2000,
    seed: int = 0,
    of: str = "units",
) -> Measurement:
    """Return the statistic with a 95 % percentile interval over resampled units.

    Resamples in which the statistic is undefined are left out and counted in `interval`. Bounds are
    NaN where half of the resamples or more are undefined. Raises DataError as `permutation_p` does.
    """
    x, y = _paired_arrays(x, y)
    n = len(x)
    units_DN = np.random.default_rng(seed).integers(n, size=(draws, n))
    statistics = statistic(x[units_DN], y[units_DN])
    statistics = statistics[~np.isnan(statistics)]
    n_undefined = draws - len(statistics)
    low, high = math.nan, math.nan
    tail = None
    if len(statistics) > draws / 2:
        low, high = np.quantile(statistics, [0.025, 0.975]).tolist()
        tail = ResampledTail(statistics)
    interval = f"bootstrap over {n} {of}"
    if n_undefined:
        interval += f", {n_undefined} draws undefined"
    estimate = float(statistic(x, y))
    return Measurement(
        name, estimate, low, high, n, n, 0, unit, interval=interval, counted=of, tail=tail
    )


def auc_above(threshold: float) -> Statistic:
    """Return the statistic P(x of a unit with y above the threshold > x of a unit without).

    Ties count half. It is NaN where all units are on one side of the threshold.
    """

    def auc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        from scipy.stats import rankdata

        is_above = np.asarray(y) > threshold
        n_above, n_below = is_above.sum(-1), (~is_above).sum(-1)
        rank_sum = (rankdata(x, axis=-1) * is_above).sum(-1)
        with np.errstate(invalid="ignore"):
            return (rank_sum - n_above * (n_above + 1) / 2) / (n_above * n_below)

    return auc


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Return the area under the ROC curve: P(score of a positive > of a negative) + P(equal)/2.

    That is Mann-Whitney U / (n_pos n_neg); 0.5 is chance. Raises DataError on non-finite scores, or
    labels that are not 0/1 with both present. Source: Hanley and McNeil 1982.
    """
    scores = as_floats(scores, "scores", unscored=False)
    labels = as_floats(labels, "labels")
    if len(labels) != len(scores) or set(labels.tolist()) != {0.0, 1.0}:
        raise DataError(
            f"{len(scores)} scores, {len(labels)} labels with values"
            f" {np.unique(labels)[:5].tolist()}; expected one label a score, 0 or 1, both present;"
            " add the missing class"
        )
    positives = scores[labels == 1]
    negatives = np.sort(scores[labels == 0])
    n_lower = np.searchsorted(negatives, positives, "left")
    n_lower_or_equal = np.searchsorted(negatives, positives, "right")
    return float((n_lower + n_lower_or_equal).mean() / 2 / len(negatives))


def _paired_arrays(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x_N, y_N = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    all_finite = np.isfinite(x_N).all() and np.isfinite(y_N).all()
    if len(x_N) != len(y_N) or len(x_N) < 3 or not all_finite:
        raise DataError(
            f"{len(x_N)} and {len(y_N)} values; expected finite ones, as many of each, three or"
            " more; align them"
        )
    return x_N, y_N
