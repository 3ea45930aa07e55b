"""Plain values from YAML and JSON that somebody else wrote, with one error for what is wrong."""

import datetime
import json
import math
import re
import secrets
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any

SURROGATE = "\\ud"
"how half of a surrogate pair begins in JSON, in lower case"
MOST_VALUES = 100_000
"values that a YAML text may hold; an alias counts as all that it stands for"
MERGE = "tag:yaml.org,2002:merge"
"tag of the key <<, which may stand several times"
DEEPEST = 100
"levels of lists and dictionaries inside of each other"
MOST_BITS = 14_000
"bits of an integer of about 4,200 digits; Python writes out no more than 4,300"
LONG_NUMBER = re.compile(r"[0-9][0-9.]{15}|[0-9][eE][+-]?[0-9]")
"what stands in JSON where a number may have more digits than a float holds"
MARK = f"number {secrets.token_hex(16)} "
"stands before the place of a number that JSON would not write as it was; in no file"
MOST_SHOWN = 80
"characters of a value that a message shows"


class NotPlainError(ValueError):
    """A text that holds no plain values; the message says why, on one line."""


def from_yaml(text: str, dates: bool = False) -> Any:
    """Texts, numbers, booleans, None, and lists and dictionaries of them, from YAML.

    Raises NotPlainError for everything else: broken YAML, dates, tags that do not fit, and keys
    that stand twice.

    dates: Read dates, too, which the cards of data sets have.
    """
    import yaml

    try:
        value = yaml.load(text, Loader=_loader())
        _check_plain(value, dates)
    except NotPlainError:
        raise
    except RecursionError:
        raise NotPlainError("it is nested too deep") from None
    except AttributeError:  # of a !!timestamp that is none; what Python says of it helps nobody
        raise NotPlainError("a tag, such as !!timestamp, does not fit its value") from None
    except (LookupError, TypeError) as error:
        raise NotPlainError(f"a tag, such as !!bool, does not fit its value ({error})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise NotPlainError(_said_of_yaml(error)) from None
    return value


def _said_of_yaml(error: Any) -> str:
    """What a reader of YAML found wrong, with its line where it says one."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    begun = getattr(error, "context_mark", None)
    since = "" if begun is None else f", {error.context} from line {begun.line + 1} on"
    return f"line {mark.line + 1}: {problem}{since}"


class LongNumber(float):
    """A number of JSON with more digits than a float holds."""

    text: str
    """The number as it was written."""


def as_written(text: str) -> float:
    """A number of JSON that is no integer; its text is kept where a float does not hold it."""
    number = float(text)
    try:
        if not math.isfinite(number) or Decimal(repr(number)) == Decimal(text):
            return number
    except ArithmeticError:  # an exponent beyond those of decimals
        pass
    long = LongNumber(number)
    long.text = text
    return long


CONSTANTS = {"true": "true", "false": "false", "null": "null", "none": "null"}
"the constants of JSON by what people write in their place, in small letters"


def constant_meant(text: str) -> str | None:
    """The constant of JSON that a text such as False or None spells; None where it spells none."""
    return CONSTANTS.get(text.strip().lower())


def from_json(text: str | bytes, allow_nan: bool = False) -> Any:
    """A JSON value. Raises NotPlainError for broken JSON, and for text that UTF-8 cannot hold.

    Keys that stand twice are refused, because JSON readers take the last one without a word.

    allow_nan: Read NaN and Infinity, which JSON does not have. Rows of data have them; of these,
    numbers that a float does not hold are LongNumber, too.
    """
    constant = None if allow_nan else _refuse_constant
    reader: dict[str, Any] = {}
    if allow_nan and isinstance(text, str) and LONG_NUMBER.search(text):
        reader["parse_float"] = as_written
    try:
        value = json.loads(
            text, parse_constant=constant, object_pairs_hook=_without_repeats, **reader
        )
    except RecursionError:
        raise NotPlainError("it is nested too deep") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise NotPlainError(" ".join(str(error).split())) from None
    _check_depth(text, value)
    lowered = text.lower()
    if isinstance(lowered, bytes) and SURROGATE.encode() in lowered:
        _check_encodable(value)
    elif isinstance(lowered, str) and SURROGATE in lowered:
        _check_encodable(value)
    return value


def to_json(value: Any, allow_nan: bool = False) -> str:
    """A value as JSON on one line; numbers that a float does not hold are written as they were.

    allow_nan: Write NaN and Infinity, which JSON does not have. Raises ValueError for them without.
    """
    numbers: list[str] = []
    marked = _marked(value, numbers)
    text = json.dumps(marked, ensure_ascii=False, allow_nan=allow_nan)
    for place, number in enumerate(numbers):
        text = text.replace(f'"{MARK}{place}"', number)
    return text


def _marked(value: Any, numbers: list[str]) -> Any:
    """A value with marks in the place of long numbers, whose texts are added to `numbers`."""
    if isinstance(value, LongNumber):
        numbers.append(value.text)
        return f"{MARK}{len(numbers) - 1}"
    if isinstance(value, dict):
        return {key: _marked(held, numbers) for key, held in value.items()}
    if isinstance(value, list):
        return [_marked(held, numbers) for held in value]
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its keys and values."""
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"the key {key[:MOST_SHOWN]!r} stands twice")
        seen.add(key)
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


