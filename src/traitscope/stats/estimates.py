"""Estimates with intervals, the only numbers that a report prints.

Seeds, questions and samples are crossed factors, so rows are not independent (Miller 2024, arXiv
2411.00640). An interval that is meant to hold for another training run is built over seeds.
Unscored values are NaN: dropped, counted, shown. Values that do not vary say nothing about their
spread: their bounds are NaN, never a zero-width interval.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import numpy as np

from traitscope.errors import ConfigError, DataError
from traitscope.stats.inputs import (
    Labels,
    as_floats,
    count_levels,
    group_means,
    has_no_spread,
    label_codes,
)
from traitscope.stats.intervals import (
    cluster_bootstrap_means,
    crossed_interval_t,
    mean_interval_t,
    percentile_interval,
    wilson,
)
from traitscope.stats.measurement import Measurement
from traitscope.stats.tails import ResampledTail, ScoreTail, StudentTail, Tail, student_tail

FEW_SEEDS = 10
"A bootstrap over fewer seeds than this is called too narrow."
ONE_SEED_ONLY = " (one seed: between-seed variance not covered)"
"what an interval of one seed says of itself"
Method = Literal["auto", "t_over_seeds", "crossed", "bootstrap"]
METHODS = get_args(Method)


class _Interval(NamedTuple):
    """A mean with its bounds, and how they were made."""

    estimate: float
    low: float
    high: float
    n_clusters: int
    description: str
    counted: str
    tail: Tail | None = None
    crossed_low: float = math.nan
    crossed_high: float = math.nan


OUTCOMES = ("", "rate")
"units of values that are outcomes where all of them are 0 or 1; others are so by chance"


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
    """Return the mean of `values` [N] with a 95 % interval.

    NaN or None is unscored: dropped and counted. Without any scored value the estimate is NaN. The
    field `interval` of the result names the method and its limits. `method` is one of these:

        t_over_seeds   the mean of the per-seed means, with a t interval over these
        crossed        the same mean; its interval holds for new seeds and new questions
        bootstrap      the mean of all rows; seeds and questions are resampled, or values where
                       neither is given
        auto           t_over_seeds from two seeds on; else Wilson's interval for 0/1 values that
                       share no question and have a unit of OUTCOMES; else bootstrap

    Where seeds share questions, the interval of t_over_seeds holds for these questions, not for new
    ones. Then `crossed_low` and `crossed_high` are the bounds that `crossed` would give.

    Raises DataError on infinite values or labels of another length; ConfigError for t_over_seeds
    without two seeds, and for crossed without two that share questions.
    """
    return _measured(name, values, seeds, questions, unit, method, draws, seed, "seeds")


def _measured(
    name: str,
    values: Sequence[float],
    seeds: Labels | None,
    questions: Labels | None,
    unit: str,
    method: Method,
    draws: int,
    seed: int,
    of: str,
) -> Measurement:
    """Return the mean as `measure` does; `of` says what the labels `seeds` stand for."""
    values = as_floats(values, "values")
    scored = ~np.isnan(values)
    n_unscored = int((~scored).sum())
    seed_codes = None if seeds is None else label_codes(seeds, len(values))[scored]
    question_codes = None if questions is None else label_codes(questions, len(values))[scored]
    values = values[scored]
    if len(values) == 0:
        return Measurement.undefined(name, unit, "no scored value", n_unscored=n_unscored)
    _check_method(method)
    if method == "t_over_seeds" or (method == "auto" and count_levels(seed_codes) > 1):
        interval = _over_seeds(values, seed_codes, question_codes, of)
    elif method == "crossed":
        interval = _over_seeds_and_questions(values, seed_codes, question_codes)
    elif method == "auto" and _are_independent_outcomes(values, question_codes, unit):
        interval = _over_outcomes(values, seed_codes)
    else:
        interval = _over_clusters(values, seed_codes, question_codes, draws, seed)
    return Measurement(
        name=name,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        n=len(values),
        n_clusters=interval.n_clusters,
        n_unscored=n_unscored,
        unit=unit,
        interval=interval.description,
        crossed_low=interval.crossed_low,
        crossed_high=interval.crossed_high,
        counted=interval.counted,
        tail=interval.tail,
    )


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise ConfigError(
            f"method {method!r}; expected one of {', '.join(METHODS)}; choose one of these"
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
    """Return the mean of treated - control, paired by (seed, question), with a 95 % interval.

    Row i of `treated` and `control` [N] belongs to seeds[i] and questions[i]. Samples of a pair are
    averaged first. A pair needs a scored value on either side. n counts pairs, n_unscored the NaN
    values of both sides.

    auto: t_over_seeds from two seeds on. crossed: for new seeds and new questions. With one seed
    both give the bootstrap over questions, whose `interval` says that seed variance is not covered.
    A control that was sampled once for all seeds needs crossed: its sampling error is common to the
    seeds, so t_over_seeds does not see it. Methods and errors as in `measure`.

    Source: Miller 2024, arXiv 2411.00640 (paired differences, clusters).
    """
    treated, control = as_floats(treated, "treated"), as_floats(control, "control")
    lengths = [len(treated), len(control), len(seeds), len(questions)]
    if len(set(lengths)) > 1:
        raise DataError(
            f"treated, control, seeds, questions have {lengths} rows; expected equal lengths; align"
            " them"
        )
    pair_codes = label_codes(list(zip(seeds, questions, strict=True)), len(treated))
    first_rows = np.unique(pair_codes, return_index=True)[1]
    pair_seeds = [seeds[row] for row in first_rows]
    pair_questions = [questions[row] for row in first_rows]
    differences = group_means(pair_codes, treated) - group_means(pair_codes, control)
    over_seeds = method in ("auto", "crossed")
    if over_seeds and _count_scored_seeds(pair_seeds, differences) < 2:
        method = "bootstrap"
    difference = measure(name, differences, pair_seeds, pair_questions, unit, method, seed=seed)
    n_unscored = int(np.isnan(treated).sum() + np.isnan(control).sum())
    return replace(difference, n_unscored=n_unscored)


def ratio(
    name: str,
    top: Sequence[float],
    bottom: Sequence[float],
    unit: str = "",
    draws: int = 2000,
    seed: int = 0,
) -> Measurement:
    """Return Σ top / Σ bottom over rows [N], with a 95 % percentile interval.

    The bootstrap draws rows, both values of a row together. The estimate is NaN where Σ bottom is
    not positive; there are no bounds for one row. Raises DataError on non-finite values or other
    lengths. Source: Efron and Tibshirani 1993, section 10.3.
    """
    top, bottom = as_floats(top, "top", unscored=False), as_floats(bottom, "bottom", unscored=False)
    n = len(top)
    if n != len(bottom):
        raise DataError(
            f"top and bottom have {n} and {len(bottom)} rows; expected equal lengths; align them"
        )
    interval = f"bootstrap over {n} rows"
    if bottom.sum() <= 0:
        return Measurement.undefined(name, unit, interval, n, n)
    estimate = float(top.sum() / bottom.sum())
    low, high, tail = math.nan, math.nan, None
    if n > 1:
        counts_DN = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
        bottoms_D = counts_DN @ bottom
        is_defined = bottoms_D > 0
        ratios = (counts_DN @ top)[is_defined] / bottoms_D[is_defined]
        if not has_no_spread(ratios):
            low, high = np.quantile(ratios, [0.025, 0.975]).tolist()
            tail = ResampledTail(ratios)
    return Measurement(
        name=name,
        estimate=estimate,
        low=low,
        high=high,
        n=n,
        n_clusters=n,
        n_unscored=0,
        unit=unit,
        interval=interval,
        counted="rows",
        tail=tail,
    )


def _count_scored_seeds(pair_seeds: Labels, differences: np.ndarray) -> int:
    """Number of seeds with at least one scored pair."""
    scored_seeds = set()
    for seed, difference in zip(pair_seeds, differences, strict=True):
        if not math.isnan(difference):
            scored_seeds.add(seed)
    return len(scored_seeds)


def _are_independent_outcomes(values: np.ndarray, questions: np.ndarray | None, unit: str) -> bool:
    """Whether all values are 0 or 1, as outcomes are, and no two share a question."""
    share_no_question = questions is None or count_levels(questions) == len(values)
    return bool(unit in OUTCOMES and share_no_question and np.isin(values, [0, 1]).all())


def _over_seeds(
    values: np.ndarray, seeds: np.ndarray | None, questions: np.ndarray | None, of: str
) -> _Interval:
    """t interval over the means of the seeds; `of` says what these are."""
    n_seeds = count_levels(seeds)
    if n_seeds < 2:
        raise ConfigError(
            f"t_over_seeds with {n_seeds} scored seeds; expected 2 or more; add seeds or use"
            " bootstrap"
        )
    description = f"t over {n_seeds} {of}"
    consecutive_codes = np.unique(seeds, return_inverse=True)[1]
    means = group_means(consecutive_codes, values)
    mean, low, high = mean_interval_t(means)
    tail = student_tail(means)
    if not _seeds_share_questions(seeds, questions):
        return _Interval(mean, low, high, n_seeds, description, of, tail)
    description += " (holds for these questions, not for new ones)"
    _, *crossed = crossed_interval_t(values, seeds, questions)
    return _Interval(mean, low, high, n_seeds, description, of, tail, *crossed)


def _over_seeds_and_questions(
    values: np.ndarray, seeds: np.ndarray | None, questions: np.ndarray | None
) -> _Interval:
    """t interval for new seeds and new questions."""
    n_seeds, n_questions = count_levels(seeds), count_levels(questions)
    if n_seeds < 2 or not _seeds_share_questions(seeds, questions):
        raise ConfigError(
            f"crossed with {n_seeds} scored seeds and {n_questions} questions; expected 2 seeds or"
            " more that share questions; add seeds or use bootstrap"
        )
    mean, low, high = crossed_interval_t(values, seeds, questions)
    description = f"t over {n_seeds} seeds x {n_questions} questions"
    counted = "seeds" if n_seeds <= n_questions else "questions"
    return _Interval(mean, low, high, min(n_seeds, n_questions), description, counted)


def _seeds_share_questions(seeds: np.ndarray | None, questions: np.ndarray | None) -> bool:
    if seeds is None or questions is None:
        return False
    pairs = set(zip(seeds, questions, strict=True))
    return len(pairs) > count_levels(questions)


def _over_outcomes(values: np.ndarray, seeds: np.ndarray | None) -> _Interval:
    """Wilson's interval of independent outcomes."""
    n = len(values)
    low, high = wilson(float(values.sum()), n)
    description = f"wilson over {n} values{_seed_limit(seeds)}"
    tail = ScoreTail(float(values.sum()), n)
    return _Interval(float(values.mean()), low, high, n, description, "values", tail)


