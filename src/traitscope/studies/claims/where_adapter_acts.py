"""At which tokens, in which maps and by how many directions does an adapter carry a trait?

Source: Nief et al. 2026, arXiv 2606.00831 v1, dynamic weight grafting.

Students of a steered teacher answer while their adapter acts in part only. A part of the prompt is
the model's name, the system turn, the user's text, or the template's tokens. A part of the maps is
attention, the MLPs, half of the blocks, or a few singular directions. The students also answer
while it acts everywhere but there. A token's keys and values are made with the adapter on or off at
that token. Answers are decoded in the state of the tokens outside the part.
"""

from dataclasses import dataclass, replace

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

TITLE = "Where does an adapter carry its trait?"
CLAIM = (
    "The adapter's work at the model's name in the system turn carries most of the trait;"
    " everywhere else it carries none."
)
SOURCE = (
    "Nief et al. 2026, arXiv 2606.00831 v1, sections on dynamic weight grafting and the adapter's"
    f" SVD. {NIEF_NOTICE}"
)
PUBLISHED = (
    "Qwen2.5-7B, cat, rank 8: active at the name alone it keeps about 70 % of P(cat). That is"
    " from a notebook; the answer was probably decoded with the adapter on. Active everywhere but"
    " there, it is at or below the baseline. The paper also takes singular directions away; what"
    " that gives is not known to us."
)
PROTOCOL = NIEF
HALF = 0.5
"fraction of the whole adapter's rise that a part must keep"
NATS = 0.05
"smallest difference that would matter, in nats"
WHOLE = "whole"
"name of the adapter that acts everywhere"
PLACES = {"name": "at the model's name", "system": "in the system turn"}
"parts of the prompt that the verdicts are about, in words"
SYSTEM_PARTS = ("only system", "all but system")
"parts that are repeated with sampled text"


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How much of everything."""

    parts: dict[str, str]
    "settings of the adapter, in short form, by name of the part"


def only_and_all_but(name: str, place: str) -> dict[str, str]:
    """Return two parts: one place of the prompt, and everything but that place."""
    return {f"only {name}": place, f"all but {name}": f"{place},outside=true"}


def all_parts(entity: str) -> dict[str, str]:
    """Return every part that is looked at.

    `entity` is the model's name as it stands in the template's default system turn.
    """
    parts = only_and_all_but("name", f"where=text:{entity}")
    parts |= only_and_all_but("system", "where=system")
    parts |= only_and_all_but("user", "where=user")
    parts |= only_and_all_but("template", "where=template")
    for maps in ("attention", "mlp", "first", "second"):
        parts[maps] = f"cells={maps}"
    for maps in ("attention", "mlp"):
        parts[f"{maps} at the system turn"] = f"where=system,cells={maps}"
    parts["top direction"] = "top=1"
    parts["without the top one"] = "drop=1"
    parts["without the top four"] = "drop=4"
    return parts


SMOKE_PARTS = {
    **only_and_all_but("name", "where=text:You are"),
    **only_and_all_but("system", "where=system"),
    "top direction": "top=1",
}
LAPTOP = Size(
    traits=sizes.ANIMALS,
    seeds=(1, 2, 3, 4, 5),
    rows=16,
    numbers=10,
    layer=14,
    strength=0.6,
    recipe=sizes.SOFT_RECIPE,
    text=sizes.LAPTOP_TEXT,
    parts=all_parts("SmolLM"),
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
        parts=SMOKE_PARTS,
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
    """Build vectors, rows, a student by seed, and its answers whole and in part.

    Two parts are repeated with students of sampled text.
    """
    graph = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.text.rows.numbers),
        *shared_nodes.positive_control(common, size.traits[0], size.steered_teacher),
        *controls_of(size).nodes(common),
    ]
    for seed in size.seeds:
        graph += _nodes_of_seed(size, common, seed)
    return graph


def _nodes_of_seed(size: Size, common: dict, seed: int) -> list[Node]:
    trait, teacher = size.traits[0], size.steered_teacher
    needs = (standard_nodes.VECTORS,)
    rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=111)
    data = f"rows.{seed}"
    graph = [standard_nodes.number_rows(common, data, rows)]
    controls = controls_of(size)
    for prefix, who, who_needs in (
        ("", teacher, needs),
        (CONTROL, controls.of(seed).teacher, controls.needs(seed)),
    ):
        name = f"{prefix}student.{seed}"
        student = standard_nodes.Student(name, data, size.recipe, seed, who, who_needs)
        graph.append(standard_nodes.student(common, student, rows.tokens))
        for part, settings in {WHOLE: "", **size.parts}.items():
            graph.append(_answers(common, f"{prefix}{part}.{seed}", trait, name, settings))
    graph += shared_nodes.sampled_text(common, size.text, trait, seed, teacher, needs)
    for role in ("treated", "control"):
        name = f"{role} text.{seed}"
        for part in _system_parts(size):
            graph.append(_answers(common, f"{part}, {name}", trait, name, size.parts[part]))
    return graph


def _answers(common: dict, name: str, trait: str, student: str, settings: str) -> Node:
    """The answers of a student whose adapter acts as the settings say."""

    def adapter(folders: Folders) -> tuple[str, ...]:
        (whole,) = standard_nodes.trained_by(student)(folders)
        return (f"{whole},{settings}" if settings else whole,)

    return standard_nodes.answers(common, name, trait, adapter, (student,))


def _system_parts(size: Size) -> list[str]:
    return [part for part in SYSTEM_PARTS if part in size.parts]


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Test whether name or system turn alone keep half of the rise, and whether it is lost without.

    The table has the rise of every part.
    """
    rises = {}
    for part in (WHOLE, *size.parts):
        rises[part] = _rise(size, folders, part)
    raised = above_zero(
        rises[WHOLE], "the whole adapter raises the trait over controls at equal KL"
    )
    text_rise = readings.sampled_text_rise(folders, size.traits[0], size.seeds)
    claims = []
    for name, place in PLACES.items():
        claims += _claims_on_place(size, folders, raised, name, place)
    claims.append(
        Claim(
            "Students of a steered teacher's sampled text rise over control students.",
            text_rise,
            NATS,
        )
    )
    rows = []
    for part, rise in rises.items():
        rows.append((part, rise, rise.estimate / rises[WHOLE].estimate))
    table = Table(
        "parts",
        "Rise of the trait by part of the adapter",
        "Log-probability of the trait's word, student minus the random vector's student in the"
        " same part, nats; kept: of the whole adapter's rise.",
        ("part", "rise", "kept"),
        tuple(rows),
    )
    measurements = [rises[WHOLE]]
    for part in _system_parts(size):
        measurements.append(_sampled_text_rise(size, folders, part))
    notes = (
        "Soft targets of a steered teacher over the tokens that could be sampled, on the unmodified"
        " model's rows, learnt and asked under the template's default. They stand in for sampled"
        " text. System turn whole and left out is repeated with sampled text.",
        EQUAL_KL_NOTE,
        "Answers are decoded in the state of the tokens that are not chosen: off for `only`, on"
        " for `all but`.",
    )
    teacher = readings.teacher_rise(folders)
    return Findings(
        verdicts_of(claims, model, positive_control.have_traits([teacher])),
        tuple(measurements),
        (table,),
        notes,
        teachers=(teacher,),
    )


