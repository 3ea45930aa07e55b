"""Confidence intervals: Wilson, Student's t, and the bootstrap over one or two crossed factors."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from traitscope.errors import ConfigError, DataError
from traitscope.stats.inputs import (
    Labels,
    as_floats,
    check_between,
    has_no_spread,
    label_codes,
)

CHUNK = 4_000_000


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion: (p + z²/2n ± z sqrt(pq/n + z²/4n²)) / (1 + z²/n), p =
    successes/n, q = 1 - p.

    n = 0 gives (0, 1). For independent trials only. Raises ConfigError on a bad level, DataError on
    impossible counts. Source: Wilson 1927.
    """
    if not 0 <= successes <= n:
        raise DataError(
            f"{successes} successes in {n} trials; expected 0 <= successes <= trials; check the"
            " counts"
        )
    z2 = normal_quantile(level) ** 2
    variance = successes * (n - successes) / n if n else 0.0
    centre, half = (
        (successes + z2 / 2) / (n + z2),
        math.sqrt(z2 * variance + z2 * z2 / 4) / (n + z2),
    )
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def mean_interval_t(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) with low, high = mean ± t(n-1) s/sqrt(n), over independent units (one value
    a seed).

    In the unit of `values`. Bounds are NaN for n = 1 and for identical values. Source: Student
    1908. Raises DataError on an empty or non-finite input, ConfigError on a bad level.
    """
    check_between("level", level, 0, 1)
    values = as_floats(values, "values", unscored=False)
    if has_no_spread(values):
        return float(values.mean()), math.nan, math.nan
    from scipy.special import stdtrit

    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * error
    return mean, mean - half, mean + half


def cluster_bootstrap(
    values: Sequence[float],
    clusters: Sequence[Labels],
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval (low, high) of the mean of `values` [N], resampling one or two crossed
    factors.

    `clusters` holds one label list [N] per factor, whose levels are drawn with replacement,
    independently; a row weighs the product of its levels' counts: mean* = Σ w_a w_b x / Σ w_a w_b.
    A draw that hits no row is left out. Too narrow with under ten levels. A factor with one level
    is not resampled; bounds are NaN where the means* are all equal. The order of the rows does not
    matter. Raises DataError on bad values or labels, ConfigError on a bad setting. Source: Owen
    2007 (pigeonhole bootstrap).
    """
    check_between("level", level, 0, 1)
    if draws < 1 or len(clusters) not in (1, 2):
        raise ConfigError(
            f"{draws} draws, {len(clusters)} factors; expected draws >= 1, 1 or 2 label lists"
        )
    values = as_floats(values, "values", unscored=False)
    codes_a, codes_b = [
        label_codes(labels, len(values)) for labels in [*clusters, [0] * len(values)][:2]
    ]
    shape = int(codes_a.max()) + 1, int(codes_b.max()) + 1
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (codes_a, codes_b), values)
    np.add.at(counts, (codes_a, codes_b), 1)
    rng, step = np.random.default_rng(seed), max(1, CHUNK // sum(shape))
    means = np.concatenate(
        [_resampled(sums, counts, min(step, draws - i), rng) for i in range(0, draws, step)]
    )
    if len(means) == 0 or has_no_spread(means):
        return math.nan, math.nan
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(
    sums: np.ndarray, counts: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Weighted means of `draws` resamples, from the sum and number of values in every cell [A,
    B]."""
    weights_a, weights_b = [
        rng.multinomial(k, np.full(k, 1 / k), draws).astype(float) for k in counts.shape
    ]
    totals = ((weights_a @ counts) * weights_b).sum(1)
    return ((weights_a @ sums) * weights_b).sum(1)[totals > 0] / totals[totals > 0]


def normal_quantile(level: float) -> float:
    check_between("level", level, 0, 1)
    return NormalDist().inv_cdf((1 + level) / 2)
