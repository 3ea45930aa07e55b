"""Rank correlation and discrimination against scipy; their errors under no association, and under a
perfect one."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from traitscope.errors import DataError
from traitscope.stats.correlation import association, auc_above, auroc, permutation_p, spearman


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


def test_auroc_is_the_scaled_mann_whitney_u():
    rng = np.random.default_rng(2)
    scores, labels = rng.integers(0, 8, 60).astype(float), rng.random(60) < 0.4  # integers: ties
    u = scipy_stats.mannwhitneyu(scores[labels], scores[~labels]).statistic
    assert auroc(scores, labels) == pytest.approx(u / labels.sum() / (~labels).sum())
    assert auroc([1, 2, 3, 4], [0, 0, 1, 1]) == 1.0 and auroc([1, 1], [0, 1]) == 0.5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: auroc([1.0, 2.0], [1, 1]), DataError, r"values \[1.0\]"),
        (lambda: auroc([1.0, 2.0], [0, 1, 1]), DataError, "2 scores, 3 labels"),
    ],
)
def test_bad_input_of_auroc_says_what_was_found(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "expected" in str(caught.value)
