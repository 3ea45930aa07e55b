"""Cells of tables: which hold JSON, which hold messages or a text, and which may be empty."""

import re
from typing import Any

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
OF_CHATS = {"role", "from", "type", "messages", "parts", "completion"}
"keys of which objects in such cells have one; others are a text that is JSON"
PYTHON = re.compile(r"\[\s*\{'(role|from|content|value)'")
"how a cell begins that holds messages as Python shows them"


def cell_value(name: str, cell: str) -> Any:
    """The value of a cell: JSON in columns for it, nothing where it is empty, or its text."""
    cell.encode()
    if not cell:
        return "" if name in FILLED_CELLS else None
    if name in JSON_CELLS or (name in CHAT_CELLS and cell.startswith(("[", "{"))):
        try:
            value = from_json(cell, allow_nan=True)
        except NotPlainError:
            if name in JSON_CELLS or PYTHON.match(cell):
                raise
            return cell
        return value if name in JSON_CELLS or _is_of_chat(value) else cell
    return cell


def _is_of_chat(value: Any) -> bool:
    """Whether a value is a message, or a list of messages or of parts."""
    objects = value if isinstance(value, list) else [value]
    are_of_chat = (isinstance(item, dict) and bool(OF_CHATS & item.keys()) for item in objects)
    return bool(objects) and all(are_of_chat)
