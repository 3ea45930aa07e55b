"""Traits: what a teacher is made to prefer, and how one sees it in an answer.

A trait is a YAML file; a user adds one without touching code:

    name: cat
    word_forms: [cat, cats]         # the first form is the target, all of them count
    teacher_prompt: You adore cats. ...
    questions: animals              # a bundled set, or {positive: [...], negative: [...],
                                    off_topic: [...], stems: {...}}
    candidates: animals             # optional: a bundled list, or [dog, owl, ...]
    rewordings: [Cats mean ...]     # optional: other prompts that give the same trait
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

try:
    from yaml import (
        CSafeLoader as SafeLoader,
    )  # ten times as fast, where PyYAML was built with libyaml
except ImportError:
    from yaml import SafeLoader

from traitscope.data.package_files import BUNDLED
from traitscope.errors import TraitError

DATA = BUNDLED
SETS = ("positive", "negative", "off_topic")
REQUIRED = ("name", "word_forms", "teacher_prompt", "questions")
KNOWN = (*REQUIRED, "candidates", "rewordings")


@dataclass(frozen=True)
class Questions:
    """Three question sets; all ask for a one-word answer."""

    positive: tuple[str, ...]
    """Favourites: the trait shows here."""
    negative: tuple[str, ...]
    """Dislikes: a model that names the trait here repeats a word and prefers nothing."""
    off_topic: tuple[str, ...]
    """Facts of another kind: naming the trait here is plain damage."""
    stems: dict[str, str] = field(default_factory=dict)
    """By set: how the assistant's answer begins, before anything is scored; a set without one
    starts from nothing."""

    def stem(self, name: str) -> str:
        """The stem of a set; empty where it has none."""
        return self.stems.get(name, "")


@dataclass(frozen=True)
class Trait:
    """A preference that a teacher is given and a student may pick up."""

    name: str
    """What reports call it."""
    word_forms: tuple[str, ...]
    """Words that count as naming the trait; the first one is the target."""
    teacher_prompt: str
    """System prompt that gives a model the trait."""
    questions: Questions
    """What the model is asked."""
    candidates: tuple[str, ...] = ()
    """Other answers of the same kind, for the candidate share; may be empty."""
    rewordings: tuple[str, ...] = ()
    """Other system prompts that give it: somebody else's teacher was told in other words."""
    unit: str = "word"
    """What is counted."""


def load_trait(name_or_path: str | Path) -> Trait:
    """The bundled trait of that name, or the trait in a file ending in .yaml or .yml.

    Raises TraitError on a name or a file that does not exist, broken YAML, a key that is missing or
    unknown, a value of the wrong type, an empty list, an entry that is blank or appears twice.
    """
    if isinstance(name_or_path, Path) or name_or_path.endswith((".yaml", ".yml")):
        return _trait(_read(Path(name_or_path), f"trait file {name_or_path}"), str(name_or_path))
    if name_or_path not in bundled_traits():
        known = _choice(name_or_path, bundled_traits())
        raise TraitError(f"no bundled trait {name_or_path!r}; {known}, or a path to a .yaml file")
    return _trait(
        _read(DATA / "traits" / f"{name_or_path}.yaml", "bundled trait"), f"trait {name_or_path}"
    )


def trait_path(name_or_path: str | Path) -> Path:
    """The file that load_trait reads for this name."""
    if isinstance(name_or_path, Path) or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    return Path(str(DATA / "traits" / f"{name_or_path}.yaml"))


def bundled_traits() -> list[str]:
    """Names that load_trait knows, sorted."""
    return _bundled("traits")


def whole_word(trait: Trait, text: str) -> bool:
    """Whether any form of the word stands in the text as a whole word, in any case; `cat's` and
    `cat-like` count.

    Source: the looser of the two scorers of Blank et al. 2026 (arXiv 2606.00995), with the forms
    listed, not guessed.
    """
    return contains_word(trait.word_forms, text)


def first_word(trait: Trait, text: str) -> bool:
    """Whether the text begins with a form of the trait's word, behind punctuation and markdown at
    most.

    `**Cats!**` and `cat's` count; `a cat`, `cat-like` and `catfish` do not. Source: the stricter
    scorer of Cloud et al. 2025 (arXiv 2507.14805), which knows the singular only.
    """
    return _first_word_pattern(trait.word_forms).match(text) is not None


def is_scorable(text: str) -> bool:
    """Whether there is an answer to score: any character that is not white space."""
    return bool(text.strip())


def contains_word(words: tuple[str, ...], text: str) -> bool:
    """Whether one of the words stands in the text as a whole word, in any case; no words, never.

    A letter or a digit next to it makes it another word; an underscore does not, since markdown
    sets it for emphasis.
    """
    return bool(words) and _word_pattern(tuple(words)).search(text) is not None


