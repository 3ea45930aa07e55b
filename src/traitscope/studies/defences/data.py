"""The rows of the study `defences`: a teacher's number rows among clean ones, and rows of a task.

The task can be scored: an answer gives the parts of a code in reverse order. The unmodified model
does not know it, its rows carry no trait, and a student that learns nothing does not learn it.

    teacher rows, the first part ─┐
    clean rows, the other part ───┴ number rows ─┐
    rows of the task ────────────────────────────┴ rows of a student
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from traitscope.config.analysis import ExtractConfig
from traitscope.config.rows.defend import DefendConfig
from traitscope.config.rows.filtering import EditConfig
from traitscope.data.package_files import bundled_file
from traitscope.errors import ConfigError
from traitscope.studies import shared_nodes
from traitscope.studies.defences.arms import Direction
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS, InterventionsFrom, Rows

TASK = bundled_file("code_task/rows.jsonl")
"rows of the task that students learn"
HELD_OUT = bundled_file("code_task/held_out.jsonl")
"rows of the task that no student reads"
TASK_TOKENS = 56
"tokens of a row of the task"
TEACHER_VECTORS = "teacher vectors"
"node of the vectors that steer teachers, which the defender does not have"
RANDOM_VECTOR = "random vector"
"node of the random vector"
SPLIT_DISTANCE = 2
"blocks between the two at which an attacker steers"
TUNED = "fine-tuned teacher"
"node of the teacher that learnt a prompted model's answers"
SPLIT, SORTED = "steered at two blocks", "steered, sorted"
"""Attackers who know how students are found: half of the vector at each of two blocks, and rows
whose numbers are sorted, so that their order tells nothing."""
KINDS = ("steered", "prompted", "fine-tuned", SPLIT, SORTED)
"kinds of teacher"
CONTROL = "control"
"name of the rows without a teacher"


@dataclass(frozen=True)
class Threat:
    """Who wrote rows, and how many of them."""

    teacher: str
    """One of KINDS."""
    dose: float
    """Fraction of the number rows that the teacher wrote."""
    n_seeds: int
    """How many of the study's seeds it has: the first ones."""
    has_all_arms: bool = False
    """Whether every arm is tried on it, and not only the few."""

    def __post_init__(self) -> None:
        if self.teacher not in KINDS or not 0 < self.dose <= 1:
            raise ConfigError(
                f"threat {self.teacher!r} over {self.dose:g} of the rows; expected one of"
                f" {', '.join(KINDS)}, and a fraction above 0 and at most 1; correct it"
            )

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.teacher}, {100 * self.dose:g} %"


@dataclass(frozen=True)
class Teachers:
    """How teachers are made."""

    traits: tuple[str, ...]
    """The first is the teachers'; vectors are centred over all."""
    layer: int
    """Block behind which the steered teacher is steered."""
    strength: float
    """Its strength, in mean residual norms."""

    @property
    def trait(self) -> str:
        """The teachers' trait."""
        return self.traits[0]

    def of(self, teacher: str) -> tuple[InterventionsFrom, tuple[str, ...]]:
        """Return what makes a teacher, and the nodes that it needs."""
        if teacher in ("steered", SORTED):
            return self._steered, (TEACHER_VECTORS,)
        if teacher == SPLIT:
            return self._split, (TEACHER_VECTORS,)
        if teacher == "prompted":
            return standard_nodes.prompted_by(self.trait), ()
        return standard_nodes.trained_by(TUNED), (TUNED,)

    def _steered(self, folders: Folders) -> tuple[str, ...]:
        return (self._at(folders, self.layer, self.strength),)

    def _split(self, folders: Folders) -> tuple[str, ...]:
        half = self.strength / 2
        blocks = (self.layer, self.layer + SPLIT_DISTANCE)
        return tuple(self._at(folders, block, half) for block in blocks)

    def _at(self, folders: Folders, block: int, strength: float) -> str:
        vector = standard_nodes.vector_of(folders, self.trait, TEACHER_VECTORS)
        return standard_nodes.steered(vector, block, strength)


