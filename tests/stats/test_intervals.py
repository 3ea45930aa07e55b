"""Intervals against scipy, against brute force, and against their own promise: coverage measured by
simulation."""

import math

import numpy as np
import pytest
import scipy.stats as scipy_stats
from statistics_checks import assert_covers, crossed, random_effects

from traitscope.errors import ConfigError, DataError
from traitscope.stats.intervals import (
    cluster_bootstrap_means,
    crossed_interval_t,
    jackknife_interval_t,
    mean_interval_t,
    percentile_interval,
    wilson,
)


def cluster_bootstrap(values, clusters, draws=2000, seed=0):
    return percentile_interval(cluster_bootstrap_means(values, clusters, draws, seed))


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 50), (1, 50), (17, 40), (50, 50), (3, 1000)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(k, n, level):
    expected = scipy_stats.binomtest(k, n).proportion_ci(level, "wilson")
    assert wilson(k, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_trials_knows_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_t_interval_is_scipys(n, level):
    x = np.random.default_rng(n).normal(2, 3, n)
    expected = scipy_stats.t.interval(level, n - 1, x.mean(), x.std(ddof=1) / math.sqrt(n))
    assert mean_interval_t(x, level) == pytest.approx((x.mean(), *expected), rel=1e-9)


@pytest.mark.parametrize("values", [[0.3], [0.1, 0.1, 0.1], [0.0, 0.0]])
def test_no_spread_gives_no_bounds(values):
    estimate, low, high = mean_interval_t(values)
    assert estimate == pytest.approx(values[0]) and math.isnan(low) and math.isnan(high)
    assert all(map(math.isnan, cluster_bootstrap(values, [range(len(values))])))


def test_one_factor_bootstrap_is_scipys_percentile_bootstrap():
    x = np.random.default_rng(0).exponential(size=60)
    expected = scipy_stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    found = cluster_bootstrap(x, [range(60)], draws=20_000)
    assert found == pytest.approx((expected.low, expected.high), abs=0.012)


def test_crossed_bootstrap_is_the_row_by_row_definition():
    rng, (seeds, questions) = np.random.default_rng(3), crossed(6, 8)
    x = random_effects(rng, 6, 8, 1, 1, 0.5).ravel()
    keep = rng.random(48) < 0.7  # unbalanced
    x, seeds, questions = x[keep], np.array(seeds)[keep], np.array(questions)[keep]
    means = []
    for _ in range(6000):
        weight_a = np.bincount(rng.integers(0, 6, 6), minlength=6)
        weight_b = np.bincount(rng.integers(0, 8, 8), minlength=8)
        weight = weight_a[seeds] * weight_b[questions]
        means.append((weight * x).sum() / weight.sum())
    found = cluster_bootstrap(x, [seeds, questions], draws=20_000)
    assert found == pytest.approx(
        tuple(np.quantile(means, [0.025, 0.975])), abs=0.15 * np.std(means)
    )


def test_bootstrap_repeats_with_its_seed_in_any_row_order():
    rng, (seeds, questions) = np.random.default_rng(5), crossed(4, 12)
    x, order = rng.normal(size=48), rng.permutation(48)
    seeds, questions = np.array(seeds), np.array([f"q{q}" for q in questions])
    found = cluster_bootstrap(x, [seeds, questions], seed=7)
    assert cluster_bootstrap(x, [seeds, questions], seed=7) == found
    assert cluster_bootstrap(x[order], [seeds[order], questions[order]], seed=7) == pytest.approx(
        found, rel=1e-12
    )
    assert cluster_bootstrap(x, [seeds, questions], seed=8) != found


def test_clusters_widen_the_interval():
    x = np.repeat(np.random.default_rng(2).normal(size=20), 10)  # ten copies of each of 20 answers
    low, high = cluster_bootstrap(x, [np.repeat(range(20), 10)])
    naive_low, naive_high = cluster_bootstrap(x, [range(200)])
    assert 2.5 < (high - low) / (naive_high - naive_low) < 4  # sqrt(10) in theory


def test_a_draw_that_hits_no_row_is_left_out():
    # rows only where seed equals question: most draws of three levels a factor miss some, many miss
    # all
    low, high = cluster_bootstrap([5.0, 6.0, 7.0], [[0, 1, 2], [0, 1, 2]])
    assert (low, high) == (5.0, 7.0)


def test_one_draw_has_no_bounds():
    assert all(map(math.isnan, cluster_bootstrap([1.0, 2.0, 4.0], [range(3)], draws=1)))


def test_chunks_do_not_lose_draws(monkeypatch):
    x = np.random.default_rng(1).normal(size=50)
    whole = cluster_bootstrap(x, [range(50)])
    monkeypatch.setattr("traitscope.stats.intervals.CHUNK", 51 * 300)
    assert cluster_bootstrap(x, [range(50)]) == pytest.approx(whole, abs=0.05)


def test_crossed_bootstrap_covers_with_many_clusters_and_not_with_three_seeds():
    rng, repeats = np.random.default_rng(12), 500

    def coverage(n_seeds: int, n_questions: int) -> int:
        hits, labels = 0, crossed(n_seeds, n_questions)
        for i in range(repeats):
            x = random_effects(rng, n_seeds, n_questions, 0.3, 0.3, 0.5).ravel()
            low, high = cluster_bootstrap(x, labels, draws=400, seed=i)
            hits += low <= 0 <= high
        return hits

    assert_covers(coverage(40, 40), repeats, slack=0.015)
    assert coverage(3, 40) / repeats < 0.88  # what "too narrow" in the interval text warns of


def test_a_jackknife_of_the_mean_is_students_interval():
    """With one row a group; groups of several rows agree with the formula of equal groups."""
    x = np.random.default_rng(2).normal(3, 1, 24)
    without = (x.sum() - x[:, None]) / 23
    low, high = jackknife_interval_t(np.array([x.mean()]), without, np.ones(24, int))
    assert (low[0], high[0]) == pytest.approx(mean_interval_t(x)[1:])
    by_six = x.reshape(6, 4)
    without = (x.sum() - by_six.sum(1)[:, None]) / 20
    low, high = jackknife_interval_t(np.array([x.mean()]), without, np.full(6, 4))
    assert (low[0], high[0]) == pytest.approx(mean_interval_t(by_six.mean(1))[1:])


def test_a_jackknife_of_a_ratio_covers_with_unequal_groups():
    rng, repeats, hits = np.random.default_rng(6), 600, 0
    groups = np.arange(70) % 32
    for _ in range(repeats):
        top, bottom = rng.normal(2, 1, 70), rng.normal(4, 1, 70)
        tops, bottoms = (np.bincount(groups, side) for side in (top, bottom))
        without = (top.sum() - tops) / (bottom.sum() - bottoms)
        estimate = np.array([top.sum() / bottom.sum()])
        low, high = jackknife_interval_t(estimate, without[:, None], np.bincount(groups))
        hits += low[0] <= 0.5 <= high[0]
    assert_covers(hits, repeats)
    assert np.isnan(jackknife_interval_t(estimate, without[:1, None], np.array([70]))).all()


MIXES = [(0.05, 0.3, 0.3), (0.3, 0.05, 0.3), (0.0, 0.0, 0.3), (0.1, 0.3, 1.0)]
"standard deviations between seeds, between questions, and of what is left over"


@pytest.mark.parametrize("sds", MIXES, ids=str)
@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_crossed_t_covers_new_questions_as_stated(n_seeds, sds):
    """0.94 to 0.99, as its docstring says: and never narrower than the interval over seeds."""
    rng, repeats, hits, labels = np.random.default_rng(n_seeds), 500, 0, crossed(n_seeds, 50)
    for _ in range(repeats):
        x = random_effects(rng, n_seeds, 50, *sds)
        mean, low, high = crossed_interval_t(x.ravel(), *labels)
        hits += low <= 0 <= high
        over_seeds = mean_interval_t(x.mean(1))
        assert mean == pytest.approx(over_seeds[0])
        assert low <= over_seeds[1] + 1e-12 and high >= over_seeds[2] - 1e-12
    assert_covers(hits, repeats, 0.965, slack=0.025)


def test_crossed_t_is_the_variance_components_of_a_table():
    """Against the mean squares of a two-way table, written out; a shift moves it, order does
    not."""
    rng, (seeds, questions) = np.random.default_rng(8), crossed(6, 15)
    x = random_effects(rng, 6, 15, 0.1, 0.4, 0.2)
    by_seed, by_question = x.mean(1), x.mean(0)
    rest = x - by_seed[:, None] - by_question + x.mean()
    parts = by_seed.var(ddof=1) / 6, by_question.var(ddof=1) / 15
    variance = sum(parts) - (rest**2).sum() / (5 * 14) / 90
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[1] ** 2 / 14)
    half = scipy_stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    expected = x.mean(), x.mean() - half, x.mean() + half
    assert crossed_interval_t(x.ravel(), seeds, questions) == pytest.approx(expected)
    order = rng.permutation(90)
    shuffled = [np.array(labels)[order] for labels in (seeds, questions)]
    moved = crossed_interval_t(x.ravel()[order] + 3, *shuffled)
    assert moved == pytest.approx(tuple(3 + v for v in expected))


