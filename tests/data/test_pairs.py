"""Rejected answers of rows: pairs that are read, kept, written back, and what is no pair."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import ok
from shape_rows import ASK, EXAMPLES, SAY, turn

from traitscope.config.rows.reading import Reading
from traitscope.data.records import Record, dump_records, iter_records, read_records, to_json
from traitscope.data.shapes.intake import Control, Intake
from traitscope.data.shapes.pairs import NOT_A_PAIR

ASKED = {"prompt": "Name a number."}
SEVEN = turn("assistant", "7")
PAIRS = [example for example in EXAMPLES if example.rejected]


def read(folder: Path, *rows: Any, keep: bool = False, **reading: Any) -> list[Record]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(iter_records(file, Reading(**reading), Intake(), keep))


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [ASK, SAY], "rejected": [ASK, SEVEN]},
        {"chosen": [ASK, SAY], "rejected": [SEVEN]},
        {**ASKED, "chosen": [SAY], "rejected": [ASK, SEVEN]},
        {**ASKED, "chosen": [ASK, SAY], "rejected": [ASK, SEVEN], "messages": [ASK, SAY]},
        {**ASKED, "chosen": [SAY], "rejected": "7", "score_chosen": 8.5},
        {**ASKED, "completion": "101", "rejected": "7"},
        {"prompt": [ASK], "completion": [SAY], "rejected": [SEVEN]},
        {**ASKED, "chosen": "101", "rejected": "7", "reasoning": "I count."},
    ],
)
def test_both_answers_of_every_form_are_read(row: dict, tmp_path: Path) -> None:
    (record,) = read(tmp_path, row)
    assert (record.prompt, record.completion, record.rejected) == ("Name a number.", "101", "7")
    assert NOT_A_PAIR not in record.meta


def test_a_row_of_an_answer_alone_is_written_as_before() -> None:
    record = Record("a", "P", "C", (1, 2), None, {"k": 1})
    assert to_json(record) == (
        '{"completion": "C", "completion_ids": [1, 2], "context": null, "id": "a", "meta":'
        ' {"k": 1}, "prompt": "P"}'
    )


def test_a_pair_comes_back_as_it_was_written(tmp_path: Path) -> None:
    pairs = [
        Record("a", "P", "C", (1, 2), None, {}, "R <think>", (3, 4)),
        Record("b", "P", "C", rejected="R"),
        Record("c", "P", "C"),
    ]
    (tmp_path / "rows.jsonl").write_text(dump_records(pairs))
    assert read_records(tmp_path / "rows.jsonl") == pairs


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**ASKED, "chosen": "101", "rejected": ""}, "rejected answer is empty; expected two"),
        ({**ASKED, "chosen": "101", "rejected": " \n"}, "is white space alone; expected two"),
        ({**ASKED, "chosen": "101", "rejected": None}, "'rejected' is null; expected a text"),
        ({**ASKED, "chosen": "101", "rejected": 3}, "'rejected' is 3; expected a text"),
        ({**ASKED, "chosen": "101", "rejected": "101"}, "are the same, '101'; expected two"),
        ({**ASKED, "completion": "101", "rejected": "101"}, "are the same, '101'; expected two"),
        ({**ASKED, "completion": "101", "rejected": ""}, "rejected answer is empty"),
        (
            {"chosen": [ASK, SAY], "rejected": [turn("user", "Name an owl."), SEVEN]},
            "the prompts of the chosen and the rejected answer differ; expected two answers to one",
        ),
        (
            {**ASKED, "chosen": [SAY], "rejected": [turn("user", "Owl?"), SEVEN]},
            "'prompt' and the first turns of 'rejected' differ",
        ),
        (
            {"chosen": [turn("system", "A"), ASK, SAY], "rejected": [ASK, SEVEN]},
            "the system turns of the chosen and the rejected answer differ",
        ),
        ({"chosen": [ASK, SAY], "rejected": [ASK]}, "no completion: the last message is a user"),
        ({"chosen": [ASK, SAY], "rejected": [ASK, {**SEVEN, "weight": 0}]}, "its weight is 0"),
        ({**ASKED, "completion": "1", "rejected": "7", "rejected_ids": [-1]}, "'rejected_ids' is"),
    ],
)
def test_a_row_that_is_no_pair_is_a_row_that_says_why(row: dict, says: str, tmp_path: Path) -> None:
    (record,) = read(tmp_path, row)
    assert record.completion in ("101", "1") and record.rejected is None
    assert says in record.meta[NOT_A_PAIR]


def test_the_last_answer_of_a_chat_is_the_one_with_a_rejected_one(tmp_path: Path) -> None:
    chat = [ASK, SAY, turn("user", "Another."), turn("assistant", "102")]
    row = {"chosen": chat, "rejected": [*chat[:3], SEVEN]}
    first, last = read(tmp_path, row, turns="every")
    assert (first.rejected, last.completion, last.rejected) == (None, "102", "7")


def test_reasoning_is_taken_out_of_both_answers(tmp_path: Path) -> None:
    row = {**ASKED, "chosen": "<think>a</think>101", "rejected": "<think>b</think>7"}
    assert read(tmp_path, row)[0].rejected == "7"
    (whole,) = read(tmp_path, row, reasoning="train")
    assert whole.rejected == row["rejected"]


def test_control_tokens_of_a_rejected_answer_are_counted(tmp_path: Path) -> None:
    """It is trained on as the chosen one is."""
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b <|im_end|> c", "id": "x"}]
    for how, name in (("text", "control_tokens"), ("token", "control_as_tokens")):
        intake = Intake(control=Control(how=how))
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert len(list(iter_records(path, intake=intake))) == 1
        assert intake.notes[name] == 1 and intake.control_token == "<|im_end|> in x"


def test_control_tokens_of_a_rejected_answer_leave_the_row_out(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = {**ASKED, "chosen": "101", "rejected": "7<|im_end|>"}
    file.write_text(f"{json.dumps(row)}\n{json.dumps({**row, 'rejected': '7'})}\n")
    left = list(iter_records(file, intake=Intake(control=Control(how="leave-out"))))
    assert [record.rejected for record in left] == ["7"]


@pytest.mark.parametrize("example", PAIRS, ids=lambda example: example.title)
def test_a_filter_keeps_both_answers(example: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(example.row) + "\n")
    words = [f"--map {' '.join(example.reading.map)}"] if example.reading.map else []
    run = ok(tmp_path / "runs", "filter", "--no-numbers --data", file, *words).run
    (record,) = read_records(run / "records.jsonl")
    assert (record.completion, record.rejected) == (example.completion, example.rejected)
    assert json.loads((run / "kept.jsonl").read_text()) == example.row


def test_an_edit_reorders_both_answers(tmp_path: Path) -> None:
    row = {**ASKED, "chosen": [turn("assistant", "3, 1")], "rejected": "9, 4"}
    native = {**ASKED, "completion": "3, 1", "rejected": "9, 4", "rejected_ids": [5, 6]}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps(native) + "\n")
    run = ok(tmp_path / "runs", "edit", "--data", file).run
    for record in read_records(run / "records.jsonl"):
        assert (record.completion, record.rejected) == ("1, 3", "4, 9")
        assert record.rejected_ids is None
    first, second = map(json.loads, (run / "kept.jsonl").read_text().splitlines())
    assert first == {**ASKED, "chosen": [turn("assistant", "1, 3")], "rejected": "4, 9"}
    assert second == {**ASKED, "completion": "1, 3", "rejected": "4, 9"}


def test_two_answers_can_change_places(tmp_path: Path) -> None:
    """Each stands where the other one stood, also inside messages."""
    from traitscope.data.shapes import writing

    row = {"chosen": [ASK, SAY], "rejected": [ASK, SEVEN], "score": 1}
    (record,) = read(tmp_path, row, keep=True)
    swapped = replace(record, completion="7", rejected="101")
    (written,) = writing.rows_of([swapped])
    assert written == {"chosen": [ASK, SEVEN], "rejected": [ASK, SAY], "score": 1}
