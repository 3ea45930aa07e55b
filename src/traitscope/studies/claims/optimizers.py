"""Does the optimizer decide whether a trait transfers?

Source: Blank et al. 2026, arXiv 2606.00995, section 6 and appendix L. PUBLISHED lists the
replications that disagree.

Students of one steered teacher are trained with every optimizer, each at several learning rates.
They are compared at the rate whose held-out loss is nearest to AdamW's: at one shared rate the
comparison would be about rates.
"""

from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np

from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, Precondition, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import BLANK, NIEF_NOTICE, STEERED, Design, over_seeds, students_here
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Does the optimizer decide whether a trait transfers?"
CLAIM = "At similar loss, adaptive optimizers pass a trait on and plain SGD does not."
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 6, figures 7b and 7c, appendix L"
PUBLISHED = (
    "Qwen2.5-7B, cat (as readers of the paper report): AdamW 57 % at loss 0.142, SGD 0 % at loss"
    " 0.167. RMSProp and SGD with Adam's frozen scales transfer. With all weights neither Adam nor"
    " SGD transfers (three models). Blank et al. say that Nief et al. (arXiv 2606.00831) report SGD"
    f" like AdamW, which they could not reproduce. {NIEF_NOTICE}. A replication finds Signum"
    " transferring and masked SGD not."
)
PROTOCOL = BLANK
SMALL, NATS = 0.03, 0.05
"smallest differences that would matter: cosine, and nats"
REACHED = 0.1
"An arm counts as matched if its held-out loss is at most this fraction above AdamW's best."
ARMS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "adamw": ({}, (3e-4, 1e-3)),
    "rmsprop": ({"optimizer": "rmsprop"}, (3e-4, 1e-3)),
    "adafactor": ({"optimizer": "adafactor"}, (1e-3, 3e-3)),
    "muon": ({"optimizer": "muon"}, (1e-3, 3e-3)),
    "signsgd": ({"optimizer": "signsgd"}, (3e-4, 1e-3)),
    "signum": ({"optimizer": "signsgd", "momentum": 0.9}, (3e-4, 1e-3)),
    "frozen adam": ({"optimizer": "frozen_adam"}, (3e-4, 1e-3)),
    "sgd": ({"optimizer": "sgd"}, (1.0, 2.0, 3.0, 10.0)),
    "sgd, momentum 0.9": ({"optimizer": "sgd", "momentum": 0.9}, (0.3, 1.0, 3.0)),
    "sgd, top 1 % masked": ({"optimizer": "sgd", "mask_top": 0.01}, (3.0, 10.0, 30.0)),
    "sgd, winsorised at 1 %": ({"optimizer": "sgd", "winsorise": 0.01}, (3.0, 10.0, 30.0)),
    "adamw, rotated blocks": ({"rotate": "blocks"}, (3e-4, 1e-3)),
    "adamw, all weights": ({"method": "full"}, (1e-5, 3e-5)),
    "sgd, all weights": ({"method": "full", "optimizer": "sgd"}, (0.1, 0.3, 1.0)),
}
"by arm: settings that differ from AdamW's recipe, and the learning rates tried"
PAIRS = (
    ("adamw", "sgd"),
    ("signsgd", "sgd"),
    ("frozen adam", "sgd"),
    ("adamw, all weights", "sgd, all weights"),
)
"arms that the verdicts compare"


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How much of everything."""

    arms: tuple[str, ...]
    "optimizers, by their names in ARMS"


SOFT = replace(sizes.FEW_ROWS_SOFT_RECIPE, epochs=2)
LARGE = replace(SOFT, targets="sampled", soft_over="vocabulary", batch_size=32, micro_batch=32)
LAPTOP = Size(
    traits=sizes.ANIMALS,
    seeds=(1, 2, 3, 4, 5),
    rows=12,
    numbers=10,
    layer=14,
    strength=0.6,
    recipe=SOFT,
    text=sizes.LAPTOP_TEXT,
    arms=tuple(ARMS),
)
SIZES = {
    "smoke": Size(
        traits=("cat", "owl"),
        seeds=(1, 2),
        rows=6,
        numbers=3,
        layer=1,
        strength=0.6,
        recipe=SOFT,
        text=sizes.SMOKE_TEXT,
        arms=("adamw", "frozen adam", "sgd", "adamw, all weights"),
    ),
    "laptop": LAPTOP,
    "full": replace(LAPTOP, seeds=(1, 2, 3, 4, 5), rows=2048, recipe=LARGE, text=sizes.FULL_TEXT),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors, the teacher's rows by seed, students by arm, rate and seed, and their answers.

    A first student of every seed, the scout, leaves the scales that frozen Adam uses.
    """
    trait = size.traits[0]
    graph = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.numbers),
        *shared_nodes.positive_control(common, trait, size.steered_teacher),
    ]
    for seed in size.seeds:
        graph += _nodes_of_seed(size, common, seed)
    return graph


