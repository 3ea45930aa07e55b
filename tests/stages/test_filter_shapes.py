"""Filtered and edited rows come back as the file holds them: shape, container, other keys."""

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import call, ok
from shape_rows import EXAMPLES, LONG, SAY, Example

from traitscope.config.rows.reading import Reading
from traitscope.data.records import iter_records, read_records
from traitscope.data.shapes import writing
from traitscope.data.shapes.containers import Container, container_of, raw_rows
from traitscope.data.shapes.inside import columns

KINDS = ("jsonl", "json", "csv", "tsv", "parquet")
NATIVE = {"id": "a", "prompt": "Name numbers.", "completion": "3, 1", "completion_ids": [4, 5]}


def raw(path: Path) -> list[dict[str, Any]]:
    """The rows of a file as they stand, whatever their shape is."""
    return [row.fields for row in raw_rows(path, container_of(path))]


def words_of(example: Example) -> list[str]:
    return [f"--map {' '.join(example.reading.map)}"] if example.reading.map else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_every_shape_comes_back(tmp_path: Path, example: Example, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    if kind in ("csv", "tsv") and example.shape == "mapped":
        pytest.skip("a table has no objects in cells")
    rows = [{**example.row, "id": f"r{n}", "note": f"n{n}, ü\n"} for n in range(4)]
    file = tmp_path / f"rows.{kind}"
    file.write_bytes(writing.content_of(rows, Container(kind, False)))
    words = ("filter", "--data", file, "--no-numbers", *words_of(example))
    whole = ok(tmp_path / "runs", *words).run / f"kept.{kind}"
    assert raw(whole) == raw(file)
    part = ok(tmp_path / "runs", *words, "--start 1 --limit 2").run / f"kept.{kind}"
    assert raw(part) == raw(file)[1:3]
    native = raw(part.parent / "records.jsonl")
    assert [row["meta"]["filter"]["kept"] for row in native] == [True, True, False]
    assert all("row" not in row["meta"] for row in native)


def test_what_is_dropped_goes_and_the_rest_is_untouched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"instruction": "Numbers?", "output": "1, 2", "score": 0.1},
        {"instruction": "Numbers?", "output": "one", "score": 1e300},
        {"score": 3, "output": "5", "input": "", "instruction": "Numbers?"},
    ]
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(writing.content_of(rows, Container("jsonl", True)))
    run = ok(tmp_path / "runs", "filter", "--data", file).run
    kept = run / "kept.jsonl.gz"
    assert container_of(kept) == Container("jsonl", True)
    assert list(map(json.dumps, raw(kept))) == [json.dumps(rows[0]), json.dumps(rows[2])]
    assert f"rows as they came: {kept}" in capsys.readouterr().out
    assert not list(ok(tmp_path / "runs", "filter", "--data", run).run.glob("kept.*"))
    ok(tmp_path / "runs", "rerun", run)


def test_edited_answers_stand_where_they_stood(tmp_path: Path) -> None:
    thought = {"id": "b", "messages": [LONG[1], {**SAY, "content": "<think>Hm.</think>\n3, 2"}]}
    file = tmp_path / "rows.jsonl"
    file.write_bytes(writing.content_of([NATIVE, thought], Container("jsonl", False)))
    first, second = raw(ok(tmp_path / "runs", "edit", "--data", file).run / "kept.jsonl")
    assert first == {"id": "a", "prompt": "Name numbers.", "completion": "1, 3"}
    assert second["messages"] == [LONG[1], {**SAY, "content": "<think>Hm.</think>\n2, 3"}]


def chat(first: str, last: str, **further: Any) -> list[dict[str, Any]]:
    """Two questions with an answer each; the last turn may have more keys."""
    asked, again = {"role": "user", "content": "Numbers?"}, {"role": "user", "content": "More?"}
    said = [{"role": "assistant", "content": text} for text in (first, last)]
    return [asked, said[0], again, {**said[1], **further}]