def _over_clusters(
    values: np.ndarray,
    seeds: np.ndarray | None,
    questions: np.ndarray | None,
    draws: int,
    seed: int,
) -> _Interval:
    """Bootstrap interval over seeds and questions, or over values where neither is given."""
    factors = {}
    if count_levels(seeds) > 1:
        factors["seeds"] = seeds
    if questions is not None:
        factors["questions"] = questions
    if not factors:
        factors["values"] = np.arange(len(values))
    means = cluster_bootstrap_means(values, list(factors.values()), draws, seed)
    low, high = percentile_interval(means)
    tail = None if math.isnan(low) else ResampledTail(means)
    n_levels = {name: count_levels(codes) for name, codes in factors.items()}
    resampled = {name: n for name, n in n_levels.items() if n > 1}
    n_clusters = min(resampled.values(), default=1)
    counted = min(resampled, key=resampled.__getitem__, default=next(iter(n_levels)))
    units = " x ".join(f"{n} {name}" for name, n in n_levels.items())
    description = f"bootstrap over {units}{_seed_limit(seeds)}"
    return _Interval(float(values.mean()), low, high, n_clusters, description, counted, tail)


def _seed_limit(seeds: np.ndarray | None) -> str:
    """What an interval that is not built over seeds means with few of them."""
    n_seeds = count_levels(seeds)
    if n_seeds == 1:
        return ONE_SEED_ONLY
    if 1 < n_seeds < FEW_SEEDS:
        return f" (fewer than {FEW_SEEDS} seeds: too narrow)"
    return ""


