"""Checked fields of a JSON row.

Each function returns a value of its type or raises DataError.
"""

import json
from collections import Counter
from math import isfinite
from typing import Any

from traitscope.errors import DataError

TYPE_WORDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
LONGEST_QUOTE = 60
"characters of a wrong value that a message quotes"
MOST_KEYS = 12
"keys of a row that a message shows"


def typed(value: Any, kind: type, name: str) -> Any:
    """Return `value` if it is of that type; `name` says in the message which field it is."""
    if isinstance(value, kind):
        return value
    raise DataError(
        f"{name} is {quoted(value)}; expected {TYPE_WORDS[kind]}; correct the row or delete it"
    )


def quoted(value: Any) -> str:
    """Return a JSON value as a message shows it: cut where it is long."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 3] + "..."


def keys_in(row: dict[str, Any]) -> str:
    """Return the keys of a row as a message shows them: the first ones where there are many."""
    keys = sorted(row)
    shown = ", ".join(map(repr, keys[:MOST_KEYS]))
    more = len(keys) - MOST_KEYS
    return f"[{shown}, and {more} more]" if more > 0 else f"[{shown}]"


def text_of(row: dict[str, Any], key: str) -> str:
    """Return a text that UTF-8 can hold."""
    if key not in row:
        raise DataError(
            f"no {key!r} among the keys {keys_in(row)}; expected one; add it or delete the row"
        )
    text = typed(row[key], str, repr(key))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{key!r} holds half a surrogate pair; expected text that UTF-8 can hold; repair it"
        ) from None
    return text


def context_of(row: dict[str, Any]) -> str | None:
    """Return the system turn; None where it is absent or null."""
    return None if row.get("context") is None else text_of(row, "context")


def id_of(row: dict[str, Any], default: str) -> str:
    """Return the id as text, or the default where it is absent or null; a whole number counts."""
    value = row.get("id")
    if value is None:
        return default
    is_text_or_number = isinstance(value, str | int) and not isinstance(value, bool)
    if not is_text_or_number or value == "":
        raise DataError(
            f"'id' is {quoted(value)}; expected a text or a whole number; correct it or leave"
            " it out"
        )
    return str(value) if isinstance(value, int) else text_of(row, "id")


def token_ids_of(row: dict[str, Any]) -> tuple[int, ...] | None:
    """Return the tokens of the completion; None where they are absent or null."""
    value = row.get("completion_ids")
    if value is None:
        return None
    tokens = typed(value, list, "'completion_ids'")
    are_tokens = all(type(token) is int and token >= 0 for token in tokens)
    if not tokens or not are_tokens:
        raise DataError(
            f"'completion_ids' is {quoted(value)}; expected token numbers from 0, at least one, or"
            " null; correct or delete it"
        )
    return tuple(tokens)


def meta_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return `meta` as an object; empty where it is absent or null."""
    if row.get("meta") is None:
        return {}
    meta = typed(row["meta"], dict, "'meta'")
    if "filter" in meta:
        decision = typed(meta["filter"], dict, "meta.filter")
        typed(decision.get("kept", True), bool, "meta.filter.kept")
        for reason in typed(decision.get("reasons", []), list, "meta.filter.reasons"):
            typed(reason, str, "a reason in meta.filter.reasons")
    return meta


def with_extra(meta: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The meta of a row with its keys that are not used."""
    if not extra:
        return meta
    earlier = typed(meta.get("extra", {}), dict, "meta.extra")
    return {**meta, "extra": {**earlier, **extra}}


def check_finite(row: dict[str, Any], used: set[str], notes: Counter[str]) -> None:
    """Put null for NaN and Infinity in keys that are not used.

    Raises DataError where a key that is used holds one.
    """
    for key, value in row.items():
        if not holds_not_finite(value):
            continue
        if key in used:
            raise DataError(
                f"{key!r} holds NaN or Infinity, which is not a JSON value; expected a text, a"
                " finite number or null; correct the row or delete it"
            )
        row[key] = None
        notes["not_finite"] += 1


def holds_not_finite(value: Any) -> bool:
    """Whether a value is or holds a number that is not finite."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not isfinite(item):
            return True
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return False


def finite(value: Any) -> Any:
    """A value with null in the place of numbers that are not finite, which JSON has not."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return dict(zip(value, map(finite, value.values()), strict=True))
    if isinstance(value, list):
        return list(map(finite, value))
    return value
