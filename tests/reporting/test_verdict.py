"""Verdicts follow their rule; Welch's interval covers as often as it says."""

import math

import numpy as np
import pytest

from traitscope.errors import DataError
from traitscope.reporting.verdict import judged, over, two_samples
from traitscope.stats.measurement import Measurement


def test_coverage_with_unequal_groups() -> None:
    """Ten units of one spread against three of another, as draws of noise against clean seeds."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(600):
        found = two_samples(
            "d", list(rng.normal(1.0, 0.5, 10)), list(rng.normal(0.2, 1.0, 3)), "nats"
        )
        hits += found.low <= 0.8 <= found.high
    assert 0.92 <= hits / 600 <= 0.98, hits  # three standard errors around 0.95


def test_order_and_shift() -> None:
    one, other = [1.0, 2.0, 4.0], [0.0, 0.5, 0.1, 0.2]
    forth, back = two_samples("d", one, other, "nats"), two_samples("d", other, one, "nats")
    assert (forth.estimate, forth.low, forth.high) == pytest.approx(
        (-back.estimate, -back.high, -back.low)
    )
    moved = two_samples("d", [v + 3 for v in one], [v + 3 for v in other], "nats")
    assert (moved.low, moved.high) == pytest.approx((forth.low, forth.high))
    assert forth.interval == "Welch over 3 and 4 seeds" and forth.n == 7


def test_without_a_spread_or_a_group() -> None:
    assert math.isnan(two_samples("d", [1.0], [0.0, 0.5], "nats").low)
    assert math.isnan(two_samples("d", [1.0, 1.0], [0.0, 0.0], "nats").high)
    with pytest.raises(DataError, match="groups of 0 and 1; expected at least one unit in each"):
        two_samples("d", [], [1.0], "nats")


def measured(low: float, high: float) -> Measurement:
    return Measurement("m", (low + high) / 2, low, high, 5, 5, 0, "cosine")


@pytest.mark.parametrize(
    ("low", "high", "above", "margin", "outcome"),
    [
        (0.1, 0.3, 0.0, 0.05, "reproduced"),
        (-0.1, 0.04, 0.0, 0.05, "contradicted"),
        (-0.3, -0.1, 0.0, 0.0, "contradicted"),
        (-0.1, 0.06, 0.0, 0.05, "inconclusive at this power"),
        (0.4, 0.6, 0.5, 0.0, "inconclusive at this power"),
        (0.2, 0.4, 0.5, 0.0, "contradicted"),
        (float("nan"), float("nan"), 0.0, 0.05, "inconclusive at this power"),
    ],
)
def test_verdicts_follow_the_rule(
    low: float, high: float, above: float, margin: float, outcome: str
) -> None:
    assert judged("c", measured(low, high), "m", above, margin).outcome == outcome


def test_one_unit_has_no_interval() -> None:
    assert math.isnan(over("x", [1.0], "cosine").low)
    assert over("x", [1.0, 2.0], "cosine").n_clusters == 2
