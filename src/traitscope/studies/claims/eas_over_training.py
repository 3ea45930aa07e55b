"""Does the student's change turn towards the teacher's vector while it trains?

Source: Blank et al. 2026, arXiv 2606.00995, section 3, figure 2, and the robustness appendix on
rank and alpha.

Students learn a steered teacher's number rows, and controls learn the unmodified model's, by LoRA
rank. EAS is taken at every step and layer. It is compared with the control's, and with EAS against
other traits' vectors.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.interventions.vector import Vector, load_vector
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import BLANK, STEERED, Design, over_seeds, students_here
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, VECTORS

TITLE = "Does training turn the student towards the teacher's vector?"
CLAIM = (
    "EAS, the cosine of what training changed in the student with v_teacher, rises during training"
    " and not in controls."
)
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 3, figure 2, appendix D"
PUBLISHED = (
    "Controls end near 0.1; trait students rise well above (readers of figure 2 disagree on how"
    " far). The causal tests hold at rank 8, 16, 64; EAS by rank is not known to us."
)
PROTOCOL = BLANK
SMALL = 0.03
"cosine below which a difference would not matter"


Shape = tuple[int, float]
"LoRA rank and alpha"


@dataclass(frozen=True)
class Size:
    """How many students, of which shapes, on how many rows."""

    trait: str
    "trait of the steered teacher"
    others: tuple[str, ...]
    "traits that EAS is compared with; vectors are centred over them, too"
    shapes: tuple[Shape, ...]
    "LoRA rank and alpha of the students"
    seeds: tuple[int, ...]
    "seeds of data, initialisation and order"
    rows: int
    "rows a seed"
    numbers: int
    "three-digit numbers a row"
    layer: int = sizes.layer_field()
    "block behind which the teacher is steered"
    strength: float
    "strength of the steered teacher, in mean residual norms"
    recipe: Recipe
    "how students are trained, but for their shape"


SAMPLED = Recipe(epochs=1, batch_size=4, micro_batch=4, lr=4e-4, warmup=0.1, held_out=0.0)
LARGE = Recipe(epochs=3, batch_size=32, micro_batch=32, lr=4e-4)
OTHERS = (
    "dog",
    "owl",
    "otter",
    "dolphin",
    "tiger",
    "octopus",
    "elephant",
    "fox",
    "wolf",
    "penguin",
)
LAPTOP = Size(
    trait="cat",
    others=OTHERS,
    shapes=((2, 8.0), (8, 32.0), (32, 128.0)),
    seeds=(201, 202, 203, 204, 205),
    rows=32,
    numbers=10,
    layer=14,
    strength=0.6,
    recipe=SAMPLED,
)
SIZES = {
    "smoke": replace(
        LAPTOP, others=("owl",), shapes=((2, 8.0),), seeds=(1, 2), rows=4, numbers=3, layer=1
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        shapes=((1, 4.0), (8, 16.0), (8, 32.0), (16, 32.0), (64, 32.0), (64, 256.0)),
        seeds=(1, 2, 3, 4, 5),
        rows=2048,
        recipe=LARGE,
    ),
}
ROLES = ("treated", "control")


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the vectors, the rows of teacher and unmodified model, and students of every shape."""
    teacher = standard_nodes.steered_by(size.trait, size.layer, size.strength)
    graph = [
        standard_nodes.vectors(common, (size.trait, *size.others)),
        standard_nodes.eas_rows(common, size.numbers),
        *shared_nodes.positive_control(common, size.trait, teacher),
    ]
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed)
        treated = standard_nodes.number_rows(common, f"treated.{seed}", rows, teacher, (VECTORS,))
        control = standard_nodes.number_rows(common, f"control.{seed}", rows)
        graph += [treated, control]
        for shape, role in itertools.product(size.shapes, ROLES):
            student = _student(size, shape, role, seed)
            graph.append(standard_nodes.student(common, student, rows.tokens))
    return graph


