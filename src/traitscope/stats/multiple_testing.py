"""p values corrected for the number of tests."""

from collections.abc import Sequence

import numpy as np

from traitscope.errors import DataError
from traitscope.stats.inputs import as_floats


def holm(pvalues: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the order given.

    With p(1) <= ... <= p(m): adjusted p(k) = max over j <= k of min(1, (m - j + 1) p(j)). Rejecting
    the adjusted p values below alpha bounds the family-wise error by alpha, under any dependence.
    Raises DataError for a p value outside 0..1 or undefined. Source: Holm 1979.
    """
    p_values = as_floats(pvalues, "pvalues")
    if not np.all((p_values >= 0) & (p_values <= 1)):
        raise DataError(
            f"p-values {p_values.tolist()}; expected numbers from 0 to 1; leave undefined tests out"
        )
    order = np.argsort(p_values, kind="stable")
    n_remaining = np.arange(len(p_values), 0, -1)
    stepwise = np.minimum(1.0, p_values[order] * n_remaining)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(stepwise)
    return adjusted.tolist()
