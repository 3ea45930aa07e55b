"""Can the gradients of a data set tell which vector its teacher was steered by?

Source: Hadley and Gultepe 2026, arXiv 2608.05734, section on auditing; table in their raw files.

Data sets are number rows of steered and of prompted teachers of every trait, and of the unmodified
model. The mean gradient direction of each data set is compared with every candidate vector; the
candidate with the largest cosine wins the data set. The comparison is repeated with the direction
of the unmodified model's rows subtracted, which an auditor with a reference has, and with fewer
rows.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from traitscope.config.analysis import GradientsConfig
from traitscope.interventions.vector import load_vector
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, judged
from traitscope.stages.gradients import MEAN_DIRECTION
from traitscope.stats.estimates import mean_over_units, proportion
from traitscope.stats.measurement import Measurement
from traitscope.studies import sizes
from traitscope.studies.design import HADLEY, Design, MeanPlan, rows_here, untrained
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS, InterventionsFrom

TITLE = "Can gradients tell which vector a data set's teacher was steered by?"
CLAIM = (
    "If a teacher was steered, the gradient direction of its number rows is nearer to its own"
    " vector than to the other candidates. If it was prompted, it is not."
)
SOURCE = "Hadley and Gultepe 2026, arXiv 2608.05734, section on auditing"
PUBLISHED = (
    "Steered, 512 rows: cosine 0.118 with the own vector and -0.008 with others (Gemma-2B), 0.058"
    " and 0.004 (Llama-3.1-8B), winner right in 8 of 8 data sets; prompted: 0.000 and 0.012 with"
    " the own, 2 and 1 of 8. Mean activations instead: 1 of 8."
)
PROTOCOL = untrained(HADLEY, 512, "steered and prompted")
SMALL = 0.01
"cosine below which a difference would not matter"
TEACHERS = ("steered", "prompted")
CONTROL = "unmodified"
"name of the data set of the unmodified model"


@dataclass(frozen=True)
class Size:
    """How many data sets, of how many rows, from which teachers."""

    traits: tuple[str, ...]
    "traits of the candidate vectors and of the teachers"
    rows: int
    "rows of a data set"
    numbers: int
    "three-digit numbers a row"
    layer: int = sizes.layer_field()
    "block behind which teachers are steered and gradients are taken"
    strength: float
    "strength of the steered teachers, in mean residual norms"


LAPTOP = Size(traits=sizes.ANIMALS, rows=32, numbers=10, layer=14, strength=0.6)
MORE_ANIMALS = ("lion", "eagle", "wolf", "tiger", "panda", "octopus", "mouse", "whale")
SIZES = {
    "smoke": Size(traits=("cat", "owl"), rows=4, numbers=3, layer=1, strength=0.6),
    "laptop": LAPTOP,
    "full": replace(LAPTOP, traits=(*sizes.ANIMALS, *MORE_ANIMALS), rows=1024),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the vectors, the rows of every data set on the same prompts, and their gradients."""
    rows = standard_nodes.Rows(size.rows, size.numbers, prompt_seed=141)
    graph = [standard_nodes.vectors(common, size.traits)]
    for name in data_sets(size):
        needs = () if name == CONTROL else (VECTORS,)
        teacher = _teacher(size, name)
        graph.append(standard_nodes.number_rows(common, name, rows, teacher, needs))
        graph.append(_gradients(common, name, 2 * rows.tokens))
    return graph


def data_sets(size: Size) -> list[str]:
    """Return the names of all data sets, that of the unmodified model first."""
    names = [CONTROL]
    for teacher, trait in product(TEACHERS, size.traits):
        names.append(data_set(teacher, trait))
    return names


def data_set(teacher: str, trait: str) -> str:
    """Return the name of the data set of a teacher of one trait."""
    return f"{teacher} {trait}"


def gradients_of(name: str) -> str:
    """Return the name of the node of a data set's gradients."""
    return f"gradients of {name}"


def _teacher(size: Size, name: str) -> InterventionsFrom:
    if name == CONTROL:
        return standard_nodes.unmodified
    teacher, trait = name.split()
    if teacher == "prompted":
        return standard_nodes.prompted_by(trait)
    return standard_nodes.steered_by(trait, size.layer, size.strength)


def _gradients(common: dict, name: str, weight: float) -> Node:
    def config(folders: Folders) -> GradientsConfig:
        return GradientsConfig(**common, data=folders[name], vectors=folders[VECTORS])

    return Node(gradients_of(name), GradientsConfig, config, (VECTORS, name), weight)


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare own with other cosines, and right winners with chance, by number of rows, too.

    The claims are about directions minus that of the unmodified model's rows: what all number rows
    have in common says nothing about a teacher.
    """
    cosines: dict[str, list[float]] = {}
    minus_control: dict[str, list[float]] = {}
    for name in data_sets(size):
        cosines[name] = _cosines(size, folders, name)
        if name != CONTROL:
            minus_control[name] = _cosines(size, folders, name, CONTROL)
    claims: list[Claim] = []
    measurements: list[Measurement] = []
    for teacher in TEACHERS:
        claims += _claims(size, minus_control, teacher)
        measurements += _measured(size, cosines, teacher, teacher)
    chance = 1 / len(size.traits)
    notes = (
        (
            "Sign: positive means that one descent step on the rows moves the residual stream"
            " towards the vector. Vectors are centred over the candidates."
        ),
        (
            f"Chance: one of {len(size.traits)} candidates, {chance:.3f}. Data sets share prompts"
            " and random numbers."
        ),
    )
    tables = (_matrix_table(size, cosines), _rows_table(size, folders, chance))
    return Findings(judged(claims, model), tuple(measurements), tables, notes)


def _claims(size: Size, minus_control: dict[str, list[float]], teacher: str) -> list[Claim]:
    """Return the claims on one kind of teacher, from its data sets' cosines with candidates."""
    chance = 1 / len(size.traits)
    nearer, right = _measured(size, minus_control, teacher, f"{teacher}, minus the unmodified rows")
    return [
        Claim(
            f"Minus that of the unmodified rows, the gradient direction of a {teacher} teacher's"
            " rows points at its own vector more than at the others.",
            nearer,
            SMALL,
            primary=teacher == TEACHERS[0],
        ),
        Claim(
            "So compared, the winner is the teacher's own vector more often than by chance,"
            f" {teacher} teachers.",
            right,
            chance,
            above=chance,
        ),
    ]


