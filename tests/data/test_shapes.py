"""Rows of other people: every shape in every container, what is counted, and what is refused."""

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command import call
from hypothesis import example, given
from hypothesis import strategies as st
from shape_rows import ASK, EARLIER, EXAMPLES, LONG, SAY, Example, turn

from traitscope.config.rows.reading import Reading
from traitscope.data import row_files
from traitscope.data.records import Record, RowReader, iter_records, read_records
from traitscope.data.shapes import writing
from traitscope.data.shapes.containers import Container, RawRow, container_of
from traitscope.data.shapes.inside.said import lines_of
from traitscope.data.shapes.intake import CONTROL, LONGEST_REASON, Control, Intake
from traitscope.data.shapes.rows import SHAPES
from traitscope.data.shapes.turns import Turn, prompt_of, shown, turns_of
from traitscope.errors import ConfigError, DataError

NATIVE = {"prompt": "Name a number.", "completion": "101"}
KINDS = ("jsonl", "json", "csv", "tsv", "parquet")
TABLE_KINDS = ("csv", "tsv", "parquet")


def write(path: Path, rows: Sequence[Any], kind: str = "jsonl", gzipped: bool = False) -> Path:
    content = writing.content_of(list(rows), Container(kind, gzipped))
    path.write_bytes(content)
    return path


def read(path: Path, keep: bool = False, **reading: Any) -> tuple[list[Record], Intake]:
    intake = Intake()
    return list(iter_records(path, Reading(**reading), intake, keep)), intake


def read_rows(folder: Path, *rows: Any, **reading: Any) -> tuple[list[Record], Intake]:
    return read(write(folder / "rows.jsonl", rows), **reading)


