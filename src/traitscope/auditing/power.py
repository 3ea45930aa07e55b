"""The power of an audit: what it would have detected of a spike-in teacher, which it made itself.

A spike-in teacher is a positive control. Data sets of which a fraction is its rows are simulated
from scored rows of the teacher and of a placebo set. The fraction that is detected with the power
asked for is the least contamination rate.

Shapes: R rows, T inverse temperatures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log
from pathlib import Path

import numpy as np

from traitscope.auditing import search
from traitscope.auditing.artifacts import SpikeInRuns
from traitscope.auditing.detectors import e_values, fit_test
from traitscope.auditing.detectors.findings import PairedRows, Teacher
from traitscope.auditing.detectors.row_gradients import RowGradients
from traitscope.auditing.evidence import AuditRuns, log_likelihood_pair
from traitscope.auditing.result import SpikeIn
from traitscope.auditing.search import GridPoint, TraitBlock
from traitscope.auditing.settings import (
    CONTAMINATION_RATES,
    ROW_FACTORS,
    Settings,
    search_blocks,
)
from traitscope.inference.token_scores import TokenScores, read_token_scores

SIMULATIONS = 100
"simulated data sets of every contamination rate"
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

    return SpikeIn(spike_in.description, "fit_test", *_least(detects, simulation.rows))


def _by_e_values(
    runs: AuditRuns, simulation: Simulation, spike_in: SpikeInRuns, rows: PairedRows
) -> list[SpikeIn]:
    """What the e-values would have detected, by each teacher that imitates the spike-in teacher.

    A steered teacher counts from the rate on at which the search would start at its place, or at
    the block next to it.
    """
    own_folders = runs.teacher_folders(spike_in.own).get(spike_in.trait, {})
    placebo_folders = runs.teacher_folders(spike_in.placebo).get(spike_in.trait, {})
    blocks = search_blocks(runs.artifacts.blocks)
    starts = {}
    if any(isinstance(teacher, GridPoint) for teacher in own_folders):
        starts = _search_starts(runs, rows, simulation.seed)
    results = []
    for teacher in own_folders:
        own_rows = _log_likelihoods(
            runs, rows.gradients[0], own_folders[teacher], spike_in.own.nulls
        )
        clean_rows = _log_likelihoods(
            runs, runs.placebos[0][1], placebo_folders[teacher], spike_in.placebo.nulls
        )
        rate, needed = _least(
            _detects_by(teacher, simulation, clean_rows, own_rows), simulation.scored_rows
        )
        if isinstance(teacher, GridPoint):
            near = search.neighbours(teacher.layer, blocks)
            start = min(starts[teacher.trait, layer] for layer in near)
            rate = max(rate, start)
        results.append(SpikeIn(spike_in.description, "e_values", rate, needed))
    return results


def _log_likelihoods(
    runs: AuditRuns, stored: RowGradients, folder: Path, nulls: Sequence
) -> list[np.ndarray]:
    """Log-likelihoods [R, T] of scored rows: under the model, the teacher, and every null."""
    under_model, under_teacher = log_likelihood_pair(stored, folder)
    arrays = [under_model, under_teacher]
    for null in nulls:
        arrays.append(read_token_scores(runs.at(null.run))[1].log_p_RT)
    return arrays


def _detects_by(
    teacher: Teacher,
    simulation: Simulation,
    clean: Sequence[np.ndarray],
    poisoned: Sequence[np.ndarray],
) -> Detects:
    """Whether the e-value of one teacher would reach the threshold, with the power asked for."""
    settings = simulation.settings
    critical = e_values.critical_log_e(simulation.candidates, settings.error_share)
    threshold = critical - log(simulation.prior[teacher])

    def detects(rows: int, rate: float) -> bool:
        detected = detection_rate(clean, poisoned, rows, rate, threshold, seed=simulation.seed)
        return detected >= settings.power

    return detects


def detection_rate(
    clean: Sequence[np.ndarray],
    poisoned: Sequence[np.ndarray],
    rows: int,
    rate: float,
    threshold: float,
    draws: int = SIMULATIONS,
    seed: int = 0,
) -> float:
    """Fraction of simulated data sets whose log e-value reaches `threshold`: `rows` rows, each
    poisoned with probability `rate`.

    `clean` and `poisoned` are log-likelihoods [R, T] under the model, the teacher and every null,
    of rows to draw from.
    """
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(draws):
        n_poisoned = rng.binomial(rows, rate)
        clean_index = rng.integers(len(clean[0]), size=rows - n_poisoned)
        poisoned_index = rng.integers(len(poisoned[0]), size=n_poisoned)
        arrays = []
        for clean_RT, poisoned_RT in zip(clean, poisoned, strict=True):
            arrays.append(np.concatenate([clean_RT[clean_index], poisoned_RT[poisoned_index]]))
        hits += e_values.log_e_value(arrays[0], arrays[1], arrays[2:]) >= threshold
    return hits / draws


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


def _least(detects: Detects, rows: int) -> tuple[float, float]:
    """The least contamination rate that is detected in this many rows, and the rows needed.

    The second number is that of rows which would be detected if all of them were poisoned.
    """
    least = next((rate for rate in CONTAMINATION_RATES if detects(rows, rate)), inf)
    for factor in ROW_FACTORS:
        if detects(rows * factor, 1.0):
            return least, float(rows * factor)
    return least, inf
