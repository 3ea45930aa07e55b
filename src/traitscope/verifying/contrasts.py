"""Students minus controls, trait by trait: numbers in, decisions out; no file is read.

For every trait and every question of its kind

    f(q) = log P(word | q) - log sum over the other answers of P(. | q)      log-odds, nats
    gain(q) = mean over the times of asking of f, minus f before relearning  nats

f is compared under each system turn, and the gain while models relearn. A model's value is the
mean over questions. What is tested is the mean of the students minus that of the controls, over
models as independent units:

    paired         equal seeds on both sides: t over the pairs
    unpaired       two models or more on either side: Welch's t
    one student    one model against several: Crawford and Howell's t
    questions      one model against one, or no controls: nothing is known over seeds

All tests are decided together (stats/decision.py, Holm 1979). A claim is that a trait's log-odds
lie above the controls', and that they at least double. Beside it stands the interval over
questions, which holds for further questions and for these very models.

Shapes: S times of asking, Q questions, E answers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from traitscope.errors import DataError, TraitError
from traitscope.screening.answers import DOUBLED, POWER, log_odds, standing_out
from traitscope.stats import estimates
from traitscope.stats.contrasts.single_case import one_against_group
from traitscope.stats.decision import ClaimUnderTest, Outcome, decide, holm
from traitscope.stats.measurement import Measurement
from traitscope.stats.power import detectable_shift
from traitscope.stats.tails import StudentTail
from traitscope.verifying.ask import KindAnswers, ModelAnswers

Design = Literal["paired", "unpaired", "one student", "one control", "questions"]
RELEARNING = "relearning"
"""What stands for a context in claims about relearning."""
UNIT = "nats"


@dataclass(frozen=True)
class Group:
    """Models of one side, under one system turn."""

    answers: tuple[ModelAnswers, ...]
    """What each says."""
    seeds: tuple[int | None, ...]
    """Seed of each one's training; None where it is not known."""


@dataclass(frozen=True)
class Asking:
    """Both sides and the base, under one system turn or while they relearn."""

    context: str
    """default, empty, a text, or RELEARNING."""
    students: Group
    """The students."""
    reference: Group
    """The controls; the base where there are none."""
    base: ModelAnswers | None
    """The base; None where it was not asked."""


@dataclass(frozen=True)
class Contrast:
    """A trait of the students beside that of the controls, under one system turn."""

    trait: str
    """Name of the trait."""
    kind: str
    """Kind of its questions."""
    context: str
    """Where it was asked."""
    difference: Measurement
    """Students minus controls, over models."""
    over_questions: Measurement
    """The same for these very models, over questions."""
    over_base: Measurement | None
    """Students minus base, over questions."""
    z: float
    """How far the difference stands out from the other answers of its kind."""
    units: int
    """Independent models behind the difference; 0 where there are no seeds."""
    p: float | None = None
    """One-sided p of `at most 0` over models, corrected over all; None where no seeds or controls
    bear one."""
    p_questions: float = 1.0
    """Two-sided p over questions, corrected over all."""
    outcome: Outcome = "no verdict"
    """What the data say of the claim."""
    detectable: float = math.inf
    """Smallest difference that would be found with power POWER; infinite where none would be."""
    detectable_questions: float = math.inf
    """The same over questions."""


def design_of(students: Group, reference: Group, has_controls: bool) -> Design:
    """How the sides are matched."""
    n, m = len(students.answers), len(reference.answers)
    if not has_controls or n == m == 1:
        return "questions"
    ours, theirs = students.seeds, reference.seeds
    is_unique = len(set(ours)) == n and len(set(theirs)) == m
    if None not in ours and is_unique and n > 1 and set(ours) == set(theirs):
        return "paired"
    if min(n, m) > 1:
        return "unpaired"
    return "one student" if n == 1 else "one control"


def contrasts_of(
    askings: Sequence[Asking], has_controls: bool, alpha: float, silenced: bool = False
) -> list[Contrast]:
    """Every trait in every asking, decided together.

    silenced: Whether the controls are no controls, so that nothing is decided.

    Raises TraitError where no trait can be asked, DataError where models were asked other things.
    """
    measured = []
    for asking in askings:
        measured += _of_asking(asking, has_controls)
    if not measured:
        raise TraitError(
            "no trait has a first token of its own among other answers;"
            " expected one or more; name other --traits, or add candidates to the trait's file"
        )
    return _decided(measured, alpha, silenced)


def values_of(asked: KindAnswers, context: str) -> np.ndarray:
    """What is compared [Q, E] of a kind: log-odds, or their mean gain while a model relearns."""
    by_step = [log_odds(log_p_QE) for log_p_QE in asked.log_p_SQE]
    if context != RELEARNING:
        return by_step[0]
    return np.mean(by_step[1:], axis=0) - by_step[0]


def _of_asking(asking: Asking, has_controls: bool) -> list[Contrast]:
    """Every trait of one asking; p values and outcomes are still to come."""
    design = design_of(asking.students, asking.reference, has_controls)
    contrasts = []
    for kind, first in asking.students.answers[0].kinds.items():
        if len(first.words) < 2:
            continue
        ours_MQE = _values(asking.students, kind, first.words, asking.context)
        theirs_MQE = _values(asking.reference, kind, first.words, asking.context)
        shift_QE = ours_MQE.mean(0) - theirs_MQE.mean(0)
        z_E = standing_out(shift_QE.mean(0))
        base_QE = None
        if asking.base is not None:
            base_QE = values_of(asking.base.kinds[kind], asking.context)
        for trait, word in first.traits.items():
            if word not in first.words:
                continue
            place = first.words.index(word)
            ours_MQ, theirs_MQ = ours_MQE[:, :, place], theirs_MQE[:, :, place]
            name = f"{trait}, {asking.context}"
            over_base = None
            if base_QE is not None:
                beyond_Q = ours_MQ.mean(0) - base_QE[:, place]
                over_base = mean_over_questions(f"{name}, minus base", beyond_Q)
            difference, units = _over_models(name, ours_MQ, theirs_MQ, design, asking)
            contrasts.append(
                Contrast(
                    trait=trait,
                    kind=kind,
                    context=asking.context,
                    difference=difference,
                    over_questions=mean_over_questions(name, shift_QE[:, place]),
                    over_base=over_base,
                    z=float(z_E[place]),
                    units=units,
                )
            )
    return contrasts


