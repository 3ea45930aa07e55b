"""Canary students: a rise over seeds, or over questions of one pair."""

import numpy as np
import pytest

from traitscope.auditing.detectors.canary import rise_of_traits


def test_canaries_rise_over_seeds_or_over_questions() -> None:
    rng = np.random.default_rng(8)
    keys = [f"q{n}" for n in range(20)]

    def pair(rise: float) -> tuple[dict, dict]:
        other = {key: rng.normal(-5, 1) for key in keys}
        return {
            key: value + rise + 0.1 * rng.standard_normal() for key, value in other.items()
        }, other

    many = rise_of_traits(
        {"a": [pair(0.5), pair(0.6), pair(0.4)], "b": [pair(0.01), pair(-0.02), pair(0.0)]}
    )
    assert (
        list(many.statistic) == ["a", "b"]
        and many.statistic["a"] == pytest.approx(0.5, abs=0.1)
        and many.p["a"] < 0.02 < many.p["b"]
    )
    one = rise_of_traits({"a": [pair(-0.3)], "b": [pair(0.3)]})
    assert one.p["b"] < 0.001 and one.p["a"] > 0.99 and one.where["b"] == "1 pairs of students"
