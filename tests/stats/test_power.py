"""Planned numbers of seeds and samples reach what was asked, and one less does not."""

import math

import numpy as np
import pytest
import scipy.stats as scipy_stats

from traitscope.stats.power import (
    correlation_power,
    detectable,
    detection_power,
)


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