def _values(group: Group, kind: str, words: tuple[str, ...], context: str) -> np.ndarray:
    """What is compared [M, Q, E] of every model of a group."""
    values = []
    for answers in group.answers:
        asked = answers.kinds[kind]
        if asked.words != words:
            raise DataError(
                f"two models were asked for other answers of the kind {kind}; expected one"
                " tokenizer; ask models of one base"
            )
        values.append(values_of(asked, context))
    return np.stack(values)


def mean_over_questions(name: str, values_Q: np.ndarray) -> Measurement:
    """The mean over questions with a t interval; it holds for these models."""
    return estimates.mean_over_units(name, values_Q.tolist(), UNIT, "questions")


def _over_models(
    name: str, ours_MQ: np.ndarray, theirs_MQ: np.ndarray, design: Design, asking: Asking
) -> tuple[Measurement, int]:
    """Students minus controls over models, and the number of independent units."""
    ours, theirs = ours_MQ.mean(1).tolist(), theirs_MQ.mean(1).tolist()
    if design == "paired":
        by_seed = dict(zip(asking.reference.seeds, theirs, strict=True))
        pairs = []
        for seed, value in zip(asking.students.seeds, ours, strict=True):
            pairs.append(value - by_seed[seed])
        return estimates.mean_over_units(name, pairs, UNIT, "seeds"), len(pairs)
    if design == "unpaired":
        return estimates.two_samples(name, ours, theirs, UNIT), min(len(ours), len(theirs))
    if design == "one student":
        return one_against_group(name, ours[0], theirs, UNIT, "controls"), len(theirs)
    if design == "one control":
        turned = one_against_group(name, theirs[0], ours, UNIT, "students")
        return _negative(turned), len(ours)
    reason = "no interval over seeds: one model on either side"
    measured = Measurement.undefined(name, UNIT, reason, n=len(ours) + len(theirs))
    return measured, 0


def _negative(turned: Measurement) -> Measurement:
    """The measurement of the negative quantity."""
    tail = turned.tail
    if isinstance(tail, StudentTail):
        tail = StudentTail(-tail.estimate, tail.error, tail.df)
    return replace(turned, estimate=-turned.estimate, low=-turned.high, high=-turned.low, tail=tail)


def _decided(measured: Sequence[Contrast], alpha: float, silenced: bool) -> list[Contrast]:
    """The contrasts with p values and outcomes, corrected over all."""
    claims = []
    for item in measured:
        is_silenced = silenced or item.units == 0
        claims.append(
            ClaimUnderTest(item.difference, DOUBLED, units=item.units, silenced=is_silenced)
        )
    decisions = decide(claims, alpha)
    corrected = _corrected(measured)
    over_questions = holm([_two_sided(item.over_questions) for item in measured])
    share = alpha / len(measured)
    decided = []
    for number, item in enumerate(measured):
        has_p = not silenced and not math.isnan(item.difference.low)
        is_tested = claims[number].is_tested
        decided.append(
            replace(
                item,
                p=corrected[number] if has_p else None,
                p_questions=over_questions[number],
                outcome=decisions[number].outcome,
                detectable=_detectable(item.difference, share) if is_tested else math.inf,
                detectable_questions=_detectable(item.over_questions, share),
            )
        )
    return decided


def _corrected(measured: Sequence[Contrast]) -> list[float]:
    """p of `at most 0` over models, corrected in both directions as `decide` does, for any number
    of models."""
    above, below = [], []
    for item in measured:
        tail, has_interval = item.difference.p_values, not math.isnan(item.difference.low)
        above.append(tail.p_above(0) if has_interval else 1.0)
        below.append(tail.p_below(0) if has_interval else 1.0)
    return holm([*above, *below])[: len(above)]


def _two_sided(measurement: Measurement) -> float:
    """p of `the mean is 0`; 1 where there is no interval."""
    if math.isnan(measurement.low):
        return 1.0
    tail = measurement.p_values
    return min(1.0, 2 * min(tail.p_above(0), tail.p_below(0)))


def _detectable(difference: Measurement, alpha: float) -> float:
    """Smallest true difference that is called with power POWER: found, and at least doubled."""
    tail = difference.tail
    if not isinstance(tail, StudentTail) or not tail.error > 0:
        return math.inf
    from scipy.special import stdtrit

    doubled = DOUBLED + float(stdtrit(tail.df, POWER)) * tail.error
    return max(doubled, detectable_shift(tail.error, tail.df, POWER, alpha))


def curves_of(asking: Asking, trait: str, kind: str) -> Mapping[str, list[list[float]]]:
    """Mean log-odds of a trait at each time of asking, by side and model."""
    curves: dict[str, list[list[float]]] = {}
    for side, group in {"students": asking.students, "controls": asking.reference}.items():
        of_side = []
        for answers in group.answers:
            asked = answers.kinds[kind]
            place = asked.words.index(asked.traits[trait])
            steps = [float(log_odds(one_QE)[:, place].mean()) for one_QE in asked.log_p_SQE]
            of_side.append(steps)
        curves[side] = of_side
    return curves
