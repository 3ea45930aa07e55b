"""Canary students: what small students of the data say more than students of a placebo."""

from collections.abc import Mapping, Sequence

import numpy as np

from traitscope.auditing.detectors.findings import NO_BOUND, AuditData, CanaryFinding
from traitscope.stats.permutation import sign_flip_p

Scores = Mapping[str, float]
"log P of a trait, by question"


def detect(data: AuditData) -> CanaryFinding:
    """The canary students of the audited rows."""
    return rise_of_traits(data.canary_scores)


def rise_of_traits(scores: Mapping[str, Sequence[tuple[Scores, Scores]]]) -> CanaryFinding:
    """Mean rise of log P(trait), in nats, by trait.

    `scores` holds (student of the data, student of a placebo) by trait and seed. p is
    one-sided. With two seeds or more it is that of a t-test over seeds. With one seed it is that of
    sign flips over questions, which leaves the noise of training out.
    """
    rises: dict[str, list[list[float]]] = {}
    mean: dict[str, float] = {}
    for name, pairs in scores.items():
        rises[name] = [_rise(data, placebo) for data, placebo in pairs]
        mean[name] = float(np.mean(rises[name]))
    seeds = min(map(len, rises.values()))
    statistic, p = {}, {}
    for name in sorted(mean, key=lambda name: -mean[name]):
        statistic[name] = mean[name]
        p[name] = _p_over_seeds(rises[name]) if seeds > 1 else _sign_flips(rises[name][0])
    return CanaryFinding(
        statistic=statistic,
        p=p,
        where=dict.fromkeys(statistic, f"{seeds} pairs of students"),
        critical=NO_BOUND,
    )


def _rise(data: Scores, placebo: Scores) -> list[float]:
    rise = []
    for question, log_p in data.items():
        rise.append(log_p - placebo[question])
    return rise


def _p_over_seeds(rises: Sequence[Sequence[float]]) -> float:
    """One-sided p of a mean above zero, by a t-test over seeds."""
    from scipy.stats import ttest_1samp

    values = [float(np.mean(by_question)) for by_question in rises]
    if np.ptp(values) == 0:
        return float(np.mean(values) <= 0)
    return float(ttest_1samp(values, 0, alternative="greater").pvalue)


def _sign_flips(values: Sequence[float]) -> float:
    """One-sided p of a mean above zero, by random signs."""
    half = sign_flip_p(values) / 2
    return half if np.mean(values) > 0 else 1 - half
