"""Does a student show whether its teacher was steered or prompted?  (Hadley and Gultepe 2026, arXiv
2608.05734.)

Students of steered and of prompted teachers on the same rows: how well what training changed in
them agrees with the vector, block by block; and, from the same data, students that are one vector
behind the steered block.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Does a student show whether its teacher was steered or prompted?"
CLAIM = (
    "A steered teacher's student aligns with the vector in a step at the steered block, a prompted"
    " one's hardly; one trained vector carries the trait of steered data and fails on prompted"
    " data."
)
SOURCE = "Hadley and Gultepe 2026, arXiv 2608.05734, sections on the type of intervention"
PUBLISHED = (
    "Gemma, block 14: 0.53 (steered) with about 0.0 one block before, 0.06 (prompted); Llama, block"
    " 21: 0.47 and 0.04. Target preference, trained vector against LoRA student: .79 and .31 on"
    " steered, .10 and .22 on prompted data (Gemma); .73 and .17, .05 and .91 (Llama)."
)
SMALL, NATS = 0.03, 0.05
"cosine, and nats, below which an effect would not matter"
TEACHERS = ("steered", "prompted")


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How much of everything; `recipe` is that of LoRA students."""

    vector: Recipe
    "of trained vectors; its layer is the study's"
    rates: dict[str, tuple[float, ...]]
    """learning rates of lora and vector; of each teacher's data the one with the least held-out
    loss counts"""


