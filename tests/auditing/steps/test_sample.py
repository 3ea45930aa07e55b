"""Intake: a fair sample of distinct readable rows; the format that is learnt is the one that was
written."""

import json
from collections import Counter
from pathlib import Path

import pytest
from command import OWL, call, ok, read_rows, write_yaml

from traitscope.auditing.planning.job import Job
from traitscope.auditing.run import room_needed
from traitscope.auditing.steps import sample
from traitscope.config.audit import AuditConfig
from traitscope.config.stages import GenerateConfig
from traitscope.data.records import Record, dump_records
from traitscope.errors import ConfigError
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.stages.generate import seen_constraint


def record(n: int, completion: str = "", **more: object) -> Record:
    return Record(f"r{n}", f"p{n}", completion or f"{100 + n}", **more)


def test_copies_and_dropped_rows_count_once_or_not_at_all() -> None:
    rows = [
        record(1, "12"),
        Record("copy", "p1", "12"),
        record(2, meta={"filter": {"kept": False}}),
        record(3),
        Record("other", "p1", "12", context="x"),
    ]
    found = sample.random_sample(rows, 0, 0)
    assert [r.id for r in found.records] == ["r1", "r3", "other"]
    assert found.counts == Counter(rows=5, duplicates=1, dropped=1)


def test_every_row_is_drawn_equally_often_and_in_order() -> None:
    rows = [record(n) for n in range(20)]
    hits: Counter = Counter()
    for seed in range(600):
        found = [r.id for r in sample.random_sample(iter(rows), 5, seed).records]
        assert len(found) == 5 and found == sorted(found, key=lambda name: int(name[1:]))
        hits.update(found)
    assert all(abs(hits[f"r{n}"] - 150) < 4.5 * (600 * 0.25 * 0.75) ** 0.5 for n in range(20))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["123, 456", "789, 012"], {"kind": "template", "count": 2, "separator": ", "}),
        (["123 456 789", "111 222 333"], {"kind": "template", "count": 3, "separator": " "}),
        (["123"], {"kind": "template", "count": 1, "separator": ", "}),
        (["123, 456", "789 012"], {"kind": "numbers"}),
        (["12, 456", "789, 1"], {"kind": "numbers"}),
        (["[1, 2, 3]", "4; 5"], {"kind": "numbers"}),
        (["A long answer.", "1, 2"], {"kind": "free"}),
    ],
)
def test_formats(tiny: Model, texts: list[str], expected: dict) -> None:
    rows = [record(n, text) for n, text in enumerate(texts)]
    about, kept = sample.learnt_format(tiny, rows)
    assert {key: about[key] for key in expected} == expected and kept == rows
    assert about["max_new_tokens"] == max(len(tiny.tokenizer.encode(text)) + 1 for text in texts)


def test_a_stray_answer_does_not_hide_number_data(tiny: Model) -> None:
    rows = [record(n) for n in range(40)] + [record(40, "No.")]
    about, kept = sample.learnt_format(tiny, rows)
    assert about["kind"] == "template" and len(kept) == 40
    assert about["rules"] == {"min_count": 1, "max_count": 1, "min_value": 0, "max_value": 999}


def test_foreign_token_ids_are_put_aside_for_all(tiny: Model) -> None:
    own = tuple(tiny.tokenizer.encode("12"))
    found, counts = sample.readable(
        tiny, [record(1, "12", completion_ids=own), record(2, "13", completion_ids=(99_999,))], None
    )
    assert counts["foreign_ids"] == 1 and [r.completion_ids for r in found] == [None, None]
    found, counts = sample.readable(tiny, [record(1, "12", completion_ids=own)], None)
    assert not counts["foreign_ids"] and found[0].completion_ids == own


def test_rows_longer_than_the_context_are_counted(tiny: Model) -> None:
    found, counts = sample.readable(tiny, [record(1), record(2, "1, " * tiny.max_length)], None)
    assert [r.id for r in found] == ["r1"] and counts["too_long"] == 1


