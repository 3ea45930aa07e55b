"""Estimates with intervals: the only numbers a report prints.

Seeds, questions and samples are crossed factors, so rows are not independent (Miller 2024, arXiv
2411.00640); an interval that is meant to hold for another training run is built over seeds.
Unscored values are NaN: dropped, counted, shown. Values that do not vary say nothing about their
spread: their bounds are NaN, never a zero-width interval.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from traitscope.errors import ConfigError, DataError

FEW_SEEDS = 10
CHUNK = 4_000_000
Labels = Sequence[Hashable]
Method = Literal["auto", "t_over_seeds", "bootstrap"]
Goal = Literal["detect", "equivalence", "width"]


@dataclass(frozen=True)
class Measurement:
    """An estimate, how far to trust it, and what it was computed from."""

    name: str
    """What was measured."""
    estimate: float
    """Point estimate; NaN where it is undefined."""
    low: float
    """Lower bound; NaN where no interval can be given."""
    high: float
    """Upper bound; NaN where no interval can be given."""
    n: int
    """Scored values, or pairs, that entered."""
    n_clusters: int
    """Independent units behind the interval (for crossed factors: the smaller number of levels)."""
    n_unscored: int
    """Values left out because they could not be scored."""
    unit: str
    """Unit of estimate and bounds, such as `nats` or `rate`."""
    level: float = 0.95
    """Confidence level of the interval."""
    interval: str = ""
    """How the interval was made and what it does not cover."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; False where a bound is undefined."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, str | int | float | None]:
        """The fields by name; NaN becomes None because JSON has no NaN."""
        return {
            k: None if isinstance(v, float) and math.isnan(v) else v
            for k, v in asdict(self).items()
        }

    def __str__(self) -> str:
        width = self.high - self.low
        digits = max(2, 1 - math.floor(math.log10(width))) if 0 < width < math.inf else 2
        bounds = (
            "undefined" if math.isnan(width) else f"{self.low:.{digits}f}, {self.high:.{digits}f}"
        )
        number = (
            "undefined" if math.isnan(self.estimate) else f"{self.estimate:+.{digits}f} [{bounds}]"
        )
        unscored = f", unscored={self.n_unscored}" if self.n_unscored else ""
        return (
            f"{number} {self.unit}".rstrip()
            + f" (n={self.n}, clusters={self.n_clusters}{unscored})"
        )