def test_crossed_t_with_missing_pairs_still_covers():
    rng, repeats, hits, labels = np.random.default_rng(4), 500, 0, crossed(5, 40)
    seeds, questions = map(np.array, labels)
    for _ in range(repeats):
        keep = rng.random(200) < 0.8
        x = random_effects(rng, 5, 40, 0.1, 0.3, 0.3).ravel()[keep]
        _, low, high = crossed_interval_t(x, seeds[keep], questions[keep])
        hits += low <= 0 <= high
    assert_covers(hits, repeats, 0.965, slack=0.025)


def test_crossed_t_without_a_second_level_or_spread_has_no_bounds():
    for x, seeds, questions in (
        ([0.1, 0.4], [1, 1], [1, 2]),
        ([0.1, 0.4], [1, 2], [1, 1]),
        ([0.2] * 4, [1, 1, 2, 2], [1, 2, 1, 2]),
    ):
        mean, low, high = crossed_interval_t(x, seeds, questions)
        assert math.isfinite(mean) and math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize(("p", "n"), [(0.5, 50), (0.1, 100), (0.02, 200)])
def test_wilson_covers(p, n):
    inside = [low <= p <= high for low, high in (wilson(k, n) for k in range(n + 1))]
    exact = float(scipy_stats.binom.pmf(range(n + 1), n, p) @ inside)
    assert 0.93 < exact < 0.98


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: wilson(5, 4), DataError, "5 successes in 4 trials"),
        (lambda: wilson(-1, 4), DataError, "-1 successes"),
        (lambda: wilson(1, 4, level=95), ConfigError, "level is 95"),
        (lambda: mean_interval_t([]), DataError, "0 NaN in 0 values"),
        (lambda: mean_interval_t([1.0, math.nan]), DataError, "1 NaN in 2 values"),
        (lambda: mean_interval_t([1.0, 2.0], level=1.0), ConfigError, "level is 1.0"),
        (lambda: cluster_bootstrap([1.0, 2.0], [["a"]]), DataError, "1 labels for 2 values"),
        (lambda: cluster_bootstrap([1.0, 2.0], []), ConfigError, "0 factors"),
        (lambda: cluster_bootstrap([1.0, 2.0], [[0, 1]], draws=0), ConfigError, "0 draws"),
    ],
)
def test_bad_input_says_what_was_found(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "expected" in str(caught.value)
