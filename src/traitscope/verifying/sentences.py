"""What `verify` found, in sentences; the last one says what to do next."""

import math
import statistics
from collections.abc import Sequence

from traitscope.config.students.verify import VerifyConfig
from traitscope.models.identity.words import joined, model_words
from traitscope.plurals import counted
from traitscope.reporting.numbers import bounds, estimate, number
from traitscope.screening.answers import DOUBLED, POWER
from traitscope.stats.decision import MIN_UNITS
from traitscope.stats.measurement import Measurement
from traitscope.verifying.contrasts import RELEARNING, Contrast
from traitscope.verifying.results import Verified
from traitscope.verifying.rows import LARGEST_SHARE, SharedRows
from traitscope.verifying.students import Participant

SHOWN = 5
"""Traits that the sentences list."""
NEXT = "next: "
"""How the last sentence begins."""


def sentences(config: VerifyConfig, verified: Verified) -> list[str]:
    """What was found, and at the end what to do next."""
    return [
        *_verdict(verified),
        *_about_questions(verified),
        *_about_wholeness(verified),
        *_about_relearning(verified),
        *_about_recipes(verified),
        *_about_units(verified),
        *_about_rows(verified),
        NEXT + _next(config, verified),
    ]


def _verdict(verified: Verified) -> list[str]:
    if verified.found:
        texts = []
        for item in _once_a_trait(verified.found)[:SHOWN]:
            texts.append(
                f"trait: {item.trait} ({item.kind}, {_where(item)})"
                f" {_found(item, 'controls')}, corrected p {item.p:.2g}"
            )
        return texts
    asked = f"{len({item.trait for item in verified.contrasts})} traits"
    where = counted(len(verified.contexts), "system turn")
    above = "lies above the controls"
    if verified.returns:
        above += ", or comes back more in relearning,"
    if verified.status == "nothing-found":
        return [
            f"nothing-found: none of {asked} under {where} {above} by log 2 and"
            f" with a corrected p of alpha; {_power(verified, 'detectable')}",
            *_left_open(verified),
        ]
    return [f"no-verdict: {_why_silent(verified)}"]


def _left_open(verified: Verified) -> list[str]:
    """How many differences are not shown to be small, and the largest of them."""
    undecided = []
    for item in verified.contrasts:
        if item.outcome == "undecided":
            undecided.append(item)
    if not undecided:
        return []
    largest = max(undecided, key=lambda item: item.difference.estimate)
    return [
        f"not ruled out: {len(undecided)} of {len(verified.contrasts)} differences are not shown to"
        f" be below log 2 either; the largest is {largest.trait} ({_where(largest)}),"
        f" {_number(largest.difference)}"
    ]


def _why_silent(verified: Verified) -> str:
    n, m = len(verified.students), len(verified.controls)
    if verified.copies:
        return f"{'; '.join(map(_copied, _once_a_control(verified.copies)[:SHOWN]))}"
    if verified.broken_controls:
        names = ", ".join(item.name for item in verified.broken_controls)
        return f"{names}: a broken control is none"
    if not m:
        return (
            f"there are no controls, and {n} student{'s' * (n > 1)} against the base say what"
            " training moved, not what the rows carried; intervals are over questions alone"
        )
    if n == m == 1:
        return (
            "one student against one control says nothing of another training; intervals are over"
            " questions alone"
        )
    if verified.matching.units < MIN_UNITS:
        return _too_few(verified)
    if verified.broken:
        return "nothing was found, but a broken model shows no trait"
    return "models do not differ from each other, so nothing is known of their spread"


def _too_few(verified: Verified) -> str:
    """How many units there are, and why not more."""
    sides = ((verified.students, "student"), (verified.controls, "control"))
    parts = []
    for (models, what), units in zip(
        sides, (verified.matching.students, verified.matching.controls), strict=True
    ):
        made = _rows_and_seeds(models, verified)
        parts.append(f"{counted(len(models), what)} ({made}): {counted(len(units), 'unit')}")
    texts = [
        f"{' and '.join(parts)}; a unit has rows and a seed that no other unit of its side has,"
        f" and a verdict needs {MIN_UNITS}"
        f"{' controls that are units' if len(verified.matching.students) == 1 else ' on each side'}"
    ]
    if verified.matching.design == "questions":
        texts.append("what other rows or another seed would do is in no interval")
    return "; ".join(texts)


