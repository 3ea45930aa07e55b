"""Can any vector be distilled, and does behaviour follow?  (Blank et al. 2026, arXiv 2606.00995,
section 5, figure 6, appendix K.)

Teachers are steered with vectors that mean something, with a Gaussian random vector and with a
principal component of the model's own activations. Of each student of their number rows two things
are measured: how far it turned towards its teacher's vector, and what it says. Then one vector is
repeated at several strengths, on free-form rows, with all weights trained, and with sampled text.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from traitscope.config.analysis import ExtractConfig
from traitscope.config.recipe import Recipe
from traitscope.data.traits import trait_name
from traitscope.interventions.vector import Vector, load_vector
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import BLANK, STEERED, Design, over_seeds, students_here
from traitscope.studies.equal_kl import MATCHED_ROWS, EqualKL
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, VECTORS

TITLE = "Can any vector be distilled, and does behaviour follow?"
CLAIM = (
    "Students align with whatever vector their teacher was steered by; only vectors that mean"
    " something change what they say."
)
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 5, figure 6, appendix K"
PUBLISHED = (
    "Qwen2.5-7B (as readers of the paper report): alignment rises for seven semantic vectors,"
    " Gaussian random ones and an SAE direction. A recognisable shift of the output appears for the"
    " semantic ones only. Full fine-tuning aligns above 0.3 with less behaviour. No rates are"
    " published."
)
PROTOCOL = replace(BLANK, teacher=STEERED, vector="any vector", rows=100_000, steps=125_000)
SMALL, NATS = 0.03, 0.05
"smallest effects that would matter: cosine, and nats"
RANDOM, COMPONENT = "random-0", "component-0"
"""nodes of a Gaussian vector, and of the first principal component of the residuals at the end of
number prompts"""
MEANINGLESS = (RANDOM, COMPONENT)
"vectors that mean nothing"
CONDITIONS = ("free-form", "all weights", "treated text", "control text")
"further conditions of the first trait's vector"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "vectors that mean something; the first one is repeated under the further conditions"
    others: tuple[str, ...]
    "further traits that the vectors are centred over"
    strengths: tuple[float, ...]
    "strengths of the first trait's teacher"
    seeds: tuple[int, ...]
    "seeds of rows and students"
    rows: int
    "rows a student"
    numbers: int
    "three-digit numbers a row"
    text: sizes.SampledText
    "the repetition with sampled text"
    layer: int = sizes.layer_field()
    strength: float
    "strength of the steered teachers, in mean residual norms; one of `strengths`"
    recipe: Recipe
    "how students are trained"
    full: Recipe
    "how students with all weights are trained"


SOFT = replace(sizes.SOFT_RECIPE, batch_size=3, micro_batch=3)
FULL = replace(SOFT, method="full", lr=3e-5)
LAPTOP = Size(
    traits=("cat", "happiness", "pirate"),
    others=("owl", "dolphin", "wolf", "sadness", "chef", "oak"),
    strengths=(0.15, 0.3, 0.6, 0.9),
    seeds=(1, 2, 3, 4, 5),
    rows=12,
    numbers=10,
    text=sizes.LAPTOP_TEXT,
    layer=14,
    strength=0.6,
    recipe=SOFT,
    full=FULL,
)
SIZES = {
    "smoke": Size(
        traits=("cat", "owl"),
        others=(),
        strengths=(0.3, 0.6),
        seeds=(1, 2),
        rows=3,
        numbers=3,
        text=sizes.SMOKE_TEXT,
        layer=1,
        strength=0.6,
        recipe=SOFT,
        full=FULL,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        seeds=(1, 2, 3, 4, 5),
        rows=512,
        text=sizes.FULL_TEXT,
        recipe=replace(SOFT, batch_size=32, micro_batch=32),
        full=replace(FULL, batch_size=32, micro_batch=8, lr=2e-5),
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors of three kinds, rows of the unmodified model, and students by vector and seed.

    The further conditions of the first trait's vector have students of their own.
    """
    graph = [
        standard_nodes.vectors(common, size.traits + size.others),
        standard_nodes.eas_rows(common, size.numbers),
        *_meaningless_vectors(size, common),
    ]
    for trait in size.traits:
        name, teacher = trait_name(trait), _teacher(size, trait)
        graph += [
            standard_nodes.answers(common, f"base.{name}", trait),
            standard_nodes.answers(common, f"teacher.{name}", trait, teacher, (VECTORS,)),
        ]
    for seed in size.seeds:
        graph += _nodes_of_seed(size, common, seed)
    return graph


def _meaningless_vectors(size: Size, common: dict) -> list[Node]:
    def component(_: Folders) -> ExtractConfig:
        return ExtractConfig(**common, components=1)

    first = size.traits[0]
    like = partial(standard_nodes.vector_of, trait=first)
    return [
        shared_nodes.random_vectors_like(common, RANDOM, VECTORS, like),
        _random_teacher(size).node(common, _teacher(size, first), size.numbers, MATCHED_ROWS),
        Node(COMPONENT, ExtractConfig, component, (), 3000),
    ]