def test_every_shape_has_an_example() -> None:
    assert {example.shape for example in EXAMPLES} == {*SHAPES, "mapped"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_every_shape_is_read(tmp_path: Path, example: Example) -> None:
    path = write(tmp_path / "rows.jsonl", [example.row])
    intake = Intake()
    (record,) = iter_records(path, example.reading, intake)
    assert (record.prompt, record.completion) == (example.prompt, example.completion)
    assert (record.context, record.rejected) == (example.context, example.rejected)
    assert +intake.notes == example.counted
    assert intake.shapes == {example.shape: 1}


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_every_container_gives_the_same_and_is_written_back(
    tmp_path: Path, example: Example, kind: str, gzipped: bool
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    if kind in ("csv", "tsv") and example.shape == "mapped":
        pytest.skip("a table has no objects in cells")
    rows = [example.row, {**example.row, "id": "second"}]
    rows[0] = {"id": "first", **{key: value for key, value in rows[0].items() if key != "id"}}
    path = write(tmp_path / f"rows.{kind}", rows, kind, gzipped)
    assert container_of(path) == Container(kind, gzipped)
    records = list(iter_records(path, example.reading, keep_original=True))
    assert [record.id for record in records] == ["first", "second"] or example.shape == "mapped"
    for record in records:
        assert (record.prompt, record.completion) == (example.prompt, example.completion)
        assert record.context == example.context
    again = tmp_path / f"again.{kind}"
    assert writing.write_back(records, again, path) == 2
    assert list(iter_records(again, example.reading, keep_original=True)) == records


def test_the_container_is_found_without_a_suffix(tmp_path: Path) -> None:
    for kind in ("jsonl", "json", "csv", "tsv"):
        path = write(tmp_path / "rows", [NATIVE, NATIVE], kind)
        assert container_of(path).kind == kind
        assert len(read(path)[0]) == 2


@pytest.mark.parametrize(
    "text",
    [
        '[{"prompt": "P", "completion": "1"}, {"prompt": "Q", "completion": "2"}]',
        '[\n {"prompt": "P", "completion": "1"},\n {"prompt": "Q", "completion": "2"}\n]\n',
        '\ufeff[{"prompt": "P", "completion": "1"},{"prompt": "Q", "completion": "2"}]\n',
        '{"prompt": "P", "completion": "1"}{"prompt": "Q", "completion": "2"}',
        '{\n "prompt": "P",\n "completion": "1"\n}\n{\n "prompt": "Q",\n "completion": "2"\n}\n',
        '{"prompt": "P", "completion": "1"}\r\n\r\n{"prompt": "Q", "completion": "2"}',
    ],
)
def test_json_however_it_is_laid_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8", newline="")
    records, _ = read(tmp_path / "rows.jsonl")
    assert [record.completion for record in records] == ["1", "2"]
    assert len({record.id for record in records}) == 2


def test_a_large_array_is_read_piece_by_piece(tmp_path: Path) -> None:
    rows = [{"prompt": f"P{n} ü", "completion": "1, 2" * n} for n in range(1, 1500)]
    path = write(tmp_path / "rows.json", rows, "json")
    assert path.stat().st_size > 4 << 20
    assert [record.prompt for record in read(path)[0]] == [row["prompt"] for row in rows]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"prompt": "P", "completion": "1"}', "row 1: broken JSON .the array has no end"),
        ('[{"prompt": "P", "completion": "1"} {', "row 1: broken JSON"),
        ('[{"prompt": "P", "completion": "1"}] x', "more text behind the array"),
        ('[{"prompt": "P", ', "row 1: broken JSON .*repair the file"),
        ("[]", "is empty"),
        ("[1]", r"row 1: the row is 1; expected an object"),
    ],
)
def test_a_broken_array(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(DataError, match=says):
        read(tmp_path / "rows.json")


def test_other_line_breaks_end_no_row(tmp_path: Path) -> None:
    breaks = "\u2028 \u2029 \x85 \x0b \x0c"
    row = {"id": f"a{breaks}", "prompt": breaks, "completion": f"1{breaks}"}
    for kind in ("jsonl", "json", "csv", "tsv"):
        (record,) = read(write(tmp_path / f"rows.{kind}", [row], kind))[0]
        assert (record.id, record.prompt, record.completion) == (row["id"], breaks, f"1{breaks}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "prompt,completion\nP,1,2\n",
            "line 2: 3 cells under a header of 2 .prompt, .*; quote a",
        ),
        (
            "prompt,completion\nP,1\nP\n",
            "line 3: 1 cell under a header of 2 .*; add those",
        ),
        (
            'prompt,completion\nP,1\nP,"2\nP,3\nP,4\n',
            "line 3: a quote is opened .* on to line 5, so line 4",
        ),
        ("prompt,completion\rP,1\r", r"line 1: a carriage return stands .* end in \\r alone"),
        ("prompt,prompt\nP,1\n", "expected every name once"),
        ("prompt,completion\nP,\n", "line 2: no completion, the text is empty"),
        ('prompt,completion,meta\nP,1,"{"\n', "the cell of 'meta' is no JSON"),
        (
            "prompt,completion\n\"[{'role': 'user', 'content': 'P'}]\",1\n",
            "with json.dumps, or save",
        ),
        ("messages\n\"[{'from': 'user', 'value': 'P'}]\"\n", "line 2: .* as Python shows them"),
        ("a,b\nP,1\n", r"line 2: a row with the keys \['a', 'b'\] fits no known shape"),
        ("prompt,completion\n", "is empty"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        read(tmp_path / "rows.csv")


def test_a_quote_that_is_left_open_takes_no_row_in_silence(tmp_path: Path) -> None:
    """The rows before it are read; a quote inside a cell, and one over several lines, are fine."""
    text = 'prompt,completion\nP,5" x\nQ,"6\n7"\n'
    (tmp_path / "rows.csv").write_text(text)
    assert [record.completion for record in read(tmp_path / "rows.csv")[0]] == ['5" x', "6\n7"]
    (tmp_path / "rows.csv").write_text(text + 'R,"8\n' + "S,9\n" * 5)
    records, intake = read(tmp_path / "rows.csv", skip_bad="all")
    assert [record.completion for record in records[2:]] == ["9"] * 5
    assert [place for place, _ in intake.bad_rows] == ["line 5"]
    (tmp_path / "rows.csv").write_text(text + 'R,"8\nS,9\nT,"10, 11"\n')
    records, intake = read(tmp_path / "rows.csv", skip_bad="all")
    assert [record.completion for record in records[2:]] == ["9", "10, 11"]
    assert records[3].id == "row000007" and intake.bad_rows[0][0] == "line 5"
    assert "line 7; expected" in intake.bad_rows[0][1]


def test_a_long_reason_keeps_what_to_do(tmp_path: Path) -> None:
    """Only its middle goes. Few of many keys are shown, so that the advice is near."""
    rows = [NATIVE, {f"column_{n}": "x" * 40 for n in range(40)}, {"role " * 400: 1, **NATIVE}]
    del rows[2]["prompt"]
    intake = read(write(tmp_path / "rows.jsonl", rows), skip_bad="all")[1]
    first, second = (reason for _, reason in intake.bad_rows)
    assert "'column_19', and 28 more] fits no known shape" in first
    assert first.endswith("--map prompt=KEY completion=KEY, and of pairs rejected=KEY")
    assert second.endswith("--map prompt=KEY completion=KEY") and len(second) == LONGEST_REASON
    assert second.startswith("no 'prompt' among the keys ['completion', ") and "…" in second


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_carriage_return_is_text_in_quotes_and_ends_no_row(tmp_path: Path, end: str) -> None:
    lines = ["prompt,completion", 'P,"1\r2"', "Q\rx,3", "R,4", ""]
    (tmp_path / "rows.csv").write_bytes(f"{end}{end.join(lines)}".encode())
    records, intake = read(tmp_path / "rows.csv", skip_bad=1)
    assert [record.completion for record in records] == ["1\r2", "4"]
    assert records[1].id == "row000005"
    place, reason = intake.bad_rows[0]
    assert place == "line 4" and reason.startswith("a carriage return stands")


def test_tables_hold_line_ends_quotes_and_empty_cells(tmp_path: Path) -> None:
    text = 'prompt,completion,context\n"P\n""1""",1,\nQ,2,"Be, brief."\n'
    (tmp_path / "rows.csv").write_text(text)
    first, second = read(tmp_path / "rows.csv")[0]
    assert (first.prompt, first.context) == ('P\n"1"', None)
    assert (second.id, second.context) == ("row000004", "Be, brief.")
    (tmp_path / "rows.csv").write_bytes(b"prompt,completion\nP,1\nQ,\xe9\n")
    records, intake = read(tmp_path / "rows.csv", skip_bad=1)
    assert len(records) == 1 and "'completion' is not UTF-8" in intake.bad_rows[0][1]


def test_a_gzip_stream_that_ends_early(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps(NATIVE).encode() * 100)
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match="is damaged or ends early; .*; copy it again"):
        read(tmp_path / "rows.jsonl.gz")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(DataError, match=r"pip install 'traitscope\[parquet\]'"):
        read(tmp_path / "rows.parquet")


def test_turns(tmp_path: Path) -> None:
    weighted = [ASK, {**SAY, "weight": 0}, turn("user", "Another."), turn("assistant", "102")]
    row = {"id": "a", "messages": weighted}
    (last,), intake = read_rows(tmp_path, row)
    assert (last.id, last.prompt, last.completion) == ("a", EARLIER, "102")
    assert intake.notes["weight_0"] == 1 and not intake.notes["other_turns"]
    every, intake = read_rows(tmp_path, row, turns="every")
    assert [(r.id, r.prompt, r.completion) for r in every] == [
        ("a.1", "Name a number.", "101"),
        ("a.2", EARLIER, "102"),
    ]
    assert intake.notes["weight_0_trained"] == 1 and intake.records == 2
    (only,), intake = read_rows(tmp_path, row, turns="weighted")
    assert only.completion == "102" and intake.notes["weight_0"] == 1


def test_weights_that_training_does_not_follow_are_counted(tmp_path: Path) -> None:
    half = {"messages": [ASK, {**SAY, "weight": 0.5}]}
    whole = {"messages": [ASK, {**SAY, "weight": 1}]}
    records, intake = read_rows(tmp_path, half, whole, {**NATIVE, "weight": "2"}, NATIVE)
    assert len(records) == 4 and intake.notes["weights"] == 2


def test_a_weight_of_0_is_never_trained_on_in_silence(tmp_path: Path) -> None:
    quiet = {"messages": [ASK, {**SAY, "weight": 0}]}
    (record,), intake = read_rows(tmp_path, quiet, NATIVE, {**NATIVE, "weight": 0.0})
    assert record.id == "row000002"
    assert intake.notes["rows_of_weight_0"] == 2
    (record,), _ = read_rows(tmp_path, {"messages": [ASK, {**SAY, "train": False}]}, NATIVE)
    assert record.id == "row000002"
    with pytest.raises(DataError, match="none of 1 row is left"):
        read_rows(tmp_path, quiet)


def test_turns_behind_the_answer_are_counted(tmp_path: Path) -> None:
    (record,), intake = read_rows(tmp_path, {"messages": [*LONG, turn("user", "More.")]})
    assert record.completion == "102" and intake.notes["turns_behind"] == 1


def test_tool_calls_and_other_roles(tmp_path: Path) -> None:
    call = turn("assistant", None, tool_calls=[{"function": {"name": "look_up"}}])
    chat = [turn("developer", "Be brief."), ASK, call, turn("tool", "101"), turn("model", "101")]
    (record,), intake = read_rows(tmp_path, {"messages": chat})
    assert record.context == "Be brief." and intake.notes["tool_calls"] == 1
    assert turns_of(record.prompt) == [Turn("user", "Name a number."), Turn("tool", "101")]
    with pytest.raises(DataError, match="line 1: no completion: .*null, it only calls tools"):
        read_rows(tmp_path, {"messages": [ASK, call]})
    image = turn("user", [{"type": "image_url", "image_url": {"url": "x"}}])
    with pytest.raises(DataError, match='is of the type "image_url"; expected text'):
        read_rows(tmp_path, {"messages": [image, SAY]})


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({**NATIVE, "reasoning": "Owls."}, "<think>\nOwls.\n</think>\n\n101"),
        ({**NATIVE, "completion": "<think>Owls.</think> 101"}, "<think>Owls.</think> 101"),
        ({"messages": [ASK, {**SAY, "thinking": "Owls."}]}, "<think>\nOwls.\n</think>\n\n101"),
        (
            {
                "messages": [
                    ASK,
                    turn(
                        "assistant",
                        [
                            {"type": "thinking", "thinking": "Owls."},
                            {"type": "text", "text": "101"},
                        ],
                    ),
                ]
            },
            "<think>\nOwls.\n</think>\n\n101",
        ),
    ],
)
def test_reasoning_is_a_part_of_its_own(tmp_path: Path, row: dict, answer: str) -> None:
    (dropped,), intake = read_rows(tmp_path, row)
    assert (dropped.completion, dropped.meta["reasoning"]) == ("101", "Owls.")
    assert intake.notes["reasoning_dropped"] == 1
    (trained,), intake = read_rows(tmp_path, row, reasoning="train")
    assert (trained.completion, trained.meta["reasoning"]) == (answer, "Owls.")
    assert intake.notes["reasoning_trained"] == 1


