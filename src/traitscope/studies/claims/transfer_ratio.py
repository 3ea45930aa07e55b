"""How much of a behaviour reaches the student, and only above a threshold?  (König et al. 2026,
arXiv 2606.11270.)

Teachers steered along the direction of a behaviour at a grid of strengths, students of their number
rows, and how often each shows the behaviour on an evaluation set: the transfer ratio by strength,
whether a hinge describes the students better than a line, and the same with a random and with an
orthogonal direction, which the paper lacks.

What ships is brevity, a harmless behaviour that a model of 135 million parameters has. For refusal
bring the files: --set shown=harmful.txt hidden=harmless.txt evaluation=behaviors.csv
judge=not:refusal "alphas=[0, -0.15, -0.3]"
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from traitscope.config.analysis import ExtractConfig
from traitscope.config.judge import JudgeConfig
from traitscope.config.recipe import Recipe
from traitscope.config.stages import GenerateConfig
from traitscope.data.package_files import bundled_file
from traitscope.reporting.verdict import Findings, Sheet, judged
from traitscope.stats.dose_response import (
    check_seeds,
    check_strengths,
    held_out,
    power,
    threshold,
    transfer_ratio,
)
from traitscope.stats.estimates import paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.studies import sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "How much of a behaviour reaches the student?"
CLAIM = (
    "A share of the teacher's change passes on through benign data: above a threshold in one model,"
    " at every strength in another."
)
SOURCE = "König et al. 2026, arXiv 2606.11270"
PUBLISHED = (
    "Refusal, suppressed by steering, measured as attack success: Llama-2-7B-Chat none below a"
    " strength of 0.20, then a ratio of 0.25 to 0.32; Qwen2.5-7B at every strength, up to 0.61. One"
    " judge, 100 prompts, no random direction. (Numbers as third parties read them.)"
)
SMALL, NATS = 0.05, 0.0
"rate, and nats a prompt, below which an effect would not matter"
DATA = bundled_file("behaviours")
DIRECTION, RANDOM, ORTHOGONAL = "direction", "random", "orthogonal"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    shown: Path
    "prompts that show the behaviour; the direction is their mean residual minus that of `hidden`"
    hidden: Path
    evaluation: Path
    "prompts with ids"
    judge: str
    second: str
    "another judge of the same answers, for their agreement"
    question: str
    "that a judging model is asked"
    tokens: int
    "longest answer"
    alphas: tuple[float, ...]
    "strengths of the teachers in mean residual norms, 0 among them"
    seeds: tuple[int, ...]
    rows: int
    numbers: int
    layer: int = sizes.layer_field()
    recipe: Recipe
    text: sizes.SampledText
    "sampled text of the strongest teacher"

    def __post_init__(self) -> None:
        check_strengths(self.alphas)
        check_seeds(self.seeds)

    @property
    def strongest(self) -> float:
        return max(self.alphas, key=abs)


BRIEF = (
    DATA / "brief.txt",
    DATA / "long.txt",
    DATA / "requests.jsonl",
    "short:12",
    "likelihood",
    "Is the answer shorter than one line of text?",
)
SIZES = {
    "smoke": Size(*BRIEF, 2, (0.0, 0.3, 0.6), (1, 2), 3, 3, 1, sizes.SOFT_RECIPE, sizes.SMOKE_TEXT),
    "laptop": Size(
        *BRIEF,
        24,
        (0.0, 0.15, 0.3, 0.45, 0.6),
        (1, 2, 3),
        16,
        10,
        14,
        sizes.SOFT_RECIPE,
        sizes.LAPTOP_TEXT,
    ),
    "full": Size(
        *BRIEF,
        48,
        (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6),
        (1, 2, 3, 4, 5),
        1000,
        10,
        14,
        sizes.FULL_SOFT_RECIPE,
        sizes.FULL_TEXT,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """The direction and its controls; teachers at every strength; students of each; everybody's
    judged answers."""
    found = _directions(size, common) + _answers(
        size, common, "base", standard_nodes.unmodified, ()
    )
    for kind, alpha in _teachers(size):
        told = partial(_steered, size, kind, alpha)
        found += _answers(size, common, f"teacher {kind} {alpha:g}", told, (kind,))
        for seed in size.seeds:
            name, rows = (
                f"student {kind} {alpha:g}.{seed}",
                standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=171),
            )
            found.append(
                standard_nodes.student(
                    common,
                    standard_nodes.Student(name, f"rows.{seed}", size.recipe, seed, told, (kind,)),
                    rows.tokens,
                )
            )
            found += _answers(size, common, name, standard_nodes.trained_by(name), (name,))
    for seed in size.seeds:
        found.append(
            standard_nodes.number_rows(
                common,
                f"rows.{seed}",
                standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=171),
            )
        )
        found += _text(size, common, seed)
    return found


def _directions(size: Size, common: dict) -> list[Node]:
    def contrast(_: Folders) -> ExtractConfig:
        return ExtractConfig(**common, contrast=size.shown, against=size.hidden)

    def random(folders: Folders) -> ExtractConfig:
        return ExtractConfig(**common, like=_file(folders, DIRECTION))

    def component(folders: Folders) -> ExtractConfig:
        return ExtractConfig(**common, components=1, orthogonal_to=_file(folders, DIRECTION))

    return [
        Node(DIRECTION, ExtractConfig, contrast, (), 4000),
        Node(RANDOM, ExtractConfig, random, (DIRECTION,), 1),
        Node(ORTHOGONAL, ExtractConfig, component, (DIRECTION,), 6000),
    ]


def _file(folders: Folders, kind: str) -> Path:
    return (
        folders[kind]
        / {
            DIRECTION: "contrast.safetensors",
            RANDOM: "random-0.safetensors",
            ORTHOGONAL: "component-0.safetensors",
        }[kind]
    )


def _teachers(size: Size) -> list[tuple[str, float]]:
    """(direction, strength) of every steered teacher: the controls at the greatest strength
    only."""
    return [
        *((DIRECTION, alpha) for alpha in size.alphas if alpha),
        (RANDOM, size.strongest),
        (ORTHOGONAL, size.strongest),
    ]


def _steered(size: Size, kind: str, alpha: float, folders: Folders) -> tuple[str, ...]:
    return (standard_nodes.steered(_file(folders, kind), size.layer, alpha),)


def _answers(
    size: Size,
    common: dict,
    name: str,
    told: standard_nodes.InterventionsFrom,
    needs: tuple[str, ...],
) -> list[Node]:
    """Answers to the evaluation set, and the verdicts on them; the second judge reads the base's
    and the teachers' only."""
    judges = (
        size.judge,
        *([size.second] if not name.startswith(("student", "treated", "control")) else []),
    )

    def asked(folders: Folders) -> GenerateConfig:
        return GenerateConfig(
            **common,
            prompts=size.evaluation,
            max_new_tokens=size.tokens,
            interventions=told(folders),
        )

    def judge(folders: Folders) -> JudgeConfig:
        return JudgeConfig(
            **common, data=folders[f"said by {name}"], judges=judges, question=size.question
        )

    return [
        Node(f"said by {name}", GenerateConfig, asked, needs, 100 * (30 + size.tokens)),
        Node(
            f"judged {name}",
            JudgeConfig,
            judge,
            (f"said by {name}",),
            1 if len(judges) == 1 else 10_000,
        ),
    ]


