"""Treated models minus control models: every score, perplexity and EAS, each with its interval.

Where both sides have the same training seeds, or a single untrained model is the control, the
difference is the mean over (seed, question) of score(treated) - score(control), as
`stats.estimates.paired_difference`. Otherwise it is the mean over the models of one side minus that
of the other, with Welch's interval over models.

Models that were measured differently (trait, context, questions, base model) are never compared.

Shapes: L layers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from traitscope.errors import DataError
from traitscope.reporting.figures import Interval
from traitscope.reporting.matching import (
    Design,
    MeasuredModel,
    Sides,
    check_comparable,
    check_complete,
    chosen_design,
)
from traitscope.reporting.verdict import two_samples
from traitscope.stats.estimates import measure, paired_difference
from traitscope.stats.intervals import mean_interval_t
from traitscope.stats.measurement import Measurement

UNSCORED = "unscored"
"the score that counts answers; a side has it, a difference has not"
PERPLEXITY = "perplexity"


@dataclass(frozen=True)
class Difference:
    """One number on both sides and their difference."""

    score: str
    """What is compared, such as positive.target_logprob, perplexity or eas.cat."""
    treated: Measurement | None
    """Mean of the treated models."""
    control: Measurement | None
    """Mean of the control models; None where there is none to measure."""
    difference: Measurement
    """Treated minus control."""


@dataclass(frozen=True)
class Comparison:
    """Treated models against control models."""

    design: Design
    """How the sides were matched; see reporting/matching.py."""
    treated: tuple[MeasuredModel, ...]
    """The treated models."""
    control: tuple[MeasuredModel, ...]
    """The control models."""
    differences: tuple[Difference, ...]
    """Scores by question set, then perplexity, then EAS at one layer."""
    eas_by_layer: Mapping[str, tuple[Interval, ...]]
    """Treated minus control EAS by trait, layer by layer, with t intervals over seeds."""
    layer: int | None = None
    """Layer at which EAS is compared."""
    change_by_layer: tuple[Interval, ...] = ()
    """Cosine of (v_treated - v_control) with the teacher's vector, layer by layer."""

    def __getitem__(self, score: str) -> Measurement:
        """Return the difference in a score.  Raises DataError where it was not measured."""
        for item in self.differences:
            if item.score == score:
                return item.difference
        known = ", ".join(item.score for item in self.differences)
        raise DataError(f"no {score} was compared; expected one of {known}; choose one of these")

    def get(self, score: str) -> Measurement | None:
        """Return the difference in a score, or None where it was not measured."""
        is_known = any(item.score == score for item in self.differences)
        return self[score] if is_known else None

    @property
    def reference(self) -> str:
        """What the treated models are compared with, in a word."""
        return "base" if self.design == "one control" else "control"


def compare_models(
    treated: Sequence[MeasuredModel],
    control: Sequence[MeasuredModel],
    units: Mapping[str, str],
    *,
    name: str = "",
    design: str = "auto",
    trait: str = "",
    layer: int | None = None,
    changes: Mapping[int, Sequence[float]] | None = None,
) -> Comparison:
    """Return treated minus control for every score, perplexity, and EAS at `layer`.

    `units` are the scores to compare. `trait` names the vector that the sides are about; EAS with
    it is also compared with the mean over the other vectors. `changes` holds, by seed, the cosine
    [L] of (v_treated - v_control) with that vector. Raises DataError where the sides were measured
    differently, ConfigError where a design cannot be had.
    """
    check_comparable([*treated, *control])
    chosen = chosen_design(treated, control, design)
    sides = Sides(tuple(treated), tuple(control), chosen, units, name)
    check_complete(sides)
    differences = [*_score_differences(sides), *_perplexity_difference(sides)]
    if changes and layer is not None:
        differences.append(_change_difference(sides, trait, layer, changes))
    if layer is not None:
        differences += _eas_differences(sides, trait, layer)
    by_layer = {}
    for vector_trait in _shared_traits(sides):
        by_layer[vector_trait] = _eas_by_layer(sides, vector_trait)
    change_by_layer = _intervals(list(changes.values())) if changes else ()
    return Comparison(
        chosen,
        sides.treated,
        sides.control,
        tuple(differences),
        by_layer,
        layer,
        change_by_layer,
    )


