"""Steered teachers that have their trait: block and strength are chosen for each trait by a scan.

At one block and one strength for all, some vectors steer a model away from the words that they
stand for. The scan asks teachers only, so no student has a part in the choice. It asks the
questions of the positive control, so that control is a little too kind to the chosen teacher.
"""

from collections.abc import Sequence
from functools import partial

from traitscope.config.screen import SteerScanConfig
from traitscope.data.traits import trait_name
from traitscope.reporting.tables import Table
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import ANSWERS_WEIGHT, VECTORS, InterventionsFrom

Place = tuple[int, float]
"a block and a strength, in mean residual norms"


def scan_name(trait: str) -> str:
    """Return the name of the node of a trait's scan."""
    return f"scan of {trait_name(trait)}"


def scan(common: dict, trait: str, layers: tuple[int, ...], strengths: tuple[float, ...]) -> Node:
    """Build the scan of a trait's vector of the node VECTORS."""

    def config(folders: Folders) -> SteerScanConfig:
        vector = standard_nodes.vector_of(folders, trait)
        return SteerScanConfig(
            **common, trait=trait, vector=vector, layers=layers, alphas=strengths
        )

    weight = 2 * ANSWERS_WEIGHT * len(layers) * len(strengths)
    return Node(scan_name(trait), SteerScanConfig, config, (VECTORS,), weight)


def needs(trait: str) -> tuple[str, ...]:
    """Return the nodes that the teacher is made of."""
    return VECTORS, scan_name(trait)


def place(folders: Folders, trait: str) -> Place:
    """Return the coherent block and strength that name the trait most.

    Where none does so coherently, they are those of the greatest rise; the positive control then
    says what such a teacher has of the trait.
    """
    summary = standard_nodes.read_json(folders, scan_name(trait))
    best = summary["best"] or max(summary["cells"], key=lambda cell: cell["rise"]["estimate"])
    return best["layer"], best["alpha"]


def teacher(trait: str) -> InterventionsFrom:
    """Make the teacher that is steered at the place that its scan chose."""
    return partial(interventions, trait)


def interventions(trait: str, folders: Folders) -> tuple[str, ...]:
    """Return the steering at the place that the trait's scan chose."""
    layer, strength = place(folders, trait)
    return (standard_nodes.steered(standard_nodes.vector_of(folders, trait), layer, strength),)


def places_table(folders: Folders, traits: Sequence[str]) -> Table:
    """Return the table of where the teachers of some traits are steered."""
    rows = []
    for trait in traits:
        layer, strength = place(folders, trait)
        rows.append((trait_name(trait), layer, f"{strength:g}"))
    return Table(
        "places",
        "Steered teachers",
        "The coherent block and strength that name the trait most, asked of the teacher alone.",
        ("trait", "block", "strength"),
        tuple(rows),
    )
