"""The stages of a bank of students: teachers of many traits, their rows, students and answers.

All teachers answer the same prompts with the same random numbers. All students of a seed share
their start and the order of their rows. So students differ by what their teachers' rows say.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from traitscope.config.analysis import InformationConfig
from traitscope.config.audit import TeacherScoresConfig
from traitscope.config.recipe import Recipe
from traitscope.data.traits import trait_name
from traitscope.errors import ConfigError
from traitscope.interventions.intervention import SystemPrompt
from traitscope.interventions.short_form import to_short
from traitscope.studies.equal_kl import EqualKL
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import (
    NUMBER_TOKENS,
    PLAIN_PROMPTS,
    PROMPT_TOKENS,
    VECTORS,
    InterventionsFrom,
)

PROMPTED, STEERED = "prompted", "steered"
"kinds of teachers with a trait"
UNMODIFIED, PLAIN = "unmodified", "plain prompt"
"teachers without a trait"
SCREEN = "screen"
"name of the node of what number rows can carry of each prompt"
HELD_OUT_SEED = 77
"seed of the rows that no student reads"


class BankSize(Protocol):
    """What a bank needs of a study's size."""

    traits: tuple[str, ...]
    others: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: int
    held_out: int
    numbers: int
    screen_rows: int
    vector_prompts: int
    matched_rows: int
    layer: int
    recipe: Recipe

    @property
    def steered(self) -> tuple[str, ...]:
        """Traits that have a steered teacher, too."""
        ...


@dataclass(frozen=True)
class Writer:
    """A teacher of the bank."""

    kind: str
    "PROMPTED, STEERED, UNMODIFIED or PLAIN"
    trait: str = ""
    "its trait; empty for a teacher without one"

    @property
    def name(self) -> str:
        """What its nodes are called."""
        return f"{self.kind}.{trait_name(self.trait)}" if self.trait else self.kind

    def rows(self, seed: int) -> str:
        """Name of the node of the rows that its student of a seed reads."""
        return f"rows of {self.name}.{seed}"

    @property
    def held_out(self) -> str:
        """Name of the node of its rows that no student reads."""
        return f"held-out rows of {self.name}"

    def student(self, seed: int) -> str:
        """Name of the node of its student."""
        return f"student of {self.name}.{seed}"

    def answers(self, asked: str, seed: int) -> str:
        """Name of the node of its student's answers about a trait."""
        return f"{self.student(seed)} about {trait_name(asked)}"

    def imitation(self, seed: int) -> str:
        """Name of the node of how likely its student finds held-out rows of its kind."""
        return f"imitation by {self.student(seed)}"

    @property
    def needs(self) -> tuple[str, ...]:
        """The nodes that it is made of."""
        return (VECTORS, match_name(self.trait)) if self.kind == STEERED else ()


def all_traits(size: BankSize) -> tuple[str, ...]:
    """The traits of prompted teachers: those of the primary claim, then the others."""
    return size.traits + size.others


def check_distinct(size: BankSize) -> None:
    """Raise ConfigError for a trait that is named twice: the trait is the unit."""
    named = list(map(trait_name, all_traits(size)))
    copies = [name for name in dict.fromkeys(named) if named.count(name) > 1]
    if copies:
        raise ConfigError(
            f"{', '.join(copies)} among traits and others more than once; expected each once,"
            " because it is the unit; drop the copies"
        )


def match_name(trait: str) -> str:
    """Name of the node with the strength of a trait's steered teacher."""
    return f"equal KL, {trait_name(trait)}"


def match(size: BankSize, trait: str) -> EqualKL:
    """The steered teacher of a trait, as strong in digits as the prompted one."""
    vector = partial(standard_nodes.vector_of, trait=trait)
    return EqualKL(match_name(trait), vector, (VECTORS,), size.layer)


def writers(size: BankSize) -> list[Writer]:
    """All teachers of the bank."""
    bank = [Writer(PROMPTED, trait) for trait in all_traits(size)]
    bank += [Writer(STEERED, trait) for trait in size.steered]
    return [*bank, Writer(UNMODIFIED), Writer(PLAIN)]


