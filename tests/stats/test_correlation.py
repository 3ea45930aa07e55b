"""Rank correlation and discrimination against scipy; their errors under no association, and under a
perfect one."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statistics_checks import assert_covers

from traitscope.errors import DataError
from traitscope.stats.correlation import (
    association,
    auc_above,
    permutation_p,
    reliability,
    spearman,
    standard_errors,
)
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement


@pytest.mark.parametrize("seed", range(3))
def test_spearman_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal(12), rng.integers(0, 4, 12)
    assert spearman(x, y) == pytest.approx(scipy_stats.spearmanr(x, y).statistic)


def test_no_spread_has_no_correlation() -> None:
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(permutation_p([1, 1, 1], [1, 2, 3], spearman))


def test_p_is_exact_where_all_orders_are_equally_likely() -> None:
    assert permutation_p([1, 2, 3], [1, 2, 3], spearman, draws=4000) == pytest.approx(
        1 / 6, abs=0.03
    )
    assert permutation_p([1, 2, 3], [3, 2, 1], spearman) == 1


def test_p_is_uniform_under_no_association() -> None:
    rng = np.random.default_rng(0)
    found = [permutation_p(*rng.standard_normal((2, 10)), spearman, draws=99) for _ in range(300)]
    assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.06)


def test_interval_covers_the_truth() -> None:
    """Bivariate normal with r = 0.6: Spearman's is 6/pi asin(r/2)."""
    rng, truth, hits = np.random.default_rng(1), 6 / math.pi * math.asin(0.3), 0
    for _ in range(150):
        x, e = rng.standard_normal((2, 30))
        m = association("r", x, 0.6 * x + 0.8 * e, spearman, "", draws=300)
        hits += m.low <= truth <= m.high
    assert hits / 150 > 0.86


def test_auc_at_a_threshold() -> None:
    x, y = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.0, 1.0, 1.0])
    assert auc_above(0.5)(x, y) == 0.75
    assert math.isnan(auc_above(5)(x, y))
    perfect = association("auc", range(10), range(10), auc_above(4.5), "AUC")
    assert perfect.estimate == perfect.low == perfect.high == 1


@pytest.mark.parametrize(
    ("x", "y"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, math.nan], [1, 2, 3])]
)
def test_bad_input(x: list[float], y: list[float]) -> None:
    with pytest.raises(DataError, match="three or more"):
        association("r", x, y, spearman, "")


def blurred(rng: np.random.Generator, values: np.ndarray, trust: float) -> tuple:
    """Values of variance 1 measured with a reliability, and their standard errors."""
    error = math.sqrt(1 / trust - 1)
    return values + error * rng.standard_normal(len(values)), np.full(len(values), error)


@pytest.mark.parametrize("trust", [(0.9, 0.9), (0.5, 0.7)])
@pytest.mark.parametrize("truth", [0.0, 0.5, 0.78])
def test_a_corrected_correlation_covers_the_true_one(truth: float, trust: tuple) -> None:
    """31 units whose values have errors of known size, as traits with few questions have. What is
    undefined excludes nothing."""
    rng, repeats, hits, plain_hits = np.random.default_rng(7), 200, 0, 0
    r = 2 * math.sin(math.pi * truth / 6)
    for _ in range(repeats):
        x, e = rng.standard_normal((2, 31))
        seen_x, x_errors = blurred(rng, x, trust[0])
        seen_y, y_errors = blurred(rng, r * x + math.sqrt(1 - r * r) * e, trust[1])
        asked = ("r", seen_x, seen_y, spearman, "")
        m = association(*asked, draws=300, errors=(x_errors, y_errors))
        plain = association(*asked, draws=300)
        hits += not (m.low > truth or m.high < truth)
        plain_hits += plain.low <= truth <= plain.high
    assert_covers(hits, repeats, 0.96, slack=0.02)
    if truth == 0.78 and trust == (0.5, 0.7):
        assert plain_hits / repeats < 0.5, "what the correction is for"


def test_reliability_is_the_share_of_variance_that_is_no_error() -> None:
    rng = np.random.default_rng(3)
    seen, errors = blurred(rng, rng.standard_normal(4000), 0.6)
    assert reliability(seen, errors) == pytest.approx(0.6, abs=0.05)
    assert reliability([1.0, 2.0, 3.0], [0, 0, 0]) == 1
    assert reliability([1.0, 2.0, 3.0], [9, 9, 9]) == 0
    assert math.isnan(reliability([1.0, 1.0], [0, 0]))
    assert math.isnan(reliability([1.0, 2.0], [0, math.nan]))
    values = [1.0, 2.0, 4.0]
    by_law = mean_over_units("m", values, "")
    by_bounds = Measurement("m", 0, -1.96, 1.96, 9, 9, 0, "")
    expected = [np.std(values, ddof=1) / math.sqrt(3), 1.0]
    assert standard_errors([by_law, by_bounds]) == pytest.approx(expected, abs=1e-3)


def test_values_that_are_nothing_but_error_have_no_correlation() -> None:
    x = np.arange(8.0)
    m = association("r", x, x, spearman, "", errors=(np.full(8, 3.0), np.zeros(8)))
    assert math.isnan(m.estimate) and "undefined: reliabilities of 0.00 and 1.00" in m.interval
    exact = association("r", x, x, spearman, "", errors=(np.zeros(8), np.zeros(8)))
    assert exact.estimate == exact.high == 1 and "reliabilities of 1.00 and 1.00" in exact.interval
