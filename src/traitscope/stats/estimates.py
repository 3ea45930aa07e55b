"""Estimates with intervals: the only numbers a report prints.

Seeds, questions and samples are crossed factors, so rows are not independent (Miller 2024, arXiv
2411.00640); an interval that is meant to hold for another training run is built over seeds.
Unscored values are NaN: dropped, counted, shown. Values that do not vary say nothing about their
spread: their bounds are NaN, never a zero-width interval.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

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
from traitscope.stats.intervals import cluster_bootstrap, mean_interval_t, wilson
from traitscope.stats.measurement import Measurement

FEW_SEEDS = 10
Method = Literal["auto", "t_over_seeds", "bootstrap"]


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
    values = as_floats(values, "values")
    scored = ~np.isnan(values)
    seeds, questions = [
        x if x is None else label_codes(x, len(values))[scored] for x in (seeds, questions)
    ]
    values, n_unscored = values[scored], int((~scored).sum())
    if len(values) == 0:
        return Measurement(
            name, math.nan, math.nan, math.nan, 0, 0, n_unscored, unit, interval="no scored value"
        )
    if method == "t_over_seeds" or (method == "auto" and count_levels(seeds) > 1):
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
    treated, control = as_floats(treated, "treated"), as_floats(control, "control")
    if not len(treated) == len(control) == len(seeds) == len(questions):
        lengths = [len(treated), len(control), len(seeds), len(questions)]
        raise DataError(
            f"treated, control, seeds, questions have {lengths} rows; expected equal lengths; align"
            " them"
        )
    codes = label_codes(list(zip(seeds, questions, strict=True)), len(treated))
    first = np.unique(codes, return_index=True)[1]
    pair_seeds, pair_questions = [[labels[row] for row in first] for labels in (seeds, questions)]
    difference = group_means(codes, treated) - group_means(codes, control)
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
    top, bottom = as_floats(top, "top", unscored=False), as_floats(bottom, "bottom", unscored=False)
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
            if not has_no_spread(found)
            else (low, high)
        )
    return Measurement(
        name, estimate, low, high, n, n, 0, unit, interval=f"bootstrap over {n} rows"
    )


def _over_seeds(
    values: np.ndarray, seeds: np.ndarray | None, questions: np.ndarray | None
) -> tuple[float, float, float, int, str]:
    n_seeds = count_levels(seeds)
    if n_seeds < 2:
        raise ConfigError(
            f"t_over_seeds with {n_seeds} scored seeds; expected 2 or more; add seeds or use"
            " bootstrap"
        )
    crossed = questions is not None and len({*zip(seeds, questions, strict=True)}) > count_levels(
        questions
    )
    means = group_means(np.unique(seeds, return_inverse=True)[1], values)
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
    n, n_seeds = len(values), count_levels(seeds)
    few = (
        f"fewer than {FEW_SEEDS} seeds: too narrow"
        if n_seeds > 1
        else "one seed: between-seed variance not covered"
    )
    limit = f" ({few})" if 0 < n_seeds < FEW_SEEDS else ""
    if (
        binary
        and (questions is None or count_levels(questions) == n)
        and np.isin(values, [0, 1]).all()
    ):
        return *wilson(float(values.sum()), n), n, f"wilson over {n} values{limit}"
    factors = {"seeds": seeds if n_seeds > 1 else None, "questions": questions}
    factors = {name: codes for name, codes in factors.items() if codes is not None} or {
        "values": np.arange(n)
    }
    bounds = cluster_bootstrap(values, list(factors.values()), draws=draws, seed=seed)
    sizes = [count_levels(codes) for codes in factors.values()]
    text = " x ".join(f"{size} {name}" for size, name in zip(sizes, factors, strict=True))
    return (
        *bounds,
        min([size for size in sizes if size > 1], default=1),
        f"bootstrap over {text}{limit}",
    )
