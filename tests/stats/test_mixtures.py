"""The supremum over mixtures is one, and predictions of rows are probabilities."""

import numpy as np
import pytest

from traitscope.stats import mixtures


def log_p(seed: int, writers: int = 4, rows: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).normal(-30, 2, (writers, rows))


@pytest.mark.parametrize("seed", range(5))
def test_no_mixture_exceeds_the_bound_and_the_shares_come_near_it(seed: int) -> None:
    log_p_KR = log_p(seed)
    best = mixtures.supremum(log_p_KR)
    for shares_K in np.random.default_rng(seed).dirichlet(np.full(4, 0.5), 2000):
        value = np.log(shares_K @ np.exp(log_p_KR + 30)).sum() - 30 * 60
        assert value <= best.bound
    reached = np.log(best.shares_K @ np.exp(log_p_KR + 30)).sum() - 30 * 60
    assert best.bound - reached == pytest.approx(best.gap, abs=1e-9)
    assert best.gap <= mixtures.GAP


def by_expectation_maximisation(log_p_KR: np.ndarray) -> float:
    """The log-likelihood that 20,000 rounds of the plainest method reach: never above the
    supremum."""
    p_KR = np.exp(log_p_KR - log_p_KR.max(0))
    shares_K = np.full(len(p_KR), 1 / len(p_KR))
    for _ in range(20_000):
        shares_K = shares_K * (p_KR / (shares_K @ p_KR)).mean(1)
    return float((np.log(shares_K @ p_KR) + log_p_KR.max(0)).sum())


@pytest.mark.parametrize(("writers", "rows"), [(2, 5), (40, 30), (60, 200), (12, 1)])
def test_the_supremum_is_that_of_expectation_maximisation(writers: int, rows: int) -> None:
    """Writers are alike, as one model is at many temperatures, and one cannot write every row."""
    rng = np.random.default_rng(writers)
    temperatures_K1 = np.linspace(0.5, 2, writers)[:, None]
    log_p_KR = temperatures_K1 * rng.normal(-20, 3, rows) + rng.normal(0, 0.3, (writers, rows))
    log_p_KR[0, ::2] = -np.inf
    best = mixtures.supremum(log_p_KR)
    assert best.gap <= mixtures.GAP and best.shares_K.sum() == pytest.approx(1.0)
    assert 0 <= best.bound - by_expectation_maximisation(log_p_KR) <= mixtures.GAP + 1e-3


def test_the_shares_of_two_writers_who_exclude_each_other_are_their_rows() -> None:
    log_p_KR = np.full((2, 40), -np.inf)
    log_p_KR[0, :30], log_p_KR[1, 30:] = -5.0, -7.0
    best = mixtures.supremum(log_p_KR)
    np.testing.assert_allclose(best.shares_K, [0.75, 0.25], atol=1e-3)


def test_a_row_without_a_writer_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 rows have no writer"):
        mixtures.supremum(np.array([[0.0, -np.inf], [0.0, -np.inf]]))


def test_one_writer_is_its_own_supremum_and_prediction() -> None:
    log_p_KR = log_p(9, writers=1)
    assert mixtures.supremum(log_p_KR).bound == pytest.approx(log_p_KR.sum())
    predicted_R, weights_K = mixtures.predictions(log_p_KR, np.ones(1))
    np.testing.assert_allclose(predicted_R, log_p_KR[0])
    assert weights_K.tolist() == [1.0]


def test_predictions_of_all_rows_sum_to_one() -> None:
    """Three rows of two symbols under two writers: all eight data sets have probability 1."""
    p_KX = np.array([[0.9, 0.1], [0.2, 0.8]])
    total = 0.0
    for data in np.ndindex(2, 2, 2):
        predicted_R, _ = mixtures.predictions(np.log(p_KX[:, data]), np.array([0.7, 0.3]))
        total += np.exp(predicted_R.sum())
    assert total == pytest.approx(1.0)


def test_predictions_do_not_see_later_rows_and_learn_from_earlier_ones() -> None:
    log_p_KR = log_p(3)
    changed = log_p_KR.copy()
    changed[:, 20:] = 0.0
    prior_K = np.ones(4)
    before, _ = mixtures.predictions(log_p_KR, prior_K)
    after, _ = mixtures.predictions(changed, prior_K)
    np.testing.assert_array_equal(before[:20], after[:20])
    one_writes_all = np.full((2, 50), -3.0)
    one_writes_all[1] = -6.0
    predicted_R, weights_K = mixtures.predictions(one_writes_all, np.array([0.1, 0.9]))
    assert weights_K[0] > 0.9 and predicted_R[-1] > -3.2 and predicted_R[0] < -4.5


