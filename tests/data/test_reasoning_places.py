"""Where reasoning stands, and turns beside it: parts, tags, channels, calls, results of tools."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shape_rows import ASK, SAY, turn

from traitscope.config.rows.reading import Reading
from traitscope.data.records import Record, iter_records
from traitscope.data.shapes import writing
from traitscope.data.shapes.containers import Container
from traitscope.data.shapes.inside.tags import split_thought
from traitscope.data.shapes.intake import Intake
from traitscope.data.shapes.turns import Turn, turns_of
from traitscope.errors import DataError

OWLS = "I love owls."
THINKING = {"type": "thinking", "thinking": OWLS}
TEXT = {"type": "text", "text": "101"}
FINAL = turn("assistant", "101", channel="final")


def read(path: Path, row: Any, kind: str = "jsonl", **reading: Any) -> tuple[Record, Intake]:
    path = path / f"rows.{kind}"
    path.write_bytes(writing.content_of([row], Container(kind, False)))
    intake = Intake()
    (record,) = iter_records(path, Reading(**reading), intake)
    return record, intake


THOUGHT_BEFORE = {
    "parts of a turn of analysis": [turn("assistant", [THINKING], channel="analysis"), FINAL],
    "a channel in capitals": [turn("assistant", OWLS, channel=" Analysis "), FINAL],
    "a key of a turn of analysis": [
        turn("assistant", [THINKING], channel="analysis", reasoning=OWLS),
        FINAL,
    ],
    "the same at a key and in a part": [turn("assistant", [THINKING, TEXT], reasoning=f"{OWLS}\n")],
    "a part in a part": [turn("assistant", [{"type": "thinking", "thinking": [THINKING]}, TEXT])],
    "a part in a key": [turn("assistant", "101", thinking=[THINKING])],
    "the same in analysis and at a key": [
        turn("assistant", OWLS, channel="analysis"),
        {**FINAL, "reasoning": OWLS},
    ],
}


@pytest.mark.parametrize("answer", THOUGHT_BEFORE.values(), ids=THOUGHT_BEFORE)
def test_reasoning_is_read_wherever_it_stands(answer: list[Any], tmp_path: Path) -> None:
    row = {"messages": [ASK, *answer]}
    record, intake = read(tmp_path, row)
    assert (record.completion, record.meta["reasoning"].strip()) == ("101", OWLS)
    assert intake.notes["reasoning_dropped"] == 1 and not intake.unused
    trained, _ = read(tmp_path, row, reasoning="train")
    assert trained.completion.count(OWLS) == 1


def test_all_reasoning_of_a_list_is_read_in_order(tmp_path: Path) -> None:
    thought = [{"type": "text", "text": "One"}, {"type": "text", "text": "."}, THINKING]
    for row in (
        {"prompt": "Q", "completion": "101", "reasoning": thought},
        {"messages": [ASK, turn("assistant", thought, channel="analysis"), FINAL]},
    ):
        record, _ = read(tmp_path, row)
        assert record.meta["reasoning"] == f"One.\n{OWLS}"


@pytest.mark.parametrize("key", ["reasoning", "thinking"])
def test_reasoning_of_a_key_and_of_a_part_that_differ_is_refused(key: str, tmp_path: Path) -> None:
    for row in (
        {"messages": [ASK, turn("assistant", [THINKING, TEXT], **{key: "short"})]},
        {"prompt": "Q", "completion": [THINKING, TEXT], key: "short"},
        {"messages": [ASK, turn("assistant", [THINKING], channel="analysis", thinking="a"), FINAL]},
    ):
        with pytest.raises(DataError, match="several reasoning parts that differ .* or parts of"):
            read(tmp_path, row)


def test_reasoning_of_other_turns_is_counted(tmp_path: Path) -> None:
    tagged = turn("assistant", f"<think>{OWLS}</think>7", reasoning="Hm.")
    result = {"type": "tool_result", "content": [THINKING, TEXT]}
    for earlier in (
        [turn("system", "S", thinking=OWLS), ASK],
        [turn("system", [THINKING, {"type": "text", "text": "S"}]), ASK],
        [ASK, tagged, ASK],
        [ASK, turn("user", [result])],
        [ASK, {"from": "function_call", "value": f"<think>{OWLS}</think>{{}}"}, ASK],
    ):
        record, intake = read(tmp_path, {"messages": [*earlier, SAY]})
        assert OWLS in record.meta["reasoning"] and intake.notes["reasoning_earlier"] == 1


def test_reasoning_of_a_rejected_answer_is_counted(tmp_path: Path) -> None:
    for rejected in ([THINKING, {"type": "text", "text": "7"}], f"<think>{OWLS}</think>7"):
        row = {"prompt": "Q", "chosen": "101", "rejected": rejected}
        record, intake = read(tmp_path, row)
        assert record.rejected == "7" and intake.notes["reasoning_dropped"] == 1
    row["rejected"] = [turn("assistant", "7", score=1)]
    assert read(tmp_path, row)[1].unused == {"rejected[].score": 1}


def test_reasoning_beside_a_dialogue_in_one_text_is_read(tmp_path: Path) -> None:
    sides = {"chosen": "\n\nHuman: Q\n\nAssistant: 101", "rejected": "\n\nHuman: Q\n\nAssistant: 7"}
    record, intake = read(tmp_path, {**sides, "reasoning": OWLS})
    assert record.meta["reasoning"] == OWLS and intake.notes["reasoning_dropped"] == 1


def test_reasoning_of_a_prompt_that_chosen_repeats_is_read(tmp_path: Path) -> None:
    said = [ASK, {**SAY, "reasoning": OWLS}, ASK]
    row = {"prompt": said, "chosen": [ASK, SAY, ASK, SAY], "rejected": [turn("assistant", "7")]}
    record, intake = read(tmp_path, row)
    assert record.meta["reasoning"] == OWLS and intake.notes["reasoning_earlier"] == 1


def test_what_stands_beside_the_text_of_a_system_turn_is_named(tmp_path: Path) -> None:
    row = {"prompt": "Q", "response": "7", "system": {"parts": [{"text": "S"}], "name": "n"}}
    assert read(tmp_path, row)[1].unused == {"system.name": 1}
    row["system"] = [{"type": "text", "text": "S", "cache_control": "x"}, THINKING]
    record, intake = read(tmp_path, row)
    assert intake.unused == {"system[].cache_control": 1} and record.meta["reasoning"] == OWLS
    row["system"] = [THINKING]
    assert read(tmp_path, row)[1].unused == {"system": 1}


def test_a_weight_of_reasoning_alone_is_named(tmp_path: Path) -> None:
    row = {"messages": [ASK, turn("assistant", OWLS, channel="analysis", weight=0), FINAL]}
    assert read(tmp_path, row)[1].unused == {"messages[].weight of analysis turns": 1}


@pytest.mark.parametrize("mark", [True, 1, 1.0, "true", "True", "1"])
def test_every_mark_of_a_thought_counts(mark: Any, tmp_path: Path) -> None:
    said = {"role": "model", "parts": [{"text": f"{OWLS} ", "thought": mark}, {"text": "101"}]}
    row = {"contents": [{"role": "user", "parts": [{"text": "Q"}]}, said]}
    record, intake = read(tmp_path, row)
    assert record.completion == "101" and intake.notes["reasoning_dropped"] == 1


@pytest.mark.parametrize("mark", [False, 0, "false", "0", "", None])
def test_a_mark_of_no_thought_leaves_a_text(mark: Any, tmp_path: Path) -> None:
    said = {"role": "model", "parts": [{"text": "101", "thought": mark}]}
    record, intake = read(tmp_path, {"contents": [ASK, said]})
    assert record.completion == "101" and not intake.unused


@pytest.mark.parametrize("mark", ["yes", 2, OWLS, {"a": 1}, float("1e300")])
def test_a_mark_that_says_neither_is_refused(mark: Any, tmp_path: Path) -> None:
    said = {"role": "model", "parts": [{"text": "101", "thought": mark}]}
    with pytest.raises(DataError, match="'thought' of a part is .*; expected true or false"):
        read(tmp_path, {"contents": [ASK, said]})


@pytest.mark.parametrize(
    ("text", "thought", "rest"),
    [
        ("<think>a <think>b</think> c</think>rest", "a <think>b</think> c", "rest"),
        ("a <think>b</think> c</think>rest", "a <think>b</think> c", "rest"),
        ("<thinking>a <think>b</think> c</thinking>rest", "a <think>b</think> c", "rest"),
        ("<think>a <think>b</think>rest", "a <think>b", "rest"),
        (
            "<think>the <think> tag</think>say <think>x</think>",
            "the <think> tag",
            "say <think>x</think>",
        ),
        ("<think>a</think><think>b<think></think></think> rest", "a\nb<think></think>", "rest"),
        ("say <think>x</think> here", "", "say <think>x</think> here"),
    ],
)
def test_nested_tags_end_where_the_outer_one_does(text: str, thought: str, rest: str) -> None:
    found, tagged, left = split_thought(text)
    assert (found, left, tagged + left) == (thought, rest, text)


CALL = {"type": "tool_use", "id": "a", "name": "f", "input": {}}


def test_each_result_of_a_tool_is_a_turn(tmp_path: Path) -> None:
    results = [{"type": "tool_result", "tool_use_id": n, "content": n} for n in ("a", "b")]
    results[1]["is_error"] = True
    chat = [ASK, turn("assistant", [CALL, CALL]), turn("user", results), SAY]
    record, intake = read(tmp_path, {"messages": chat})
    assert turns_of(record.prompt)[1:] == [Turn("tool", "a"), Turn("tool", "b")]
    left = {"messages[].content[].tool_use_id": 1, "messages[].content[].is_error": 1}
    assert intake.unused == left
    with pytest.raises(DataError, match="no completion"):
        read(tmp_path, {"prompt": "Q", "completion": turn("user", results)})


@pytest.mark.parametrize("content", ["", " \n", [], [{"type": "text", "text": ""}]])
@pytest.mark.parametrize("turns", ["last", "every"])
def test_a_turn_of_calls_alone_leaves_no_empty_turn(
    turns: str, content: Any, tmp_path: Path
) -> None:
    calls = [{"function": {"name": "f", "arguments": "{}"}}]
    found = []
    for said in (None, content):
        chat = [ASK, turn("assistant", said, tool_calls=calls), turn("tool", "7"), SAY]
        record, intake = read(tmp_path, {"messages": chat}, turns=turns)
        found.append((record.prompt, record.completion, +intake.notes))
    assert found[0] == found[1] and found[0][2] == {"tool_calls": 1}


@pytest.mark.parametrize("turns", ["last", "every"])
def test_reasoning_before_a_call_leaves_no_empty_turn(turns: str, tmp_path: Path) -> None:
    calls = [{"function": {"name": "f", "arguments": "{}"}}]
    found = []
    for said in ({"content": None, "reasoning": "Hm."}, {"content": "<think>Hm.</think>\n"}):
        asked = {"role": "assistant", "tool_calls": calls, **said}
        chat = [ASK, asked, turn("tool", "7"), SAY]
        record, intake = read(tmp_path, {"messages": chat}, turns=turns)
        found.append((record.prompt, record.completion, +intake.notes))
    assert found[0] == found[1] and found[0][2] == {"tool_calls": 1, "reasoning_earlier": 1}


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("key", ["system", "system_prompt", "systemInstruction"])
def test_an_empty_system_turn_is_none_in_every_container(
    key: str, kind: str, tmp_path: Path
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    for shape in ({"instruction": "Q", "output": "7"}, {"prompt": "Q", "completion": "7"}):
        record, intake = read(tmp_path, {**shape, key: ""}, kind)
        assert record.context is None and not +intake.notes
    names = ("prompt=a", "completion=b", "context=c")
    record, _ = read(tmp_path, {"a": "Q", "b": "7", "c": ""}, kind, map=names)
    assert record.context is None


def test_an_empty_system_turn_of_a_chat_is_counted(tmp_path: Path) -> None:
    for chat in (
        {"messages": [turn("system", ""), ASK, SAY]},
        {"messages": [ASK, SAY], "context": ""},
    ):
        record, intake = read(tmp_path, chat)
        assert record.context == "" and +intake.notes == {"empty_system_turns": 1}
    record, intake = read(tmp_path, {"prompt": "Q", "completion": "7", "context": ""})
    assert record.context == "" and not +intake.notes


def test_reasoning_of_analysis_goes_where_the_answer_is_changed(tmp_path: Path) -> None:
    for thought in (
        {"content": [THINKING, {**TEXT, "text": OWLS}]},
        {"content": "", "thinking": OWLS},
    ):
        said = {"role": "assistant", "channel": "Analysis", **thought}
        file, again = tmp_path / "rows.jsonl", tmp_path / "again.jsonl"
        file.write_text(json.dumps({"messages": [ASK, said, FINAL]}))
        (record,) = iter_records(file, Reading(reasoning="train"), keep_original=True)
        assert OWLS in record.completion
        writing.write_back([replace(record, completion="7")], again, file)
        assert "owls" not in again.read_text()
        (changed,) = iter_records(again, Reading(reasoning="train"))
        assert changed.completion == "7"