def _nodes_of_seed(size: Size, common: dict, seed: int) -> list[Node]:
    trait, teacher = size.traits[0], size.steered_teacher
    needs = (standard_nodes.VECTORS,)
    rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=71)
    scout = _student(size, f"scout.{seed}", seed, "adamw", ARMS["adamw"][1][-1])
    scout = replace(scout, settings={"save_scales": True})
    graph = [
        standard_nodes.number_rows(common, f"rows.{seed}", rows, teacher, needs),
        standard_nodes.student(common, scout, rows.tokens),
    ]
    for arm in size.arms:
        for rate in ARMS[arm][1]:
            name = _student_name(arm, rate, seed)
            student = _student(size, name, seed, arm, rate)
            answers = f"answers.{name}"
            graph += shared_nodes.student_and_answers(common, student, rows.tokens, trait, answers)
    graph += shared_nodes.sampled_text(common, size.text, trait, seed, teacher, needs)
    return graph


def _student_name(arm: str, rate: float, seed: int) -> str:
    return f"{arm}.{rate:g}.{seed}"


def _student(size: Size, name: str, seed: int, arm: str, rate: float) -> standard_nodes.Student:
    settings = ARMS[arm][0]
    needs = [standard_nodes.VECTORS, standard_nodes.EAS_ROWS]
    scales = {}
    if settings.get("optimizer") == "frozen_adam":
        needs.append(f"scout.{seed}")
        scales["scales"] = f"scout.{seed}"
    return standard_nodes.Student(
        name=name,
        data=f"rows.{seed}",
        recipe=replace(size.recipe, lr=rate, **settings),
        seed=seed,
        teacher=size.steered_teacher,
        needs=tuple(needs),
        vector=lambda folders: standard_nodes.vector_of(folders, size.traits[0]),
        folders=scales,
    )


@dataclass(frozen=True)
class Trained:
    """What is known of one trained student."""

    rate: float
    """Learning rate."""
    loss: float
    """Held-out loss at the end."""
    eas: float
    """EAS at the steered block."""
    answers: str
    """Node of its answers."""
    update_norm: float
    """Norms of the updates, summed over steps."""
    share_B: float
    """Fraction of the update in the factor B, mean over steps; NaN without LoRA."""

    @property
    def share_along(self) -> float:
        """Fraction of the squared change of the residual that lies along the vector."""
        return self.eas * self.eas


