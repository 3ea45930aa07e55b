"""Treated models minus control models: every score, perplexity and EAS, each with its interval.

The models are paired where both sides have the same training seeds, or a single untrained model is
the control. Then the difference is the mean over (seed, question) of score(treated) -
score(control), by `stats.estimates.paired_difference`. A single control that was sampled once has
a sampling error that is common to all seeds: there the interval is over seeds and questions.
Otherwise it is the mean over the models of
one side minus the mean over those of the other, with Welch's interval over models.

Models that were measured differently (trait, context, questions, base model) are never compared.

Shapes: S models of one side, L layers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from traitscope.comparison.matching import (
    MeasuredModel,
    Sides,
    check_comparable,
    check_complete,
    chosen_design,
    seeds_of,
)
from traitscope.comparison.results import (
    PERPLEXITY,
    SAMPLED_UNIT,
    UNSCORED,
    Comparison,
    Difference,
    Eas,
    Perplexity,
    Quantity,
    QuestionScore,
)
from traitscope.errors import DataError
from traitscope.reporting.figures import Interval
from traitscope.stats.estimates import Method, measure, paired_difference, two_samples
from traitscope.stats.intervals import mean_interval_t
from traitscope.stats.measurement import Measurement


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
    change_by_layer = _t_by_layer(np.array(list(changes.values()))) if changes else ()
    return Comparison(
        chosen,
        sides.treated,
        sides.control,
        tuple(differences),
        by_layer,
        layer,
        change_by_layer,
        trait=trait,
    )


def scores_of(models: Sequence[MeasuredModel], units: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the pairs (question set, score) that all questions of a set have in all models."""
    known_by_set: dict[str, set[str]] = {}
    for model in models:
        for row in model.scores.values():
            known = known_by_set.setdefault(row["set"], set(units))
            known.intersection_update(row)
    shared = []
    for question_set, known in known_by_set.items():
        for score in units:
            if score in known:
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
        for question, row in _rows_of(model, question_set):
            seeds.append(model.seed)
            questions.append(question)
            values.append(row[score])
    has_seeds = set(seeds) != {None}
    return measure(name, values, seeds if has_seeds else None, questions, unit)