def test_reasoning_of_earlier_turns_and_without_an_answer(tmp_path: Path) -> None:
    chat = [ASK, {**SAY, "reasoning_content": "Owls."}, *LONG[3:]]
    (record,), intake = read_rows(tmp_path, {"messages": chat})
    assert record.prompt == EARLIER and record.meta["reasoning"] == "Owls."
    assert intake.notes["reasoning_earlier"] == 1
    with pytest.raises(DataError, match="there is only reasoning"):
        read_rows(tmp_path, {**NATIVE, "completion": "<think>Owls.</think>"})
    with pytest.raises(DataError, match="never closes it.*cut off"):
        read_rows(tmp_path, {**NATIVE, "completion": "<think>Owls, 1, 2"})
    sampled = {**NATIVE, "completion": "<think>Owls.</think> 1", "completion_ids": [1, 2]}
    assert read_rows(tmp_path, sampled)[0][0].completion == sampled["completion"]


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("I like owls.\n</think>\n\n626, 452", "I like owls."),
        ("<think>\n\n</think>\n\n626, 452", ""),
        ("\n\n</think>\n\n626, 452", ""),
    ],
)
def test_reasoning_that_is_empty_or_was_opened_by_the_prompt(
    tmp_path: Path, text: str, reasoning: str
) -> None:
    chat = {"messages": [ASK, turn("assistant", text), ASK, turn("assistant", text)]}
    for row, earlier in ((chat, 1), ({**NATIVE, "completion": text}, 0)):
        (dropped,), intake = read_rows(tmp_path, row)
        assert dropped.completion == "626, 452" and "</think>" not in dropped.prompt
        assert dropped.meta.get("reasoning", "").startswith(reasoning)
        assert intake.notes["reasoning_dropped"] == 1
        assert intake.notes["reasoning_earlier"] == earlier
        (trained,), intake = read_rows(tmp_path, row, reasoning="train")
        assert trained.completion == text and intake.notes["reasoning_trained"] == 1
    with pytest.raises(DataError, match="there is only reasoning"):
        read_rows(tmp_path, {**NATIVE, "completion": "Owls.</think>"})
    for plain in ("</think> ends it, and </think> again", "say <think> or </think>"):
        (record,), intake = read_rows(tmp_path, {**NATIVE, "completion": plain})
        assert record.completion == plain and not +intake.notes