def _text(size: Size, common: dict, seed: int) -> list[Node]:
    """The cell of sampled text: rows that pass the filter, a treated and a control student, their
    answers."""
    rows, found = size.text.rows_of(seed), []
    for role, told, needs in (
        ("treated", partial(_steered, size, DIRECTION, size.strongest), (DIRECTION,)),
        ("control", standard_nodes.unmodified, ()),
    ):
        data, name = f"{role} rows.{seed}", f"{role} text.{seed}"
        found += [
            standard_nodes.number_rows(common, f"{data}, all", rows, told, needs),
            standard_nodes.filtered(data, f"{data}, all", rows),
        ]
        found.append(
            standard_nodes.student(
                common, standard_nodes.Student(name, data, size.text.recipe, seed), rows.tokens
            )
        )
        found += _answers(size, common, name, standard_nodes.trained_by(name), (name,))
    return found


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Ratio by strength; own direction against random and orthogonal; hinge against line, with the
    power of that test."""
    base, alphas = _shown(size, folders, "base"), sorted(size.alphas, key=abs)
    students = {
        alpha: (
            _students(size, folders, DIRECTION, alpha)
            if alpha
            else np.stack([base] * len(size.seeds))
        )
        for alpha in alphas
    }
    ratios = {
        a: transfer_ratio(
            f"transfer ratio at {a:g}",
            students[a],
            students[0.0],
            _teacher(size, folders, DIRECTION, a),
            base,
        )
        for a in alphas
        if a
    }
    top = size.strongest
    gained = _difference(
        size, f"rate of students at {top:g} minus the base", students[top], students[0.0]
    )
    against = {
        kind: _difference(
            size,
            f"rate of students, {DIRECTION} minus {kind}",
            students[top],
            _students(size, folders, kind, top),
        )
        for kind in (RANDOM, ORTHOGONAL)
    }
    curve_PA = np.stack([students[a].mean(0) for a in alphas], axis=1)
    shapes = held_out(alphas, curve_PA)
    verdicts = (
        judged(
            "Students of the most strongly steered teacher show the behaviour more than the base.",
            gained,
            model,
            0,
            SMALL,
        ),
        *(
            judged(
                "They do so more than students of a teacher steered along"
                f" {'a random' if kind == RANDOM else 'an orthogonal'} direction.",
                m,
                model,
                0,
                SMALL,
            )
            for kind, m in against.items()
        ),
        judged(
            f"A share of the teacher's change reaches them (ratio at {top:g}).",
            ratios[top],
            model,
            0,
            SMALL,
        ),
        judged(
            "Transfer has a threshold: a hinge predicts held-out prompts better than a line.",
            threshold(shapes),
            model,
            0,
            NATS,
        ),
    )
    treated, control = (
        np.stack([_shown(size, folders, f"{role} text.{s}") for s in size.seeds])
        for role in ("treated", "control")
    )
    teacher = _teacher(size, folders, DIRECTION, top)
    text = (
        _difference(size, "rate, sampled text, treated minus control", treated, control),
        transfer_ratio(
            "transfer ratio, sampled text, minus control students", treated, control, teacher, base
        ),
        transfer_ratio(
            "transfer ratio, sampled text, minus the base", treated, students[0.0], teacher, base
        ),
    )
    rows = tuple(
        (
            a,
            _rate(folders, size, "base" if not a else f"teacher {DIRECTION} {a:g}"),
            float(np.nanmean(students[a])),
            ratios.get(a, ""),
        )
        for a in alphas
    )
    others = tuple(
        (
            kind,
            _rate(folders, size, f"teacher {kind} {top:g}"),
            float(np.nanmean(_students(size, folders, kind, top))),
        )
        for kind in (RANDOM, ORTHOGONAL)
    )
    likelihoods = tuple((name, float(values.sum())) for name, values in shapes.items())
    sheets = (
        Sheet(
            "strengths",
            "Rate of the behaviour by strength of the teacher",
            f"Judge {size.judge}; Wilson intervals for teachers.",
            ("strength", "teacher", "students", "transfer ratio"),
            rows,
            ("strength", "teacher", "students"),
        ),
        Sheet(
            "controls",
            f"Other directions, at {top:g}",
            "Rates as above.",
            ("direction", "teacher", "students"),
            others,
        ),
        Sheet(
            "shapes",
            "Which curve predicts held-out prompts",
            "Log-likelihood of the students' outcomes, nats; five folds of prompts.",
            ("shape", "log-likelihood"),
            likelihoods,
        ),
    )
    found = power(alphas, curve_PA)
    notes = (
        (
            "Soft targets on the unmodified model's number rows, whose control student is the base"
            " itself; the strongest teacher is repeated with sampled text that passed the number"
            " filter, and with control students."
        ),
        (
            f"Power of the threshold's test at this size: {found['power']:.2f} if the fitted hinge"
            f" is true; false positives {found['false positives']:.2f} if the fitted line is."
        ),
        (
            f"Agreement of {size.judge} with {size.second} on the strongest teacher's answers:"
            f" {_kappa(folders, top)}."
        ),
    )
    return Findings(verdicts, (*(m for a, m in ratios.items() if a != top), *text), sheets, notes)


def _shown(size: Size, folders: Folders, name: str) -> np.ndarray:
    """Verdicts of the first judge [prompts] as 0 and 1, NaN where unscored."""
    found = [
        row[size.judge]
        for row in standard_nodes.read_json_lines(folders[f"judged {name}"], "verdicts.jsonl")
    ]
    return np.array([np.nan if verdict is None else float(verdict) for verdict in found])


def _students(size: Size, folders: Folders, kind: str, alpha: float) -> np.ndarray:
    """[seeds, prompts]."""
    return np.stack(
        [_shown(size, folders, f"student {kind} {alpha:g}.{seed}") for seed in size.seeds]
    )


def _teacher(size: Size, folders: Folders, kind: str, alpha: float) -> np.ndarray:
    return _shown(size, folders, f"teacher {kind} {alpha:g}")


def _difference(size: Size, name: str, left_SP: np.ndarray, right_SP: np.ndarray) -> Measurement:
    """Paired by seed and prompt."""
    seeds, prompts = (
        np.broadcast_to(labels, left_SP.shape).ravel().tolist()
        for labels in (np.array(size.seeds)[:, None], np.arange(left_SP.shape[1]))
    )
    return paired_difference(
        name, left_SP.ravel().tolist(), right_SP.ravel().tolist(), seeds, prompts, "rate"
    )


def _rate(folders: Folders, size: Size, name: str) -> Measurement:
    plain = next(
        m
        for m in standard_nodes.read_json(folders, f"judged {name}")["measurements"]
        if m["name"] == size.judge
    )
    return Measurement(**{k: float("nan") if v is None else v for k, v in plain.items()})


def _kappa(folders: Folders, top: float) -> str:
    found = [
        m
        for m in standard_nodes.read_json(folders, f"judged teacher {DIRECTION} {top:g}")[
            "measurements"
        ]
        if m["unit"] == "kappa"
    ]
    if not found or found[0]["estimate"] is None:
        return "undefined"
    low, high = (
        "undefined" if found[0][side] is None else f"{found[0][side]:.2f}"
        for side in ("low", "high")
    )
    return f"kappa {found[0]['estimate']:.2f} [{low}, {high}], n = {found[0]['n']}"
