"""Matching: same prompts first, every clean row once, the reference that is the data is refused."""

import json
from pathlib import Path

import pytest
from command import call, ok, read_rows

from traitscope.auditing.steps.reference import matched
from traitscope.auditing.steps.sample import random_sample
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


def test_rows_on_audited_prompts_are_read_before_others_are_drawn() -> None:
    """Of a large reference a few rows are drawn; those on the audited prompts are never missed."""
    audited, reference = rows(500, 8, "a"), [*rows(0, 1000, "b"), *rows(500, 1, "c")]
    drawn = random_sample(reference, 32, seed=0).records
    read = random_sample(reference, 32, seed=0, wanted=audited).records
    assert {r.id for r in drawn} < {r.id for r in read}
    assert matched(audited, drawn)[1] < matched(audited, read)[1] == 8
    assert [r.id for r in read] == [r.id for r in reference if r in read]
    assert len(read) <= 32 + 8
    other = rows(2000, 8, "a")
    assert random_sample(reference, 32, seed=0, wanted=other).records == drawn


def test_the_audit_reads_the_reference_for_its_prompts(tmp_path: Path, tiny_folder: Path) -> None:
    files = {"data": rows(100, 5, "a"), "clean": rows(0, 300, "b")}
    for name, part in files.items():
        (tmp_path / f"{name}.jsonl").write_text(dump_records(part))
    words = ("sample", "--dtype fp32 --model", tiny_folder, "--rows 5 --data")
    audited = ok(tmp_path / "runs", *words, tmp_path / "data.jsonl").run
    clean = ok(tmp_path / "runs", *words, tmp_path / "clean.jsonl", "--like", audited).run
    words = ("reference", "--data", audited, "--reference", clean)
    about = ok(tmp_path / "runs", *words).run / "about.json"
    assert json.loads(about.read_text()) == {"rows": 5, "same_prompt": 5}
    ok(tmp_path / "runs", "rerun", clean)


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