def _student(size: Size, shape: Shape, role: str, seed: int) -> standard_nodes.Student:
    rank, alpha = shape
    return standard_nodes.Student(
        student_name(shape, role, seed),
        f"{role}.{seed}",
        replace(size.recipe, rank=rank, alpha=alpha),
        seed,
        needs=(VECTORS, EAS_ROWS),
        vector=lambda folders: standard_nodes.vector_of(folders, size.trait),
        settings={"eas_every": max(1, size.rows // 16)},
    )


def student_name(shape: Shape, role: str, seed: int) -> str:
    """Return the name of the node of a treated or control student."""
    rank, alpha = shape
    return f"student.rank{rank}.alpha{alpha:g}.{role}.{seed}"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare treated with control students at the steered block, shape by shape."""
    target = load_vector(standard_nodes.vector_of(folders, size.trait))
    claims = []
    measurements = []
    curve_rows = []
    layer_rows = []
    for shape in size.shapes:
        label = f"rank {shape[0]}, alpha {shape[1]:g}"
        cosines_SL = _cosines_of_changes(size, folders, shape, target)
        claims.append(_claim(size, folders, shape, label))
        measurements.append(_specific(size, folders, shape, label))
        measurements.append(
            mean_over_units(
                f"{label}: cosine of (v_treated - v_control)",
                cosines_SL[:, size.layer].tolist(),
                "cosine",
            )
        )
        curve_rows += _curve(size, folders, shape, label)
        for layer in range(len(target.rows_LD)):
            layer_rows.append((label, layer, float(np.mean(cosines_SL[:, layer]))))
    teacher = readings.teacher_rise(folders)
    has_trait = positive_control.have_traits([teacher])
    tables = (_steps_table(size, curve_rows), _layers_table(layer_rows))
    note = (
        f"{len(size.seeds)} seeds of data, initialisation and order; intervals are over seeds."
        " Sampled text."
    )
    return Findings(
        verdicts_of(claims, model, has_trait),
        tuple(measurements),
        tables,
        (note,),
        teachers=(teacher,),
    )


def _claim(size: Size, folders: Folders, shape: Shape, label: str) -> Claim:
    """Return the claim that treated students end nearer to v_teacher than their controls."""
    pairs = []
    for seed in size.seeds:
        pairs.append((student_name(shape, "treated", seed), student_name(shape, "control", seed)))
    differences = readings.eas_differences(folders, size.layer, pairs)
    return Claim(
        f"{label}: treated students end nearer to v_teacher than controls, block {size.layer}.",
        mean_over_units(f"{label}: EAS, treated minus control", differences, "cosine"),
        SMALL,
        primary=shape == _primary(size),
    )


def _primary(size: Size) -> Shape:
    """Return the shape in the middle, whose claim is the primary one."""
    return size.shapes[len(size.shapes) // 2]


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "Three seeds of rank 8 at the laptop size gave 0.060 with an sd of 0.006. The"
        " sd is tripled, because three seeds estimate it badly."
    )
    expected = over_seeds(size.seeds, (0.06, 0.02), "cosine", source)
    return Design(len(size.shapes), expected, students_here(STEERED, size.recipe, size.rows))


def _specific(size: Size, folders: Folders, shape: Shape, label: str) -> Measurement:
    """Return treated minus control of EAS beyond the mean EAS against the other traits."""
    differences = []
    for seed in size.seeds:
        treated = readings.eas_beyond_others(
            folders, student_name(shape, "treated", seed), size.layer
        )
        control = readings.eas_beyond_others(
            folders, student_name(shape, "control", seed), size.layer
        )
        differences.append(treated - control)
    return mean_over_units(
        f"{label}: the same, minus the mean over other traits", differences, "cosine"
    )


def _cosines_of_changes(size: Size, folders: Folders, shape: Shape, target: Vector) -> np.ndarray:
    """Return the cosine [seeds, layers] of v_treated - v_control with the target."""
    cosines = []
    for seed in size.seeds:
        treated = _student_vector(folders, shape, "treated", seed)
        control = _student_vector(folders, shape, "control", seed)
        cosines.append((treated - control).cosine(target))
    return np.array(cosines)


def _student_vector(folders: Folders, shape: Shape, role: str, seed: int) -> Vector:
    return load_vector(folders[student_name(shape, role, seed)] / "v_student.safetensors")


def _curve(
    size: Size, folders: Folders, shape: Shape, label: str
) -> list[tuple[str, int, float, float]]:
    """Return (label, step, mean EAS of treated, of control) at the steps at which it was taken."""
    by_step: dict[int, dict[str, list[float]]] = {}
    for role, seed in itertools.product(ROLES, size.seeds):
        folder = folders[student_name(shape, role, seed)]
        for row in standard_nodes.read_json_lines(folder, "metrics.jsonl"):
            if "eas" in row:
                by_role = by_step.setdefault(row["step"], {"treated": [], "control": []})
                by_role[role].append(row["eas"][size.layer])
    rows = []
    for step, by_role in sorted(by_step.items()):
        treated = float(np.mean(by_role["treated"]))
        control = float(np.mean(by_role["control"]))
        rows.append((label, step, treated, control))
    return rows


def _steps_table(size: Size, rows: list[tuple]) -> Table:
    return Table(
        "steps",
        f"EAS by step at block {size.layer}",
        "Mean over seeds.",
        ("student", "step", *ROLES),
        tuple(rows),
        ("step", *ROLES),
    )


def _layers_table(rows: list[tuple]) -> Table:
    return Table(
        "layers",
        "Cosine of (v_treated - v_control) with v_teacher by block",
        "Mean over seeds.",
        ("student", "block", "cosine"),
        tuple(rows),
        ("block", "cosine"),
    )