def _rows_of(model: MeasuredModel, question_set: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (question id, scores) of the questions of one set."""
    for question, row in model.scores.items():
        if row["set"] == question_set:
            yield question, row


def mean_values(
    name: str, models: Sequence[MeasuredModel], values: Sequence[float], unit: str
) -> Measurement:
    """Return the mean of one value a model, with its interval over seeds."""
    return measure(name, values, seeds_of(models), unit=unit)


def _score_differences(sides: Sides) -> list[Difference]:
    differences = []
    for question_set, score in scores_of([*sides.treated, *sides.control], sides.units):
        if score == UNSCORED:
            continue
        unit, quantity = sides.units[score], QuestionScore(question_set, score)
        treated_name = sides.named("treated", str(quantity))
        control_name = sides.named("control", str(quantity))
        compared = _unpaired_scores if sides.design == "unpaired" else _paired_scores
        differences.append(
            Difference(
                quantity,
                mean_score(treated_name, sides.treated, question_set, score, unit),
                mean_score(control_name, sides.control, question_set, score, unit),
                compared(sides, question_set, score),
            )
        )
    return differences


def _paired_scores(sides: Sides, question_set: str, score: str) -> Measurement:
    seeds, questions, treated, control = [], [], [], []
    for seed, model, partner in zip(sides.labels, sides.treated, sides.partners, strict=True):
        control_scores = sides.control[partner].scores
        for question, row in _rows_of(model, question_set):
            seeds.append(seed)
            questions.append(question)
            treated.append(row[score])
            control.append(control_scores[question][score])
    name, unit = sides.named("difference", f"{question_set}.{score}"), sides.units[score]
    sampled_once = sides.design == "one control" and unit == SAMPLED_UNIT
    method: Method = "crossed" if sampled_once else "auto"
    return paired_difference(name, treated, control, seeds, questions, unit, method)


def _unpaired_scores(sides: Sides, question_set: str, score: str) -> Measurement:
    name = sides.named("difference", f"{question_set}.{score}")
    treated, treated_unscored = _scored_means(sides.treated, question_set, score)
    control, control_unscored = _scored_means(sides.control, question_set, score)
    difference = _between_models(name, treated, control, sides.units[score])
    return replace(difference, n_unscored=treated_unscored + control_unscored)


def _scored_means(
    models: Sequence[MeasuredModel], question_set: str, score: str
) -> tuple[list[float], int]:
    """Return the mean of every model that has a scored value, and the number of unscored values."""
    means, n_unscored = [], 0
    for model in models:
        scored = []
        for _, row in _rows_of(model, question_set):
            value = row[score]
            if value is None or math.isnan(value):
                n_unscored += 1
            else:
                scored.append(value)
        if scored:
            means.append(math.fsum(scored) / len(scored))
    return means, n_unscored


def _between_models(
    name: str, treated: Sequence[float], control: Sequence[float], unit: str
) -> Measurement:
    """Return the difference of two groups of models; NaN where one has no scored value."""
    if treated and control:
        return two_samples(name, treated, control, unit, of="models")
    return Measurement(
        name=name,
        estimate=math.nan,
        low=math.nan,
        high=math.nan,
        n=0,
        n_clusters=0,
        n_unscored=0,
        unit=unit,
        interval="no scored value",
    )


def _perplexity_difference(sides: Sides) -> list[Difference]:
    """Return the difference in perplexity, where all models have one."""
    treated = [model.perplexity for model in sides.treated]
    control = [model.perplexity for model in sides.control]
    if None in treated or None in control:
        return []
    return [_value_difference(sides, Perplexity(), treated, control, PERPLEXITY)]


def _value_difference(
    sides: Sides, quantity: Quantity, treated: Sequence[float], control: Sequence[float], unit: str
) -> Difference:
    """Return the difference in one value a model, each side in the order of its models."""
    score = str(quantity)
    name = sides.named("difference", score)
    if sides.design == "unpaired":
        difference = _between_models(name, treated, control, unit)
    else:
        values = []
        for value, partner in zip(treated, sides.partners, strict=True):
            values.append(value - control[partner])
        difference = measure(name, values, sides.labels, unit=unit)
    return Difference(
        quantity,
        mean_values(sides.named("treated", score), sides.treated, treated, unit),
        mean_values(sides.named("control", score), sides.control, control, unit),
        difference,
    )


def _shared_traits(sides: Sides) -> list[str]:
    """Return the traits whose vectors all trained models were compared with."""
    shared = list(sides.treated[0].eas)
    trained = sides.treated if sides.design == "one control" else sides.treated + sides.control
    for model in trained:
        shared = [trait for trait in shared if trait in model.eas]
    return shared


def _eas_of(models: Sequence[MeasuredModel], trait: str, n_layers: int) -> np.ndarray:
    """Return EAS [S, L] of S models; a model that was not trained did not move: zeros."""
    eas_SL = np.zeros((len(models), n_layers))
    for place, model in enumerate(models):
        if trait in model.eas:
            eas_SL[place] = model.eas[trait]
    return eas_SL


def _both_eas(sides: Sides, trait: str) -> tuple[np.ndarray, np.ndarray]:
    """Return EAS [S, L] of the treated and of the control models."""
    n_layers = len(sides.treated[0].eas[trait])
    return _eas_of(sides.treated, trait, n_layers), _eas_of(sides.control, trait, n_layers)


def _eas_differences(sides: Sides, trait: str, layer: int) -> list[Difference]:
    """Return EAS at one layer: the own trait, other traits, and own minus the mean of the others.

    Raises DataError for a layer that the model does not have.
    """
    traits = _shared_traits(sides)
    if not traits:
        return []
    _check_layer(layer, len(sides.treated[0].eas[traits[0]]))
    differences = []
    treated_others, control_others = [], []
    for vector_trait in sorted(traits, key=lambda name: name != trait):
        treated_SL, control_SL = _both_eas(sides, vector_trait)
        treated_S, control_S = treated_SL[:, layer], control_SL[:, layer]
        differences.append(_eas_difference(sides, Eas(vector_trait), treated_S, control_S))
        if vector_trait == trait:
            trait_eas = treated_S, control_S
        else:
            treated_others.append(treated_S)
            control_others.append(control_S)
    if treated_others and trait in traits:
        treated_S = trait_eas[0] - sum(treated_others) / len(treated_others)
        control_S = trait_eas[1] - sum(control_others) / len(control_others)
        own = Eas(trait, "minus others")
        differences.append(_eas_difference(sides, own, treated_S, control_S))
    return differences


def _eas_difference(
    sides: Sides, quantity: Eas, treated_S: np.ndarray, control_S: np.ndarray
) -> Difference:
    """Return the difference in EAS; a base that did not move has no EAS to show."""
    values = treated_S.tolist(), control_S.tolist()
    difference = _value_difference(sides, quantity, *values, "cosine")
    return replace(difference, control=None) if sides.design == "one control" else difference


def _check_layer(layer: int, n_layers: int) -> None:
    if layer not in range(n_layers):
        raise DataError(
            f"EAS has {n_layers} layers, asked for layer {layer}; expected 0 to {n_layers - 1};"
            " choose one of these"
        )


def _change_difference(
    sides: Sides, trait: str, layer: int, changes: Mapping[int, Sequence[float]]
) -> Difference:
    """Return the cosine of (v_treated - v_control) with the trait's vector at one layer.

    Training on any data moves both students alike. That common shift cancels here before the cosine
    is taken; in EAS(treated) - EAS(control) it stays in both norms.
    """
    quantity = Eas(trait, "of (treated − control)")
    values = [cosine_L[layer] for cosine_L in changes.values()]
    name = sides.named("difference", str(quantity))
    return Difference(quantity, None, None, measure(name, values, list(changes), unit="cosine"))


def _eas_by_layer(sides: Sides, trait: str) -> tuple[Interval, ...]:
    """Return treated minus control EAS of one trait, layer by layer."""
    treated_SL, control_SL = _both_eas(sides, trait)
    if sides.design == "unpaired":
        return _welch_by_layer(treated_SL, control_SL)
    return _t_by_layer(treated_SL - control_SL[sides.partners])


def _t_by_layer(values_SL: np.ndarray) -> tuple[Interval, ...]:
    """Return mean and t interval over models, layer by layer."""
    intervals = []
    for values_S in values_SL.T:
        intervals.append(Interval(*mean_interval_t(values_S.tolist())))
    return tuple(intervals)


def _welch_by_layer(treated_SL: np.ndarray, control_SL: np.ndarray) -> tuple[Interval, ...]:
    """Return the difference of two groups with Welch's interval, layer by layer."""
    intervals = []
    for treated_S, control_S in zip(treated_SL.T, control_SL.T, strict=True):
        difference = two_samples("", treated_S.tolist(), control_S.tolist(), "cosine")
        intervals.append(Interval(difference.estimate, difference.low, difference.high))
    return tuple(intervals)
