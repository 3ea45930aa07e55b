"""How many seeds or samples an experiment needs."""

import math
from statistics import NormalDist
from typing import Literal

from traitscope.errors import ConfigError
from traitscope.stats.inputs import (
    check_between,
)
from traitscope.stats.intervals import normal_quantile

Goal = Literal["detect", "equivalence", "width"]


def seeds_needed(
    sd: float, margin: float, power: float = 0.8, alpha: float = 0.05, goal: Goal = "detect"
) -> int:
    """Smallest number of seeds n >= 2, from the standard deviation of the per-seed differences
    (unit of `margin`).

    detect: a two-sided t test finds a true difference `margin` with `power`. equivalence:
    `equivalence` accepts a true difference of 0 with at least `power` (bound 2P - 1: never too
    few). width: the half-width t(n-1) sd/sqrt(n) of the 1 - alpha interval is at most `margin`.
    Raises ConfigError on impossible settings. Source: Phillips 1990.
    """
    check_between("margin", margin, 0, math.inf)
    check_between("alpha", alpha, 0, 0.5)
    check_between("power", power, 0.5, 1)
    goals = {
        "detect": (alpha / 2, 1 - power),
        "equivalence": (alpha, (1 - power) / 2),
        "width": (alpha / 2, 0.5),
    }
    if goal not in goals or not 0 <= sd < math.inf:
        raise ConfigError(
            f"goal {goal!r}, sd {sd}; expected one of {sorted(goals)} and a finite sd >= 0;"
            " correct it"
        )
    from scipy.special import nctdtr, stdtrit

    (tail, miss), sd = goals[goal], max(sd / margin, 1e-9)
    n = max(2, math.floor(((NormalDist().inv_cdf(tail) + NormalDist().inv_cdf(miss)) * sd) ** 2))
    while True:  # from the normal approximation, which is never too many
        critical, shift = -stdtrit(n - 1, tail), math.sqrt(n) / sd
        if (
            critical <= shift
            if goal == "width"
            else nctdtr(n - 1, min(shift, 1e3), critical) <= miss
        ):
            return n
        n += 1


def samples_needed(p: float, margin: float, level: float = 0.95) -> int:
    """Smallest n whose Wilson interval at an observed proportion p has a half-width of at most
    `margin`.

    Solves margin² N² - z² pq N - z⁴(1/4 - pq) = 0 for N = n + z², q = 1 - p. Independent samples;
    at least 1. Raises ConfigError unless 0 <= p <= 1 and margin > 0. Source: Wilson 1927.
    """
    check_between("margin", margin, 0, math.inf)
    if not 0 <= p <= 1:
        raise ConfigError(
            f"p is {p}; expected a proportion from 0 to 1; use 0.5 where nothing is known"
        )
    z2, pq = normal_quantile(level) ** 2, p * (1 - p)
    total = z2 * (pq + math.sqrt(pq * pq + margin**2 * (1 - 4 * pq))) / (2 * margin**2)
    return max(1, math.ceil(total - z2 - 1e-9))
