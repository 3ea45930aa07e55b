"""What both sides are asked: questions by kind, and the answers that are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from traitscope.data.package_files import bundled_file
from traitscope.data.trait_files import trait_names
from traitscope.data.traits import Trait, kind_of, load_trait
from traitscope.models import chat
from traitscope.models.model import Model


@dataclass(frozen=True)
class Kind:
    """Questions that call for one word of a kind, such as an animal."""

    name: str
    """Name of the kind."""
    questions: tuple[str, ...]
    """User turns."""
    stem: str
    """How the answer begins; the word comes next."""
    answers: Mapping[str, int]
    """First token of every answer whose first token no other shares."""
    left_out: tuple[str, ...]
    """Answers that share their first token with another one."""
    traits: tuple[Trait, ...] = ()
    """Traits whose questions these are."""


def kinds_of(model: Model, traits: Sequence[str], broad: bool) -> list[Kind]:
    """The kinds of the traits, then the broad ones.

    Answers of a kind are the lexicon's, the traits' words, and their candidates.
    """
    lexicon = yaml.safe_load(bundled_file("lexicon.yaml").read_text(encoding="utf-8"))
    by_kind: dict[str, list[Trait]] = {}
    for name in trait_names(traits):
        trait = load_trait(name)
        by_kind.setdefault(kind_of(trait), []).append(trait)
    kinds = []
    for name, group in by_kind.items():
        questions = group[0].questions
        words = _words(lexicon, name)
        for trait in group:
            words += [trait.word_forms[0], *trait.candidates]
        kinds.append(
            _kind(model, name, questions.positive, questions.stem("positive"), words, tuple(group))
        )
    if broad:
        file = bundled_file("broad_questions.yaml")
        asked = yaml.safe_load(file.read_text(encoding="utf-8"))
        for name, texts in asked.items():
            words = _words(lexicon, name)
            kinds.append(_kind(model, name, texts, lexicon[name]["stem"], words))
    return kinds


def _words(lexicon: Mapping[str, Any], kind: str) -> list[str]:
    """The lexicon's answers of a kind; none where it has not got the kind."""
    words = lexicon.get(kind, {}).get("words", [])
    if isinstance(words, str):
        file = bundled_file("candidates", f"{words}.yaml")
        words = yaml.safe_load(file.read_text(encoding="utf-8"))
    return list(words)


def _kind(
    model: Model,
    name: str,
    questions: Sequence[str],
    stem: str,
    words: Sequence[str],
    traits: tuple[Trait, ...] = (),
) -> Kind:
    first = {}
    for word in words:
        if stem:
            first[word] = chat.following_ids(model, f" {word}")[0]
        else:
            first[word] = chat.completion_ids(model, word, end_token=False)[0]
    tokens = list(first.values())
    answers = {}
    for word, token in first.items():
        if tokens.count(token) == 1:
            answers[word] = token
    left_out = tuple(word for word in first if word not in answers)
    return Kind(name, tuple(questions), stem, answers, left_out, traits)
