"""Containers of rows: JSON lines, JSON arrays, CSV, TSV and parquet, each also gzipped.

The container is found from the first bytes of a file and its name. All but parquet that is gzipped
are read piece by piece, so that memory stays flat.
"""

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from traitscope import atomic_files
from traitscope.data.json_fields import typed
from traitscope.data.json_lines import BYTE_ORDER_MARK
from traitscope.data.shapes.inside.cells import AS_UTF_8, COLUMNS, cell_problem, cell_value
from traitscope.data.shapes.inside.columns import values_of
from traitscope.data.shapes.json_stream import json_values, split_objects
from traitscope.data.shapes.tables import TableRow, ragged, table_rows
from traitscope.errors import DataError
from traitscope.plain_values import NotPlainError, from_json

Kind = Literal["jsonl", "json", "csv", "tsv", "parquet"]
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
"first bytes of a gzipped and of a parquet file"
OTHERS = {
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save it as CSV"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "decompress it: zstd -d"),
    b"BZh": ("compressed by bzip2", "decompress it: bunzip2"),
    b"\xfd7zXZ": ("compressed by xz", "decompress it: unxz"),
    b"ARROW1": ("an Arrow file", "save it as parquet or JSON lines"),
    b"SQLite format 3": ("a database of SQLite", "export the rows as CSV or JSON lines"),
    GZIP: ("gzipped twice", "unpack it once: gunzip"),
    b"\xff\xfe": ("UTF-16 text", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "save it as UTF-8"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file: git lfs pull"),
}
"first bytes of files that are not read: what they are, and what to do"
DOCUMENTS = {"xlsx", "xls", "xlsm", "ods", "numbers", "doc", "docx", "odt", "pdf", "rtf", "zip"}
"suffixes of files that are no text, in lower case"
UNREADABLE = (OSError, EOFError, zlib.error)
"what reading of plain and gzipped files raises"
BAD_ROW = "bad row: "
"how a line begins that says what is wrong with a row of a file that was joined with others"
FIRST_BYTES = 65_536
"bytes from which the container is found"
DELIMITERS = {"csv": ",", "tsv": "\t"}
OTHER_DELIMITERS = (";", "\t", ",", "|")
"what may separate the names of a header that is one name"
LARGEST_CELL = 2**31 - 1
"characters of a cell of a CSV file"
NOT_FINITE = re.compile(r"NaN|Infinity|[0-9][eE]\+?[0-9]{3}|[0-9]{200}")
"what may be a number that is not finite, in JSON"


class RawRow(NamedTuple):
    """A row of a file, before its shape is known."""

    place: str
    """File, and number of the line or row, as a message names them."""
    number: int
    """Number of the line or row, counted from 1."""
    fields: dict[str, Any]
    """Keys and values."""
    problem: str = ""
    """Why it cannot be read; empty where it can."""
    part: int = 1
    """Number of the object on its line, counted from 1."""
    may_hold_nan: bool = False
    """Whether a value may be NaN or Infinity."""
    is_table: bool = False
    """Whether null stands for an empty cell."""


class Container(NamedTuple):
    """Kind of a file."""

    kind: Kind
    """How its rows are written."""
    gzipped: bool
    """Whether it is compressed."""

    @property
    def name(self) -> str:
        """The kind in words."""
        return f"{self.kind}.gz" if self.gzipped else self.kind


def container_of(path: str | Path) -> Container:
    """The container of a file. Raises DataError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == GZIP
        with _opened(path, gzipped) as stream:
            first = stream.read(FIRST_BYTES)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    _check_beginning(path, first, OTHERS, "JSON lines, a JSON array, CSV, TSV or parquet")
    return Container(_kind_of(Path(path), first), gzipped)


def check_prompts(path: str | Path) -> None:
    """Raise DataError for a file of prompts that is compressed, or of a kind that is no text."""
    try:
        with open(path, "rb") as file:
            first = file.read(FIRST_BYTES)
    except OSError:  # said by who reads the file
        return
    others = OTHERS | {
        GZIP: ("gzipped", "unpack it: gunzip"),
        PARQUET: ("a parquet file", "save it as JSON lines"),
    }
    _check_beginning(path, first, others, "prompts as .txt, .jsonl or .csv")


def _check_beginning(
    path: str | Path, first: bytes, others: dict[bytes, tuple[str, str]], expected: str
) -> None:
    """Raise DataError for a file whose first bytes are those of a kind that is not read."""
    for beginning, (what, advice) in others.items():
        if first.startswith(beginning):
            raise DataError(f"{path} is {what}, which is not read; expected {expected}; {advice}")


def byte_order_mark(path: str | Path, container: Container) -> bytes:
    """The byte order mark at the beginning of a table, which spreadsheets need; empty without."""
    if container.kind not in DELIMITERS:
        return b""
    with _opened(path, container.gzipped) as stream:
        first = stream.read(len(BYTE_ORDER_MARK))
    return first if first == BYTE_ORDER_MARK else b""


def raw_rows(path: str | Path, container: Container) -> Iterator[RawRow]:
    """Yield the rows of a file one by one; a row that cannot be read says why.

    Raises DataError for a file that is missing, empty or broken as a whole.
    """
    is_empty = True
    try:
        with _opened(path, container.gzipped) as stream:
            for row in _readers(container.kind)(path, stream):
                is_empty = False
                yield row
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    if is_empty:
        raise DataError(f"{path} is empty; expected one row a line; check the step that wrote it")


def raw_lines(path: str | Path) -> Iterator[bytes]:
    """Yield the lines of a text file, unpacked, without a byte order mark.

    Raises DataError for a file that is damaged.
    """
    try:
        with _opened(path, container_of(path).gzipped) as stream:
            for number, line in enumerate(stream):
                yield line if number else line.removeprefix(BYTE_ORDER_MARK)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str | Path, error: Exception) -> Exception:
    if not isinstance(error, OSError):
        return DataError(
            f"{path} has a gzip stream that is damaged or ends early; expected all of it; copy it"
            " again"
        )
    reason = error.strerror or error
    broken = DataError(f"{path}: {reason}; expected a text file of rows; check the path")
    return atomic_files.exhausted(error) or broken


def _opened(path: str | Path, gzipped: bool) -> BinaryIO:
    return gzip.open(path, "rb") if gzipped else open(path, "rb")


def _readers(kind: Kind) -> Any:
    """The function that reads the rows of a stream."""
    return {
        "jsonl": _line_rows,
        "json": _json_rows,
        "csv": _table_rows(","),
        "tsv": _table_rows("\t"),
        "parquet": _parquet_rows,
    }[kind]


def _kind_of(path: Path, first: bytes) -> Kind:
    if first.startswith(PARQUET):
        return "parquet"
    suffixes = [suffix for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1].lower().removeprefix(".") if suffixes else ""
    if suffix in DELIMITERS:
        return suffix
    text = first.removeprefix(BYTE_ORDER_MARK).lstrip()
    line = text.partition(b"\n")[0].strip()
    if text[:1] == b"[":
        return "jsonl" if _is_list_on_a_line(text, line) else "json"
    if text[:1] == b"{":
        return "json" if line == b"{" else "jsonl"
    if suffix in DOCUMENTS:
        raise DataError(
            f"{path} is called .{suffix}, and holds text; expected JSON lines, a JSON array, CSV,"
            " TSV or parquet; save it as one of these, or give it the suffix of what it is"
        )
    for kind, delimiter in DELIMITERS.items():
        names = line.decode("utf-8", "replace").replace('"', "").split(delimiter)
        if len(COLUMNS.intersection(names)) > 1:
            return kind
    return "jsonl"


def _is_list_on_a_line(text: bytes, line: bytes) -> bool:
    """Whether a file begins with a line that is a list, and has more lines."""
    has_more = bool(text[len(line) :].strip())
    try:
        return has_more and isinstance(from_json(line), list)
    except NotPlainError:
        return False


def _line_rows(path: str | Path, stream: BinaryIO) -> Iterator[RawRow]:
    """One object a line; only a line feed ends a line. Several objects on a line are rows, too."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            problem = f"byte {error.start + 1} is not UTF-8; expected UTF-8 text; convert the file"
            yield RawRow(place, number, {}, problem)
            continue
        yield from _objects_on(text, place, number)


def _objects_on(text: str, place: str, number: int) -> Iterator[RawRow]:
    """The rows on a line."""
    try:
        values = [from_json(text, allow_nan=True)]
    except NotPlainError as error:
        values = split_objects(text.rstrip().removesuffix(","))
        if not values:
            problem = (
                f"broken JSON ({error}); expected one JSON object a line; repair or delete the line"
            )
            if text.startswith(BAD_ROW):
                problem = text.removeprefix(BAD_ROW)
            yield RawRow(place, number, {}, problem)
            return
    may_hold_nan = NOT_FINITE.search(text) is not None
    for part, value in enumerate(values, start=1):
        yield _raw_row(value, place, number, part)._replace(may_hold_nan=may_hold_nan)


def _raw_row(value: Any, place: str, number: int, part: int = 1) -> RawRow:
    try:
        row = typed(value, dict, "the row")
    except DataError as error:
        return RawRow(place, number, {}, str(error), part)
    return RawRow(place, number, row, part=part, may_hold_nan=True)


def _json_rows(path: str | Path, stream: BinaryIO) -> Iterator[RawRow]:
    """The objects of one JSON array, or objects that follow each other over several lines."""
    for number, (value, problem) in enumerate(json_values(path, stream), start=1):
        place = f"{path}, row {number}"
        if problem:
            yield RawRow(place, number, {}, problem)
        else:
            yield _raw_row(value, place, number)


def _table_rows(delimiter: str) -> Any:
    """The reader of a table with a header."""

    def read(path: str | Path, stream: BinaryIO) -> Iterator[RawRow]:
        csv.field_size_limit(min(sys.maxsize, LARGEST_CELL))
        with io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="\n") as text:
            table = table_rows(text, delimiter)
            header = _header(path, table)
            check_header(path, header)
            _check_delimiter(path, header, delimiter)
            for number, cells, problem in table:
                place = f"{path}, line {number}"
                if problem:
                    yield RawRow(place, number, {}, problem)
                else:
                    yield _table_row(place, number, header, cells)

    return read


