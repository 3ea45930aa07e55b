"""Parts of the content of a turn: text, reasoning, and calls of tools with their results."""

import re
from collections.abc import Iterable, Sequence
from itertools import filterfalse
from typing import Any

from traitscope.data.json_fields import keys_in, quoted, text_of, typed
from traitscope.data.shapes.marks import is_empty, number_of
from traitscope.errors import DataError

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"keys of reasoning beside an answer"
TEXT_TYPES = ("text", "input_text", "output_text")
PART_KEYS = ("text", "content")
"keys of the text of a part"
TEXTS_OF_PARTS = (*PART_KEYS, *REASONING_KEYS)
"keys at which any part may hold a text"
THOUGHT_TYPES = ("thinking", "reasoning", "reasoning_content")
THOUGHT_MARK = "thought"
"key of a part of Gemini that is true where the part is reasoning, also as 1 or as a text"
MEDIA_KEYS = re.compile(r"(input_|output_)?(image|audio|video|file)s?(_(url|id|bytes|path))?")
"keys of a part that hold no text, but what the text is about"
CALL_TYPES = ("tool_use", "tool_call", "function_call")
CALL_PART = "functionCall"
"key of a part of Gemini that is a call of a tool"
RESULT_TYPE, RESULT = "tool_result", "content"
"type of a part with the result of a tool, and the key of that result"


def parts_of(
    value: Any, name: str, not_used: set[str] | None = None, path: str = ""
) -> tuple[str | None, str]:
    """Text and reasoning of a content: a text, null, or a list of parts, which are joined.

    Calls of tools are left out (`calls_in`).

    not_used: Takes the names of keys of parts that are not read.
    path: What stands before these names.

    Raises DataError for a part that is no text, such as an image.
    """
    texts, thoughts = [], []
    for text, is_thought in _pieces(value, name, not_used, path):
        (thoughts if is_thought else texts).append(text)
    return "".join(texts) if texts else None, "\n".join(thoughts)


def thought_of(value: Any, name: str, not_used: set[str] | None = None, path: str = "") -> str:
    """All text of a content that is reasoning as a whole, whatever its parts are called.

    Parameters and errors are those of `parts_of`.
    """
    whole, was_thought = "", False
    for text, is_thought in _pieces(value, name, not_used, path):
        is_apart = whole and text and (is_thought or was_thought)
        whole += f"\n{text}" if is_apart else text
        was_thought = is_thought
    return whole


def one_thought(thoughts: Iterable[str]) -> str:
    """The reasoning of a turn that may stand at several places; empty where there is none.

    Raises DataError for several that differ in more than white space around them.
    """
    by_text = {}
    for thought in thoughts:
        if thought.strip():
            by_text.setdefault(thought.strip(), thought)
    if len(by_text) > 1:
        raise DataError(
            f"several reasoning parts that differ ({', '.join(REASONING_KEYS)}, or parts of the"
            " content); expected one; delete the others"
        )
    return next(iter(by_text.values()), "")


def _pieces(value: Any, name: str, not_used: set[str] | None, path: str) -> list[tuple[str, bool]]:
    """The texts of a content in order, each with whether it is reasoning; none of null."""
    if value is None:
        return []
    if isinstance(value, str):
        return [(text_of({name: value}, name), False)]
    if not isinstance(value, list):
        raise DataError(
            f"{name!r} is {quoted(value)}; expected a text or a list of parts; correct the row or"
            " delete it"
        )
    if len(value) > 1 and all(isinstance(part, str) for part in value):
        raise DataError(
            f"{name!r} is a list of {len(value)} texts; expected one text, or parts of it with a"
            " type; give each text a row of its own"
        )
    pieces = []
    not_used = set() if not_used is None else not_used
    for part in value:
        if isinstance(part, dict) and _is_call(part):
            for key in TEXTS_OF_PARTS:
                not_used.update([f"{path or name}[].{key} of calls"] if part.get(key) else [])
        else:
            pieces.append(_part(part, name, not_used, f"{path or name}[]"))
    return pieces


