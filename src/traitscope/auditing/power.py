"""The power of an audit: what it would have detected of a spike-in teacher, which it made itself.

A spike-in teacher is a positive control. Data sets of which a fraction is its rows are simulated
from scored rows of the teacher and of the model itself. They have as many sorted rows as the
audited ones, since sorted rows are no evidence. The fraction that candidates' e-values detect with
the power asked for is the least contamination rate. Enough simulations must detect it that the
exact lower 95 % bound of the power is the power asked for (Clopper and Pearson 1934). What the
students' predictions detect besides is not in it: they would have to learn every simulated data
set.

Shapes: R rows, T inverse temperatures.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, inf, log
from pathlib import Path

import numpy as np

from traitscope.auditing import search
from traitscope.auditing.artifacts import NullRun, SpikeInRuns
from traitscope.auditing.detectors import e_values, fit_test
from traitscope.auditing.detectors.findings import Teacher
from traitscope.auditing.detectors.row_gradients import RowGradients, read_row_gradients
from traitscope.auditing.result import SpikeIn
from traitscope.auditing.runs import AuditRuns, log_likelihoods
from traitscope.auditing.search import GridPoint, TraitBlock
from traitscope.auditing.settings import (
    CONTAMINATION_RATES,
    FEW_ROWS,
    GRADIENT_ROWS,
    LEAST_LOG_E,
    SEARCH_ROWS,
    Settings,
    search_blocks,
)
from traitscope.inference.token_bins import BETAS
from traitscope.inference.token_scores import TokenScores, under_samplers

SIMULATIONS = 30
"simulated data sets of every contamination rate, at least"
ERROR = 0.05
"probability with which the bound of the power may be too high"
MOST_GAP = 0.5
"nats by which the bound of the nulls may be too large in a simulation, which is on the safe side"
Detects = Callable[[int, float], bool]
"whether so many rows, poisoned at that rate, would be detected"


@dataclass(frozen=True)
class Simulation:
    """What simulated data sets are drawn from, and how they are decided."""

    settings: Settings
    "error rate and power"
    rows: int
    "number of audited rows"
    candidates: int
    "number of candidates that the correction counts"
    prior: Mapping[Teacher, float]
    "weight of every teacher in the e-value"
    seed: int
    "seed of the draws"
    least_on_few: float = -inf
    "log e-value on a few rows from which on a candidate's prompt is tried on all rows"
    orders_R: np.ndarray = field(default_factory=partial(np.zeros, 1, int))
    "how the numbers of the audited rows are sorted"
    sorted_by_model: float = 0.0
    "the largest share of sorted rows in any set of clean rows"

    @property
    def draws(self) -> int:
        """Number of simulated data sets: so many that the power can be shown at all."""
        return max(SIMULATIONS, ceil(log(ERROR) / log(self.settings.power)))


def hits_needed(draws: int, power: float) -> int:
    """How many simulations must detect a rate, so that its power has this exact lower bound."""
    from scipy.special import betaincinv

    for hits in range(1, draws + 1):
        if betaincinv(hits, draws - hits + 1, ERROR) >= power:
            return hits
    return draws + 1


def spike_ins_of(runs: AuditRuns, simulation: Simulation) -> tuple[SpikeIn, ...]:
    """What the e-values would have detected of every spike-in teacher, and from where on its rows
    would count as off-model. The latter calls no row."""
    results = []
    for spike_in in runs.artifacts.spike_ins:
        clean = read_row_gradients(runs.at(spike_in.clean_gradients))
        poisoned = read_row_gradients(runs.at(spike_in.gradients))
        options = _by_e_values(runs, simulation, spike_in, clean, poisoned)
        best = min(options, key=lambda s: (s.least_contamination, s.rows_needed))
        off_model = _off_model_from(simulation, clean.scores, poisoned.scores)
        results.append(replace(best, off_model_from=off_model))
    return tuple(results)


def _off_model_from(simulation: Simulation, clean: TokenScores, poisoned: TokenScores) -> float:
    """The contamination rate from which on the rows would count as off-model; inf if never."""
    tokens_per_row = float(poisoned.tokens_R.mean())

    def detects(rows: int, rate: float) -> bool:
        mixture = fit_test.mixed(poisoned, clean, rate)
        power = simulation.settings.power
        return fit_test.would_be_off_model(mixture, rows * tokens_per_row, power)

    return _least_rate(detects, simulation.rows)


def _by_e_values(
    runs: AuditRuns,
    simulation: Simulation,
    spike_in: SpikeInRuns,
    clean: RowGradients,
    poisoned: RowGradients,
) -> list[SpikeIn]:
    """What the e-values would have detected, by the teacher that is the spike-in teacher.

    A steered teacher is detected in a simulation if the search would also start at its place, or at
    the block next to it. One that was not tried is not detected.
    """
    own_folders = runs.teacher_folders(spike_in.own).get(spike_in.trait, {})
    clean_folders = runs.teacher_folders(spike_in.clean).get(spike_in.trait, {})
    own_pool = _pool(runs, poisoned, own_folders, spike_in.own.nulls)
    clean_pool = _pool(runs, clean, clean_folders, spike_in.clean.nulls)
    simulated = Simulated(simulation, clean_pool, own_pool)
    results = [SpikeIn(spike_in.description, "e_values", inf, inf)]
    for teacher in own_folders:
        start_z: dict[float, float] = {}
        if isinstance(teacher, GridPoint):
            start_z = _start_z(runs, simulation.rows, clean, poisoned, teacher)
        detects = partial(simulated.detects, teacher, start_z)
        rate = _least_rate(detects, simulation.rows)
        needed = simulated.rows_needed(teacher, simulation.rows)
        results.append(SpikeIn(spike_in.description, "e_values", rate, needed))
    return results


@dataclass(frozen=True)
class Pool:
    """Scored rows that simulated data sets are drawn from."""

    writers_KR: np.ndarray
    "log-likelihoods under all nulls, first the model itself at BETAS"
    teachers: Mapping[Teacher, np.ndarray]
    "log-likelihoods [R, T] under every teacher"


def _pool(
    runs: AuditRuns,
    stored: RowGradients,
    folders: Mapping[Teacher, Path],
    nulls: tuple[NullRun, ...],
) -> Pool:
    """The rows of one set under the model, the teachers, and every null."""
    teachers = {}
    for teacher, folder in folders.items():
        teachers[teacher] = log_likelihoods(folder, stored.ids)
    writers = [*stored.scores.log_p_RT.T, *under_samplers(stored.scores).T]
    for null in runs.nulls(nulls, stored.ids):
        writers += [*null.log_p_RT.T]
    return Pool(np.array(writers), teachers)


@dataclass(frozen=True)
class Drawn:
    """A simulated data set."""

    writers_KR: np.ndarray
    "log-likelihoods under all nulls"
    teachers: Mapping[Teacher, np.ndarray]
    "log-likelihoods [R, T] under every teacher"
    orders_R: np.ndarray
    "how the numbers of every row are sorted"


class Simulated:
    """Data sets that are drawn from clean and poisoned rows, and each teacher's e-values on
    them."""

    def __init__(self, simulation: Simulation, clean: Pool, poisoned: Pool) -> None:
        self.simulation, self.clean, self.poisoned = simulation, clean, poisoned
        self.needed = hits_needed(simulation.draws, simulation.settings.power)
        self.critical = e_values.critical_log_e(
            simulation.candidates, simulation.settings.error_share
        )
        self.drawn: dict[tuple[int, float], dict[Teacher, np.ndarray]] = {}

    def detects(
        self, teacher: Teacher, start_z: Mapping[float, float], rows: int, rate: float
    ) -> bool:
        """Whether so many rows, poisoned at that rate, would be detected with the power asked for.

        start_z: By rate, the expected z of the gradients where the search would start; empty for a
        teacher that no search has to find.
        """
        is_hit = self._log_e(rows, rate)[teacher] >= self.critical
        noise = np.random.default_rng([self.simulation.seed, rows]).normal(size=len(is_hit))
        is_tried = start_z.get(rate, inf) + noise >= search.LEAST_Z
        return bool((is_hit & is_tried).sum() >= self.needed)

    def rows_needed(self, teacher: Teacher, rows: int) -> float:
        """About how many rows would be detected if all of them were poisoned; inf if none.

        Beyond `rows` the evidence is taken to grow as from half of them to all of them.
        """
        log_e = self._log_e(rows, 1.0)[teacher]
        fewer = self._log_e(rows // 2, 1.0)[teacher]
        reached = float(np.append(np.sort(log_e)[::-1], -inf)[self.needed - 1])
        if reached >= self.critical:
            return float(rows)
        now, before = float(np.median(log_e)), float(np.median(fewer))
        if min(reached, now, before) == -inf or now <= before:
            return inf
        growth = (now - before) / (rows - rows // 2)
        return float(round(rows + (self.critical - reached) / growth))

    def _log_e(self, rows: int, rate: float) -> dict[Teacher, np.ndarray]:
        """Log e-values of simulated data sets, by teacher; -inf where it would not be tried."""
        if (rows, rate) not in self.drawn:
            rng = np.random.default_rng([self.simulation.seed, rows, round(1000 * rate)])
            each: dict[Teacher, list[float]] = {name: [] for name in self.poisoned.teachers}
            for _ in range(self.simulation.draws):
                few = self._draw(rng, min(FEW_ROWS, rows), rate)
                for_search = self._draw(rng, min(SEARCH_ROWS, rows), rate)
                drawn = self._draw(rng, rows, rate)
                for teacher, values in each.items():
                    tried_first = for_search if isinstance(teacher, GridPoint) else few
                    values.append(self._of_teacher(teacher, tried_first, drawn))
            self.drawn[rows, rate] = {name: np.array(values) for name, values in each.items()}
        return self.drawn[rows, rate]

    def _draw(self, rng: np.random.Generator, rows: int, rate: float) -> Drawn:
        """A data set of so many rows, each poisoned at that rate, and sorted as an audited one."""
        poisoned = rng.binomial(rows, rate)
        clean_index = rng.integers(self.clean.writers_KR.shape[1], size=rows - poisoned)
        poisoned_index = rng.integers(self.poisoned.writers_KR.shape[1], size=poisoned)
        clean_KR = self.clean.writers_KR[:, clean_index]
        poisoned_KR = self.poisoned.writers_KR[:, poisoned_index]
        teachers = {}
        for teacher, poisoned_RT in self.poisoned.teachers.items():
            clean_RT = self.clean.teachers[teacher][clean_index]
            teachers[teacher] = np.concatenate([clean_RT, poisoned_RT[poisoned_index]])
        orders_R = rng.choice(self.simulation.orders_R, size=rows)
        return Drawn(np.concatenate([clean_KR, poisoned_KR], 1), teachers, orders_R)

    def _of_teacher(self, teacher: Teacher, few: Drawn, drawn: Drawn) -> float:
        """The log e-value of a teacher on a data set, given what it has on a few rows."""
        model_RT = few.writers_KR[: len(BETAS)].T
        on_few = e_values.log_e_over_model(model_RT, few.teachers[teacher])
        is_steered = isinstance(teacher, GridPoint)
        if on_few < (LEAST_LOG_E if is_steered else self.simulation.least_on_few):
            return -inf
        null = e_values.null_of(
            drawn.writers_KR, drawn.orders_R != 0, self.simulation.sorted_by_model, MOST_GAP
        )
        log_e = e_values.log_e_value(null, drawn.teachers[teacher])
        return log_e + log(self.simulation.prior[teacher])


def _start_z(
    runs: AuditRuns, rows: int, clean: RowGradients, poisoned: RowGradients, teacher: GridPoint
) -> dict[float, float]:
    """The expected z, by contamination rate, of the place of a teacher or of the block next to it.

    It is -inf where other places fill the first round of the search.
    """
    near = []
    for layer in search.neighbours(teacher.layer, search_blocks(runs.artifacts.blocks)):
        near.append((teacher.trait, layer))
    growth = min(rows, GRADIENT_ROWS) ** 0.5
    poisoned_z, clean_z = _z_of_a_row(runs, poisoned), _z_of_a_row(runs, clean)
    start_z = {}
    for rate in CONTAMINATION_RATES:
        mixed = search.mixed_z(poisoned_z, clean_z, rate)
        first = sorted(mixed, key=mixed.__getitem__, reverse=True)[: search.FIRST_ROUND]
        found = [growth * mixed[place] for place in near if place in first]
        start_z[rate] = max(found, default=-inf)
    return start_z


def _z_of_a_row(runs: AuditRuns, stored: RowGradients) -> dict[TraitBlock, float]:
    """About the z that one row has along every vector: that of all rows over their square root."""
    blocks = search_blocks(runs.artifacts.blocks)
    z = search.gradient_z(stored.rows(range(len(stored.ids))), runs.vectors, blocks)
    return {place: value / len(stored.ids) ** 0.5 for place, value in z.items()}


def _least_rate(detects: Detects, rows: int) -> float:
    """The least contamination rate that is detected in this many rows; inf if none is.

    It is found by halving: more poisoned rows are detected if fewer are.
    """
    place = bisect_left(CONTAMINATION_RATES, True, key=lambda rate: detects(rows, rate))
    return CONTAMINATION_RATES[place] if place < len(CONTAMINATION_RATES) else inf