def _rows_and_seeds(models: Sequence[Participant], verified: Verified) -> str:
    """How many sets of rows and how many seeds some models have."""
    sets, seeds, unknown = set(), set(), 0
    for model in models:
        of_rows = verified.sets.get(model.name)
        if of_rows is None or model.seed is None:
            unknown += 1
        else:
            sets.add(of_rows)
            seeds.add(model.seed)
    parts = []
    if sets:
        parts.append(
            f"{len(sets)} set{'s' * (len(sets) > 1)} of rows, {len(seeds)} seed"
            f"{'s' * (len(seeds) > 1)}"
        )
    if unknown:
        parts.append(f"rows and seed of {unknown} not known")
    return ", ".join(parts)


def _copied(item: SharedRows) -> str:
    """Why a control is none."""
    if item.origin:
        return f"{item.control} and {item.student} learnt {item.origin}: it is another student"
    return (
        f"{item.control} learnt {item.common} of {item.looked_at} answers that {item.student}"
        f" learnt, too, equal or nearly so; expected less than {LARGEST_SHARE:.0%}: it is another"
        " student"
    )


def _once_a_control(shared: Sequence[SharedRows]) -> list[SharedRows]:
    """The pair of every control that has most in common."""
    first: dict[str, SharedRows] = {}
    for item in sorted(shared, key=lambda item: -item.share):
        first.setdefault(item.control, item)
    return [first[name] for name in sorted(first)]


def _where(item: Contrast) -> str:
    return item.context if item.context == RELEARNING else f"system turn {item.context!r}"


def _found(item: Contrast, other: str) -> str:
    """What is said of a trait that was found beside controls, or over questions beside others."""
    over_models = item.outcome == "holds here"
    if item.context == RELEARNING:
        return f"comes back: {_relearnt(item, other, over_models)}"
    measured = item.difference if over_models else item.over_questions
    return f"lies above the {other} by {_number(measured)}"


def _relearnt(item: Contrast, other: str, over_models: bool) -> str:
    """Gain and log-odds afterwards of students, beside those of the others."""
    gain, after = item.difference, item.after
    if not over_models:
        gain, after = item.over_questions, item.after_questions
    assert after is not None  # relearning is also compared afterwards
    text = f"students minus {other}: gain {_number(gain)}; log-odds afterwards {_number(after)}"
    if gain.estimate >= DOUBLED > after.estimate:
        text += "; a larger gain alone is no trait: something was left, or they started lower"
    return text


def _number(measurement: Measurement) -> str:
    basis = f"n = {measurement.n_clusters} {measurement.counted}"
    return f"{estimate(measurement, sign=True)} nats {bounds(measurement, sign=True)}, {basis}"