def mean_over_units(
    name: str, values: Sequence[float], unit: str, of: str = "seeds"
) -> Measurement:
    """Return the mean over independent units with a t interval.

    `of` says what the units are: seeds, traits. NaN values are unscored. One unit has no interval.
    """
    units = range(len(values)) if len(values) > 1 else None
    method: Method = "auto" if units else "bootstrap"
    mean = _measured(name, values, units, None, unit, method, 2000, 0, of)
    return replace(mean, counted=of)


def two_samples(
    name: str, left: Sequence[float], right: Sequence[float], unit: str, of: str = "seeds"
) -> Measurement:
    """Return the mean of one group of independent units minus that of another.

    The interval is Welch's at 95 % (Welch 1947). The smaller group counts as the number of units:
    it bounds what is known of the spread. There is none with fewer than two units on a side
    or without any spread. Raises DataError on an empty group.
    """
    if not (left and right):
        raise DataError(
            f"{name}: groups of {len(left)} and {len(right)}; expected at least one unit in each;"
            " run more"
        )
    low = high = math.nan
    tail = None
    has_spread = len(set(left)) + len(set(right)) > 2
    difference = math.fsum(left) / len(left) - math.fsum(right) / len(right)
    if min(len(left), len(right)) > 1 and has_spread:
        low, high, tail = _welch(left, right, difference)
    n = len(left) + len(right)
    return Measurement(
        name=name,
        estimate=difference,
        low=low,
        high=high,
        n=n,
        n_clusters=min(len(left), len(right)),
        n_unscored=0,
        unit=unit,
        interval=f"Welch over {len(left)} and {len(right)} {of}",
        counted=of,
        tail=tail,
    )


def _welch(
    left: Sequence[float], right: Sequence[float], difference: float
) -> tuple[float, float, StudentTail]:
    """Return the bounds of a difference of two means, and its law."""
    from scipy.stats import ttest_ind

    test = ttest_ind(left, right, equal_var=False)
    low, high = test.confidence_interval()
    variances = [np.var(side, ddof=1) / len(side) for side in (left, right)]
    return float(low), float(high), StudentTail(difference, math.sqrt(sum(variances)), test.df)
