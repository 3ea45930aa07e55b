"""Lines of text files and rows of JSONL files, with their places for error messages.

Only a line feed ends a line: other Unicode line breaks may stand inside a text.
"""

import hashlib
import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from traitscope import atomic_files
from traitscope.errors import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LEAST_SLOTS = 1024
"slots of a set of texts at first; a power of two"


class Line(NamedTuple):
    """A line of a text file."""

    place: str
    """File and line number, as a message names them."""
    number: int
    """Number of the line, counted from 1."""
    text: str
    """The line, without its end unless ends were asked for."""


def iter_lines(
    path: str | Path, with_blank: bool = False, with_ends: bool = False
) -> Iterator[Line]:
    """Yield every line that is not blank, or every line.

    with_blank: Yield blank lines, too.
    with_ends: Leave the ends of lines, which cells of a table may hold.

    Raises DataError for a file that is missing, is empty or is not UTF-8.
    """
    is_empty = True
    for number, raw_line in enumerate(_raw_lines(path), start=1):
        place = f"{path}, line {number}"
        is_blank = not raw_line.strip()
        is_empty &= is_blank
        if with_blank or not is_blank:
            content = raw_line
            if not with_ends:
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


class Seen:
    """Texts that were seen, with the number of the place of each, in about 24 bytes a text.

    A text is known by 64 bits of its hash. Two of a million texts are taken for one with a
    probability of 3e-8.
    """

    def __init__(self) -> None:
        self._marks = array("Q", bytes(8 * LEAST_SLOTS))
        self._numbers = array("Q", bytes(8 * LEAST_SLOTS))
        self._count = 0

    def add(self, text: bytes, number: int) -> int | None:
        """Add a text; the number that it had before, None for a new one."""
        digest = hashlib.blake2b(text, digest_size=8).digest()
        mark = int.from_bytes(digest, "little") or 1  # an empty slot holds 0
        slot = self._slot(mark)
        if self._marks[slot]:
            return self._numbers[slot]
        self._marks[slot], self._numbers[slot] = mark, number
        self._count += 1
        if 3 * self._count > 2 * len(self._marks):
            self._grow()
        return None

    def __len__(self) -> int:
        return self._count

    def _slot(self, mark: int) -> int:
        """The slot of a mark: where it is, or would be put."""
        marks, last = self._marks, len(self._marks) - 1
        slot = mark & last
        while marks[slot] and marks[slot] != mark:
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        """Twice as many slots."""
        marks, numbers = self._marks, self._numbers
        self._marks = array("Q", bytes(16 * len(marks)))
        self._numbers = array("Q", bytes(16 * len(marks)))
        for mark, number in zip(marks, numbers, strict=True):
            if mark:
                slot = self._slot(mark)
                self._marks[slot], self._numbers[slot] = mark, number


def check_new_id(place: str, name: str, number: int, seen: Seen, unit: str = "line") -> None:
    """Add the id of the row with a number; raise DataError where an earlier one has it."""
    earlier = seen.add(name.encode("utf-8", "surrogatepass"), number)
    if earlier is not None:
        raise DataError(f"{place}: {repeated(name, f'{unit} {earlier}', f'{unit} {number}')}")


def repeated(name: str, earlier: str, later: str) -> str:
    """What is wrong with a row whose id an earlier one has. A row without an id has its line's."""
    nameless = ""
    for place in (earlier, later):
        if re.match(rf"row0*{place.rpartition(' ')[2]}(\.|$)", name):
            nameless = f", as {place} is called where it has no id"
    return (
        f"again the id {name!r} of {earlier}{nameless}; expected every id once; rename or drop the"
        " ids"
    )


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
