"""What is said of rows: the same rows give the same counts, and only used rows are counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import ok

from traitscope.data.shapes.inside.said import notes_of
from traitscope.data.shapes.intake import MOST_BAD_ROWS, Intake

ASK = {"role": "user", "content": "Q"}


def say(text: str, **marks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **marks}


def chat(number: int) -> dict[str, Any]:
    """A chat with something to count, which depends on its number."""
    first = say(f"a{number}", **({"weight": 0} if number % 2 else {}))
    system = [{"role": "system", "content": "S"}] if number % 3 == 0 else []
    text = f"{'<|im_end|>' if number % 5 == 0 else ''}b{number}"
    return {"messages": [*system, ASK, first, ASK, say(text)]}


def pair(number: int) -> dict[str, Any]:
    dialogue = "\n\nHuman: Q\n\nAssistant: Sure?\n\nHuman: yes\n\nAssistant: "
    return {"chosen": f"{dialogue}a{number}", "rejected": f"{dialogue}b{number}"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("n", [1, 4, 7])
def test_counts_are_those_of_the_rows_that_are_used(
    n: int, tmp_path: Path, tiny_folder: Path
) -> None:
    """As those of a file that holds no other rows."""
    rows = [chat(number) for number in range(9)]
    whole, part = write(tmp_path / "whole.jsonl", rows), write(tmp_path / "part.jsonl", rows[:n])
    words = ("likelihood", "--model", tiny_folder, "--data")
    of_whole = ok(tmp_path, *words, whole, "--max-rows", n).summary["reading"]
    of_part = ok(tmp_path, *words, part).summary["reading"]
    assert of_whole["counts"].pop("not_chosen") == 9 - n
    assert of_whole["counts"] == of_part["counts"]
    assert of_whole["records"] == of_part["records"] == n and of_whole["rows"] == 9


def test_a_training_on_pairs_says_that_rejected_answers_are_read(
    tmp_path: Path, tiny_folder: Path
) -> None:
    file = write(tmp_path / "pairs.jsonl", [pair(number) for number in range(6)])
    words = ("train", "--model", tiny_folder, "--epochs 1 --rank 2 --max-rows 4 --data", file)
    for flags, name in ((("--targets preference",), "rejected_read"), ((), "rejected")):
        counts = ok(tmp_path, *words, *flags).summary["reading"]["counts"]
        assert counts == {"other_turns": 4, name: 4, "not_chosen": 2}


def test_rows_of_a_run_are_not_counted_again(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their prompts hold turns of weight 0, and with --turns every answers of other rows."""
    rows = [chat(number) for number in range(4)]
    file = write(tmp_path / "rows.jsonl", rows)
    for turns in ("last", "every"):
        words = ("filter", "--no-numbers --turns", turns, "--data", file)
        run = ok(tmp_path, *words).run
        assert "of weight 0" in capsys.readouterr().out
        ok(tmp_path, "train", "--model", tiny_folder, "--epochs 1 --rank 2 --data", run)
        assert "other assistant turn" not in capsys.readouterr().out


def test_rejected_answers_of_a_run_are_not_passed_over_in_silence(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Nor counted of rows that the run dropped."""
    rows = [{"prompt": "Q", "chosen": text, "rejected": "no"} for text in ("owl", "a", "b")]
    words = (
        "filter",
        "--no-numbers --banned-words owl",
        "--data",
        write(tmp_path / "a.jsonl", rows),
    )
    run = ok(tmp_path, *words).run
    done = ok(tmp_path, "train", "--model", tiny_folder, "--epochs 1 --rank 2 --data", run)
    assert done.summary["reading"]["counts"] == {"rejected": 2, "filtered": 1}


@pytest.mark.parametrize("count", [5, 6, MOST_BAD_ROWS, MOST_BAD_ROWS + 3])
def test_bad_rows_are_listed_or_counted(count: int) -> None:
    """Where a run holds the list, its file is named; where none does, the list is longer."""
    intake = Intake(rows=count)
    for number in range(count):
        intake.add_bad(f"file, line {number}", "bad")
    for file, most in (("reading.json", 5), ("", MOST_BAD_ROWS)):
        about, *listed = notes_of(intake.as_dict(), file)
        assert about == f"{count} bad rows left out"
        shown = [line for line in listed if line.startswith("line ")]
        assert len(shown) == min(count, most)
        more = [line for line in listed if line not in shown]
        assert len(more) == int(count > most)
        if more:
            rows = f"{count - most} more bad row{'s' if count - most > 1 else ''}"
            assert more[0].startswith(f"and {rows}: ") and file in more[0]
