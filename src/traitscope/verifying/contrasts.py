"""Students minus controls, trait by trait: numbers in, decisions out; no file is read.

For every trait and every question of its kind

    f(q) = log P(word | q) - log sum over the other answers of P(. | q)      log-odds, nats
    after(q) = mean over the times of asking after the first of f, while models relearn
    gain(q) = after(q) minus f before relearning                             nats

f is compared under each system turn, and the gain while models relearn. A model's value is the
mean over questions. What is tested is the mean of the students minus that of the controls, over
independent units (verifying/units.py):

    paired         t over the pairs
    unpaired       Welch's t
    one student    one unit against several: Crawford and Howell's t
    one control    the same, turned round
    questions      nothing is known over models

All tests are decided together (stats/decision.py, Holm 1979). A claim is that a trait's log-odds
lie above the controls', and that they at least double. A student that starts lower gains more by
itself. So the claim about relearning is that the students gain more, and lie above the controls
afterwards; its p is the larger one of both. Beside it stands the interval over questions, which
holds for further questions and for these very models.

Shapes: M models, S times of asking, Q questions, E answers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
from traitscope.verifying.units import MadeBy, Matching, Units, matched

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
    rows: tuple[str | None, ...] = ()
    """Set of rows of each one; None where it counts as one of its own, and empty for all such."""

    @property
    def made_by(self) -> list[MadeBy]:
        """Rows and seed of each one."""
        rows = self.rows or (None,) * len(self.seeds)
        return list(zip(rows, self.seeds, strict=True))


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
    """Independent units behind the difference; 0 where nothing is known over models."""
    after: Measurement | None = None
    """While models relearn: log-odds afterwards, students minus controls, over models."""
    after_questions: Measurement | None = None
    """The same for these very models, over questions."""
    p: float | None = None
    """One-sided p of `at most 0` over models, corrected over all; None where no units or controls
    bear one. In relearning that of the gain or of the log-odds afterwards, the larger one."""
    p_questions: float = 1.0
    """Two-sided p over questions, corrected over all."""
    outcome: Outcome = "no verdict"
    """What the data say of the claim."""
    detectable: float = math.inf
    """Smallest difference that would be found with power POWER; infinite where none would be."""
    detectable_questions: float = math.inf
    """The same over questions."""


def matching_of(asking: Asking, has_controls: bool) -> Matching:
    """How the sides are matched."""
    return matched(asking.students.made_by, asking.reference.made_by, has_controls)


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
    first_QE = log_odds(asked.log_p_SQE[0])
    return afterwards(asked) - first_QE if context == RELEARNING else first_QE


def afterwards(asked: KindAnswers) -> np.ndarray:
    """Mean log-odds [Q, E] of a kind after the first time of asking."""
    by_step = list(map(log_odds, asked.log_p_SQE[1:]))
    return np.asarray(np.mean(by_step, axis=0))


Quantity = Callable[[KindAnswers], np.ndarray]
"""What is compared [Q, E] of the answers of a kind."""


@dataclass(frozen=True)
class _Sides:
    """One quantity of both sides, for the questions and answers of a kind."""

    students_MQE: np.ndarray
    controls_MQE: np.ndarray
    matching: Matching

    @property
    def shift_QE(self) -> np.ndarray:
        """Mean of all students minus that of all controls."""
        return np.asarray(self.students_MQE.mean(0) - self.controls_MQE.mean(0))

    def over_models(self, name: str, place: int) -> Measurement:
        """An answer's difference over independent units."""
        ours_M = self.students_MQE[:, :, place].mean(1)
        theirs_M = self.controls_MQE[:, :, place].mean(1)
        return over_units(name, ours_M, theirs_M, self.matching)

    def over_questions(self, name: str, place: int) -> Measurement:
        """The same for these very models, over questions."""
        return mean_over_questions(name, self.shift_QE[:, place])


def _of_asking(asking: Asking, has_controls: bool) -> list[Contrast]:
    """Every trait of one asking; p values and outcomes are still to come."""
    matching = matching_of(asking, has_controls)
    compared = partial(values_of, context=asking.context)
    contrasts = []
    for kind, first in asking.students.answers[0].kinds.items():
        if len(first.words) < 2:
            continue
        sides = _sides(asking, kind, first.words, compared, matching)
        later = None
        if asking.context == RELEARNING:
            later = _sides(asking, kind, first.words, afterwards, matching)
        z_E = standing_out(sides.shift_QE.mean(0))
        beyond_QE = None
        if asking.base is not None:
            beyond_QE = sides.students_MQE.mean(0) - compared(asking.base.kinds[kind])
        for trait, word in first.traits.items():
            if word not in first.words:
                continue
            place = first.words.index(word)
            name = f"{trait}, {asking.context}"
            over_base = None
            if beyond_QE is not None:
                over_base = mean_over_questions(f"{name}, minus base", beyond_QE[:, place])
            after = after_questions = None
            if later is not None:
                after = later.over_models(f"{name}, afterwards", place)
                after_questions = later.over_questions(f"{name}, afterwards", place)
            contrasts.append(
                Contrast(
                    trait=trait,
                    kind=kind,
                    context=asking.context,
                    difference=sides.over_models(name, place),
                    over_questions=sides.over_questions(name, place),
                    over_base=over_base,
                    z=float(z_E[place]),
                    units=matching.units,
                    after=after,
                    after_questions=after_questions,
                )
            )
    return contrasts


