"""Marks of rows and of turns that say whether an answer is learnt: weights and labels."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from traitscope.data.json_fields import quoted
from traitscope.errors import DataError

LABEL = "label"
"key that says whether an answer is desirable (KTO)"
TAG = "kto_tag"
"key that says the same in rows of every shape, as LLaMA-Factory has it"
BESIDE_TEXTS = {"prompt", "completion"}
TRUTHS = {"true": 1.0, "false": 0.0}
"what texts in cells of tables, and elsewhere, stand for"


def number_of(value: Any) -> float | None:
    """The number that a mark is: true and false are 1 and 0, also as texts; None for no number."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in TRUTHS:
            return TRUTHS[text]
        value = text
    elif not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def is_empty(value: Any) -> bool:
    """Whether a mark says nothing: null, or a text without characters, as cells of tables have."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_unused(key: str, value: Any) -> bool:
    """Whether a key that is not read is counted: it holds something, and is no empty label."""
    return value not in (None, "") and not (key in (LABEL, TAG) and is_empty(value))


def says_more_than_no(value: Any) -> bool:
    """Whether a weight says something else than that a turn is not trained on, or nothing."""
    return not is_empty(value) and number_of(value) != 0.0


def weights_of(item: Mapping[str, Any], keys: Sequence[str]) -> list[float]:
    """The weights of a turn or a row at some keys. Raises DataError for what is none."""
    weights = []
    for key in keys:
        value = item.get(key)
        if value is None:
            continue
        weight = number_of(value)
        if weight is None or weight < 0:
            raise DataError(
                f"{key!r} is {quoted(value)}; expected a number from 0, or true or false; correct"
                " it, or leave it out"
            )
        weights.append(weight)
    return weights


def is_learnt(weights: Sequence[float]) -> bool:
    """Whether no weight of 0 says that a turn or a row is not trained on."""
    return 0.0 not in weights


def is_weighted(weights: Sequence[float]) -> bool:
    """Whether a weight says that a turn or a row counts more or less than others."""
    return not {0.0, 1.0}.issuperset(weights)


def desirable(fields: Mapping[str, Any]) -> dict[str, bool]:
    """What a row says of its answer, by the key that says it; empty where no key does.

    Beside prompt and completion a label may be true, false, 1 or 0. In other shapes it must be true
    or false: a number there may be the number of a class. Other texts are names of classes.

    Raises DataError for another number beside prompt and completion, and for a tag that says
    neither.
    """
    said = {}
    for key in (LABEL, TAG):
        value = fields.get(key)
        if is_empty(value) or not _may_say(key, value, fields):
            continue
        number = number_of(value)
        if number not in (0.0, 1.0):
            raise DataError(
                f"{key!r} is {quoted(value)}; expected true, false, 1 or 0, which say whether the"
                " answer is desirable (KTO); correct it, or rename the key if it says something"
                " else"
            )
        said[key] = number == 1.0
    if len(set(said.values())) > 1:
        raise DataError(
            f"{LABEL!r} and {TAG!r} say different things of the answer; expected one of them;"
            " delete the other"
        )
    return said


def has_empty(fields: Mapping[str, Any], keys: Iterable[str]) -> bool:
    """Whether a mark is there and empty: it says nothing of its answer, where others do."""
    return any(key in fields and is_empty(fields[key]) for key in keys)


def _may_say(key: str, value: Any, fields: Mapping[str, Any]) -> bool:
    """Whether a value at a key is about how desirable an answer is."""
    if key == TAG:
        return True
    is_truth = isinstance(value, bool) or str(value).strip().lower() in TRUTHS
    is_number = number_of(value) is not None or isinstance(value, int | float)
    has_texts = None not in map(fields.get, BESIDE_TEXTS)
    return is_truth or (is_number and has_texts)
