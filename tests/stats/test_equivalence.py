"""The equivalence test against scipy."""

import math

import numpy as np
import pytest
import scipy.stats as scipy_stats

from traitscope.errors import ConfigError
from traitscope.stats.equivalence import equivalence


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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: equivalence([0.1, 0.2], margin=0), ConfigError, "margin is 0"),
        (lambda: equivalence([0.1, 0.2], margin=0.1, alpha=0.7), ConfigError, "alpha is 0.7"),
    ],
)
def test_bad_input_says_what_was_found(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "expected" in str(caught.value)
