"""The number of seeds or samples that an experiment needs."""

import math
from statistics import NormalDist
from typing import Literal

from traitscope.errors import ConfigError
from traitscope.stats.inputs import check_between
from traitscope.stats.intervals import normal_quantile

Goal = Literal["detect", "equivalence", "width"]


def seeds_needed(
    sd: float, margin: float, power: float = 0.8, alpha: float = 0.05, goal: Goal = "detect"
) -> int:
    """Return the smallest number of seeds n >= 2 that reaches a goal.

    `sd` is the standard deviation of the per-seed differences, in the unit of `margin`.

    detect: A two-sided t test finds a true difference of `margin` with probability `power`.
    equivalence: `equivalence` accepts a true difference of 0 with probability `power` or more. The
    bound 2P - 1 is used, so n is never too small.
    width: The half-width t(n-1) sd/sqrt(n) of the 1 - alpha interval is at most `margin`.

    Raises ConfigError on impossible settings. Source: Phillips 1990.
    """
    check_between("margin", margin, 0, math.inf)
    check_between("alpha", alpha, 0, 0.5)
    check_between("power", power, 0.5, 1)
    tails_and_misses = {
        "detect": (alpha / 2, 1 - power),
        "equivalence": (alpha, (1 - power) / 2),
        "width": (alpha / 2, 0.5),
    }
    if goal not in tails_and_misses or not 0 <= sd < math.inf:
        raise ConfigError(
            f"goal {goal!r}, sd {sd}; expected one of {sorted(tails_and_misses)} and a finite"
            " sd >= 0; correct it"
        )
    tail, miss = tails_and_misses[goal]
    sd_in_margins = max(sd / margin, 1e-9)
    n = _seeds_by_normal_law(sd_in_margins, tail, miss)
    while not _reaches_goal(n, sd_in_margins, tail, miss, goal):
        n += 1
    return n


def _seeds_by_normal_law(sd_in_margins: float, tail: float, miss: float) -> int:
    """The number of seeds if the standard deviation were known, which is never too many."""
    normal = NormalDist()
    quantiles = normal.inv_cdf(tail) + normal.inv_cdf(miss)
    return max(2, math.floor((quantiles * sd_in_margins) ** 2))


def _reaches_goal(n: int, sd_in_margins: float, tail: float, miss: float, goal: Goal) -> bool:
    """Whether n seeds are enough, by the t law or the non-central t law."""
    from scipy.special import nctdtr, stdtrit

    critical = -stdtrit(n - 1, tail)
    shift = math.sqrt(n) / sd_in_margins
    if goal == "width":
        return critical <= shift
    return nctdtr(n - 1, min(shift, 1e3), critical) <= miss


def samples_needed(p: float, margin: float, level: float = 0.95) -> int:
    """Return the smallest n >= 1 whose Wilson interval has a half-width of at most `margin`.

    `p` is the proportion that one expects to observe, of independent samples. Solves
    margin² N² - z² pq N - z⁴(1/4 - pq) = 0 for N = n + z², q = 1 - p. Raises ConfigError unless
    0 <= p <= 1 and margin > 0. Source: Wilson 1927.
    """
    check_between("margin", margin, 0, math.inf)
    if not 0 <= p <= 1:
        raise ConfigError(
            f"p is {p}; expected a proportion from 0 to 1; use 0.5 where nothing is known"
        )
    z2 = normal_quantile(level) ** 2
    pq = p * (1 - p)
    total = z2 * (pq + math.sqrt(pq * pq + margin**2 * (1 - 4 * pq))) / (2 * margin**2)
    return max(1, math.ceil(total - z2 - 1e-9))


def detection_power(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the two-sided t test over `n` units to find a true mean of `effect`.

    P(|T| > t(n-1)) under the non-central t law with shift effect sqrt(n)/sd, on the side of the
    effect. NaN for one unit. Raises ConfigError on impossible settings. Source: Student 1908.
    """
    check_between("alpha", alpha, 0, 0.5)
    check_between("sd", sd, 0, math.inf)
    if n < 2:
        return math.nan
    from scipy.special import nctdtr, stdtrit

    critical = -stdtrit(n - 1, alpha / 2)
    return float(1 - nctdtr(n - 1, min(abs(effect) * math.sqrt(n) / sd, 1e3), critical))


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