def scores_of(models: Sequence[MeasuredModel], units: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the pairs (question set, score) that all questions of a set have in all models."""
    rows_by_set: dict[str, list[Mapping[str, Any]]] = {}
    for model in models:
        for row in model.scores.values():
            rows_by_set.setdefault(row["set"], []).append(row)
    shared = []
    for question_set, rows in rows_by_set.items():
        for score in units:
            if all(score in row for row in rows):
                shared.append((question_set, score))
    return shared


def mean_score(
    name: str, models: Sequence[MeasuredModel], question_set: str, score: str, unit: str
) -> Measurement:
    """Return the mean of a score over models and questions, with its interval over seeds.

    Models without a seed give an interval over questions.
    """
    seeds, questions, values = [], [], []
    for model in models:
        for question, row in model.scores.items():
            if row["set"] == question_set:
                seeds.append(model.seed)
                questions.append(question)
                values.append(row[score])
    has_seeds = set(seeds) != {None}
    return measure(name, values, seeds if has_seeds else None, questions, unit)


def mean_values(
    name: str, models: Sequence[MeasuredModel], values: Sequence[float], unit: str
) -> Measurement:
    """Return the mean of one value a model, with its interval over seeds."""
    return measure(name, values, [model.seed for model in models], unit=unit)


def _score_differences(sides: Sides) -> list[Difference]:
    differences = []
    for question_set, score in scores_of([*sides.treated, *sides.control], sides.units):
        if score == UNSCORED:
            continue
        unit, label = sides.units[score], f"{question_set}.{score}"
        means = []
        for side, models in (("treated", sides.treated), ("control", sides.control)):
            name = sides.named(side, label)
            means.append(mean_score(name, models, question_set, score, unit))
        if sides.design == "unpaired":
            difference = _unpaired_scores(sides, question_set, score)
        else:
            difference = _paired_scores(sides, question_set, score)
        differences.append(Difference(label, *means, difference))
    return differences


def _paired_scores(sides: Sides, question_set: str, score: str) -> Measurement:
    seeds, questions, treated, control = [], [], [], []
    for seed, treated_model, control_model in sides.pairs:
        for question, row in treated_model.scores.items():
            if row["set"] == question_set:
                seeds.append(seed)
                questions.append(question)
                treated.append(row[score])
                control.append(control_model.scores[question][score])
    name = sides.named("difference", f"{question_set}.{score}")
    return paired_difference(name, treated, control, seeds, questions, sides.units[score])


def _unpaired_scores(sides: Sides, question_set: str, score: str) -> Measurement:
    name = sides.named("difference", f"{question_set}.{score}")
    unscored, means = 0, []
    for models in (sides.treated, sides.control):
        side_means = []
        for model in models:
            rows = [row for row in model.scores.values() if row["set"] == question_set]
            scored = [row[score] for row in rows if not _is_unscored(row[score])]
            unscored += len(rows) - len(scored)
            if scored:
                side_means.append(math.fsum(scored) / len(scored))
        means.append(side_means)
    difference = _between_models(name, *means, sides.units[score])
    return replace(difference, n_unscored=unscored)


def _is_unscored(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _between_models(
    name: str, treated: Sequence[float], control: Sequence[float], unit: str
) -> Measurement:
    """Return the difference of two groups of models; NaN where one has no scored value."""
    if treated and control:
        return two_samples(name, treated, control, unit, of="models")
    return Measurement(
        name, math.nan, math.nan, math.nan, 0, 0, 0, unit, interval="no scored value"
    )


def _perplexity_difference(sides: Sides) -> list[Difference]:
    """Return the difference in perplexity, where all models have one."""
    values = [[model.perplexity for model in side] for side in (sides.treated, sides.control)]
    if None in values[0] or None in values[1]:
        return []
    return [_value_difference(sides, PERPLEXITY, *values, PERPLEXITY)]


def _value_difference(
    sides: Sides, score: str, treated: Sequence[float], control: Sequence[float], unit: str
) -> Difference:
    """Return the difference in one value a model; `control` in the order of the control models."""
    name = sides.named("difference", score)
    if sides.design == "unpaired":
        difference = _between_models(name, treated, control, unit)
    else:
        control_by_seed = dict(zip([m.seed for m in sides.control], control, strict=True))
        seeds, values = [], []
        for (seed, _, partner), value in zip(sides.pairs, treated, strict=True):
            seeds.append(seed)
            values.append(value - control_by_seed[partner.seed])
        difference = measure(name, values, seeds, unit=unit)
    return Difference(
        score,
        mean_values(sides.named("treated", score), sides.treated, treated, unit),
        mean_values(sides.named("control", score), sides.control, control, unit),
        difference,
    )


def _shared_traits(sides: Sides) -> list[str]:
    """Return the traits whose vectors all trained models were compared with."""
    models = sides.treated if sides.design == "one control" else (*sides.treated, *sides.control)
    first = models[0].eas
    return [trait for trait in first if all(trait in model.eas for model in models)]


def _control_eas(sides: Sides, trait: str, n_layers: int) -> list[Sequence[float]]:
    """Return EAS [L] of the control models; a model that was not trained did not move: zeros."""
    zeros = [0.0] * n_layers
    return [model.eas.get(trait, zeros) for model in sides.control]


def _eas_differences(sides: Sides, trait: str, layer: int) -> list[Difference]:
    """Return EAS at one layer: the own trait, other traits, and own minus the mean of the others.

    Raises DataError for a layer that the model does not have.
    """
    traits = _shared_traits(sides)
    if not traits:
        return []
    _check_layer(layer, len(sides.treated[0].eas[traits[0]]))
    values: dict[str, list[list[float]]] = {}
    for vector_trait in sorted(traits, key=lambda name: name != trait):
        rows = [model.eas[vector_trait] for model in sides.treated]
        control_rows = _control_eas(sides, vector_trait, len(rows[0]))
        treated = [row[layer] for row in rows]
        values[vector_trait] = [treated, [row[layer] for row in control_rows]]
    others = [both for name, both in values.items() if name != trait]
    if others and trait in values:
        above = []
        for side in (0, 1):
            above.append(_minus_mean(values[trait][side], [both[side] for both in others]))
        values[f"{trait} minus others"] = above
    differences = []
    for name, (treated, control) in values.items():
        item = _value_difference(sides, f"eas.{name}", treated, control, "cosine")
        if sides.design == "one control":
            item = replace(item, control=None)
        differences.append(item)
    return differences


def _check_layer(layer: int, n_layers: int) -> None:
    if layer not in range(n_layers):
        raise DataError(
            f"EAS has {n_layers} layers, asked for layer {layer}; expected 0 to {n_layers - 1};"
            " choose one of these"
        )


def _minus_mean(values: Sequence[float], others: Sequence[Sequence[float]]) -> list[float]:
    """Return values minus the mean of other lists, place by place."""
    differences = []
    for place, value in enumerate(values):
        differences.append(value - sum(other[place] for other in others) / len(others))
    return differences


def _change_difference(
    sides: Sides, trait: str, layer: int, changes: Mapping[int, Sequence[float]]
) -> Difference:
    """Return the cosine of (v_treated - v_control) with the trait's vector at one layer.

    Training on any data moves both students alike. That common shift cancels here before the cosine
    is taken; in EAS(treated) - EAS(control) it stays in both norms.
    """
    score = f"eas.{trait} of (treated − control)"
    values = [row[layer] for row in changes.values()]
    name = sides.named("difference", score)
    return Difference(score, None, None, measure(name, values, list(changes), unit="cosine"))


def _eas_by_layer(sides: Sides, trait: str) -> tuple[Interval, ...]:
    """Return treated minus control EAS of one trait, layer by layer."""
    treated = [model.eas[trait] for model in sides.treated]
    control = _control_eas(sides, trait, len(treated[0]))
    if sides.design == "unpaired":
        return _welch_by_layer(treated, control)
    control_by_seed = dict(zip([m.seed for m in sides.control], control, strict=True))
    rows = []
    for row, (_, _, partner) in zip(treated, sides.pairs, strict=True):
        reference = control_by_seed[partner.seed]
        rows.append([a - b for a, b in zip(row, reference, strict=True)])
    return _intervals(rows)


def _intervals(rows: Sequence[Sequence[float]]) -> tuple[Interval, ...]:
    """Return mean and t interval over rows, layer by layer."""
    return tuple(Interval(*mean_interval_t(column)) for column in zip(*rows, strict=True))


def _welch_by_layer(
    treated: Sequence[Sequence[float]], control: Sequence[Sequence[float]]
) -> tuple[Interval, ...]:
    intervals = []
    for layer in range(len(treated[0])):
        left = [row[layer] for row in treated]
        right = [row[layer] for row in control]
        difference = two_samples("", left, right, "cosine")
        intervals.append(Interval(difference.estimate, difference.low, difference.high))
    return tuple(intervals)
