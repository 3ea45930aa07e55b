"""Keys that stand for the fields of a row: those that --map names, and those of pairs of makers."""

import re
from collections.abc import Mapping
from typing import Any

from traitscope.data.json_fields import keys_in
from traitscope.data.shapes.containers import RawRow
from traitscope.data.shapes.inside.cells import cell_problem, cell_value
from traitscope.data.shapes.marks import LABEL, TAG
from traitscope.data.shapes.messages import ROW_WEIGHT_KEYS, Place
from traitscope.data.shapes.rows import HISTORY, SYSTEM_KEYS, Row
from traitscope.errors import DataError
from traitscope.plain_values import NotPlainError

BESIDE_MAPPED = (*SYSTEM_KEYS, *ROW_WEIGHT_KEYS, LABEL, TAG, HISTORY)
"keys that are read as in every shape where --map names others"
OF_OPENAI = {"input", "preferred_output", "non_preferred_output"}
"keys of a pair for the fine-tuning of OpenAI and of those who take its format"
MOST_DIGITS = 10
"digits of a number between dots that names no element of a list any more"
SCORE = re.compile(r"completions\.[01]\.score")


def pair_names(row: Row) -> dict[str, str]:
    """The keys that stand for prompt and answers in a pair of some makers; none of other rows.

    Raises DataError for a pair of Gemini of which no answer, or each, has the higher score.
    """
    if None not in map(row.get, OF_OPENAI):
        inner = row["input"]
        prompt = "input.messages" if isinstance(inner, dict) and "messages" in inner else "input"
        names = (prompt, "preferred_output", "non_preferred_output")
    elif row.get("contents") is not None and _are_answers(row.get("completions")):
        best = _best_of_two(row["completions"])
        names = (
            "contents",
            f"completions.{best}.completion",
            f"completions.{1 - best}.completion",
        )
    else:
        return {}
    named = dict(zip(("prompt", "completion", "rejected"), names, strict=True))
    return {**named, "id": "id"} if "id" in row else named


def without_scores(others: Row) -> Row:
    """The other keys of a pair of Gemini, without the scores that `pair_names` reads."""
    return {key: value for key, value in others.items() if not SCORE.fullmatch(key)}


def _are_answers(value: Any) -> bool:
    """Whether a value is a list of answers as Gemini's pairs have them."""
    is_list = isinstance(value, list)
    return is_list and all(isinstance(item, dict) and "completion" in item for item in value)


def _best_of_two(answers: list[Row]) -> int:
    """The number of the answer with the higher score."""
    scores = []
    for answer in answers:
        score = answer.get("score")
        scores.append(score if isinstance(score, int | float) else None)
    if len(scores) != 2 or None in scores or scores[0] == scores[1]:
        raise DataError(
            f"'completions' beside 'contents' has the scores {scores}; expected two answers, of"
            " which one has the higher score; write a row for each pair"
        )
    return int(scores[1] > scores[0])


def mapped(row: Row, names: Mapping[str, str]) -> tuple[Row, Row]:
    """The fields that keys of a row stand for, and the other keys with their values.

    A dot leads into an object or a list; what stands beside a value there is another key. Marks,
    system turns and earlier turns stand for themselves where nothing else is named for them.
    Raises DataError for a key that is not there.
    """
    fields: Row = {}
    used = {path_of(row, key) for key in names.values()}
    for field, key in names.items():
        fields[field] = row
        for step in path_of(row, key):
            fields[field] = _inside(fields[field], step, key, row)
    others, named = _beside(row, used), {path[0] for path in used}
    for key in BESIDE_MAPPED:
        is_context = key in SYSTEM_KEYS and "context" in names
        if key in others and key not in named and not is_context:
            fields[key] = others.pop(key)
    if fields.get("context") == "":  # none, as in tables
        del fields["context"]
    context = fields.get("context")
    is_parts = isinstance(context, list | dict)
    if is_parts or str(context).startswith("@"):  # only rows of this package hold forms
        fields["system"] = fields.pop("context")
    return fields, others


def with_cells(row: RawRow, names: Mapping[str, str]) -> RawRow:
    """A row; cells of a table under names of --map are read as those of what they stand for.

    Raises DataError for a cell that must hold JSON and does not.
    """
    if not row.is_table or not names:
        return row
    cells = dict(row.fields)
    for field, key in names.items():
        cell = cells.get(key)
        if isinstance(cell, str) and cell:
            try:
                cells[key] = cell_value("system" if field == "context" else field, cell)
            except NotPlainError as error:
                raise DataError(cell_problem(key, cell, error)) from None
    return row._replace(fields=cells)


def _beside(value: Any, used: set[Place], at: Place = ()) -> Row:
    """What an object or a list holds beside the values at some places; names have dots."""
    others = {}
    for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
        place = (*at, step)
        if place not in used and any(path[: len(place)] == place for path in used):
            others |= _beside(inner, used, place)
        elif place not in used:
            others[".".join(map(str, place))] = inner
    return others


def path_of(row: Row, key: str) -> Place:
    """The way to a value: a key as it stands, or parts between dots."""
    if key in row or "." not in key:
        return (key,)
    parts: list[str | int] = []
    for part in key.split("."):
        is_number = part.isascii() and part.isdecimal() and len(part) < MOST_DIGITS
        parts.append(int(part) if is_number else part)
    return tuple(parts)


def _inside(value: Any, step: str | int, key: str, row: Row) -> Any:
    is_there = isinstance(value, dict) and step in value
    if isinstance(value, list) and isinstance(step, int):
        is_there = step < len(value)
    if not is_there:
        raise DataError(
            f"no {key!r} among the keys {keys_in(row)}; expected it, because --map names it; name"
            " another key or delete the row"
        )
    return value[step]
