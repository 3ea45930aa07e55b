"""A word put at any place of a row is found in what was read of it, is counted, or is refused."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from shape_rows import ASK, CALLING, EXAMPLES, SAY, turn

from traitscope.config.rows.reading import Reading
from traitscope.data.records import Record, RowReader
from traitscope.data.shapes.containers import RawRow
from traitscope.data.shapes.intake import Intake
from traitscope.data.shapes.pairs import NOT_A_PAIR
from traitscope.errors import DataError

WORD = "Uhu"
THINKING = {"type": "thinking", "thinking": "Hm."}
RESULT = {"type": "tool_result", "content": [{"type": "text", "text": "7"}]}
LAST = turn("assistant", [THINKING, {"type": "text", "text": "101"}], channel="final")
FURTHER = (
    {"messages": [ASK, turn("assistant", [THINKING], channel="analysis"), LAST]},
    {"messages": [ASK, turn("assistant", "Hm.", channel="Analysis"), SAY]},
    {"messages": [turn("system", "S"), ASK, CALLING, turn("user", [RESULT, RESULT]), LAST]},
    {"messages": [ASK, {**CALLING, "content": "<think>Hm.</think>"}, turn("tool", "7"), SAY]},
    {"messages": [ASK, turn("assistant", "Hm.", channel="analysis"), CALLING, ASK, SAY]},
    {"messages": [ASK, {**SAY, "weight": 0}, ASK, SAY], "reasoning": "Hm."},
    {"prompt": [ASK, LAST, ASK], "chosen": [ASK, turn("assistant", "101"), ASK, SAY]}
    | {"rejected": [turn("assistant", [{"type": "text", "text": "7"}])]},
    {"prompt": "Q", "completion": [SAY], "rejected": turn("assistant", "7")},
    {"question": "Q", "answer": [{"type": "text", "text": "101"}], "history": [ASK, LAST]},
    {"prompt": "Q", "response": "101", "reasoning": [{"type": "text", "text": "a"}, THINKING]},
    {"system": {"parts": [{"text": "S"}]}, "history": [turn("system", "S"), ASK, SAY]}
    | {"contents": [ASK, {"role": "model", "parts": [{"text": "7"}]}]},
    {"chosen": "\n\nHuman: Q\n\nAssistant: 101", "rejected": "\n\nHuman: Q\n\nAssistant: 7"},
)
"rows with reasoning, calls and results at more places"
ROWS = [(example.row, example.reading.map) for example in EXAMPLES]
ROWS += [(row, ()) for row in FURTHER]
CALLS = {"tool_calls", "function_call", "functionCall", "input", "arguments"}
"keys whose values are calls of tools, which are counted and not read"
KEYS = (
    "reasoning",
    "reasoning_content",
    "thinking",
    "text",
    "content",
    "value",
    "parts",
    "thought",
)
PARTS = (
    {"type": "thinking", "thinking": WORD},
    {"type": "reasoning", "text": [{"type": "thinking", "thinking": WORD}]},
    {
        "type": "thinking",
        "thinking": [{"type": "text", "text": "Hm."}, {"type": "thinking", "text": WORD}],
    },
    {"type": "text", "text": WORD, "thought": 1},
    {"type": "text", "text": WORD, "thought": "true"},
    {"type": "text", "text": "a", "thought": WORD},
    {"type": "text", "text": "a", "thinking": WORD},
    {"type": "tool_use", "name": "f", "text": WORD},
    {"type": "tool_result", "content": [{"type": "thinking", "thinking": WORD}]},
    {"type": "text", "text": WORD},
)


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """Every place of a row, without those inside of calls."""
    if isinstance(value, dict) and value.get("type") == "tool_use":
        return
    yield at
    if isinstance(value, dict):
        for key in value.keys() - CALLS:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from places(item, (*at, number))


def is_call(row: Any, place: tuple) -> bool:
    """Whether a text is a call of a tool as a whole."""
    turn = at_place(row, place[:-1])
    return isinstance(turn, dict) and turn.get("from") == "function_call"


def at_place(row: Any, place: tuple) -> Any:
    for step in place:
        row = row[step]
    return row


def with_value(row: Any, place: tuple, value: Any) -> Any:
    changed = copy.deepcopy(row)
    if not place:
        return value
    at_place(changed, place[:-1])[place[-1]] = value
    return changed


def marked(value: Any) -> Iterator[Any]:
    """A value with the word in it, in every way that a value of its kind may have it."""
    if isinstance(value, str):
        yield f"{value} {WORD}"
        yield f"<think>{WORD}</think>{value}"
        yield f"<think>a <think>b</think> {WORD}</think>{value}"
        for part in PARTS:
            yield [part, {"type": "text", "text": value}]
            yield [{"type": "text", "text": value}, part]
    if isinstance(value, dict):
        for key in KEYS:
            if key not in value:
                yield value | {key: WORD}
                yield value | {key: [PARTS[0]]}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        for part in PARTS:
            yield [part, *value]
            yield [*value, part]


def read(row: Any, **reading: Any) -> tuple[list[Record], Intake] | None:
    """The records of a row and what was counted; None of a row that is refused."""
    intake = Intake()
    try:
        return RowReader(Reading(**reading), intake).records_of(RawRow("line 1", 1, row)), intake
    except DataError:
        return None


def is_heard(row: Any, place: tuple, counts: Any, **reading: Any) -> bool:
    """Whether the word is refused, found, or counted beyond what is counted without it."""
    found = read(row, **reading)
    if found is None:
        return True
    records, intake = found
    for record in records:
        texts = [record.id, record.prompt, record.completion, record.context, record.rejected]
        texts.append(record.meta.get("reasoning"))
        if NOT_A_PAIR in record.meta or any(WORD in (text or "") for text in texts):
            return True
    keys = {key.rpartition(".")[2] for key in intake.unused}
    steps = [step for step in place if isinstance(step, str)]
    return counts != (intake.notes, intake.unused) or bool(keys & set(steps[-1:]))


@pytest.mark.parametrize("reading", [{}, {"turns": "every"}, {"reasoning": "train"}], ids=str)
@pytest.mark.parametrize(("row", "names"), ROWS, ids=lambda value: str(value)[:50])
def test_no_word_is_lost(row: dict[str, Any], names: tuple[str, ...], reading: dict) -> None:
    found = read(row, map=names, **reading)
    counts = found and (found[1].notes, found[1].unused)
    lost, n_read = [], 0
    for place in places(row):
        for value in marked(at_place(row, place)):
            changed = with_value(row, place, value)
            if is_call(row, place) and not str(value).startswith(
                ("<think>", "[{'type': 'thinking'")
            ):
                continue
            n_read += read(changed, map=names, **reading) is not None
            if not is_heard(changed, place, counts, map=names, **reading):
                lost.append((place, value))
    assert not lost, "\n".join(map(str, lost))
    assert n_read > 20
