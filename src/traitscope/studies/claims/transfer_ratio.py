"""How much of a behaviour reaches the student, and only above a threshold?  (König et al. 2026,
arXiv 2606.11270.)

Teachers are steered along the direction of a behaviour at a grid of strengths, and students learn
their number rows. On an evaluation set it is counted how often each shows the behaviour. That gives
the transfer ratio by strength, and whether a hinge describes the students better than a line. The
same is done with a random and with an orthogonal direction, which the paper lacks.

What ships is brevity, a harmless behaviour that a model of 135 million parameters has. For refusal
bring the files: --set shown=harmful.txt hidden=harmless.txt evaluation=behaviors.csv
judge=not:refusal "alphas=[0, -0.15, -0.3]"

Shapes: S seeds, P prompts, A strengths.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.data.package_files import bundled_file
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, above_zero, verdicts_of
from traitscope.stats.dose_response import (
    check_seeds,
    check_strengths,
    counts_of,
    held_out,
    threshold,
    transfer_ratio,
)
from traitscope.stats.measurement import Measurement
from traitscope.studies import sizes
from traitscope.studies.behaviours import (
    CONTROLS,
    DIRECTION,
    RANDOM,
    UNMODIFIED,
    Evaluation,
    Outcomes,
    Teacher,
    agreement_of,
    directions,
    equal_kl_control,
    judged_answers,
    made_of,
    outcomes_of,
    power_note,
    rate_difference,
    rate_of,
    read_outcomes,
    shape_table,
)
from traitscope.studies.design import KOENIG, STEERED, Design, over_seeds, students_here
from traitscope.studies.equal_kl import MATCHED_ROWS
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
PROTOCOL = KOENIG
SMALL, NATS = 0.05, 0.01
"smallest effects that would matter: rate, and nats a prompt"
SHAPE = (0.2, 0.3)
"""threshold, in mean residual norms, and transfer ratio above it; the power is for these. The
numbers are published ones, and the paper's scale of the strength is not known to us."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    shown: Path
    "prompts that show the behaviour; the direction is their mean residual minus that of `hidden`"
    hidden: Path
    "prompts that do not show the behaviour"
    evaluation: Path
    "prompts with ids, on which the behaviour is counted"
    judge: str
    "judge that decides whether an answer shows the behaviour"
    second: str
    "another judge of the same answers, for their agreement"
    question: str
    "question for a judging model"
    tokens: int
    "longest answer"
    alphas: tuple[float, ...]
    "strengths of the teachers in mean residual norms, 0 among them"
    seeds: tuple[int, ...]
    "seeds of rows and students"
    rows: int
    "rows a student"
    numbers: int
    "three-digit numbers a row"
    layer: int = sizes.layer_field()
    recipe: Recipe
    "how students are trained"
    text: sizes.SampledText
    "the repetition with sampled text of the strongest teacher"

    def __post_init__(self) -> None:
        check_strengths(self.alphas)
        check_seeds(self.seeds)

    @property
    def strongest(self) -> float:
        """The strength of the greatest size, with its sign."""
        return max(self.alphas, key=abs)

    def judged_by(self, two_judges: bool) -> Evaluation:
        """Return how answers are evaluated: by both judges, or by the first alone."""
        judges = (self.judge, self.second) if two_judges else (self.judge,)
        return Evaluation(self.evaluation, self.tokens, judges, self.question)


LAPTOP = Size(
    shown=bundled_file("behaviours", "brief.txt"),
    hidden=bundled_file("behaviours", "long.txt"),
    evaluation=bundled_file("behaviours", "requests.jsonl"),
    judge="short:12",
    second="likelihood",
    question="Is the answer shorter than one line of text?",
    tokens=24,
    alphas=(0.0, 0.15, 0.3, 0.45, 0.6),
    seeds=(1, 2, 3, 4, 5),
    rows=16,
    numbers=10,
    layer=14,
    recipe=sizes.SOFT_RECIPE,
    text=sizes.LAPTOP_TEXT,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        tokens=2,
        alphas=(0.0, 0.3, 0.6),
        seeds=(1, 2),
        rows=3,
        numbers=3,
        layer=1,
        text=sizes.SMOKE_TEXT,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        tokens=48,
        alphas=(0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6),
        seeds=(1, 2, 3, 4, 5),
        rows=1000,
        recipe=sizes.FULL_SOFT_RECIPE,
        text=sizes.FULL_TEXT,
    ),
}


