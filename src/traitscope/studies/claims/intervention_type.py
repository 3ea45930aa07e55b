"""Does a student show whether its teacher was steered or prompted?  (Hadley and Gultepe 2026, arXiv
2608.05734.)

Students of steered and of prompted teachers learn on the same rows. The study measures, block by
block, how well what training changed in them agrees with the vector. From the same data it also
trains students that are one vector behind the steered block.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, Precondition, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import HADLEY, Design, over_seeds, students_here
from traitscope.studies.equal_kl import controls_of
from traitscope.studies.teachers import distances, positive_control
from traitscope.studies.teachers.names import StudentKind as Kind
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, VECTORS

TITLE = "Does a student show whether its teacher was steered or prompted?"
CLAIM = (
    "A steered teacher's student aligns with the vector in a step at the steered block, a"
    " prompted teacher's student hardly does. One trained vector carries the trait of steered"
    " data and fails on prompted data."
)
SOURCE = "Hadley and Gultepe 2026, arXiv 2608.05734, sections on the type of intervention"
PUBLISHED = (
    "Gemma, block 14: 0.53 (steered) with about 0.0 one block before, 0.06 (prompted). Llama,"
    " block 21: 0.47 with 0.09 to 0.22 one block before, 0.04 (prompted). Target preference of the"
    " trained vector and of the LoRA student follows. Gemma: .79 and .31 on steered data, .10 and"
    " .22 on prompted data. Llama: .73 and .17, .05 and .91."
)
PROTOCOL = replace(HADLEY, teacher="steered and prompted")
SMALL, NATS = 0.03, 0.05
"cosine, and nats, below which an effect would not matter"
SAME_DISTANCE, SAME_FIT = 2.0, 1.1
"largest factor between KL divergences that count as one distance from the base, and as one fit"
TEACHERS = ("steered", "prompted")
RANDOM = "random"
"teacher of the controls: a random vector at equal KL"


METHODS = ("lora", "vector")


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How many students, and how they are trained; `recipe` is that of LoRA students."""

    vector: Recipe
    "how trained vectors are trained, behind the block `layer`"
    rates: dict[str, tuple[float, ...]]
    """learning rates that are tried, by method; for each teacher the one with the least held-out
    loss counts"""


SOFT = replace(sizes.SOFT_RECIPE, epochs=6, batch_size=3, micro_batch=3, held_out=0.25)
TRAINED = replace(SOFT, method="vector", layer=0)
ANIMALS = ("cat", "owl", "otter", "dolphin", "elephant", "fox", "penguin", "wolf")
LAPTOP = Size(
    traits=ANIMALS,
    seeds=(1, 2, 3, 4, 5),
    rows=12,
    numbers=12,
    layer=14,
    strength=0.6,
    recipe=SOFT,
    text=sizes.LAPTOP_TEXT,
    vector=TRAINED,
    rates={"lora": (1e-3, 3e-3), "vector": (0.1, 0.3, 1.0)},
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("cat", "owl"),
        seeds=(1, 2),
        rows=5,
        numbers=3,
        layer=1,
        text=sizes.SMOKE_TEXT,
        rates={"lora": (1e-3,), "vector": (0.1, 1.0)},
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        seeds=(1, 2, 3, 4, 5),
        rows=512,
        numbers=10,
        recipe=replace(SOFT, batch_size=32, micro_batch=32),
        text=sizes.FULL_TEXT,
        vector=replace(TRAINED, batch_size=16, micro_batch=16, epochs=60),
        rates={"lora": (1e-4, 4e-4, 1e-3), "vector": (3e-3, 1e-2, 3e-2)},
    ),
}


def kinds(size: Size) -> list[Kind]:
    """Return all kinds of student: every teacher with every method and learning rate."""
    every = []
    for teacher, method in product(TEACHERS, METHODS):
        for rate in size.rates[method]:
            every.append(Kind(teacher, method, rate))
    return every + controls(size)