def _sides(
    asking: Asking, kind: str, words: tuple[str, ...], quantity: Quantity, matching: Matching
) -> _Sides:
    ours_MQE = _values(asking.students, kind, words, quantity)
    return _Sides(ours_MQE, _values(asking.reference, kind, words, quantity), matching)


def _values(group: Group, kind: str, words: tuple[str, ...], quantity: Quantity) -> np.ndarray:
    """What is compared [M, Q, E] of every model of a group."""
    values = []
    for answers in group.answers:
        asked = answers.kinds[kind]
        if asked.words != words:
            raise DataError(
                f"two models were asked for other answers of the kind {kind}; expected one"
                " tokenizer; ask models of one base"
            )
        values.append(quantity(asked))
    return np.stack(values)


def mean_over_questions(name: str, values_Q: np.ndarray) -> Measurement:
    """The mean over questions with a t interval; it holds for these models."""
    return estimates.mean_over_units(name, values_Q.tolist(), UNIT, "questions")


def over_units(
    name: str, students_M: np.ndarray, controls_M: np.ndarray, matching: Matching
) -> Measurement:
    """Students minus controls over independent units, from the values of all models, nats."""
    ours, theirs = (
        _of_units(students_M, matching.students),
        _of_units(controls_M, matching.controls),
    )
    if matching.design == "paired":
        pairs = np.subtract(ours, theirs).tolist()
        return estimates.mean_over_units(name, pairs, UNIT, "pairs")
    if matching.design == "unpaired":
        return estimates.two_samples(name, ours, theirs, UNIT, "models")
    if matching.design == "one student":
        return one_against_group(name, ours[0], theirs, UNIT, "controls")
    if matching.design == "one control":
        return _negative(one_against_group(name, theirs[0], ours, UNIT, "students"))
    reason = "no interval over models: one unit on either side"
    return Measurement.undefined(name, UNIT, reason, n=len(ours) + len(theirs))


def _of_units(values_M: np.ndarray, units: Units) -> list[float]:
    """The mean over the models of every unit."""
    return [float(values_M[list(places)].mean()) for places in units]


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
            ClaimUnderTest(
                item.difference, DOUBLED, units=item.units, silenced=is_silenced, also=item.after
            )
        )
    decisions = decide(claims, alpha)
    corrected = _corrected(measured)
    over_questions = holm(list(map(_p_questions, measured)))
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
                detectable=_detectable(item.difference, item.after, share)
                if is_tested
                else math.inf,
                detectable_questions=_detectable(item.over_questions, item.after_questions, share),
            )
        )
    return decided


def _corrected(measured: Sequence[Contrast]) -> list[float]:
    """p of `at most 0` over models, corrected in both directions as `decide` does, for any number
    of models."""
    above, below = [], []
    for item in measured:
        above.append(_p_above(item.difference))
        if item.after is not None:
            above[-1] = max(above[-1], _p_above(item.after))
        has_interval = not math.isnan(item.difference.low)
        below.append(item.difference.p_values.p_below(0) if has_interval else 1.0)
    return holm([*above, *below])[: len(above)]


def _p_above(measurement: Measurement) -> float:
    """p of `at most 0`; 1 where there is no interval."""
    return 1.0 if math.isnan(measurement.low) else measurement.p_values.p_above(0)


def _p_questions(item: Contrast) -> float:
    """Two-sided p over questions; in relearning also of the log-odds afterwards."""
    p = _two_sided(item.over_questions)
    if item.after_questions is None:
        return p
    return max(p, _two_sided(item.after_questions))


def _two_sided(measurement: Measurement) -> float:
    """p of `the mean is 0`; 1 where there is no interval."""
    if math.isnan(measurement.low):
        return 1.0
    tail = measurement.p_values
    return min(1.0, 2 * min(tail.p_above(0), tail.p_below(0)))


def _detectable(difference: Measurement, after: Measurement | None, alpha: float) -> float:
    """Smallest true difference that is called with power POWER: found, and at least doubled.

    In relearning that of students that start as the controls do: their gain and their log-odds
    afterwards differ by as much. Each of the two tests may miss it half as often.
    """
    if after is None:
        return _called(difference, alpha, POWER)
    power = (1 + POWER) / 2
    return max(_called(difference, alpha, power), _called(after, alpha, power))


def _called(difference: Measurement, alpha: float, power: float) -> float:
    """Smallest true difference that one test calls."""
    tail = difference.tail
    if not isinstance(tail, StudentTail) or not tail.error > 0:
        return math.inf
    from scipy.special import stdtrit

    doubled = DOUBLED + float(stdtrit(tail.df, power)) * tail.error
    return max(doubled, detectable_shift(tail.error, tail.df, power, alpha))


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
