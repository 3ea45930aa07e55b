"""Own effects of square tables: planted ones are found, and the interval of their mean covers."""

import numpy as np
import pytest

from traitscope.errors import DataError
from traitscope.stats.square_tables import mean_own_effect, own_effects


def table_of(rng: np.random.Generator, own_N: np.ndarray, noise: float) -> np.ndarray:
    """Rows, columns, an addition on the diagonal, and errors of all entries."""
    n = len(own_N)
    rows_N1, columns_N = rng.normal(size=(n, 1)), rng.normal(size=n)
    return rows_N1 + columns_N + np.diag(own_N) + noise * rng.normal(size=(n, n))


def test_own_effects_are_what_was_added_to_the_diagonal() -> None:
    planted_N = np.array([0.3, -0.1, 0.0, 2.0, 0.5])
    table_NN = table_of(np.random.default_rng(0), planted_N, 0.0)
    assert own_effects(table_NN) == pytest.approx(planted_N)


def test_two_traits_have_no_own_effects() -> None:
    with pytest.raises(DataError, match="a table of 2 traits; expected 3 or more"):
        own_effects(np.eye(2))


@pytest.mark.parametrize("n_traits", [5, 8])
@pytest.mark.parametrize("between", [0.0, 0.1, 0.3])
def test_the_interval_of_the_mean_covers(n_traits: int, between: float) -> None:
    """Traits with the same own effect, and traits that differ; errors of 0.15."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(1500):
        own_N = 0.1 + between * rng.normal(size=n_traits)
        found = mean_own_effect("own", table_of(rng, own_N, 0.15), "nats")
        covered.append(found.low <= 0.1 <= found.high)
    assert 0.935 <= np.mean(covered) <= 0.99
    assert (found.n, found.counted) == (n_traits, "traits")