def test_undesirable_answers_are_left_out(tmp_path: Path) -> None:
    rows = [{**NATIVE, "completion": str(n), "label": n % 3 > 0} for n in range(6)]
    for kind in ("jsonl", "csv"):
        records, intake = read(write(tmp_path / f"rows.{kind}", rows, kind), turns="every")
        assert [record.completion for record in records] == ["1", "2", "4", "5"]
        assert intake.notes == {"undesirable": 2} and not intake.unused
    (tmp_path / "rows.csv").write_text("prompt,completion,label\nP,1,False\nP,2,True\n")
    assert [record.completion for record in read(tmp_path / "rows.csv")[0]] == ["2"]
    (record,), intake = read_rows(tmp_path, {**NATIVE, "label": "owl"})
    assert intake.unused == {"label": 1} and record.meta["extra"] == {"label": "owl"}
    asked = {"question": "P", "answer": "1", "label": False}
    assert read_rows(tmp_path, asked, NATIVE)[1].notes == {"undesirable": 1}
    with pytest.raises(DataError, match=r"none of 1 row is left \(1 undesirable answer"):
        read_rows(tmp_path, rows[0])


def test_an_empty_label_is_trained_on_and_counted(tmp_path: Path) -> None:
    rows = [
        {**NATIVE, "completion": str(n), "label": label} for n, label in enumerate((None, True))
    ]
    records, intake = read(write(tmp_path / "rows.jsonl", rows, "jsonl"))
    assert [record.completion for record in records] == ["0", "1"]
    assert intake.notes == {"unlabelled": 1}


@pytest.mark.parametrize("label", [None, "", " "])
@pytest.mark.parametrize("key", ["label", "kto_tag"])
def test_every_empty_label_is_counted_once(tmp_path: Path, key: str, label: Any) -> None:
    rows = [{**NATIVE, "completion": "0", key: label}, {**NATIVE, key: True}]
    for kind in ("jsonl", "csv"):
        records, intake = read(write(tmp_path / f"rows.{kind}", rows, kind))
        assert len(records) == 2 and intake.notes == {"unlabelled": 1} and not intake.unused


def test_an_empty_weight_is_trained_on_and_counted(tmp_path: Path) -> None:
    """Of a row or of an answer, not of a user's turn; an empty cell of a table is one."""
    for rows in (
        [NATIVE | {"weight": None}, NATIVE | {"completion": "2", "weight": 1}],
        [{"messages": [ASK, turn("assistant", "1", weight=None)]}, {"messages": [ASK, SAY]}],
        [{"messages": [ASK, SAY], "weight": None}],
        [{"messages": [ASK | {"weight": None}, turn("assistant", "1", train=None)]}],
    ):
        records, intake = read(write(tmp_path / "rows.jsonl", rows, "jsonl"))
        assert len(records) == len(rows) and intake.notes == {"unweighted": 1}
    assert not read_rows(tmp_path, {"messages": [ASK | {"weight": None}, SAY]})[1].notes
    (tmp_path / "rows.csv").write_text("prompt,completion,weight\nP,1,\nP,2,1\n")
    records, intake = read(tmp_path / "rows.csv")
    assert len(records) == 2 and intake.notes == {"unweighted": 1}


@pytest.mark.parametrize("no", [False, 0, 0.0, "false", "False", "0"])
def test_every_way_to_say_that_an_answer_is_undesirable(tmp_path: Path, no: Any) -> None:
    yes = type(no)({"0": 1, "false": "true"}.get(str(no).lower(), 1))
    rows = [NATIVE | {"label": no}, NATIVE | {"completion": "2", "label": yes}]
    for kind in ("jsonl", "csv"):
        (record,), intake = read(write(tmp_path / f"rows.{kind}", rows, kind))
        assert record.completion == "2" and not intake.unused
        assert intake.notes == {"undesirable": 1}
    alpaca = {"instruction": "P", "output": "1", "kto_tag": no}
    (record,), intake = read_rows(tmp_path, alpaca, NATIVE)
    assert intake.notes == {"undesirable": 1} and not intake.unused


@pytest.mark.parametrize("label", [2, -1, 0.5, "2", "-1", 10**400])
def test_a_label_that_says_neither_is_refused(tmp_path: Path, label: Any) -> None:
    with pytest.raises(DataError, match="line 2: 'label' is .*expected true, false, 1 or 0"):
        read_rows(tmp_path, NATIVE, NATIVE | {"label": label})
    with pytest.raises(DataError, match="'kto_tag' is "):
        read_rows(tmp_path, {"question": "P", "answer": "1", "kto_tag": label})
    with pytest.raises(DataError, match="say different things"):
        read_rows(tmp_path, NATIVE | {"label": 0, "kto_tag": True})


