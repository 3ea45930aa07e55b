"""Lines of text files and rows of JSONL files, with their places for error messages.

Only a line feed ends a line: other Unicode line breaks may stand inside a text.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from traitscope import atomic_files
from traitscope.data.json_fields import typed
from traitscope.errors import DataError
from traitscope.plain_values import NotPlainError, from_json

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line that is not blank."""

    place: str
    """File and line number, as a message names them."""
    number: int
    """Number of the line, counted from 1."""
    text: str
    """The line without its end."""


class JsonRow(NamedTuple):
    """A line of a JSONL file."""

    place: str
    """File and line number, as a message names them."""
    number: int
    """Number of the line, counted from 1."""
    fields: dict[str, Any]
    """The JSON object on the line."""


def iter_json_rows(path: str | Path) -> Iterator[JsonRow]:
    """Yield the JSON object of every line that is not blank; raise DataError as `iter_lines`."""
    for line in iter_lines(path):
        yield JsonRow(line.place, line.number, at_place(line.place, _parsed, line.text))


def iter_lines(path: str | Path) -> Iterator[Line]:
    """Yield every line that is not blank.

    Raises DataError for a file that is missing, is empty or is not UTF-8.
    """
    is_empty = True
    for number, raw_line in enumerate(_raw_lines(path), start=1):
        place = f"{path}, line {number}"
        if raw_line.strip():
            is_empty = False
            content = raw_line.removesuffix(b"\n").removesuffix(b"\r")
            yield Line(place, number, at_place(place, _decoded, content))
    if is_empty:
        raise DataError(f"{path} is empty; expected one row a line; check the step that wrote it")


def at_place(place: str, call: Callable, *args: Any) -> Any:
    """Return `call(*args)`; put the place before the message of a DataError."""
    try:
        return call(*args)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def check_new_id(place: str, name: str, short_place: str, seen: dict[str, str]) -> None:
    """Add the id to `seen`, which maps ids to places; raise DataError where it is there already."""
    if name in seen:
        raise DataError(
            f"{place}: again the id {name!r} of {seen[name]}; expected every id once; rename or"
            " drop the ids"
        )
    seen[name] = short_place


def _raw_lines(path: str | Path) -> Iterator[bytes]:
    """The lines of a file, without a byte order mark; never more than one in memory."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                yield line if number else line.removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        broken = DataError(
            f"{path}: {error.strerror or error}; expected a text file; check the path"
        )
        raise atomic_files.exhausted(error) or broken from None


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start + 1} is not UTF-8; expected UTF-8 text; convert the file"
        ) from None


def _parsed(line: str) -> dict[str, Any]:
    try:
        row = from_json(line)
    except NotPlainError as error:
        raise DataError(
            f"broken JSON ({error}); expected one JSON object a line; repair or delete the line"
        ) from None
    return typed(row, dict, "the row")
