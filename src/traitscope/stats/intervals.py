"""Confidence intervals: Wilson, Student's t, and the bootstrap over one or two crossed factors."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from traitscope.errors import ConfigError, DataError
from traitscope.stats.inputs import Labels, as_floats, check_between, has_no_spread, label_codes

CHUNK = 4_000_000
"most random numbers held at one time"


def normal_quantile(level: float) -> float:
    """Return the z that a standard normal value exceeds in size with probability 1 - level."""
    check_between("level", level, 0, 1)
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval (low, high) of a proportion.

    (p + z²/2n ± z sqrt(pq/n + z²/4n²)) / (1 + z²/n) with p = successes/n and q = 1 - p; (0, 1) for
    n = 0. For independent trials only. Raises ConfigError on a bad level, DataError on impossible
    counts. Source: Wilson 1927.
    """
    if not 0 <= successes <= n:
        raise DataError(
            f"{successes} successes in {n} trials; expected 0 <= successes <= trials; check the"
            " counts"
        )
    z2 = normal_quantile(level) ** 2
    variance = successes * (n - successes) / n if n else 0.0
    centre = (successes + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * variance + z2 * z2 / 4) / (n + z2)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def mean_interval_t(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Return (mean, low, high) over independent units, such as one value a seed.

    low, high = mean ± t(n-1) s/sqrt(n), in the unit of `values`. Bounds are NaN for n = 1 and for
    identical values. Raises DataError on an empty or non-finite input, ConfigError on a bad level.
    Source: Student 1908.
    """
    check_between("level", level, 0, 1)
    values = as_floats(values, "values", unscored=False)
    mean = float(values.mean())
    if has_no_spread(values):
        return mean, math.nan, math.nan
    from scipy.special import stdtrit

    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * error
    return mean, mean - half, mean + half


def cluster_bootstrap(
    values: Sequence[float],
    clusters: Sequence[Labels],
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval (low, high) of the mean of `values` [N].

    `clusters` holds one or two factors, each as a list of labels [N]. The levels of every factor
    are drawn with replacement, independently of the other factor. A row's weight is the product of
    its levels' counts: mean* = Σ w_a w_b x / Σ w_a w_b.

    A draw that hits no row is left out. A factor with one level is not resampled. The interval is
    too narrow with fewer than ten levels. Bounds are NaN where all means* are equal. The order of
    the rows does not matter.

    Raises DataError on bad values or labels, ConfigError on a bad setting. Source: Owen 2007
    (pigeonhole bootstrap).
    """
    check_between("level", level, 0, 1)
    if draws < 1 or len(clusters) not in (1, 2):
        raise ConfigError(
            f"{draws} draws, {len(clusters)} factors; expected draws >= 1, 1 or 2 label lists"
        )
    values = as_floats(values, "values", unscored=False)
    codes_a = label_codes(clusters[0], len(values))
    codes_b = np.zeros(len(values), dtype=int)
    if len(clusters) == 2:
        codes_b = label_codes(clusters[1], len(values))
    shape = int(codes_a.max()) + 1, int(codes_b.max()) + 1
    sums_AB, counts_AB = np.zeros(shape), np.zeros(shape)
    np.add.at(sums_AB, (codes_a, codes_b), values)
    np.add.at(counts_AB, (codes_a, codes_b), 1)
    means = _resampled_means(sums_AB, counts_AB, draws, seed)
    if len(means) == 0 or has_no_spread(means):
        return math.nan, math.nan
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled_means(
    sums_AB: np.ndarray, counts_AB: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """Weighted means of `draws` resamples, at most, from sum and number of values by level."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // sum(counts_AB.shape))
    chunks = []
    for start in range(0, draws, step):
        n_draws = min(step, draws - start)
        chunks.append(_resampled_chunk(sums_AB, counts_AB, n_draws, rng))
    return np.concatenate(chunks)


def _resampled_chunk(
    sums_AB: np.ndarray, counts_AB: np.ndarray, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    weights_NA = _level_counts(counts_AB.shape[0], n_draws, rng)
    weights_NB = _level_counts(counts_AB.shape[1], n_draws, rng)
    totals_N = ((weights_NA @ counts_AB) * weights_NB).sum(1)
    sums_N = ((weights_NA @ sums_AB) * weights_NB).sum(1)
    hits_rows = totals_N > 0
    return sums_N[hits_rows] / totals_N[hits_rows]


def _level_counts(n_levels: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often every level is drawn [N, levels], in every resample."""
    probabilities = np.full(n_levels, 1 / n_levels)
    return rng.multinomial(n_levels, probabilities, n_draws).astype(float)