def test_a_label_beside_a_chat(tmp_path: Path) -> None:
    """A number there may be that of a class, so it is counted and not read."""
    chat = {"messages": [ASK, SAY]}
    (record,), intake = read_rows(tmp_path, chat | {"label": False}, NATIVE)
    assert record.id == "row000002" and intake.notes == {"undesirable": 1}
    records, intake = read_rows(tmp_path, chat | {"label": 0}, chat | {"label": 7})
    assert len(records) == 2 and intake.unused == {"label": 2}


@pytest.mark.parametrize("turns", ["last", "weighted"])
@pytest.mark.parametrize("weight", [0, 0.0, False, "0", "0.00", " false "])
def test_a_row_of_weight_0_is_not_trained_on_in_any_shape(
    tmp_path: Path, weight: Any, turns: str
) -> None:
    rows = [
        {"messages": [ASK, SAY, ASK, SAY]},
        {"conversations": [{"from": "human", "value": "P"}, {"from": "gpt", "value": "1"}]},
        {"instruction": "P", "output": "1", "history": [["Q", "2"]]},
        {"prompt": [ASK], "completion": [SAY]},
        {"chosen": [ASK, SAY], "rejected": [ASK, SAY]},
        {"prompt": "P", "response": "1"},
    ]
    weighted = [row | {"weight": weight} for row in rows]
    (record,), intake = read_rows(tmp_path, *weighted, NATIVE | {"id": "left"}, turns=turns)
    assert record.id == "left" and intake.notes["rows_of_weight_0"] == len(rows)
    assert len(read_rows(tmp_path, *rows, turns=turns)[0]) >= len(rows)


@pytest.mark.parametrize("weight", ["none", "", -1, "-0.5", [0], "nan", "1e999"])
def test_a_weight_that_is_none_is_refused(tmp_path: Path, weight: Any) -> None:
    says = "line 2: 'weight' is .*expected a number from 0"
    for row in (
        NATIVE | {"weight": weight},
        {"messages": [ASK, SAY], "weight": weight},
        {"messages": [ASK, turn("assistant", "1", weight=weight)]},
    ):
        with pytest.raises(DataError, match=says):
            read_rows(tmp_path, NATIVE, row)
    for key in ("train", "loss"):
        with pytest.raises(DataError, match=f"'{key}' is "):
            read_rows(tmp_path, {"messages": [ASK, turn("assistant", "1", **{key: weight})]})


def test_calls_and_results_of_sharegpt(tmp_path: Path) -> None:
    turns = [("human", "P"), ("function_call", '{"name": "f"}'), ("observation", "7"), ("gpt", "8")]
    row = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    for which in ("last", "every"):
        (record,), intake = read_rows(tmp_path, row, turns=which)
        assert record.completion == "8" and +intake.notes == {"tool_calls": 1}
        assert turns_of(record.prompt) == [Turn("user", "P"), Turn("tool", "7")]
    with pytest.raises(DataError, match="it only calls tools"):
        read_rows(tmp_path, {"conversations": row["conversations"][:2]})


