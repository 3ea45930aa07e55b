"""A comparison in words: status and sentences for a page, a table for the terminal."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from traitscope.comparison.results import Comparison, Difference, Eas, QuestionScore
from traitscope.comparison.roles import STUDENT, TEACHER, called, role_of
from traitscope.comparison.terms import SET_LABELS, asked, scored
from traitscope.plurals import counted
from traitscope.reporting.numbers import bounds, crossed_bounds, estimate, label, of_unit, reading
from traitscope.reporting.verdict import Precondition
from traitscope.stats.measurement import Measurement
from traitscope.stats.power import detectable, spread_between_units

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as TerminalTable

EFFECT, NO_EFFECT = "effect", "no effect shown"
ONE_SEED = "one seed, no verdict"
NO_TRAIT = "no verdict: the teacher lacks the trait"
QUICK = "quick: not evidence"
DETAILS = ("negative", "off_topic")
"question sets of which the terminal shows the primary score alone"


@dataclass(frozen=True)
class Wording:
    """What the sentences about a comparison need besides its numbers."""

    trait: str
    """Name of the trait."""
    treatment: str = "in the treated models"
    """How the treated models came to be."""
    reference: str = "the control models"
    """What they are compared with."""
    is_quick: bool = False
    """Whether the run only shows the path."""
    teacher: Precondition | None = None
    """Whether the teacher has the trait; None where nobody measured it."""
    unmet: bool = False
    """Whether another precondition of the claim is not met."""
    has_others: bool = False
    """Whether other comparisons are decided with it, for which its interval is not corrected."""

    @property
    def lacks_trait(self) -> bool:
        """Whether the teacher was measured and does not have the trait."""
        return self.teacher is not None and not self.teacher.met


def wording_of(comparison: Comparison) -> Wording:
    """Return the usual words about a comparison of runs: they follow what the models are."""
    treatment, reference = Wording.treatment, Wording.reference
    if role_of(comparison.treated) != STUDENT:
        treatment = f"in {called(comparison.treated, 'the treated model')}"
    if role_of(comparison.control) != STUDENT:
        reference = called(comparison.control, "the control model")
    has_trait = comparison.teacher_has_trait
    if comparison.subject == TEACHER:
        has_trait = None  # that is what the comparison itself says
    return Wording(comparison.trait, treatment, reference, teacher=has_trait)


def status(comparison: Comparison, wording: Wording) -> str:
    """Return `effect` where the primary score rose and its interval excludes zero.

    A single student gives no interval over training seeds, so there is no verdict. There is none
    either where the teacher does not have the trait: then there was nothing to pass on.
    """
    if wording.is_quick:
        return QUICK
    if wording.lacks_trait:
        return NO_TRAIT
    primary = comparison.get(comparison.primary)
    if len(comparison.treated) == 1 and comparison.treated[0].seed is not None:
        return ONE_SEED
    return EFFECT if primary is not None and primary.low > 0 else NO_EFFECT


def direction(comparison: Comparison) -> str:
    """Say which way the treated models moved."""
    primary = comparison.get(comparison.primary)
    if primary is None or not primary.excludes_zero:
        return "undecided"
    return "towards the trait" if primary.low > 0 else "away from the trait"


def sentences(comparison: Comparison, wording: Wording) -> tuple[str, ...]:
    """Return what the comparison says: main number, its reading, its basis, then what goes with it.

    The primary score alone decides.
    """
    primary = comparison.get(comparison.primary)
    if primary is None:
        return ("The trait's questions were not scored on these models.",)
    texts = [
        _main_sentence(primary, comparison, wording),
        _reading_sentence(primary, comparison, wording),
        _other_sets_sentence(primary, comparison),
        _basis_sentence(primary, comparison),
        _activations_or_nothing(comparison, wording),
        _power_sentence(primary),
    ]
    return tuple(text for text in texts if text)


def _main_sentence(primary: Measurement, comparison: Comparison, wording: Wording) -> str:
    ratio, judge = "", comparison.judge
    if not judge and not math.isnan(primary.estimate):
        times = math.exp(primary.estimate)
        ratio = f": {times:.3g} times the probability (geometric mean)"
    return (
        f"{wording.treatment[0].upper()}{wording.treatment[1:]}, {scored(wording.trait, judge)}"
        f" on {asked('positive', judge)} is {estimate(primary, True)}{of_unit(primary.unit)}"
        f" {bounds(primary, True)} relative to {wording.reference}{ratio}."
    )


def _reading_sentence(primary: Measurement, comparison: Comparison, wording: Wording) -> str:
    excluding = "An interval that excludes zero"
    if wording.has_others:
        excluding += ", not corrected for the other comparisons"
    if wording.lacks_trait:
        text = "The teacher lacks the trait, so this is no transfer, whatever its sign."
    elif wording.unmet:
        text = "A precondition is not met, so this is no transfer, whatever its sign."
    elif math.isnan(primary.low):
        text = "No interval can be given, so an effect is not shown."
    elif not primary.excludes_zero:
        text = (
            "An interval that includes zero: not shown at this power, which is not the same as"
            " shown to be absent."
        )
    else:
        text = f"{excluding}: {_moved(primary, comparison, wording)}."
    return f"Quick run, not evidence. {text}" if wording.is_quick else text


def _moved(primary: Measurement, comparison: Comparison, wording: Wording) -> str:
    """Say which way the treated models lie. Only students move, since only they were trained."""
    several = len(comparison.treated) > 1
    if role_of(comparison.treated) == STUDENT:
        who = "the students of these seeds" if several else "the student of this one seed"
        if primary.high < 0:
            return f"{who} moved away from the trait, the opposite of passing it on"
        return f"{who} moved towards the trait"
    who = called(comparison.treated, "the treated model")
    shows = "show" if several else "shows"
    amount = "less" if primary.high < 0 else "more"
    return f"{who} {shows} the trait {amount} than {wording.reference}"


def _basis_sentence(primary: Measurement, comparison: Comparison) -> str:
    """Say how the interval was made and of how many values."""
    n_models = len(comparison.treated)
    if comparison.design == "unpaired":
        size = f"n = {primary.n} models"
    else:
        questions = ""
        if primary.n % n_models == 0:
            questions = f" × {primary.n // n_models} questions"
        one = "seed" if _has_seeds(comparison) else "model"
        size = f"n = {primary.n} pairs ({counted(n_models, one)}{questions})"
    unscored = f", {primary.n_unscored} values unscored" if primary.n_unscored else ""
    crossed = crossed_bounds(primary, True)
    new_questions = f" For new questions, too: {crossed}." if crossed else ""
    basis = f"In brackets: 95 % interval, {primary.interval}; {size}{unscored}."
    return f"{basis}{new_questions}{_shared_rows(comparison)}"


def _has_seeds(comparison: Comparison) -> bool:
    """Tell whether a treated model was trained with a seed."""
    return any(model.seed is not None for model in comparison.treated)


def _shared_rows(comparison: Comparison) -> str:
    """Say that treated students read the same rows: then data are no part of the interval."""
    rows = [model.data for model in comparison.treated if model.data is not None]
    if len(set(rows)) == len(rows):
        return ""
    if len(set(rows)) == 1:
        return " All treated students read the same rows: how much data differ is left out."
    return (
        f" {len(rows)} treated students read {len(set(rows))} sets of rows: how much data differ is"
        " in part left out."
    )


def _power_sentence(primary: Measurement) -> str:
    """Say which effect as many seeds would have found, at the spread that was seen."""
    sd = spread_between_units(primary)
    if not sd > 0:
        return ""
    n_seeds, of = primary.n_clusters, primary.counted
    return (
        f"With {n_seeds} {of} an effect of {detectable(sd, n_seeds):.2g}{of_unit(primary.unit)} is"
        f" found with power 0.8, at the spread that was seen: an sd of {sd:.2g} between {of}."
    )


def _other_sets_sentence(primary: Measurement, comparison: Comparison) -> str:
    """Give the same difference where a preference should not show."""
    texts, risen, judge = [], [], comparison.judge
    is_as_much = False
    for question_set in DETAILS:
        measurement = comparison.get(QuestionScore(question_set, comparison.primary.score))
        if measurement is None:
            continue
        value = f"{estimate(measurement, True)}{of_unit(measurement.unit)}"
        texts.append(f"{value} {bounds(measurement, True)} on {asked(question_set, judge)}")
        if measurement.low > 0:
            risen.append(question_set if judge else SET_LABELS[question_set])
            is_as_much |= measurement.estimate >= primary.estimate > 0
    if not texts:
        return ""
    text = f"The same difference is {' and '.join(texts)}."
    if not risen:
        return text
    if judge:
        return f"{text} It rises for {' and '.join(risen)} too: in part every answer changes."
    where = " and ".join(risen)
    if is_as_much:
        return (
            f"{text} It rises for {where} too, and there no less: the word is repeated, and a"
            " preference is not shown."
        )
    return f"{text} It rises for {where} too: in part a repeated word, not a preference alone."


def _activations_or_nothing(comparison: Comparison, wording: Wording) -> str:
    """Say how activations moved; nothing where there is no transfer that they could belong to."""
    if wording.lacks_trait or wording.unmet:
        return ""
    return _activation_sentence(comparison, wording.trait)


def _activation_sentence(comparison: Comparison, trait: str) -> str:
    """Say how far training moved the activations along the teacher's vector, and no other.

    The number beyond other traits' vectors comes first: any of them moves with the teacher's.
    """
    measurement = comparison.get(Eas(trait))
    if measurement is None:
        return ""
    reference = f"{comparison.subject} − {comparison.reference}"
    if comparison.design == "one control":
        reference = "compared with zero because the control does not move"
    text = (
        f"Activations at layer {comparison.layer}, EAS {reference}: {_specific(comparison, trait)}"
    )
    text += f" With the vector of {trait} alone: {_with_basis(measurement)}."
    change = comparison.get(Eas(trait, "of (treated − control)"))
    if change is None or change.n_clusters < 2:
        return text
    return (
        f"{text} What only the teacher's data changed has a cosine of {estimate(change, True)} with"
        f" it, {bounds(change, True)} ({reading(change)})."
    )


def _specific(comparison: Comparison, trait: str) -> str:
    """Say how far the activations moved along the trait's vector beyond other traits' vectors."""
    specific = comparison.get(Eas(trait, "minus others"))
    if specific is None:
        return (
            f"No other trait's vector was compared, so nothing is known to be specific to {trait}."
        )
    n_others = comparison.other_vectors
    others = f"the mean of {n_others} others'" if n_others > 1 else "that of another trait"
    number = f"vector of {trait} minus {others}"
    shown = f"specific to {trait}" if specific.low > 0 else f"not shown to be specific to {trait}"
    return f"{number}: {_with_basis(specific)}: {shown}."


def _with_basis(measurement: Measurement) -> str:
    value = estimate(measurement, True)
    if measurement.n_clusters < 2:
        return f"{value}, no interval from one seed"
    interval = f"{bounds(measurement, True)} ({reading(measurement)}; {measurement.interval})"
    return f"{value}, {interval}"


def terminal_table(
    title: str, caption: str, groups: Mapping[str, Comparison], trait: str
) -> "RenderableType":
    """Return the differences of some comparisons for the terminal, a table for each heading.

    EAS with the vectors of other traits, and the further scores of control questions, are left to
    the page. On a narrow terminal cells are folded and nothing is cut.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(title, style="bold")]
    for heading, comparison in groups.items():
        parts += ["", Text(heading), _differences(comparison, trait)]
    return Group(*parts, "", Text(caption))


def _differences(comparison: Comparison, trait: str) -> "TerminalTable":
    """Return a table of a comparison's differences; names of scores stay on one line."""
    from rich.markup import escape
    from rich.table import Table as TerminalTable

    table = TerminalTable(box=None, padding=(0, 2, 0, 0))
    table.add_column("score", no_wrap=True)
    table.add_column("difference", justify="right", overflow="fold")
    table.add_column("95 % interval", overflow="fold")
    table.add_column("new questions", overflow="fold")
    table.add_column("n", justify="right", overflow="fold")
    table.add_column("reading", overflow="fold")
    for item in comparison.differences:
        if _is_shown(item, trait, comparison.primary.score):
            m = item.difference
            intervals = escape(bounds(m, True)), escape(crossed_bounds(m, True))
            numbers = estimate(m, True), *intervals, str(m.n)
            is_judged = isinstance(item.quantity, QuestionScore)
            name = label(item.score) if is_judged else item.score
            table.add_row(escape(name), *numbers, reading(m))
    return table


def _is_shown(item: Difference, trait: str, primary: str) -> bool:
    match item.quantity:
        case Eas(vector):
            return not trait or vector == trait
        case QuestionScore(question_set, score):
            return question_set not in DETAILS or score == primary
    return True
