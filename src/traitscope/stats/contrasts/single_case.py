"""One unit against a group of units: does it lie outside what further units of the group would?"""

import math
from collections.abc import Sequence

import numpy as np

from traitscope.errors import DataError
from traitscope.stats.inputs import has_no_spread
from traitscope.stats.measurement import Measurement
from traitscope.stats.tails import StudentTail


def one_against_group(
    name: str, one: float, group: Sequence[float], unit: str, of: str = "seeds"
) -> Measurement:
    """Return one unit minus the mean of a group [N] of independent units, with a 95 % interval.

    (one - mean) / (sd sqrt(1 + 1/N)) follows t(N-1) where the one is a further unit of the group.
    The group counts as the number of units: its spread stands for that of the one. There is no
    interval for a group of one, or without any spread. Raises DataError for an empty group.

    Source: Crawford and Howell 1998 (comparing an individual's score with a small sample).
    """
    if not group:
        raise DataError(f"{name}: a group of 0; expected at least one unit; run more")
    n = len(group)
    values = np.asarray(group, dtype=float)
    difference = one - math.fsum(group) / n
    low = high = math.nan
    tail = None
    if n > 1 and not has_no_spread(values):
        from scipy.special import stdtrit

        error = float(values.std(ddof=1)) * math.sqrt(1 + 1 / n)
        half = float(stdtrit(n - 1, 0.975)) * error
        low, high = difference - half, difference + half
        tail = StudentTail(difference, error, n - 1)
    return Measurement(
        name=name,
        estimate=difference,
        low=low,
        high=high,
        n=n + 1,
        n_clusters=n,
        n_unscored=0,
        unit=unit,
        interval=f"t of one against {n} {of}",
        counted=of,
        tail=tail,
    )