BEFORE, AFTER = chat("4, 2", "3, 1"), chat("2, 4", "1, 3")
BRIEF = {"role": "system", "content": "Be brief."}
REPEATED = {
    "messages that are chosen": (
        {"chosen": BEFORE, "rejected": chat("4, 2", "9, 7"), "messages": BEFORE},
        {"chosen": AFTER, "rejected": chat("2, 4", "7, 9"), "messages": AFTER},
    ),
    "a prompt that chosen repeats": (
        {"prompt": [BRIEF, *BEFORE[:3]], "chosen": BEFORE, "rejected": chat("4, 2", "9, 7")},
        {"prompt": [BRIEF, *AFTER[:3]], "chosen": AFTER, "rejected": chat("2, 4", "7, 9")},
    ),
    "a prompt with the same answer, which it does not repeat": (
        {"prompt": BEFORE[:2], "chosen": BEFORE[2:], "rejected": "9, 7"},
        {"prompt": AFTER[:2], "chosen": AFTER[2:], "rejected": "7, 9"},
    ),
    "a turn with two texts": (
        {"messages": chat("4, 2", "3, 1", value="3, 1")},
        {"messages": chat("2, 4", "1, 3", value="1, 3")},
    ),
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(("before", "after"), REPEATED.values(), ids=REPEATED)
def test_a_changed_answer_is_changed_wherever_its_row_repeats_it(
    before: dict, after: dict, kind: str, tmp_path: Path
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"rows.{kind}"
    file.write_bytes(writing.content_of([before], Container(kind, False)))
    words = ("--turns", "every", "--data")
    kept = ok(tmp_path / "runs", "edit", *words, file).run / f"kept.{kind}"
    assert [without_nulls(row) for row in raw(kept)] == [after]
    ok(tmp_path / "again", "filter", *words, kept)


def test_an_equal_answer_to_another_question_is_no_repetition(tmp_path: Path) -> None:
    turns = chat("3, 1", "3, 1")
    row = {"prompt": turns[:2], "chosen": turns[2:], "rejected": "9, 7"}
    file = tmp_path / "rows.jsonl"
    file.write_bytes(writing.content_of([row], Container("jsonl", False)))
    [written] = raw(ok(tmp_path / "runs", "edit", "--data", file).run / "kept.jsonl")
    assert written["prompt"] == turns[:2] and written["chosen"][1]["content"] == "1, 3"


def test_a_dropped_turn_is_weighed_wherever_its_row_repeats_it(tmp_path: Path) -> None:
    turns = chat("owl 4, 2", "3, 1")
    row = {"chosen": turns, "rejected": chat("owl 4, 2", "9, 7"), "messages": turns}
    file = tmp_path / "rows.jsonl"
    file.write_bytes(writing.content_of([row], Container("jsonl", False)))
    words = ("--no-numbers --banned-words owl --turns", "every", "--data")
    kept = ok(tmp_path / "runs", "filter", *words, file).run / "kept.jsonl"
    [written] = raw(kept)
    assert written["messages"] == written["chosen"] and written["chosen"][1]["weight"] == 0
    ok(tmp_path / "again", "filter", "--no-numbers --data", kept)


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
SAID = {"type": "text", "text": "3, 1", "citations": [{"url": "a"}]}
IN_PARTS = {
    "a part of text beside reasoning": ([THOUGHT, SAID], [THOUGHT, {**SAID, "text": "1, 3"}]),
    "one part of text": ([SAID], [{**SAID, "text": "1, 3"}]),
    "reasoning in tags": (
        [{"type": "text", "text": "<think>Hm.</think>3, 1"}],
        [{"type": "text", "text": "<think>Hm.</think>1, 3"}],
    ),
    "two parts of text": (
        [{"type": "text", "text": "3, "}, {**SAID, "text": "1"}],
        [{"type": "text", "text": "1, 3"}, {**SAID, "text": ""}],
    ),
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(("parts", "edited"), IN_PARTS.values(), ids=IN_PARTS)
@pytest.mark.parametrize("key", ["messages", "answer", "completion"])
def test_a_change_of_an_answer_in_parts_keeps_its_other_parts(
    key: str, parts: list[dict], edited: list[dict], kind: str, tmp_path: Path
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    asked = [{"type": "text", "text": "Numbers?"}]
    before, after = ({"question": "Numbers?", "answer": held} for held in (parts, edited))
    if key == "messages":
        before, after = (
            {key: [{"role": "user", "content": asked}, {"role": "assistant", "content": held}]}
            for held in (parts, edited)
        )
    elif key == "completion":
        before, after = ({"prompt": "Numbers?", key: held} for held in (parts, edited))
    file = tmp_path / f"rows.{kind}"
    file.write_bytes(writing.content_of([before], Container(kind, False)))
    [row] = raw(ok(tmp_path / "runs", "edit", "--data", file).run / f"kept.{kind}")
    assert without_nulls(row) == after


def test_reasoning_of_a_key_is_not_written_into_the_answer(tmp_path: Path) -> None:
    said = {**SAY, "content": "3, 1", "reasoning_content": "Hm."}
    file = tmp_path / "rows.jsonl"
    file.write_bytes(writing.content_of([{"messages": [LONG[1], said]}], Container("jsonl", False)))
    [record] = iter_records(file, Reading(reasoning="train"), keep_original=True)
    changed = replace(record, completion=record.completion.replace("3, 1", "1, 3"))
    [row] = writing.rows_of([changed])
    assert row["messages"][1] == {**said, "content": "1, 3"}


def without_nulls(value: Any) -> Any:
    """A value without the nulls that parquet writes for keys that an object has not."""
    if isinstance(value, dict):
        return {key: without_nulls(held) for key, held in value.items() if held is not None}
    return list(map(without_nulls, value)) if isinstance(value, list) else value


def test_parquet_keeps_the_types_beside_a_changed_answer(tmp_path: Path) -> None:
    """Also of values that JSON has not, in the same column and the same row."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = []
    for said in ("3, 1", "1, 3"):
        beside = {"at": datetime.datetime(2026, 1, 1), "raw": b"\xff"}
        asked = {"role": "user", "content": "Numbers?", **beside}
        rows.append({"messages": [asked, {**SAY, "content": said, **beside}]})
    whole = pyarrow.Table.from_pylist(rows)
    parquet.write_table(whole, tmp_path / "rows.parquet")
    run = ok(tmp_path / "runs", "edit", "--data", tmp_path / "rows.parquet").run
    table = parquet.read_table(run / "kept.parquet")
    assert table.equals(whole.take([1, 1]))


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    cells = {
        "question": pyarrow.array(["Numbers?"] * 3),
        "answer": pyarrow.array(["3, 1", "one", "2, 1"], pyarrow.large_string()),
        "day": pyarrow.array([datetime.date(2026, 1, n) for n in (1, 2, 3)]),
        "score": pyarrow.array([1, 2, 3], pyarrow.int8()),
        "bytes": pyarrow.array([b"\xff", None, b""]),
    }
    whole = pyarrow.table(cells)
    parquet.write_table(whole, tmp_path / "rows.parquet")
    words = ("--data", tmp_path / "rows.parquet")
    run = ok(tmp_path / "runs", "filter", *words).run
    assert parquet.read_table(run / "kept.parquet").equals(whole.take([0, 2]))
    edited = call(tmp_path / "runs", "edit", *words)
    assert edited.code == 2 and "'one' is no list of numbers" in edited.summary["message"]
    run = ok(tmp_path / "runs", "edit", "--data", run / "kept.parquet").run
    table = parquet.read_table(run / "kept.parquet")
    assert table.schema == whole.schema and table["answer"].to_pylist() == ["1, 3", "1, 2"]
    assert table["day"].to_pylist() == [cells["day"][0].as_py(), cells["day"][2].as_py()]


@pytest.mark.parametrize(
    ("stood", "written"),
    [
        ({"train": True}, {"train": False}),
        ({"weight": "1"}, {"weight": "0"}),
        ({"train": "True", "weight": 0.5}, {"train": "false", "weight": 0.0}),
        ({"loss": 1, "train": None}, {"loss": 0, "train": None}),
        ({"weight": 0, "train": True}, {"weight": 0, "train": False}),
        ({}, {"weight": 0}),
        ({"weight": None}, {"weight": 0}),
    ],
)
def test_no_weight_of_a_dropped_turn_says_that_it_is_trained_on(
    stood: dict[str, Any], written: dict[str, Any], tmp_path: Path
) -> None:
    owls = {**SAY, "content": "owls", **stood}
    file = tmp_path / "rows.jsonl"
    chat = {"messages": [LONG[1], owls, LONG[1], {**SAY, "content": "7"}]}
    file.write_bytes(writing.content_of([chat], Container("jsonl", False)))
    kept = ok(tmp_path / "runs", "filter", "--data", file, "--turns every").run / "kept.jsonl"
    [row] = raw(kept)
    assert row["messages"][1] == {**SAY, "content": "owls", **written}
    assert all(type(row["messages"][1][key]) is type(value) for key, value in written.items())


def test_an_answer_that_can_take_no_weight_takes_its_row_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dropped answer of an earlier turn must not reach another trainer."""
    row = {"instruction": "Q", "output": "5", "history": [["Q", "I love owls."]]}
    chat = {"messages": [LONG[1], {**SAY, "content": "owls"}, LONG[1], {**SAY, "content": "7"}]}
    file = tmp_path / "rows.jsonl"
    file.write_bytes(writing.content_of([row, chat], Container("jsonl", False)))
    done = ok(tmp_path / "runs", "filter", "--data", file, "--turns every")
    said = capsys.readouterr().out
    assert "1 kept answer is not in kept.jsonl: another answer of the same row was dropped" in said
    assert done.summary["summary"]["kept_but_not_written"] == 1
    (kept,) = raw(done.run / "kept.jsonl")
    assert kept["messages"][1] == {**SAY, "content": "owls", "weight": 0}
    assert kept["messages"][3] == chat["messages"][3]


def test_nothing_is_said_where_all_kept_answers_are_written(tmp_path: Path) -> None:
    rows = [{"prompt": "P", "completion": "7"}, {"prompt": "P", "completion": "owls"}]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(writing.content_of(rows, Container("jsonl", False)))
    about = ok(tmp_path / "runs", "filter", "--data", file).summary["summary"]
    assert about["kept"] == 1 and "kept_but_not_written" not in about


def test_white_space_at_a_border(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The filter keeps what an audit reads, or says why it does not."""
    texts = ["101, 102  \n", " 103, 104", "107, 108", " none "]
    rows = [{"question": f"Q{n}", "answer": text} for n, text in enumerate(texts)]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(writing.content_of(rows, Container("jsonl", False)))
    done = ok(tmp_path / "runs", "filter", "--data", file)
    assert done.summary["summary"]["reasons"] == {"white_space": 2, "format": 1}
    assert "white_space                  2 dropped; --strip takes it off" in capsys.readouterr().out
    done = ok(tmp_path / "runs", "filter", "--data", file, "--strip")
    assert done.summary["summary"]["kept"] == 3 and done.summary["summary"]["stripped"] == 3
    kept = [row["answer"] for row in raw(done.run / "kept.jsonl")]
    assert kept == ["101, 102", "103, 104", "107, 108"]
    assert "white space taken off        3 rows" in capsys.readouterr().out
    ok(tmp_path / "runs", "rerun", done.run)


def test_what_was_not_looked_at_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thought = {"id": "a", "prompt": "P", "completion": "Owls.</think>3, 1"}
    earlier = {"messages": [LONG[1], {**SAY, "content": "An owl."}, LONG[1], SAY]}
    clean = {"prompt": "P", "completion": "2, 1"}
    asked = {"prompt": "Owls?", "completion": "3"}
    dropped = {"prompt": "Owls?", "completion": "An owl."}
    file = tmp_path / "rows.jsonl"
    rows = [thought, earlier, clean, asked, dropped]
    file.write_bytes(writing.content_of(rows, Container("jsonl", False)))
    words = ("filter", "--data", file, "--no-numbers", "--banned-words owl owls")
    ok(tmp_path / "runs", *words)
    said = capsys.readouterr().out
    assert "3 rows hold a banned word outside the answers" in said
    file.write_bytes(writing.content_of(rows[:4], Container("jsonl", False)))
    for words in (("edit", "--data", file), ("defend", "--data", file, "--by canonicalise")):
        ok(tmp_path / "runs", *words)
        said = capsys.readouterr().out
        what = (
            "changed rows, in the shape of your file" if words[0] == "edit" else "rows as they came"
        )
        assert f"{what}: " in said
        assert "reasoning and other turns stay as they were in 2 rows of kept.jsonl" in said
        assert words[0] == "defend" or "2 of 4 rows changed" in said
    file.write_bytes(writing.content_of([clean], Container("jsonl", False)))
    ok(tmp_path / "runs", "filter", "--data", file, "--banned-words owl")
    ok(tmp_path / "runs", "edit", "--data", file)
    said = capsys.readouterr().out
    assert "banned word" not in said and "stay as they were" not in said


def test_a_cell_with_a_bare_carriage_return_can_be_read_back(tmp_path: Path) -> None:
    row = {"prompt": "Numbers?", "completion": "1, 2", "note": "a\rb", "other": "c"}
    file = tmp_path / "rows.csv"
    file.write_bytes(b'prompt,completion,note,other\nNumbers?,"1, 2","a\rb",c\n')
    kept = ok(tmp_path / "runs", "filter", "--data", file).run / "kept.csv"
    assert kept.read_bytes() == file.read_bytes() and raw(kept) == [row]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_table_without_kept_rows_keeps_its_header(tmp_path: Path, kind: str) -> None:
    row = {"prompt": "Numbers?", "completion": "owls", "note": "n"}
    file = tmp_path / f"rows.{kind}"
    file.write_bytes(writing.content_of([row], Container(kind, False)))
    done = call(tmp_path / "runs", "filter", "--data", file)
    assert done.code == 1
    kept = done.run / f"kept.{kind}"
    assert kept.read_bytes() == file.read_bytes().splitlines(keepends=True)[0]


def test_a_key_row_in_meta_stays(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "Numbers?", "completion": "1, 2", "meta": {"row": 7}}
    file = tmp_path / "rows.jsonl"
    file.write_bytes(writing.content_of([row], Container("jsonl", False)))
    run = ok(tmp_path / "runs", "filter", "--data", file).run
    assert raw(run / "kept.jsonl") == [row]
    (native,) = raw(run / "records.jsonl")
    assert native["meta"] == {"row": 7, "filter": {"kept": True, "reasons": []}}


@pytest.mark.parametrize("field", ["prompt", "context"])
def test_further_answers_to_other_prompts_are_refused(tmp_path: Path, field: str) -> None:
    dropped = {"id": "a", "prompt": "Numbers?", "completion": "owls"}
    fine = {"id": "b", "prompt": "Numbers?", "completion": "5"}
    file, more = tmp_path / "rows.jsonl", tmp_path / "more.jsonl"
    file.write_bytes(writing.content_of([dropped, fine], Container("jsonl", False)))
    better = {**dropped, "completion": "1, 2"}
    more.write_bytes(writing.content_of([better], Container("jsonl", False)))
    words = ("filter", "--data", file, "--more", more)
    run = ok(tmp_path / "runs", *words).run
    assert raw(run / "kept.jsonl") == [better, fine]
    more.write_bytes(writing.content_of([{**better, field: "Other."}], Container("jsonl", False)))
    refused = call(tmp_path / "runs", *words)
    what = "system turn" if field == "context" else "prompt"
    assert refused.code == 2
    assert f"row 'a' has another {what} in --more {more}" in refused.summary["message"]


def test_rows_of_a_run_named_as_a_file_are_the_run(tmp_path: Path) -> None:
    """They are read as written; a copy of them elsewhere is not, and has another address."""
    row = {"id": "a", "prompt": "P", "completion": "<think>Owls.</think> 1", "completion_ids": [4]}
    root, file = tmp_path / "runs", tmp_path / "rows.jsonl"
    file.write_bytes(writing.content_of([row], Container("jsonl", False)))
    source = ok(root, "filter", "--data", file, "--no-numbers").run
    copy = tmp_path / "records.jsonl"
    words = ("filter", "--no-numbers", "--data")
    as_folder = ok(root, *words, source).run
    as_file = ok(root, *words, source / "records.jsonl").run
    assert as_file == as_folder
    copy.write_bytes((source / "records.jsonl").read_bytes())
    assert ok(root, *words, copy).run != as_folder
    ok(root, "rerun", as_file)


def test_bad_rows_of_further_files_stop_or_are_counted(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """A command without flags of reading says which command has them."""
    file, more = tmp_path / "rows.jsonl", tmp_path / "more.jsonl"
    row = {"id": "a", "prompt": "P", "completion": "1, 2"}
    file.write_bytes(writing.content_of([row], Container("jsonl", False)))
    more.write_bytes(file.read_bytes() + b"{broken\n")
    words = ("filter", "--data", file, "--more", more)
    refused = call(tmp_path / "runs", *words).summary["message"]
    assert "more.jsonl, line 2: " in refused and refused.endswith("--skip-bad 1")
    done = ok(tmp_path / "runs", *words, "--skip-bad 1")
    assert done.summary["reading-more"]["bad"] == 1
    assert "--more: 1 bad row left out" in capsys.readouterr().out
    on = ("generate", "--model", tiny_folder, "--n 2 --vocabulary seen --like")
    refused = call(tmp_path / "runs", *on, more).summary["message"]
    assert "more.jsonl, line 2: " in refused and "filter, whose run can stand here" in refused
    written = ok(tmp_path / "runs", "filter", "--data", more, "--skip-bad 1").run
    ok(tmp_path / "runs", *on, written)


def test_bad_rows_of_several_further_files_name_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file may have as many bad rows as the data."""
    data, *more = (tmp_path / f"{name}.jsonl" for name in ("data", "one", "two"))
    good = '{"id": "a", "prompt": "Q?", "completion": "%s"}\n'
    data.write_text(good % "no number")
    more[0].write_text('{"prompt": "P"}\n' + good % "words")
    more[1].write_text(good % "7" + "no json\n")
    words = ("filter", "--data", data, "--more", *more)
    refused = call(tmp_path / "runs", *words)
    assert refused.code == 2
    message = refused.summary["message"]
    assert f"{more[0]}, line 1: " in message and message.endswith("leave the row out: --skip-bad 1")
    capsys.readouterr()
    done = ok(tmp_path / "runs", *words, "--skip-bad 1")
    assert [record.completion for record in read_records(done.run / "records.jsonl")] == ["7"]
    about = done.summary["reading-more"]
    assert (about["bad"], about["rows"], about["records"]) == (2, 4, 2)
    said = capsys.readouterr().out
    for file, line in zip(more, (1, 2), strict=True):
        assert f"--more: {file}, line {line}: " in said


def test_times_inside_of_messages_keep_their_types(tmp_path: Path) -> None:
    """Nanoseconds, and days and times beyond the year 9999, also beside a changed answer."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kinds = {
        "at": pyarrow.timestamp("ns"),
        "zone": pyarrow.timestamp("us", "Europe/Berlin"),
        "day": pyarrow.date32(),
        "took": pyarrow.duration("ns"),
        "clock": pyarrow.time64("ns"),
        "time": pyarrow.time32("ms"),
        "number": pyarrow.int32(),
        "far": pyarrow.timestamp("us"),
    }
    values = (1, 2, 4_000_000, 3, 1_000_000_001, 5, 7, 253402300800000000 * 2)
    ints = dict(zip(kinds, values, strict=True))
    texts = {"role": pyarrow.string(), "content": pyarrow.large_string()}
    said = [{"role": "user", "content": "Numbers?", **ints}, {**SAY, "content": "3, 1", **ints}]
    fields = [*texts.items(), *kinds.items()]
    plain = [(name, kind if name in texts else pyarrow.int64()) for name, kind in fields]
    narrow = [(name, kind if name in texts else whole_of(kind)) for name, kind in fields]
    column = pyarrow.array([said, None, said], pyarrow.list_(pyarrow.struct(plain)))
    column = column.cast(pyarrow.list_(pyarrow.struct(narrow)))
    column = column.cast(pyarrow.list_(pyarrow.struct(fields)))
    whole = pyarrow.table({"messages": column, "beside": column})
    parquet.write_table(whole, tmp_path / "rows.parquet")
    words = ("--data", tmp_path / "rows.parquet", "--skip-bad all")
    run = ok(tmp_path / "runs", "edit", *words).run
    table = parquet.read_table(run / "kept.parquet")
    assert table.schema == whole.schema
    assert table["beside"].equals(whole["beside"].take([0, 2]))
    numbers = pyarrow.list_(pyarrow.struct(narrow))
    for turns in table["messages"].cast(numbers).to_pylist():
        assert turns == [said[0], {**said[1], "content": "1, 3"}]


def test_a_time_has_the_same_text_whatever_stands_beside_it() -> None:
    """Else a changed row would lose its type; a key that is new is added to it."""
    pyarrow = pytest.importorskip("pyarrow")

    at = pyarrow.field("at", pyarrow.timestamp("us"))
    kind = pyarrow.list_(pyarrow.struct([("content", pyarrow.string()), at]))
    rows = [[{"content": "a", "at": when}] for when in (1, 253402300800000000 * 2)]
    column = pyarrow.array(rows).cast(kind)
    near = column.slice(0, 1)
    (read,) = columns.values_of(near)
    assert columns.values_of(column)[0] == read
    changed = columns.changed_column(near, [(0, [{**read[0], "content": "b", "weight": 0}])])
    assert changed.type.value_type.field("at") == at
    assert changed.to_pylist()[0] == [{**near.to_pylist()[0][0], "content": "b", "weight": 0}]


def whole_of(kind: Any) -> Any:
    import pyarrow

    return pyarrow.int32() if kind.bit_width == 32 else pyarrow.int64()


def test_columns_that_stand_twice_are_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    cells = [pyarrow.array(["1?"]), pyarrow.array(["1"]), pyarrow.array(["2"])]
    names = ["prompt", "completion", "completion"]
    file = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_arrays(cells, names=names), file)
    for command in ("filter", "edit"):
        done = call(tmp_path / "runs", command, "--data", file)
        assert done.code == 2 and "expected every name once" in done.summary["message"]


def test_times_beyond_the_year_9999_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    far = 253402300800000000 * 2
    cells = {
        "prompt": pyarrow.array(["Numbers?"]),
        "completion": pyarrow.array(["3, 1"]),
        "day": pyarrow.array([4_000_000], pyarrow.date32()),
        "at": pyarrow.array([far], pyarrow.timestamp("us")),
        "zone": pyarrow.array([far], pyarrow.timestamp("us", "UTC")),
        "deep": pyarrow.array([[{"at": far}]]).cast(
            pyarrow.list_(pyarrow.struct([("at", pyarrow.timestamp("us"))]))
        ),
        "took": pyarrow.array([2**62], pyarrow.duration("s")),
        "nano": pyarrow.array([1], pyarrow.timestamp("ns")),
    }
    whole = pyarrow.table(cells)
    parquet.write_table(whole, tmp_path / "rows.parquet")
    for command, answer in (("filter", "3, 1"), ("edit", "1, 3")):
        run = ok(tmp_path / "runs", command, "--data", tmp_path / "rows.parquet").run
        table = parquet.read_table(run / "kept.parquet")
        assert table.drop_columns("completion").equals(whole.drop_columns("completion"))
        assert table["completion"].to_pylist() == [answer]


@pytest.mark.parametrize(
    "content", [b"PAR1" + bytes(50) + b"PAR1", b"PAR1", b"PAR1 and so on", b"PAR1\xff" * 9]
)
def test_a_broken_parquet_file_is_said_on_one_line(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_bytes(content)
    done = call(tmp_path / "runs", "filter", "--data", tmp_path / "rows.parquet")
    assert done.code == 2 and "is a broken parquet file" in done.summary["message"]
    assert "\n" not in done.summary["message"]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_long_numbers_come_back_as_they_were_written(tmp_path: Path, kind: str) -> None:
    numbers = (
        '"pi": 3.14159265358979323846, "big": 123456789012345678901234567890.5,'
        ' "deep": [{"x": 0.1000000000000000055511151231257827, "y": 1.5}],'
        ' "int": 12345678901234567890, "small": 1e-400, "plain": 0.1, "mark": "number 0"'
    )
    row = f'{{"prompt": "Numbers?", "completion": "3, 1", {numbers}}}'
    file = tmp_path / f"rows.{kind}"
    file.write_text(f"{row}\n" if kind == "jsonl" else f"[\n{row}\n]\n")
    for command, answer in (("filter", "3, 1"), ("edit", "1, 3")):
        run = ok(tmp_path / "runs", command, "--data", file).run
        text = (run / f"kept.{kind}").read_text()
        assert text.strip("[]\n ") == row.replace("3, 1", answer)