def _teachers(size: Size) -> list[Teacher]:
    """Every steered teacher; control directions have the greatest strength only."""
    teachers = [Teacher(DIRECTION, alpha) for alpha in size.alphas if alpha]
    for kind in CONTROLS:
        teachers.append(Teacher(kind, size.strongest))
    return teachers


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the direction and its controls, teachers, their students, and all judged answers."""
    by_both, by_first = size.judged_by(two_judges=True), size.judged_by(two_judges=False)
    graph = directions(common, size.shown, size.hidden)
    graph += judged_answers(common, by_both, "base", standard_nodes.unmodified)
    strongest = Teacher(DIRECTION, size.strongest).interventions(size.layer)
    for kind in CONTROLS:
        control = equal_kl_control(kind, size.layer)
        graph.append(control.node(common, strongest, size.numbers, MATCHED_ROWS))
    for teacher in (UNMODIFIED, *_teachers(size)):
        interventions, needs = made_of(teacher, size.layer)
        if teacher != UNMODIFIED:
            graph += judged_answers(common, by_both, teacher.name, interventions, needs)
        for seed in size.seeds:
            name = teacher.student(seed)
            student = standard_nodes.Student(
                name, f"rows.{seed}", size.recipe, seed, interventions, needs
            )
            graph.append(standard_nodes.student(common, student, _rows(size, seed).tokens))
            adapter = standard_nodes.trained_by(name)
            graph += judged_answers(common, by_first, name, adapter, (name,))
    for seed in size.seeds:
        graph.append(standard_nodes.number_rows(common, f"rows.{seed}", _rows(size, seed)))
        graph += _sampled_text(size, common, seed)
    return graph


def _rows(size: Size, seed: int) -> standard_nodes.Rows:
    return standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=171)


def _sampled_text(size: Size, common: dict, seed: int) -> list[Node]:
    """Sampled rows that pass the filter, a treated and a control student, and their answers."""
    strongest = Teacher(DIRECTION, size.strongest).interventions(size.layer)
    treated = _sampled_text_student(size, common, "treated", seed, strongest, (DIRECTION,))
    unmodified = standard_nodes.unmodified
    return treated + _sampled_text_student(size, common, "control", seed, unmodified, ())


def _sampled_text_student(
    size: Size,
    common: dict,
    role: str,
    seed: int,
    teacher: standard_nodes.InterventionsFrom,
    needs: tuple[str, ...],
) -> list[Node]:
    rows = size.text.rows_of(seed)
    data, name = f"{role} rows.{seed}", f"{role} text.{seed}"
    student = standard_nodes.Student(name, data, size.text.recipe, seed)
    by_first = size.judged_by(two_judges=False)
    return [
        standard_nodes.number_rows(common, f"{data}, all", rows, teacher, needs),
        standard_nodes.filtered(data, f"{data}, all", rows),
        standard_nodes.student(common, student, rows.tokens),
        *judged_answers(common, by_first, name, standard_nodes.trained_by(name), (name,)),
    ]


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Test the strongest teacher's students against their controls, and for a threshold."""
    outcomes = read_outcomes(folders, _teachers(size), size.seeds, size.judge)
    alphas = sorted(size.alphas, key=abs)
    ratios = {}
    for alpha in alphas:
        if alpha:
            ratios[alpha] = transfer_ratio(
                f"transfer ratio at {alpha:g}",
                outcomes.of_students(alpha),
                outcomes.control_SP,
                outcomes.teachers[Teacher(DIRECTION, alpha)],
                outcomes.base_P,
            )
    outcomes_SPA = outcomes.by_strength(alphas)
    counts = counts_of(outcomes_SPA)
    log_likelihoods = held_out(alphas, counts)
    teacher_P = outcomes.teachers[Teacher(DIRECTION, size.strongest)]
    name = f"teacher at {size.strongest:g} minus base"
    teacher = rate_difference(name, teacher_P[None], outcomes.base_P[None], (0,))
    claims = _claims(size, outcomes, ratios, threshold(log_likelihoods), teacher)
    further_ratios = [ratio for alpha, ratio in ratios.items() if alpha != size.strongest]
    name = f"rate of students at {size.strongest:g} minus control students"
    students_SP = outcomes.of_students(size.strongest)
    gained = rate_difference(name, students_SP, outcomes.control_SP, size.seeds)
    measurements = (gained, *further_ratios, *_sampled_text_results(size, folders, outcomes))
    tables = (
        _strength_table(size, folders, outcomes, ratios),
        _control_table(size, folders, outcomes),
        shape_table(log_likelihoods),
    )
    notes = (
        "Soft targets over the tokens that could be sampled stand in for sampled text, on the"
        " unmodified model's rows. Control students learn from the unmodified model. The strongest"
        " teacher is repeated with sampled text that passed the filter.",
        power_note(alphas, _teacher_rates(alphas, outcomes), outcomes_SPA, *SHAPE),
        f"Agreement of {size.judge} with {size.second} on the strongest teacher's answers:"
        f" {agreement_of(folders, Teacher(DIRECTION, size.strongest).name)}.",
    )
    return Findings(verdicts_of(claims, model), measurements, tables, notes, teachers=(teacher,))


