"""Holm's correction against its definition."""

import math
from itertools import combinations

import numpy as np
import pytest

from traitscope.errors import DataError
from traitscope.stats.multiple_testing import holm


def test_holm_is_the_closed_bonferroni_test():
    p = np.random.default_rng(1).random(6) ** 3
    subsets = [s for size in range(1, 7) for s in combinations(range(6), size)]
    expected = [
        max(min(1.0, len(s) * min(p[list(s)])) for s in subsets if i in s) for i in range(6)
    ]
    assert holm(p) == pytest.approx(expected)
    assert holm([]) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: holm([0.1, math.nan]), DataError, "nan"),
    ],
)
def test_bad_input_says_what_was_found(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "expected" in str(caught.value)
