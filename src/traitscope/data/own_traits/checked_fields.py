"""Checked values of trait files."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from traitscope.data.own_traits.word_scores import is_word
from traitscope.errors import TraitError
from traitscope.plain_values import shown


def check_keys(content: Any, required: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise TraitError unless a mapping has the required keys, and no unknown one."""
    if not isinstance(content, dict):
        raise TraitError(
            f"{where} holds {typed(content)}; expected the keys {', '.join(known)}; write key:"
            " value for each"
        )
    for key in content:
        if key not in known:
            raise TraitError(
                f"{where}: unknown key {key!r}; {choice(str(key), known)}; correct or delete it"
            )
    missing = [key for key in required if key not in content]
    if missing:
        raise TraitError(
            f"{where}: no {' and no '.join(missing)}; expected {', '.join(required)}; add what is"
            " missing"
        )


def text_of(value: Any, name: str, where: str) -> str:
    """Return a text without white space around it.  Raises TraitError for anything else."""
    if not isinstance(value, str):
        raise TraitError(
            f"{where}: {name} is {typed(value)}; expected a text; set it in quotes if it is meant"
            " as one"
        )
    if not value.strip():
        raise TraitError(f"{where}: {name} is blank; expected a text; fill it in")
    return value.strip()


def texts_of(value: Any, name: str, where: str) -> tuple[str, ...]:
    """Return distinct texts, one or more.  Raises TraitError for anything else."""
    if not isinstance(value, list):
        raise TraitError(
            f"{where}: {name} is {typed(value)}; expected a list of texts; write it as [one, two]"
        )
    if not value:
        raise TraitError(f"{where}: {name} is an empty list; expected at least one entry; add one")
    texts = []
    for number, entry in enumerate(value, start=1):
        texts.append(text_of(entry, f"entry {number} of {name}", where))
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise TraitError(
            f"{where}: {name} holds {twice} more than once; expected distinct entries; delete the"
            " copies"
        )
    return tuple(texts)


def words_of(value: Any, name: str, where: str) -> tuple[str, ...]:
    """Return distinct words.  Raises TraitError for one without a letter or a digit."""
    words = texts_of(value, name, where)
    for word in words:
        if not is_word(word):
            raise TraitError(
                f"{where}: {name} holds {word!r}, which no answer holds as a word; expected words"
                " with a letter or a digit; name others"
            )
    return words


def typed(value: Any) -> str:
    """Return a value with its type, for messages."""
    return "empty" if value is None else f"{shown(value)} ({type(value).__name__})"


def choice(word: str, known: Sequence[str]) -> str:
    """What one may write instead of an unknown word: the nearest known word, then all of them."""
    nearest = get_close_matches(word, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}expected one of {', '.join(known)}"