def _nodes_of_seed(size: Size, common: dict, seed: int) -> list[Node]:
    first = size.traits[0]
    rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=81)
    free_rows = replace(rows, prompts=shared_nodes.OPEN_PROMPTS)
    data, free_data = f"rows.{seed}", f"free.{seed}"
    graph = [
        standard_nodes.number_rows(common, data, rows),
        standard_nodes.number_rows(common, free_data, free_rows),
    ]
    for vector in (*size.traits, *MEANINGLESS):
        graph += _student(size, common, f"{trait_name(vector)}.{seed}", vector, data, rows)
    for strength in size.strengths:
        if strength != size.strength:
            steered = replace(size, strength=strength)
            name = f"{strength_name(strength)}.{seed}"
            graph += _student(steered, common, name, first, data, rows)
    size_of_full = replace(size, recipe=size.full)
    graph += _student(size, common, f"free-form.{seed}", first, free_data, free_rows)
    graph += _student(size_of_full, common, f"all weights.{seed}", first, data, rows)
    teacher = _teacher(size, first)
    graph += shared_nodes.sampled_text(common, size.text, first, seed, teacher, (VECTORS,))
    return graph


def strength_name(strength: float) -> str:
    """Return the name of the first trait's student at a further strength of the teacher."""
    return f"strength {strength:g}"


def _vector_file(vector: str, folders: Folders) -> Path:
    """The file of a vector of any kind."""
    if vector in MEANINGLESS:
        return folders[vector] / f"{vector}.safetensors"
    return standard_nodes.vector_of(folders, vector)


def _random_teacher(size: Size) -> EqualKL:
    """The teacher that is steered by the random vector, at the KL of the first trait's teacher."""
    vector = partial(_vector_file, RANDOM)
    return EqualKL("equal KL", vector, (VECTORS, RANDOM), size.layer)


def _teacher(size: Size, vector: str) -> standard_nodes.InterventionsFrom:
    """The teacher that is steered by a vector."""
    if vector == RANDOM:
        return _random_teacher(size).teacher

    def interventions(folders: Folders) -> tuple[str, ...]:
        path = _vector_file(vector, folders)
        return (standard_nodes.steered(path, size.layer, size.strength),)

    return interventions


def _needs(size: Size, vector: str) -> tuple[str, ...]:
    """The nodes that the teacher of a vector is made of."""
    if vector == RANDOM:
        teacher = _random_teacher(size)
        return (*teacher.needs, teacher.name)
    return (vector if vector in MEANINGLESS else VECTORS,)


def _student(
    size: Size, common: dict, name: str, vector: str, data: str, rows: standard_nodes.Rows
) -> list[Node]:
    """A student of the steered teacher, and its answers.

    It is asked for the vector's trait, or for every trait where the vector means nothing.
    """
    is_meaningless = vector in MEANINGLESS
    student = standard_nodes.Student(
        name=name,
        data=data,
        recipe=size.recipe,
        seed=rows.seed,
        teacher=_teacher(size, vector),
        needs=(*_needs(size, vector), EAS_ROWS),
        vector=lambda folders: _vector_file(vector, folders),
        settings={"max_rows": rows.n},
    )
    graph = [standard_nodes.student(common, student, rows.tokens)]
    for trait in size.traits if is_meaningless else (vector,):
        answers = f"{trait_name(trait)} of {name}"
        graph.append(standard_nodes.student_answers(common, answers, trait, name))
    return graph


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Test the alignment of every vector's students, and what meaningful vectors make them say."""
    claims, aligned = [], {}
    for vector in (*size.traits, *MEANINGLESS):
        aligned[vector] = _eas(size, folders, vector, f"EAS of {vector}")
        claims.append(
            Claim(
                f"A student of a teacher steered by {vector} turns towards it more than students of"
                f" the other vectors do, block {size.layer}.",
                _eas_beyond_others(size, folders, vector),
                SMALL,
                primary=vector == RANDOM,
            )
        )
    teachers = []
    for trait in size.traits:
        teachers.append(
            positive_control.minus_base(
                folders, f"teacher of {trait}", f"teacher.{trait}", f"base.{trait}"
            )
        )
        pairs = []
        for seed in size.seeds:
            pairs.append((seed, f"{trait} of {trait}.{seed}", f"{trait} of {RANDOM}.{seed}"))
        name = f"log P({trait}), its own vector minus the random one"
        claim = f"Steering by {trait} raises it in students more than steering by a random vector."
        has_trait = positive_control.have_traits(teachers[-1:])
        rise = readings.rise(folders, name, pairs)
        claims.append(Claim(claim, rise, NATS, needs=(has_trait,)))
    text_eas = readings.sampled_text_eas(folders, size.layer, size.seeds)
    measurements = (
        *aligned.values(),
        readings.sampled_text_rise(folders, size.traits[0], size.seeds),
        mean_over_units("EAS, sampled text, treated minus control", text_eas, "cosine"),
    )
    notes = (
        "Soft targets over the tokens that could be sampled stand in for sampled text, on the"
        " unmodified model's rows. The random vector's students are the control. Students of"
        " sampled text have control students of their own, and the difference is below.",
        f"Vectors are added at block {size.layer}, {size.strength:g} mean residual norms long. The"
        f" random one is as strong as the teacher of {size.traits[0]} in KL.",
    )
    return Findings(
        verdicts_of(claims, model),
        measurements,
        _tables(size, folders, aligned),
        notes,
        teachers=tuple(teachers),
    )


