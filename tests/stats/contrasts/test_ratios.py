"""The ratio of two means: bounds against the test that they invert, coverage, refusal."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from traitscope.errors import DataError
from traitscope.stats.contrasts.ratios import ratio_of_means

TOP = [0.3, 0.5, 0.2, 0.6, 0.4]
BOTTOM = [1.0, 1.3, 0.8, 1.1, 1.2]


def test_the_bounds_are_where_the_t_test_of_the_rest_has_a_p_of_one_in_twenty() -> None:
    share = ratio_of_means("share", TOP, BOTTOM)
    assert share.estimate == pytest.approx(sum(TOP) / sum(BOTTOM))
    for bound in (share.low, share.high):
        rest = np.array(TOP) - bound * np.array(BOTTOM)
        assert ttest_1samp(rest, 0.0).pvalue == pytest.approx(0.05)


def test_the_tail_is_the_same_test() -> None:
    share = ratio_of_means("share", TOP, BOTTOM)
    assert share.p_values.p_above(share.low) == pytest.approx(0.025)
    assert share.p_values.p_below(share.high) == pytest.approx(0.025)


def test_both_signs_may_turn() -> None:
    turned = ratio_of_means("share", [-value for value in TOP], [-value for value in BOTTOM])
    share = ratio_of_means("share", TOP, BOTTOM)
    assert (turned.low, turned.high) == pytest.approx((share.low, share.high))
    assert turned.p_values.p_above(0.2) == pytest.approx(share.p_values.p_above(0.2))


def test_equal_sides_are_one_without_bounds() -> None:
    share = ratio_of_means("share", BOTTOM, BOTTOM)
    assert share.estimate == 1.0
    assert math.isnan(share.low) and math.isnan(share.high)


def test_a_lower_mean_that_may_be_zero_gives_no_ratio() -> None:
    share = ratio_of_means("share", TOP, [1.0, -0.8, 0.5, 0.2, -0.1])
    assert math.isnan(share.estimate)
    assert "not away from 0" in share.interval


@pytest.mark.parametrize("bottom", [[1.0, 2.0], [1.0, 2.0, math.inf, 1.0, 1.0]])
def test_other_lengths_and_numbers_that_are_not_finite(bottom: list[float]) -> None:
    with pytest.raises(DataError, match="expected"):
        ratio_of_means("share", TOP, bottom)


def test_nineteen_intervals_of_twenty_hold_the_truth() -> None:
    """Correlated units, ten of them, with a lower mean three errors away from zero."""
    rng = np.random.default_rng(5)
    held, defined = 0, 0
    for _ in range(2000):
        common = rng.standard_normal(10)
        bottom = 1.0 + common
        top = 0.4 + 0.6 * common + 0.5 * rng.standard_normal(10)
        share = ratio_of_means("share", top.tolist(), bottom.tolist())
        if math.isnan(share.low):
            continue
        defined += 1
        held += share.low <= 0.4 <= share.high
    assert defined > 1500
    assert 0.93 < held / defined < 0.97
