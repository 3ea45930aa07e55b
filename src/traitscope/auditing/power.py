"""The power of an audit: what it would have detected of a spike-in teacher, which it made itself.

A spike-in teacher is a positive control. Data sets of which a fraction is its rows are simulated
from scored rows of the teacher and of a placebo set. The fraction that is detected with the power
asked for is the least contamination rate.

Shapes: R rows, T inverse temperatures.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, log
from pathlib import Path

import numpy as np

from traitscope.auditing import search
from traitscope.auditing.artifacts import NullRun, SpikeInRuns
from traitscope.auditing.detectors import e_values, fit_test, text_features
from traitscope.auditing.detectors.findings import PairedRows, Teacher, TextRow
from traitscope.auditing.detectors.row_gradients import RowGradients
from traitscope.auditing.evidence import AuditRuns, text_rows
from traitscope.auditing.result import SpikeIn
from traitscope.auditing.search import GridPoint, TraitBlock
from traitscope.auditing.settings import (
    CONTAMINATION_RATES,
    ROW_FACTORS,
    Settings,
    search_blocks,
)
from traitscope.inference.token_scores import TokenScores, read_token_scores, under_samplers

SIMULATIONS = 30
"simulated data sets of every contamination rate"
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
    scored_rows: int
    "number of rows that are scored under teachers"
    candidates: int
    "number of candidates that the correction counts"
    prior: Mapping[Teacher, float]
    "weight of every teacher in the e-value"
    seed: int
    "seed of the draws"


def spike_ins_of(runs: AuditRuns, simulation: Simulation) -> tuple[SpikeIn, ...]:
    """What would have been detected of every spike-in teacher, by the detector that detects the
    smallest contamination rate. Rows that would count as off-model are detected, too."""
    results = []
    for spike_in in runs.artifacts.spike_ins:
        rows = runs.paired_spike_in(spike_in.rows, spike_in.gradients)
        options = _by_e_values(runs, simulation, spike_in, rows)
        options.append(_by_fit(runs, simulation, spike_in, rows.gradients[0].scores))
        results.append(min(options, key=lambda s: (s.least_contamination, s.rows_needed)))
    return tuple(results)


def _by_fit(
    runs: AuditRuns, simulation: Simulation, spike_in: SpikeInRuns, poisoned: TokenScores
) -> SpikeIn:
    """From which contamination rate on the rows would count as off-model."""
    clean = runs.placebos[0][1].scores
    tokens_per_row = float(poisoned.tokens_R.mean())

    def detects(rows: int, rate: float) -> bool:
        mixture = fit_test.mixed(poisoned, clean, rate)
        power = simulation.settings.power
        return fit_test.would_be_off_model(mixture, rows * tokens_per_row, power)

    rate = _least_rate(detects, simulation.rows)
    sizes = [simulation.rows * factor for factor in ROW_FACTORS]
    place = bisect_left(sizes, True, key=lambda rows: detects(rows, 1.0))
    needed = float(sizes[place]) if place < len(sizes) else inf
    return SpikeIn(spike_in.description, "fit_test", rate, needed)


def _by_e_values(
    runs: AuditRuns, simulation: Simulation, spike_in: SpikeInRuns, rows: PairedRows
) -> list[SpikeIn]:
    """What the e-values would have detected, by each teacher that imitates the spike-in teacher.

    A steered teacher counts from the rate on at which the search would start at its place, or at
    the block next to it.
    """
    own_folders = runs.teacher_folders(spike_in.own).get(spike_in.trait, {})
    placebo_folders = runs.teacher_folders(spike_in.placebo).get(spike_in.trait, {})
    own_rows = text_rows(runs.at(spike_in.rows))
    poisoned = _pool(runs, own_rows, rows.gradients[0], own_folders, spike_in.own.nulls)
    clean = _pool(runs, *runs.placebos[0], placebo_folders, spike_in.placebo.nulls)
    simulated = Simulated(simulation, clean, poisoned)
    blocks = search_blocks(runs.artifacts.blocks)
    starts = {}
    if any(isinstance(teacher, GridPoint) for teacher in own_folders):
        starts = _search_starts(runs, rows, simulation.seed)
    results = []
    for teacher in own_folders:
        rate = _least_rate(partial(simulated.detects, teacher), simulation.scored_rows)
        needed = simulated.rows_needed(teacher, simulation.scored_rows)
        if isinstance(teacher, GridPoint):
            near = search.neighbours(teacher.layer, blocks)
            start = min(starts[teacher.trait, layer] for layer in near)
            rate = max(rate, start)
        results.append(SpikeIn(spike_in.description, "e_values", rate, needed))
    return results


@dataclass(frozen=True)
class Pool:
    """Scored rows that simulated data sets are drawn from."""

    writers_KR: np.ndarray
    "log-likelihoods under all nulls, first the model itself at BETAS"
    teachers: Mapping[Teacher, np.ndarray]
    "log-likelihoods [R, T] under every teacher"
    orders_R: np.ndarray
    "how the numbers of every row are sorted"


def _pool(
    runs: AuditRuns,
    rows: Sequence[TextRow],
    stored: RowGradients,
    folders: Mapping[Teacher, Path],
    nulls: Sequence[NullRun],
) -> Pool:
    """The scored rows of one set under the model, the teachers, and every null."""
    teachers = {}
    ids: list[str] = []
    for teacher, folder in folders.items():
        ids, scores = read_token_scores(folder)
        teachers[teacher] = scores.log_p_RT
    place = {key: number for number, key in enumerate(stored.ids)}
    index = [place[key] for key in ids]
    writers = [*stored.scores.log_p_RT[index].T, *under_samplers(stored.scores)[index].T]
    for null in nulls:
        writers += [*read_token_scores(runs.at(null.run))[1].log_p_RT.T]
    order_of = {row.id: text_features.order_of(row.completion) for row in rows}
    return Pool(np.array(writers), teachers, np.array([order_of[key] for key in ids], int))


class Simulated:
    """Data sets that are drawn from clean and poisoned rows, and each teacher's e-values on
    them."""

    def __init__(self, simulation: Simulation, clean: Pool, poisoned: Pool) -> None:
        self.simulation, self.clean, self.poisoned = simulation, clean, poisoned
        self.sorted_by_model = e_values.sorted_share(clean.orders_R)
        self.critical = e_values.critical_log_e(
            simulation.candidates, simulation.settings.error_share
        )
        self.drawn: dict[tuple[int, float], dict[Teacher, np.ndarray]] = {}

    def detects(self, teacher: Teacher, rows: int, rate: float) -> bool:
        """Whether so many rows, poisoned at that rate, would be detected with the power asked
        for."""
        is_hit = self._log_e(rows, rate)[teacher] >= self.critical
        return is_hit.mean() >= self.simulation.settings.power

    def rows_needed(self, teacher: Teacher, rows: int) -> float:
        """About how many rows would be detected if all of them were poisoned; inf if none.

        Beyond `rows` the evidence is taken to grow as from half of them to all of them.
        """
        log_e = self._log_e(rows, 1.0)[teacher]
        reached = float(np.quantile(log_e, 1 - self.simulation.settings.power))
        if reached >= self.critical:
            return float(rows)
        growth = (log_e.mean() - self._log_e(rows // 2, 1.0)[teacher].mean()) / (rows - rows // 2)
        if growth <= 0:
            return inf
        return float(round(rows + (self.critical - reached) / growth))

    def _log_e(self, rows: int, rate: float) -> dict[Teacher, np.ndarray]:
        """Log e-values of simulated data sets, by teacher."""
        if (rows, rate) not in self.drawn:
            rng = np.random.default_rng([self.simulation.seed, rows, round(1000 * rate)])
            each: dict[Teacher, list[float]] = {name: [] for name in self.poisoned.teachers}
            for _ in range(SIMULATIONS):
                self._draw(rng, rows, rate, each)
            self.drawn[rows, rate] = {name: np.array(values) for name, values in each.items()}
        return self.drawn[rows, rate]

    def _draw(
        self, rng: np.random.Generator, rows: int, rate: float, each: dict[Teacher, list[float]]
    ) -> None:
        """Draw one data set, and add every teacher's log e-value of it."""
        poisoned = rng.binomial(rows, rate)
        clean_index = rng.integers(len(self.clean.orders_R), size=rows - poisoned)
        poisoned_index = rng.integers(len(self.poisoned.orders_R), size=poisoned)
        clean_KR = self.clean.writers_KR[:, clean_index]
        poisoned_KR = self.poisoned.writers_KR[:, poisoned_index]
        log_p_KR = np.concatenate([clean_KR, poisoned_KR], 1)
        orders_R = np.concatenate(
            [self.clean.orders_R[clean_index], self.poisoned.orders_R[poisoned_index]]
        )
        null = e_values.null_of(log_p_KR, orders_R != 0, self.sorted_by_model, MOST_GAP)
        for teacher, poisoned_RT in self.poisoned.teachers.items():
            clean_RT = self.clean.teachers[teacher][clean_index]
            teacher_RT = np.concatenate([clean_RT, poisoned_RT[poisoned_index]])
            weight = log(self.simulation.prior[teacher])
            each[teacher].append(e_values.log_e_value(null, teacher_RT) + weight)


