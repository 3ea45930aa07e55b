"""What an arm leaves of the trait, what it costs, and whether plain training does as well.

Everything is paired by seed. The rise of an arm is log P(trait) of its students minus that of its
controls, which read clean rows under the same defence. The task loss of an arm is that of the
students of the teacher's rows.

    removed share    1 - rise(arm) / rise(undefended), with Fieller's interval
    below plain      what plain training leaves at the same task loss, minus what the arm leaves
    below matched    what the matched arm leaves, minus what the arm leaves

Plain training is a curve of trait against task loss: no training, stopped early, lower rates. It is
drawn for each seed from points in between. An arm that learns the task better than plain training
does is compared with plain training to its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from traitscope.stats.contrasts.ratios import ratio_of_means
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings
from traitscope.studies.defences.arms import BY_NAME, UNDEFENDED, Arm
from traitscope.studies.defences.data import Threat
from traitscope.studies.defences.students import answers_name, task_name
from traitscope.workflow.graph import Folders
from traitscope.workflow.standard_nodes import read_json_lines


@dataclass(frozen=True)
class Cell:
    """An arm on one threat, by seed."""

    arm: Arm
    """The arm."""
    rises: tuple[float, ...]
    """log P(trait), students minus controls, in nats."""
    losses: tuple[float, ...]
    """Loss of the task, in nats a token."""


@dataclass(frozen=True)
class ThreatCells:
    """All arms on one threat."""

    threat: Threat
    """Who wrote rows."""
    cells: dict[str, Cell]
    """Arms by name."""
    untrained_losses: tuple[float, ...]
    """Loss of the task of the unmodified model, by seed: always the same."""

    @property
    def undefended(self) -> Cell:
        """Plain training to its end."""
        return self.cells[UNDEFENDED]


def read_cells(
    folders: Folders, threat: Threat, seeds: Sequence[int], arms: Sequence[Arm]
) -> ThreatCells:
    """Return what the sealed runs say of some arms on one threat."""
    cells = {arm.name: _cell(folders, arm, threat, seeds) for arm in arms}
    node = task_name(BY_NAME[UNDEFENDED], threat, seeds[0])
    untrained = _loss(folders, node, "base")
    return ThreatCells(threat, cells, (untrained,) * len(seeds))


def _cell(folders: Folders, arm: Arm, threat: Threat, seeds: Sequence[int]) -> Cell:
    rises, losses = [], []
    for seed in seeds:
        pair = (seed, answers_name(arm, threat, seed), answers_name(arm, None, seed))
        rises.append(readings.rise(folders, arm.name, [pair]).estimate)
        losses.append(_loss(folders, task_name(arm, threat, seed), "under"))
    return Cell(arm, tuple(rises), tuple(losses))


def _loss(folders: Folders, node: str, side: str) -> float:
    """Return the loss of the rows of a likelihood node, in nats a token."""
    total, tokens = 0.0, 0
    for row in read_json_lines(folders[node], "rows.jsonl"):
        total -= row[side]
        tokens += row["tokens"]
    return total / tokens


def rise(cell: Cell) -> Measurement:
    """Return what an arm leaves of the trait, over seeds."""
    return mean_over_units(f"{cell.arm.name}: students minus controls", cell.rises, "nats")


def cost(cells: ThreatCells, cell: Cell) -> Measurement:
    """Return the task loss of an arm minus that of undefended students, over seeds."""
    differences = np.subtract(cell.losses, cells.undefended.losses).tolist()
    name = f"{cell.arm.name}: task loss minus that of undefended students"
    return mean_over_units(name, differences, "nats a token")


def removed_share(cells: ThreatCells, cell: Cell) -> Measurement:
    """Return the fraction of the trait that an arm removes.

    It is undefined where the undefended students' rise may be zero.
    """
    undefended = cells.undefended.rises
    removed = np.subtract(undefended, cell.rises).tolist()
    return ratio_of_means(f"{cell.arm.name}: share of the trait removed", removed, undefended)


def below_plain(cells: ThreatCells, cell: Cell) -> Measurement:
    """Return what plain training leaves at the task loss of an arm, minus what the arm leaves."""
    differences = []
    for place, loss in enumerate(cell.losses):
        plain = plain_rise(cells, place, loss)
        differences.append(plain - cell.rises[place])
    return mean_over_units(f"{cell.arm.name}: below plain training", differences, "nats")


def plain_rise(cells: ThreatCells, place: int, loss: float) -> float:
    """Return the rise of plain training of one seed at a task loss.

    It is interpolated between the plain arms and no training, and constant beyond them.
    """
    points = plain_points(cells, place)
    losses = [point[0] for point in points]
    rises = [point[1] for point in points]
    return float(np.interp(loss, losses, rises))


def plain_points(cells: ThreatCells, place: int) -> list[tuple[float, float]]:
    """Return (task loss, rise) of plain training of one seed, by rising loss."""
    points = [(cells.untrained_losses[place], 0.0)]
    for cell in cells.cells.values():
        if cell.arm.is_plain:
            points.append((cell.losses[place], cell.rises[place]))
    return sorted(points)


def mean_point(cell: Cell) -> tuple[float, float]:
    """Return the mean (task loss, rise) of an arm."""
    return fmean(cell.losses), fmean(cell.rises)


def below_matched(cells: ThreatCells, cell: Cell) -> Measurement:
    """Return what the matched arm leaves minus what the arm leaves, over seeds.

    An arm without a matched one is compared with plain training.
    """
    if not cell.arm.matched:
        return below_plain(cells, cell)
    matched = cells.cells[cell.arm.matched]
    differences = np.subtract(matched.rises, cell.rises).tolist()
    name = f"{cell.arm.name}: below {cell.arm.matched}"
    return replace(mean_over_units(name, differences, "nats"), counted="seeds")
