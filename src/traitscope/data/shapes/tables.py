"""Rows of a table: numbers of cells that differ, quotes that are misplaced, and empty cells."""

from collections.abc import Sequence
from typing import Any

from traitscope.plurals import counted

LEFT_OPEN = (
    "a quote is opened and never closed, so the row goes on to the end of the file, line {};"
    ' expected a closing quote; close it, or write "" for a quote in a cell'
)
"what is wrong with the last row of a table that holds the rest of the file"
BEHIND_QUOTE = (
    "text stands behind a closing quote{}; expected the delimiter or the end of the row; quote the"
    ' whole cell, and write "" for a quote in it'
)
"what is wrong with a row that has a quote inside a quoted cell"
MOST_OF_HEADER = 40
"characters of the names of a header that a message shows"


def broken(reason: str, first: int, last: int) -> str:
    """What is wrong with a row that the reader of tables refused for a reason.

    first, last: Numbers of its lines.
    """
    if "unexpected end" in reason:
        return LEFT_OPEN.format(last)
    if "expected after" in reason:
        return BEHIND_QUOTE.format("" if first == last else f" in line {last}, where the row ends")
    return f"broken table ({reason}); expected rows of cells; repair the line"


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
