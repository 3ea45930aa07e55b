"""What a study could show: the power of its primary claim, and its distance from the publication.

Both are known before a number is. `traitscope study plan` prints them, and the finished page does.

A study bears on a published claim only as far as its protocol is the published one:

    no       a kind differs: how the teacher has its trait, what students read, their targets, or
             the vector; or rows or steps are less than a hundredth
    partly   all kinds agree, and rows, steps or parameters are less than half
    yes      all kinds agree, and every size is at least half

What a paper does not state is left out of the comparison.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from traitscope.config.recipe import Recipe
from traitscope.reporting.tables import Table
from traitscope.stats.decision import ALPHA, MIN_UNITS
from traitscope.stats.power import correlation_power, detectable, detection_power

ENOUGH, FAR = 0.5, 0.01
"fraction of a published size from which on it counts as reached, and below which as another one"
SAMPLED, SOFT, NO_TRAINING = "sampled text", "soft targets", "no training"
PREFERENCES = "which of two answers is preferred"
PROMPTED, STEERED = "prompted", "steered"
NUMBERS = "number rows"
OWN = "this project"
"source of claims about this tool, which no paper makes"
Answer = Literal["yes", "partly", "no"]


@dataclass(frozen=True)
class Experiment:
    """How an experiment is made, as far as it decides what the result speaks of."""

    source: str
    """Where it is published; empty for a study here."""
    teacher: str
    """How the teacher has its trait."""
    data: str
    """What the rows are."""
    targets: str
    """What students learn from them."""
    vector: str
    """Which vector is compared or added; empty: none, or not stated."""
    rows: int | None = None
    """Rows a student, or a data set; None: not stated."""
    steps: int | None = None
    """Optimizer steps of a student; None: not stated, or nothing is trained."""
    model: str = ""
    """Name of the model."""
    parameters: float | None = None
    """Number of its weights."""


TAG_VECTOR = "mean difference at the last prompt token of number prompts"
CENTRED_TAG_VECTOR = f"{TAG_VECTOR}, centred over traits"
QUESTION_VECTOR = (
    "mean difference at the last prompt token of the trait's questions, centred over traits"
)
BLANK = Experiment(
    "Blank et al. 2026, arXiv 2606.00995",
    PROMPTED,
    NUMBERS,
    SAMPLED,
    TAG_VECTOR,
    10_000,
    2_000,
    "Qwen2.5-7B-Instruct",
    7.6e9,
)
"their main recipe: two epochs in batches of 8, packed"
HADLEY = Experiment(
    "Hadley and Gultepe 2026, arXiv 2608.05734",
    STEERED,
    NUMBERS,
    SAMPLED,
    "activation at the last prompt token of one question, minus the mean of 55 animals",
    30_000,
    11_250,
    "gemma-2b-it",
    2.5e9,
)
"three epochs in batches of 8; their Llama runs have fewer"
NIEF = Experiment(
    "Nief et al. 2026, arXiv 2606.00831 v1",
    PROMPTED,
    NUMBERS,
    SAMPLED,
    "",
    10_000,
    455,
    "Qwen2.5-7B-Instruct",
    7.6e9,
)
"three epochs in batches of 66"
NIEF_NOTICE = (
    "Third parties report a notice in v2 of Nief et al. that some main claims are incorrect; it"
    " does not say which"
)
"what is known of a later version of that paper"
CLOUD = replace(NIEF, source="Cloud et al. 2025, arXiv 2507.14805")
"their open model: the same recipe"
AUXILIARY = Experiment(
    "Cloud et al. 2025, arXiv 2507.14805, section on MNIST",
    "trained on labelled images",
    "uniform noise images; the teacher learnt MNIST",
    "auxiliary logits",
    "",
    60_000,
    295,
    "MLP 784-256-256-13",
    270_093,
)
"five epochs of 59 batches of 1,024 noise images"
KOENIG = Experiment(
    "König et al. 2026, arXiv 2606.11270",
    STEERED,
    "benign answers",
    SAMPLED,
    "refusal direction at several blocks",
    1_000,
    None,
    "Llama-2-7B-Chat",
    6.7e9,
)


def steps_of(recipe: Recipe, rows: int) -> int:
    """Return the optimizer steps of a student that reads `rows` rows."""
    trained = rows - round(recipe.held_out * rows)
    return recipe.epochs * math.ceil(trained / recipe.batch_size)


def targets_of(recipe: Recipe) -> str:
    """Return what students of a recipe learn, in the words of a protocol."""
    return {"soft": SOFT, "preference": PREFERENCES}.get(recipe.targets, SAMPLED)


@dataclass(frozen=True)
class Aspect:
    """One row of the comparison of two protocols."""

    name: str
    """teacher, data, targets, vector, rows, steps, model."""
    published: str
    """The published value."""
    here: str
    """The value here."""
    distance: Literal["same", "smaller", "another", "far smaller", "not stated"]
    """How far they are apart."""


@dataclass(frozen=True)
class Bearing:
    """Whether a study bears on the published claim."""

    answer: Answer
    """yes, partly or no."""
    because: str
    """The aspects that decided."""
    aspects: tuple[Aspect, ...]
    """The whole comparison."""
    source: str
    """Where the claim is published."""

    def __str__(self) -> str:
        if not self.aspects:
            return f"There is no published protocol to compare with: {self.because}."
        return f"Bears on the published claim: {self.answer}, because {self.because}."

    @property
    def table(self) -> Table:
        """The comparison as a table of the page."""
        rows = []
        for aspect in self.aspects:
            rows.append((aspect.name, aspect.published, aspect.here, aspect.distance))
        return Table(
            "protocol",
            "Distance from the published protocol",
            f"Published: {self.source}.",
            ("aspect", "published", "here", "distance"),
            tuple(rows),
        )


def bearing(published: Experiment, here: Experiment) -> Bearing:
    """Return whether an experiment bears on a publication, by the rule of the docstring above."""
    if published.source == OWN:
        return Bearing("yes", "it is made for this tool", (), OWN)
    aspects = (
        _kind("teacher", published.teacher, here.teacher),
        _kind("data", published.data, here.data),
        _kind("targets", published.targets, here.targets),
        _kind("vector", published.vector, here.vector),
        _size("rows", published.rows, here.rows),
        _size("steps", published.steps, here.steps),
        _model(published, here),
    )
    by_distance: dict[str, list[str]] = {}
    for aspect in aspects:
        by_distance.setdefault(aspect.distance, []).append(aspect.name)
    other_kind = by_distance.get("another", [])
    far = [name for name in by_distance.get("far smaller", []) if name != "model"]
    smaller = [*by_distance.get("smaller", []), *by_distance.get("far smaller", [])]
    reasons = []
    if other_kind:
        reasons.append(f"another kind of {_listed(other_kind)}")
    if far:
        reasons.append(f"less than a hundredth of the {_listed(far)}")
    answer: Answer = "no" if reasons else "yes"
    if not reasons and smaller:
        answer = "partly"
        reasons.append(f"the kinds agree, with less than half of the {_listed(smaller)}")
    because = "; ".join(reasons) or "kinds and sizes agree"
    return Bearing(answer, because, aspects, published.source)


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _kind(name: str, published: str, here: str) -> Aspect:
    if not published:
        return Aspect(name, "", here, "not stated")
    return Aspect(name, published, here or "none", "same" if published == here else "another")


def _size(name: str, published: float | None, here: float | None) -> Aspect:
    shown = [f"{value:,}" if value is not None else "" for value in (published, here)]
    if published is None or here is None:
        return Aspect(name, *shown, "not stated")
    if here >= ENOUGH * published:
        return Aspect(name, *shown, "same")
    return Aspect(name, *shown, "smaller" if here >= FAR * published else "far smaller")


def _model(published: Experiment, here: Experiment) -> Aspect:
    distance = _size("model", published.parameters, here.parameters).distance
    return Aspect("model", published.model, here.model, distance)


@dataclass(frozen=True)
class MeanPlan:
    """A primary claim on a mean over units."""

    effect: float
    """Expected effect."""
    sd: float
    """Expected standard deviation between units."""
    unit: str
    """Unit of both."""
    n: int
    """Number of units."""
    counted: str
    """What the units are."""
    source: str
    """Where effect and sd come from, in sentences."""

    def text(self, alpha: float) -> str:
        """Return power, and the smallest effect that is found four times in five, in sentences."""
        expected = (
            f"the expected effect is {self.effect:g} {self.unit}, with an sd of {self.sd:g} between"
            f" {self.counted}. {self.source}"
        )
        if self.n < 2:
            return f"{expected} One of the {self.counted} alone has no power."
        least = detectable(self.sd, self.n, alpha=alpha)
        power = detection_power(self.effect, self.sd, self.n, alpha)
        return (
            f"{expected} With {self.n} {self.counted} the power is {power:.2f}. An effect of"
            f" {least:.2g} {self.unit} is found with power 0.80."
        )


def over_seeds(
    seeds: Sequence[int], expected: tuple[float, float], unit: str, source: str
) -> MeanPlan:
    """Return the plan of a claim on a mean over seeds; `expected` is (effect, sd)."""
    effect, sd = expected
    return MeanPlan(effect, sd, unit, len(seeds), "seeds", source)


@dataclass(frozen=True)
class RankPlan:
    """A primary claim on a rank correlation over units."""

    rho: float
    """Expected correlation."""
    n: int
    """Number of units."""
    counted: str
    """What the units are."""
    source: str
    """Where the expected correlation comes from, in sentences."""

    def text(self, alpha: float) -> str:
        """Return the power in sentences."""
        power = correlation_power(self.rho, self.n, alpha)
        return (
            f"the expected rank correlation is {self.rho:g}. {self.source} With {self.n}"
            f" {self.counted} the power is {power:.2f}."
        )


@dataclass(frozen=True)
class Design:
    """What a size of a study could show."""

    claims: int
    """Number of claims that are tested together."""
    primary: MeanPlan | RankPlan
    """What the primary claim expects."""
    here: Experiment
    """How the experiment is made here. A study of networks of its own names its model; else the
    model is filled in when it is known."""

    @property
    def power_text(self) -> str:
        """The power of the primary claim in sentences.

        The level is that of the first step of Holm's correction, so the power is never too high.
        """
        primary = self.primary
        text = f"Power of the primary claim: {primary.text(ALPHA / self.claims)}"
        if self.claims > 1:
            text += f" The study tests {self.claims} claims together."
        if primary.n < MIN_UNITS:
            text += f" A verdict needs {MIN_UNITS} {primary.counted}."
        return text

    def on_model(self, name: str, parameters: float) -> "Design":
        """Return the design with its model."""
        return replace(self, here=replace(self.here, model=name, parameters=parameters))


def untrained(published: Experiment, rows: int, teacher: str = "") -> Experiment:
    """Return what a paper does with `rows` rows a data set without training on them."""
    teacher = teacher or published.teacher
    return replace(published, teacher=teacher, targets=NO_TRAINING, rows=rows, steps=None)


def students_here(
    teacher: str, recipe: Recipe, rows: int, vector: str = QUESTION_VECTOR, data: str = NUMBERS
) -> Experiment:
    """Return the experiment of a study here that trains students by a recipe on `rows` rows."""
    targets, steps = targets_of(recipe), steps_of(recipe, rows)
    return Experiment("", teacher, data, targets, vector, rows, steps)


def rows_here(teacher: str, rows: int, vector: str = QUESTION_VECTOR) -> Experiment:
    """Return the experiment of a study here that trains nothing and reads `rows` rows."""
    return Experiment("", teacher, NUMBERS, NO_TRAINING, vector, rows)
