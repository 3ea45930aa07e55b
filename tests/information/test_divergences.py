"""Divergences against their definition, over every row that there is; intervals that cover."""

from itertools import product

import numpy as np
import pytest

from traitscope.information import divergences
from traitscope.information.divergences import Readings, mean_over_rows, two_level_mean

TEACHERS, PLACES, TOKENS = 4, 3, 3


@pytest.fixture
def every_row() -> Readings:
    """What four random models say of every row of three tokens; each depends on all before it."""
    rng = np.random.default_rng(0)
    tables = {}
    rows = list(product(range(TOKENS), repeat=PLACES))
    for place in range(PLACES):
        for beginning in product(range(TOKENS), repeat=place):
            logits_KC = 1.5 * rng.standard_normal((TEACHERS, TOKENS))
            tables[beginning] = logits_KC - np.logaddexp.reduce(logits_KC, axis=1)[:, None]
    log_p_KRPC = np.empty((TEACHERS, len(rows), PLACES, TOKENS))
    for number, row in enumerate(rows):
        for place in range(PLACES):
            log_p_KRPC[:, number, place] = tables[row[:place]]
    return Readings(log_p_KRPC, np.array(rows), np.array([0.1, 0.2, 0.3, 0.4]))


@pytest.fixture
def log_KR(every_row: Readings) -> np.ndarray:
    """Log-likelihood of every row under every model."""
    return every_row.beginnings()[:, :, -1]


def test_every_pair_is_unbiased(every_row: Readings, log_KR: np.ndarray) -> None:
    """The expectation over rows of the mixture is the divergence of whole rows."""
    q_R = every_row.share_K @ np.exp(log_KR)
    assert q_R.sum() == pytest.approx(1)
    expected_KK = np.empty((TEACHERS, TEACHERS))
    for a in range(TEACHERS):
        expected_KK[a] = np.exp(log_KR[a]) @ (log_KR[a] - log_KR).T
    assert divergences.pairs(every_row) @ q_R == pytest.approx(expected_KK, abs=1e-12)


def test_a_mixture_is_unbiased(every_row: Readings, log_KR: np.ndarray) -> None:
    """Against a model that is one of the others, drawn once a row."""
    q_R = every_row.share_K @ np.exp(log_KR)
    log_m_R = np.log(np.exp(log_KR[1:]).mean(0))
    expected = np.exp(log_KR[0]) @ (log_KR[0] - log_m_R)
    found_R = divergences.against_mixture(every_row, 0, [1, 2, 3])
    assert found_R @ q_R == pytest.approx(expected, abs=1e-12)
    alone_R = divergences.against_mixture(every_row, 0, [2])
    assert alone_R == pytest.approx(divergences.pairs(every_row)[0, 2], abs=1e-12)


def test_weights_have_mean_one_and_a_bound(every_row: Readings, log_KR: np.ndarray) -> None:
    q_R = every_row.share_K @ np.exp(log_KR)
    weights_KRP = every_row.weights()
    assert np.einsum("krp,r->kp", weights_KRP, q_R) == pytest.approx(1)
    assert (weights_KRP.max((1, 2)) <= 1 / every_row.share_K + 1e-12).all()
    assert weights_KRP[:, :, 0] == pytest.approx(1)


def test_equal_teachers_have_weight_one_and_no_divergence(every_row: Readings) -> None:
    log_p_KRPC = np.repeat(every_row.log_p_KRPC[:1], 3, axis=0)
    same = Readings(log_p_KRPC, every_row.chosen_RP, np.full(3, 1 / 3))
    assert same.weights() == pytest.approx(1)
    assert divergences.pairs(same) == pytest.approx(0, abs=1e-12)
    assert divergences.against_mixture(same, 0, [1, 2]) == pytest.approx(0, abs=1e-12)
    assert divergences.effective_rows(same) == pytest.approx(len(every_row.chosen_RP))


def test_fewer_effective_rows_for_a_teacher_that_wrote_few(every_row: Readings) -> None:
    effective_K = divergences.effective_rows(every_row)
    assert (effective_K < len(every_row.chosen_RP)).all() and (effective_K >= 1).all()


def test_first_rows(every_row: Readings) -> None:
    first = every_row.first(5)
    assert divergences.pairs(first) == pytest.approx(divergences.pairs(every_row)[:, :, :5])


def test_a_rounding_that_is_the_same_in_every_row_goes() -> None:
    value_R = np.random.default_rng(1).exponential(size=64)
    plain = mean_over_rows("d", value_R)
    corrected = two_level_mean("d", value_R + 0.3, value_R[:8])
    assert corrected.estimate == pytest.approx(plain.estimate)
    error = value_R.std(ddof=1) / 8
    assert plain.high - plain.estimate == pytest.approx(1.998 * error, rel=1e-3)
    assert "8 of them in float32" in corrected.interval


def test_rows_of_no_spread_have_no_interval() -> None:
    assert np.isnan(mean_over_rows("d", np.zeros(5)).low)


@pytest.mark.parametrize("n_exact", [None, 16])
def test_intervals_cover(n_exact: int | None) -> None:
    """Planted: the mean in high precision is 1; low precision adds 0.5 with some noise."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(2000):
        exact_R = 1 + 0.5 * rng.standard_normal(64)
        if n_exact is None:
            found = mean_over_rows("d", exact_R)
        else:
            coarse_R = exact_R + 0.5 + 0.3 * rng.standard_normal(64)
            found = two_level_mean("d", coarse_R, exact_R[:n_exact])
        covered += found.low <= 1 <= found.high
    assert 0.93 < covered / 2000 < 0.975
