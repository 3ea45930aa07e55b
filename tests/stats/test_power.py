"""Planned numbers of seeds and samples reach what was asked, and one less does not."""

import math

import numpy as np
import pytest
import scipy.stats as scipy_stats

from traitscope.errors import ConfigError
from traitscope.stats.intervals import wilson
from traitscope.stats.power import (
    correlation_power,
    detectable,
    detection_power,
    samples_needed,
    seeds_needed,
)


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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: seeds_needed(1.0, -1.0), ConfigError, "margin is -1.0"),
        (lambda: seeds_needed(-1.0, 1.0), ConfigError, "sd -1.0"),
        (lambda: seeds_needed(1.0, 1.0, goal="guess"), ConfigError, "'guess'"),
        (lambda: samples_needed(1.5, 0.1), ConfigError, "p is 1.5"),
    ],
)
def test_bad_input_says_what_was_found(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "expected" in str(caught.value)


def test_power_is_that_of_simulated_t_tests():
    rng, n, repeats = np.random.default_rng(2), 5, 20_000
    values = rng.normal(0.6, 0.4, (repeats, n))
    error = values.std(1, ddof=1) / math.sqrt(n)
    found = np.mean(np.abs(values.mean(1)) / error > scipy_stats.t.isf(0.01, n - 1))
    assert detection_power(0.6, 0.4, n, alpha=0.02) == pytest.approx(found, abs=0.01)


def test_the_detectable_effect_has_the_power_that_was_asked_for():
    least = detectable(0.4, 6, power=0.9, alpha=0.01)
    assert detection_power(least, 0.4, 6, alpha=0.01) == pytest.approx(0.9, abs=1e-6)
    assert detectable(0.4, 1) == math.inf and math.isnan(detection_power(1.0, 0.4, 1))


def test_power_of_a_rank_correlation_is_near_that_of_permutations():
    rng, n, hits = np.random.default_rng(4), 16, 0
    for _ in range(2000):
        x = rng.standard_normal(n)
        y = 0.7 * x + math.sqrt(1 - 0.49) * rng.standard_normal(n)
        hits += scipy_stats.spearmanr(x, y).pvalue < 0.05
    spearman_of_07 = 6 / math.pi * math.asin(0.35)
    assert correlation_power(spearman_of_07, n) == pytest.approx(hits / 2000, abs=0.06)