def _search_starts(runs: AuditRuns, rows: PairedRows, seed: int) -> dict[TraitBlock, float]:
    """The smallest contamination rate at which the first round of the search would try each place;
    the rest of the rows are a placebo's."""
    names = list(runs.vectors)
    growth = (len(runs.paired.records) / len(rows.records)) ** 0.5
    poisoned_z = search.gradient_z_of(rows, names, runs.candidates, runs.directions_LTJD, seed)
    for place, z in poisoned_z.items():
        poisoned_z[place] = growth * z
    clean_z = search.gradient_z_of(
        runs.paired.without_data(), names, runs.candidates, runs.directions_LTJD, seed
    )
    starts = dict.fromkeys(poisoned_z, inf)
    for rate in reversed(CONTAMINATION_RATES):
        for place in search.strongest_places(search.mixed_z(poisoned_z, clean_z, rate)):
            starts[place] = rate
    return starts


def _least_rate(detects: Detects, rows: int) -> float:
    """The least contamination rate that is detected in this many rows; inf if none is.

    It is found by halving: more poisoned rows are detected if fewer are.
    """
    place = bisect_left(CONTAMINATION_RATES, True, key=lambda rate: detects(rows, rate))
    return CONTAMINATION_RATES[place] if place < len(CONTAMINATION_RATES) else inf