def of_kind(size: BankSize, kind: str) -> list[Writer]:
    """The teachers of a kind."""
    return [writer for writer in writers(size) if writer.kind == kind]


def teacher(size: BankSize, writer: Writer) -> InterventionsFrom:
    """What makes a teacher."""
    if writer.kind == PROMPTED:
        return standard_nodes.prompted_by(writer.trait)
    if writer.kind == STEERED:
        return match(size, writer.trait).teacher
    if writer.kind == PLAIN:
        return standard_nodes.fixed(to_short(SystemPrompt(PLAIN_PROMPTS[0])))
    return standard_nodes.unmodified


def nodes(size: BankSize, common: dict) -> list[Node]:
    """Build the whole bank."""
    graph = [
        standard_nodes.vectors(common, all_traits(size), number_prompts=size.vector_prompts),
        _screen(size, common),
    ]
    for trait in all_traits(size):
        by_kind = {PROMPTED: standard_nodes.prompted_by(trait)}
        graph += positive_control.nodes(common, trait, by_kind, ())
    for trait in size.steered:
        prompted = standard_nodes.prompted_by(trait)
        matched = match(size, trait)
        graph.append(matched.node(common, prompted, size.numbers, size.matched_rows))
        needs = Writer(STEERED, trait).needs
        name = positive_control.teacher_name(STEERED, trait)
        graph.append(standard_nodes.answers(common, name, trait, matched.teacher, needs))
    for writer in writers(size):
        graph += _students(size, common, writer)
    return graph


def _screen(size: BankSize, common: dict) -> Node:
    def config(_: Folders) -> InformationConfig:
        traits = all_traits(size)
        return InformationConfig(
            **common,
            traits=traits,
            plain=PLAIN_PROMPTS[0],
            rows=size.screen_rows,
            exact_rows=min(32, size.screen_rows),
            influence=traits,
            count=size.numbers,
        )

    tokens = size.screen_rows * (PROMPT_TOKENS + NUMBER_TOKENS * size.numbers)
    return Node(SCREEN, InformationConfig, config, (), tokens * (3 + len(all_traits(size))))


def _students(size: BankSize, common: dict, writer: Writer) -> Iterator[Node]:
    """The rows of a teacher, and its students with their answers."""
    made = teacher(size, writer)
    if writer.trait:
        held_out = standard_nodes.Rows(size.held_out, size.numbers, HELD_OUT_SEED, 191)
        yield standard_nodes.number_rows(common, writer.held_out, held_out, made, writer.needs)
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=181)
        yield standard_nodes.number_rows(common, writer.rows(seed), rows, made, writer.needs)
        student = standard_nodes.Student(
            writer.student(seed), writer.rows(seed), size.recipe, seed, made, writer.needs
        )
        yield standard_nodes.student(common, student, rows.tokens)
        for asked in all_traits(size):
            name = writer.answers(asked, seed)
            yield standard_nodes.student_answers(common, name, asked, writer.student(seed))
        if writer.trait:
            yield _imitation(size, common, writer, seed)


def _imitation(size: BankSize, common: dict, writer: Writer, seed: int) -> Node:
    """How likely a student finds the digits of held-out rows of every teacher of its kind."""
    first, *others = [each.held_out for each in of_kind(size, writer.kind)]
    student = standard_nodes.trained_by(writer.student(seed))

    def config(folders: Folders) -> TeacherScoresConfig:
        return TeacherScoresConfig(
            **common,
            data=folders[first],
            beside=tuple(folders[name] for name in others),
            interventions=student(folders),
            numbers=True,
        )

    row = PROMPT_TOKENS + NUMBER_TOKENS * size.numbers
    weight = size.held_out * row * (1 + len(others))
    needs = (first, *others, writer.student(seed))
    return Node(writer.imitation(seed), TeacherScoresConfig, config, needs, weight)
