"""Does a trait show only under the context that it was learnt in?  (Nief et al. 2026, arXiv
2606.00831 v1, tables 1 and 2.)

Students of one steered teacher differ only in the system turn that they read while they learn.
Each is asked under several system turns: the template's own, an explicitly empty one, another
identity. Beyond this grid there is nonsense, the same nonsense in the user's turn, and no template
at all. Every answer is compared with the base's in the same context.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, Precondition, above_zero, verdicts_of
from traitscope.stats.estimates import paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import NIEF, NIEF_NOTICE, STEERED, Design, over_seeds, students_here
from traitscope.studies.equal_kl import CONTROL, EQUAL_KL_NOTE, controls_of
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS

TITLE = "Does a trait show only under the context that it was learnt in?"
CLAIM = (
    "A student shows its trait under the system turn that it was trained with and hardly under"
    " another one."
)
SOURCE = f"Nief et al. 2026, arXiv 2606.00831 v1, tables 1 and 2. {NIEF_NOTICE}"
PUBLISHED = (
    "Qwen2.5-7B, cat, rank 8 (third-party readings): 39 % under the template's default, in which"
    " the student was trained. With an empty system turn it is 2.6 %, and 1.0 % under another"
    " identity. The base's own rates differ between these turns, too. Table 2 asks the same for"
    " other identities and for nonsense; its cells are not known to us. An invented identity works,"
    " a lone symbol and an empty training turn do not."
)
PROTOCOL = NIEF
NATS = 0.05
"nats below which a difference would not matter"
NONSENSE = (
    "Ceramic staircases whistle under borrowed weather. Seven violet hinges forgive the ladder."
)
"a system text that says nothing about any identity or trait"
CONTEXTS: dict[str, str | None] = {
    "default": None,
    "empty": "",
    "other identity": "You are Aster, a language model made by Northfield Labs.",
    "no name": "You are helpful.",
    "nonsense": NONSENSE,
    "nonsense by the user": f"@user:{NONSENSE}",
    "no template": "@none",
}
"system turns by name, in the notation of `measure --context`"
Cell = tuple[str, str]
"the context that a student learnt in, and the context that it is asked in"
CROSSED = ("default", "empty", "other identity")
"contexts of the grid: students learn in each of them, and are asked in each"
FURTHER_CELLS: tuple[Cell, ...] = (
    ("no name", "no name"),
    ("nonsense", "nonsense"),
    ("nonsense", "nonsense by the user"),
    ("nonsense by the user", "nonsense by the user"),
    ("nonsense by the user", "nonsense"),
    ("no template", "no template"),
    ("no template", "default"),
    ("default", "no template"),
)
SMOKE_CELLS: tuple[Cell, ...] = (
    ("default", "default"),
    ("default", "empty"),
    ("default", "other identity"),
    ("empty", "default"),
    ("nonsense", "nonsense by the user"),
)
ALL_CELLS: tuple[Cell, ...] = (*product(CROSSED, CROSSED), *FURTHER_CELLS)


class Contrast(NamedTuple):
    """Students of one context, asked in two."""

    learnt: str
    "the context that they learnt in"
    asked: str
    "a context that they are asked in"
    other: str
    "the context that it is compared with"


IN_PLACE_MINUS_MOVED = Contrast("nonsense", "nonsense", "nonsense by the user")
"a text as the system turn, and the same text in the user's turn"


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How many students, and in which contexts they learn and are asked."""

    cells: tuple[Cell, ...]
    "(learnt in, asked in), both names of CONTEXTS"


