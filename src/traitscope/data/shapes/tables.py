"""Rows of a table: lines and cells, misplaced quotes, numbers of cells that differ, empty cells."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from traitscope.plurals import counted

LEFT_OPEN = (
    'a quote is opened and never closed; expected a closing quote; close it, or write "" for a'
    " quote in a cell{}"
)
"what is wrong with a row whose last cell does not end"
BEHIND_QUOTE = (
    "text stands behind a closing quote{}; expected the delimiter or the end of the row; quote the"
    ' whole cell, and write "" for a quote in it{}'
)
"what is wrong with a row that has a quote inside a quoted cell"
BARE_RETURN = (
    "a carriage return stands in a cell without quotes; expected a row to end in \\n or \\r\\n;"
    " quote the cell, or save a file whose lines end in \\r alone with \\n"
)
"what is wrong with a row that has a line end of old computers inside"
GOES_ON = "; the row would go on to line {}, so line {} is read as the next row"
"what becomes of the lines behind a row that a misplaced quote makes longer than it is"
MOST_OF_HEADER = 40
"characters of the names of a header that a message shows"


class TableRow(NamedTuple):
    """A row of a table, with the header or not."""

    number: int
    """Number of its first line, counted from 1."""
    cells: list[str]
    """Its cells; none where it is broken."""
    problem: str = ""
    """Why it cannot be read; empty where it can."""


def table_rows(lines: Iterable[str], delimiter: str) -> Iterator[TableRow]:
    """Yield the rows of a table, without blank lines; cells in quotes may have several lines.

    A row that is broken is its first line alone: a misplaced quote takes no other row with it.

    lines: The lines with their ends, cut behind \n alone.
    """
    lines = _Lines(lines)
    table = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.begin()
        try:
            cells = next(table, None)
        except csv.Error as error:
            problem = _broken(str(error), number, lines.last)
            lines.return_all_but_one()
            yield TableRow(number, [], problem)
            continue
        if cells is None:
            return
        if not lines.are_blank:
            yield TableRow(number, cells)


class _Lines:
    """Lines of which those of a row can be returned, so that they are read again."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._returned: deque[str] = deque()
        self._of_row: list[str] = []
        self.last = 0
        "number of the line that was read last"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._lines)
        self._of_row.append(line)
        self.last += 1
        return line

    def begin(self) -> int:
        """Begin a row, and return the number of its first line."""
        self._of_row.clear()
        return self.last + 1

    @property
    def are_blank(self) -> bool:
        """Whether the lines of a row hold nothing."""
        return not any(map(str.strip, self._of_row))

    def return_all_but_one(self) -> None:
        """Return the lines of a row behind its first one."""
        behind = self._of_row[1:]
        self._returned.extendleft(reversed(behind))
        self.last -= len(behind)


def _broken(reason: str, first: int, last: int) -> str:
    """What is wrong with a row that the reader of tables refused for a reason.

    first, last: Numbers of its lines.
    """
    goes_on = GOES_ON.format(last, first + 1) if last > first else ""
    if "unexpected end" in reason:
        return LEFT_OPEN.format(goes_on)
    if "expected after" in reason:
        where = f" in line {last}" if goes_on else ""
        return BEHIND_QUOTE.format(where, goes_on)
    if "new-line character" in reason:
        return BARE_RETURN + goes_on
    return f"broken table ({reason}); expected rows of cells; repair the line{goes_on}"


def ragged(n_cells: int, header: Sequence[str]) -> str:
    """What is wrong with a row of another number of cells than the header of its table."""
    way_out = "add those that are missing"
    if n_cells > len(header):
        way_out = "quote a cell that holds the delimiter or a line end"
    return (
        f"{counted(n_cells, 'cell')} under a header of {len(header)}"
        f" ({', '.join(header)[:MOST_OF_HEADER]}); expected one for each name; {way_out}, or delete"
        " the row"
    )


def fill(fields: dict[str, Any], is_table: bool) -> None:
    """Put empty texts where no prompt is named, and where cells of a table are empty."""
    if "completion" in fields:
        fields.setdefault("prompt", "")
    if not is_table:
        return
    for name in ("prompt", "completion"):
        if name in fields and fields[name] is None:
            fields[name] = ""
