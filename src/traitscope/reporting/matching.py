"""Two sides of a comparison: the models, what was measured on them, and how they are matched.

paired        both sides have the same training seeds
one control   a single model that was not trained stands for the control of every treated one
unpaired      the sides have other seeds, or some model has none
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from traitscope.errors import ConfigError, DataError

Design = Literal["paired", "one control", "unpaired"]
DESIGNS = ("auto", "paired", "unpaired")
"what a user may ask for"


@dataclass(frozen=True)
class MeasuredModel:
    """A model and what was measured on it."""

    name: str
    """Where the numbers come from, such as the folder of a run."""
    seed: int | None = None
    """Seed of its training; None for a model that was not trained."""
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Scores by question id; each holds the question's `set`. None and NaN are unscored."""
    perplexity: float | None = None
    """Perplexity per token on plain text; None where it was not measured."""
    eas: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """EAS [L] by the trait of the vector that training is compared with."""
    trait: str | None = None
    """Trait whose questions were asked."""
    context: str | None = None
    """Digest of the system turn that the questions were asked under."""
    base: str | None = None
    """Digest of the model below the interventions."""
    targets: str | None = None
    """What it was trained on: sampled tokens or soft targets; None for no training."""


@dataclass(frozen=True)
class Sides:
    """Both sides of a comparison, matched."""

    treated: tuple[MeasuredModel, ...]
    control: tuple[MeasuredModel, ...]
    design: Design
    units: Mapping[str, str]
    """Units of the scores, in the order in which they are shown."""
    name: str = ""
    """Beginning of the measurements' names."""

    @property
    def pairs(self) -> list[tuple[int, MeasuredModel, MeasuredModel]]:
        """(seed, treated, control) of every pair; the place of the pair where there is no seed."""
        control_by_seed = {model.seed: model for model in self.control}
        pairs = []
        for place, model in enumerate(self.treated):
            partner = self.control[0]
            if self.design == "paired":
                partner = control_by_seed[model.seed]
            pairs.append((place if model.seed is None else model.seed, model, partner))
        return pairs

    def named(self, side: str, score: str) -> str:
        """Return the name of a measurement."""
        parts = [part for part in (self.name, side, score) if part]
        return ".".join(parts)


def check_comparable(models: Sequence[MeasuredModel]) -> None:
    """Raise DataError for models of several traits, contexts, base models or question sets.

    Students of sampled tokens and of soft targets are not compared with each other, either.
    """
    compared = (
        ("trait", "trait"),
        ("context", "context"),
        ("base model", "base"),
        ("kind of training target", "targets"),
    )
    for what, attribute in compared:
        known = {getattr(model, attribute) for model in models} - {None}
        if len(known) > 1:
            listed = ", ".join(sorted(map(str, known)))
            raise DataError(
                f"the runs differ in the {what} ({listed}); expected one; compare runs that share"
                " it"
            )
    scored = [model for model in models if model.scores]
    for model in scored[1:]:
        if model.scores.keys() != scored[0].scores.keys():
            raise DataError(
                f"{model.name} and {scored[0].name} have other questions; expected the same;"
                " measure both with the same question sets"
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
    seeds = [[model.seed for model in side] for side in (treated, control)]
    is_unique = all(None not in side and len(set(side)) == len(side) for side in seeds)
    if is_unique and set(seeds[0]) == set(seeds[1]):
        return "paired"
    if design == "paired":
        raise ConfigError(
            f"treated models have the seeds {seeds[0]}, control models {seeds[1]}; expected the"
            " same seeds, each once; train them so, or compare them unpaired"
        )
    return "unpaired"


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
    lengths = {len(row) for model in models for row in model.eas.values()}
    if len(lengths) > 1:
        raise DataError(
            f"EAS has {sorted(lengths)} layers; expected one number; compare students of one model"
        )
