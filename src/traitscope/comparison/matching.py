"""The two sides of a comparison, what was measured on them, and how they are matched.

The sides are matched in one of three ways:

    paired        both sides have the same training seeds
    one control   a single model that was not trained is the control of every treated one
    unpaired      the sides have other seeds, or some model has none
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from traitscope.comparison.roles import STUDENT
from traitscope.errors import ConfigError, DataError

Design = Literal["paired", "one control", "unpaired"]
DESIGNS = ("auto", "paired", "unpaired")
"what a user may ask for"
COMPARED = {
    "trait": "trait",
    "scored_by": "words, judges or questions of the trait's file",
    "sampling": "sampling of answers",
    "base": "base model",
    "targets": "kind of training target",
}
"attributes that all models of a comparison must share, in words"


MOST_SHOWN = 60
"characters of a system turn that a message shows"
ASKED = "asked"
"key of the scores of a question that holds its text"


@dataclass(frozen=True)
class MeasuredModel:
    """A model and what was measured on it."""

    name: str
    """Where the numbers come from, such as the folder of a run."""
    seed: int | None = None
    """Seed of its training; None for a model that was not trained."""
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Scores by question id; each holds the question's `set` and its text (ASKED). None and NaN are
    unscored."""
    perplexity: float | None = None
    """Perplexity per token on plain text; None where it was not measured."""
    eas: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """EAS [L] by the trait of the vector that training is compared with."""
    trait: str | None = None
    """Trait whose questions were asked."""
    scored_by: str | None = None
    """Digest of the words or judges and of the questions; None where it is not known."""
    sampling: str | None = None
    """How answers were sampled, in words; None without answers, or where it is not known."""
    judges: tuple[str, ...] = ()
    """Judges whose rates its scores are, of a behaviour; the first one decides."""
    role: str = ""
    """What it is: student, teacher or base (roles.py); empty where nobody knows."""
    context: str | None = None
    """Digest of the system turn that the questions were asked under."""
    neutral: str | None = None
    """Text of the neutral system turn; None is the template's own."""
    prompt: str | None = None
    """Text of the system prompt that stands in its place, among the interventions."""
    base: str | None = None
    """Digest of the model below the interventions."""
    data: str | None = None
    """Digest of the rows that it was trained on; None for no training, or for unknown rows."""
    targets: str | None = None
    """What it was trained on: sampled tokens or soft targets; None for no training."""

    @property
    def is_prompted(self) -> bool:
        """Whether its system prompt is what makes it a teacher, and so no context of questions."""
        return self.prompt is not None and self.role != STUDENT


def seeds_of(models: Sequence[MeasuredModel]) -> list[int | None]:
    """Return the training seeds of some models."""
    return [model.seed for model in models]


@dataclass(frozen=True)
class Sides:
    """Both sides of a comparison, matched."""

    treated: tuple[MeasuredModel, ...]
    """The treated models."""
    control: tuple[MeasuredModel, ...]
    """The control models."""
    design: Design
    """How they are matched; see the docstring of this module."""
    units: Mapping[str, str]
    """Units of the scores, in the order in which they are shown."""
    name: str = ""
    """Beginning of the measurements' names."""

    @property
    def labels(self) -> list[int]:
        """Seed of every treated model; its place where it has none."""
        labels = []
        for place, model in enumerate(self.treated):
            labels.append(place if model.seed is None else model.seed)
        return labels

    @property
    def partners(self) -> list[int]:
        """Place of the control model of every treated model."""
        if self.design == "one control":
            return [0] * len(self.treated)
        control_seeds = seeds_of(self.control)
        return [control_seeds.index(seed) for seed in seeds_of(self.treated)]

    def named(self, side: str, score: str) -> str:
        """Return the name of a measurement."""
        beginning = f"{self.name}." if self.name else ""
        return f"{beginning}{side}.{score}"


def check_comparable(models: Sequence[MeasuredModel]) -> None:
    """Raise DataError for models of several traits, contexts, base models or question sets.

    Students of sampled tokens and of soft targets are not compared with each other, either. The
    prompt of a prompted teacher is its intervention: its neutral context is compared.
    """
    for attribute, what in COMPARED.items():
        known = set()
        for model in models:
            known.add(getattr(model, attribute))
        known.discard(None)
        if len(known) > 1:
            raise DataError(
                f"the runs differ in the {what} ({', '.join(sorted(known))}); expected one; compare"
                " runs that share it"
            )
    _check_contexts(models)
    _check_questions(models)


