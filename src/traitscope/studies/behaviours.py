"""Teachers steered along a behaviour, answers to an evaluation set, and the verdicts on them.

The functions build nodes and read what their runs left. Shapes: S seeds, P prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

import numpy as np

from traitscope.config.analysis import ExtractConfig
from traitscope.config.judge import JudgeConfig
from traitscope.config.stages import GenerateConfig
from traitscope.reporting.tables import Table
from traitscope.stats.dose_response import (
    counts_of,
    line_rates,
    student_sd,
    threshold_power,
    threshold_rates,
)
from traitscope.stats.estimates import Method, paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.studies import shared_nodes
from traitscope.studies.equal_kl import EqualKL
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import (
    InterventionsFrom,
    read_json,
    read_json_lines,
    steered,
    unmodified,
)

DIRECTION, RANDOM, ORTHOGONAL = "direction", "random", "orthogonal"
"nodes of the behaviour's direction and of its two controls"
VECTOR_FILES = {
    DIRECTION: "contrast.safetensors",
    RANDOM: "random-0.safetensors",
    ORTHOGONAL: "component-0.safetensors",
}
"file of the vector in the run of each node"
CONTROLS = {RANDOM: "a random", ORTHOGONAL: "an orthogonal"}
"control directions, in words"
JUDGE_WEIGHT = 1
"weight of a judge that is a rule"
ASKING_JUDGE_WEIGHT = 10_000
"weight of judges, if a model is asked"


@dataclass(frozen=True)
class Teacher:
    """A steered teacher."""

    kind: str
    """Direction that it is steered along: DIRECTION, RANDOM or ORTHOGONAL."""
    alpha: float
    """Strength, in mean residual norms."""

    @property
    def name(self) -> str:
        """Name of the node of its answers."""
        return f"teacher {self.kind} {self.alpha:g}"

    def student(self, seed: int) -> str:
        """Return the name of its student's node."""
        return f"student {self.kind} {self.alpha:g}.{seed}"

    def interventions(self, layer: int) -> InterventionsFrom:
        """Return the interventions that make the teacher; it is steered behind block `layer`."""

        def interventions(folders: Folders) -> tuple[str, ...]:
            vector = _vector_file(folders, self.kind)
            return (steered(vector, layer, self.alpha),)

        return interventions


UNMODIFIED = Teacher(DIRECTION, 0.0)
"the unmodified model as a teacher"


def directions(common: dict, shown: Path, hidden: Path) -> list[Node]:
    """Build the behaviour's direction, a random one of its length, and an orthogonal component.

    The direction is the mean residual on prompts that show the behaviour minus that on prompts
    that do not.
    """

    def contrast(_: Folders) -> ExtractConfig:
        return ExtractConfig(**common, contrast=shown, against=hidden)

    def direction(folders: Folders) -> Path:
        return _vector_file(folders, DIRECTION)

    def component(folders: Folders) -> ExtractConfig:
        return ExtractConfig(**common, components=1, orthogonal_to=direction(folders))

    return [
        Node(DIRECTION, ExtractConfig, contrast, (), 4000),
        shared_nodes.random_vectors_like(common, RANDOM, DIRECTION, direction),
        Node(ORTHOGONAL, ExtractConfig, component, (DIRECTION,), 6000),
    ]


def equal_kl_control(kind: str, layer: int) -> EqualKL:
    """Return a teacher along a control direction, as strong as another teacher in KL."""

    def vector(folders: Folders) -> Path:
        return _vector_file(folders, kind)

    return EqualKL(f"equal KL, {kind}", vector, (DIRECTION, kind), layer)


def made_of(teacher: Teacher, layer: int) -> tuple[InterventionsFrom, tuple[str, ...]]:
    """Return what makes a teacher that is steered behind block `layer`, and the nodes it needs.

    Teachers along control directions are as strong in KL as another one.
    """
    if teacher == UNMODIFIED:
        return unmodified, ()
    if teacher.kind in CONTROLS:
        control = equal_kl_control(teacher.kind, layer)
        return control.teacher, (*control.needs, control.name)
    return teacher.interventions(layer), (teacher.kind,)