def with_text(parts: Sequence[Any], text: str) -> list[Any]:
    """The parts of a content with another text.

    The first part of text takes it, and further ones are left empty. All else stays as it is.
    """
    changed = []
    for part in parts:
        is_object = isinstance(part, dict)
        if _is_thought(part) or (is_object and (part.get("type") or "text") not in TEXT_TYPES):
            changed.append(part)
            continue
        keys = [key for key in PART_KEYS if is_object and part.get(key) is not None]
        changed.append({**part, **dict.fromkeys(keys, text)} if is_object else text)
        text = ""
    return changed


def without_thoughts(parts: Sequence[Any]) -> list[Any]:
    """The parts of a content without those of reasoning."""
    return list(filterfalse(_is_thought, parts))


def first_key(item: dict[str, Any], keys: tuple[str, ...]) -> str:
    """The first of the keys that an object has; the first of all where it has none.

    A null counts where all are null: tables write one for every key that an object has not.
    Raises DataError where it has several that differ.
    """
    there = [key for key in keys if item.get(key) is not None]
    there = there or [key for key in keys if key in item]
    if any(item[key] != item[there[0]] for key in there):
        raise DataError(
            f"a turn has {' and '.join(there)}, which differ; expected one of them; delete the"
            " others"
        )
    return there[0] if there else keys[0]


def thoughts_in(content: Any) -> list[Any]:
    """The parts of a content that are reasoning; none of one that is no list."""
    return list(filter(_is_thought, content if isinstance(content, list) else []))


def calls_in(content: Any) -> bool:
    """Whether a part of a content calls a tool."""
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, dict) and _is_call(part) for part in parts)


def results_in(content: Any) -> list[dict[str, Any]]:
    """The parts of a content that has nothing but results of tools; else none.

    Anthropic's chats have them in a turn of the user.
    """
    results = []
    for part in content if isinstance(content, list) else []:
        if not isinstance(part, dict) or part.get("type") != RESULT_TYPE:
            return []
        results.append(part)
    return results


def _is_call(part: dict[str, Any]) -> bool:
    return part.get("type") in CALL_TYPES or part.get(CALL_PART) is not None


def _is_thought(part: Any) -> bool:
    """Whether a part is reasoning. Raises DataError for a mark that says neither."""
    if not isinstance(part, dict):
        return False
    mark = part.get(THOUGHT_MARK)
    number = 0.0 if is_empty(mark) else number_of(mark)
    if number not in (0.0, 1.0):
        raise DataError(
            f"{THOUGHT_MARK!r} of a part is {quoted(mark)}; expected true or false, which say"
            " whether the part is reasoning; correct it or delete the part"
        )
    return part.get("type") in THOUGHT_TYPES or number == 1.0


def _part(part: Any, name: str, not_used: set[str], path: str) -> tuple[str, bool]:
    """The text of a part, and whether it is reasoning."""
    if isinstance(part, str):
        return text_of({name: part}, name), False
    part = typed(part, dict, f"a part of {name}")
    kind = part.get("type") or "text"
    is_thought = _is_thought(part)
    if not is_thought and kind not in TEXT_TYPES:
        raise DataError(
            f"a part of {name} is of the type {quoted(kind)}; expected text; delete the part or the"
            " row"
        )
    keys = (*REASONING_KEYS, "text") if is_thought else PART_KEYS
    if not part.keys() & set(keys):
        raise DataError(
            f"a part of {name} holds {keys_in(part)} and no text; expected text; delete the part"
            " or the row"
        )
    used = ("type", THOUGHT_MARK, *keys)
    for key in part:
        if key in used or part[key] is None:
            continue
        if MEDIA_KEYS.fullmatch(key):
            raise DataError(
                f"a part of {name} is a text with {key!r} beside it; expected text alone;"
                " delete the part or the row"
            )
        not_used.add(f"{path}.{key}")
    key = first_key(part, keys)
    if is_thought and isinstance(part[key], list):
        return thought_of(part[key], key, not_used, f"{path}.{key}"), True
    return text_of(part, key), is_thought
