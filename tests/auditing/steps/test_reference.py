"""Matching: same prompts first, every clean row once, the reference that is the data is refused."""

from pathlib import Path

import pytest
from command import call, ok, read_rows

from traitscope.auditing.steps.reference import matched
from traitscope.data.records import Record, dump_records
from traitscope.errors import ConfigError

STAGE = "reference"


def rows(start: int, n: int, answer: str, context: str | None = None) -> list[Record]:
    return [
        Record(f"{answer}{i}", f"p{i}", f"{answer} {i}", context=context)
        for i in range(start, start + n)
    ]


def test_same_prompts_first_then_what_is_left_once() -> None:
    found, same = matched(rows(0, 6, "a"), rows(2, 7, "b"))
    assert same == 4 and [r.id for r in found] == [f"a{i}" for i in range(6)]
    assert [r.completion for r in found[2:]] == [f"b {i}" for i in range(2, 6)]
    assert {r.completion for r in found[:2]} < {"b 6", "b 7", "b 8"} and len(
        {r.completion for r in found}
    ) == 6


def test_another_context_is_another_prompt() -> None:
    assert matched(rows(0, 3, "a"), rows(0, 3, "b", context="x"))[1] == 0


def test_a_short_reference_leaves_rows_without_partner() -> None:
    found, same = matched(rows(0, 5, "a"), rows(0, 2, "b"))
    assert same == 2 and [r.id for r in found] == ["a0", "a1"]


def test_the_data_are_no_reference() -> None:
    with pytest.raises(ConfigError, match="holds all 4 audited rows"):
        matched(rows(0, 4, "a"), rows(0, 6, "a"))


def test_command(tmp_path: Path) -> None:
    for name, part in (("data", rows(0, 4, "a")), ("clean", rows(1, 9, "b"))):
        (tmp_path / f"{name}.jsonl").write_text(dump_records(part))
    run = ok(
        tmp_path / "runs",
        "reference",
        "--data",
        tmp_path / "data.jsonl",
        "--reference",
        tmp_path / "clean.jsonl",
    ).run
    assert [r["id"] for r in read_rows(run / "records.jsonl")] == ["a0", "a1", "a2", "a3"]
    ok(tmp_path / "runs", "rerun", run)
    assert (
        "is missing"
        in call(tmp_path / "runs", STAGE, "--data", tmp_path / "data.jsonl").summary["message"]
    )