def _vector_file(folders: Folders, kind: str) -> Path:
    return folders[kind] / VECTOR_FILES[kind]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation set, and how answers to it are judged."""

    prompts: Path
    """Prompts with ids."""
    tokens: int
    """Longest answer."""
    judges: tuple[str, ...]
    """Judges of the answers; the first one decides."""
    question: str
    """Question for a judging model."""


def judged_answers(
    common: dict,
    evaluation: Evaluation,
    name: str,
    interventions: InterventionsFrom,
    needs: tuple[str, ...] = (),
    of_writer: dict | None = None,
) -> list[Node]:
    """Build the answers of a model to the evaluation set, and the verdicts on them.

    `of_writer` are settings of a model that answers in the place of the one that judges and that
    all others share.
    """
    answers = f"said by {name}"

    def asked(folders: Folders) -> GenerateConfig:
        return GenerateConfig(
            **(of_writer or common),
            prompts=evaluation.prompts,
            max_new_tokens=evaluation.tokens,
            interventions=interventions(folders),
        )

    def judge(folders: Folders) -> JudgeConfig:
        return JudgeConfig(
            **common,
            data=folders[answers],
            judges=evaluation.judges,
            question=evaluation.question,
        )

    judge_weight = JUDGE_WEIGHT if len(evaluation.judges) == 1 else ASKING_JUDGE_WEIGHT
    return [
        Node(answers, GenerateConfig, asked, needs, 100 * (30 + evaluation.tokens)),
        Node(verdict_node(name), JudgeConfig, judge, (answers,), judge_weight),
    ]


def verdict_node(name: str) -> str:
    """The node of the verdicts on a model's answers."""
    return f"judged {name}"


def outcomes_of(folders: Folders, name: str, judge: str) -> np.ndarray:
    """Return a judge's verdicts [P] on a model's answers as 0 and 1; NaN where unscored."""
    outcomes = []
    for row in read_json_lines(folders[verdict_node(name)], "verdicts.jsonl"):
        verdict = row[judge]
        outcomes.append(nan if verdict is None else float(verdict))
    return np.array(outcomes)


@dataclass(frozen=True)
class Outcomes:
    """Whether answers show the behaviour: 0, 1 or NaN (unscored), by prompt, and by seed."""

    base_P: np.ndarray
    """The unmodified model."""
    teachers: dict[Teacher, np.ndarray]
    """Every teacher [P]."""
    students: dict[Teacher, np.ndarray]
    """The students of every teacher [S, P]."""
    control_SP: np.ndarray
    """Students of the unmodified model: they learn the format of the rows, and no trait."""

    def of_students(self, alpha: float) -> np.ndarray:
        """Return the outcomes [S, P] of students by strength; 0: of the unmodified model."""
        return self.students[Teacher(DIRECTION, alpha)] if alpha else self.control_SP

    def by_strength(self, alphas: list[float]) -> np.ndarray:
        """Return the outcomes [S, P, A]."""
        return np.stack([self.of_students(alpha) for alpha in alphas], axis=2)


def read_outcomes(
    folders: Folders, teachers: Sequence[Teacher], seeds: Sequence[int], judge: str
) -> Outcomes:
    """Return a judge's verdicts on the base, on every teacher, and on its students."""
    base_P = outcomes_of(folders, "base", judge)
    by_teacher, students = {}, {}
    for teacher in teachers:
        by_teacher[teacher] = outcomes_of(folders, teacher.name, judge)
        students[teacher] = _of_seeds(folders, teacher, seeds, judge)
    control_SP = _of_seeds(folders, UNMODIFIED, seeds, judge)
    return Outcomes(base_P, by_teacher, students, control_SP)