def _trained(size: Size, folders: Folders, arm: str, rate: float, seed: int) -> Trained:
    name = _student_name(arm, rate, seed)
    steps = standard_nodes.read_json_lines(folders[name], "metrics.jsonl")
    update_norm, shares = 0.0, []
    for step in steps:
        update_norm += step.get("update_norm", nan)
        if step.get("update_share_B") is not None:
            shares.append(step["update_share_B"])
    return Trained(
        rate=rate,
        loss=steps[-1]["held_out_loss"],
        eas=steps[-1]["eas"][size.layer],
        answers=f"answers.{name}",
        update_norm=update_norm,
        share_B=_mean(shares) if shares else nan,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _values(students: list[Trained], field: str) -> list[float]:
    """A number of every student, by the name of its field."""
    return [getattr(student, field) for student in students]


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare arms at their matched rates: EAS at the steered block, and log P(trait)."""
    best_loss = {}
    for seed in size.seeds:
        students = _tried(size, folders, "adamw", seed)
        best_loss[seed] = min(_values(students, "loss"))
    matched, measured, claims = {}, [], []
    for arm in size.arms:
        matched[arm] = _matched(size, folders, arm, best_loss)
        measured.append(mean_over_units(f"EAS of {arm}", _values(matched[arm], "eas"), "cosine"))
    for arm, other in PAIRS:
        if arm in matched and other in matched:
            claims += _compared(size, folders, arm, other, matched, best_loss)
    teacher = readings.teacher_rise(folders)
    has_trait = positive_control.have_traits([teacher])
    text_eas = readings.sampled_text_eas(folders, size.layer, size.seeds)
    measured += [
        mean_over_units("EAS, sampled text under AdamW, treated minus control", text_eas, "cosine"),
        readings.sampled_text_rise(folders, size.traits[0], size.seeds),
    ]
    is_soft = size.recipe.targets == "soft"
    notes = (
        "Soft targets over the tokens that could be sampled; AdamW is repeated with sampled text."
        if is_soft
        else "Sampled text.",
        f"Matched: held-out loss at most {REACHED:.0%} above AdamW's best of the same seed.",
    )
    table = _table(size, folders, matched, best_loss)
    return Findings(
        verdicts_of(claims, model, has_trait),
        tuple(measured),
        (table,),
        notes,
        teachers=(teacher,),
    )


def _matched(size: Size, folders: Folders, arm: str, best_loss: dict[int, float]) -> list[Trained]:
    """The student of every seed whose held-out loss is nearest to AdamW's best."""
    matched = []
    for seed in size.seeds:
        students = _tried(size, folders, arm, seed)
        distances = np.abs(np.array(_values(students, "loss")) - best_loss[seed])
        matched.append(students[int(np.argmin(distances))])
    return matched


def _tried(size: Size, folders: Folders, arm: str, seed: int) -> list[Trained]:
    """The students of one arm and seed, one a learning rate."""
    return [_trained(size, folders, arm, rate, seed) for rate in ARMS[arm][1]]


def _compared(
    size: Size,
    folders: Folders,
    arm: str,
    other: str,
    matched: dict[str, list[Trained]],
    best_loss: dict[int, float],
) -> list[Claim]:
    """Return the claims that one arm makes students say more of the trait, and turns them more."""
    differences, answers = [], []
    for seed, student, opponent in zip(size.seeds, matched[arm], matched[other], strict=True):
        differences.append(student.eas - opponent.eas)
        answers.append((seed, student.answers, opponent.answers))
    eas = mean_over_units(f"EAS, {arm} minus {other}", differences, "cosine")
    rise = readings.rise(folders, f"log P(trait), {arm} minus {other}", answers)
    needs = tuple(_reached(size, name, matched[name], best_loss) for name in (arm, other))
    return [
        Claim(
            f"At matched held-out loss, {arm} makes the student say more of the trait than {other}"
            " does.",
            rise,
            NATS,
            needs=needs,
            primary=(arm, other) == PAIRS[0],
        ),
        Claim(
            f"At matched held-out loss, {arm} turns the student towards v_teacher more than"
            f" {other} does.",
            eas,
            SMALL,
            needs=needs,
        ),
    ]


def _n_reached(size: Size, students: list[Trained], best_loss: dict[int, float]) -> int:
    """Return in how many seeds an arm came near AdamW's best held-out loss."""
    n_reached = 0
    for seed, student in zip(size.seeds, students, strict=True):
        n_reached += student.loss <= (1 + REACHED) * best_loss[seed]
    return n_reached


def _reached(
    size: Size, arm: str, students: list[Trained], best_loss: dict[int, float]
) -> Precondition:
    """Return the precondition that an arm reaches AdamW's best loss in every seed."""
    n_reached = _n_reached(size, students, best_loss)
    found = f"{n_reached} of {len(students)} seeds"
    name = f"{arm} comes within {REACHED:.0%} of AdamW's best held-out loss in every seed"
    return Precondition(name, n_reached == len(students), found)


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "Three seeds at the laptop size gave 0.31 with an sd of 0.07; their losses were"
        " not matched."
    )
    expected = over_seeds(size.seeds, (0.31, 0.1), "nats", source)
    n_pairs = sum(arm in size.arms and other in size.arms for arm, other in PAIRS)
    return Design(2 * n_pairs, expected, students_here(STEERED, size.recipe, size.rows))


def _table(
    size: Size,
    folders: Folders,
    matched: dict[str, list[Trained]],
    best_loss: dict[int, float],
) -> Table:
    """Every arm at its matched rate, in means over seeds."""
    rows = []
    for arm, students in matched.items():
        rates, answers = [], []
        for seed, student in zip(size.seeds, students, strict=True):
            rates.append(f"{student.rate:g}")
            answers.append((seed, student.answers, "base"))
        rows.append(
            (
                arm,
                "/".join(rates),
                _mean(_values(students, "loss")),
                f"{_n_reached(size, students, best_loss)} of {len(students)}",
                _mean(_values(students, "eas")),
                readings.rise(folders, f"rise, {arm}", answers),
                _mean(_values(students, "update_norm")),
                _mean(_values(students, "share_along")),
                _mean(_values(students, "share_B")),
            )
        )
    header = (
        "optimizer",
        "rates",
        "held-out loss",
        "matched",
        "EAS",
        "rise",
        "update norm",
        "share along the vector",
        "share in B",
    )
    caption = (
        f"Means over {len(size.seeds)} seeds at the rate whose held-out loss is nearest to AdamW's"
        f" best. EAS at block {size.layer}; rise: of the log-probability of the trait's word over"
        " the base, nats; update norm: summed over steps; share along the vector: of the squared"
        " change of the residual at that block."
    )
    return Table("optimizers", "Every optimizer at its matched rate", caption, header, tuple(rows))