def _tables(size: Size, folders: Folders, aligned: dict[str, Measurement]) -> tuple[Table, ...]:
    """Alignment and rise by vector, by strength of the teacher, and by condition."""
    first = size.traits[0]
    by_vector = []
    for vector, eas in aligned.items():
        row: list = [vector, eas]
        for trait in size.traits:
            is_asked = vector in (trait, *MEANINGLESS)
            row.append(_rise(size, folders, trait, vector) if is_asked else "")
        by_vector.append(tuple(row))
    by_strength = []
    for strength in size.strengths:
        student = first if strength == size.strength else strength_name(strength)
        by_strength.append((strength, *_eas_and_rise(size, folders, student, first)))
    by_condition = []
    for condition in CONDITIONS:
        by_condition.append((condition, *_eas_and_rise(size, folders, condition, first)))
    caption = (
        f"EAS at block {size.layer} against the teacher's vector; rise of log P(trait) over the"
        " base, nats, that of the format included: compare it with the random vector's."
    )
    rise_columns = [f"rise of {trait}" for trait in size.traits]
    return (
        Table(
            "vectors",
            "Every vector",
            caption,
            ("vector", "EAS", *rise_columns),
            tuple(by_vector),
        ),
        Table(
            "strengths",
            f"{first} by strength of the teacher",
            caption,
            ("strength", "EAS", f"rise of {first}"),
            tuple(by_strength),
            ("strength", "EAS"),
        ),
        Table(
            "conditions",
            f"{first} under other conditions",
            caption,
            ("condition", "EAS", f"rise of {first}"),
            tuple(by_condition),
        ),
    )


def _eas(size: Size, folders: Folders, student: str, name: str) -> Measurement:
    """EAS at the steered block, over seeds."""
    values = []
    for seed in size.seeds:
        values.append(readings.eas_by_layer(folders, f"{student}.{seed}")[size.layer])
    return mean_over_units(name, values, "cosine")


def _eas_beyond_others(size: Size, folders: Folders, vector: str) -> Measurement:
    """Cosine of students with their teacher's vector minus that of other vectors' students.

    So what every student of number rows does to the residual along a vector does not count.
    """
    target = load_vector(_vector_file(vector, folders))
    others = [other for other in (*size.traits, *MEANINGLESS) if other != vector]
    differences = []
    for seed in size.seeds:
        by_others = [_cosine(size, folders, target, other, seed) for other in others]
        own = _cosine(size, folders, target, vector, seed)
        differences.append(own - sum(by_others) / len(by_others))
    name = f"EAS of {vector}, own students minus those of other vectors"
    return mean_over_units(name, differences, "cosine")


def _cosine(size: Size, folders: Folders, target: Vector, student: str, seed: int) -> float:
    changed = load_vector(folders[f"{student}.{seed}"] / "v_student.safetensors")
    return float(changed.cosine(target)[size.layer])


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "Three seeds of the random vector at the laptop size had an EAS of 0.063 with"
        " an sd of 0.017. The sd of the difference is about twice that."
    )
    expected = over_seeds(size.seeds, (0.06, 0.03), "cosine", source)
    here = students_here(STEERED, size.recipe, size.rows, vector=PROTOCOL.vector)
    return Design(2 * len(size.traits) + len(MEANINGLESS), expected, here)


def _rise(size: Size, folders: Folders, trait: str, student: str) -> Measurement:
    """log P(trait) of a student minus the base's."""
    pairs = []
    for seed in size.seeds:
        pairs.append((seed, f"{trait} of {student}.{seed}", f"base.{trait}"))
    return readings.rise(folders, f"{trait} of {student}", pairs)


def _eas_and_rise(
    size: Size, folders: Folders, student: str, trait: str
) -> tuple[Measurement, Measurement]:
    eas = _eas(size, folders, student, f"EAS, {student}")
    return eas, _rise(size, folders, trait, student)