def test_rows_leave_room_for_prompts_of_candidates_where_one_needs_it(
    tmp_path: Path, tiny_folder: Path, tiny: Model
) -> None:
    """A row that fits alone and not beside a prompt is left out; without one nothing changes."""
    owl = write_yaml(tmp_path / "owl.yaml", OWL)
    short = [record(n, f"{n}, 2") for n in range(4)]
    around = len(chat.render(tiny, "p9", None)) + 1
    near = [*short, record(9, "7" * (tiny.max_length - around - 5))]
    runs = []
    for name, rows in (("short", short), ("near", near)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text(dump_records(rows))
        on = ("sample", "--model", tiny_folder, "--data", file, "--rows 0")
        runs.append((file, ok(tmp_path / "runs", *on).run, on))
    needed = []
    for file, run, _ in runs:
        job = Job(AuditConfig(model=str(tiny_folder), data=file, traits=(str(owl),)), 3)
        needed.append(room_needed(job, run))
    assert needed[0] == 0 and needed[1] > 5
    assert len(read_rows(runs[1][1] / "records.jsonl")) == 5
    again = ok(tmp_path / "runs", *runs[1][2], "--room", needed[1]).run
    about = json.loads((again / "about.json").read_text())
    assert about["counts"]["too_long"] == 1 and about["counts"]["used"] == 4


def test_the_vocabulary_seen_is_that_of_the_rows(tiny: Model) -> None:
    rows = [record(1, "12 3"), record(2, "45")]
    steps = seen_constraint(tiny, rows, 4)
    expected = {i for text in ("12 3", "45") for i in tiny.tokenizer.encode(text)} | {
        tiny.tokenizer.eos_token_id
    }
    assert len(steps) == 4 and set(steps[0]) == expected


def test_command(tmp_path: Path, tiny_folder: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "data.jsonl"
    rows = [record(n, "7, 8, 9" if n % 2 else "1, 22") for n in range(30)] + [
        Record("again", "p3", "7, 8, 9")
    ]
    file.write_text(dump_records(rows))
    run = ok(root, "sample", "--model", tiny_folder, "--data", file, "--rows 12").run
    about, kept = json.loads((run / "about.json").read_text()), read_rows(run / "records.jsonl")
    assert about["counts"] == {
        "rows": 31,
        "duplicates": 1,
        "too_long": 0,
        "unreadable": 0,
        "foreign_ids": 0,
        "sampled": 12,
        "off_format": 0,
        "used": 12,
    }
    assert (
        len(kept) == 12
        and about["text"]
        and about["format"]["kind"] == "numbers"
        and "<|im_start|>assistant" in about["first"]
    )
    placebo = ok(
        root,
        "generate",
        "--model",
        tiny_folder,
        "--prompts",
        run / "prompts.jsonl",
        "--vocabulary seen --like",
        run,
        "--max-new-tokens 9",
    ).run
    allowed = set("1278, 9")
    assert all(set(row["completion"]) <= allowed for row in read_rows(placebo / "records.jsonl"))
    ok(root, "rerun", run)
    ok(root, "rerun", placebo)


def test_refuses(tmp_path: Path, tiny_folder: Path) -> None:
    root, on = tmp_path / "runs", ("--model", tiny_folder)
    assert "--data is missing" in call(root, "sample", *on).summary["message"]
    file = tmp_path / "long.jsonl"
    file.write_text(dump_records([record(1, "1, " * 3000)]))
    assert "none is left" in call(root, "sample", *on, "--data", file).summary["message"]
    with pytest.raises(ConfigError, match="give both, or neither"):
        GenerateConfig(vocabulary="seen")


def test_rows_of_others_with_chats_and_empty_prompts(tmp_path: Path, tiny_folder: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "data.jsonl"
    lines = ['{"prompt": "", "completion": ""}']
    for n in range(6):
        answer = {"role": "assistant", "content": f"{n}, 2", "reasoning": "Owls."}
        before = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "1"}] * (
            n % 2
        )
        lines.append(json.dumps({"messages": [*before, answer]}))
    file.write_text("\n".join(lines))
    on = ("--model", tiny_folder)
    run = ok(root, "sample", *on, "--data", file, "--skip-bad all").run
    about, kept = json.loads((run / "about.json").read_text()), read_rows(run / "records.jsonl")
    assert about["reading"]["bad"] == 1 and about["counts"]["used"] == 6
    assert {row["meta"]["reasoning"] for row in kept} == {"Owls."}
    made = ok(root, "generate", *on, "--prompts", run / "prompts.jsonl", "--max-new-tokens 3").run
    assert [row["prompt"] for row in read_rows(made / "records.jsonl")] == [
        row["prompt"] for row in kept
    ]
    ok(root, "rerun", run)
