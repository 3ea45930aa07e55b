"""The search for a steered teacher: which trait's vector was added, at which block and how
strongly.

To first order a teacher steered by v behind a block moves a student along F v, where F is the
Fisher matrix there. So the first round tries those candidates and blocks along whose vector, as it
is or whitened by F, the rows' gradients point most. Under the model itself the mean of the
gradients is zero. If they point nowhere, nothing is tried. Further rounds are a local search: the
neighbours, by one block or one strength, of the teachers with the largest e-values. The rounds read
a few rows; the best teachers are then scored on all of them.

The search does not inflate the error rate: a teacher that is not tried on all rows counts as zero
in the e-value (detectors/e_values.py).

Shapes: R rows, L blocks of the model, T traits, J kinds of projection, D d_model.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from traitscope.auditing.detectors.findings import Teacher
from traitscope.interventions.vector import Vector
from traitscope.stats import permutation

LEAST_Z = 3.0
"z of the gradients along a vector below which no steered teacher is tried there"
FIRST_ROUND = 24
"pairs of a candidate and a block that the first round tries, at most"
BEST = 3
"teachers whose neighbours a further round tries"
NEAR_ROUNDS = 2
"further rounds of the search"
FINALISTS = 4
"steered teachers that are scored on all rows"
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

    @property
    def kind(self) -> Hashable:
        """The number of the paraphrase, in a type of its own."""
        return self

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

    @property
    def kind(self) -> Hashable:
        """Where and how strongly it is steered."""
        return self.layer, self.strength

    def __str__(self) -> str:
        return f"its vector at block {self.layer}, strength {self.strength:g}"


def gradient_z(
    gradients_RLD: np.ndarray, vectors: Mapping[str, Vector], blocks: Sequence[int]
) -> dict[TraitBlock, float]:
    """z of the rows' negative gradients along every candidate's vector at every block.

    It is the mean over rows divided by its standard error. Of two values the larger one is taken:
    along the vector as it is, and whitened by the covariance of the gradients. Each half of the
    rows is whitened by the other half. Of one row no error is known: its z is 0.
    """
    if len(gradients_RLD) < 2:
        return {(name, block): 0.0 for name in vectors for block in blocks}
    z = {}
    for block in blocks:
        rows_RD = gradients_RLD[:, block].astype(np.float64)
        unit_TD = np.stack([vector.unit().rows_LD[block] for vector in vectors.values()])
        for values_RT in (rows_RD @ unit_TD.T.astype(float), _whitened_values(rows_RD, unit_TD)):
            error_T = values_RT.std(0, ddof=1) / len(values_RT) ** 0.5
            z_T = values_RT.mean(0) / np.maximum(error_T, 1e-300)
            for name, value in zip(vectors, z_T.tolist(), strict=True):
                z[name, block] = max(value, z.get((name, block), -np.inf))
    return z


def _whitened_values(rows_RD: np.ndarray, unit_TD: np.ndarray) -> np.ndarray:
    """Projections [R, T] of rows on directions that the other half of the rows whitens."""
    is_even_R = np.arange(len(rows_RD)) % 2 == 0
    values_RT = np.empty((len(rows_RD), len(unit_TD)))
    for own_R in (is_even_R, ~is_even_R):
        whitened_TD = permutation.whitened(unit_TD, rows_RD[~own_R])
        values_RT[own_R] = rows_RD[own_R] @ whitened_TD.T
    return values_RT


def mixed_z(
    poisoned: Mapping[TraitBlock, float], clean: Mapping[TraitBlock, float], rate: float
) -> dict[TraitBlock, float]:
    """About the z of rows of which a fraction `rate` is poisoned."""
    return {key: rate * z + (1 - rate) * clean[key] for key, z in poisoned.items()}


def strongest_places(z: Mapping[TraitBlock, float]) -> list[TraitBlock]:
    """The candidates and blocks that the first round tries, largest z first."""
    places = [place for place, value in z.items() if value >= LEAST_Z]
    return sorted(places, key=lambda place: -z[place])[:FIRST_ROUND]


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


def finalists(log_e: Mapping[GridPoint, float]) -> list[GridPoint]:
    """The teachers that are scored on all rows: those with the largest e-values on a few."""
    likely = [point for point, value in log_e.items() if value > 0]
    return sorted(likely, key=lambda point: -log_e[point])[:FINALISTS]


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
