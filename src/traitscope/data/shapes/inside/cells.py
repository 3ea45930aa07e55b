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
CHAT_CELLS = FILLED_CELLS | {
    "input",
    "preferred_output",
    "non_preferred_output",
    "contents",
    "completions",
    "system",
    "systemInstruction",
    "system_instruction",
}
"columns of a table whose cells may hold messages or parts as JSON, or a text"
BESIDE_ROLES = {*TEXT_KEYS, PARTS, *CALL_KEYS, *REASONING_KEYS}
"keys of which an object with a known role has one, if it is a message"
OF_PARTS = {"text", THOUGHT_MARK, CALL_PART, "functionResponse", "inlineData", "fileData"}
"keys of which parts without a type have one"
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
        return value if name in JSON_CELLS or _is_of_chat(value) else cell
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


def _is_of_chat(value: Any) -> bool:
    """Whether a value is a message, or a list of messages or of parts, or holds them as makers do.

    Other JSON is a text, also an object with a key such as `type` or `from`.
    """
    if isinstance(value, dict):
        return _is_message(value) or _is_text_part(value) or _is_around(value)
    return isinstance(value, list) and bool(value) and all(map(_is_of_list, value))


def _is_of_list(item: Any) -> bool:
    """Whether a list of such objects is a chat, a content or scored answers."""
    is_object = isinstance(item, dict)
    return is_object and (_is_message(item) or _is_part(item) or _is_around(item))


def _is_message(item: dict[str, Any]) -> bool:
    """Whether an object has a role and a text, or a known role and calls or parts."""
    for role, text in zip(ROLE_KEYS, TEXT_KEYS, strict=True):
        name = item.get(role)
        if not isinstance(name, str):
            continue
        is_known = name.strip().lower() in ROLES
        if text in item or (is_known and not item.keys().isdisjoint(BESIDE_ROLES)):
            return True
    return False


def _is_part(item: dict[str, Any]) -> bool:
    """Whether an object is a part of a content: text, reasoning, a call, or a medium."""
    kind = item.get("type")
    if not isinstance(kind, str):
        return False
    is_known = kind in (*CALL_TYPES, RESULT_TYPE) or MEDIA_KEYS.fullmatch(kind) is not None
    return is_known or _is_text_part(item)


def _is_text_part(item: dict[str, Any]) -> bool:
    is_known = item.get("type") in (*TEXT_TYPES, *THOUGHT_TYPES)
    return is_known and not item.keys().isdisjoint((*PART_KEYS, *THOUGHT_TYPES))


def _is_around(item: dict[str, Any]) -> bool:
    """Whether an object holds messages or parts: `messages`, `parts`, or a scored `completion`."""
    answer, messages, parts = item.get("completion"), item.get("messages"), item.get(PARTS)
    if _are_objects(messages):
        return all(map(_is_message, messages))
    if _are_objects(parts):
        return not OF_PARTS.isdisjoint(chain.from_iterable(parts))
    return isinstance(answer, dict) and (_is_message(answer) or _is_around(answer))


def _are_objects(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value)
    return is_list and all(isinstance(one, dict) for one in value)
