"""Rows of a table: numbers of cells that differ, quotes that are left open, and empty cells."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from traitscope.plurals import counted

LEFT_OPEN = (
    "a quote is opened and never closed, so the row goes on to the end of the file, line {};"
    ' expected a closing quote; close it, or write "" for a quote in a cell'
)
"what is wrong with the last row of a table that holds the rest of the file"
MOST_OF_HEADER = 40
"characters of the names of a header that a message shows"


def kept_in(kept: list[str], lines: Iterable[str]) -> Iterator[str]:
    """The lines, each of which is also put into a list."""
    for line in lines:
        kept.append(line)
        yield line


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


def is_left_open(lines: Sequence[str], delimiter: str) -> bool:
    """Whether a quote is opened in the lines of a row and never closed."""
    if "".join(lines).count('"') % 2 == 0:
        return False
    try:
        for _ in csv.reader(lines, delimiter=delimiter, strict=True):
            pass
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def fill(fields: dict[str, Any], is_table: bool) -> None:
    """Put empty texts where no prompt is named, and where cells of a table are empty."""
    if "completion" in fields:
        fields.setdefault("prompt", "")
    if not is_table:
        return
    for name in ("prompt", "completion"):
        if name in fields and fields[name] is None:
            fields[name] = ""
