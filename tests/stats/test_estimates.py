"""Statistics against scipy, against brute force, and against their own promise: coverage measured
by simulation."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
import scipy.stats as scipy_stats

from traitscope.errors import ConfigError, DataError
from traitscope.stats.estimates import (
    Measurement,
    auroc,
    cluster_bootstrap,
    equivalence,
    holm,
    mean_interval_t,
    measure,
    paired_difference,
    samples_needed,
    seeds_needed,
    sign_flip_p,
    wilson,
)


def crossed(n_seeds: int, n_questions: int) -> tuple[list[int], list[int]]:
    return (
        np.repeat(range(n_seeds), n_questions).tolist(),
        np.tile(range(n_questions), n_seeds).tolist(),
    )


def random_effects(
    rng: np.random.Generator,
    n_seeds: int,
    n_questions: int,
    sd_seed: float,
    sd_question: float,
    sd_row: float,
) -> np.ndarray:
    seeds = rng.normal(0, sd_seed, (n_seeds, 1))
    return (
        seeds
        + rng.normal(0, sd_question, n_questions)
        + rng.normal(0, sd_row, (n_seeds, n_questions))
    )


def assert_covers(hits: int, repeats: int, level: float = 0.95, slack: float = 0.0) -> None:
    """Observed coverage is one that `level` (give or take `slack`) makes likely: 99.9 % of binomial
    outcomes."""
    lowest = scipy_stats.binom.ppf(0.0005, repeats, level - slack)
    highest = scipy_stats.binom.ppf(0.9995, repeats, level + slack)
    assert lowest <= hits <= highest, f"coverage {hits / repeats:.3f}, expected {level}"


# Measurement


def test_measurement_prints_sign_bounds_and_counts():
    found = Measurement("m", 0.21, 0.1, 0.32, 150, 3, 0, "nats")
    assert str(found) == "+0.21 [0.10, 0.32] nats (n=150, clusters=3)"
    assert found.level == 0.95


def test_measurement_shows_unscored_small_widths_and_undefined():
    assert (
        str(Measurement("m", -0.0012, -0.0031, 0.0007, 9, 3, 2, ""))
        == "-0.0012 [-0.0031, 0.0007] (n=9, clusters=3, unscored=2)"
    )
    assert (
        str(Measurement("m", math.nan, math.nan, math.nan, 0, 0, 5, "nats"))
        == "undefined nats (n=0, clusters=0, unscored=5)"
    )
    assert (
        str(Measurement("m", 0.5, math.nan, math.nan, 1, 1, 0, "rate"))
        == "+0.50 [undefined] rate (n=1, clusters=1)"
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.2, True),
        (-0.2, -0.1, True),
        (-0.1, 0.1, False),
        (0.0, 0.1, False),
        (math.nan, math.nan, False),
    ],
)
def test_excludes_zero(low, high, expected):
    assert Measurement("m", 0.0, low, high, 3, 3, 0, "").excludes_zero is expected


def test_measurement_as_dict_is_strict_json():
    found = Measurement(
        "m", math.nan, math.nan, math.nan, 0, 0, 4, "nats", interval="no scored value"
    ).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "name": "m",
        "estimate": None,
        "low": None,
        "high": None,
        "n": 0,
        "n_clusters": 0,
        "n_unscored": 4,
        "unit": "nats",
        "level": 0.95,
        "interval": "no scored value",
    }


# Intervals against scipy


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


# Bootstrap


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
    monkeypatch.setattr("traitscope.stats.estimates.CHUNK", 51 * 300)
    assert cluster_bootstrap(x, [range(50)]) == pytest.approx(whole, abs=0.05)


# measure


def test_measure_drops_and_counts_unscored():
    found = measure("m", [1.0, None, 3.0, math.nan, 5.0], seeds=[0, 0, 1, 1, 2], unit="nats")
    assert (found.estimate, found.n, found.n_clusters, found.n_unscored) == (3.0, 3, 3, 2)
    assert (found.low, found.high) == pytest.approx(mean_interval_t([1.0, 3.0, 5.0])[1:])
    assert found.interval == "t over 3 seeds"


def test_measure_over_seeds_averages_seed_means():
    values, seeds = [0, 0, 0, 0, 1, 3], ["a"] * 4 + ["b", "c"]
    assert measure("m", values, seeds).estimate == pytest.approx(4 / 3)
    assert measure("m", values, seeds, method="bootstrap").estimate == pytest.approx(4 / 6)


def test_measure_names_its_method_and_limits():
    seeds, questions = crossed(3, 5)
    x = np.random.default_rng(0).normal(size=15)
    over_seeds = measure("m", x, seeds, questions)
    assert over_seeds.interval == "t over 3 seeds (holds for these questions, not for new ones)"
    assert (
        measure("m", x, seeds, range(15)).interval == "t over 3 seeds"
    )  # every seed has questions of its own
    both = measure("m", x, seeds, questions, method="bootstrap")
    assert both.interval == "bootstrap over 3 seeds x 5 questions (fewer than 10 seeds: too narrow)"
    assert (both.n_clusters, both.n) == (3, 15)
    one = measure("m", x[:5], seeds[:5], questions[:5])
    assert (
        one.interval == "bootstrap over 5 questions (one seed: between-seed variance not covered)"
    )
    assert measure("m", x).interval == "bootstrap over 15 values"


def test_measure_uses_wilson_only_for_independent_zeros_and_ones():
    rate = measure("m", [0] * 50, unit="rate")
    assert (rate.low, rate.high) == wilson(0, 50) and rate.interval == "wilson over 50 values"
    assert measure("m", [0, 1, 1], questions=["a", "b", "c"]).interval == "wilson over 3 values"
    assert (
        measure("m", [0, 1, 1], questions=["a", "b", "b"]).interval == "bootstrap over 2 questions"
    )
    assert measure("m", [0, 1, 0.5]).interval == "bootstrap over 3 values"


def test_measure_without_a_scored_value_is_undefined():
    found = measure("m", [math.nan] * 3, seeds=[1, 2, 3])
    assert math.isnan(found.estimate) and (found.n, found.n_unscored, found.interval) == (
        0,
        3,
        "no scored value",
    )


# Paired difference


def test_pairing_removes_what_the_arms_share():
    rng, (seeds, questions) = np.random.default_rng(4), crossed(5, 30)
    shared = random_effects(rng, 5, 30, 1, 2, 0)
    control = (shared + rng.normal(0, 0.1, (5, 30))).ravel()
    treated = (shared + 0.3 + rng.normal(0, 0.1, (5, 30))).ravel()
    paired = paired_difference("d", treated, control, seeds, questions, "nats")
    shuffled = rng.permutation(150)
    broken = paired_difference("d", treated, control[shuffled], seeds, questions, "nats")
    assert paired.low < 0.3 < paired.high and paired.excludes_zero
    assert (paired.high - paired.low) < (broken.high - broken.low) / 10


def test_paired_over_seeds_is_a_t_interval_of_seed_means():
    rng, (seeds, questions) = np.random.default_rng(6), crossed(3, 10)
    treated, control = rng.normal(size=(2, 3, 10))
    found = paired_difference("d", treated.ravel(), control.ravel(), seeds, questions)
    expected = mean_interval_t((treated - control).mean(1))
    assert (found.estimate, found.low, found.high) == pytest.approx(expected)
    assert (found.n, found.n_clusters) == (30, 3)


def test_paired_averages_samples_and_needs_both_sides():
    treated, control = [1, 3, None, 9, 5, 7], [0, None, 1, None, 1, 1]
    found = paired_difference(
        "d", treated, control, ["s", "s", "s", "s", "t", "t"], ["a", "a", "b", "c", "a", "b"]
    )
    # (s, a): 2 - 0; (s, b) and (s, c) lack a side; (t, a): 4; (t, b): 6; seed means 2 and 5
    assert (found.estimate, found.n, found.n_clusters, found.n_unscored) == (3.5, 3, 2, 3)


def test_paired_does_not_depend_on_row_order():
    rng, (seeds, questions) = np.random.default_rng(8), crossed(1, 20)
    treated, control, order = rng.normal(size=20), rng.normal(size=20), rng.permutation(20)
    found = paired_difference("d", treated, control, seeds, questions)
    again = paired_difference(
        "d", treated[order], control[order], seeds, np.array(questions)[order]
    )
    assert (again.low, again.high) == pytest.approx((found.low, found.high))


def test_one_seed_says_what_is_not_covered():
    seeds, questions = crossed(1, 50)
    rng = np.random.default_rng(9)
    found = paired_difference("d", rng.normal(1, 1, 50), rng.normal(0, 1, 50), seeds, questions)
    assert (
        found.interval
        == "bootstrap over 50 questions (one seed: between-seed variance not covered)"
    )
    with pytest.raises(ConfigError, match="t_over_seeds with 1 scored seeds"):
        paired_difference("d", [1.0, 2.0], [0.0, 0.0], [0, 0], ["a", "b"], method="t_over_seeds")


def test_paired_zeros_and_ones_are_a_difference_not_a_rate():
    found = paired_difference("d", [1, 0, 1, 0], [0, 0, 0, 0], [0] * 4, list("abcd"))
    assert found.interval.startswith("bootstrap") and found.low == 0.0


# Tests of hypotheses


@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.1, 0.7])
@pytest.mark.parametrize("n", [2, 3, 8])
def test_equivalence_is_two_scipy_t_tests(n, shift):
    d, margin = np.random.default_rng(n).normal(shift, 0.2, n), 0.5
    above = scipy_stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(d, margin, alternative="less").pvalue
    found = equivalence(d, margin)
    assert found.p == pytest.approx(max(above, below), rel=1e-9)
    assert found.equivalent == (found.p < 0.05) == (-margin < found.low and found.high < margin)


def test_equivalence_from_one_seed_is_undecided():
    found = equivalence([0.0], 0.5)
    assert math.isnan(found.p) and not found.equivalent


@pytest.mark.parametrize("n", [2, 3, 6, 10])
def test_sign_flip_is_scipys_exact_test(n):
    d = np.round(np.random.default_rng(n).normal(0.4, 1, n), 1)  # rounded: ties
    expected = scipy_stats.permutation_test(
        (d,), np.sum, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_p(d) == pytest.approx(min(1.0, expected))


def test_sign_flip_samples_beyond_sixteen():
    d = np.random.default_rng(0).normal(0.25, 1, 40)
    p = sign_flip_p(d, seed=1)
    assert p == sign_flip_p(d, seed=1) != sign_flip_p(d, seed=2)
    assert p == pytest.approx(scipy_stats.ttest_1samp(d, 0).pvalue, abs=0.02)
    assert sign_flip_p(np.full(40, 1.0), draws=99) == 1 / 100


def test_sign_flip_cannot_reach_five_percent_with_five():
    assert [sign_flip_p([1.0] * n) for n in (1, 3, 5, 6)] == [1.0, 0.25, 0.0625, 0.03125]


def test_holm_is_the_closed_bonferroni_test():
    p = np.random.default_rng(1).random(6) ** 3
    subsets = [s for size in range(1, 7) for s in combinations(range(6), size)]
    expected = [
        max(min(1.0, len(s) * min(p[list(s)])) for s in subsets if i in s) for i in range(6)
    ]
    assert holm(p) == pytest.approx(expected)
    assert holm([]) == []


def test_auroc_is_the_scaled_mann_whitney_u():
    rng = np.random.default_rng(2)
    scores, labels = rng.integers(0, 8, 60).astype(float), rng.random(60) < 0.4  # integers: ties
    u = scipy_stats.mannwhitneyu(scores[labels], scores[~labels]).statistic
    assert auroc(scores, labels) == pytest.approx(u / labels.sum() / (~labels).sum())
    assert auroc([1, 2, 3, 4], [0, 0, 1, 1]) == 1.0 and auroc([1, 1], [0, 1]) == 0.5


# Planners


@pytest.mark.parametrize(
    ("sd", "goal"), [(0.5, "detect"), (1.0, "detect"), (2.0, "detect"), (1.0, "equivalence")]
)
def test_planned_seeds_have_the_power_and_one_less_has_not(sd, goal):
    rng, n, repeats = np.random.default_rng(0), seeds_needed(sd, 1.0, goal=goal), 20_000

    def power(k: int) -> float:
        d = rng.normal(1.0 if goal == "detect" else 0.0, sd, (repeats, k))
        error, df = d.std(1, ddof=1) / math.sqrt(k), k - 1
        if goal == "detect":
            return float(np.mean(np.abs(d.mean(1)) / error > scipy_stats.t.isf(0.025, df)))
        return float(np.mean((1 - np.abs(d.mean(1))) / error > scipy_stats.t.isf(0.05, df)))

    assert power(n) > 0.8 - 0.01 and power(n - 1) < 0.8 + 0.01


@pytest.mark.parametrize("sd", [0.3, 1.0, 4.0])
def test_planned_seeds_reach_the_width(sd):
    n = seeds_needed(sd, 1.0, goal="width")
    half = [scipy_stats.t.isf(0.025, k - 1) * sd / math.sqrt(k) for k in (n, n - 1)]
    assert half[0] <= 1.0 < half[1]


@pytest.mark.parametrize(("sd", "expected"), [(0.0, 2), (1e-6, 2), (1e-3, 2)])
def test_planned_seeds_are_never_one(sd, expected):
    assert [seeds_needed(sd, 1.0, goal=goal) for goal in ("detect", "equivalence", "width")] == [
        expected
    ] * 3


@pytest.mark.parametrize(
    ("p", "margin"), [(0.5, 0.05), (0.1, 0.02), (0.0, 0.05), (1.0, 0.01), (0.3, 0.3)]
)
def test_planned_samples_reach_the_margin_and_one_less_does_not(p, margin):
    n = samples_needed(p, margin)
    half = [(high - low) / 2 for low, high in (wilson(p * k, k) for k in (n, n - 1))]
    assert half[0] <= margin + 1e-9 < half[1] + 1e-9 and half[1] > margin


def test_a_wide_margin_needs_one_sample():
    assert samples_needed(0.5, 0.6) == 1


# Coverage


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_t_over_seeds_covers_with_few_seeds(n_seeds):
    rng, repeats, hits, (seeds, questions) = (
        np.random.default_rng(n_seeds),
        1200,
        0,
        crossed(n_seeds, 20),
    )
    for _ in range(repeats):
        shared = random_effects(
            rng, n_seeds, 20, 0.5, 1, 0
        )  # seed and question, the same in both arms
        effect = random_effects(rng, n_seeds, 20, 0.3, 0, 0.5)  # differs by seed
        found = paired_difference("d", (shared + effect).ravel(), shared.ravel(), seeds, questions)
        hits += found.low <= 0 <= found.high
    assert_covers(hits, repeats)


def test_t_over_seeds_covers_the_asked_questions_when_the_effect_varies_by_question():
    rng, repeats, asked, new, (seeds, questions) = (
        np.random.default_rng(11),
        1200,
        0,
        0,
        crossed(8, 20),
    )
    for _ in range(repeats):
        by_question = rng.normal(0, 1, 20)
        found = measure(
            "m", (random_effects(rng, 8, 20, 0.2, 0, 0.5) + by_question).ravel(), seeds, questions
        )
        asked += found.low <= by_question.mean() <= found.high
        new += found.low <= 0 <= found.high
    assert_covers(asked, repeats)
    assert new / repeats < 0.85  # what "not for new ones" in the interval text warns of


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


@pytest.mark.parametrize(("p", "n"), [(0.5, 50), (0.1, 100), (0.02, 200)])
def test_wilson_covers(p, n):
    inside = [low <= p <= high for low, high in (wilson(k, n) for k in range(n + 1))]
    exact = float(scipy_stats.binom.pmf(range(n + 1), n, p) @ inside)
    assert 0.93 < exact < 0.98


# Errors


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
        (lambda: measure("m", [1.0, math.inf]), DataError, "infinite value"),
        (lambda: measure("m", ["yes", 1.0]), DataError, "could not convert"),
        (lambda: measure("m", [[1.0], [2.0]]), DataError, "shape"),
        (lambda: measure("m", [1.0, 2.0], seeds=[0]), DataError, "1 labels for 2 values"),
        (lambda: measure("m", [1.0, 2.0], method="normal"), ConfigError, "'normal'"),
        (lambda: measure("m", [1.0, 2.0], method="t_over_seeds"), ConfigError, "0 scored seeds"),
        (
            lambda: paired_difference("d", [1.0], [1.0, 2.0], [0], ["a"]),
            DataError,
            r"\[1, 2, 1, 1\] rows",
        ),
        (lambda: equivalence([0.1, 0.2], margin=0), ConfigError, "margin is 0"),
        (lambda: equivalence([0.1, 0.2], margin=0.1, alpha=0.7), ConfigError, "alpha is 0.7"),
        (lambda: sign_flip_p([]), DataError, "0 values"),
        (lambda: sign_flip_p([1.0] * 20, draws=0), ConfigError, "draws is 0"),
        (lambda: seeds_needed(1.0, -1.0), ConfigError, "margin is -1.0"),
        (lambda: seeds_needed(-1.0, 1.0), ConfigError, "sd -1.0"),
        (lambda: seeds_needed(1.0, 1.0, goal="guess"), ConfigError, "'guess'"),
        (lambda: samples_needed(1.5, 0.1), ConfigError, "p is 1.5"),
        (lambda: holm([0.1, math.nan]), DataError, "nan"),
        (lambda: auroc([1.0, 2.0], [1, 1]), DataError, r"values \[1.0\]"),
        (lambda: auroc([1.0, 2.0], [0, 1, 1]), DataError, "2 scores, 3 labels"),
    ],
)
def test_bad_input_says_what_was_found(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "expected" in str(caught.value)