def test_an_e_value_over_mixtures_of_nulls_is_at_most_one_on_average() -> None:
    """Rows of ten symbols, each by one of three writers at random; the alternative is a fourth. The
    mean over 2,000 data sets stays below 1, and the alternative's own rows are found."""
    rng = np.random.default_rng(1)
    p_KX = rng.dirichlet(np.full(10, 2.0), 4)

    def e_value(data: np.ndarray) -> float:
        log_p_KR = np.log(p_KX[:, data])
        learnt_R, _ = mixtures.predictions(log_p_KR, np.array([0.2, 0.2, 0.2, 0.4]))
        return float(np.exp(learnt_R.sum() - mixtures.supremum(log_p_KR[:3]).bound))

    values = []
    for _ in range(2000):
        shares = rng.dirichlet(np.ones(3))
        writer_R = rng.choice(3, size=40, p=shares)
        data = np.array([rng.choice(10, p=p_KX[k]) for k in writer_R])
        values.append(e_value(data))
    assert np.mean(values) < 1
    assert np.mean(np.array(values) >= 20) <= 0.05
    assert e_value(rng.choice(10, size=200, p=p_KX[3])) > 1000


def share_of(others_KR: np.ndarray, author_JR: np.ndarray) -> mixtures.Share:
    both_XR = np.concatenate([others_KR, author_JR])
    predicted_R, _ = mixtures.predictions(both_XR, np.ones(len(both_XR)))
    return mixtures.share_of(others_KR, author_JR, float(predicted_R.sum()))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_share_of_an_author_lies_in_its_interval(share: float, seed: int) -> None:
    """Rows are numbers; others write around 0, the author around 3."""
    rng = np.random.default_rng(seed)
    rows_R = rng.normal(0, 1, 300)
    rows_R[: round(300 * share)] += 3
    rows_R = rng.permutation(rows_R)
    others_KR = -0.5 * (rows_R - np.array([[-0.2], [0.0], [0.2]])) ** 2
    author_JR = -0.5 * (rows_R - np.array([[2.8], [3.0], [3.2]])) ** 2
    shown = share_of(others_KR, author_JR)
    assert shown.low <= share <= shown.high
    assert shown.high - shown.low < 0.25 and abs(shown.estimate - share) < 0.06
    assert shown.weights_J.sum() == pytest.approx(1)


def two_writers(seed: int, rows: int, written: int) -> mixtures.Share:
    """Rows of two writers who are never taken for each other, some of them by the author."""
    rng = np.random.default_rng(seed)
    rows_R = rng.normal(0, 1, rows)
    rows_R[:written] += 8
    rows_R = rng.permutation(rows_R)
    return share_of(-0.5 * rows_R[None] ** 2, -0.5 * (rows_R[None] - 8) ** 2)


@pytest.mark.parametrize("rows", [5000, 20_000])
@pytest.mark.parametrize("seed", range(5))
def test_a_share_between_two_of_the_grid_lies_in_its_interval(rows: int, seed: int) -> None:
    """The rows of the second size exclude every share of the grid."""
    written = np.random.default_rng(100 + seed).binomial(rows, 0.03)
    shown = two_writers(seed, rows, written)
    assert shown.low < 0.03 < shown.high and shown.low < shown.estimate < shown.high
    assert shown.high - shown.low < 10 * np.sqrt(0.03 * 0.97 / rows)


@pytest.mark.parametrize(("rows", "written"), [(300, 9), (5000, 150)])
def test_the_interval_is_that_of_the_binomial_likelihood_rounded_outwards(
    rows: int, written: int
) -> None:
    """Who wrote a row is known here, so the likelihood of a share is written out. The inner bounds
    lie inside of the interval, the next steps of its search outside."""
    shown = two_writers(0, rows, written)
    fine = np.linspace(0, 1, 200_001)[1:-1]
    likelihood = written * np.log(fine) + (rows - written) * np.log1p(-fine)
    prediction, counts = 0.0, [1.0, 1.0]
    order = np.random.default_rng(0)
    order.normal(0, 1, rows)
    for by_author in order.permutation(np.arange(rows) < written).astype(int):
        prediction += np.log(counts[by_author] / sum(counts))
        counts[by_author] += 1
    kept = fine[prediction - likelihood - mixtures.UNFINISHED < np.log(1 / mixtures.ERROR)]
    step = 0.02 / 2**mixtures.HALVINGS
    assert kept[0] - 1.1 * step < shown.low < kept[0]
    assert kept[-1] < shown.high < kept[-1] + 1.1 * step


@pytest.mark.parametrize("seed", range(3))
def test_an_author_who_writes_as_others_do_has_any_share(seed: int) -> None:
    log_p_KR = log_p(seed)
    shown = share_of(log_p_KR, log_p_KR)
    assert (shown.estimate, shown.low, shown.high) == (0, 0, 1)


def test_a_row_that_nobody_else_can_write_is_the_authors() -> None:
    others_KR = np.full((2, 10), -3.0)
    others_KR[:, :4] = -np.inf
    shown = share_of(others_KR, np.full((1, 10), -6.0))
    assert shown.low > 0 and shown.low <= 0.4 <= shown.high