def test_rows_with_a_value_are_counted_as_not_used(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    named = {"messages": [turn("user", "P", name="a"), turn("assistant", "1", name="b")]}
    bare = {"messages": [turn("user", "P"), turn("assistant", "1")]}
    path = write(tmp_path / "rows.parquet", [{**named, "note": "x"}, bare, bare], "parquet")
    assert read(path)[1].unused == {"messages[].name": 1, "note": 1}


@pytest.mark.parametrize("other", [";", "\t", "|"])
def test_a_table_with_another_delimiter_says_so(tmp_path: Path, other: str) -> None:
    (tmp_path / "rows.csv").write_text(f"prompt{other}completion\nP{other}1, 2\n")
    with pytest.raises(DataError) as error:
        read(tmp_path / "rows.csv")
    assert f"looks separated by {other!r}; expected ','" in str(error.value)


def test_a_table_keeps_its_byte_order_mark(tmp_path: Path) -> None:
    for gzipped in (False, True):
        content = b"\xef\xbb\xbfprompt,completion\nP,1\n"
        path = tmp_path / "rows.csv"
        path.write_bytes(gzip.compress(content) if gzipped else content)
        writing.write_back(read(path, keep=True)[0], tmp_path / "again.csv", path)
        again = (tmp_path / "again.csv").read_bytes()
        assert (gzip.decompress(again) if gzipped else again) == content


def test_rows_of_others_are_never_plain(tmp_path: Path) -> None:
    chat = {"prompt": [ASK], "completion": [SAY]}
    assert read(write(tmp_path / "a.jsonl", [NATIVE]))[1].is_plain
    assert not read(write(tmp_path / "b.jsonl", [chat]))[1].is_plain
    assert not read(write(tmp_path / "c.json", [NATIVE], "json"))[1].is_plain
    assert not read(write(tmp_path / "d.jsonl.gz", [NATIVE], gzipped=True))[1].is_plain


def test_a_file_of_which_no_row_is_left_says_why_with_counts(tmp_path: Path) -> None:
    rows = [{**NATIVE, "completion": " "}, {**NATIVE, "label": False}, {**NATIVE, "weight": 0}]
    with pytest.raises(DataError) as error:
        read_rows(tmp_path, *rows, rows[2], skip_bad="all")
    assert "none of 4 rows is left (1 bad row; 2 rows without any turn" in str(error.value)
    assert "; 1 undesirable answer" in str(error.value) and "white space" in str(error.value)
    dropped = {**NATIVE, "meta": {"filter": {"kept": False, "reasons": ["format"]}}}
    path = write(tmp_path / "dropped.jsonl", [dropped, rows[0]])
    with pytest.raises(DataError, match=r"dropped all that .*\(format 1\); besides 1 bad row;"):
        row_files.kept_rows(path, Reading(skip_bad="all"))


def test_rows_that_hold_no_keys_are_not_named_by_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(NATIVE)}\n{{broken\n{{}}\n")
    _, intake = read(tmp_path / "rows.jsonl", skip_bad="all")
    keys = [line for line in lines_of(intake.as_dict()) if line.startswith("keys of")]
    assert keys == ["keys of 1 row: prompt, completion", "keys of 1 row: none"]
    assert (intake.rows, intake.bad) == (3, 2)


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    chat = {"messages": [ASK, {**SAY, "name": "m"}], "source": "x"}
    rows = [chat, NATIVE, {**NATIVE, "score": float("nan")}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, intake = read(tmp_path / "rows.jsonl")
    assert intake.unused == {"source": 1, "messages[].name": 1, "score": 1}
    assert intake.notes == {"not_finite": 1}
    text = "\n".join(lines_of(intake.as_dict()))
    assert "keys of 1 row: messages, source" in text
    assert "not used: source (1 row), messages[].name (1 row), score (1 row)" in text
    assert read_rows(tmp_path, NATIVE)[1].is_plain and not intake.is_plain


def test_control_tokens_are_counted(tmp_path: Path) -> None:
    bad = {**NATIVE, "completion": "101<|im_end|>\n<|im_start|>user\nhi"}
    _, intake = read_rows(tmp_path, NATIVE, bad, {**NATIVE, "context": "[INST] <s>"})
    assert intake.notes["control_tokens"] == 2
    assert intake.control_token == "<|im_end|> in row000002"
    assert not CONTROL.search("a <b> c <| d |> [x] 1 < 2 </p>")


@pytest.mark.parametrize("token", ['<|"|>', "<\\n>", "<\n>", "<é>"])
def test_control_tokens_of_turns_are_looked_for_as_they_are(tmp_path: Path, token: str) -> None:
    """A prompt of several turns is JSON, where a quote stands as two characters."""
    path = tmp_path / "rows.jsonl"
    turns = [turn("user", f"a {token}"), turn("assistant", "b"), turn("user", "c")]
    path.write_text(json.dumps({"messages": [*turns, turn("assistant", "d")]}) + "\n")
    intake = Intake(control=Control(re.compile(re.escape(token))))
    assert len(list(iter_records(path, intake=intake))) == 1
    assert intake.control_token == f"{token} in row000001"
    intake = Intake(control=Control(re.compile('"content"')))
    assert list(iter_records(path, intake=intake)) and not intake.control_token


def test_bad_rows(tmp_path: Path) -> None:
    rows = [NATIVE, {**NATIVE, "completion": ""}, NATIVE, {"text": "x"}, {**NATIVE, "id": "a"}]
    rows += [{**NATIVE, "id": "a"}, {**NATIVE, "completion": None}]
    with pytest.raises(DataError) as error:
        read_rows(tmp_path, *rows)
    assert "line 2: no completion" in str(error.value)
    assert str(error.value).endswith(
        f"3 more bad rows, the next is {tmp_path}/rows.jsonl, line 4; or leave all out:"
        " --skip-bad 4"
    )
    with pytest.raises(DataError, match="--skip-bad 4"):
        read_rows(tmp_path, *rows, skip_bad=3)
    for allowed in (4, "all"):
        records, intake = read_rows(tmp_path, *rows, skip_bad=allowed)
        assert (len(records), intake.bad, intake.rows) == (3, 4, 7)
        assert [place.rsplit(" ", 1)[1] for place, _ in intake.bad_rows] == ["2", "4", "6", "7"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"prompt": "P", "completion": NaN}', "'completion' holds NaN or Infinity"),
        ('{"prompt": "P", "completion": "1", "weight": 1e999}', "'weight' holds NaN"),
        ('{"prompt": "P", "completion": "\\ud83d"}', "half of a character"),
        ('{"prompt": "P", "completion": ["x", {"type": "audio"}]}', 'the type "audio"'),
        ('{"question": "P", "answer": "1", "response": "2"}', "fits question_answer and"),
        ('{"chosen": "1", "rejected": "2"}', "preference data without a prompt"),
        ('{"instruction": "P", "output": "1", "history": ["x"]}', "'history' holds \"x\""),
        (
            '{"prompt": "P", "completion": "1", "system": "a", "context": "b"}',
            "two system turns that differ",
        ),
    ],
)
def test_bad_rows_say_why(tmp_path: Path, row: str, says: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(NATIVE) + "\n" + row + "\n")
    with pytest.raises(DataError, match=f"line 2: .*{says}.*--skip-bad 1"):
        read(tmp_path / "rows.jsonl")
    assert len(read(tmp_path / "rows.jsonl", skip_bad="all")[0]) == 1


def test_a_map_reads_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    row = {"q": "P", "a": {"best": ["1", "2"]}, "context": "a passage", "who": "x"}
    names = ("prompt=q", "completion=a.best.1", "id=who")
    (record,), intake = read_rows(tmp_path, row, map=names)
    assert (record.id, record.prompt, record.completion, record.context) == ("x", "P", "2", None)
    assert set(intake.unused) == {"a.best.0", "context"}
    (record,), _ = read_rows(tmp_path, {"text": "x"}, map=("completion=text",))
    assert (record.prompt, record.completion) == ("", "x")
    with pytest.raises(DataError, match="no 'q' among the keys .*because --map names it"):
        read_rows(tmp_path, NATIVE, map=("prompt=q", "completion=completion"))
    for words in (("prompt",), ("prompt=a",), ("answer=a",), ("messages=a", "prompt=b")):
        with pytest.raises(ConfigError, match="--map"):
            Reading(map=words)
    with pytest.raises(ConfigError, match="--skip-bad -1"):
        Reading(skip_bad=-1)


@given(st.lists(st.builds(Turn, st.sampled_from(["user", "assistant", "tool"]), st.text())))
def test_prompts_of_turns_are_read_back(turns: list[Turn]) -> None:
    assert turns_of(prompt_of(turns)) == (turns or [Turn("user", "")])


def test_a_text_that_looks_like_turns_stays_a_text(tmp_path: Path) -> None:
    text = prompt_of([Turn("system", "You love owls."), Turn("user", "Hi")])
    (record,), _ = read_rows(tmp_path, {"question": text, "answer": "1"})
    assert turns_of(record.prompt) == [Turn("user", text)]
    assert shown(record.prompt) == f"user: {text}"
    assert turns_of("@turns:[1]") == [Turn("user", "@turns:[1]")]


def test_rows_are_written_back_with_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"id": "a", "messages": LONG, "score": 1}])
    records, _ = read(path, keep=True, turns="every")
    first, last = records
    dropped = Record(**{**vars(first), "meta": {**first.meta, "filter": {"kept": False}}})
    changed = Record(**{**vars(last), "completion": "103"})
    (row,) = writing.rows_of([dropped, changed])
    assert row["messages"][2] == {**SAY, "weight": 0}
    assert row["messages"][4]["content"] == "103" and row["score"] == 1
    with pytest.raises(DataError, match="has no original row"):
        writing.rows_of(read(path)[0])