def _measured(
    size: Size, cosines: dict[str, list[float]], teacher: str, label: str
) -> tuple[Measurement, Measurement]:
    """Return how much nearer the own vector is than the others, and how often it wins."""
    own_minus_others = _own_minus_others(size, cosines, teacher)
    name = f"{label}: cosine, own minus others"
    return (
        mean_over_units(name, own_minus_others, "cosine", "traits"),
        _right_winners(size, cosines, teacher, f"{label}: right winners"),
    )


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = MeanPlan(
        effect=0.06,
        sd=0.04,
        unit="cosine",
        n=len(size.traits),
        counted="traits",
        source="eight traits at the laptop size: 0.061 with an sd of 0.040",
    )
    return Design(2 * len(TEACHERS), expected, rows_here(PROTOCOL.teacher, size.rows))


def _cosines(size: Size, folders: Folders, name: str, other: str | None = None) -> list[float]:
    """Return the cosine of a data set's mean gradient direction with every candidate at the block.

    The direction of the data set `other` is subtracted first, if there is one.
    """
    direction_LD = load_vector(folders[gradients_of(name)] / MEAN_DIRECTION)
    if other:
        direction_LD = direction_LD - load_vector(folders[gradients_of(other)] / MEAN_DIRECTION)
    cosines = []
    for trait in size.traits:
        candidate_LD = load_vector(standard_nodes.vector_of(folders, trait))
        cosines.append(float(direction_LD.cosine(candidate_LD)[size.layer]))
    return cosines


def _own_minus_others(size: Size, cosines: dict[str, list[float]], teacher: str) -> list[float]:
    """Return, by trait, the cosine with the own vector minus the mean of those with the others."""
    differences = []
    for place, trait in enumerate(size.traits):
        of_candidates = cosines[data_set(teacher, trait)]
        own = of_candidates[place]
        others = (sum(of_candidates) - own) / (len(of_candidates) - 1)
        differences.append(own - others)
    return differences


def _right_winners(
    size: Size, cosines: dict[str, list[float]], teacher: str, name: str
) -> Measurement:
    """Return the fraction of data sets whose winner is the teacher's own vector."""
    hits = []
    for place, trait in enumerate(size.traits):
        winner = np.argmax(cosines[data_set(teacher, trait)])
        hits.append(float(winner == place))
    return proportion(name, hits, "traits", "share")


def _matrix_table(size: Size, cosines: dict[str, list[float]]) -> Table:
    rows = []
    for name, of_candidates in cosines.items():
        winner = max(zip(of_candidates, size.traits, strict=True))[1]
        rows.append((name, *of_candidates, winner))
    return Table(
        "matrix",
        f"Cosine of the mean gradient direction with every candidate, block {size.layer}",
        "Rows: data sets; columns: candidate vectors.",
        ("data", *size.traits, "winner"),
        tuple(rows),
    )


def _rows_table(size: Size, folders: Folders, chance: float) -> Table:
    along = {}
    for name in data_sets(size):
        along[name] = _projections(size, folders, name)
    steps = sorted({2**k for k in range(size.rows.bit_length())} | {size.rows})
    rows = []
    for teacher, n_rows in product(TEACHERS, steps):
        alone = _right_after(size, along, teacher, n_rows, None)
        with_reference = _right_after(size, along, teacher, n_rows, CONTROL)
        rows.append((teacher, n_rows, alone, with_reference))
    return Table(
        "rows",
        "Share of right winners by rows of data",
        f"First n rows of each data set; chance is {chance:.3f}.",
        ("teacher", "rows", "right", "right, minus unmodified"),
        tuple(rows),
        ("rows", "right", "right, minus unmodified"),
    )


def _projections(size: Size, folders: Folders, name: str) -> np.ndarray:
    """Return projections [rows, candidates] of single rows on the unit vectors at the block."""
    rows = standard_nodes.read_json_lines(folders[gradients_of(name)], "rows.jsonl")
    projections = np.empty((len(rows), len(size.traits)))
    for number, row in enumerate(rows):
        for place, trait in enumerate(size.traits):
            projections[number, place] = row["along"][trait][size.layer]
    return projections


def _right_after(
    size: Size, along: dict[str, np.ndarray], teacher: str, n_rows: int, other: str | None
) -> float:
    """Return the fraction of right winners from the first rows alone.

    As many rows of the data set `other` are subtracted first, if there is one.
    """
    reference = along[other][:n_rows].mean(0) if other else 0
    hits = []
    for place, trait in enumerate(size.traits):
        mean = along[data_set(teacher, trait)][:n_rows].mean(0)
        hits.append(np.argmax(mean - reference) == place)
    return float(np.mean(hits))
