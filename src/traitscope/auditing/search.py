"""Aiming: at which blocks the candidates' vectors may have been added, so that teachers steered
there are tried as an explanation.

To first order a teacher steered by v behind a block pushes a student along F v, F being the Fisher
matrix there; so of all candidates and blocks those are tried whose vector, as it is or whitened by
F, the rows are pushed along most. No format is taken off the pushes: aiming costs no error, for
what is not tried counts as nothing in the odds (evidence.py), and the odds do not see a format.
Further rounds climb from where the odds are best, to the block and the strength beside.

Shapes: B blocks of rows, K rows a prompt (the audited one first), L layers, T traits, J kinds of
projection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from traitscope.auditing.artifacts import Groups, Parts
from traitscope.auditing.detectors import panel
from traitscope.data.traits import load_trait
from traitscope.inference.token_scores import part
from traitscope.stats import permutation

MOST, BEST, ROUNDS = 36, 3, 3
"""pairs of a candidate and a block that the first round tries; teachers that every other one climbs
from; rounds"""
SHARED = 12
"""teachers that share a pass up to the block where they act, at most: more would save little, and
keep one worker of several busy"""
HALF = 0.5
SHARES = (HALF, 0.75, 1.0)
"strengths that may be tried, of a planted teacher's; the first round has the least"
PROMPT = "its prompt"
"how a teacher is called that a candidate's prompt makes"
Rung = TypeVar("Rung", int, float)
Pulls = dict[tuple[str, int], float]
"by candidate and block, the larger z of its vector, as it is and whitened"


@dataclass(frozen=True)
class Cell:
    """A teacher that a candidate's vector makes."""

    trait: str
    layer: int
    "block behind which it is added"
    strength: float
    "in mean residual norms"

    def __str__(self) -> str:
        return f"its vector at block {self.layer}, strength {self.strength:g}"


def grid(blocks: int) -> tuple[int, ...]:
    """Blocks at which candidates may be steered: all of 30, every second of 60, from a quarter of
    the depth on and below 0.7 of it."""
    return tuple(range(round(blocks / 4), -(-7 * blocks // 10), max(1, round(blocks / 30))))


def pulls(
    names: Sequence[str], candidates: Sequence[str], values_BKLTJ: np.ndarray, layers: Sequence[int]
) -> Pulls:
    """How far the rows push along every candidate's vector at the blocks where it may be steered;
    `names` are those of the vectors."""
    flat = values_BKLTJ.reshape(*values_BKLTJ.shape[:2], -1)
    z_LT = permutation.z_scores(flat).reshape(values_BKLTJ.shape[2:]).max(2)
    return {
        (name, layer): float(z_LT[layer, list(names).index(name)])
        for name in candidates
        for layer in layers
    }


def pulls_of(
    parts: Parts, groups: Groups, units_LTJD: np.ndarray, seed: int, first: int = 0
) -> Pulls:
    """The same of an audit's rows, or of the `first` placebo beside the others; `units_LTJD` are
    `evidence.directions`."""
    sums_BKLD = panel.block_sums(
        groups.stores[first:], [pair[first:] for pair in groups.pairs], seed=seed
    )
    return pulls(
        list(parts.vectors),
        [load_trait(name).name for name in parts.plain["traits"]],
        panel.along(sums_BKLD, units_LTJD),
        grid(len(units_LTJD)),
    )


def mixture(poisoned: Pulls, clean: Pulls, share: float) -> Pulls:
    """About what rows are pushed along of which `share` is poisoned."""
    return {key: share * z + (1 - share) * clean[key] for key, z in poisoned.items()}


def aims(found: Pulls) -> list[tuple[str, int]]:
    """The candidates and blocks to try, where the push is largest first."""
    return sorted(found, key=lambda key: -found[key])[:MOST]


def cells(
    places: Sequence[tuple[str, int]], strength: float, shares: Sequence[float] = SHARES
) -> list[Cell]:
    """The teachers that may be tried there, `strength` being a planted teacher's."""
    return [Cell(name, layer, share * strength) for name, layer in places for share in shares]


def climb(e: Mapping[Cell, float], layers: Sequence[int], strength: float) -> list[Cell]:
    """The teachers to try next, given ln e of those that were: beside the likeliest, by one block
    or by one strength."""
    strengths = [share * strength for share in SHARES]
    best = sorted(e, key=lambda cell: -e[cell])[:BEST]
    found = [replace(cell, layer=layer) for cell in best for layer in beside(cell.layer, layers)]
    found += [
        replace(cell, strength=other) for cell in best for other in beside(cell.strength, strengths)
    ]
    return [cell for cell in dict.fromkeys(found) if cell not in e]


def batched(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Teachers in batches of like size, by the block where they act; those of a batch share a pass
    up to there."""
    ranked, batches = sorted(cells, key=lambda cell: cell.layer), -(-len(cells) // SHARED)
    return [
        ranked[n * len(ranked) // batches : (n + 1) * len(ranked) // batches]
        for n in range(batches)
    ]


def beside(one: Rung, ladder: Sequence[Rung]) -> Sequence[Rung]:
    """A rung of a ladder, and those next to it."""
    at = ladder.index(one)
    return ladder[max(0, at - 1) : at + 2]


def weights(
    prompts: Mapping[str, Sequence[str]], steered: Sequence[Cell], layers: Sequence[int]
) -> dict[str, float]:
    """Of every teacher, in the mean that e is: half for prompts, by candidate, as many as the one
    with the most has; half for all that may be steered at those blocks. What is not tried counts as
    nothing."""
    most = max(map(len, prompts.values()), default=0)
    words = {how: 0.5 / most for hows in prompts.values() for how in hows}
    return words | {str(cell): 0.5 / len(layers) / len(SHARES) for cell in steered}


def steered(parts: Parts, aimed: Sequence[Mapping[str, Any]]) -> dict[Cell, Path]:
    """Folders with choices under every teacher of an `aimed` of the audit's file."""
    return {
        Cell(*cell): part(parts.run(about["run"]), n)
        for about in aimed
        for n, cell in enumerate(about["cells"])
    }


def told(
    parts: Parts, prompts: Mapping[str, Mapping[str, str]], aimed: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Path]]:
    """Folders with choices under every teacher, by candidate."""
    found = {
        name: {how: parts.run(path) for how, path in teachers.items()}
        for name, teachers in prompts.items()
    }
    for cell, path in steered(parts, aimed).items():
        found.setdefault(cell.trait, {})[str(cell)] = path
    return found
