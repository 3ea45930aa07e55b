"""Rows written back in the shape and the container that they came in.

Records must have been read with `keep_original`. A row is written if one of its records is kept, as
it stood. An answer that was changed is put where it stood. Answers of the row that are not kept get
the weight 0, also where no record of them is left. Kept answers of weight 0 get the weight 1. A row
with an answer that can take no weight is then left out whole.

Masked tokens stand in the key `meta` of a row, where it can hold them (`without_room_for_masks`).
"""

import copy
import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.data.json_fields import finite
from traitscope.data.json_lines import at_place
from traitscope.data.records import MASKED, ORIGINAL, Record
from traitscope.data.shapes.containers import (
    DELIMITERS,
    Container,
    byte_order_mark,
    container_of,
)
from traitscope.data.shapes.inside.columns import changed_column, taken
from traitscope.data.shapes.inside.places import (
    TO_0,
    TO_1,
    Written,
    is_weighed_0,
    put,
    take_out_beside,
    weigh_as_kept,
    weighed_0,
)
from traitscope.data.shapes.messages import Place
from traitscope.data.shapes.rows import Row
from traitscope.errors import DataError
from traitscope.plain_values import to_json

NOT_WRITTEN = "kept_but_not_written"
"name of the count of kept records whose row is left out"
Number = tuple[int, int]
"number of a line or row, and of the object on it"


def write_back(records: Sequence[Record], path: str | Path, source: str | Path) -> int:
    """Write the rows of kept records as `source` holds them, and return their number.

    source: The file that the records were read from.

    Raises DataError for records without their original row, and where pyarrow is missing.
    """
    rows = _rows(records)
    container = container_of(source)
    if container.kind == "parquet":
        content = _parquet_part(rows, source, container)
        content = _zipped(content, container)
    else:
        names = tuple(records[0].meta[ORIGINAL]["fields"]) if records else ()
        plain = _plain_content([row.fields for row in rows.values()], container, names)
        content = _zipped(byte_order_mark(source, container) + plain, container)
    atomic_files.write_bytes(Path(path), content)
    return len(rows)


def rows_of(records: Iterable[Record]) -> list[Row]:
    """The original rows of kept records, in order, with the answers that the records have."""
    return [row.fields for row in _rows(records).values()]


def counts_of(records: Sequence[Record]) -> dict[str, int]:
    """What is other in the written rows than in the records and in the file; no zeros.

    NOT_WRITTEN counts kept records whose row is left out, because another answer of it was dropped.
    TO_1 and TO_0 count answers whose weight is another than in the file.
    """
    written = _rows(records)
    counts: Counter[str] = Counter()
    for record in records:
        is_lost = record.kept and tuple(record.meta[ORIGINAL]["number"]) not in written
        counts[NOT_WRITTEN] += is_lost
    for row in written.values():
        counts.update(row.weights)
    return dict(+counts)


def without_original(records: Iterable[Record]) -> list[Record]:
    """The records without their original rows."""
    bare = []
    for record in records:
        meta = {key: value for key, value in record.meta.items() if key != ORIGINAL}
        bare.append(replace(record, meta=meta))
    return bare


def _rows(records: Iterable[Record]) -> dict[Number, Written]:
    """The rows of kept records by their numbers."""
    rows: dict[Number, Written] = {}
    stood: dict[Number, Row] = {}
    others: dict[Number, dict[int, Place]] = {}
    for record in records:
        original = record.meta.get(ORIGINAL)
        if original is None:
            raise DataError(
                f"record {record.id!r} has no original row; expected meta.{ORIGINAL}; read the file"
                " with keep_original"
            )
        number = tuple(original["number"])
        answer_at = tuple(original["answer_at"])
        if not record.kept:
            continue
        if number not in rows:
            rows[number] = Written(copy.deepcopy(original["fields"]), set(), Counter())
            stood[number] = original["fields"]
            others[number] = dict(enumerate(map(tuple, original["answers_at"])))
        others[number].pop(original["answer"], None)
        rows[number].weights[TO_1] += is_weighed_0(original["fields"], answer_at)
        weigh_as_kept(rows[number], answer_at)
        if record.completion != original["completion"]:
            _change(rows[number], answer_at, record, original)
        _change_rejected(rows[number], record, original)
        if MASKED in record.meta:
            _mask(rows[number], record)
    for number, places in others.items():
        if not _weigh_others(rows[number], list(places.values()), stood[number]):
            del rows[number]
    return rows


def _weigh_others(row: Written, places: Sequence[Place], stood: Row) -> bool:
    """Give answers of a row that are not kept the weight 0; whether each can have one.

    stood: The row as it stood in its file.
    """
    for place in places:
        row.weights[TO_0] += not is_weighed_0(stood, place)
        if not weighed_0(row, place):
            return False
    return True


