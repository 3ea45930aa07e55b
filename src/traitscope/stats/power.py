"""The power of tests over a given number of units, and the effects that they can detect."""

import math
from statistics import NormalDist

from traitscope.stats.inputs import check_between
from traitscope.stats.measurement import Measurement


def detection_power(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the two-sided t test over `n` units to find a true mean of `effect`.

    P(|T| > t(n-1)) under the non-central t law with shift effect sqrt(n)/sd, on the side of the
    effect. NaN for one unit. Raises ConfigError on impossible settings. Source: Student 1908.
    """
    check_between("alpha", alpha, 0, 0.5)
    check_between("sd", sd, 0, math.inf)
    if n < 2:
        return math.nan
    return _power(abs(effect) * math.sqrt(n) / sd, n - 1, alpha)


def _power(shift: float, freedom: float, alpha: float) -> float:
    """Return the power of a two-sided t test for a true value `shift` standard errors from 0."""
    from scipy.special import nctdtr, stdtrit

    critical = -stdtrit(freedom, alpha / 2)
    return float(1 - nctdtr(freedom, min(shift, 1e3), critical))


def detectable_shift(
    error: float, freedom: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return the smallest true value that a t test with this standard error finds with that power.

    It is in the unit of `error`, for any test whose statistic follows t(freedom): one group, two
    groups, one unit against a group. Infinite where more than 1,000 standard errors are needed.
    """
    check_between("power", power, 0.5, 1)
    check_between("alpha", alpha, 0, 0.5)
    low, high = 0.0, 1e3
    if not _power(high, freedom, alpha) >= power:
        return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        if _power(middle, freedom, alpha) < power:
            low = middle
        else:
            high = middle
    return high * error


def detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest true mean that the t test over `n` units finds with that power.

    It solves `detection_power` for the effect, in the unit of `sd`. Infinite for one unit.
    """
    check_between("power", power, 0.5, 1)
    if n < 2:
        return math.inf
    low, high = 0.0, sd
    while detection_power(high, sd, n, alpha) < power:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if detection_power(middle, sd, n, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def spread_between_units(measurement: Measurement) -> float:
    """Return the standard deviation between units behind a t interval over them.

    The half-width of such an interval is t sd / sqrt(n). NaN for another kind of interval.
    """
    n = measurement.n_clusters
    is_crossed = " x " in measurement.interval
    if n < 2 or is_crossed or not measurement.interval.startswith("t over "):
        return math.nan
    from scipy.special import stdtrit

    half = (measurement.high - measurement.low) / 2
    return float(half * math.sqrt(n) / stdtrit(n - 1, (1 + measurement.level) / 2))


def correlation_power(rho: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of a two-sided test over `n` units to find a rank correlation of `rho`.

    atanh(r) is taken as normal around atanh(rho) with variance 1.06 / (n - 3). NaN under four
    units. Raises ConfigError unless -1 < rho < 1. Source: Fieller, Hartley and Pearson 1957.
    """
    check_between("alpha", alpha, 0, 0.5)
    check_between("rho", rho, -1, 1)
    if n < 4:
        return math.nan
    normal = NormalDist()
    shift = math.atanh(abs(rho)) * math.sqrt((n - 3) / 1.06)
    return normal.cdf(shift - normal.inv_cdf(1 - alpha / 2))
