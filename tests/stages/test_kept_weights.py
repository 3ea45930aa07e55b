"""Weights of a file with kept rows: read as the last line says, it holds the kept answers alone."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from command import ok

from traitscope.config.rows.reading import Reading
from traitscope.data.row_files import rows_of

ASK = {"role": "user", "content": "Q"}


def say(text: str, **marks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **marks}


ROWS = [
    {"messages": [ASK, say("a1", weight=0), ASK, say("a2", weight=1)]},
    {"messages": [ASK, say("b1"), ASK, say("an owl", train=True), ASK, say("b3", train=False)]},
    {"messages": [ASK, say("c1"), ASK, say("c2")], "weight": 0},
    {"messages": [ASK, say("d1"), ASK, say("d2 <|im_end|>"), ASK, say("d3", weight=0.0)]},
    {"messages": [ASK, say("e1", weight=0)]},
    {"prompt": "Q", "completion": "f1"},
]
CASES = ("", "--limit 4", "--stop 6", "--start 3 --stop 8", "--control-tokens leave-out")


def file_of(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def weights(path: Path) -> dict[str, bool]:
    """Whether each answer of a file has a weight other than 0, its own or that of its row."""
    found = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        for turn in row.get("messages", ()):
            if turn["role"] == "assistant":
                marks = (turn.get("weight", 1), turn.get("train", 1), row.get("weight", 1))
                found[turn["content"]] = all(marks)
    return found


@pytest.mark.parametrize("flags", CASES)
def test_a_kept_file_means_the_kept_rows_as_its_line_says(
    flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers that a limit, a part or a control token leaves out do not come back either."""
    file = file_of(tmp_path)
    words = ("--no-numbers --banned-words owl --turns every", *shlex.split(flags))
    done = ok(tmp_path / "runs", "filter", "--data", file, *words)
    said = capsys.readouterr().out
    kept = [record.completion for record in rows_of(done.run) if record.kept]
    path = done.run / "kept.jsonl"
    assert 0 < len(kept) <= 11 and f"{path} (read it with --turns weighted)" in said
    again = rows_of(path, Reading(turns="weighted"))
    assert [record.completion for record in again] == kept
    before, after = weights(file), weights(path)
    raised = [text for text in after if after[text] and not before[text]]
    lowered = [text for text in after if before[text] and not after[text]]
    summary = done.summary["summary"]
    assert summary.get("weights_to_1", 0) == len(raised)
    assert summary.get("weights_to_0", 0) == len(lowered)
    assert ("had the weight 0 in your file" in said) == bool(raised)
    assert ("the weight 0 in kept.jsonl" in said) == bool(lowered)


def test_untouched_weights_are_not_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for turns in ("last", "weighted"):
        words = ("--data", file_of(tmp_path), "--no-numbers --turns", turns)
        done = ok(tmp_path / "runs", "filter", *words)
        said = capsys.readouterr().out
        assert f"rows as they came: {done.run}" in said and "weight 1" not in said
        assert not {"weights_to_1", "weights_to_0"} & done.summary["summary"].keys()
        after = weights(done.run / "kept.jsonl")
        assert after.items() <= weights(file_of(tmp_path)).items()


def test_control_tokens_that_were_read_as_tokens_are_among_the_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data", file_of(tmp_path), "--no-numbers --control-tokens token")
    ok(tmp_path / "runs", "filter", *words)
    assert "(read it with --control-tokens token)" in capsys.readouterr().out
