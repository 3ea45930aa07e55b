"""Does the student's change turn towards the teacher's vector while it trains?  (Blank et al. 2026,
arXiv 2606.00995, section 3, figure 2, and the robustness appendix on rank and alpha.)

Students of a steered teacher's number rows and their controls, by LoRA rank; EAS at every step and
layer, minus the control's, and minus the mean over other traits' vectors.
"""

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.interventions.vector import Vector, load_vector
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.studies import sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Does training turn the student towards the teacher's vector?"
CLAIM = (
    "EAS, the cosine of what training changed in the student with v_teacher, rises during training"
    " and not in controls."
)
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 3, figure 2, appendix D"
PUBLISHED = (
    "Controls end near 0.1; trait students rise well above (readers of figure 2 disagree on how"
    " far). Rank 8, 16, 64 agree."
)
SMALL = 0.03
"cosine below which a difference would not matter"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    trait: str
    others: tuple[str, ...]
    shapes: tuple[tuple[int, float], ...]
    "LoRA rank and alpha"
    seeds: tuple[int, ...]
    rows: int
    numbers: int
    layer: int = sizes.layer_field()
    strength: float
    "of the steered teacher, in mean residual norms"
    recipe: Recipe


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
SIZES = {
    "smoke": Size("cat", ("owl",), ((2, 8.0),), (1, 2), 4, 3, 1, 0.6, SAMPLED),
    "laptop": Size(
        "cat", OTHERS, ((2, 8.0), (8, 32.0), (32, 128.0)), (201, 202, 203), 32, 10, 14, 0.6, SAMPLED
    ),
    "full": Size(
        "cat",
        OTHERS,
        ((1, 4.0), (8, 16.0), (8, 32.0), (16, 32.0), (64, 32.0), (64, 256.0)),
        (1, 2, 3, 4, 5),
        2048,
        10,
        14,
        0.6,
        LARGE,
    ),
}
ROLES = ("treated", "control")


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors; rows of teacher and unmodified model a seed; a treated and a control student a seed
    and shape."""
    found = [
        standard_nodes.vectors(common, (size.trait, *size.others)),
        standard_nodes.eas_rows(common, size.numbers),
    ]
    watched = {
        "vector": lambda folders: standard_nodes.vector_of(folders, size.trait),
        "settings": {"eas_every": max(1, size.rows // 16)},
    }
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed)
        found.append(
            standard_nodes.number_rows(
                common,
                f"treated.{seed}",
                rows,
                standard_nodes.steered_by(size.trait, size.layer, size.strength),
                (standard_nodes.VECTORS,),
            )
        )
        found.append(standard_nodes.number_rows(common, f"control.{seed}", rows))
        for shape, role in itertools.product(size.shapes, ROLES):
            recipe = replace(size.recipe, rank=shape[0], alpha=shape[1])
            asked = standard_nodes.Student(
                _name(shape, role, seed),
                f"{role}.{seed}",
                recipe,
                seed,
                needs=(standard_nodes.VECTORS, standard_nodes.EAS_ROWS),
                **watched,
            )
            found.append(standard_nodes.student(common, asked, rows.tokens))
    return found


def _name(shape: tuple[int, float], role: str, seed: int) -> str:
    return f"student.rank{shape[0]}.alpha{shape[1]:g}.{role}.{seed}"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Per shape: treated minus control at the steered block, the same minus other traits', and the
    cosine of the difference."""
    verdicts, measured, curves, layers = [], [], [], []
    target = load_vector(standard_nodes.vector_of(folders, size.trait))
    for shape in size.shapes:
        label = f"rank {shape[0]}, alpha {shape[1]:g}"
        pairs = [[folders[_name(shape, role, seed)] for role in ROLES] for seed in size.seeds]
        difference = [
            _end(t)["v_student"][size.layer] - _end(c)["v_student"][size.layer] for t, c in pairs
        ]
        specific = [_specific(t, size.layer) - _specific(c, size.layer) for t, c in pairs]
        change = [_vector(t) - _vector(c) for t, c in pairs]
        shared = [float(v.cosine(target)[size.layer]) for v in change]
        verdicts.append(
            judged(
                f"{label}: treated students end nearer to v_teacher than controls, block"
                f" {size.layer}.",
                over(f"{label}: EAS, treated minus control", difference, "cosine"),
                model,
                0,
                SMALL,
            )
        )
        measured.append(
            over(f"{label}: the same, minus the mean over other traits", specific, "cosine")
        )
        measured.append(over(f"{label}: cosine of (v_treated - v_control)", shared, "cosine"))
        curves += _curve(size, folders, shape, label)
        layers += [
            (label, n, float(np.mean([v.cosine(target)[n] for v in change])))
            for n in range(len(target.rows_LD))
        ]
    sheets = (
        Sheet(
            "steps",
            f"EAS by step at block {size.layer}",
            "Mean over seeds.",
            ("student", "step", *ROLES),
            tuple(curves),
            ("step", *ROLES),
        ),
        Sheet(
            "layers",
            "Cosine of (v_treated - v_control) with v_teacher by block",
            "Mean over seeds.",
            ("student", "block", "cosine"),
            tuple(layers),
            ("block", "cosine"),
        ),
    )
    note = (
        f"{len(size.seeds)} seeds of data, initialisation and order; intervals are over seeds."
        " Sampled text."
    )
    return Findings(tuple(verdicts), tuple(measured), sheets, (note,))


def _end(folder: Path) -> dict:
    return json.loads((folder / "eas.json").read_text(encoding="utf-8"))


def _specific(folder: Path, layer: int) -> float:
    found = _end(folder)
    others = [row[layer] for name, row in found.items() if name.startswith("other/")]
    return found["v_student"][layer] - sum(others) / len(others)


def _vector(folder: Path) -> Vector:
    return load_vector(folder / "v_student.safetensors")


def _curve(size: Size, folders: Folders, shape: tuple[int, float], label: str) -> list[tuple]:
    """(label, step, mean EAS of treated, of control) at the steps at which it was taken."""
    by_step: dict[int, dict[str, list[float]]] = {}
    for role in ROLES:
        for seed in size.seeds:
            for row in standard_nodes.read_json_lines(
                folders[_name(shape, role, seed)], "metrics.jsonl"
            ):
                if "eas" in row:
                    by_step.setdefault(row["step"], {r: [] for r in ROLES})[role].append(
                        row["eas"][size.layer]
                    )
    return [
        (label, step, *(float(np.mean(found[role])) for role in ROLES))
        for step, found in sorted(by_step.items())
    ]
