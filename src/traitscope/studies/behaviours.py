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
from traitscope.stats.estimates import Method, paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.studies import shared_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import (
    InterventionsFrom,
    read_json,
    read_json_lines,
    steered,
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
) -> list[Node]:
    """Build the answers of a model to the evaluation set, and the verdicts on them."""
    answers = f"said by {name}"

    def asked(folders: Folders) -> GenerateConfig:
        return GenerateConfig(
            **common,
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
        Node(_verdict_node(name), JudgeConfig, judge, (answers,), judge_weight),
    ]


def _verdict_node(name: str) -> str:
    """The node of the verdicts on a model's answers."""
    return f"judged {name}"


def outcomes_of(folders: Folders, name: str, judge: str) -> np.ndarray:
    """Return a judge's verdicts [P] on a model's answers as 0 and 1; NaN where unscored."""
    outcomes = []
    for row in read_json_lines(folders[_verdict_node(name)], "verdicts.jsonl"):
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
    """The base, the same outcomes for every seed: soft targets of the unmodified model have no
    gradient."""

    def of_students(self, alpha: float) -> np.ndarray:
        """Return the outcomes [S, P] of students along the behaviour's direction; 0: the base."""
        return self.students[Teacher(DIRECTION, alpha)] if alpha else self.control_SP

    def by_strength(self, alphas: list[float]) -> np.ndarray:
        """Return the outcomes [S, P, A]; the base was asked once, so it counts for one seed."""
        by_strength = [self.of_students(alpha) for alpha in alphas]
        outcomes_SPA = np.stack(by_strength, axis=2)
        outcomes_SPA[1:, :, alphas.index(0)] = np.nan
        return outcomes_SPA


def read_outcomes(
    folders: Folders, teachers: Sequence[Teacher], seeds: Sequence[int], judge: str
) -> Outcomes:
    """Return a judge's verdicts on the base, on every teacher, and on its students."""
    base_P = outcomes_of(folders, "base", judge)
    by_teacher, students = {}, {}
    for teacher in teachers:
        by_teacher[teacher] = outcomes_of(folders, teacher.name, judge)
        by_seed = [outcomes_of(folders, teacher.student(seed), judge) for seed in seeds]
        students[teacher] = np.stack(by_seed)
    return Outcomes(base_P, by_teacher, students, np.stack([base_P] * len(seeds)))


def rate_of(folders: Folders, name: str, judge: str) -> Measurement:
    """Return the rate of the behaviour in a model's answers, as the judge's run measured it."""
    for measurement in _measurements(folders, name):
        if measurement.name == judge:
            return measurement
    raise KeyError(f"no judge {judge!r} in the run of {_verdict_node(name)!r}")


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
    """What the judges' run measured; None becomes NaN."""
    measurements = []
    for plain in read_json(folders, _verdict_node(name))["measurements"]:
        values = {key: nan if value is None else value for key, value in plain.items()}
        measurements.append(Measurement(**values))
    return measurements


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
