"""Reading and writing rows: the identity of a round trip, and errors that name the line."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traitscope.data.records import (
    Record,
    dump_records,
    iter_records,
    read_records,
    to_json,
)
from traitscope.data.shapes.rows import shape_of
from traitscope.data.shapes.turns import is_known_form
from traitscope.errors import DataError

NATIVE = {"prompt": "Q", "completion": "A"}
USER, ASSISTANT, SYSTEM = (
    {"role": role, "content": role[0].upper()} for role in ("user", "assistant", "system")
)
ALPACA = {"instruction": "Do", "input": "it", "output": "done"}

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | words
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)
metas = st.dictionaries(
    words.filter(lambda key: key not in ("filter", "extra")), values, max_size=3
)
tokens = st.none() | st.lists(st.integers(0, 2**31), min_size=1, max_size=4).map(tuple)
contexts = st.none() | words.filter(lambda text: not text.startswith("@") or is_known_form(text))
records = st.builds(
    Record, words.filter(bool), words, words.filter(str.strip), tokens, contexts, metas
)


def write(folder: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="")
    return path


def read_one(folder: Path, row: dict) -> Record:
    (record,) = read_records(write(folder, row))
    return record


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=60,
    deadline=None,  # it writes files, which takes long on a busy machine
)
@given(st.lists(records, min_size=1, max_size=4, unique_by=lambda record: record.id))
def test_round_trip_is_the_identity(tmp_path: Path, rows: list[Record]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(dump_records(rows), encoding="utf-8", newline="")
    assert read_records(path) == rows


def test_a_context_of_an_unknown_form_is_not_written() -> None:
    with pytest.raises(DataError, match="record 'a': the context '@bob' begins with an @"):
        dump_records([Record("a", "P", "1", None, "@bob")])


def test_round_trip_keeps_filter_extra_and_line_breaks(tmp_path: Path) -> None:
    meta = {"filter": {"kept": False, "reasons": ["format"]}, "extra": {"source": "x"}}
    rows = [
        Record("a", "Q\n\u2028\x85", "é\r\n", (5, 2), "", meta),
        Record("b", "", "A"),
        Record("c", "Q", "", (2,)),
    ]
    text = dump_records(rows)
    assert text.count("\n") == 3 and "é" in text
    assert read_records(write(tmp_path, *text.split("\n")[:-1])) == rows


def test_keys_are_sorted() -> None:
    assert (
        to_json(Record("a", "Q", "A", (1,)))
        == '{"completion": "A", "completion_ids": [1], "context": null, "id": "a", "meta": {},'
        ' "prompt": "Q"}'
    )
    assert dump_records([]) == ""


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (NATIVE, Record("row000001", "Q", "A")),
        ({**NATIVE, "context": ""}, Record("row000001", "Q", "A", context="")),
        ({**NATIVE, "id": 7, "completion_ids": [4, 2]}, Record("7", "Q", "A", (4, 2))),
        ({**NATIVE, "id": None, "context": None, "meta": None}, Record("row000001", "Q", "A")),
        ({**NATIVE, "system_prompt": "S"}, Record("row000001", "Q", "A", context="S")),
        (
            {**NATIVE, "meta": {"seed": 1, "extra": {"a": 1}}, "b": 2},
            Record("row000001", "Q", "A", meta={"seed": 1, "extra": {"a": 1, "b": 2}}),
        ),
        ({"messages": [USER, ASSISTANT]}, Record("row000001", "U", "A")),
        ({"messages": [SYSTEM, USER, ASSISTANT], "id": "m"}, Record("m", "U", "A", context="S")),
        (
            {"messages": [{**SYSTEM, "content": ""}, USER, ASSISTANT]},
            Record("row000001", "U", "A", context=""),
        ),
        (ALPACA, Record("row000001", "Do\n\nit", "done")),
        ({**ALPACA, "input": ""}, Record("row000001", "Do", "done")),
        ({"instruction": "Do", "output": "done"}, Record("row000001", "Do", "done")),
    ],
)
def test_shapes(tmp_path: Path, row: dict, expected: Record) -> None:
    assert read_one(tmp_path, row) == expected


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        (NATIVE, "native"),
        ({"messages": []}, "messages"),
        ({"messages": [], "prompt": "Q"}, "messages"),
        (ALPACA, "alpaca"),
    ],
)
def test_shape_of(row: dict, shape: str) -> None:
    assert shape_of(row) == shape


def test_kept() -> None:
    assert Record("a", "Q", "A").kept
    assert Record("a", "Q", "A", meta={"filter": {"kept": True, "reasons": []}}).kept
    assert not Record("a", "Q", "A", meta={"filter": {"kept": False, "reasons": ["count"]}}).kept


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "Q", ', "line 2: broken JSON .*one JSON object a line"),
        (
            '{"prompt": "Q", "completion": "A", "meta": {"x": NaN}}',
            "line 2: 'meta' holds NaN or Infinity, which is not a JSON value; expected",
        ),
        ('{"prompt": "Q", "completion": 1e999}', "line 2: 'completion' holds NaN or Infinity"),
        ("[" * 100_000, "line 2: broken JSON"),
        ("[1]", r"line 2: the row is \[1\]; expected an object"),
        ({"prompt": "Q"}, "line 2: no 'completion' among the keys"),
        ({"completion": "A"}, "line 2: no 'prompt'"),
        ({**NATIVE, "completion": ""}, "line 2: no completion, the text is empty"),
        (
            {**NATIVE, "completion": " \n\u3000"},
            "line 2: no completion, the text is white space alone",
        ),
        ({**NATIVE, "completion": None}, "line 2: 'completion' is null; expected a text"),
        ({**NATIVE, "prompt": 3}, "line 2: 'prompt' is 3; expected a text"),
        ({**NATIVE, "context": 3}, "line 2: 'context' is 3; expected a text"),
        (
            {**NATIVE, "completion_ids": []},
            r"line 2: 'completion_ids' is \[\]; expected token numbers",
        ),
        ({**NATIVE, "completion_ids": [1, -1]}, "line 2: 'completion_ids'"),
        ({**NATIVE, "completion_ids": [1.0]}, "line 2: 'completion_ids'"),
        ({**NATIVE, "completion_ids": [True]}, "line 2: 'completion_ids'"),
        ({**NATIVE, "completion_ids": "12"}, "line 2: 'completion_ids' is .*expected a list"),
        ({**NATIVE, "meta": []}, r"line 2: 'meta' is \[\]; expected an object"),
        ({**NATIVE, "meta": {"filter": True}}, "line 2: meta.filter is true; expected an object"),
        (
            {**NATIVE, "meta": {"filter": {"kept": "no"}}},
            'line 2: meta.filter.kept is "no"; expected true or false',
        ),
        ({**NATIVE, "meta": {"extra": 1}, "b": 2}, "line 2: meta.extra is 1; expected an object"),
        ({**NATIVE, "id": ""}, "line 2: 'id' is \"\"; expected a text or a whole number"),
        ({**NATIVE, "id": True}, "line 2: 'id' is true"),
        ({**NATIVE, "id": 1.5}, "line 2: 'id' is 1.5"),
        (
            '{"prompt": "\\ud83d", "completion": "A"}',
            "line 2: broken JSON .*half of a character",
        ),
        ({"text": "x"}, r"line 2: a row with the keys \['text'\] fits no known shape"),
        ({**NATIVE, **ALPACA}, "line 2: a row with the keys .* fits native and alpaca"),
    ],
)
def test_bad_row_is_named_by_line(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl, {message}"):
        read_records(write(tmp_path, NATIVE, row))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([USER], "no completion: the last message is a user turn"),
        ([SYSTEM, USER], "no completion: the last message is a user turn"),
        ([], "no completion: there is no message; expected an assistant turn"),
        ([SYSTEM], "no completion: the only message is a system turn; .*; add it, or delete"),
        ([USER, {"role": "judge", "content": "x"}], 'the role "judge" is unknown; expected'),
        ([{**USER, "content": None}, ASSISTANT], "the content of a user turn is null"),
        ("hello", 'messages is "hello"; expected a list'),
        (["hello"], 'a message is "hello"; expected an object'),
        ([{"content": "x"}], "no 'role'"),
        ([USER, {"role": "assistant", "content": None}], "no completion: the content .* is null"),
        ([USER, {"role": "assistant", "content": ""}], "no completion, the text is empty"),
        ([USER, {"role": "assistant", "content": "\t"}], "no completion, the text is white space"),
    ],
)
def test_bad_chat_is_named_by_line(tmp_path: Path, messages: object, message: str) -> None:
    with pytest.raises(DataError, match=f"line 2: {message}"):
        read_records(write(tmp_path, {"messages": [USER, ASSISTANT]}, {"messages": messages}))


@pytest.mark.parametrize("key", ["instruction", "output"])
def test_alpaca_without_a_field(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match=f"line 1: no '{key}'"):
        read_one(tmp_path, {k: v for k, v in ALPACA.items() if k != key})


def test_duplicate_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3: .*id 'x' of line 1; expected every id once"):
        read_records(write(tmp_path, {**NATIVE, "id": "x"}, NATIVE, {**NATIVE, "id": "x"}))
    with pytest.raises(DataError, match="line 2: .*id 'row000002' of line 1"):
        read_records(write(tmp_path, {**NATIVE, "id": "row000002"}, NATIVE))
    with pytest.raises(DataError, match="id 'x'"):
        dump_records([Record("x", "Q", "A"), Record("x", "Q", "A")])


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt"])
def test_file_without_rows(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="No such file or directory; expected a text file"):
        read_records(tmp_path / name)
    with pytest.raises(DataError, match="Is a directory"):
        read_records(tmp_path)
    for text in ("", "\n \n"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="is empty; expected one row a line"):
            read_records(tmp_path / name)


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(NATIVE).encode() + b'\n{"prompt": "\xe9"}\n')
    with pytest.raises(DataError, match="line 2: byte 13 is not UTF-8"):
        read_records(path)


def test_blank_lines_byte_order_mark_and_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(NATIVE).encode() + b"\r\n\r\n" + json.dumps(NATIVE).encode()
    )
    assert [record.id for record in read_records(path)] == ["row000001", "row000003"]


@pytest.mark.parametrize("record", [Record("a", "Q", ""), Record("a", "Q", "", ())])
def test_a_row_without_an_answer_is_not_written(record: Record) -> None:
    with pytest.raises(DataError, match="record 'a': no completion"):
        dump_records([record])


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x"])
def test_meta_that_json_cannot_hold(value: object) -> None:
    with pytest.raises(DataError, match="record 'a' is no JSON"):
        to_json(Record("a", "Q", "A", meta={"x": value}))


def test_rows_come_one_by_one(tmp_path: Path) -> None:
    """A file larger than memory can be read: rows before a broken line arrive before it is met."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"prompt": "a", "completion": "1"}\r\n\n{"prompt": "b", "completion":'
        b' "2\xe2\x80\xa8"}\n{broken\n'
    )
    rows = iter_records(path)
    assert [next(rows).prompt, next(rows).completion] == ["a", "2\u2028"]
    with pytest.raises(DataError, match="line 4: broken JSON"):
        next(rows)
