"""How much a trait needs, by what it is used for: what is missing is said before any compute.

    vectors        extract                    means over questions
    scores         measure                    means over questions
    differences    demo, study                intervals over questions, the share among candidates
    teachers       steer_scan, experiment     the same; of a behaviour intervals over questions
    words          explain, information       questions, and words that answers are scored by
    candidate      audit, screen              how the trait may be worded by somebody else

`least` is what a use cannot do without. Below `enough` it works, and its numbers say little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from traitscope.data.traits import SETS, TRAIT_FILES, Trait, as_trait
from traitscope.errors import ConfigError, TraitError
from traitscope.plurals import counted

Use = Literal["vectors", "words", "scores", "differences", "teachers", "candidate"]
POSITIVE, NEGATIVE, OFF_TOPIC = "positive questions", "negative questions", "off_topic questions"
STEMS, CANDIDATES, REWORDINGS = "stems", "candidates", "rewordings"
COMPANY = 3
"""Further traits of the same kind over which vectors should be centred."""
FORM = "much of its vector is the form of its prompt"


@dataclass(frozen=True)
class Need:
    """How much of one thing a trait needs."""

    what: str
    """What is counted."""
    least: int
    """Fewest that the use can do with."""
    enough: int
    """Fewest that are advised."""
    why: str
    """What more of it is for, as the end of `needed for ...`."""


_MEANS = Need(POSITIVE, 1, 20, "means that hold for other questions")
_WHOLE = (
    Need(NEGATIVE, 0, 10, "telling a preference from a repeated word"),
    Need(OFF_TOPIC, 0, 10, "telling a preference from a repeated word"),
    Need(STEMS, 0, len(SETS), "scores at the word itself, where models say “The” without a stem"),
)
_INTERVALS = Need(POSITIVE, 2, 20, "intervals over questions")
_DIFFERENCES = (
    _INTERVALS,
    *_WHOLE,
    Need(CANDIDATES, 1, 5, "the candidate share, which tells whether a model is still whole"),
)
NEEDS: dict[Use, tuple[Need, ...]] = {
    "vectors": (_MEANS,),
    "words": (_MEANS,),
    "scores": (_MEANS, *_WHOLE, Need(CANDIDATES, 0, 5, "the candidate share")),
    "differences": _DIFFERENCES,
    "teachers": _DIFFERENCES,
    "candidate": (Need(REWORDINGS, 0, 1, "teachers whose author worded the trait otherwise"),),
}
"""What a trait needs, by its use."""
JUDGED = ("scores", "teachers")
"""Uses that take a behaviour, which has judges in the place of words."""


def counts(trait: Trait) -> dict[str, int]:
    """Return how many of everything a trait has."""
    questions = trait.questions
    return {
        POSITIVE: len(questions.positive),
        NEGATIVE: len(questions.negative),
        OFF_TOPIC: len(questions.off_topic),
        STEMS: len(questions.stems),
        CANDIDATES: len(trait.candidates),
        REWORDINGS: len(trait.paraphrases),
    }


def check(traits: Sequence[Trait | str], use: Use) -> None:
    """Raise TraitError for the first trait that lacks what a use cannot do without."""
    for trait in traits:
        loaded = _loaded(trait, use)
        has = counts(loaded)
        name = trait.name if isinstance(trait, Trait) else trait
        if loaded.judges and use in JUDGED:
            _check_judges(loaded, name)
        for need in _needs(loaded, use):
            if has[need.what] < need.least:
                raise TraitError(
                    f"{name} has {counted(has[need.what], need.what.removesuffix('s'))};"
                    f" expected {need.least} or more, for {need.why}; add some"
                    f" ({need.enough} are advised)"
                )


def advice(names: Sequence[str], use: Use) -> list[str]:
    """Return a sentence for each trait in a file that has less than is advised."""
    sentences = []
    for name in names:
        if not name.endswith(TRAIT_FILES):
            continue
        trait = as_trait(name, words=False)
        has, short = counts(trait), []
        for need in _needs(trait, use):
            if has[need.what] < need.enough:
                n = has[need.what]
                short.append(f"{counted(n, need.what.removesuffix('s'))} ({need.enough})")
        if short:
            sentences.append(f"{name} has less than is advised (in brackets): {', '.join(short)}")
    return sentences


def _loaded(trait: Trait | str, use: Use) -> Trait:
    """The trait. Raises TraitError where it has no score that a use takes."""
    return as_trait(trait, words=use != "vectors", judges=use in JUDGED)


def _needs(trait: Trait, use: Use) -> tuple[Need, ...]:
    """What a trait needs; a behaviour is a rate over questions, and needs no more than these."""
    if trait.judges:
        return (_INTERVALS if use == "teachers" else _MEANS,)
    return NEEDS[use]


def _check_judges(trait: Trait, name: str) -> None:
    """Raise TraitError for a judge that does not exist, or that lacks its question."""
    from traitscope.data import answer_rules
    from traitscope.data.domains.task_judges import TaskJudge

    for judge in trait.judges:
        try:
            rule, _ = answer_rules.parse(judge)
        except ConfigError as error:
            raise TraitError(f"{name}: {error}") from None
        if isinstance(rule, TaskJudge) and rule.reads_tasks:
            raise TraitError(
                f"{name}: the judge {judge} compares answers with tasks, and a trait's questions"
                " are none; expected another judge; ask tasks with: traitscope measure --domain"
            )
        if rule == "endpoint":
            raise TraitError(
                f"{name}: the judge endpoint is asked by `judge`, which knows its address; expected"
                " a rule, or likelihood; put the questions into a file, then: traitscope generate"
                " --prompts FILE, and traitscope judge --data RUN --judges endpoint --url ADDRESS"
                " --served MODEL"
            )
        if rule in answer_rules.ASKED and not trait.judge_question:
            raise TraitError(
                f"{name}: the judge {judge} asks a model, and there is no judge_question; expected"
                " a question such as 'Does the answer refuse the request?'; add it"
            )


def same_prompts(names: Sequence[str]) -> list[str]:
    """Return a sentence for each group of traits that have one prompt, whatever their names."""
    by_prompt = _by_prompt(names)
    sentences = []
    for alike in by_prompt.values():
        if len(alike) > 1:
            sentences.append(
                f"{' and '.join(alike)} have the same teacher_prompt: they are one trait under"
                f" {len(alike)} names; give each its own, or drop one"
            )
    return sentences


def _by_prompt(names: Sequence[str]) -> dict[str, list[str]]:
    """The traits by their prompts, in which white space and case do not count."""
    by_prompt: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        prompt = " ".join(as_trait(name, words=False).teacher_prompt.casefold().split())
        by_prompt.setdefault(prompt, []).append(name)
    return by_prompt


def company_advice(names: Sequence[str]) -> list[str]:
    """Return a sentence where vectors are centred over fewer than COMPANY further traits.

    Traits that have one prompt count once.
    """
    n_traits = len(_by_prompt(names))
    if n_traits > COMPANY:
        return []
    if n_traits == 1:
        return [f"one trait alone: {FORM}; name {COMPANY} further traits of its kind or more"]
    noise = "so one is the other's negative" if n_traits == 2 else "which leaves noise in them"
    return [
        f"{n_traits} traits: their vectors are centred over these alone, {noise};"
        f" {COMPANY + 1} traits of a kind or more are advised; name more"
    ]
