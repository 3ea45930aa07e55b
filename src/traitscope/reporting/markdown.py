"""Tables of a page as Markdown, with the same numbers as the page."""

import re
from collections.abc import Sequence

from traitscope.reporting.tables import Cell, Table, shown, text_columns

MARKED = re.compile(r"([\\`*_\[\]<>|#~&])")
"characters that Markdown would read as marks"


def markdown_table(table: Table) -> str:
    """Return a table as Markdown with pipes, its title and its caption above."""
    sides = ("---" if is_text else "---:" for is_text in text_columns(table))
    lines = [f"**{escaped(table.title)}.** {escaped(table.caption)}".rstrip(), ""]
    lines += [_row(list(map(escaped, table.header))), _row(list(sides))]
    for row in table.rows:
        lines.append(_row(list(map(_cell, row))))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    """Return a cell as a page shows it, on one line."""
    return escaped(shown(cell))


def escaped(text: str) -> str:
    """Return a text as Markdown prints it, on one line."""
    return MARKED.sub(r"\\\1", " ".join(text.split()))