def _check_contexts(models: Sequence[MeasuredModel]) -> None:
    """Raise DataError for models whose questions were asked under several system turns."""
    known, shared, of_teachers = set(), {}, {}
    for model in models:
        if model.context is None:
            continue
        if not model.is_prompted:
            known.add(model.context)
        group = of_teachers if model.is_prompted else shared
        group.setdefault(_turn(model), model.name)
    if known and of_teachers.keys() <= shared.keys():
        of_teachers = {}
    turns = shared | of_teachers
    if len(turns) > 1 and (len(known) > 1 or of_teachers):
        each = " and ".join(f"{_shown(turn)} ({name})" for turn, name in turns.items())
        raise DataError(
            f"the questions were asked under several system turns: {each}; expected one; measure"
            " the models again with the same --context; give the prompt of a teacher with"
            " --interventions prompt:TEXT"
        )
    if len(known) > 1:
        raise DataError(
            f"the system turn of the questions, {_shown(next(iter(turns)))}, was rendered in"
            f" {len(known)} ways ({', '.join(sorted(known))}); expected one; measure the models"
            " again with the same --template"
        )


def _turn(model: MeasuredModel) -> str | None:
    """Return the system turn of a model's questions; None is the template's own.

    Of a prompted teacher it is the neutral one that its prompt stands in the place of.
    """
    text = model.neutral
    if model.prompt is not None and not model.is_prompted:
        text = model.prompt
    return text


def _shown(turn: str | None) -> str:
    """Return a system turn in words, a long one shortened."""
    if turn is None:
        return "the template's own"
    text = " ".join(turn.split())
    if len(text) > MOST_SHOWN:
        text = f"{text[:MOST_SHOWN]} …"
    return f"“{text}”" if text else "an empty one"


def judges_of(models: Sequence[MeasuredModel]) -> tuple[str, ...]:
    """Return the judges of models of a behaviour, the first one decides; none of other models."""
    for model in models:
        if model.judges:
            return model.judges
    return ()


def _check_questions(models: Sequence[MeasuredModel]) -> None:
    scored = [model for model in models if model.scores]
    for model in scored[1:]:
        if model.judges != scored[0].judges:
            judged = " and ".join(" ".join(each.judges) or "none" for each in (model, scored[0]))
            raise DataError(
                f"{model.name} and {scored[0].name} have other judges ({judged}); expected the"
                " same; measure both with the same trait file"
            )
    for model in scored[1:]:
        if model.scores.keys() != scored[0].scores.keys():
            raise DataError(
                f"{model.name} and {scored[0].name} have other questions; expected the same;"
                " measure both with the same question sets"
            )
        for question, row in model.scores.items():
            if row.get(ASKED) != scored[0].scores[question].get(ASKED):
                raise DataError(
                    f"{model.name} and {scored[0].name} were asked other questions as {question};"
                    " expected the same; measure both with the same trait file"
                )


def chosen_design(
    treated: Sequence[MeasuredModel], control: Sequence[MeasuredModel], design: str = "auto"
) -> Design:
    """Return how the sides are matched.

    auto: one untrained control serves all; else equal, unique seeds are paired; else unpaired.
    Raises ConfigError for an empty side, an unknown design, and pairs that cannot be made.
    """
    if not (treated and control):
        raise ConfigError(
            f"{len(treated)} treated and {len(control)} control models; expected one or more on"
            " each side; name their runs"
        )
    if design not in DESIGNS:
        raise ConfigError(f"design {design!r}; expected one of {', '.join(DESIGNS)}; choose one")
    if design == "unpaired":
        return "unpaired"
    if len(control) == 1 and control[0].seed is None:
        return "one control"
    treated_seeds, control_seeds = seeds_of(treated), seeds_of(control)
    both_unique = _is_unique(treated_seeds) and _is_unique(control_seeds)
    if both_unique and set(treated_seeds) == set(control_seeds):
        return "paired"
    if design == "paired":
        raise ConfigError(
            f"treated models have the seeds {treated_seeds}, control models {control_seeds};"
            " expected the same seeds, each once; train them so, or compare them unpaired"
        )
    return "unpaired"


def _is_unique(seeds: Sequence[int | None]) -> bool:
    """Say whether every model has a seed and none has that of another."""
    return None not in seeds and len(set(seeds)) == len(seeds)


def check_complete(sides: Sides) -> None:
    """Raise DataError where only some models of the sides have scores, or only some have EAS."""
    models = [*sides.treated, *sides.control]
    with_scores = [model for model in models if model.scores]
    if with_scores and len(with_scores) < len(models):
        raise DataError(
            f"{len(with_scores)} of {len(models)} models have scores; expected all; measure the"
            " others, too"
        )
    trained = sides.treated if sides.design == "one control" else models
    with_eas = [model for model in trained if model.eas]
    if with_eas and len(with_eas) < len(trained):
        raise DataError(
            f"{len(with_eas)} of {len(trained)} trained models have EAS; expected all or none;"
            " train or extract the others with the same vector"
        )
    lengths = set()
    for model in with_eas:
        lengths.update(map(len, model.eas.values()))
    if len(lengths) > 1:
        raise DataError(
            f"EAS has {sorted(lengths)} layers; expected one number; compare students of one model"
        )