def controls(size: Size) -> list[Kind]:
    """Return the trained vectors that learn from a random vector's teacher at equal KL."""
    return [Kind(RANDOM, "vector", rate) for rate in size.rates["vector"]]


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the vectors, rows of the unmodified model, and every kind of student by seed."""
    trait = size.traits[0]
    graph = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.numbers),
        standard_nodes.answers(common, "base", trait),
        *positive_control.nodes(
            common, trait, {kind: _teacher(size, kind) for kind in TEACHERS}, base="base"
        ),
        *controls_of(size).nodes(common),
        distances.node(common, _made(size), size.numbers),
    ]
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=91)
        graph.append(standard_nodes.number_rows(common, f"rows.{seed}", rows))
        for kind in kinds(size):
            student = _student(size, kind, seed)
            answers = f"answers.{student.name}"
            graph += shared_nodes.student_and_answers(common, student, rows.tokens, trait, answers)
        graph += shared_nodes.sampled_text(
            common, size.text, trait, seed, size.steered_teacher, (VECTORS,)
        )
    return graph


def _student(size: Size, kind: Kind, seed: int) -> standard_nodes.Student:
    recipe = size.recipe
    if kind.method == "vector":
        recipe = replace(size.vector, layer=size.layer)
    teacher, needs = _teacher(size, kind.teacher), (VECTORS, EAS_ROWS)
    if kind.teacher == RANDOM:
        teacher = controls_of(size).of(seed).teacher
        needs = (*needs, *controls_of(size).needs(seed))
    return standard_nodes.Student(
        f"{kind.name}.{seed}",
        f"rows.{seed}",
        replace(recipe, lr=kind.rate),
        seed,
        teacher,
        needs,
        partial(standard_nodes.vector_of, trait=size.traits[0]),
    )


def _teacher(size: Size, teacher: str) -> standard_nodes.InterventionsFrom:
    if teacher == "prompted":
        return standard_nodes.prompted_by(size.traits[0])
    return size.steered_teacher


def _made(size: Size) -> dict[str, distances.Made]:
    """Return how both teachers are made."""
    return {
        "steered": distances.Made(_teacher(size, "steered"), (VECTORS,)),
        "prompted": distances.Made(_teacher(size, "prompted"), ()),
    }


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare steered with prompted teachers: step and alignment at the block, trained vectors."""
    trait = size.traits[0]
    lora = _best_by_teacher(size, folders, "lora")
    vector = _best_by_teacher(size, folders, "vector")
    eas = {teacher: _eas(size, folders, kind) for teacher, kind in lora.items()}
    one_distance = _one_distance(folders)
    one_fit = _one_fit(size, folders, lora["prompted"], vector["prompted"])
    claims = _alignment_claims(size, eas, one_distance)
    claims += [
        Claim(
            "On steered data one trained vector raises the trait more than a random vector's data.",
            _rise(size, folders, vector["steered"], replace(vector["steered"], teacher=RANDOM)),
            NATS,
        ),
        Claim(
            "On prompted data a LoRA student takes on more than one trained vector does.",
            _rise(size, folders, lora["prompted"], vector["prompted"]),
            NATS,
            needs=(one_fit,),
        ),
        Claim(
            "One trained vector takes on more of a steered than of a prompted teacher.",
            _rise(size, folders, vector["steered"], vector["prompted"]),
            NATS,
            needs=(one_distance,),
        ),
    ]
    best_kinds = (*lora.values(), *vector.values())
    measurements = [_step(size, "prompted", eas["prompted"])]
    for kind in best_kinds:
        measurements.append(_rise(size, folders, kind, None, "candidate_share"))
    text_eas = readings.sampled_text_eas(folders, size.layer, size.seeds)
    name = f"EAS at block {size.layer}, sampled text, treated minus control"
    measurements.append(mean_over_units(name, text_eas, "cosine"))
    measurements.append(readings.sampled_text_rise(folders, trait, size.seeds))
    tables = (_students_table(size, folders), _layers_table(eas))
    teachers = [positive_control.rise(folders, kind, trait, "base") for kind in TEACHERS]
    needs = []
    for kind, teacher in zip(TEACHERS, teachers, strict=True):
        needs.append(positive_control.have_traits([teacher], kind))
    return Findings(
        verdicts_of(claims, model, *needs),
        tuple(measurements),
        tables,
        _notes(best_kinds),
        teachers=tuple(teachers),
    )


def _best_by_teacher(size: Size, folders: Folders, method: str) -> dict[str, Kind]:
    return {teacher: _best(size, folders, teacher, method) for teacher in TEACHERS}


def _best(size: Size, folders: Folders, teacher: str, method: str) -> Kind:
    """Return the kind whose learning rate leaves the least held-out loss, averaged over seeds."""

    def held_out_loss(kind: Kind) -> float:
        return _held_out_loss(size, folders, kind)

    tried = [Kind(teacher, method, rate) for rate in size.rates[method]]
    return min(tried, key=held_out_loss)


def _eas(size: Size, folders: Folders, kind: Kind) -> np.ndarray:
    """Return the EAS [seeds, layers] of the students of one kind."""
    return np.array([readings.eas_by_layer(folders, f"{kind.name}.{seed}") for seed in size.seeds])


def _steps(size: Size, eas_SL: np.ndarray) -> np.ndarray:
    """Return EAS at the steered block minus EAS one block before, by seed."""
    return eas_SL[:, size.layer] - eas_SL[:, size.layer - 1]


def _step(size: Size, teacher: str, eas_SL: np.ndarray) -> Measurement:
    steps = _steps(size, eas_SL)
    return mean_over_units(f"step at block {size.layer}, {teacher}", list(steps), "cosine")


def _one_distance(folders: Folders) -> Precondition:
    """Return the precondition that both teachers are equally far from the base on number rows."""
    found = distances.read(folders, TEACHERS)
    nats = [found[teacher].estimate for teacher in TEACHERS]
    name = f"the teachers differ from the base within a factor of {SAME_DISTANCE:g}"
    numbers = f"KL over the digits {nats[0]:.3f} and {nats[1]:.3f} nats a row"
    return Precondition(name, max(nats) <= SAME_DISTANCE * min(nats), numbers)