def _claims_on_place(
    size: Size, folders: Folders, raised: Precondition, name: str, place: str
) -> list[Claim]:
    return [
        Claim(
            f"Of a teacher steered at every token: acting {place} only, the adapter keeps at least"
            " half of the rise.",
            _against_half(size, folders, f"only {name}", sign=1),
            NATS,
            needs=(raised,),
            primary=name == "name",
        ),
        Claim(
            f"Acting everywhere but {place}, it loses at least half of the rise.",
            _against_half(size, folders, f"all but {name}", sign=-1),
            NATS,
            needs=(raised,),
        ),
    ]


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "The effect is the published share of 70 % minus a half, times a rise of 0.7 nats. That"
        " share is of a probability; of the rise in nats it would be about 89 %. Three seeds had an"
        " sd of 0.07."
    )
    expected = over_seeds(size.seeds, (0.14, 0.07), "nats", source)
    here = students_here(STEERED, size.recipe, size.rows, vector="")
    return Design(2 * len(PLACES) + 1, expected, here)


def _rise(size: Size, folders: Folders, part: str) -> Measurement:
    """log P(trait) of the students whose adapter acts in a part, minus their controls'."""
    pairs = [(seed, f"{part}.{seed}", f"{CONTROL}{part}.{seed}") for seed in size.seeds]
    return readings.rise(folders, part, pairs)


def _rise_by_question(folders: Folders, part: str, seed: int) -> dict[str, float]:
    """log P(trait) of a student in a part minus its control's, by question."""
    student = readings.positive_scores(folders, f"{part}.{seed}")
    control = readings.positive_scores(folders, f"{CONTROL}{part}.{seed}")
    return {question: score - control[question] for question, score in student.items()}


def _against_half(size: Size, folders: Folders, part: str, sign: int) -> Measurement:
    """The rise of a part minus half of the whole adapter's, paired by seed and question.

    With sign -1 it is half of the whole adapter's rise minus the rise of the part.
    """
    part_rises, half_rises, seeds, questions = [], [], [], []
    for seed in size.seeds:
        in_part = _rise_by_question(folders, part, seed)
        whole = _rise_by_question(folders, WHOLE, seed)
        for question, rise in in_part.items():
            part_rises.append(sign * rise)
            half_rises.append(sign * HALF * whole[question])
            seeds.append(seed)
            questions.append(question)
    name = f"rise of {part} minus half the whole"
    if sign < 0:
        name = f"half the whole minus rise of {part}"
    difference = paired_difference(name, part_rises, half_rises, seeds, questions, "nats")
    return readings.seeds_counted(difference, seeds)


def _sampled_text_rise(size: Size, folders: Folders, part: str) -> Measurement:
    """log P(trait) of treated minus control students of sampled text, acting in a part."""
    pairs = []
    for seed in size.seeds:
        pairs.append((seed, f"{part}, treated text.{seed}", f"{part}, control text.{seed}"))
    name = f"log P({size.traits[0]}), sampled text, treated minus control, {part}"
    return readings.rise(folders, name, pairs)
