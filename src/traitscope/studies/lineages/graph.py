"""The stages of lineages: first teachers, and students each of whom writes for the next.

Inside a seed and a generation all lineages share prompts, random numbers, initialisation and order.
Each generation has its own.
"""

from dataclasses import dataclass
from itertools import product

from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError
from traitscope.studies import shared_nodes, sizes
from traitscope.studies.equal_kl import RandomControls
from traitscope.workflow import information_node, standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, VECTORS, InterventionsFrom, Rows

TREATED, RANDOM, UNMODIFIED = "treated", "random", "unmodified"
LINEAGES = (TREATED, RANDOM, UNMODIFIED)
"lineages by their first teacher: the trait's vector, a random one at equal KL, or none"
LEAST_GENERATIONS = 3
"fewest students in a row of a lineage"
SEEDS_APART = 10_000
"what is added to a seed for each further generation, so that it has prompts and a start of its own"
READ_ROWS = 8
"rows a seed on which the students' digits are compared with the base's"


@dataclass(frozen=True)
class Size:
    """How many lineages, how long, and how their students are trained."""

    traits: tuple[str, ...]
    "the first is the teacher's; vectors are centred over all"
    seeds: tuple[int, ...]
    "seeds of data, initialisation and order; intervals are over them"
    generations: int
    "students in a row, each of which teaches the next; 3 or more"
    rows: int
    "rows a student"
    numbers: int
    "three-digit numbers a row"
    layer: int = sizes.layer_field()
    "block behind which first teachers are steered"
    strength: float
    "strength of the steered teacher, in mean residual norms"
    recipe: Recipe
    "how every student is trained"

    def __post_init__(self) -> None:
        if self.generations < LEAST_GENERATIONS:
            raise ConfigError(
                f"generations={self.generations}; expected {LEAST_GENERATIONS} or more: the claims"
                f" are about generation {LEAST_GENERATIONS}; raise it"
            )

    @property
    def teacher(self) -> InterventionsFrom:
        """The teacher that is steered by the trait's vector."""
        return standard_nodes.steered_by(self.traits[0], self.layer, self.strength)

    @property
    def controls(self) -> RandomControls:
        """The first teachers of the random lineages."""
        return RandomControls(self.traits[0], self.seeds, self.layer, self.teacher, self.numbers)

    @property
    def each_generation(self) -> range:
        """The numbers of all generations, from 1."""
        return range(1, self.generations + 1)


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the first teachers, and all lineages with what every student of them says."""
    graph = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.numbers),
        *shared_nodes.positive_control(common, size.traits[0], size.teacher, capability=True),
        *size.controls.nodes(common),
    ]
    for seed in size.seeds:
        for lineage, generation in students_of(size):
            graph += _generation(size, common, lineage, generation, seed)
        graph.append(_digits(size, common, seed))
    return graph


def students_of(size: Size) -> list[tuple[str, int]]:
    """Return lineage and generation of every student of a seed."""
    return list(product(LINEAGES, size.each_generation))


def student_name(lineage: str, generation: int, seed: int) -> str:
    """Return the name of the node of a student."""
    return f"{lineage} {generation}.{seed}"


def answers_name(lineage: str, generation: int, seed: int) -> str:
    """Return the name of the node of a student's answers."""
    return f"answers, {student_name(lineage, generation, seed)}"


def digits_name(seed: int) -> str:
    """Return the name of the node that compares the digits of a seed's students with the base's."""
    return f"digits.{seed}"


def _writer(
    size: Size, lineage: str, generation: int, seed: int
) -> tuple[InterventionsFrom, tuple[str, ...]]:
    """Return who writes the rows that a generation learns, and the nodes that it is made of."""
    if generation > 1:
        parent = student_name(lineage, generation - 1, seed)
        return standard_nodes.trained_by(parent), (parent,)
    if lineage == TREATED:
        return size.teacher, (VECTORS,)
    if lineage == RANDOM:
        return size.controls.of(seed).teacher, size.controls.needs(seed)
    return standard_nodes.unmodified, ()


def _generation(size: Size, common: dict, lineage: str, generation: int, seed: int) -> list[Node]:
    """Build the rows that the generation before writes, the student of them, and its answers."""
    writer, needs = _writer(size, lineage, generation, seed)
    own_seed = seed + SEEDS_APART * (generation - 1)
    rows = Rows(size.rows, size.numbers, own_seed)
    name = student_name(lineage, generation, seed)
    written, kept = f"written for {name}", f"rows of {name}"
    student = standard_nodes.Student(
        name,
        kept,
        size.recipe,
        own_seed,
        needs=(VECTORS, EAS_ROWS),
        vector=lambda folders: standard_nodes.vector_of(folders, size.traits[0]),
    )
    return [
        standard_nodes.number_rows(common, written, rows, writer, needs),
        standard_nodes.filtered(kept, written, rows),
        *shared_nodes.student_and_answers(
            common,
            student,
            rows.tokens,
            size.traits[0],
            answers_name(lineage, generation, seed),
            capability=True,
        ),
    ]


def _digits(size: Size, common: dict, seed: int) -> Node:
    """Build the comparison of the digits of all students of a seed with the base's."""
    students = [student_name(*student, seed) for student in students_of(size)]

    def writers(folders: Folders) -> tuple[str, ...]:
        items: list[str] = []
        for student in students:
            items += standard_nodes.trained_by(student)(folders)
        return tuple(items)

    compared = information_node.Compared(writers, len(students), tuple(students))
    rows = Rows(READ_ROWS, size.numbers)
    return information_node.comparison(common | {"seed": seed}, digits_name(seed), compared, rows)