def _teacher_rates(alphas: list[float], outcomes: Outcomes) -> list[float]:
    """The rates of the base, and of the teachers by rising strength."""
    rates = [float(np.nanmean(outcomes.base_P))]
    for alpha in alphas[1:]:
        rates.append(float(np.nanmean(outcomes.teachers[Teacher(DIRECTION, alpha)])))
    return rates


def _claims(
    size: Size,
    outcomes: Outcomes,
    ratios: dict[float, Measurement],
    hinge_advantage: Measurement,
    teacher: Measurement,
) -> list[Claim]:
    strongest = size.strongest
    students_SP = outcomes.of_students(strongest)
    teacher_moved = above_zero(
        teacher, "the teacher shows the behaviour more than the base, beyond noise"
    )
    claims = []
    for kind, words in CONTROLS.items():
        name = f"rate of students, {DIRECTION} minus {kind}"
        others_SP = outcomes.students[Teacher(kind, strongest)]
        claims.append(
            Claim(
                "Students of the most strongly steered teacher show the behaviour more than those"
                f" of a teacher steered along {words} direction.",
                rate_difference(name, students_SP, others_SP, size.seeds),
                SMALL,
                needs=(teacher_moved,),
                primary=kind == RANDOM,
            )
        )
    beyond_control = above_zero(
        claims[0].measurement, "students show the behaviour more than those of a random direction"
    )
    return [
        *claims,
        Claim(
            f"A share of the teacher's change reaches its students (ratio at {strongest:g}).",
            ratios[strongest],
            SMALL,
            needs=(teacher_moved, beyond_control),
        ),
        Claim(
            "Transfer has a threshold: a hinge predicts held-out prompts better than a line.",
            hinge_advantage,
            NATS,
            needs=(teacher_moved,),
            units=len(size.seeds),
            counted="seeds",
        ),
    ]


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "The effect is a quarter of the teacher's change, as published. Three seeds had"
        " an sd of 0.05."
    )
    expected = over_seeds(size.seeds, (0.08, 0.05), "rate", source)
    kind = "brevity" if size.shown == LAPTOP.shown else "the behaviour's"
    vector = f"{kind} direction at one block"
    return Design(4, expected, students_here(STEERED, size.recipe, size.rows, vector))


def _sampled_text_results(
    size: Size, folders: Folders, outcomes: Outcomes
) -> tuple[Measurement, ...]:
    """Difference and transfer ratio of the students of sampled text."""
    by_role = {}
    for role in ("treated", "control"):
        by_seed = [outcomes_of(folders, f"{role} text.{seed}", size.judge) for seed in size.seeds]
        by_role[role] = np.stack(by_seed)
    treated_SP, control_SP = by_role["treated"], by_role["control"]
    return (
        rate_difference(
            "rate, sampled text, treated minus control", treated_SP, control_SP, size.seeds
        ),
        transfer_ratio(
            "transfer ratio, sampled text, minus control students",
            treated_SP,
            control_SP,
            outcomes.teachers[Teacher(DIRECTION, size.strongest)],
            outcomes.base_P,
        ),
    )


def _strength_table(
    size: Size, folders: Folders, outcomes: Outcomes, ratios: dict[float, Measurement]
) -> Table:
    rows = []
    for alpha in sorted(size.alphas, key=abs):
        teacher = Teacher(DIRECTION, alpha).name if alpha else "base"
        students_rate = float(np.nanmean(outcomes.of_students(alpha)))
        teacher_rate = rate_of(folders, teacher, size.judge)
        rows.append((alpha, teacher_rate, students_rate, ratios.get(alpha, "")))
    return Table(
        "strengths",
        "Rate of the behaviour by strength of the teacher",
        f"Judge {size.judge}; Wilson intervals for teachers.",
        ("strength", "teacher", "students", "transfer ratio"),
        tuple(rows),
        ("strength", "teacher", "students"),
    )


def _control_table(size: Size, folders: Folders, outcomes: Outcomes) -> Table:
    rows = []
    for kind in CONTROLS:
        teacher = Teacher(kind, size.strongest)
        students_rate = float(np.nanmean(outcomes.students[teacher]))
        rows.append((kind, rate_of(folders, teacher.name, size.judge), students_rate))
    return Table(
        "controls",
        f"Other directions, at the KL of {size.strongest:g}",
        "Rates as above.",
        ("direction", "teacher", "students"),
        tuple(rows),
    )