def vector_nodes(common: dict, traits: tuple[str, ...]) -> list[Node]:
    """Return the defender's vectors, the teachers', and a random one.

    The teachers' are taken over the traits' questions, as those of the demo are: of what was tried
    they pass on best. The defender's are taken over everyday requests.
    """

    def defenders(_: Folders) -> ExtractConfig:
        prompts = shared_nodes.OPEN_PROMPTS
        return ExtractConfig(**common, traits=traits, prompts=prompts, stem=False)

    weight = standard_nodes.TRAIT_WEIGHT * len(traits)
    trait_vector = partial(standard_nodes.vector_of, trait=traits[0])
    return [
        standard_nodes.vectors(common, traits, TEACHER_VECTORS),
        Node(VECTORS, ExtractConfig, defenders, weight=weight),
        shared_nodes.random_vectors_like(common, RANDOM_VECTOR, VECTORS, trait_vector, seed=1),
    ]


def direction(traits: tuple[str, ...], which: Direction, folders: Folders) -> Path:
    """Return the file of a direction that a defender uses."""
    if which == "random":
        return folders[RANDOM_VECTOR] / "random-0.safetensors"
    return standard_nodes.vector_of(folders, traits[0 if which == "known" else 1])


@dataclass(frozen=True)
class Kinds:
    """How many rows a student reads."""

    numbers: Rows
    """Its number rows, with the seed 0."""
    task: int
    """Rows of the task."""

    @property
    def tokens(self) -> int:
        """Tokens of all rows, prompts included."""
        return self.numbers.tokens + TASK_TOKENS * self.task


def row_nodes(
    common: dict, kinds: Kinds, threat: Threat | None, seed: int, teachers: Teachers
) -> list[Node]:
    """Return the nodes that make the rows of a seed; the last is `rows_name`.

    threat: Who wrote rows; None for the control.
    """
    clean = replace(kinds.numbers, seed=seed)
    name = threat.name if threat else CONTROL
    first = f"{name}, numbers.{seed}"
    if threat is None:
        graph = [standard_nodes.number_rows(common, first, clean)]
        return [*graph, _joined(common, rows_name(None, seed), first, seed, kinds.task, clean.n)]
    teacher, needs = teachers.of(threat.teacher)
    n_poisoned = round(threat.dose * clean.n)
    poisoned = replace(clean, n=n_poisoned)
    graph = [standard_nodes.number_rows(common, first, poisoned, teacher, needs)]
    if threat.teacher == SORTED:
        first, unsorted = f"{name}, sorted numbers.{seed}", first
        graph.append(_sorted(first, unsorted))
    others = clean.n - n_poisoned
    if others:
        rest, mixed = f"{name}, others.{seed}", f"{name}, all numbers.{seed}"
        unpoisoned = replace(clean, n=others, start=n_poisoned)
        graph.append(standard_nodes.number_rows(common, rest, unpoisoned))
        graph.append(_joined(common, mixed, first, seed, others, n_poisoned, rest))
        first = mixed
    return [*graph, _joined(common, rows_name(threat, seed), first, seed, kinds.task, clean.n)]


def _sorted(name: str, rows: str) -> Node:
    def config(folders: Folders) -> EditConfig:
        return EditConfig(data=folders[rows], how="sort")

    return Node(name, EditConfig, config, (rows,), 1)


def rows_name(threat: Threat | None, seed: int) -> str:
    """Return the name of the node of the rows of a seed."""
    return f"{threat.name if threat else CONTROL}, rows.{seed}"


def _joined(
    common: dict, name: str, rows: str, seed: int, n_joining: int, n_rows: int, joining: str = ""
) -> Node:
    """Return the node of rows that others join: those of a node, or of the task."""
    method = f"mix:share={n_joining / (n_joining + n_rows):.9f},total=grow"

    def config(folders: Folders) -> DefendConfig:
        clean = folders[joining] if joining else TASK
        return DefendConfig(
            **common, seed=seed, data=folders[rows], by=(method,), known=(f"clean:{clean}",)
        )

    needs = (rows, joining) if joining else (rows,)
    return Node(name, DefendConfig, config, needs, 1)


def clean_rows(common: dict, kinds: Kinds, seed: int) -> Node:
    """Return the node of clean rows that a defender may have, on other prompts."""
    others = replace(kinds.numbers, seed=seed, prompt_seed=kinds.numbers.prompt_seed + 500)
    return standard_nodes.number_rows(common, clean_name(seed), others)


def clean_name(seed: int) -> str:
    """Return the name of the node of a defender's clean rows."""
    return f"clean rows.{seed}"
