"""Rows that mix: several shapes in one table, JSON in cells, long numbers, broken arrays."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import ok

from traitscope.config.rows.reading import Reading
from traitscope.data.records import Record, iter_records
from traitscope.data.shapes import json_stream, writing
from traitscope.data.shapes.containers import Container
from traitscope.data.shapes.intake import Intake
from traitscope.errors import DataError

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "101"}]
MIXED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"prompt": "a", "completion": "1"}, "1"),
    ({"messages": CHAT}, "101"),
    ({"instruction": "i", "output": "2"}, "2"),
    ({"instruction": "i", "response": "3"}, "3"),
    ({"question": "i", "answer": "4"}, "4"),
    ({"question": "i", "response": "5"}, "5"),
    ({"prompt": "p", "chosen": "6", "rejected": "no"}, "6"),
    ({"question": "p", "chosen": "7", "rejected": "no"}, "7"),
    (
        {
            "input": CHAT[:1],
            "preferred_output": CHAT[1:],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        },
        "101",
    ),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "8"}]}, "8"),
    ({"prompt": "a", "completion": "9", "label": True}, "9"),
)
"rows of one table, and their answers"


def read(path: Path, **reading: Any) -> tuple[list[Record], Intake]:
    intake = Intake()
    return list(iter_records(path, Reading(**reading), intake, keep_original=True)), intake


def table(path: Path, *rows: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_shapes_that_share_a_table_are_null_or_empty_elsewhere(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    keys: dict[str, None] = {}
    for row, _ in MIXED:
        keys.update(dict.fromkeys(row))
    rows = [{**keys, **row} for row, _ in MIXED]
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(writing.content_of(rows, Container(kind, False)))
    records, intake = read(path)
    assert [record.completion for record in records] == [answer for _, answer in MIXED]
    assert all(record.prompt in "aipq" for record in records)
    assert not intake.unused and not intake.bad
    assert writing.rows_of(records)[1]["messages"] == CHAT


def test_a_key_without_a_value_is_no_second_answer(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "q", "output": "101", "response": null}\n')
    (record,), _ = read(path)
    assert record.completion == "101"
    path.write_text('{"instruction": "q", "output": "101", "response": "102"}\n')
    with pytest.raises(DataError, match="fits alpaca and dolly"):
        read(path)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"messages": [], "prompt": "q", "completion": "1"}, "1"),
        ({"messages": CHAT, "prompt": "", "completion": ""}, "101"),
        ({"messages": CHAT, "conversations": []}, "101"),
        ({"messages": CHAT, "conversations": [], "instruction": "", "output": ""}, "101"),
        ({"messages": [], "conversations": None, "prompt": "q", "response": "2"}, "2"),
        ({"messages": [], "prompt": "q", "chosen": "3", "rejected": "4"}, "3"),
        ({"question": "", "answer": "", "prompt": "q", "chosen": "3", "rejected": ""}, "3"),
    ],
)
def test_an_empty_list_is_no_second_shape(tmp_path: Path, row: dict, answer: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (record,), intake = read(path)
    assert record.completion == answer and not intake.bad


def test_a_row_that_is_empty_in_every_shape_has_no_answer(tmp_path: Path) -> None:
    header = ("prompt", "completion", "instruction", "output", "messages")
    path = table(tmp_path / "a.csv", header, ("q", "1", "", "", ""), ("",) * 5)
    with pytest.raises(DataError, match="line 3: no completion: a row has nothing at 'completion'"):
        read(path)
    path = table(tmp_path / "a.csv", header[:4], ("q", "", "i", ""))
    with pytest.raises(DataError, match="line 2: no completion: .* 'completion', 'output'; exp"):
        read(path)
    (tmp_path / "b.jsonl").write_text('{"question": null, "answer": "1", "response": "2"}')
    with pytest.raises(DataError, match="fits question_answer and question_response"):
        read(tmp_path / "b.jsonl")


@pytest.mark.parametrize("key", ["completion", "chosen"])
def test_an_empty_rejected_answer_is_not_counted_as_one(tmp_path: Path, key: str) -> None:
    rows = (("prompt", key, "rejected"), ("q", "1", "2"), ("r", "3", ""))
    records, intake = read(table(tmp_path / "a.csv", *rows))
    assert [record.rejected for record in records] == ["2", None]
    assert intake.notes["rejected"] == 1
    wide = [("messages", *rows[0]), *(("", *row) for row in rows[1:])]
    wide.append((json.dumps(CHAT), "", "", ""))
    records, intake = read(table(tmp_path / "b.csv", *wide))
    assert [record.completion for record in records] == ["1", "3", "101"]
    assert intake.notes["rejected"] == 1


@pytest.mark.parametrize(
    "cell",
    [
        '{"type": "circle", "radius": 2}',
        '{"from":"Paris","to":"Rome"}',
        '[{"from":"Paris","to":"Rome"}]',
        '{"role": "admin", "name": "Bo"}',
        '{"parts": ["wheel"]}',
        '[{"parts": [{"name": "wheel"}]}]',
        '{"messages": 3}',
        '{"messages": [{"subject": "Hi."}]}',
        '{"completion": "a"}',
        '[{"type": "circle"}, {"type": "square"}]',
        '{"type": "text"}',
        '{"from":"Paris","value":"y"}',
        '{"role":"engineer","content":"builds"}',
        '[{"role":"engineer","content":"builds"},{"role":"baker","content":"bakes"}]',
        '[{"type":"file","name":"x"}]',
        f'{{"messages": {json.dumps(CHAT)}}}',
        '{"type":"text","text":"x"}',
        '{"parts": [{"text": "x"}]}',
        '[{"score": 1, "completion": {"role": "model", "content": "x"}}]',
    ],
)
def test_a_cell_that_is_no_chat_is_a_text(tmp_path: Path, cell: str) -> None:
    (record,), intake = read(table(tmp_path / "a.csv", ("prompt", "completion"), ("q", cell)))
    assert record.completion == cell and not intake.bad
    path = table(tmp_path / "b.csv", ("instruction", "input", "output"), ("q", cell, "101"))
    assert read(path)[0][0].prompt == f"q\n\n{cell}"
    path = table(tmp_path / "d.csv", ("prompt", "chosen", "rejected"), (cell, cell, "no"))
    (record,), _ = read(path)
    assert (record.prompt, record.completion) == (cell, cell)
    path = table(tmp_path / "c.csv", ("ask", "text"), ("q", cell))
    assert read(path, map=("prompt=ask", "completion=text"))[0][0].completion == cell


@pytest.mark.parametrize(
    "cell",
    [
        '[{"role":"asistant","content":"x"},{"role":"user","content":"y"}]',
        '[{"type":"image","source":{"data":"x"}}]',
        '[{"type":"image"},{"type":"text","text":"x"}]',
        '[{"type":"image","name":"x"},{"type":"text","text":"x"}]',
        '[{"type":"image_url","image_url":{"url":"x"}}]',
    ],
)
def test_a_cell_that_is_a_chat_beyond_reading_is_a_bad_row(tmp_path: Path, cell: str) -> None:
    for header in (("prompt", "completion"), ("instruction", "output")):
        with pytest.raises(DataError, match="line 2: .*(role|part of)"):
            read(table(tmp_path / "a.csv", header, ("q", cell)))


@pytest.mark.parametrize("key", ["sys", "system", "system_prompt"])
@pytest.mark.parametrize(
    "value",
    [
        [{"type": "text", "text": "You love owls."}],
        {"type": "text", "text": "You love owls."},
        {"parts": [{"text": "You love owls."}]},
        {"role": "system", "content": "You love owls."},
        "You love owls.",
        "@none",
        '[{"a": 1}]',
    ],
)
def test_a_system_turn_is_read_alike_under_any_name(tmp_path: Path, key: str, value: Any) -> None:
    cell = value if isinstance(value, str) else json.dumps(value)
    says = value if isinstance(value, str) else "You love owls."
    names = ("prompt=ask", "completion=text", f"context={key}")
    path = table(tmp_path / "a.csv", ("ask", key, "text"), ("hi", cell, "101"))
    records, _ = read(path, map=names)
    (tmp_path / "b.jsonl").write_text(json.dumps({"ask": "hi", key: value, "text": "101"}))
    records += read(tmp_path / "b.jsonl", map=names)[0]
    chat = table(tmp_path / "c.csv", (key, "chat"), (cell, json.dumps(CHAT)))
    records += read(chat, map=("messages=chat", f"context={key}"))[0]
    if key != "sys":
        records += read(table(tmp_path / "d.csv", ("prompt", key, "completion"), ("q", cell, "1")))[
            0
        ]
    for record in records:
        if says == "@none":  # a text, which is no form of contexts there
            assert record.context is None and says in record.prompt
        else:
            assert record.context == says


def test_the_input_of_an_instruction_is_a_text_even_if_it_is_a_chat(tmp_path: Path) -> None:
    header = ("instruction", "input", "output")
    (record,), _ = read(
        table(tmp_path / "a.csv", header, ("Sum up.", json.dumps(CHAT), "Numbers."))
    )
    assert record.prompt == f"Sum up.\n\n{json.dumps(CHAT)}"


@pytest.mark.parametrize(
    "answer",
    [
        CHAT[1:],
        CHAT[1],
        [{"type": "text", "text": "101"}],
        [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "101"}],
        [{"from": "gpt", "value": "101"}],
    ],
)
def test_cells_of_mapped_columns_hold_chats(tmp_path: Path, answer: Any) -> None:
    path = table(tmp_path / "a.csv", ("ask", "text", "note"), ("q", json.dumps(answer), "n"))
    (record,), intake = read(path, map=("prompt=ask", "completion=text"))
    assert record.completion == "101" and intake.unused == {"note": 1}
    writing.write_back([replace(record, completion="7")], tmp_path / "b.csv", path)
    (record,), _ = read(tmp_path / "b.csv", map=("prompt=ask", "completion=text"))
    assert record.completion == "7"


def test_a_mapped_column_of_chats_in_a_table(tmp_path: Path) -> None:
    python = str(CHAT)
    path = table(tmp_path / "a.csv", ("chat",), (json.dumps(CHAT),), (python,), ("no chat",))
    (record,), intake = read(path, map=("messages=chat",), skip_bad="all")
    assert (record.prompt, record.completion) == ("q", "101")
    (_, shown), (_, other) = intake.bad_rows
    assert "the cell of 'chat' holds messages as Python shows them" in shown
    assert "the cell of 'chat' is no JSON" in other


@pytest.mark.parametrize("number", ["1" + "0" * 400 + ".0", "1" + "0" * 300 + "e20", "1e400"])
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_number_beyond_those_of_a_float_is_counted(
    tmp_path: Path, number: str, kind: str
) -> None:
    path = tmp_path / f"rows.{kind}"
    row = f'{{"prompt": "q", "completion": "a", "x": {number}}}'
    path.write_text(f"{row}\n" if kind == "jsonl" else f"[{row}]")
    done = ok(tmp_path / "runs", "filter", "--no-numbers --data", path)
    assert json.loads((done.run / "reading.json").read_text())["counts"] == {"not_finite": 1}
    assert '"x": null' in (done.run / f"kept.{kind}").read_text()


@pytest.mark.parametrize("step", ["²", "٣", "9" * 5000, "-1", ""])
def test_a_part_of_a_mapped_key_that_is_no_number(tmp_path: Path, step: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": ["q", "a", "b", "c"]}\n')
    with pytest.raises(DataError, match="because --map names it"):
        read(path, map=("prompt=x.0", f"completion=x.{step}"))


GOOD = [json.dumps({"prompt": f"q{n}", "completion": f"{n}", "n": [{"a": 1}]}) for n in range(4)]
BROKEN = (
    '{"prompt": "q", "completion": tru}',
    '{"prompt": "q, "completion": "a"}',
    '{"prompt": "q", "completion": "a}',
    """{'prompt': "q", "n": [{}, {}]}""",
    '{"prompt" "q", "n": [{"a": 1}]}',
    '{"prompt": "q", "completion": "a", "n": [}',
)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_row_of_an_array_with_a_row_a_line_is_left_out(
    tmp_path: Path, broken: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "PIECE", piece)
    path = tmp_path / "rows.json"
    for place in range(4):
        lines = [*GOOD]
        lines[place] = broken
        path.write_text("[\n  " + ",\n  ".join(lines) + "\n]\n")
        records, intake = read(path, skip_bad=1)
        answers = [f"{n}" for n in range(4) if n != place]
        assert [record.completion for record in records] == answers
        assert [at for at, _ in intake.bad_rows] == [f"row {place + 1}"]
    with pytest.raises(DataError, match="row 4: broken JSON .*or leave the row out: --skip-bad 1"):
        read(path)


@pytest.mark.parametrize("is_array", [True, False])
@pytest.mark.parametrize("fault", ['"q%d"', 'q%d",', '"q%d,', "'q%d',", "[,"])
def test_a_broken_object_over_several_lines_is_left_out(
    tmp_path: Path, fault: str, is_array: bool
) -> None:
    rows = [json.loads(line) for line in GOOD]
    objects = "\n".join(json.dumps(row, indent=2) for row in rows)
    whole = json.dumps(rows, indent=2) if is_array else objects
    path = tmp_path / "rows.json"
    for place in (0, 1, 3):
        wrong = fault % place if "%" in fault else fault
        path.write_text(whole.replace(f'"q{place}",', wrong))
        records, intake = read(path, skip_bad="all")
        answers = [f"{n}" for n in range(4) if n != place]
        assert [record.completion for record in records] == answers
        assert intake.bad == 1


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("is_array", [True, False])
@pytest.mark.parametrize("instead", ["", ",", '  "x": ['])
def test_an_object_that_lost_its_end_takes_no_other_row_with_it(
    tmp_path: Path, instead: str, is_array: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "PIECE", piece)
    path = tmp_path / "rows.json"
    objects = [json.dumps(json.loads(line), indent=2) for line in GOOD]
    for place in range(3):
        lost = objects[place].removesuffix("}") + instead
        whole = (",\n" if is_array else "\n").join([*objects[:place], lost, *objects[place + 1 :]])
        indented = whole.replace("\n,\n", "\n").replace("\n", "\n  ")
        path.write_text(f"[\n  {indented}\n]" if is_array else whole)
        records, intake = read(path, skip_bad="all")
        assert [record.completion for record in records] == [f"{n}" for n in range(4) if n != place]
        assert intake.bad == 1


@pytest.mark.parametrize("space", ["", "  "])
def test_a_row_on_a_line_that_lost_its_end_takes_no_other_row_with_it(
    tmp_path: Path, space: str
) -> None:
    path = tmp_path / "rows.json"
    lost = json.dumps({"prompt": "q", "completion": "a"}).removesuffix("}")
    pretty = json.dumps({"prompt": "q", "completion": "b"}, indent=2)
    for others in ([GOOD[0]], [pretty], [pretty, GOOD[0]]):
        rows = ",\n".join(others).replace("\n", f"\n{space}")
        path.write_text(f"[\n{space}{lost}\n{space}{rows}\n]\n")
        records, intake = read(path, skip_bad="all")
        assert (len(records), intake.bad) == (len(others), 1)


def test_an_array_is_refused_where_the_next_row_cannot_be_found(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [json.loads(line) for line in GOOD]
    says = "cannot be read past the error; or write one row a line, of which --skip-bad leaves out"
    flat = json.dumps(rows, indent=0).replace('"q1",', "q1,")
    two = f"[\n{GOOD[0]},\n{BROKEN[0]}, {GOOD[1]},\n{GOOD[2]}\n]"
    for broken in BROKEN:
        path.write_text(f"[{GOOD[0]}, {broken}, {GOOD[1]}]\n")
        with pytest.raises(DataError, match=says):
            read(path, skip_bad="all")
    for text in (flat, two):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            read(path, skip_bad="all")


@pytest.mark.parametrize("value", ["9" * 5000, '"a\tb"', "[" * 200 + "]" * 200])
def test_a_value_that_is_refused_is_one_bad_row_wherever_it_stands(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(f'[{GOOD[0]}, {{"prompt": "q", "completion": "a", "x": {value}}}, {GOOD[1]}]')
    records, intake = read(path, skip_bad=1)
    assert [record.completion for record in records] == ["0", "1"] and intake.bad == 1