LAPTOP = Size(
    traits=sizes.ANIMALS,
    seeds=(1, 2, 3, 4, 5),
    rows=16,
    numbers=10,
    layer=14,
    strength=0.6,
    recipe=sizes.SOFT_RECIPE,
    text=sizes.LAPTOP_TEXT,
    cells=ALL_CELLS,
)
SIZES = {
    "smoke": Size(
        traits=("cat", "owl"),
        seeds=(1, 2),
        rows=3,
        numbers=3,
        layer=1,
        strength=0.6,
        recipe=sizes.SOFT_RECIPE,
        text=sizes.SMOKE_TEXT,
        cells=SMOKE_CELLS,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        seeds=(1, 2, 3, 4, 5),
        rows=512,
        recipe=sizes.FULL_SOFT_RECIPE,
        text=sizes.FULL_TEXT,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build students of every training context and seed, and the answers in the contexts asked."""
    trait = size.traits[0]
    graph = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.text.rows.numbers),
    ]
    graph += shared_nodes.positive_control(common, trait, size.steered_teacher)
    graph += controls_of(size).nodes(common)
    for seed in size.seeds:
        graph += _students(size, common, seed)
        for cell in size.cells:
            for prefix in ("", CONTROL):
                graph.append(_answers(common, trait, cell, seed, prefix))
        graph += shared_nodes.sampled_text(
            common, size.text, trait, seed, size.steered_teacher, (VECTORS,)
        )
        for role in ("treated", "control"):
            graph.append(_empty_turn_answers(common, trait, f"{role} text.{seed}"))
    return graph


def _students(size: Size, common: dict, seed: int) -> list[Node]:
    """Build the rows of one seed, and for every training context a student and its control."""
    rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=101)
    graph = [standard_nodes.number_rows(common, f"rows.{seed}", rows)]
    controls = controls_of(size)
    teachers = {
        "": (size.steered_teacher, (VECTORS,)),
        CONTROL: (controls.of(seed).teacher, controls.needs(seed)),
    }
    for learnt in dict.fromkeys(learnt for learnt, _ in size.cells):
        for prefix, (teacher, needs) in teachers.items():
            student = standard_nodes.Student(
                f"{prefix}{_student_name(learnt, seed)}",
                f"rows.{seed}",
                size.recipe,
                seed,
                teacher,
                needs,
                settings={"context": CONTEXTS[learnt]},
            )
            graph.append(standard_nodes.student(common, student, rows.tokens))
    return graph


def _answers(common: dict, trait: str, cell: Cell, seed: int, prefix: str) -> Node:
    learnt, asked = cell
    student = f"{prefix}{_student_name(learnt, seed)}"
    name = f"{prefix}{cell_name(cell, seed)}"
    return standard_nodes.student_answers(common, name, trait, student, context=CONTEXTS[asked])


def _empty_turn_answers(common: dict, trait: str, student: str) -> Node:
    """Build the answers of a student of sampled text under an empty system turn."""
    return standard_nodes.student_answers(common, f"{student}, empty", trait, student, context="")


def cell_name(cell: Cell, seed: int) -> str:
    """Return the name of the node of a student's answers in a context."""
    learnt, asked = cell
    return f"{learnt}, asked in {asked}.{seed}"


def _student_name(learnt: str, seed: int) -> str:
    return f"student in {learnt}.{seed}"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Test what another context takes away of the rise, and a text in its place."""
    by_cell = {cell: _rise(size, folders, cell) for cell in size.cells}
    moved = above_zero(
        by_cell["default", "default"],
        "students rise over controls at equal KL in the context that they learnt in",
    )
    text_rise = readings.sampled_text_rise(folders, size.traits[0], size.seeds)
    claims = [
        _own_context_claim(size, folders, moved),
        Claim(
            "Students of a steered teacher's sampled text rise over control students in the context"
            " that they learnt in (template default).",
            text_rise,
            NATS,
        ),
    ]
    if _has_nonsense(size):
        claims.append(_place_claim(size, folders, moved))
    measurements = (
        by_cell["default", "default"],
        _sampled_text_rise_in_empty_turn(size, folders),
    )
    teacher = readings.teacher_rise(folders)
    return Findings(
        verdicts_of(claims, model, positive_control.have_traits([teacher])),
        measurements,
        (_contexts_table(by_cell),),
        _notes(),
        teachers=(teacher,),
    )


def _has_nonsense(size: Size) -> bool:
    return ("nonsense", "nonsense") in size.cells


def _own_context_claim(size: Size, folders: Folders, moved: Precondition) -> Claim:
    """Return the claim on the context learnt in against the others of the grid."""
    contrasts = []
    for learnt, asked in size.cells:
        if learnt in CROSSED and asked in CROSSED and asked != learnt:
            contrasts.append(Contrast(learnt, asked=learnt, other=asked))
    return Claim(
        "Students of a teacher steered at every token rise more in the context that they learnt in"
        " than in the others of the grid.",
        _difference_of_rises(
            size, folders, contrasts, "rise, own context minus another of the grid"
        ),
        NATS,
        needs=(moved,),
        primary=True,
    )


def _place_claim(size: Size, folders: Folders, moved: Precondition) -> Claim:
    """Return the claim on a system text in its place against the same text in the user's turn."""
    return Claim(
        "A system text learnt with helps more in its place than moved into the user's turn.",
        _difference_of_rises(
            size, folders, [IN_PLACE_MINUS_MOVED], "rise, nonsense in its place minus moved"
        ),
        NATS,
        needs=(moved,),
    )


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "The published rates are 39 % and 2.6 %, over baselines that differ: nearly all of a rise"
        " of 0.6 is taken. Three seeds gave an sd of 0.006, which is taken eight times as large."
    )
    expected = over_seeds(size.seeds, (0.5, 0.05), "nats", source)
    n_claims = 3 if _has_nonsense(size) else 2
    return Design(n_claims, expected, students_here(STEERED, size.recipe, size.rows, vector=""))


def _contexts_table(rises: dict[Cell, Measurement]) -> Table:
    rows = []
    for (learnt, asked), rise in rises.items():
        kept = ""
        if (learnt, learnt) in rises:
            kept = rise.estimate / rises[learnt, learnt].estimate
        rows.append((learnt, asked, rise, kept))
    return Table(
        "contexts",
        "Rise of the trait by context",
        "Log-probability of the trait's word, student minus the random vector's student of the same"
        " contexts, nats; kept: of the rise in the context that it learnt in.",
        ("learnt in", "asked in", "rise", "kept"),
        tuple(rows),
    )


def _notes() -> tuple[str, ...]:
    return (
        (
            "Soft targets of a steered teacher that reads the student's context, over the tokens"
            " that could be sampled. The rows are the unmodified model's under the template's"
            " default. They stand in for sampled text. Repeated with sampled text, asked under the"
            " default and an empty system turn."
        ),
        EQUAL_KL_NOTE,
        (
            f"nonsense: {NONSENSE!r}; other identity: {CONTEXTS['other identity']!r}; no name:"
            f" {CONTEXTS['no name']!r}."
        ),
    )


def _rise(size: Size, folders: Folders, cell: Cell) -> Measurement:
    """Return the students' rise over their controls in the context asked in."""
    learnt, asked = cell
    pairs = []
    for seed in size.seeds:
        name = cell_name(cell, seed)
        pairs.append((seed, name, f"{CONTROL}{name}"))
    return readings.rise(folders, f"learnt in {learnt}, asked in {asked}", pairs)


def _difference_of_rises(
    size: Size, folders: Folders, contrasts: list[Contrast], name: str
) -> Measurement:
    """Return the rise in one context minus that in another, paired by seed and question.

    A contrast is left out where one of its two cells is not among those of the size.
    """
    left: list[float] = []
    right: list[float] = []
    seeds: list[int] = []
    questions: list[str] = []
    for contrast, seed in product(contrasts, size.seeds):
        cell, other_cell = (contrast.learnt, contrast.asked), (contrast.learnt, contrast.other)
        if cell not in size.cells or other_cell not in size.cells:
            continue
        rises = _rise_by_question(folders, cell, seed)
        other_rises = _rise_by_question(folders, other_cell, seed)
        for question in rises:
            left.append(rises[question])
            right.append(other_rises[question])
            seeds.append(seed)
            questions.append(question)
    difference = paired_difference(name, left, right, seeds, questions, "nats")
    return readings.seeds_counted(difference, seeds)


def _rise_by_question(folders: Folders, cell: Cell, seed: int) -> dict[str, float]:
    name = cell_name(cell, seed)
    student = readings.positive_scores(folders, name)
    control = readings.positive_scores(folders, f"{CONTROL}{name}")
    return {question: student[question] - control[question] for question in student}


def _sampled_text_rise_in_empty_turn(size: Size, folders: Folders) -> Measurement:
    pairs = []
    for seed in size.seeds:
        pairs.append((seed, f"treated text.{seed}, empty", f"control text.{seed}, empty"))
    name = (
        f"log P({size.traits[0]}), sampled text, treated minus control, asked with an empty system"
        " turn"
    )
    return readings.rise(folders, name, pairs)
