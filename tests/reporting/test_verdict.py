"""Verdicts follow their rule."""

import pytest

from traitscope.reporting.verdict import judged
from traitscope.stats.measurement import Measurement


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
