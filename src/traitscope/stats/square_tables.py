"""Square tables: what students of every teacher say of every teacher's trait.

Rows are students by their teacher, columns are traits. A row mean holds what one teacher does to
all traits, a column mean what all teachers do to one trait. Neither is transfer. Transfer is what
the diagonal has beyond both.

Shapes: N traits.
"""

from itertools import permutations

import numpy as np

from traitscope.errors import DataError
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement

EXACT_TRAITS, DRAWS = 8, 9999
"Most traits whose assignments are all tried, and random assignments of more traits."
FEWEST = 3
"traits below which rows, columns and diagonal cannot be told apart"


def doubly_centred(table_NN: np.ndarray) -> np.ndarray:
    """A square table minus its row means and column means, plus its mean.

    What all teachers do to one trait, and what one teacher does to all traits, are gone.
    """
    rows_N1 = table_NN.mean(1, keepdims=True)
    columns_1N = table_NN.mean(0, keepdims=True)
    return table_NN - rows_N1 - columns_1N + table_NN.mean()


def permutation_p(table_NN: np.ndarray) -> float:
    """The p value of the mean diagonal when teachers are assigned to traits at random, one-sided.

    All assignments are tried for at most EXACT_TRAITS traits, else DRAWS random ones beside the
    true one. The trait is the unit, so few traits have no small p. Double centring changes nothing.
    """
    n_traits = len(table_NN)
    places_N = np.arange(n_traits)
    if n_traits <= EXACT_TRAITS:
        assigned_AN = np.array(list(permutations(range(n_traits))))
    else:
        rng = np.random.default_rng(0)
        random_AN = rng.permuted(np.tile(places_N, (DRAWS, 1)), axis=1)
        assigned_AN = np.vstack([places_N, random_AN])
    sums_A = table_NN[places_N, assigned_AN].sum(1)
    return float((sums_A >= np.trace(table_NN) - 1e-9).mean())


def own_effects(table_NN: np.ndarray) -> np.ndarray:
    """What every entry of the diagonal [N] has beyond its row and its column.

    In a table of row effects, column effects and an addition on the diagonal, these additions are
    returned exactly. Raises DataError for fewer than FEWEST traits.
    """
    n = len(table_NN)
    if n < FEWEST:
        raise DataError(
            f"a table of {n} traits; expected {FEWEST} or more, to know their own effects"
            " from those of rows and columns; name more traits"
        )
    centred_N = np.diag(doubly_centred(table_NN))
    total = centred_N.sum() / (1 - 1 / n)
    return (centred_N - total / n**2) / (1 - 2 / n)


def mean_own_effect(name: str, table_NN: np.ndarray, unit: str) -> Measurement:
    """The mean own effect with a 95 % t interval over traits.

    Errors of single entries spread own effects a little more than they move their mean. So with
    equal traits the interval covers a little too often (simulated in the tests).
    """
    return mean_over_units(name, own_effects(table_NN).tolist(), unit, "traits")
