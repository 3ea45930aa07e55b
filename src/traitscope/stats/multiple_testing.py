"""p values of several tests, corrected for their number."""

from collections.abc import Sequence

import numpy as np

from traitscope.errors import DataError
from traitscope.stats.inputs import as_floats


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values in the order given: p(k) = max over j <= k of min(1, (m - j + 1)
    p(j)), p(j) sorted.

    Bounds the family-wise error under any dependence. Raises DataError outside 0..1. Source: Holm
    1979.
    """
    p = as_floats(pvalues, "pvalues")
    if not np.all((p >= 0) & (p <= 1)):
        raise DataError(
            f"p-values {p.tolist()}; expected numbers from 0 to 1; leave undefined tests out"
        )
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()