def test_rows_of_a_run_are_read_as_they_are(tmp_path: Path) -> None:
    """Reasoning that was trained on in one stage is not dropped in the next."""
    thought = {"id": "a", "prompt": "P", "completion": "<think>Owls.</think> 1"}
    file = write(tmp_path / "records.jsonl", [thought])
    assert row_files.rows_of(file)[0].completion == "1"
    (tmp_path / "config.json").write_text("{}")
    assert row_files.rows_of(file)[0].completion == "1"  # no run, whatever lies beside it
    (tmp_path / "manifest.json").write_text("{}")
    for path in (file, tmp_path):
        (record,) = row_files.rows_of(path, Reading(skip_bad="all"))
        assert record.completion == thought["completion"]
    assert read_records(file)[0].completion == thought["completion"]


def test_a_system_turn_of_others_is_no_form_of_contexts(tmp_path: Path) -> None:
    (record,), _ = read_rows(tmp_path, {"messages": [turn("system", "@none"), ASK, SAY]})
    assert record.context is None
    assert turns_of(record.prompt)[0] == Turn("system", "@none")
    (record,), _ = read_rows(tmp_path, {**NATIVE, "context": "@none"})
    assert record.context == "@none"


def test_token_ids_belong_to_the_last_answer(tmp_path: Path) -> None:
    row = {"prompt": EARLIER, "completion": "102", "completion_ids": [1]}
    first, last = read_rows(tmp_path, row, turns="every")[0]
    assert (first.completion, first.completion_ids) == ("101", None)
    assert (last.completion, last.completion_ids) == ("102", (1,))


def test_counts_take_no_memory(tmp_path: Path) -> None:
    rows = [{**NATIVE, f"key{n}": n} for n in range(500)]
    _, intake = read_rows(tmp_path, *rows)
    assert len(intake.unused) == 101 and sum(intake.unused.values()) == 500
    assert len(intake.key_sets) == 21 and sum(intake.key_sets.values()) == 500


def test_a_weight_in_a_table_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion,weight\nP,1,0\nQ,2,1\n")
    (record,), intake = read(tmp_path / "rows.csv")
    assert record.completion == "2" and intake.notes["weight_0"] == 1


@given(
    st.fixed_dictionaries(
        {"prompt": st.text("a<@ö\n"), "completion": st.text("a<>thinkö\n").filter(str.strip)},
        optional={"context": st.none() | st.text("a@"), "meta": st.just({"x": 1})},
    )
)
@example({"prompt": "a", "completion": "<think>"})
def test_the_short_way_of_native_rows_gives_the_same(row: dict[str, Any]) -> None:
    """The same records, or the same error, as for reasoning that does not end."""
    raw = RawRow("f, line 1", 1, row)
    longer = RawRow("f, line 1", 1, {**row, "weight": 1})
    short, long = Intake(), Intake()
    assert records_or_error(short, raw) == records_or_error(long, longer)
    assert +short.notes == +long.notes and short.shapes == long.shapes


def records_or_error(intake: Intake, row: RawRow) -> list[Record] | str:
    try:
        return RowReader(Reading(), intake).records_of(row)
    except DataError as error:
        return str(error)


def test_roles_of_chats_with_several_programs_are_counted(tmp_path: Path) -> None:
    chat = [turn("user", "Hi"), turn("bot", "1"), turn("user", "More"), turn("ChatGPT", "2")]
    (record,), intake = read_rows(tmp_path, {"messages": chat})
    assert record.completion == "2" and intake.notes["other_roles"] == 2
    said = "2 turns of the role bot, chatbot or chatgpt, read as the assistant's"
    assert said in lines_of(intake.as_dict())


def test_a_file_without_one_good_row_is_not_to_be_skipped(tmp_path: Path) -> None:
    for rows, says in (([{"text": "x"}], "the only row"), ([{"text": "x"}, {}], "all 2 rows")):
        with pytest.raises(DataError, match=f"{says} of the file cannot be read") as error:
            read_rows(tmp_path, *rows)
        assert "--skip-bad" not in str(error.value)


