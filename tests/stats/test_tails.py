"""p values belong to the interval that they stand beside."""

import math

import numpy as np
import pytest
import scipy.stats as scipy_stats

from traitscope.stats.correlation import association, spearman
from traitscope.stats.estimates import (
    mean_over_units,
    measure,
    ratio,
    two_samples,
)
from traitscope.stats.measurement import Measurement
from traitscope.stats.tails import IntervalTail, StudentTail

STREAM = np.random.default_rng(5)
LEFT, RIGHT = STREAM.normal(0.4, 1, 9).tolist(), STREAM.normal(0, 2, 5).tolist()
COUNTED = [1.0] * 13 + [0.0] * 4
MEASURED = {
    "t": mean_over_units("t", LEFT, "nats"),
    "Welch": two_samples("w", LEFT, RIGHT, "nats"),
    "Wilson": measure("p", COUNTED, unit="rate"),
    "bootstrap": measure("b", LEFT, unit="nats", method="bootstrap"),
    "ratio": ratio("r", np.add(LEFT, 4).tolist(), np.add(LEFT, 6).tolist()),
    "association": association("s", LEFT, LEFT[::-1], spearman, "rho"),
}


@pytest.mark.parametrize("method", MEASURED)
def test_the_interval_holds_the_values_that_the_test_does_not_reject(method: str) -> None:
    """p is 2.5 % at the bounds; a bootstrap has steps, and a percentile lies between two draws."""
    found = MEASURED[method]
    tolerance = 2e-3 if method in ("bootstrap", "ratio", "association") else 1e-9
    assert found.p_values.p_above(found.low) == pytest.approx(0.025, abs=tolerance)
    assert found.p_values.p_below(found.high) == pytest.approx(0.025, abs=tolerance)


@pytest.mark.parametrize("method", MEASURED)
def test_p_grows_with_the_value_it_is_asked_of(method: str) -> None:
    tail, found = MEASURED[method].p_values, MEASURED[method]
    values = np.linspace(found.low, found.high, 9)
    above = [tail.p_above(value) for value in values]
    below = [tail.p_below(value) for value in values]
    assert above == sorted(above) and below == sorted(below, reverse=True)


def test_student_and_welch_are_scipy() -> None:
    one = scipy_stats.ttest_1samp(LEFT, 0.1, alternative="greater").pvalue
    assert MEASURED["t"].p_values.p_above(0.1) == pytest.approx(one)
    two = scipy_stats.ttest_ind(LEFT, RIGHT, equal_var=False, alternative="less").pvalue
    assert MEASURED["Welch"].p_values.p_below(0.0) == pytest.approx(two)


def test_counts_are_the_score_test() -> None:
    score = (13 / 17 - 0.5) / math.sqrt(0.25 / 17)
    assert MEASURED["Wilson"].p_values.p_above(0.5) == pytest.approx(scipy_stats.norm.sf(score))


def test_the_test_of_equivalence_is_two_one_sided_t_tests() -> None:
    tail = MEASURED["t"].p_values
    above = scipy_stats.ttest_1samp(LEFT, -1.5, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(LEFT, 1.5, alternative="less").pvalue
    assert (tail.p_above(-1.5), tail.p_below(1.5)) == (pytest.approx(above), pytest.approx(below))


def test_an_interval_alone_claims_no_more_than_it_shows() -> None:
    known = Measurement("m", 1.0, 0.2, 1.8, 5, 5, 0, "nats")
    assert isinstance(known.p_values, IntervalTail)
    assert (known.p_values.p_above(0.1), known.p_values.p_above(0.3)) == (pytest.approx(0.025), 1)
    assert (known.p_values.p_below(1.9), known.p_values.p_below(0.0)) == (pytest.approx(0.025), 1)


def test_an_unbalanced_comparison_counts_its_smaller_group() -> None:
    assert (MEASURED["Welch"].n, MEASURED["Welch"].n_clusters) == (14, 5)


def test_without_spread_there_is_no_law() -> None:
    assert mean_over_units("t", [1.0, 1.0, 1.0], "nats").tail is None
    assert two_samples("w", [1.0, 1.0], [0.0, 0.0], "nats").tail is None
    assert isinstance(mean_over_units("t", [1.0, 1.1], "nats").tail, StudentTail)