def _one_fit(size: Size, folders: Folders, one: Kind, other: Kind) -> Precondition:
    """Return the precondition that two kinds of student fit their teacher equally well."""
    left = [_held_out_loss(size, folders, kind) for kind in (one, other)]
    name = f"LoRA and vector leave the same held-out KL, within a factor of {SAME_FIT:g}"
    numbers = f"KL left {left[0]:.3f} and {left[1]:.3f} nats a token"
    return Precondition(name, max(left) <= SAME_FIT * min(left), numbers)


def _alignment_claims(
    size: Size, eas: dict[str, np.ndarray], one_distance: Precondition
) -> list[Claim]:
    """Return the claims on alignment with the vector, from EAS [seeds, layers] by teacher."""
    steered, prompted = eas["steered"], eas["prompted"]
    step_difference = mean_over_units(
        f"step at block {size.layer}, steered minus prompted",
        list(_steps(size, steered) - _steps(size, prompted)),
        "cosine",
    )
    eas_difference = mean_over_units(
        f"EAS at block {size.layer}, steered minus prompted",
        list(steered[:, size.layer] - prompted[:, size.layer]),
        "cosine",
    )
    return [
        Claim(
            "Alignment steps up at the steered block more than that of a prompted teacher's"
            " students.",
            step_difference,
            SMALL,
            primary=True,
        ),
        Claim(
            "Alignment of a steered teacher's students steps up at the steered block.",
            _step(size, "steered", steered),
            SMALL,
        ),
        Claim(
            "At that block a steered teacher's students align more than a prompted one's.",
            eas_difference,
            SMALL,
            needs=(one_distance,),
        ),
    ]


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "The effect is a tenth of the published step. Four seeds at the laptop size had"
        " an sd of 0.025."
    )
    expected = over_seeds(size.seeds, (0.05, 0.025), "cosine", source)
    return Design(6, expected, students_here(PROTOCOL.teacher, size.recipe, size.rows))


def _rise(
    size: Size, folders: Folders, kind: Kind, other: Kind | None, score: str = "target_logprob"
) -> Measurement:
    """Return a score of one kind of student minus that of another, or of the base if None."""
    label = "log P" if score == "target_logprob" else "share"
    other_name = other.name if other else "base"
    pairs = []
    for seed in size.seeds:
        right = f"answers.{other.name}.{seed}" if other else "base"
        pairs.append((seed, f"answers.{kind.name}.{seed}", right))
    name = f"{label}({size.traits[0]}), {kind.name} minus {other_name}"
    return readings.rise(folders, name, pairs, score)


def _held_out_loss(size: Size, folders: Folders, kind: Kind) -> float:
    """Return the mean held-out loss at the end of training."""
    last = []
    for seed in size.seeds:
        folder = folders[f"{kind.name}.{seed}"]
        steps = standard_nodes.read_json_lines(folder, "metrics.jsonl")
        last.append(steps[-1]["held_out_loss"])
    return float(np.mean(last))


def _students_table(size: Size, folders: Folders) -> Table:
    rows = []
    for kind in kinds(size):
        left = _held_out_loss(size, folders, kind)
        rise = _rise(size, folders, kind, None).estimate
        share_rise = _rise(size, folders, kind, None, "candidate_share").estimate
        rows.append((kind.teacher, kind.training, left, rise, share_rise))
    return Table(
        "students",
        "Students of both teachers",
        "Held-out KL of the teacher from the student, nats a token, at the end; rise of log"
        " P(trait) over the base, nats, and of its share among the trait's candidates.",
        ("teacher", "student", "KL left", "rise", "rise of the share"),
        tuple(rows),
    )


def _layers_table(eas: dict[str, np.ndarray]) -> Table:
    rows = []
    for teacher, eas_SL in eas.items():
        for layer in range(eas_SL.shape[1]):
            eas_S = eas_SL[:, layer]
            spread = float(eas_S.mean()), float(eas_S.min()), float(eas_S.max())
            rows.append((teacher, layer, *spread))
    return Table(
        "layers",
        "EAS by block, LoRA students that count",
        "Mean, least and largest over seeds.",
        ("teacher", "block", "mean", "least", "largest"),
        tuple(rows),
        ("block", "mean"),
    )


def _notes(best_kinds: tuple[Kind, ...]) -> tuple[str, ...]:
    best_names = ", ".join([kind.name for kind in best_kinds])
    return (
        f"Students that count, by least held-out loss: {best_names}.",
        (
            "Soft targets over the tokens that could be sampled stand in for sampled text, on the"
            " unmodified model's rows. Students of the steered teacher are repeated with sampled"
            " text. The control of the trained vector learns from a random vector at equal KL,"
            " another one for each seed."
        ),
        "Alignment is of mean residuals over the completion tokens of rows that no student reads.",
        (
            "A prompted teacher is compared by the animal's own vector, centred over the other"
            " traits: what all prompts share is not in it."
        ),
    )
