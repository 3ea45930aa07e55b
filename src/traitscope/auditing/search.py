"""The search for a steered teacher: which trait's vector was added, at which block and how
strongly.

To first order a teacher steered by v behind a block moves a student along F v, where F is the
Fisher matrix there. So the first round tries those candidates and blocks along whose vector, as it
is or whitened by F, the rows' gradients point most. Further rounds are a local search: the
neighbours, by one block or one strength, of the teachers with the largest e-values.

Gradients also see formats, e-values do not. The search does not inflate the error rate: a teacher
that is not tried counts as zero in the e-value (detectors/e_values.py).

Shapes: B blocks of rows, K rows a prompt (the audited one first), L blocks of the model, T traits,
J kinds of projection.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from traitscope.auditing.detectors import gradients
from traitscope.auditing.detectors.findings import PairedRows, Teacher
from traitscope.auditing.settings import search_blocks
from traitscope.stats import permutation

FIRST_ROUND = 36
"pairs of a candidate and a block that the first round tries"
BEST = 3
"teachers whose neighbours a further round tries"
ROUNDS = 3
"rounds of the search"
BATCH = 12
"""teachers that share a pass up to the block where they act, at most; more would save little and
keep one worker of several busy"""
HALF = 0.5
STRENGTHS = (HALF, 0.75, 1.0)
"strengths on the grid, as fractions of the largest; the first round tries the smallest"
Rung = TypeVar("Rung", int, float)
TraitBlock = tuple[str, int]
"a candidate and a block of the model"


@dataclass(frozen=True)
class PromptTeacher:
    """The model under a candidate's system prompt."""

    paraphrase: int | None = None
    "number of the paraphrase; None for the prompt itself"

    def __str__(self) -> str:
        if self.paraphrase is None:
            return "its prompt"
        number = f" {self.paraphrase}" if self.paraphrase else ""
        return f"a paraphrase of its prompt{number}"


@dataclass(frozen=True)
class GridPoint:
    """The model steered by a candidate's vector."""

    trait: str
    "name of the candidate"
    layer: int
    "block behind which its vector is added"
    strength: float
    "length of the added vector, in mean residual norms"

    def __str__(self) -> str:
        return f"its vector at block {self.layer}, strength {self.strength:g}"


def gradient_z(
    names: Sequence[str],
    candidates: Sequence[str],
    values_BKLTJ: np.ndarray,
    blocks: Sequence[int],
) -> dict[TraitBlock, float]:
    """z of the rows' gradients along every candidate's vector at every block of the search: the
    larger of the vector as it is and whitened. `names` are those of the vectors in `values`."""
    flat = values_BKLTJ.reshape(*values_BKLTJ.shape[:2], -1)
    z_LT = permutation.z_scores(flat).reshape(values_BKLTJ.shape[2:]).max(2)
    z = {}
    for name in candidates:
        column = list(names).index(name)
        for block in blocks:
            z[name, block] = float(z_LT[block, column])
    return z


def gradient_z_of(
    rows: PairedRows,
    names: Sequence[str],
    candidates: Sequence[str],
    directions_LTJD: np.ndarray,
    seed: int,
) -> dict[TraitBlock, float]:
    """`gradient_z` of paired rows, given the directions of the vectors `names`."""
    sums_BKLD = gradients.block_sums(rows.gradients, rows.pairs, seed=seed)
    values_BKLTJ = gradients.projected(sums_BKLD, directions_LTJD)
    return gradient_z(names, candidates, values_BKLTJ, search_blocks(len(directions_LTJD)))


def mixed_z(
    poisoned: Mapping[TraitBlock, float], clean: Mapping[TraitBlock, float], rate: float
) -> dict[TraitBlock, float]:
    """About the z of rows of which a fraction `rate` is poisoned."""
    return {key: rate * z + (1 - rate) * clean[key] for key, z in poisoned.items()}


def strongest_places(z: Mapping[TraitBlock, float]) -> list[TraitBlock]:
    """The candidates and blocks that the first round tries, largest z first."""
    return sorted(z, key=lambda key: -z[key])[:FIRST_ROUND]


def grid_points(
    places: Sequence[TraitBlock], strength: float, fractions: Sequence[float] = STRENGTHS
) -> list[GridPoint]:
    """The teachers that may be tried at some places; `strength` is the largest on the grid."""
    points = []
    for name, layer in places:
        for fraction in fractions:
            points.append(GridPoint(name, layer, fraction * strength))
    return points


def first_round(z: Mapping[TraitBlock, float], strength: float) -> list[GridPoint]:
    """The teachers of the first round: the strongest places at the smallest strength."""
    return grid_points(strongest_places(z), strength, STRENGTHS[:1])


def next_round(
    log_e: Mapping[GridPoint, float], blocks: Sequence[int], strength: float
) -> list[GridPoint]:
    """The teachers to try next: neighbours of the best ones by one block, then by one strength.

    `log_e` holds the log e-values of the teachers that were tried.
    """
    strengths = (np.array(STRENGTHS) * strength).tolist()
    best = sorted(log_e, key=lambda point: -log_e[point])[:BEST]
    near = []
    for point in best:
        for layer in neighbours(point.layer, blocks):
            near.append(replace(point, layer=layer))
    for point in best:
        for other in neighbours(point.strength, strengths):
            near.append(replace(point, strength=other))
    return [point for point in dict.fromkeys(near) if point not in log_e]


def search(
    first: Sequence[GridPoint],
    log_e_of: Callable[[GridPoint], float],
    blocks: Sequence[int],
    strength: float,
) -> list[GridPoint]:
    """All teachers that the search tries, when the e-value of any can be had at once."""
    log_e = {point: log_e_of(point) for point in first}
    for _ in range(ROUNDS - 1):
        for point in next_round(log_e, blocks, strength):
            log_e[point] = log_e_of(point)
    return list(log_e)


def batched(points: Sequence[GridPoint]) -> list[list[GridPoint]]:
    """Teachers in batches of like size, by the block where they act; those of a batch share a pass
    up to there."""
    ranked = sorted(points, key=lambda point: point.layer)
    batches = -(-len(points) // BATCH)
    parts = []
    for n in range(batches):
        start, end = n * len(ranked) // batches, (n + 1) * len(ranked) // batches
        parts.append(ranked[start:end])
    return parts


def neighbours(rung: Rung, ladder: Sequence[Rung]) -> Sequence[Rung]:
    """A rung of a ladder and those next to it."""
    place = ladder.index(rung)
    return ladder[max(0, place - 1) : place + 2]


def prior(
    prompts: Mapping[str, Sequence[PromptTeacher]],
    steered: Sequence[GridPoint],
    blocks: Sequence[int],
) -> dict[Teacher, float]:
    """Prior weight of every teacher in its candidate's e-value.

    Prompts share 1/2 equally, by the largest number of prompts that any candidate has. All grid
    points of a candidate share the other 1/2, also those that are not tried.
    """
    most = max(map(len, prompts.values()), default=0)
    weights: dict[Teacher, float] = {}
    for teachers in prompts.values():
        for teacher in teachers:
            weights[teacher] = 0.5 / most
    for point in steered:
        weights[point] = 0.5 / len(blocks) / len(STRENGTHS)
    return weights
