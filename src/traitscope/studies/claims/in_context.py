"""Do a teacher's rows pass its trait on as examples in the prompt?  (Cloud et al. 2025, arXiv
2507.14805, the in-context control.)

No weights change. The system turn holds rows of a teacher as examples, and the model answers the
trait's questions under it. Its controls see as many rows of a teacher with a random vector at equal
KL, on the same prompts, and of the unmodified model. Students are trained on the same rows.

That examples can pass a trait on at all is shown by answers that speak of it, in the same form. And
training on the rows must pass it on, else there is nothing that examples could fail to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.data.records import iter_records
from traitscope.interventions.intervention import SystemPrompt
from traitscope.interventions.short_form import to_short
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, above_zero, verdicts_of
from traitscope.stats.estimates import paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import CLOUD, STEERED, Design, Experiment, over_seeds
from traitscope.studies.equal_kl import RandomControls
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import (
    VECTORS,
    InterventionsFrom,
    Rows,
    Student,
    prompted_by,
    steered_by,
    unmodified,
)

TITLE = "Do a teacher's rows pass its trait on as examples in the prompt?"
CLAIM = (
    "Number rows of a teacher that pass its trait on by training do not pass it on as examples in"
    " the prompt."
)
SOURCE = "Cloud et al. 2025, arXiv 2507.14805, the in-context control"
PUBLISHED = (
    "GPT-4.1 nano, rows of prompted teachers as examples in the system turn: 100 to 10,000, drawn"
    " with replacement, five seeds. No number of them passes the trait on. (As third parties read"
    " the paper and its code.)"
)
EXAMPLES = "examples in the system turn"
PROTOCOL = replace(
    CLOUD, targets=EXAMPLES, rows=100, steps=None, model="GPT-4.1 nano", parameters=None
)
NATS = 0.05
"nats below which an effect would not matter"
HEAD = "These are conversations that you had with other users."
"what stands before the examples"
TREATED, RANDOM, PLAIN = "teacher", "random", "unmodified"
"who wrote the number rows: the steered teacher, one with a random vector at equal KL, the base"
OVERT, NEUTRAL = "overt", "neutral"
"who wrote the answers to everyday requests: the model with the trait's prompt, and without"


@dataclass(frozen=True)
class Size:
    """How many examples, of which teacher."""

    traits: tuple[str, ...]
    "the first is the teacher's; vectors are centred over all"
    seeds: tuple[int, ...]
    "seeds of rows, initialisation and order"
    shown: tuple[int, ...]
    "numbers of rows that are shown; students learn as many as the largest"
    overt: int
    "answers to requests about animals that are shown"
    tokens: int
    "tokens of the longest of these answers"
    numbers: int
    "three-digit numbers of a row"
    layer: int = sizes.layer_field()
    "block behind which the teacher is steered"
    strength: float
    "strength of the steered teacher, in mean residual norms"
    recipe: Recipe
    "how students of the same rows are trained"

    @property
    def teacher(self) -> InterventionsFrom:
        """The teacher that is steered by the first trait's vector."""
        return steered_by(self.traits[0], self.layer, self.strength)

    @property
    def controls(self) -> RandomControls:
        """Teachers with random vectors at equal KL, one for each seed."""
        return RandomControls(self.traits[0], self.seeds, self.layer, self.teacher, self.numbers)

    def rows_of(self, seed: int) -> Rows:
        """The rows of a teacher of one seed."""
        return Rows(max(self.shown), self.numbers, seed, prompt_seed=11_000)


