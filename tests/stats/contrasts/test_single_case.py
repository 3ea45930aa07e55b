"""One unit against a group: the formula, its error rate, and the power that is stated."""

import math

import numpy as np
import pytest
from scipy import stats

from traitscope.errors import DataError
from traitscope.stats.contrasts.single_case import one_against_group
from traitscope.stats.power import detectable, detectable_shift


def test_it_is_the_pooled_t_test_of_one_against_many() -> None:
    """Student's two-sample test with one unit on a side, whose spread is the other side's."""
    group = [0.3, -1.2, 0.8, 0.1, 2.0]
    found = one_against_group("x", 3.0, group, "nats", "controls")
    expected = stats.ttest_ind([3.0], group, equal_var=True)
    assert found.estimate == pytest.approx(3.0 - np.mean(group))
    assert 2 * found.p_values.p_above(0) == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.n, found.n_clusters, found.counted) == (6, 5, "controls")


def test_its_error_rate_is_the_stated_one() -> None:
    """A further unit of the group is called in 5 % of 4,000 draws."""
    rng = np.random.default_rng(0)
    below = 0
    for values in rng.normal(2, 3, (4000, 6)):
        found = one_against_group("x", values[0], values[1:].tolist(), "nats")
        below += found.p_values.p_above(0) <= 0.05
    assert abs(below / 4000 - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 4000)


def test_a_group_without_spread_has_no_interval() -> None:
    for group in ([1.0], [1.0, 1.0, 1.0]):
        found = one_against_group("x", 3.0, group, "nats")
        assert found.estimate == 2.0 and math.isnan(found.low) and found.tail is None
    with pytest.raises(DataError, match="a group of 0"):
        one_against_group("x", 3.0, [], "nats")


def test_the_detectable_shift_is_found_with_the_stated_power() -> None:
    error, freedom = 0.7, 5
    shift = detectable_shift(error, freedom, 0.8, 0.01)
    t = stats.nct.rvs(freedom, shift / error, size=20000, random_state=1)
    assert np.mean(t > stats.t.isf(0.005, freedom)) == pytest.approx(0.8, abs=0.015)
    assert detectable_shift(2 / math.sqrt(9), 8) == pytest.approx(detectable(2.0, 9))
    assert detectable_shift(1.0, 1, 0.8, 1e-9) == math.inf