SOFT = Recipe(
    targets="soft", epochs=6, batch_size=3, micro_batch=3, lr=1e-3, warmup=0.1, held_out=0.25
)
TRAINED = replace(SOFT, method="vector", layer=0)
RATES = {"lora": (1e-3, 3e-3), "vector": (0.1, 0.3, 1.0)}
ANIMALS = ("cat", "owl", "otter", "dolphin", "elephant", "fox", "penguin", "wolf")
SIZES = {
    "smoke": Size(
        ("cat", "owl"),
        (1, 2),
        5,
        3,
        1,
        0.6,
        SOFT,
        sizes.SMOKE_TEXT,
        TRAINED,
        {"lora": (1e-3,), "vector": (0.1, 1.0)},
    ),
    "laptop": Size(ANIMALS, (1, 2, 3, 4), 12, 12, 14, 0.6, SOFT, sizes.LAPTOP_TEXT, TRAINED, RATES),
    "full": Size(
        ANIMALS,
        (1, 2, 3, 4, 5),
        512,
        10,
        14,
        0.6,
        replace(SOFT, batch_size=32, micro_batch=32),
        sizes.FULL_TEXT,
        replace(TRAINED, batch_size=16, micro_batch=16, epochs=60),
        {"lora": (1e-4, 4e-4, 1e-3), "vector": (3e-3, 1e-2, 3e-2)},
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors, rows of the unmodified model, and of both teachers a LoRA student and a trained
    vector a seed."""
    trait = size.traits[0]
    found = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.numbers),
        standard_nodes.answers(common, "base", trait),
    ]
    recipes = {"lora": size.recipe, "vector": replace(size.vector, layer=size.layer)}
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=91)
        found.append(standard_nodes.number_rows(common, f"rows.{seed}", rows))
        for teacher in TEACHERS:
            for method, lr in _tried(size):
                name, told = (
                    f"{teacher}.{method} at {lr:g}.{seed}",
                    partial(_teacher, size, teacher),
                )
                asked = standard_nodes.Student(
                    name,
                    f"rows.{seed}",
                    replace(recipes[method], lr=lr),
                    seed,
                    told,
                    (standard_nodes.VECTORS, standard_nodes.EAS_ROWS),
                    lambda folders: standard_nodes.vector_of(folders, trait),
                )
                found.append(standard_nodes.student(common, asked, rows.tokens))
                found.append(
                    standard_nodes.answers(
                        common, f"answers.{name}", trait, standard_nodes.trained_by(name), (name,)
                    )
                )
        found += shared_nodes.sampled_text(
            common, size.text, trait, seed, size.steered_teacher, (standard_nodes.VECTORS,)
        )
    return found


def _tried(size: Size) -> list[tuple[str, float]]:
    return [(method, lr) for method, rates in size.rates.items() for lr in rates]


def _best(size: Size, folders: Folders, teacher: str, method: str) -> str:
    """Of the learning rates, the one with the least held-out loss."""
    return min(
        (f"{teacher}.{method} at {lr:g}" for lr in size.rates[method]),
        key=lambda name: _ends(size, folders, name)[0],
    )


def _teacher(size: Size, teacher: str, folders: Folders) -> tuple[str, ...]:
    return (
        (standard_nodes.prompted(size.traits[0]),)
        if teacher == "prompted"
        else size.steered_teacher(folders)
    )


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """The step at the steered block, steered minus prompted alignment, and what a trained vector
    does of either's data."""
    trait = size.traits[0]
    lora, best = (
        {t: _best(size, folders, t, method) for t in TEACHERS} for method in ("lora", "vector")
    )
    eas = {
        t: np.array([readings.eas_by_layer(folders, f"{lora[t]}.{seed}") for seed in size.seeds])
        for t in TEACHERS
    }
    steps = {t: rows[:, size.layer] - rows[:, size.layer - 1] for t, rows in eas.items()}
    step = {
        t: over(f"step at block {size.layer}, {t}", list(values), "cosine")
        for t, values in steps.items()
    }
    further = over(
        f"step at block {size.layer}, steered minus prompted",
        list(steps["steered"] - steps["prompted"]),
        "cosine",
    )
    apart = over(
        f"EAS at block {size.layer}, steered minus prompted",
        list(eas["steered"][:, size.layer] - eas["prompted"][:, size.layer]),
        "cosine",
    )
    tests = {
        "On steered data one trained vector raises the trait.": (best["steered"], "base"),
        "On prompted data a LoRA student takes on more than one trained vector does.": (
            lora["prompted"],
            best["prompted"],
        ),
        "One trained vector takes on more of a steered than of a prompted teacher.": (
            best["steered"],
            best["prompted"],
        ),
    }
    verdicts = (
        judged(
            "Alignment of a steered teacher's students steps up at the steered block.",
            step["steered"],
            model,
            0,
            SMALL,
        ),
        judged(
            "It steps up more than that of a prompted teacher's students.", further, model, 0, SMALL
        ),
        judged(
            "At that block a steered teacher's students align more than a prompted one's.",
            apart,
            model,
            0,
            SMALL,
        ),
        *(
            judged(claim, _rise(size, folders, *pair), model, 0, NATS)
            for claim, pair in tests.items()
        ),
    )
    students = [(t, f"{method} at {lr:g}") for t in TEACHERS for method, lr in _tried(size)]
    rows = tuple(
        (t, m, *_ends(size, folders, f"{t}.{m}"), *_rises(size, folders, f"{t}.{m}"))
        for t, m in students
    )
    specific = [
        _rise(size, folders, found[t], "base", "candidate_share")
        for found in (lora, best)
        for t in TEACHERS
    ]
    layers = tuple((t, n, *_spread(eas[t][:, n])) for t in TEACHERS for n in range(eas[t].shape[1]))
    sheets = (
        Sheet(
            "students",
            "Students of both teachers",
            "Held-out KL of the teacher from the student, nats a token, at the end; the same for"
            " the base; rise of log P(trait) over the base, nats, and of its share among the"
            " trait's candidates.",
            ("teacher", "student", "KL left", "KL of the base", "rise", "rise of the share"),
            rows,
        ),
        Sheet(
            "layers",
            "EAS by block, LoRA students that count",
            "Mean, least and largest over seeds.",
            ("teacher", "block", "mean", "least", "largest"),
            layers,
            ("block", "mean"),
        ),
    )
    notes = (
        (
            "Students that count, by least held-out loss:"
            f" {', '.join((*lora.values(), *best.values()))}."
        ),
        (
            "Soft targets on the unmodified model's rows, whose clean student is the base itself;"
            " students of the steered teacher are repeated with sampled text and its own controls."
        ),
        "Alignment is of mean residuals over the completion tokens of rows that no student reads.",
        (
            "A prompted teacher is compared by the animal's own vector, centred over the other"
            " traits: what all prompts share is not in it."
        ),
    )
    text = over(
        f"EAS at block {size.layer}, sampled text, treated minus control",
        readings.sampled_text_eas(folders, size.layer, size.seeds),
        "cosine",
    )
    return Findings(
        verdicts,
        (step["prompted"], *specific, text, readings.sampled_text_rise(folders, trait, size.seeds)),
        sheets,
        notes,
    )


def _rise(
    size: Size, folders: Folders, left: str, right: str, score: str = "target_logprob"
) -> Measurement:
    name = "log P" if score == "target_logprob" else "share"
    nodes = (
        (s, *(n if n == "base" else f"answers.{n}.{s}" for n in (left, right))) for s in size.seeds
    )
    return readings.rise(folders, f"{name}({size.traits[0]}), {left} minus {right}", nodes, score)


def _rises(size: Size, folders: Folders, name: str) -> tuple[float, ...]:
    return tuple(
        _rise(size, folders, name, "base", score).estimate for score in readings.SCORE_UNITS
    )


def _ends(size: Size, folders: Folders, name: str) -> tuple[float, float]:
    """Mean held-out loss at the end, and mean loss of the first step, which the base's function
    has."""
    found = [
        standard_nodes.read_json_lines(folders[f"{name}.{seed}"], "metrics.jsonl")
        for seed in size.seeds
    ]
    return (
        float(np.mean([steps[-1]["held_out_loss"] for steps in found])),
        float(np.mean([steps[0]["loss"] for steps in found])),
    )


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    return float(values.mean()), float(values.min()), float(values.max())