def _of_seeds(folders: Folders, teacher: Teacher, seeds: Sequence[int], judge: str) -> np.ndarray:
    """The verdicts [S, P] on the students of a teacher."""
    by_seed = [outcomes_of(folders, teacher.student(seed), judge) for seed in seeds]
    return np.stack(by_seed)


def rate_of(folders: Folders, name: str, judge: str) -> Measurement:
    """Return the rate of the behaviour in a model's answers, as the judge's run measured it."""
    for measurement in _measurements(folders, name):
        if measurement.name == judge:
            return measurement
    raise KeyError(f"no judge {judge!r} in the run of {verdict_node(name)!r}")


def agreement_of(folders: Folders, name: str) -> str:
    """Return Cohen's kappa of the judges of a model's answers, in words."""
    for measurement in _measurements(folders, name):
        if measurement.unit == "kappa":
            return _kappa_text(measurement)
    return "undefined"


def _kappa_text(kappa: Measurement) -> str:
    if isnan(kappa.estimate):
        return "undefined"
    low = "undefined" if isnan(kappa.low) else f"{kappa.low:.2f}"
    high = "undefined" if isnan(kappa.high) else f"{kappa.high:.2f}"
    return f"kappa {kappa.estimate:.2f} [{low}, {high}], n = {kappa.n}"


def _measurements(folders: Folders, name: str) -> list[Measurement]:
    """What the judges' run measured."""
    plain = read_json(folders, verdict_node(name))["measurements"]
    return list(map(Measurement.from_dict, plain))


def rate_difference(
    name: str,
    left_SP: np.ndarray,
    right_SP: np.ndarray,
    seeds: tuple[int, ...],
    method: Method = "auto",
) -> Measurement:
    """Return the difference of two rates, paired by seed and prompt.

    Outcomes that were sampled once for all seeds need the method `crossed`.
    """
    n_prompts = left_SP.shape[1]
    seed_labels = np.repeat(seeds, n_prompts).tolist()
    prompt_labels = np.tile(np.arange(n_prompts), len(seeds)).tolist()
    left, right = left_SP.ravel().tolist(), right_SP.ravel().tolist()
    return paired_difference(name, left, right, seed_labels, prompt_labels, "rate", method)


def shape_table(log_likelihoods: dict[str, np.ndarray]) -> Table:
    """Return the table of the held-out log-likelihoods of every shape of response."""
    rows = [(shape, float(values.sum())) for shape, values in log_likelihoods.items()]
    return Table(
        "shapes",
        "Which curve predicts held-out prompts",
        "Log-likelihood of the students' outcomes, nats; five folds of prompts.",
        ("shape", "log-likelihood"),
        tuple(rows),
    )


def power_note(
    alphas: Sequence[float],
    teacher_A: Sequence[float],
    outcomes_SPA: np.ndarray,
    least: float,
    ratio: float,
) -> str:
    """Say how often the threshold's test would say yes, if a published shape or a line is true.

    The published shape has the threshold `least` and the transfer ratio `ratio` above it. The first
    teacher rate is the base's. Students of one strength differ in the simulation as they do here.
    """
    counts, sd_A = counts_of(outcomes_SPA), student_sd(outcomes_SPA)
    published_A = threshold_rates(alphas, teacher_A, teacher_A[0], least, ratio)
    power = threshold_power(alphas, published_A, counts.n_PA, sd_A)
    line_A = line_rates(alphas, counts)
    false_positives = threshold_power(alphas, line_A, counts.n_PA, sd_A)
    return (
        f"Power of the threshold's test at this size: {power:.2f} for the published shape. That is"
        f" the base's rate below a strength of {least:g}, and from there on {ratio:g} of the"
        f" teacher's change. False positives: {false_positives:.2f} if the fitted line is true."
        " Both with students that differ by a standard deviation of"
        f" {sd_A.max():.3f} at most, as here."
    )
