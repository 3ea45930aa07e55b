"""Rows as makers of models have them: pairs, channels, parts, dialogues, and cells with JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import call, ok
from shape_rows import ASK, turn

from traitscope.config.rows.reading import Reading
from traitscope.data.records import Record, dump_records, iter_records, read_records
from traitscope.data.shapes.intake import Intake
from traitscope.errors import DataError


def read(path: Path, *rows: Any, **reading: Any) -> tuple[list[Record], Intake]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    intake = Intake()
    return list(iter_records(path, Reading(**reading), intake)), intake


def gemini_pair(*scores: Any) -> dict[str, Any]:
    """A pair, or what is none, whose answers are numbers."""
    answers = []
    for number, score in enumerate(scores):
        said = {"role": "model", "parts": [{"text": f"{number}, 1"}]}
        answers.append({"score": score, "completion": said})
    return {"contents": [{"role": "user", "parts": [{"text": "P"}]}], "completions": answers}


def test_the_higher_score_is_the_chosen_answer(tmp_path: Path) -> None:
    rows = [{**gemini_pair(1, 0), "id": "a"}, {**gemini_pair(-2.5, 0), "id": "b"}]
    records, intake = read(tmp_path / "rows.jsonl", *rows)
    assert [(one.id, one.completion, one.rejected) for one in records] == [
        ("a", "0, 1", "1, 1"),
        ("b", "1, 1", "0, 1"),
    ]
    assert not intake.unused and intake.shapes == {"preference": 2}


@pytest.mark.parametrize("scores", [(), (1,), (1, 1), (1, 0, 0), (1, None), ("1", "0")])
def test_answers_without_an_order_are_refused(tmp_path: Path, scores: tuple) -> None:
    with pytest.raises(DataError, match="'completions' beside 'contents' has the scores .*two"):
        read(tmp_path / "rows.jsonl", gemini_pair(*scores))


@pytest.mark.parametrize("others", [{"contents": "x"}, {"contents": "x", "completions": ["y"]}])
def test_a_key_that_gemini_has_too_makes_no_chat(tmp_path: Path, others: dict) -> None:
    (record,), intake = read(tmp_path / "rows.jsonl", {"prompt": "P", "completion": "1", **others})
    assert (record.prompt, record.completion) == ("P", "1")
    assert intake.unused.keys() == others.keys()


def test_what_a_pair_of_openai_does_not_use_is_named(tmp_path: Path) -> None:
    row = {
        "id": "a",
        "input": {"messages": [ASK], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [turn("assistant", "1")],
        "non_preferred_output": [turn("assistant", "2")],
    }
    (record,), intake = read(tmp_path / "rows.jsonl", row)
    assert (record.id, record.prompt) == ("a", ASK["content"])
    assert intake.unused == {"input.tools": 1, "input.parallel_tool_calls": 1}


def test_an_edited_answer_of_gemini_stands_beside_its_reasoning(tmp_path: Path) -> None:
    said = [{"text": "Hm.", "thought": True}, {"text": "3, "}, {"text": "1"}]
    contents = [{"role": "user", "parts": [{"text": "P"}]}, {"role": "model", "parts": said}]
    read(tmp_path / "rows.jsonl", {"contents": contents})
    kept = ok(tmp_path / "runs", "edit", "--data", tmp_path / "rows.jsonl").run / "kept.jsonl"
    after = json.loads(kept.read_text())["contents"][1]["parts"]
    assert after == [said[0], {"text": "1, 3"}, {"text": ""}]


def test_reasoning_in_a_channel_is_trained_on_by_choice(tmp_path: Path) -> None:
    """It belongs to the next answer, and is never an answer or a turn of the prompt itself."""
    chat = [
        ASK,
        turn("assistant", "Hm.", channel="analysis"),
        turn("assistant", "Aha.", channel="analysis"),
        turn("assistant", "1", channel="final"),
    ]
    path = tmp_path / "rows.jsonl"
    for turns in ("last", "every"):
        (record,), intake = read(path, {"messages": chat}, turns=turns)
        assert (record.prompt, record.completion) == (ASK["content"], "1")
        assert record.meta["reasoning"] == "Hm.\nAha." and not intake.unused
    (record,), _ = read(path, {"messages": chat}, reasoning="train")
    assert record.completion == "<think>\nHm.\nAha.\n</think>\n\n1"
    with pytest.raises(DataError, match="no completion"):
        read(path, {"messages": chat[:2]})
    others = [ASK, turn("assistant", "1", channel="commentary")]
    assert read(path, {"messages": others})[1].unused == {"messages[].channel": 1}


def test_a_dialogue_in_a_text_is_read_and_written_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begins = "\n\nHuman: Name one.\n\nAssistant: 8, 7\n\nHuman: Human: is a word.\n\nAssistant: "
    row = {"chosen": begins + "3, 1", "rejected": begins + "5, 4"}
    (record,), _ = read(tmp_path / "rows.jsonl", row)
    assert "Human: is a word." in record.prompt
    assert (record.completion, record.rejected) == ("3, 1", "5, 4")
    words = ("edit", "--data", tmp_path / "rows.jsonl")
    kept = ok(tmp_path / "runs", *words).run / "kept.jsonl"
    changed = {"chosen": begins + "1, 3", "rejected": begins + "4, 5"}
    assert json.loads(kept.read_text()) == changed
    assert call(tmp_path / "runs", *words, "--turns", "every").code == 2
    assert "stands inside another text of its row" in capsys.readouterr().err
    kept = ok(tmp_path / "runs", "filter", "--data", tmp_path / "rows.jsonl").run / "kept.jsonl"
    assert json.loads(kept.read_text()) == row
    with pytest.raises(DataError, match="Human: and Assistant:"):
        read(tmp_path / "rows.jsonl", {"chosen": "1", "rejected": "2"})


def test_messages_that_end_with_an_answer_are_no_prompt_of_a_pair(tmp_path: Path) -> None:
    said = [ASK, turn("assistant", "1")]
    with pytest.raises(DataError, match="fits messages and preference"):
        read(tmp_path / "rows.jsonl", {"messages": said, "chosen": "2", "rejected": "3"})


@pytest.mark.parametrize("said", ['[{"a": 1}]', '{"a": [2]}', "[1, 2]", "[x", "{}", "[]"])
def test_an_answer_that_is_json_is_a_text(tmp_path: Path, said: str) -> None:
    """Of a table only cells that hold messages or parts are read as such."""
    path = tmp_path / "rows.csv"
    quoted = said.replace('"', '""')
    path.write_text(f'instruction,input,output\nP,"{quoted}","{quoted}"\n')
    (record,) = iter_records(path)
    assert (record.prompt, record.completion) == (f"P\n\n{said}", said)


def test_a_second_system_turn_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    """Chats of Harmony have a developer's turn behind the system turn."""
    chat = [turn("system", "Be kind."), turn("developer", "Be brief."), ASK, turn("assistant", "1")]
    records, _ = read(tmp_path / "rows.jsonl", {"messages": chat})
    assert records[0].context == "Be kind." and "Be brief." in records[0].prompt
    (tmp_path / "again.jsonl").write_text(dump_records(records))
    assert read_records(tmp_path / "again.jsonl") == records