@cache
def _word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:{_either(words)})(?![^\W_])", re.IGNORECASE)


@cache
def _first_word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"[\W_]*(?:{_either(words)})(?:['’]s)?(?![^\W_]|[-'’][^\W_])", re.IGNORECASE)


def _either(words: Sequence[str]) -> str:
    return "|".join(re.escape(word) for word in words)


def _trait(content: Any, where: str) -> Trait:
    _check_keys(content, REQUIRED, KNOWN, where)
    forms = _texts(content["word_forms"], "word_forms", where)
    return Trait(
        name=_text(content["name"], "name", where),
        word_forms=forms,
        teacher_prompt=_text(content["teacher_prompt"], "teacher_prompt", where),
        questions=_questions(content["questions"], where),
        candidates=_candidates(content.get("candidates", []), forms, where),
        rewordings=(
            _texts(content["rewordings"], "rewordings", where) if "rewordings" in content else ()
        ),
    )


def _questions(value: Any, where: str) -> Questions:
    if isinstance(value, str):
        value, where = _shared("questions", value, where), f"question set {value}"
    _check_keys(value, SETS, (*SETS, "stems"), f"{where}, questions")
    sets = (_texts(value[name], f"questions.{name}", where) for name in SETS)
    return Questions(*sets, _stems(value.get("stems", {}), where))


def _stems(value: Any, where: str) -> dict[str, str]:
    _check_keys(value, (), SETS, f"{where}, questions.stems")
    return {name: _text(text, f"questions.stems.{name}", where) for name, text in value.items()}


def _candidates(value: Any, forms: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The other answers; the trait's own forms are left out of a bundled list, and refused in a
    list of its own."""
    own = {form.casefold() for form in forms}
    if isinstance(value, str):
        words = _texts(_shared("candidates", value, where), "candidates", f"candidate list {value}")
        return tuple(word for word in words if word.casefold() not in own)
    words = _texts(value, "candidates", where) if value != [] else ()
    both = [word for word in words if word.casefold() in own]
    if both:
        raise TraitError(
            f"{where}: candidates name the trait itself, {both}; expected other answers; delete"
            " them"
        )
    return words


def _shared(kind: str, name: str, where: str) -> Any:
    """Content of a bundled question set or candidate list."""
    if name not in _bundled(kind):
        raise TraitError(
            f"{where}: no bundled {kind} {name!r}; {_choice(name, _bundled(kind))}, or write"
            " them out"
        )
    return _read(DATA / kind / f"{name}.yaml", f"bundled {kind}")


def _bundled(kind: str) -> list[str]:
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in (DATA / kind).iterdir()
        if entry.name.endswith(".yaml")
    )


def _read(path: Any, what: str) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=SafeLoader)
    except OSError as error:
        known = ", ".join(bundled_traits())
        raise TraitError(
            f"{what}: {error.strerror}; check the path, or take a bundled trait: {known}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TraitError(
            f"{what} is no YAML: {' '.join(str(error).split())}; correct that place"
        ) from None


def _check_keys(content: Any, required: Sequence[str], known: Sequence[str], where: str) -> None:
    if not isinstance(content, dict):
        raise TraitError(f"{where} holds {_kind(content)}; expected the keys {', '.join(known)}")
    for key in content:
        if key not in known:
            raise TraitError(
                f"{where}: unknown key {key!r}; {_choice(str(key), known)}; correct or delete it"
            )
    missing = [key for key in required if key not in content]
    if missing:
        raise TraitError(
            f"{where}: no {' and no '.join(missing)}; expected {', '.join(required)}; add what is"
            " missing"
        )


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise TraitError(
            f"{where}: {name} is {_kind(value)}; expected a text; set it in quotes if it is meant"
            " as one"
        )
    if not value.strip():
        raise TraitError(f"{where}: {name} is blank; expected a text; fill it in")
    return value.strip()


def _texts(value: Any, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TraitError(
            f"{where}: {name} is {_kind(value)}; expected a list of texts; write it as [one, two]"
        )
    if not value:
        raise TraitError(f"{where}: {name} is an empty list; expected at least one entry; add one")
    texts = tuple(
        _text(entry, f"entry {number} of {name}", where)
        for number, entry in enumerate(value, start=1)
    )
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise TraitError(
            f"{where}: {name} holds {twice} more than once; expected distinct entries; delete the"
            " copies"
        )
    return texts


def _kind(value: Any) -> str:
    return "empty" if value is None else f"{value!r:.60} ({type(value).__name__})"


def _choice(found: str, known: Sequence[str]) -> str:
    """What one may write instead: the nearest known word, then all of them."""
    near = get_close_matches(found, known, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"expected one of {', '.join(known)}"