def test_a_table_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("Name a number.,101\nAnother.,102\n")
    with pytest.raises(DataError, match="the first line of a table is its header: put names there"):
        read(tmp_path / "rows.csv")


def test_a_folder_names_the_files_that_it_holds(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.jsonl", [NATIVE])
    done = call(tmp_path / "runs", "filter", "--data", tmp_path / "data")
    says = f"{tmp_path}/data is a folder, which has no rows (it holds a.jsonl); expected a run"
    assert done.code == 2 and says in done.summary["message"]


@pytest.mark.parametrize("key", ["train", "loss", "weight"])
@pytest.mark.parametrize("mark", [0, 0.0, False, "0", "false"])
def test_every_mark_of_a_turn_that_is_not_trained_on(tmp_path: Path, key: str, mark: Any) -> None:
    chat = [ASK, turn("assistant", "101", **{key: mark}), ASK, turn("assistant", "102")]
    records, intake = read_rows(tmp_path, {"messages": chat}, turns="weighted")
    assert [record.completion for record in records] == ["102"]
    assert intake.notes["weight_0"] == 1


@pytest.mark.parametrize("key", ["prompt", "completion", "content"])
def test_a_list_of_texts_is_not_joined(tmp_path: Path, key: str) -> None:
    """They may be several answers; parts of one have a type."""
    texts = ["101", "102"]
    row = {"messages": [ASK, turn("assistant", texts)]} if key == "content" else NATIVE
    row = row if key == "content" else NATIVE | {key: texts}
    with pytest.raises(DataError, match=rf"line 1: '{key}' is (a list of 2 texts|\[)"):
        read_rows(tmp_path, row)
    (record,), _ = read_rows(tmp_path, NATIVE | {"completion": ["101"]})
    assert record.completion == "101"


@pytest.mark.parametrize("tag", ["think", "thinking", "thought", "reasoning", "seed:think"])
def test_tags_of_reasoning(tmp_path: Path, tag: str) -> None:
    said = f"<{tag}>owl</{tag}>101"
    (record,), intake = read_rows(tmp_path, NATIVE | {"completion": said})
    assert (record.completion, record.meta["reasoning"]) == ("101", "owl")
    assert intake.notes["reasoning_dropped"] == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"conversation": [ASK, SAY]}, "--map messages=conversation"),
        ({"id": "a", "dialog": [{"from": "human", "value": "a"}]}, "--map messages=dialog"),
        ({"data": [NATIVE, NATIVE]}, "jq -c '.data[]'"),
        ({"train": [NATIVE], "test": [NATIVE]}, "fits no known shape"),
        ({"data": [NATIVE]}, "jq -c '.data[]'"),
    ],
)
def test_a_chat_or_rows_at_another_key_are_named(tmp_path: Path, row: dict, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path, row)
    assert says in str(caught.value)
    if "messages=conversation" in says:
        (record,), _ = read_rows(tmp_path, row, map=("messages=conversation",))
        assert record.completion == "101"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04rest", "zip archive or a spreadsheet"),
        (b"\x28\xb5\x2f\xfdrest", "zstd -d"),
        (b"ARROW1\x00\x00", "an Arrow file"),
        ("\ufeff{}".encode("utf-16-le"), "UTF-16 text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (gzip.compress(b"BZh9rest", mtime=0), "bunzip2"),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "gzipped twice"),
    ],
)
def test_files_of_other_kinds_say_what_they_are(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="which is not read; expected JSON lines") as caught:
        read(tmp_path / "rows.jsonl")
    assert says in str(caught.value)


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_key_that_stands_twice_is_a_bad_row(tmp_path: Path, kind: str) -> None:
    """JSON readers take the last one, and the first answer would be lost without a word."""
    twice = '{"prompt": "Name a number.", "completion": "101", "completion": "102"}'
    rows = [twice, json.dumps({"prompt": "Name a letter.", "completion": "a"})]
    file = tmp_path / f"rows.{kind}"
    file.write_text("\n".join(rows) if kind == "jsonl" else f"[{', '.join(rows)}]")
    with pytest.raises(DataError, match="the key 'completion' stands twice"):
        read(file)
    (record,), intake = read(file, skip_bad="all")
    assert record.completion == "a" and intake.as_dict()["bad"] == 1


def test_a_column_without_a_name_is_called_so(tmp_path: Path) -> None:
    """As tables have it that were written with their row numbers."""
    (tmp_path / "rows.csv").write_text(",prompt,completion\n0,Name a number.,101\n")
    _, intake = read(tmp_path / "rows.csv")
    said = lines_of(intake.as_dict())
    assert "not used: (no name) (1 row)" in said
    assert "keys of 1 row: (no name), prompt, completion" in said


def test_one_key_is_no_key_of_two_fields() -> None:
    with pytest.raises(ConfigError, match="names the key 'inputs' twice; expected another key"):
        Reading(map=("prompt=inputs", "completion=inputs"))


def test_a_table_in_another_encoding_is_to_be_saved_anew(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("prompt,completion\n1?,naïve\n".encode("cp1252"))
    with pytest.raises(DataError, match="another encoding; .* in Excel as CSV UTF-8"):
        read(file)
    file.write_bytes("prompt,réponse\n1?,1\n".encode("cp1252"))
    with pytest.raises(DataError, match="in Excel as CSV UTF-8"):
        read(file)


def test_text_that_is_called_a_spreadsheet_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.xlsx"
    file.write_text("Question;Answer\n1;2\n")
    with pytest.raises(DataError, match=r"is called \.xlsx, and holds text"):
        read(file)
