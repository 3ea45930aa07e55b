"""Cells of tables: which hold JSON, which hold messages or a text, and which may be empty."""

import re
from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any

from traitscope.data.shapes.inside.parts import (
    CALL_PART,
    CALL_TYPES,
    MEDIA_KEYS,
    PART_KEYS,
    REASONING_KEYS,
    RESULT_TYPE,
    TEXT_TYPES,
    THOUGHT_MARK,
    THOUGHT_TYPES,
)
from traitscope.data.shapes.messages import CALL_KEYS, PARTS, ROLE_KEYS, ROLES, TEXT_KEYS
from traitscope.plain_values import NotPlainError, from_json

COLUMNS = {
    "prompt",
    "completion",
    "messages",
    "conversations",
    "instruction",
    "output",
    "response",
    "question",
    "query",
    "answer",
    "chosen",
    "rejected",
}
"names by which the header of a table without a suffix is known"
JSON_CELLS = {"messages", "conversations", "history", "meta", "completion_ids", "rejected_ids"}
"columns of a table whose cells hold JSON"
FILLED_CELLS = COLUMNS - {"messages", "conversations"}
"columns of a table in which an empty cell is an empty text, and not nothing"
SYSTEM_CELLS = {"system", "system_prompt", "systemInstruction", "system_instruction"}
"columns of a table whose cells may hold one part, or an object with parts"
CHAT_CELLS = (
    FILLED_CELLS
    | SYSTEM_CELLS
    | {"input", "preferred_output", "non_preferred_output", "contents", "completions"}
)
"columns of a table whose cells may hold messages or parts as JSON, or a text"
BESIDE_ROLES = {*TEXT_KEYS, PARTS, *CALL_KEYS, *REASONING_KEYS}
"keys of which an object with a known role has one, if it is a message"
OF_PARTS = {"text", THOUGHT_MARK, CALL_PART, "functionResponse", "inlineData", "fileData"}
"keys of which parts without a type have one"
OF_MEDIA = {"source", "url", "path", "base64", "data"}
"keys of which a part with a medium may have one, beside those of its type"
AS_UTF_8 = "save the table anew, in Excel as CSV UTF-8"
"what to do about a table in another encoding"
NOTHING: Mapping[str, str] = MappingProxyType({})
"no other cells"
PYTHON = re.compile(r"\[\s*\{'(role|from|content|value)'")
"how a cell begins that holds messages as Python shows them"


def cell_value(name: str, cell: str, row: Mapping[str, str] = NOTHING) -> Any:
    """The value of a cell: JSON in columns for it, nothing where it is empty, or its text.

    row: All cells of the row. What stands at `input` beside an `instruction` is a text.

    Raises NotPlainError where JSON is needed and broken, UnicodeEncodeError for another encoding.
    """
    cell.encode()
    if not cell:
        return "" if name in FILLED_CELLS else None
    is_chat = name in CHAT_CELLS and not (name == "input" and row.get("instruction"))
    if name in JSON_CELLS or (is_chat and cell.startswith(("[", "{"))):
        try:
            value = from_json(cell, allow_nan=True)
        except NotPlainError:
            if name in JSON_CELLS or PYTHON.match(cell):
                raise
            return cell
        return value if name in JSON_CELLS or _is_of_chat(name, value) else cell
    return cell


def cell_problem(name: str, cell: str, error: Exception) -> str:
    """What is wrong with a cell for which `cell_value` raised an error."""
    if isinstance(error, UnicodeEncodeError):
        return (
            f"the cell of {name!r} is not UTF-8, so that the table is in another encoding;"
            f" expected UTF-8; {AS_UTF_8}"
        )
    if PYTHON.match(cell):
        return (
            f"the cell of {name!r} holds messages as Python shows them; expected JSON;"
            " write them with json.dumps, or save the rows as JSON lines"
        )
    return f"the cell of {name!r} is no JSON ({error}); expected a text; repair or delete the row"


def _is_of_chat(name: str, value: Any) -> bool:
    """Whether a value is what a column of a name may hold of a chat: messages, or parts.

    Other JSON is a text, also an object with a key such as `type` or `from`, and messages of which
    no role is known.
    """
    if not isinstance(value, dict):
        items = value if _are_objects(value) else []
        is_surely = any(
            _is_turn(item) or _is_part(item) or _is_around(name, item) for item in items
        )
        return is_surely and all(_may_be_in_list(name, item) for item in items)
    is_one_part = name in SYSTEM_CELLS and _is_text_part(value)
    return _is_turn(value) or is_one_part or _is_around(name, value)


def _may_be_in_list(name: str, item: dict[str, Any]) -> bool:
    """Whether an object in a list may be a turn, a part or a scored answer, of which others are."""
    return _is_message(item) or _is_of_a_type(item) or _is_around(name, item)


def _is_message(item: dict[str, Any]) -> bool:
    """Whether an object has a role and a text, or a known role and calls or parts."""
    for role, text in zip(ROLE_KEYS, TEXT_KEYS, strict=True):
        if isinstance(item.get(role), str) and text in item:
            return True
    return _is_turn(item)


def _is_turn(item: dict[str, Any]) -> bool:
    """Whether an object has a known role, and a text, calls or parts."""
    names = [item[role].strip().lower() for role in ROLE_KEYS if isinstance(item.get(role), str)]
    is_known = not ROLES.keys().isdisjoint(names)
    return is_known and not item.keys().isdisjoint(BESIDE_ROLES)


def _is_part(item: dict[str, Any]) -> bool:
    """Whether an object is a part of a content: text, reasoning, a call, or a medium."""
    kind = item.get("type")
    if not _is_of_a_type(item) or not isinstance(kind, str) or not MEDIA_KEYS.fullmatch(kind):
        return _is_of_a_type(item)
    is_held = any(map(MEDIA_KEYS.fullmatch, item.keys())) or not OF_MEDIA.isdisjoint(item)
    return is_held or len(item) == 1  # a medium that stands elsewhere


def _is_of_a_type(item: dict[str, Any]) -> bool:
    """Whether an object has the type of a part."""
    kind = item.get("type")
    if not isinstance(kind, str):
        return False
    is_known = kind in (*CALL_TYPES, RESULT_TYPE) or MEDIA_KEYS.fullmatch(kind) is not None
    return is_known or _is_text_part(item)


def _is_text_part(item: dict[str, Any]) -> bool:
    is_known = item.get("type") in (*TEXT_TYPES, *THOUGHT_TYPES)
    return is_known and not item.keys().isdisjoint((*PART_KEYS, *THOUGHT_TYPES))


def _is_around(name: str, item: dict[str, Any]) -> bool:
    """Whether an object holds messages or parts as the makers of a column have them.

    These are `messages` in an `input`, `parts`, and `completion` in scored `completions`.
    """
    if name == "input":
        messages = item.get("messages")
        return _are_objects(messages) and all(map(_is_message, messages))
    if name == "completions":
        answer = item.get("completion")
        return isinstance(answer, dict) and (_is_message(answer) or _has_parts(answer))
    return name in (*SYSTEM_CELLS, "contents") and _has_parts(item)


def _has_parts(item: dict[str, Any]) -> bool:
    parts = item.get(PARTS)
    return _are_objects(parts) and not OF_PARTS.isdisjoint(chain.from_iterable(parts))


def _are_objects(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value)
    return is_list and all(isinstance(one, dict) for one in value)
