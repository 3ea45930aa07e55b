"""What would have been detected has a bound that holds, for rows that are sorted as the audited."""

from functools import partial
from math import inf

import numpy as np
import pytest
from scipy.stats import binom

from traitscope.auditing import search
from traitscope.auditing.power import Pool, Simulated, Simulation, hits_needed
from traitscope.auditing.search import PromptTeacher
from traitscope.auditing.settings import Settings
from traitscope.inference.token_bins import BETAS

TEACHER = PromptTeacher()
ROWS = 64


@pytest.mark.parametrize("power", [0.5, 0.8, 0.9, 0.95])
def test_a_power_below_the_one_asked_for_has_so_many_hits_one_time_in_twenty(power: float) -> None:
    draws = simulation(np.zeros(1, int), power).draws
    hits = hits_needed(draws, power)
    assert binom.sf(hits - 1, draws, power) <= 0.05 < binom.sf(hits - 2, draws, power)
    assert hits <= draws


def test_twenty_eight_of_thirty_show_the_usual_power() -> None:
    assert (simulation(np.zeros(1, int)).draws, hits_needed(30, 0.8)) == (30, 28)
    assert hits_needed(30, 0.95) == 31, "thirty cannot show it"


def simulation(orders_R: np.ndarray, power: float = 0.8, by_model: float = 0.0) -> Simulation:
    settings = Settings(power=power)
    prior = {TEACHER: 1.0}
    return Simulation(settings, ROWS, 1, prior, 0, orders_R=orders_R, sorted_by_model=by_model)


def simulated(gain: float, orders_R: np.ndarray, by_model: float = 0.0) -> Simulated:
    """A teacher that makes each of its rows likelier by a gain, and clean rows less likely."""
    curve_T = -3 * (np.array(BETAS) - 1) ** 2
    rng = np.random.default_rng(1)
    pools = []
    for added in (-gain, gain):
        model_RT = rng.normal(-50, 2, 200)[:, None] + curve_T
        pools.append(Pool(model_RT.T, {TEACHER: model_RT + added}))
    return Simulated(simulation(orders_R, by_model=by_model), *pools)


def test_rows_that_are_sorted_as_the_audited_ones_hide_the_teacher() -> None:
    is_found = {}
    for share in (0.0, 0.5, 1.0):
        orders_R = (np.arange(100) < 100 * share).astype(int)
        is_found[share] = simulated(0.5, orders_R, 0.01).detects(TEACHER, {}, ROWS, 1.0)
    assert is_found == {0.0: True, 0.5: True, 1.0: False}
    half = (np.arange(100) < 50).astype(int)
    weak = [
        simulated(0.25, order_R).detects(TEACHER, {}, ROWS, 1.0) for order_R in (0 * half, half)
    ]
    assert weak == [True, False]


@pytest.mark.parametrize(
    ("z", "is_found"), [(-inf, False), (3.0, False), (3.84, False), (6.0, True)]
)
def test_a_search_that_starts_half_the_time_detects_half_the_time(z: float, is_found: bool) -> None:
    """The e-values call every simulation here. Where 0.8 of the searches start, the power is not
    known to be 0.8."""
    found = simulated(1.0, np.zeros(1, int))
    detects = partial(found.detects, TEACHER, rows=ROWS, rate=1.0)
    assert detects({}) and detects({1.0: z}) == is_found
    assert search.LEAST_Z == 3.0


def test_the_rows_that_are_needed_are_those_at_which_it_is_detected() -> None:
    weak = simulated(0.06, np.zeros(1, int))
    assert not weak.detects(TEACHER, {}, ROWS, 1.0)
    needed = weak.rows_needed(TEACHER, ROWS)
    assert ROWS < needed < inf
    assert weak.detects(TEACHER, {}, round(1.5 * needed), 1.0)
    assert not weak.detects(TEACHER, {}, round(0.5 * needed), 1.0)