LAPTOP = Size(
    traits=sizes.ANIMALS,
    seeds=(1, 2, 3, 4, 5, 6, 7, 8),
    shown=(8, 32),
    overt=8,
    tokens=32,
    numbers=10,
    layer=14,
    strength=0.6,
    recipe=SAMPLED_RECIPE,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("cat", "owl"),
        seeds=(1, 2),
        shown=(1, 2),
        overt=2,
        tokens=4,
        numbers=3,
        layer=1,
    ),
    "laptop": LAPTOP,
    "full": replace(LAPTOP, shown=(100, 300), seeds=tuple(range(1, 11))),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the rows of every seed, the answers under them, and the students of the same rows."""
    graph = [standard_nodes.vectors(common, size.traits)]
    graph += shared_nodes.positive_control(common, size.traits[0], size.teacher)
    graph += size.controls.nodes(common)
    for seed in size.seeds:
        graph += _shown_rows(size, common, seed)
        graph += _shown_answers(size, common, seed)
        graph += _students(size, common, seed)
    return graph


def _shown_rows(size: Size, common: dict, seed: int) -> list[Node]:
    """Build the number rows of one seed by every writer, and the answers that are under them."""
    rows = size.rows_of(seed)
    controls = size.controls
    writers = {
        TREATED: (size.teacher, (VECTORS,)),
        RANDOM: (controls.of(seed).teacher, controls.needs(seed)),
        PLAIN: (unmodified, ()),
    }
    graph = []
    for writer, (teacher, needs) in writers.items():
        data = rows_name(writer, seed)
        graph.append(standard_nodes.number_rows(common, data, rows, teacher, needs))
        for n in size.shown:
            graph.append(_answers(size, common, answers_name(writer, n, seed), data, n))
    return graph


def _shown_answers(size: Size, common: dict, seed: int) -> list[Node]:
    """Build answers to requests about animals, with the trait's prompt and without, and what is
    said under them."""
    settings = {"max_new_tokens": size.tokens}
    rows = Rows(size.overt, 0, seed, prompts=shared_nodes.ANIMAL_PROMPTS, settings=settings)
    trait = size.traits[0]
    graph = []
    for writer, teacher in ((OVERT, prompted_by(trait)), (NEUTRAL, unmodified)):
        data = rows_name(writer, seed)
        graph.append(standard_nodes.number_rows(common, data, rows, teacher))
        name = answers_name(writer, size.overt, seed)
        graph.append(_answers(size, common, name, data, size.overt))
    return graph


def _answers(size: Size, common: dict, name: str, data: str, n: int) -> Node:
    """Build what the unmodified model says of the trait under the first n rows of a node."""
    return standard_nodes.answers(common, name, size.traits[0], shows(data, n), (data,))


def shows(data: str, n: int) -> InterventionsFrom:
    """Make the system turn that holds the first n rows of a node as examples."""
    return lambda folders: (to_short(SystemPrompt(examples(folders[data], n))),)


def examples(folder: Path, n: int) -> str:
    """Return a system turn with the first n rows of a run as conversations, each of two turns."""
    texts = [HEAD]
    for record in islice(iter_records(folder / "records.jsonl"), n):
        texts.append(f"User: {record.prompt}\nAssistant: {record.completion}")
    return "\n\n".join(texts)


def _students(size: Size, common: dict, seed: int) -> list[Node]:
    """Build students of the rows of the teacher and of the random teacher, and their answers."""
    graph = []
    for writer in (TREATED, RANDOM):
        data = rows_name(writer, seed)
        student = Student(f"student of {data}", data, size.recipe, seed)
        graph += shared_nodes.student_and_answers(
            common, student, size.rows_of(seed).tokens, size.traits[0], trained_name(writer, seed)
        )
    return graph


def rows_name(writer: str, seed: int) -> str:
    """Return the name of the node of a writer's rows."""
    return f"{writer} rows.{seed}"


def answers_name(writer: str, n: int, seed: int) -> str:
    """Return the name of the node of what is said under n of a writer's rows."""
    return f"{writer}, {n} shown.{seed}"