class Equivalence(NamedTuple):
    """Result of two one-sided tests: the larger p, the decision, the (1 - 2 alpha) interval of the
    mean."""

    p: float
    equivalent: bool
    low: float
    high: float


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
    z2 = _z(level) ** 2
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
    _check_between("level", level, 0, 1)
    values = _floats(values, "values", unscored=False)
    if _no_spread(values):
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
    _check_between("level", level, 0, 1)
    if draws < 1 or len(clusters) not in (1, 2):
        raise ConfigError(
            f"{draws} draws, {len(clusters)} factors; expected draws >= 1, 1 or 2 label lists"
        )
    values = _floats(values, "values", unscored=False)
    codes_a, codes_b = [
        _codes(labels, len(values)) for labels in [*clusters, [0] * len(values)][:2]
    ]
    shape = int(codes_a.max()) + 1, int(codes_b.max()) + 1
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (codes_a, codes_b), values)
    np.add.at(counts, (codes_a, codes_b), 1)
    rng, step = np.random.default_rng(seed), max(1, CHUNK // sum(shape))
    means = np.concatenate(
        [_resampled(sums, counts, min(step, draws - i), rng) for i in range(0, draws, step)]
    )
    if len(means) == 0 or _no_spread(means):
        return math.nan, math.nan
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def measure(
    name: str,
    values: Sequence[float],
    seeds: Labels | None = None,
    questions: Labels | None = None,
    unit: str = "",
    method: Method = "auto",
    draws: int = 2000,
    seed: int = 0,
) -> Measurement:
    """Mean of `values` [N] with a 95 % interval; NaN or None is unscored, dropped and counted.

    auto: t_over_seeds from two seeds on; else Wilson for 0/1 values that share no question; else
    the bootstrap. t_over_seeds: t interval over per-seed means, the estimate is their mean; where
    seeds share questions it holds for these, not for new ones. bootstrap: over seeds and questions
    (over values without either), the estimate is the mean of all rows. The field `interval` names
    the method and its limits. No scored value: NaN estimate. Raises DataError on infinite values or
    labels of another length, ConfigError for t_over_seeds without two seeds.
    """
    values = _floats(values, "values")
    scored = ~np.isnan(values)
    seeds, questions = [
        x if x is None else _codes(x, len(values))[scored] for x in (seeds, questions)
    ]
    values, n_unscored = values[scored], int((~scored).sum())
    if len(values) == 0:
        return Measurement(
            name, math.nan, math.nan, math.nan, 0, 0, n_unscored, unit, interval="no scored value"
        )
    if method == "t_over_seeds" or (method == "auto" and _levels(seeds) > 1):
        estimate, low, high, n_clusters, interval = _over_seeds(values, seeds, questions)
    elif method in ("auto", "bootstrap"):
        estimate = float(values.mean())
        low, high, n_clusters, interval = _over_clusters(
            values, seeds, questions, method == "auto", draws, seed
        )
    else:
        raise ConfigError(
            f"method {method!r}; expected auto, t_over_seeds or bootstrap; choose one of these"
        )
    return Measurement(
        name, estimate, low, high, len(values), n_clusters, n_unscored, unit, interval=interval
    )


def paired_difference(
    name: str,
    treated: Sequence[float],
    control: Sequence[float],
    seeds: Labels,
    questions: Labels,
    unit: str = "",
    method: Method = "auto",
    seed: int = 0,
) -> Measurement:
    """Mean of treated - control, paired by (seed, question), with a 95 % interval.

    Row i of `treated` and `control` [N] belongs to seeds[i] and questions[i]; samples of a pair are
    averaged first, and it needs a scored value on either side. n counts pairs, n_unscored the NaN
    values of both sides. auto: t_over_seeds from two seeds on, else the bootstrap over questions,
    whose `interval` says that seed variance is not covered. Methods and errors as in `measure`.
    Source: Miller 2024, arXiv 2411.00640 (paired differences, clusters).
    """
    treated, control = _floats(treated, "treated"), _floats(control, "control")
    if not len(treated) == len(control) == len(seeds) == len(questions):
        lengths = [len(treated), len(control), len(seeds), len(questions)]
        raise DataError(
            f"treated, control, seeds, questions have {lengths} rows; expected equal lengths; align"
            " them"
        )
    codes = _codes(list(zip(seeds, questions, strict=True)), len(treated))
    first = np.unique(codes, return_index=True)[1]
    pair_seeds, pair_questions = [[labels[row] for row in first] for labels in (seeds, questions)]
    difference = _means_by(codes, treated) - _means_by(codes, control)
    if (
        method == "auto"
        and len({s for s, d in zip(pair_seeds, difference, strict=True) if not math.isnan(d)}) < 2
    ):
        method = "bootstrap"
    found = measure(name, difference, pair_seeds, pair_questions, unit, method, seed=seed)
    return replace(found, n_unscored=int(np.isnan(treated).sum() + np.isnan(control).sum()))


def ratio(
    name: str,
    top: Sequence[float],
    bottom: Sequence[float],
    unit: str = "",
    draws: int = 2000,
    seed: int = 0,
) -> Measurement:
    """Σ top / Σ bottom over rows [N], with the percentile interval of a bootstrap that draws rows,
    both values together.

    NaN where Σ bottom is not positive; no bounds for one row. Raises DataError on non-finite values
    or other lengths. Source: Efron and Tibshirani 1993, section 10.3.
    """
    top, bottom = _floats(top, "top", unscored=False), _floats(bottom, "bottom", unscored=False)
    if len(top) != len(bottom):
        raise DataError(
            f"top and bottom have {len(top)} and {len(bottom)} rows; expected equal lengths; align"
            " them"
        )
    n, low, high = len(top), math.nan, math.nan
    estimate = float(top.sum() / bottom.sum()) if bottom.sum() > 0 else math.nan
    if n > 1 and not math.isnan(estimate):
        weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
        below = weights @ bottom
        found = (weights @ top)[below > 0] / below[below > 0]
        low, high = (
            (float(q) for q in np.quantile(found, [0.025, 0.975]))
            if not _no_spread(found)
            else (low, high)
        )
    return Measurement(
        name, estimate, low, high, n, n, 0, unit, interval=f"bootstrap over {n} rows"
    )


def equivalence(
    differences_per_seed: Sequence[float], margin: float, alpha: float = 0.05
) -> Equivalence:
    """Two one-sided t tests of |mean difference| < margin: evidence of no effect, not lack of
    evidence.

    p = P(T(n-1) > (margin - |mean|) sqrt(n)/s), the larger of both. One seed, or identical
    differences: p and bounds are NaN, not equivalent. Raises ConfigError unless margin > 0,
    DataError on bad values. Source: Schuirmann 1987.
    """
    _check_between("margin", margin, 0, math.inf)
    _check_between("alpha", alpha, 0, 0.5)
    values = _floats(differences_per_seed, "differences", unscored=False)
    mean, low, high = mean_interval_t(values, 1 - 2 * alpha)
    if math.isnan(low):
        return Equivalence(math.nan, False, low, high)
    from scipy.special import stdtr

    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    p = float(stdtr(len(values) - 1, (abs(mean) - margin) / error))
    return Equivalence(p, p < alpha, low, high)


def sign_flip_p(differences: Sequence[float], draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided paired permutation p: the share of sign patterns with |Σ ± d| >= |Σ d|.

    All 2^n patterns up to n = 16, else sampled: (1 + hits)/(1 + draws). The smallest exact p is
    2/2^n, so with five differences or fewer it never reaches 0.05. Raises DataError on empty or
    non-finite input. Source: Fisher 1935.
    """
    d = _floats(differences, "differences", unscored=False)
    observed = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if len(d) <= 16:
        signs = 1 - 2 * (np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1)
        return float(np.mean(np.abs(signs @ d) >= observed))
    _check_between("draws", draws, 0, math.inf)
    rng, step = np.random.default_rng(seed), max(1, CHUNK // len(d))
    sums = [
        rng.choice([-1.0, 1.0], (min(step, draws - i), len(d))) @ d for i in range(0, draws, step)
    ]
    return float(1 + np.sum(np.abs(np.concatenate(sums)) >= observed)) / (1 + draws)


def seeds_needed(
    sd: float, margin: float, power: float = 0.8, alpha: float = 0.05, goal: Goal = "detect"
) -> int:
    """Smallest number of seeds n >= 2, from the standard deviation of the per-seed differences
    (unit of `margin`).

    detect: a two-sided t test finds a true difference `margin` with `power`. equivalence:
    `equivalence` accepts a true difference of 0 with at least `power` (bound 2P - 1: never too
    few). width: the half-width t(n-1) sd/sqrt(n) of the 1 - alpha interval is at most `margin`.
    Raises ConfigError on impossible settings. Source: Phillips 1990.
    """
    _check_between("margin", margin, 0, math.inf)
    _check_between("alpha", alpha, 0, 0.5)
    _check_between("power", power, 0.5, 1)
    goals = {
        "detect": (alpha / 2, 1 - power),
        "equivalence": (alpha, (1 - power) / 2),
        "width": (alpha / 2, 0.5),
    }
    if goal not in goals or not 0 <= sd < math.inf:
        raise ConfigError(
            f"goal {goal!r}, sd {sd}; expected one of {sorted(goals)} and a finite sd >= 0;"
            " correct it"
        )
    from scipy.special import nctdtr, stdtrit

    (tail, miss), sd = goals[goal], max(sd / margin, 1e-9)
    n = max(2, math.floor(((NormalDist().inv_cdf(tail) + NormalDist().inv_cdf(miss)) * sd) ** 2))
    while True:  # from the normal approximation, which is never too many
        critical, shift = -stdtrit(n - 1, tail), math.sqrt(n) / sd
        if (
            critical <= shift
            if goal == "width"
            else nctdtr(n - 1, min(shift, 1e3), critical) <= miss
        ):
            return n
        n += 1


def samples_needed(p: float, margin: float, level: float = 0.95) -> int:
    """Smallest n whose Wilson interval at an observed proportion p has a half-width of at most
    `margin`.

    Solves margin² N² - z² pq N - z⁴(1/4 - pq) = 0 for N = n + z², q = 1 - p. Independent samples;
    at least 1. Raises ConfigError unless 0 <= p <= 1 and margin > 0. Source: Wilson 1927.
    """
    _check_between("margin", margin, 0, math.inf)
    if not 0 <= p <= 1:
        raise ConfigError(
            f"p is {p}; expected a proportion from 0 to 1; use 0.5 where nothing is known"
        )
    z2, pq = _z(level) ** 2, p * (1 - p)
    total = z2 * (pq + math.sqrt(pq * pq + margin**2 * (1 - 4 * pq))) / (2 * margin**2)
    return max(1, math.ceil(total - z2 - 1e-9))


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values in the order given: p(k) = max over j <= k of min(1, (m - j + 1)
    p(j)), p(j) sorted.

    Bounds the family-wise error under any dependence. Raises DataError outside 0..1. Source: Holm
    1979.
    """
    p = _floats(pvalues, "pvalues")
    if not np.all((p >= 0) & (p <= 1)):
        raise DataError(
            f"p-values {p.tolist()}; expected numbers from 0 to 1; leave undefined tests out"
        )
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """P(score of a positive > of a negative) + P(equal)/2 = Mann-Whitney U / (n_pos n_neg); 0.5 is
    chance.

    Raises DataError on non-finite scores, or labels that are not 0/1 with both present. Source:
    Hanley and McNeil 1982.
    """
    scores, labels = _floats(scores, "scores", unscored=False), _floats(labels, "labels")
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


def _over_seeds(
    values: np.ndarray, seeds: np.ndarray | None, questions: np.ndarray | None
) -> tuple[float, float, float, int, str]:
    n_seeds = _levels(seeds)
    if n_seeds < 2:
        raise ConfigError(
            f"t_over_seeds with {n_seeds} scored seeds; expected 2 or more; add seeds or use"
            " bootstrap"
        )
    crossed = questions is not None and len({*zip(seeds, questions, strict=True)}) > _levels(
        questions
    )
    means = _means_by(np.unique(seeds, return_inverse=True)[1], values)
    limit = " (holds for these questions, not for new ones)" if crossed else ""
    return *mean_interval_t(means), n_seeds, f"t over {n_seeds} seeds{limit}"


def _over_clusters(
    values: np.ndarray,
    seeds: np.ndarray | None,
    questions: np.ndarray | None,
    binary: bool,
    draws: int,
    seed: int,
) -> tuple[float, float, int, str]:
    n, n_seeds = len(values), _levels(seeds)
    few = (
        f"fewer than {FEW_SEEDS} seeds: too narrow"
        if n_seeds > 1
        else "one seed: between-seed variance not covered"
    )
    limit = f" ({few})" if 0 < n_seeds < FEW_SEEDS else ""
    if binary and (questions is None or _levels(questions) == n) and np.isin(values, [0, 1]).all():
        return *wilson(float(values.sum()), n), n, f"wilson over {n} values{limit}"
    factors = {"seeds": seeds if n_seeds > 1 else None, "questions": questions}
    factors = {name: codes for name, codes in factors.items() if codes is not None} or {
        "values": np.arange(n)
    }
    bounds = cluster_bootstrap(values, list(factors.values()), draws=draws, seed=seed)
    sizes = [_levels(codes) for codes in factors.values()]
    text = " x ".join(f"{size} {name}" for size, name in zip(sizes, factors, strict=True))
    return (
        *bounds,
        min([size for size in sizes if size > 1], default=1),
        f"bootstrap over {text}{limit}",
    )


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


def _codes(labels: Labels, n: int) -> np.ndarray:
    """Each label as an index 0..; sorted, so that the order of the rows does not matter."""
    if len(labels) != n:
        raise DataError(
            f"{len(labels)} labels for {n} values; expected one a value; pass lists of the same"
            " length"
        )
    levels = sorted(set(labels), key=lambda label: (str(label), type(label).__name__))
    index = {label: code for code, label in enumerate(levels)}
    return np.array([index[label] for label in labels], dtype=int)


def _levels(codes: np.ndarray | None) -> int:
    return 0 if codes is None else len(np.unique(codes))


def _means_by(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of the scored values of each code; NaN for a code without any."""
    weights = ~np.isnan(values)
    counts, sums = np.bincount(codes, weights), np.bincount(codes, np.where(weights, values, 0.0))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _floats(values: Sequence[float], what: str, unscored: bool = True) -> np.ndarray:
    """`values` as a vector; NaN is an error, as is an empty input, unless `unscored` values are
    allowed."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what}: {error}; expected a list of numbers; use NaN for an unscored value"
        ) from None
    if array.ndim != 1 or np.isinf(array).any():
        raise DataError(
            f"{what}: shape {array.shape} or an infinite value; expected a list of finite numbers;"
            " fix it"
        )
    if not unscored and (len(array) == 0 or np.isnan(array).any()):
        found = f"{what}: {int(np.isnan(array).sum())} NaN in {len(array)} values"
        raise DataError(
            f"{found}; expected at least one number and no NaN; drop and count unscored values"
        )
    return array


def _no_spread(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _z(level: float) -> float:
    _check_between("level", level, 0, 1)
    return NormalDist().inv_cdf((1 + level) / 2)


def _check_between(what: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise ConfigError(
            f"{what} is {value}; expected a number between {low} and {high}, both excluded;"
            " change it"
        )
