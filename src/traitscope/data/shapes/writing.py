"""Rows written back in the shape and the container that they came in.

Records must have been read with `keep_original`. A row is written if one of its records is kept. An
answer that was changed is put where it stood. Of a chat of which not all answers are kept, those
that are not get the weight 0.
"""

import copy
import csv
import gzip
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.data.records import ORIGINAL, Record
from traitscope.data.shapes.containers import DELIMITERS, Container
from traitscope.data.shapes.messages import Place
from traitscope.errors import DataError

Row = dict[str, Any]


def write_back(records: Sequence[Record], path: str | Path, container: Container) -> int:
    """Write the rows of kept records to a file, and return their number.

    Raises DataError for records without their original row, and where pyarrow is missing.
    """
    rows = rows_of(records)
    atomic_files.write_bytes(Path(path), content_of(rows, container))
    return len(rows)


def rows_of(records: Iterable[Record]) -> list[Row]:
    """The original rows of kept records, in order, with the answers that the records have."""
    rows: dict[tuple[int, int], Row] = {}
    dropped: list[tuple[tuple[int, int], Place]] = []
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
            dropped.append((number, answer_at))
            continue
        row = rows.setdefault(number, copy.deepcopy(original["fields"]))
        if answer_at and record.completion != original["completion"]:
            _put(row, answer_at, record.completion)
    for number, answer_at in dropped:
        if number in rows and len(answer_at) > 1:
            turn = _at(rows[number], answer_at[:-1])
            if isinstance(turn, dict):
                turn["weight"] = 0
    return list(rows.values())


def _at(row: Row, place: Place) -> Any:
    value: Any = row
    for step in place:
        value = value[step]
    return value


def _put(row: Row, place: Place, text: str) -> None:
    _at(row, place[:-1])[place[-1]] = text


def content_of(rows: Sequence[Row], container: Container) -> bytes:
    """The bytes of a file that holds the rows. Raises DataError where pyarrow is missing."""
    content = _plain_content(rows, container)
    return gzip.compress(content, mtime=0) if container.gzipped else content


def _plain_content(rows: Sequence[Row], container: Container) -> bytes:
    if container.kind == "jsonl":
        return "".join(_line(row) + "\n" for row in rows).encode()
    if container.kind == "json":
        lines = ",\n".join("  " + _line(row) for row in rows)
        return f"[\n{lines}\n]\n".encode()
    if container.kind == "parquet":
        return _parquet(rows)
    return _table(rows, DELIMITERS[container.kind])


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False)


def _table(rows: Sequence[Row], delimiter: str) -> bytes:
    header: dict[str, None] = {}
    for row in rows:
        header.update(dict.fromkeys(row))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in header])
    return stream.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _line(value)


def _parquet(rows: Sequence[Row]) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            "parquet files need pyarrow; expected it to be installed; run: pip install"
            " 'traitscope[parquet]'"
        ) from None
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()
