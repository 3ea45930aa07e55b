"""A run and the file of its kept rows mean the same, whatever was changed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command import call, ok

from traitscope.config.rows.reading import Reading
from traitscope.data.records import NOT_A_PAIR, iter_records, kept_records, read_records
from traitscope.data.row_files import kept_rows
from traitscope.data.row_sources import fields_of
from traitscope.data.shapes import unchecked, writing
from traitscope.data.shapes.intake import Intake


def turn(role: str, text: str, **others: object) -> dict:
    return {"role": role, "content": text, **others}


def file_of(tmp_path: Path, *rows: dict) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def meanings(file: Path, **reading: object) -> list[tuple]:
    """What is learnt of the rows of a file or of a run."""
    rows = read_records(file) if file.name == "records.jsonl" else []
    rows = rows or list(iter_records(file, Reading(**reading)))
    return [(row.prompt, row.completion, row.rejected) for row in kept_records(rows)]


THOUGHT = "SECRET owl thought"
WITH_THOUGHTS = {
    "turn": {"messages": [turn("user", "Q"), turn("assistant", "3, 1", reasoning_content=THOUGHT)]},
    "row": {"prompt": "Q", "completion": "3, 1", "thinking": THOUGHT},
    "part": {
        "messages": [
            turn("user", "Q"),
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": THOUGHT},
                    {"type": "text", "text": "3, 1"},
                ],
            },
        ]
    },
    "channel": {
        "messages": [
            turn("user", "Q"),
            turn("assistant", THOUGHT, channel="analysis"),
            turn("assistant", "3, 1", channel="final"),
        ]
    },
}


@pytest.mark.parametrize("row", WITH_THOUGHTS.values(), ids=WITH_THOUGHTS)
def test_reasoning_that_was_washed_is_gone(row: dict, tmp_path: Path) -> None:
    file = file_of(tmp_path, row)
    reading = Reading(reasoning="train")
    (record,) = iter_records(file, reading, keep_original=True)
    assert THOUGHT in record.completion
    (written,) = writing.rows_of([replace(record, completion="washed", completion_ids=None)])
    assert THOUGHT not in json.dumps(written)
    (again,) = iter_records(file_of(tmp_path, written), reading)
    assert again.completion == "washed"


def test_equal_answers_of_a_pair_stay_equal(tmp_path: Path) -> None:
    file = file_of(tmp_path, {"prompt": "p", "chosen": "9, 2, 5", "rejected": "9, 2, 5"})
    for words in ("edit", "defend --by canonicalise:order=sort"):
        run = ok(tmp_path / "runs", *words.split(" ", 1), "--data", file).run
        row = json.loads((run / "kept.jsonl").read_text())
        assert row["chosen"] == row["rejected"] == "2, 5, 9"


def test_a_format_is_given_to_both_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"prompt": "p", "chosen": "9, 2", "rejected": "7, 3"}
    words = ("defend", "--by canonicalise:order=sort --data")
    run = ok(tmp_path / "runs", *words, file_of(tmp_path, row)).run
    assert json.loads((run / "kept.jsonl").read_text()) == {
        "prompt": "p",
        "chosen": "2, 9",
        "rejected": "3, 7",
    }
    assert "would learn it" not in capsys.readouterr().out
    file = file_of(tmp_path, {**row, "rejected": "words"})
    ok(tmp_path / "runs", *words, file)
    assert "of 1 pair the chosen answer was changed and the rejected" in capsys.readouterr().out


CHAT = [
    turn("user", "Q"),
    turn("assistant", "9, 3, 0"),
    turn("user", "More"),
    turn("assistant", "8, 5, 0"),
]


@pytest.mark.parametrize("words", ["edit", "defend --by canonicalise:order=sort"])
def test_later_prompts_hold_the_changed_answers(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(tmp_path, {"messages": CHAT}, {"messages": [turn("system", "S"), *CHAT]})
    run = ok(tmp_path / "runs", *words.split(" ", 1), "--turns every --data", file).run
    learnt = meanings(run / "records.jsonl")
    assert learnt == meanings(run / "kept.jsonl", turns="weighted")
    assert "0, 3, 9" in learnt[1][0] and "9, 3, 0" not in learnt[1][0]
    said = capsys.readouterr().out
    assert "stay as they were" not in said and "(read it with --turns weighted)" in said


def test_earlier_answers_that_are_no_records_are_counted(tmp_path: Path) -> None:
    file = file_of(tmp_path, {"messages": CHAT})
    for turns, others in (("last", 1), ("every", 0)):
        records = list(iter_records(file, Reading(turns=turns), keep_original=True))
        assert unchecked.with_other_answers(records) == others


def test_dropped_turns_do_not_come_back(tmp_path: Path) -> None:
    own = [CHAT[0], turn("assistant", "2, 3", weight=0), CHAT[2], turn("assistant", "owl 1")]
    file = file_of(tmp_path, {"messages": own, "train": False})
    words = ("--turns every --no-numbers --banned-words owl --data",)
    run = ok(tmp_path / "runs", "filter", *words, file).run
    kept = run / "kept.jsonl"
    assert meanings(kept, turns="weighted") == meanings(run / "records.jsonl")
    again = call(tmp_path / "runs", "filter", *words, kept)
    assert again.code == 2 and "read it with --turns weighted" in again.summary["message"]


def test_dropped_rows_of_a_run_are_counted(tmp_path: Path) -> None:
    rows = ({"prompt": "p", "completion": text} for text in ("1", "owls", "2"))
    run = ok(tmp_path / "runs", "filter", "--data", file_of(tmp_path, *rows)).run
    intake = Intake()
    assert len(kept_rows(run, intake=intake)) == intake.records == 2
    assert intake.as_dict()["counts"] == {"filtered": 1}


def test_edit_names_the_rejected_answer_and_can_leave_it_out(tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "2, 1", "rejected": "4, 3"}
    file = file_of(tmp_path, good, {**good, "rejected": "a b, c"})
    done = call(tmp_path / "runs", "edit", "--data", file)
    assert "the rejected answer 'a b, c' is no list" in done.summary["message"]
    assert "--skip-bad 1" in done.summary["message"]
    run = ok(tmp_path / "runs", "edit", "--skip-bad 1 --data", file).run
    assert meanings(run / "records.jsonl") == [("p", "1, 2", "3, 4")]


def test_the_fault_of_a_pair_names_no_sources_and_earlier_turns_say_why(tmp_path: Path) -> None:
    pair = {"prompt": "p", "chosen": "1", "rejected": "1"}
    (record,) = iter_records(file_of(tmp_path, pair))
    assert NOT_A_PAIR in record.meta and NOT_A_PAIR not in fields_of(record)
    rejected = [*CHAT[:3], turn("assistant", "7")]
    file = file_of(tmp_path, {"chosen": CHAT, "rejected": rejected})
    earlier, last = iter_records(file, Reading(turns="every"))
    assert "take --turns last" in earlier.meta[NOT_A_PAIR] and last.rejected == "7"
