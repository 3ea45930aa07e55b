"""Aiming: at which blocks the candidates' vectors may have been added, so that teachers steered there are tried as an explanation.

To first order a teacher steered by v behind a block pushes a student along F v, F being the Fisher matrix there; so of all candidates
and blocks those are tried whose vector, as it is or whitened by F, the rows are pushed along most.  No format is taken off the
pushes: aiming costs no error, for what is not tried counts as nothing in the odds (evidence.py), and the odds do not see a format.

Shapes: B blocks of rows, K rows a prompt (the audited one first), L layers, T traits, J kinds of projection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import calibration, evidence
from traitscope.odds import part
from traitscope.parts import Groups, Parts
from traitscope.traits import load_trait

MOST = 12
"pairs of a candidate and a block that are tried"
HALF, FULL = 0.5, 1.0
"at which they are tried, of a planted teacher's strength"
PROMPT = "its prompt"
"how a teacher is called that a candidate's prompt makes"
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
    """Blocks at which candidates may be steered: every second of 30, from a quarter of the depth to 0.7 of it."""
    return tuple(range(round(blocks / 4), round(0.7 * blocks) + 1, max(1, round(blocks / 15))))


def pulls(names: Sequence[str], candidates: Sequence[str], values_BKLTJ: np.ndarray, layers: Sequence[int]) -> Pulls:
    """How far the rows push along every candidate's vector at the blocks where it may be steered; `names` are those of the vectors."""
    flat = values_BKLTJ.reshape(*values_BKLTJ.shape[:2], -1)
    z_LT = calibration.z_scores(flat).reshape(values_BKLTJ.shape[2:]).max(2)
    return {(name, layer): float(z_LT[layer, list(names).index(name)]) for name in candidates for layer in layers}


def pulls_of(parts: Parts, groups: Groups, units_LTJD: np.ndarray, seed: int, first: int = 0) -> Pulls:
    """The same of an audit's rows, or of the `first` placebo beside the others; `units_LTJD` are `evidence.directions`."""
    sums_BKLD = evidence.block_sums(groups.stores[first:], [pair[first:] for pair in groups.pairs], seed=seed)
    return pulls(list(parts.vectors), [load_trait(name).name for name in parts.plain["traits"]], evidence.along(sums_BKLD, units_LTJD), grid(len(units_LTJD)))


def mixture(poisoned: Pulls, clean: Pulls, share: float) -> Pulls:
    """About what rows are pushed along of which `share` is poisoned."""
    return {key: share * z + (1 - share) * clean[key] for key, z in poisoned.items()}


def aims(found: Pulls) -> list[tuple[str, int]]:
    """The candidates and blocks to try, where the push is largest first."""
    return sorted(found, key=lambda key: -found[key])[:MOST]


def cells(places: Sequence[tuple[str, int]], strength: float) -> list[Cell]:
    """The teachers to try there, of a planted teacher's strength and of half of it."""
    return [Cell(name, layer, share * strength) for name, layer in places for share in (HALF, FULL)]


def weights(prompts: Mapping[str, Sequence[str]], steered: Sequence[Cell], layers: Sequence[int]) -> dict[str, float]:
    """Of every teacher, in the mean that e is: half for prompts, by candidate, as many as the one with the most has; half for all that may
    be steered at those blocks.  What is not tried counts as nothing."""
    most = max(map(len, prompts.values()), default=0)
    words = {how: 0.5 / most for hows in prompts.values() for how in hows}
    return words | {str(cell): 0.5 / len(layers) / len((HALF, FULL)) for cell in steered}


def steered(parts: Parts, about: Mapping[str, Any]) -> dict[Cell, Path]:
    """Folders with choices under every teacher of an `aimed` of the audit's file."""
    return {Cell(*cell): part(parts.run(about["run"]), n) for n, cell in enumerate(about.get("cells", ()))}


def told(parts: Parts, prompts: Mapping[str, Mapping[str, str]], *aimed: Mapping[str, Any]) -> dict[str, dict[str, Path]]:
    """Folders with choices under every teacher, by candidate."""
    found = {name: {how: parts.run(path) for how, path in teachers.items()} for name, teachers in prompts.items()}
    for about in aimed:
        for cell, path in steered(parts, about).items():
            found.setdefault(cell.trait, {})[str(cell)] = path
    return found