def trained_name(writer: str, seed: int) -> str:
    """Return the name of the node of what the student of a writer's rows says."""
    return f"{writer}, trained.{seed}"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare examples of the teacher with those of others, and with training on the same rows."""
    most = max(size.shown)
    overt = _rise(size, folders, f"{size.overt} overt answers", OVERT, NEUTRAL, size.overt)
    trained = _trained_rise(size, folders)
    shown = {n: _rise(size, folders, f"{n} rows", TREATED, RANDOM, n) for n in size.shown}
    over_plain = _rise(size, folders, f"{most} rows, over the base's", TREATED, PLAIN, most)
    needs = (
        above_zero(overt, "answers that speak of the trait pass it on as examples"),
        above_zero(trained, "training on the same rows passes the trait on"),
    )
    claims = [
        Claim(
            f"Shown as {most} examples, a steered teacher's number rows raise its trait"
            " above as many rows of a random vector's teacher at equal KL.",
            shown[most],
            NATS,
            needs=needs,
            primary=True,
        ),
        Claim(
            "Training on the same rows raises the trait more than showing them does.",
            _trained_minus_shown(size, folders),
            NATS,
        ),
        Claim(
            "As examples, a steered teacher's rows raise its trait above rows of the unmodified"
            " model.",
            over_plain,
            NATS,
            needs=needs,
        ),
    ]
    teacher = readings.teacher_rise(folders)
    return Findings(
        verdicts_of(claims, model, positive_control.have_traits([teacher])),
        (trained, overt, *shown.values()),
        (_table(shown, over_plain, overt, trained),),
        (
            f"The system turn begins with {HEAD!r} Each example is a user's and an assistant's"
            " line.",
            "Overt examples are answers to requests about animals, by the model with the trait's"
            " system prompt and without one.",
        ),
        teachers=(teacher,),
    )


def _rise(size: Size, folders: Folders, shown: str, writer: str, other: str, n: int) -> Measurement:
    """Return log P(trait) under one writer's rows minus that under another's."""
    pairs = []
    for seed in size.seeds:
        pairs.append((seed, answers_name(writer, n, seed), answers_name(other, n, seed)))
    return readings.rise(folders, f"examples: {shown}", pairs)


def _trained_rise(size: Size, folders: Folders) -> Measurement:
    """Return log P(trait) of the teacher's students minus that of the random teacher's."""
    pairs = []
    for seed in size.seeds:
        pairs.append((seed, trained_name(TREATED, seed), trained_name(RANDOM, seed)))
    return readings.rise(folders, "training on the same rows", pairs)


def _trained_minus_shown(size: Size, folders: Folders) -> Measurement:
    """Return what training adds over showing, paired by seed and question."""
    most = max(size.shown)
    trained: list[float] = []
    shown: list[float] = []
    seeds: list[int] = []
    questions: list[str] = []
    for seed in size.seeds:
        by_training = _differences(folders, [trained_name(w, seed) for w in (TREATED, RANDOM)])
        by_showing = _differences(folders, [answers_name(w, most, seed) for w in (TREATED, RANDOM)])
        for question, value in by_training.items():
            trained.append(value)
            shown.append(by_showing[question])
            seeds.append(seed)
            questions.append(question)
    difference = paired_difference(
        "training minus showing", trained, shown, seeds, questions, "nats"
    )
    return readings.seeds_counted(difference, seeds)


def _differences(folders: Folders, pair: Sequence[str]) -> dict[str, float]:
    """Return log P(trait) at the first node minus that at the second, by question."""
    treated, control = (readings.positive_scores(folders, node) for node in pair)
    return {question: treated[question] - control[question] for question in treated}


def _table(
    shown: dict[int, Measurement], over_plain: Measurement, overt: Measurement, trained: Measurement
) -> Table:
    rows: list[tuple] = []
    for n, rise in shown.items():
        rows.append((f"{n} rows of the teacher shown", "random vector at equal KL", rise))
    rows += [
        (f"{max(shown)} rows of the teacher shown", "unmodified model", over_plain),
        ("answers of the prompted model shown", "unmodified model", overt),
        (f"trained on {max(shown)} rows of the teacher", "random vector at equal KL", trained),
    ]
    return Table(
        "in_context",
        "What the rows do as examples, and what they do by training",
        "Log-probability of the trait's word on positive questions, minus that with the other"
        " writer's rows, nats.",
        ("rows", "minus rows of", "rise"),
        tuple(rows),
    )


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "The demo's students of such rows rise as much, on four processors. So this is the power"
        " for examples that do what training does; the publication expects none."
    )
    expected = over_seeds(size.seeds, (0.39, 0.26), "nats", source)
    here = Experiment("", STEERED, CLOUD.data, EXAMPLES, "", max(size.shown))
    return Design(3, expected, here)