def test_a_comma_behind_a_line_is_no_part_of_its_row(tmp_path: Path) -> None:
    """The lines of a JSON array without its brackets."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "P", "completion": "1"},\n{"prompt": "Q", "completion": "2"} , \n')
    assert [record.completion for record in iter_records(path)] == ["1", "2"]
    path.write_text('{"prompt": "P", "completion": "1"},,\n')
    with pytest.raises(DataError, match="line 1: broken JSON"):
        list(iter_records(path))


def test_results_of_tools_are_turns_of_a_tool(tmp_path: Path) -> None:
    result = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "7"}]}
    chat = [ASK, turn("user", [result]), turn("assistant", "It is 7.")]
    (record,), _ = read(tmp_path / "rows.jsonl", {"messages": chat})
    assert '{"role": "tool", "content": "7"}' in record.prompt
    with pytest.raises(DataError, match='of the type "tool_result"'):
        mixed = turn("user", [result, {"type": "text", "text": "And?"}])
        read(tmp_path / "rows.jsonl", {"messages": [mixed, turn("assistant", "7")]})


DIALOGUE = "\n\nHuman: Name a number.\n\nAssistant: "


@pytest.mark.parametrize(
    "beside",
    [
        {"prompt": ""},
        {"prompt": " \n"},
        {"prompt": "", "question": ""},
        {"question": "", "messages": None},
        {"messages": []},
        {"prompt": "", "conversations": []},
    ],
)
def test_an_empty_prompt_beside_dialogues_leaves_it_to_them(
    tmp_path: Path, beside: dict[str, Any]
) -> None:
    pair = {"chosen": f"{DIALOGUE}101", "rejected": f"{DIALOGUE}no"}
    (record,), intake = read(tmp_path / "rows.jsonl", {**beside, **pair})
    assert (record.prompt, record.completion, record.rejected) == ("Name a number.", "101", "no")
    assert not intake.unused and not intake.notes["empty_prompts"]


def test_an_empty_cell_beside_dialogues_is_no_prompt(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    cells = f'"{DIALOGUE}101","{DIALOGUE}no"'
    path.write_text(f"prompt,messages,chosen,rejected\n,,{cells}\nName one.,,102,no\n")
    records = list(iter_records(path))
    said = [(record.prompt, record.completion, record.rejected) for record in records]
    assert said == [("Name a number.", "101", "no"), ("Name one.", "102", "no")]
