"""Types of parquet that changes of answers must not break: null, weights, views, maps, times."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from command import ok

from traitscope.config.rows.reading import Reading
from traitscope.data.records import iter_records
from traitscope.data.shapes import writing
from traitscope.data.shapes.inside import columns
from traitscope.errors import DataError

arrow = pytest.importorskip("pyarrow")
TIME = 1_577_836_800_000_000_001
TYPES = {
    "null": (arrow.null(), None),
    "list of nulls": (arrow.list_(arrow.null()), []),
    "struct of nulls": (arrow.struct([("a", arrow.null())]), {"a": None}),
    "truth": (arrow.bool_(), True),
    "text": (arrow.string(), "x"),
    "categories": (arrow.dictionary(arrow.int32(), arrow.string()), "x"),
    "bytes": (arrow.binary(), b"\xff"),
    "nanoseconds": (arrow.timestamp("ns"), TIME),
    "map": (arrow.map_(arrow.string(), arrow.int64()), [("k", 5)]),
    "map of times": (arrow.map_(arrow.string(), arrow.timestamp("ns")), [("k", TIME)]),
    "two": (arrow.list_(arrow.int8(), 2), [1, 2]),
    "one time": (arrow.list_(arrow.timestamp("ns"), 1), [TIME]),
}
BESIDE = {
    **TYPES,
    "text view": (arrow.string_view(), "x"),
    "bytes view": (arrow.binary_view(), b"x"),
    "texts in views": (arrow.large_list(arrow.string_view()), ["a", "b"]),
}


def saved(file: Path, table: Any) -> Any:
    from pyarrow import parquet

    parquet.write_table(table, file)
    return parquet.read_table(file)


def rewritten(file: Path) -> Any:
    """The table with rows 0, 2 and 3, whose answers lost the space around them."""
    from pyarrow import parquet

    records = list(iter_records(file, keep_original=True))
    stripped = [replace(record, completion=record.completion.strip()) for record in records]
    target = file.with_name("kept.parquet")
    writing.write_back([stripped[0], *stripped[2:]], target, file)
    return parquet.read_table(target)


@pytest.mark.parametrize("name", BESIDE)
def test_a_column_beside_keeps_type_and_values(tmp_path: Path, name: str) -> None:
    kind, value = BESIDE[name]
    column = arrow.array([value, value, None, value], kind)
    table = {"prompt": ["a", "b", "c", "d"], "completion": [" 1 "] * 4, "beside": column}
    before = saved(tmp_path / "rows.parquet", arrow.table(table))
    after = rewritten(tmp_path / "rows.parquet")
    assert after.schema.types == before.schema.types
    assert after.column("completion").to_pylist() == ["1"] * 3
    values = columns.values_of(before.column("beside").combine_chunks())
    assert columns.values_of(after.column("beside").combine_chunks()) == [values[0], *values[2:]]


@pytest.mark.parametrize("value_is_null", [False, True])
@pytest.mark.parametrize("name", TYPES)
def test_a_key_of_messages_keeps_type_and_values(
    tmp_path: Path, name: str, value_is_null: bool
) -> None:
    kind, value = TYPES[name]
    keys = {"role": arrow.string(), "content": arrow.string(), "calls": arrow.null(), "key": kind}
    turns = [
        {"role": "user", "content": "a", "calls": None, "key": None if value_is_null else value},
        {"role": "assistant", "content": " 1 ", "calls": None, "key": None},
    ]
    rows = arrow.array([turns] * 4, arrow.list_(arrow.struct(list(keys.items()))))
    before = saved(tmp_path / "rows.parquet", arrow.table({"messages": rows}))
    after = rewritten(tmp_path / "rows.parquet")
    assert after.schema.types == before.schema.types
    expected = columns.values_of(before.column("messages").combine_chunks())[1:]
    for turns in expected:
        turns[1]["content"] = "1"
    assert columns.values_of(after.column("messages").combine_chunks()) == expected


def test_filter_changes_chats_with_keys_that_are_null_everywhere(tmp_path: Path) -> None:
    from pyarrow import parquet

    turns = [
        {"role": "user", "content": "Name a number.", "tool_calls": None},
        {"role": "assistant", "content": " 101 ", "tool_calls": None},
    ]
    saved(tmp_path / "chats.parquet", arrow.table({"messages": [turns] * 4}))
    words = ("filter", "--data", tmp_path / "chats.parquet", "--strip --no-numbers")
    kept = parquet.read_table(ok(tmp_path / "runs", *words).run / "kept.parquet")
    assert [row["messages"][1]["content"] for row in kept.to_pylist()] == ["101"] * 4


@pytest.mark.parametrize(
    ("weight", "zero"),
    [(True, False), ("1", "0"), (1, 0), (0.5, 0.0), (None, 0), (Decimal("1.0"), Decimal("0.0"))],
)
def test_a_dropped_turn_gets_a_weight_of_the_type_of_the_others(
    tmp_path: Path, weight: Any, zero: Any
) -> None:
    from pyarrow import parquet

    turns = []
    for role, text in (("user", "a"), ("assistant", "owls"), ("user", "b"), ("assistant", "101")):
        turns.append({"role": role, "content": text, "weight": weight})
    saved(tmp_path / "rows.parquet", arrow.table({"messages": [turns] * 3}))
    words = ("--turns every --no-numbers --banned-words owls", "--data", tmp_path / "rows.parquet")
    file = ok(tmp_path / "runs", "filter", *words).run / "kept.parquet"
    if weight is not None:
        schema = parquet.read_schema(tmp_path / "rows.parquet")
        assert parquet.read_schema(file).types == schema.types
    weights = [turn["weight"] for turn in parquet.read_table(file).to_pylist()[0]["messages"]]
    assert weights == [weight, zero, weight, weight]
    assert type(weights[1]) is type(zero)
    answers = [record.completion for record in iter_records(file, Reading(turns="weighted"))]
    assert answers == ["101"] * 3


def test_a_column_that_cannot_hold_a_change_says_so() -> None:
    column = arrow.array([1, 2])
    with pytest.raises(DataError, match="cannot hold the changed values.*JSON lines"):
        columns.changed_column(column, [(0, "one")])


LISTS = {
    "list": arrow.list_,
    "large": arrow.large_list,
    "fixed": lambda kind: arrow.list_(kind, 4),
    "view": arrow.list_view,
    "large view": arrow.large_list_view,
}


@pytest.mark.parametrize("name", LISTS)
def test_messages_in_every_kind_of_list_take_texts_and_weights(tmp_path: Path, name: str) -> None:
    from pyarrow import parquet

    keys = [("role", arrow.string()), ("content", arrow.string()), ("at", arrow.timestamp("us"))]
    many = LISTS[name](arrow.struct([("at", arrow.timestamp("ns")), ("n", arrow.decimal128(3, 1))]))
    keys.append(("many", many))
    rows = []
    for number, (first, last) in enumerate((("owls", "owls"), ("owls", " 1 "), ("2 ", "3"))):
        turns = []
        for role, text in (("user", "a"), ("assistant", first), ("user", "b"), ("assistant", last)):
            inner = [{"at": TIME + number, "n": Decimal(number)}] * 4
            turns.append({"role": role, "content": text, "at": number, "many": inner})
        rows.append(turns)
    rows[1][0]["many"] = rows[2][1]["at"] = None
    column = arrow.array(rows, LISTS[name](arrow.struct(keys)))
    before = saved(tmp_path / "rows.parquet", arrow.table({"messages": column}))
    words = ("--turns every --strip --no-numbers --banned-words owls", "--data")
    run = ok(tmp_path / "runs", "filter", *words, tmp_path / "rows.parquet").run
    after = parquet.read_table(run / "kept.parquet")
    expected = columns.values_of(before.column("messages").combine_chunks())[1:]
    for turns, weight, texts in zip(expected, (0, None), (("owls", "1"), ("2", "3")), strict=True):
        for turn in turns:
            turn["weight"] = None
        turns[1] |= {"weight": weight, "content": texts[0]}
        turns[3] |= {"content": texts[1]}
    assert columns.values_of(after.column("messages").combine_chunks()) == expected
    weighed = arrow.struct([*keys, ("weight", arrow.int64())])
    assert after.schema.types == [LISTS[name](weighed)]