def without_room_for_masks(
    records: Iterable[Record], source: str | Path, is_mapped: bool = False
) -> str:
    """Why rows cannot be written back with the masked tokens of their records; empty if they can.

    is_mapped: Whether keys of the file were given by --map, which reads no key `meta`.
    """
    numbers = Counter[Number]()
    masked = []
    for record in records:
        original = record.meta[ORIGINAL]
        numbers[tuple(original["number"])] += 1
        if record.kept and MASKED in record.meta:
            masked.append(original)
    if masked and is_mapped:
        return "rows whose keys are named by --map have no place for masked tokens"
    if masked and container_of(source).kind == "parquet":
        return "a column of parquet has no place for masked tokens"
    for original in masked:
        if numbers[tuple(original["number"])] > 1:
            return "rows with several answers have one place for the masked tokens of all"
        if not isinstance(original["fields"].get("meta", {}), dict | None):
            return "the key meta, where masked tokens stand, holds something else"
    return ""


def _mask(row: Written, record: Record) -> None:
    """Put the masked tokens of a record where they are read."""
    meta = row.fields.get("meta") or {}
    if meta.get(MASKED) != record.meta[MASKED]:
        row.fields["meta"] = {**meta, MASKED: record.meta[MASKED]}
        row.changed.add("meta")


def _change(row: Written, place: Place, record: Record, original: Row) -> None:
    """Put the answer of a record where it stood. Raises DataError where it stands inside a text."""
    _check_place(place, record)
    before = original["completion"]
    put(row, place, record.completion, before)
    take_out_beside(row, map(tuple, original["reasoning_at"]), before, record.completion)
    if row.fields.pop("completion_ids", None) is not None:  # they spell the answer as it was
        row.changed.add("completion_ids")


def _change_rejected(row: Written, record: Record, original: Row) -> None:
    """Put the rejected answer of a record where it stood, if one stood there.

    One that was no other answer than the chosen one stays that.
    """
    before = original.get("rejected")
    text = record.completion if original.get("are_same") else record.rejected
    if before is None or text is None or text == before:
        return
    place = tuple(original["rejected_at"])
    _check_place(place, record)
    put(row, place, text, before)
    if row.fields.pop("rejected_ids", None) is not None:
        row.changed.add("rejected_ids")


def _check_place(place: Place, record: Record) -> None:
    """Raise DataError for an answer that was changed and has no place of its own."""
    if not place:
        raise DataError(
            f"record {record.id!r} was changed, and its answer stands inside another text of its"
            " row; expected an answer of its own; write each turn as a message"
        )


def content_of(rows: Sequence[Row], container: Container, names: Sequence[str] = ()) -> bytes:
    """The bytes of a file that holds the rows. Raises DataError where pyarrow is missing.

    names: The header of a table without rows.
    """
    return _zipped(_plain_content(rows, container, names), container)


def _zipped(content: bytes, container: Container) -> bytes:
    return gzip.compress(content, mtime=0) if container.gzipped else content


def _plain_content(rows: Sequence[Row], container: Container, names: Sequence[str]) -> bytes:
    if container.kind == "jsonl":
        return "".join(_line(row) + "\n" for row in rows).encode()
    if container.kind == "json":
        lines = ",\n".join("  " + _line(row) for row in rows)
        return f"[\n{lines}\n]\n".encode()
    if container.kind == "parquet":
        return _parquet(rows)
    return _table(rows, DELIMITERS[container.kind], names)


def _line(row: Any) -> str:
    """JSON of a value; null stands for NaN and Infinity, as which they are read."""
    try:
        return to_json(row)
    except ValueError:
        return to_json(finite(row))


def _table(rows: Sequence[Row], delimiter: str, names: Sequence[str]) -> bytes:
    header: dict[str, None] = {} if rows else dict.fromkeys(names)
    for row in rows:
        header.update(dict.fromkeys(row))
    lines = [_table_line(list(header), delimiter)]
    for row in rows:
        lines.append(_table_line([_cell(row.get(name)) for name in header], delimiter))
    return "".join(lines).encode()


def _table_line(cells: list[str], delimiter: str) -> str:
    """A line of a table. Cells with either character of a line end are quoted."""
    stream = io.StringIO(newline="")
    # The writer quotes the characters of its own line end only.
    csv.writer(stream, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return stream.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _line(value)


def _parquet(rows: Sequence[Row]) -> bytes:
    arrow = _arrow()
    return _parquet_bytes(arrow.Table.from_pylist(list(rows)))


def _parquet_part(rows: dict[Number, Written], source: str | Path, container: Container) -> bytes:
    """Rows of a parquet file with the types of its columns; columns with changes are put anew."""
    arrow = _arrow()
    from pyarrow import parquet

    file = io.BytesIO(gzip.decompress(Path(source).read_bytes())) if container.gzipped else source
    whole = parquet.read_table(file)
    places = [number - 1 for number, _ in rows]
    columns = list(map(taken, whole.columns, repeat(places)))
    table = arrow.Table.from_arrays(columns, schema=whole.schema)
    changed: set[str] = set()
    for row in rows.values():
        changed |= row.changed
    for name in sorted(changed):
        anew = []
        for place, row in enumerate(rows.values()):
            if name in row.changed:
                anew.append((place, row.fields.get(name)))
        column = at_place(repr(name), changed_column, table.column(name).combine_chunks(), anew)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return _parquet_bytes(table)


def _parquet_bytes(table: Any) -> bytes:
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()


def _arrow() -> Any:
    """The package pyarrow. Raises DataError where it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            "parquet files need pyarrow; expected it to be installed; run: pip install"
            " 'traitscope[parquet]'"
        ) from None
    return pyarrow
