"""Estimates and paired differences: what is averaged and counted, and which interval is chosen."""

import math

import numpy as np
import pytest
from statistics_checks import assert_covers, crossed, random_effects

from traitscope.errors import ConfigError, DataError
from traitscope.stats.estimates import mean_over_units, measure, paired_difference, two_samples
from traitscope.stats.intervals import mean_interval_t, wilson


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


@pytest.mark.parametrize("unit", ["nats", "probability", "perplexity", "nats a token"])
def test_zeros_of_a_quantity_are_no_outcomes(unit):
    """A model's total variation from itself is 0 at every question, and no rate of 0 successes."""
    found = measure("total_variation", [0.0] * 5, questions=list("abcde"), unit=unit)
    assert found.estimate == 0 and math.isnan(found.low), "values without spread tell no interval"
    alone = measure("total_variation", [0.0], questions=["a"], unit=unit)
    assert alone.estimate == 0 and math.isnan(alone.low)


def test_measure_without_a_scored_value_is_undefined():
    found = measure("m", [math.nan] * 3, seeds=[1, 2, 3])
    assert math.isnan(found.estimate) and (found.n, found.n_unscored, found.interval) == (
        0,
        3,
        "no scored value",
    )


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
    rng, repeats, asked, new, crossed_covers, (seeds, questions) = (
        np.random.default_rng(11),
        1200,
        0,
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
        crossed_covers += found.crossed_low <= 0 <= found.crossed_high
    assert_covers(asked, repeats)
    assert new / repeats < 0.85  # what "not for new ones" in the interval text warns of
    assert_covers(crossed_covers, repeats, 0.965, slack=0.025)


def test_bounds_for_new_questions_stand_beside_those_for_these():
    rng, (seeds, questions) = np.random.default_rng(3), crossed(4, 25)
    x = random_effects(rng, 4, 25, 0.1, 0.5, 0.1).ravel()
    found = measure("m", x, seeds, questions)
    assert found.crossed_low < found.low < found.high < found.crossed_high
    asked = measure("m", x, seeds, questions, method="crossed")
    assert (asked.low, asked.high) == (found.crossed_low, found.crossed_high)
    assert asked.estimate == pytest.approx(found.estimate)
    assert asked.interval == "t over 4 seeds x 25 questions" and asked.n_clusters == 4
    assert math.isnan(measure("m", x, seeds, range(100)).crossed_low)
    with pytest.raises(ConfigError, match="crossed with 4 scored seeds and 100 questions"):
        measure("m", x, seeds, range(100), method="crossed")


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_a_base_that_was_sampled_once_needs_the_crossed_interval(n_seeds):
    """Rates of students minus the rate of one base, which answered each of 100 prompts once; both
    0.09. An interval over seeds does not see the base's chance, the less so the more seeds."""
    rng, repeats, labels = np.random.default_rng(n_seeds), 500, crossed(n_seeds, 100)
    hits = {"crossed": 0, "t_over_seeds": 0}
    for _ in range(repeats):
        base = np.tile(rng.random(100) < 0.09, n_seeds).astype(float)
        students = (rng.random(100 * n_seeds) < 0.09).astype(float)
        for method in hits:
            found = paired_difference("d", students, base, *labels, "rate", method)
            hits[method] += not (found.low > 0 or found.high < 0)
    assert_covers(hits["crossed"], repeats, 0.965, slack=0.025)
    assert hits["t_over_seeds"] / repeats < {3: 0.93, 5: 0.85, 10: 0.7}[n_seeds]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
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
    ],
)
def test_bad_input_says_what_was_found(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "expected" in str(caught.value)


def test_two_samples_cover_with_unequal_groups() -> None:
    """Ten units of one spread against three of another, as draws of noise against clean seeds."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(600):
        difference = two_samples(
            "d", list(rng.normal(1.0, 0.5, 10)), list(rng.normal(0.2, 1.0, 3)), "nats"
        )
        hits += difference.low <= 0.8 <= difference.high
    assert 0.92 <= hits / 600 <= 0.98, hits  # three standard errors around 0.95


def test_two_samples_do_not_depend_on_order_or_shift() -> None:
    one, other = [1.0, 2.0, 4.0], [0.0, 0.5, 0.1, 0.2]
    forth, back = two_samples("d", one, other, "nats"), two_samples("d", other, one, "nats")
    assert (forth.estimate, forth.low, forth.high) == pytest.approx(
        (-back.estimate, -back.high, -back.low)
    )
    moved = two_samples("d", [v + 3 for v in one], [v + 3 for v in other], "nats")
    assert (moved.low, moved.high) == pytest.approx((forth.low, forth.high))
    assert forth.interval == "Welch over 3 and 4 seeds" and forth.n == 7


def test_two_samples_without_a_spread_or_a_group() -> None:
    assert math.isnan(two_samples("d", [1.0], [0.0, 0.5], "nats").low)
    assert math.isnan(two_samples("d", [1.0, 1.0], [0.0, 0.0], "nats").high)
    with pytest.raises(DataError, match="groups of 0 and 1; expected at least one unit in each"):
        two_samples("d", [], [1.0], "nats")


def test_one_unit_has_no_interval() -> None:
    assert math.isnan(mean_over_units("x", [1.0], "cosine").low)
    assert mean_over_units("x", [1.0, 2.0], "cosine").n_clusters == 2


def test_a_mean_over_units_names_them_in_its_interval() -> None:
    by_trait = mean_over_units("m", [0.1, 0.4, 0.2], "nats", "traits")
    assert (by_trait.interval, by_trait.counted) == ("t over 3 traits", "traits")
    by_seed = mean_over_units("m", [0.1, 0.4, 0.2], "nats")
    assert by_seed.interval == "t over 3 seeds"
    assert (by_seed.estimate, by_seed.low) == (by_trait.estimate, by_trait.low)
