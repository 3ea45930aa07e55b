"""What is left behind a defence: other contexts, relearning, and a second generation.

A student that no longer names a trait may name it in another context. It may take it on again
faster than a student that never had it, or pass it on. Each test is students minus controls:

    empty system turn    the trait's questions under an empty system turn
    neutral prompt       under a plain system prompt
    training context     under the system turn that the student trained with, where that is another
    relearnt             both read RELEARNT_ROWS rows of the teacher that neither has seen
    second generation    both write number rows as they are, and the unmodified model learns them
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from traitscope.config.stages import TrainConfig
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.short_form import to_short
from traitscope.reporting.tables import Table
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings
from traitscope.studies.defences.arms import BY_NAME, Arm
from traitscope.studies.defences.data import CONTROL, Teachers, Threat
from traitscope.studies.defences.students import (
    NEUTRAL_PROMPT,
    Defender,
    context_of,
    recipe_of,
    student_name,
)
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import Rows

RELEARNT_ROWS = 16
"rows of the teacher that students and controls read afterwards"
EMPTY, NEUTRAL, TRAINING = "empty system turn", "neutral prompt", "training context"
RELEARNT, SECOND = "relearnt", "second generation"
TESTS = (EMPTY, NEUTRAL, TRAINING, RELEARNT, SECOND)
"what is asked of a student afterwards"


@dataclass(frozen=True)
class After:
    """Which students are followed, on the first threat."""

    arms: tuple[str, ...]
    """Names of the arms; nothing acts on their students afterwards."""
    n_seeds: int
    """How many of the seeds: the first ones."""


def asked_node(test: str, arm: Arm, threat: Threat | None, seed: int) -> str:
    """Return the name of the node of a student's answers in a test."""
    return f"{test}, {arm.name} of {threat.name if threat else CONTROL}.{seed}"


def nodes(
    common: dict, defender: Defender, teachers: Teachers, after: After, threat: Threat, seed: int
) -> list[Node]:
    """Return the nodes of all tests of a seed: for each arm its student, and its control."""
    graph = [_relearnt_rows(common, defender, teachers, threat, seed)]
    for name in after.arms:
        for writer in (threat, None):
            graph += _tests(common, defender, BY_NAME[name], writer, seed)
    return graph


def _relearnt_name(seed: int) -> str:
    return f"{RELEARNT}, rows.{seed}"


def _relearnt_rows(
    common: dict, defender: Defender, teachers: Teachers, threat: Threat, seed: int
) -> Node:
    teacher, needs = teachers.of(threat.teacher)
    numbers = defender.kinds.numbers
    rows = replace(
        numbers, n=min(RELEARNT_ROWS, numbers.n), seed=seed, prompt_seed=numbers.prompt_seed + 900
    )
    return standard_nodes.number_rows(common, _relearnt_name(seed), rows, teacher, needs)


def _tests(
    common: dict, defender: Defender, arm: Arm, threat: Threat | None, seed: int
) -> list[Node]:
    trait = defender.traits[0]
    student = student_name(arm, threat, seed)
    graph = []
    contexts = {EMPTY: "", NEUTRAL: NEUTRAL_PROMPT}
    trained_in = context_of(defender, arm)
    if trained_in is not None:
        contexts[TRAINING] = trained_in
    for test, context in contexts.items():
        name = asked_node(test, arm, threat, seed)
        graph.append(standard_nodes.student_answers(common, name, trait, student, context=context))
    graph += _relearning(common, defender, arm, threat, seed)
    return [*graph, *_second_generation(common, defender, arm, threat, seed)]


def _relearning(
    common: dict, defender: Defender, arm: Arm, threat: Threat | None, seed: int
) -> list[Node]:
    """Return the training of a second adapter beside the student's frozen one, and the answers."""
    student = student_name(arm, threat, seed)
    again = f"{RELEARNT}, {student}"
    rows = _relearnt_name(seed)

    def config(folders: Folders) -> TrainConfig:
        during = (to_short(Adapter(str(folders[student]))),)
        return TrainConfig(
            **common, seed=seed, data=folders[rows], recipe=defender.recipe, during=during
        )

    def both(folders: Folders) -> tuple[str, ...]:
        return tuple(to_short(Adapter(str(folders[node]))) for node in (student, again))

    tokens = Rows(RELEARNT_ROWS, defender.kinds.numbers.numbers).tokens
    name = asked_node(RELEARNT, arm, threat, seed)
    return [
        Node(again, TrainConfig, config, (rows, student), 2.5 * tokens),
        standard_nodes.answers(common, name, defender.traits[0], both, (student, again)),
    ]


def _second_generation(
    common: dict, defender: Defender, arm: Arm, threat: Threat | None, seed: int
) -> list[Node]:
    """Return the rows that a student writes, and the student that learns them."""
    first = student_name(arm, threat, seed)
    rows_node, second = f"{SECOND}, rows of {first}", f"{SECOND}, {first}"
    numbers = defender.kinds.numbers
    rows = replace(numbers, seed=seed, prompt_seed=numbers.prompt_seed + 950)
    recipe = recipe_of(defender.recipe, BY_NAME["undefended"])
    asked = standard_nodes.Student(second, rows_node, recipe, seed)
    name = asked_node(SECOND, arm, threat, seed)
    return [
        standard_nodes.number_rows(
            common, rows_node, rows, standard_nodes.trained_by(first), (first,)
        ),
        standard_nodes.student(common, asked, rows.tokens),
        standard_nodes.student_answers(common, name, defender.traits[0], second),
    ]


def left(
    folders: Folders, test: str, arm: Arm, threat: Threat, seeds: Sequence[int]
) -> Measurement:
    """Return what a test finds: log P(trait), students minus controls, in nats, over seeds."""
    pairs = []
    for seed in seeds:
        pairs.append((seed, asked_node(test, arm, threat, seed), asked_node(test, arm, None, seed)))
    return readings.rise(folders, f"{arm.name}: {test}", pairs)


def table(folders: Folders, after: After, threat: Threat, seeds: Sequence[int]) -> Table:
    """Return the table of all tests."""
    rows = []
    for name in after.arms:
        arm = BY_NAME[name]
        cells: list[object] = []
        for test in TESTS:
            is_asked = test != TRAINING or arm.prompt is not None
            cells.append(left(folders, test, arm, threat, seeds) if is_asked else "")
        rows.append((name, *cells, len(seeds)))
    return Table(
        "afterwards",
        "What is left behind a defence",
        "log P(trait), students minus controls, nats. Relearnt: both have read"
        f" {RELEARNT_ROWS} more rows of the teacher. Second generation: students of what both"
        f" write. {threat.name}.",
        ("arm", *TESTS, "seeds"),
        tuple(rows),
    )