def _header(path: str | Path, table: Iterator[TableRow]) -> list[str]:
    """The first row of a table. Raises DataError where it is broken."""
    number, names, problem = next(table, TableRow(1, []))
    if problem:
        raise DataError(f"{path}, line {number}: {problem}")
    return names


def check_header(path: str | Path, header: list[str]) -> None:
    """Raise DataError for names that stand twice, and for names that are not UTF-8."""
    if len(set(header)) < len(header):
        raise DataError(
            f"{path} has the columns {header}; expected every name once; rename columns"
        )
    try:
        "".join(header).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{path} has a header that is not UTF-8; expected UTF-8 text; {AS_UTF_8}"
        ) from None


def _check_delimiter(path: str | Path, header: list[str], delimiter: str) -> None:
    """Raise DataError for a header of one name that another delimiter would cut."""
    names = header[0] if len(header) == 1 else ""
    for other in OTHER_DELIMITERS:
        if other != delimiter and other in names:
            raise DataError(
                f"{path} has the header {names[:60]!r}, which looks separated by {other!r};"
                f" expected {delimiter!r} between the names; save the table with {delimiter!r}"
                " between its cells, and quote cells that hold it"
            )


def _table_row(place: str, number: int, header: list[str], cells: list[str]) -> RawRow:
    if len(cells) != len(header):
        return RawRow(place, number, {}, ragged(len(cells), header))
    fields: dict[str, Any] = {}
    row = dict(zip(header, cells, strict=True))
    for name, cell in row.items():
        try:
            fields[name] = cell_value(name, cell, row)
        except (NotPlainError, UnicodeEncodeError) as error:
            return RawRow(place, number, {}, cell_problem(name, cell, error))
    return RawRow(place, number, fields, may_hold_nan=True, is_table=True)


def _parquet_rows(path: str | Path, stream: BinaryIO) -> Iterator[RawRow]:
    try:
        from pyarrow import lib, parquet
    except ImportError:
        raise DataError(
            f"{path} is a parquet file, which needs pyarrow; expected it to be installed; run: pip"
            " install 'traitscope[parquet]'"
        ) from None
    source = io.BytesIO(stream.read()) if isinstance(stream, gzip.GzipFile) else stream
    try:
        number = 0
        file = parquet.ParquetFile(source)
        header = file.schema_arrow.names
        check_header(path, header)
        for batch in file.iter_batches(1024):
            columns = [values_of(column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                number += 1
                fields = dict(zip(header, cells, strict=True))
                yield RawRow(f"{path}, row {number}", number, fields, may_hold_nan=True)
    except DataError:
        raise
    except (lib.ArrowException, ValueError, OverflowError, OSError) as error:
        if atomic_files.exhausted(error) is not None:
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{path} is a broken parquet file ({reason}); expected a whole one; copy it again"
        ) from None