@cache
def _loader() -> Any:
    """A loader of plain YAML that refuses keys that stand twice, of which YAML would take the last.

    It also refuses what `<<` would merge into too many values.
    """
    try:
        from yaml import CSafeLoader as SafeLoader  # ten times as fast; needs libyaml
    except ImportError:
        from yaml import SafeLoader  # type: ignore[assignment]

    class Loader(SafeLoader):  # type: ignore[misc, valid-type]
        def flatten_mapping(self, node: Any) -> None:
            if not hasattr(node, "own_keys_are_checked"):  # later, merged keys are among them
                _check_keys(node)
                node.own_keys_are_checked = True
            super().flatten_mapping(node)
            _check_count(len(node.value))

    return Loader


def _check_keys(mapping: Any) -> None:
    """Raise NotPlainError for a key that a mapping of YAML has twice."""
    seen = set()
    for key, _ in mapping.value:
        if not isinstance(key.value, str) or key.tag == MERGE:
            continue
        if (key.tag, key.value) in seen:
            line = key.start_mark.line + 1
            raise NotPlainError(f"the key {shown(key.value)} stands twice, again in line {line}")
        seen.add((key.tag, key.value))


def _check_depth(text: str | bytes, value: Any) -> None:
    """Raise NotPlainError for JSON that is nested too deep; most texts have too few brackets."""
    if isinstance(text, bytes):
        brackets = text.count(b"[") + text.count(b"{")
    else:
        brackets = text.count("[") + text.count("{")
    if brackets > DEEPEST:
        for _, depth in _values_in(value):
            _check_level(depth)


def _values_in(value: Any) -> Iterator[tuple[Any, int]]:
    """Every value in lists and dictionaries, its own included, and how deep it lies."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        yield item, depth
        inner: list[Any] = []
        if isinstance(item, dict):
            inner = [*item.keys(), *item.values()]
        elif isinstance(item, list):
            inner = item
        waiting += [(part, depth + 1) for part in inner]


def _check_plain(value: Any, dates: bool) -> None:
    """Raise NotPlainError for a date, a set or bytes, which YAML has and JSON has not.

    Also for integers too long to be written out, and for too many values.
    """
    for count, (item, depth) in enumerate(_values_in(value), 1):
        _check_count(count)
        _check_level(depth)
        is_date = dates and isinstance(item, datetime.date)
        if not isinstance(item, dict | list) and not is_date:
            _check_scalar(item)


def _check_level(depth: int) -> None:
    if depth > DEEPEST:
        raise NotPlainError("it is nested too deep")


def _check_scalar(value: Any) -> None:
    if isinstance(value, datetime.date):
        raise NotPlainError(f"{value} is a date; put it in quotes")
    if not isinstance(value, str | int | float | None):
        raise NotPlainError(f"{shown(value)} is a {type(value).__name__}, no text and no number")
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise NotPlainError("an integer has more than 4,000 digits")


def _check_count(count: int) -> None:
    if count > MOST_VALUES:
        raise NotPlainError(f"it stands for more than {MOST_VALUES} values, each alias unfolded")


def shown(value: Any) -> str:
    """How a message shows a value: as Python writes it, cut to MOST_SHOWN characters."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _check_encodable(value: Any) -> None:
    """Raise NotPlainError for text with half of a surrogate pair, which UTF-8 cannot hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise NotPlainError(
            f"the text {half!r} is half of a character, which UTF-8 cannot hold"
        ) from None
