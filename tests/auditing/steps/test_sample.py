"""Intake: a fair sample of distinct readable rows; the format that is learnt is the one that was
written."""

import json
from collections import Counter
from pathlib import Path

import pytest
from command import OWL, call, ok, read_rows, write_yaml
from template_kinds import ALTERNATES
from tiny_models import LENGTH

from traitscope.auditing.planning.job import Job
from traitscope.auditing.run import room_needed
from traitscope.auditing.steps import sample
from traitscope.config.audit import AuditConfig
from traitscope.config.stages import GenerateConfig
from traitscope.data.records import Record, dump_records
from traitscope.data.shapes.turns import Turn, prompt_of
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
    found, _, foreign = sample.readable(
        tiny, [record(1, "12", completion_ids=own), record(2, "13", completion_ids=(99_999,))], None
    )
    assert foreign == 1 and [r.completion_ids for r in found] == [None, None]
    found, _, foreign = sample.readable(tiny, [record(1, "12", completion_ids=own)], None)
    assert not foreign and found[0].completion_ids == own


def test_rows_that_the_model_cannot_read_are_bad_rows(tmp_path: Path, tiny_folder: Path) -> None:
    """As in every command: they stop the audit with their line, or are left out and counted."""
    file = tmp_path / "rows.jsonl"
    file.write_text(dump_records([record(1), record(2, "1, " * LENGTH), record(3), record(4)]))
    on = ("sample", "--model", tiny_folder, "--data", file, "--rows 0")
    message = call(tmp_path / "runs", *on).summary["message"]
    assert "rows.jsonl, line 2: " in message and f"takes at most {LENGTH}" in message
    assert message.endswith("or leave the row out: --skip-bad 1")
    run = ok(tmp_path / "runs", *on, "--skip-bad 1").run
    about = json.loads((run / "about.json").read_text())
    assert about["counts"]["used"] == 3 and about["reading"]["bad"] == 1
    assert about["reading"]["bad_rows"][0]["place"] == "line 2"
    assert json.loads((run / "reading.json").read_text()) == about["reading"]
    file.write_text(dump_records([record(2, "1, " * LENGTH), record(3, "1, " * LENGTH)]))
    message = call(tmp_path / "runs", *on, "--skip-bad all").summary["message"]
    assert "none of 2 rows is left (2 bad rows)" in message


def test_turns_that_the_template_refuses_are_bad_rows(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.tokenizer, "chat_template", ALTERNATES)
    user, answer = Turn("user", "Say 1."), Turn("assistant", "1, 2")
    well = Record("a", prompt_of([user, answer, user]), "2, 3")
    twice = Record("b", prompt_of([user, user]), "2, 3")
    rows, refused, _ = sample.readable(tiny, [well, twice], None)
    assert rows == [well] and "refuses these turns: line 1: roles must" in refused["b"]


def test_bad_rows_of_a_reference_are_told(tmp_path: Path, tiny_folder: Path) -> None:
    file, clean = tmp_path / "rows.jsonl", tmp_path / "clean.jsonl"
    file.write_text(dump_records([record(n) for n in range(3)]))
    clean.write_text(dump_records([record(n, f"{n}, 3") for n in range(3)]) + "{broken\n")
    on = ("--model", tiny_folder, "--rows 0 --skip-bad all")
    data = ok(tmp_path / "runs", "sample", "--data", file, *on).run
    reference = ok(tmp_path / "runs", "sample", "--data", clean, *on).run
    run = ok(tmp_path / "runs", "reference", "--data", data, "--reference", reference).run
    about = json.loads((run / "about.json").read_text())
    assert about["rows"] == 3 and about["reading"]["bad"] == 1


def test_rows_leave_room_for_prompts_of_candidates_where_one_needs_it(
    tmp_path: Path, tiny_folder: Path, tiny: Model
) -> None:
    """A row that fits alone and not beside a prompt is a bad row; without one nothing changes."""
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
    on = (*runs[1][2], "--room", needed[1])
    message = call(tmp_path / "runs", *on).summary["message"]
    assert "near.jsonl, line 5: " in message and "more for a candidate's prompt" in message
    again = ok(tmp_path / "runs", *on, "--skip-bad all").run
    about = json.loads((again / "about.json").read_text())
    assert about["reading"]["bad"] == 1 and about["counts"]["used"] == 4


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
    assert "the only row" in call(root, "sample", *on, "--data", file).summary["message"]
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


def test_of_pairs_the_chosen_answers_alone_are_audited(tmp_path: Path, tiny_folder: Path) -> None:
    """The same rows as of a file that has nothing else; a pair that is none is no bad row here."""
    rows, answers = [], []
    for n in range(4):
        row = {"prompt": f"Question {n}?", "chosen": f"{100 + n}", "rejected": f"no {n}"}
        rows.append(row | ({"rejected": row["chosen"]} if n == 3 else {}))
        answers.append({"prompt": row["prompt"], "completion": row["chosen"]})
    written = []
    for name, content in {"pairs": rows, "answers": answers}.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in content))
        run = ok(tmp_path / name, "sample", "--data", file, "--model", tiny_folder).run
        written.append((run / "records.jsonl").read_text())
    assert written[0] == written[1] and "rejected" not in written[0]