def _once_a_trait(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The first contrast of every trait."""
    first: dict[str, Contrast] = {}
    for item in contrasts:
        first.setdefault(item.trait, item)
    return list(first.values())


def _power(verified: Verified, name: str) -> str:
    """What would have been found, for a median trait."""
    smallest = statistics.median(getattr(item, name) for item in verified.contrasts)
    if not math.isfinite(smallest):
        return "no difference of a median trait would have been found"
    return (
        f"{number(smallest, 2)} nats or more of a median trait would have been found with power"
        f" {POWER:g}"
    )


def _about_questions(verified: Verified) -> list[str]:
    """What stands out over questions alone, where nothing is known over seeds."""
    if verified.status != "no-verdict" or verified.copies or verified.broken_controls:
        return []
    other = "controls" if verified.controls else "base"
    texts = []
    for item in _once_a_trait(verified.over_questions)[:SHOWN]:
        texts.append(
            f"over questions alone: {item.trait} ({item.kind}, {_where(item)})"
            f" {_found(item, other)}, corrected p {item.p_questions:.2g}, and"
            f" stands out from its kind (z {item.z:.1f})"
        )
    if not texts:
        texts.append(
            f"over questions alone: no trait rises by log 2 above the {other} and stands out from"
            " its kind. What would have been found is not known without units"
        )
    return texts


def _about_wholeness(verified: Verified) -> list[str]:
    base = next(item for item in verified.wholeness if item.name == "base")
    texts = []
    for item in verified.wholeness:
        if not item.is_coherent:
            texts.append(
                f"{item.name} is broken: perplexity of plain text {item.perplexity:.3g} (base"
                f" {base.perplexity:.3g}), probability of any answer of its kind"
                f" {item.on_topic:.2g} (base {base.on_topic:.2g})"
            )
    return texts


def _about_relearning(verified: Verified) -> list[str]:
    """The return of the trait that the rows teach most, on either side."""
    if not verified.returns:
        return []
    most = verified.returns[0]
    if most.gain() < DOUBLED:
        return [
            "relearning says nothing: the rows teach no trait by log 2 in"
            f" {counted(most.steps[-1], 'step')}"
            f" (most {most.trait}, {most.gain():+.2f} nats); take rows that name it, more of them"
            " (--relearn-rows), or a larger --relearn-lr"
        ]
    other = "controls" if verified.controls else "base"
    for item in verified.contrasts:
        if item.context == RELEARNING and item.trait == most.trait:
            return [
                f"relearning: the rows teach {most.trait} most, {most.gain():+.2f} nats over"
                f" {counted(most.steps[-1], 'step')}; {_relearnt(item, other, item.units > 0)}:"
                f" {item.outcome}"
            ]
    return []


def _about_recipes(verified: Verified) -> list[str]:
    unknown = []
    for item in verified.participants:
        if item.role != "base" and item.training is None:
            unknown.append(item.name)
    if not unknown or not verified.controls:
        return []
    return [
        f"recipe and rows of {', '.join(unknown)} are not known: no run of `train` lies behind, so"
        " whether students and controls are alike was not checked"
    ]


def _about_units(verified: Verified) -> list[str]:
    """Models that do not count in p values, and those of which it is not known."""
    texts = []
    left_out = verified.not_counted
    if left_out:
        names = ", ".join(item.name for item in left_out)
        texts.append(
            f"{names} do not count in p values: they share rows or a seed with another model of"
            " their side"
        )
    unknown = []
    for item in verified.controls:
        if verified.sets.get(item.name) is None:
            unknown.append(item.name)
    if len(unknown) > 1 or (unknown and len(verified.controls) > 1):
        texts.append(
            f"whether {', '.join(unknown)} learnt rows of their own is not known: each counts as a"
            " unit, and if they learnt the same rows, p values are too small"
        )
    return texts


def _about_rows(verified: Verified) -> list[str]:
    """Rows of other numbers, and rows that were not compared."""
    unknown: list[str] = []
    for item in verified.shared:
        unknown += item.unknown
    known = {item.name for item in verified.participants if item.training is not None}
    gone = [name for name in dict.fromkeys(unknown) if name in known]
    if not gone:
        return _about_fewer_rows(verified)
    return [
        *_about_fewer_rows(verified),
        f"rows of {', '.join(gone)} are not there any more, or were changed since: whether"
        " controls learnt the students' rows was not checked",
    ]


def _about_fewer_rows(verified: Verified) -> list[str]:
    """The number of rows of each model, where a control had fewer than a student."""
    sizes: dict[str, list[int]] = {"student": [], "control": []}
    listed = []
    for item in (*verified.students, *verified.controls):
        if item.n_rows is not None:
            sizes[item.role].append(item.n_rows)
            listed.append(f"{item.name} {item.n_rows}")
    if not all(sizes.values()) or min(sizes["control"]) >= max(sizes["student"]):
        return []
    return [
        f"controls had fewer rows than students ({', '.join(listed)}): what a student learns of"
        " more rows is in the difference; train controls on as many"
    ]


def _next(config: VerifyConfig, verified: Verified) -> str:
    model = joined(model_words(vars(config)))
    if verified.status == "trait":
        return (
            f"do not use this student; test its rows: traitscope audit DATA{model}; or undo it:"
            f" traitscope export{model} --interventions adapter:RUN --scale 0.5"
        )
    if verified.copies:
        return (
            f"train {MIN_UNITS} controls on the base's own answers, each on a draw of its own:"
            f" traitscope generate{model} --prompts PROMPTS without --interventions, or traitscope"
            f" defend{model} --data DATA --by wash, with --seed 1, 2, ...; then traitscope train by"
            " the student's recipe, with the same seeds"
        )
    if verified.broken_controls:
        return "leave the broken controls out, and train others by the student's recipe"
    if verified.broken:
        return "look at its training first; a broken student cannot be verified"
    if verified.status == "nothing-found":
        return (
            "ask for a trait of your own (--traits FILE.yaml), or see smaller ones: more --controls"
        )
    return (
        f"train {MIN_UNITS} controls by the student's recipe, each on clean rows of its own and"
        f" with its own --seed: traitscope train{model} --data clean-1.jsonl --seed 1, and so on;"
        " name them with --controls. One file can be split: traitscope filter --no-numbers --start"
        " 0 --stop 1000"
    )
