"""What a flag's value should have been, in words: the parser of the terminal speaks of types."""

import dataclasses
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from traitscope.config.fields import flag_of
from traitscope.config.parsing import WORDS

UNFIT = re.compile(r"Error parsing (--[^:\s]+):|invalid choice .* for argument '(--[^']+)'")
"how the parser begins what it says of a value that does not fit"
SEVERAL: dict[Any, str] = {int: "whole numbers", float: "numbers"}
"what several values of a type are called"


def explained(said: str, config_types: Sequence[type], words: Sequence[str]) -> str:
    """The parser's sentence on a value that does not fit, with what was expected in words.

    said: The sentence.
    config_types: The settings that the words may set.
    words: What was typed behind the command's name.
    Returns an empty text where the parser says something else.
    """
    match = UNFIT.match(said)
    hints: dict[str, Any] = {}
    for config_type in config_types:
        hints.update(_hints(config_type))
    flag = (match[1] or match[2]) if match else ""
    if flag not in hints:
        return ""
    kinds, is_list = _kinds(hints[flag])
    wrong = [text for text in _values(flag, words) if not _fits(text, kinds)]
    if not wrong:
        return ""
    names: list[str] = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            names += map(str, get_args(kind))
    near = get_close_matches(wrong[0], names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    said_of = [(SEVERAL if is_list else WORDS)[kind] for kind in kinds if kind in SEVERAL]
    verb = "holds" if is_list else "is"
    return f"{flag} {verb} {wrong[0]!r}; {hint}expected {_or([*said_of, *names])}"


def _hints(config_type: type) -> dict[str, Any]:
    """The types of settings by flag, nested settings too."""
    hints: dict[str, Any] = {}
    types = get_type_hints(config_type)
    for field in dataclasses.fields(config_type):
        hint = types[field.name]
        if dataclasses.is_dataclass(hint):
            hints.update(_hints(hint))  # type: ignore[arg-type]
            continue
        for name in (field.name, field.metadata.get("alias") or field.name):
            hints[flag_of(name)] = hint
    return hints


def _kinds(hint: Any) -> tuple[list[Any], bool]:
    """The types that a value may have, without None, and whether a flag takes several values."""
    if get_origin(hint) is tuple:
        return [get_args(hint)[0]], True
    if get_origin(hint) is Literal or not get_args(hint):
        return [hint], False
    return [kind for kind in get_args(hint) if kind is not type(None)], False


def _values(flag: str, words: Sequence[str]) -> list[str]:
    """The words that belong to a flag, each time that it is named."""
    values: list[str] = []
    is_behind = False
    for word in words:
        if word.startswith("--"):
            name, sign, value = word.partition("=")
            is_behind = name.replace("_", "-") == flag
            if is_behind and sign:
                values.append(value)
        elif is_behind:
            values.append(word)
    return values


def _fits(text: str, kinds: Sequence[Any]) -> bool:
    """Whether a word is a value of one of the types."""
    for kind in kinds:
        if get_origin(kind) is Literal:
            if text in map(str, get_args(kind)):
                return True
            continue
        try:
            kind(text)
        except ValueError:
            continue
        return True
    return False


def _or(names: Sequence[str]) -> str:
    """Names as a list that ends in `or`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
