"""Teachers of several traits, four kinds each: how they are made, and which strength is chosen.

A prompted teacher has a system prompt. A steered one has the extracted vector, at the block and the
strength that name its trait most. A fine-tuned one
learnt answers of the prompted model. The last is steered by a vector that was trained on the same
answers. The strength of trained vectors is the greatest whose number rows still pass the filter.
"""

from functools import partial
from typing import Protocol

from traitscope.config.recipe import Recipe
from traitscope.config.rows.filtering import FilterRules
from traitscope.config.stages import FilterConfig, GenerateConfig
from traitscope.data.traits import trait_name
from traitscope.studies.teachers import scanned
from traitscope.studies.teachers.positive_control import teacher_name
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import InterventionsFrom

TEACHERS = ("prompted", "steered", "fine-tuned", "trained vector")
"kinds of teacher"
STRENGTH = "strength"
"""node of the filtered free rows of the unmodified model; followed by a multiple, of those of the
trained vector"""
FREE_ROW_TOKENS = 130
"tokens of a free number row and its prompt"


class KindSize(Protocol):
    """What the teachers need of a study's size."""

    traits: tuple[str, ...]
    taught: int
    numbers: int
    layer: int
    tokens: int
    tuned: Recipe
    trained: Recipe
    multiples: tuple[float, ...]
    tried: int
    passing: float


def taught(size: KindSize) -> tuple[str, ...]:
    """Return the traits that have teachers."""
    return size.traits[: size.taught]


def tuned_name(trait: str) -> str:
    """Return the name of the node of a trait's fine-tuned teacher."""
    return f"tuned on {trait_name(trait)}"


def trained_name(trait: str) -> str:
    """Return the name of the node of a trait's trained vector."""
    return f"vector of {trait_name(trait)}"


def student_name(kind: str, trait: str, seed: int) -> str:
    """Return the name of the node of a teacher's student."""
    return f"student of {teacher_name(kind, trait)}.{seed}"


def answers_name(kind: str, trait: str, asked: str, seed: int) -> str:
    """Return the name of a student's answers about a trait, its teacher's or another."""
    return f"{student_name(kind, trait, seed)} about {trait_name(asked)}"


def strength_nodes(size: KindSize, common: dict) -> list[Node]:
    """Build the filtered free rows of the unmodified model, and of every strength that is tried."""
    graph = _free_rows(size, common, STRENGTH, standard_nodes.unmodified, ())
    for multiple in size.multiples:
        scaled = partial(_scaled_vector, size, multiple, size.traits[0])
        needs = (trained_name(size.traits[0]),)
        graph += _free_rows(size, common, strength_name(multiple), scaled, needs)
    return graph


def _free_rows(
    size: KindSize,
    common: dict,
    name: str,
    interventions: InterventionsFrom,
    needs: tuple[str, ...],
) -> list[Node]:
    """Build free number rows under some interventions, and the node `name` that filters them."""
    raw = f"free rows, {name}"
    rules = FilterRules(max_count=size.numbers)

    def generated(folders: Folders) -> GenerateConfig:
        return GenerateConfig(
            **common,
            n=size.tried,
            prompt_seed=161,
            count=size.numbers,
            interventions=interventions(folders),
        )

    def passed(folders: Folders) -> FilterConfig:
        return FilterConfig(folders[raw], rules)

    return [
        Node(raw, GenerateConfig, generated, needs, size.tried * FREE_ROW_TOKENS),
        Node(name, FilterConfig, passed, (raw,), 1),
    ]


def strength_name(multiple: float) -> str:
    """Return the name of the filtered free rows at a multiple of the trained vector."""
    return f"{STRENGTH} {multiple:g}"


def _scaled_vector(
    size: KindSize, multiple: float, trait: str, folders: Folders
) -> tuple[str, ...]:
    """Return the intervention that adds a multiple of the trait's trained vector."""
    vector = folders[trained_name(trait)] / "student" / "vector.safetensors"
    return (standard_nodes.steered(vector, size.layer, multiple, scale="raw"),)


def needs_of(size: KindSize, kind: str, trait: str) -> tuple[str, ...]:
    """Return the nodes that a teacher is made of."""
    match kind:
        case "prompted":
            return ()
        case "steered":
            return scanned.needs(trait)
        case "fine-tuned":
            return (tuned_name(trait),)
    return (trained_name(trait), STRENGTH, *map(strength_name, size.multiples))


def teacher(size: KindSize, kind: str, trait: str, folders: Folders) -> tuple[str, ...]:
    """Return the interventions of a teacher."""
    match kind:
        case "prompted":
            return (standard_nodes.prompted(trait),)
        case "steered":
            return scanned.interventions(trait, folders)
        case "fine-tuned":
            return standard_nodes.trained_by(tuned_name(trait))(folders)
    return _scaled_vector(size, chosen_strength(size, folders), trait, folders)


def pass_rate(folders: Folders, node: str) -> float:
    """Return the fraction of rows that pass the filter."""
    summary = standard_nodes.read_json(folders, node)
    return summary["kept"] / summary["rows"]


def chosen_strength(size: KindSize, folders: Folders) -> float:
    """Return the greatest multiple whose rows pass nearly as often as the unmodified model's.

    It is the least multiple where none passes as often. It is 1 where no row of the unmodified
    model passes: then a pass rate cannot choose.
    """
    enough = size.passing * pass_rate(folders, STRENGTH)
    if not enough:
        return 1.0
    passing = []
    for multiple in size.multiples:
        if pass_rate(folders, strength_name(multiple)) >= enough:
            passing.append(multiple)
    return max(passing, default=size.multiples[0])
