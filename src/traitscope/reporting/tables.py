"""Tables of a page, and the same numbers as CSV.

A cell holds a text, a number, a Measurement, or None where there is no value. Pages and CSV files
are made of the same table, so they cannot disagree.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from traitscope.reporting.numbers import bounds, estimate, number
from traitscope.stats.measurement import Measurement

NO_VALUE = "–"
LETTER = re.compile(r"[^\W\d_]")
Cell = Any
"a text, a number, a Measurement, or None"


@dataclass(frozen=True)
class Table:
    """A table with its heading, ready for a page and for a CSV file."""

    name: str
    """Name of the CSV file and of the link to the table; unique on a page."""
    title: str
    """Heading of the table."""
    caption: str
    """How to read the table, units included."""
    header: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[Cell, ...], ...]
    """Cells, row by row; each row is as long as the header."""
    curve: tuple[str, ...] = ()
    """Columns to draw as lines: the column of x, then one or more columns of y. Columns left of x
    tell the lines apart. Empty: no figure."""


def shown(cell: Cell) -> str:
    """Return a cell as a page shows it; what follows a line break is set small."""
    if cell is None:
        return NO_VALUE
    if isinstance(cell, Measurement):
        return f"{estimate(cell)}\n{bounds(cell)}"
    return number(cell) if isinstance(cell, float) else str(cell)


def text_columns(table: Table) -> tuple[bool, ...]:
    """Say for every column whether it holds words, which are aligned to the left.

    A column holds words where most of its cells are texts with a letter.
    """
    counts = [0] * len(table.header)
    for row in table.rows:
        for place, cell in enumerate(row):
            counts[place] += isinstance(cell, str) and LETTER.search(cell) is not None
    return tuple(2 * count > len(table.rows) for count in counts)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV with \\n line ends; floats with 8 significant digits, None and NaN empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(map(_csv_cell, row))
    return stream.getvalue()


def _csv_cell(value: object) -> object:
    if value is None:
        return ""
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.8g}"


def table_csv(table: Table) -> str:
    """Return a table as CSV.

    A column of Measurements becomes three columns: estimate, lower and upper bound.
    """
    measured = _measured_columns(table)
    header: list[str] = []
    for name, is_measured in zip(table.header, measured, strict=True):
        header.append(name)
        if is_measured:
            header += [f"{name}, low", f"{name}, high"]
    rows = [_with_bounds(row, measured) for row in table.rows]
    return csv_text(header, rows)


def _measured_columns(table: Table) -> list[bool]:
    """Say for every column whether it holds a Measurement."""
    measured = [False] * len(table.header)
    for row in table.rows:
        for place, cell in enumerate(row):
            measured[place] |= isinstance(cell, Measurement)
    return measured


def _with_bounds(row: Sequence[Cell], measured: Sequence[bool]) -> list[Cell]:
    """Return the cells of a CSV row; a Measurement becomes estimate and bounds."""
    cells: list[Cell] = []
    for cell, is_measured in zip(row, measured, strict=True):
        if isinstance(cell, Measurement):
            cells += [cell.estimate, cell.low, cell.high]
        elif is_measured:
            cells += [cell, None, None]
        else:
            cells.append(cell)
    return cells


def measurements_csv(measurements: Iterable[Measurement]) -> str:
    """Return measurements as CSV, one a row."""
    header = ["name", "estimate", "low", "high", "n", "n_clusters", "unit", "interval"]
    rows = []
    for m in measurements:
        rows.append([m.name, m.estimate, m.low, m.high, m.n, m.n_clusters, m.unit, m.interval])
    return csv_text(header, rows)
