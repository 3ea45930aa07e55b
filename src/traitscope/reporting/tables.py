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

from traitscope.reporting.numbers import bounds, crossed_bounds, estimate, number
from traitscope.stats.measurement import Measurement

NO_VALUE = "–"
BOUNDS = ("low", "high")
CROSSED = (*BOUNDS, "crossed_low", "crossed_high")
"fields of a Measurement that a CSV file gives beside the estimate"
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
        crossed = crossed_bounds(cell)
        new_questions = f"\nnew questions, too: {crossed}" if crossed else ""
        return f"{estimate(cell)}\n{bounds(cell)}{new_questions}"
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

    A column of Measurements becomes three columns: estimate, lower and upper bound. Where one of
    them has bounds for new questions, two more follow.
    """
    bounds_of_columns = _bounds_of_columns(table)
    header: list[str] = []
    for name, ends in zip(table.header, bounds_of_columns, strict=True):
        header.append(name)
        header += [f"{name}, {end.replace('_', ' ')}" for end in ends]
    rows = [_with_bounds(row, bounds_of_columns) for row in table.rows]
    return csv_text(header, rows)


def _bounds_of_columns(table: Table) -> list[tuple[str, ...]]:
    """Return for every column which bounds of its Measurements are written."""
    by_column: list[tuple[str, ...]] = [()] * len(table.header)
    for row in table.rows:
        for place, cell in enumerate(row):
            if isinstance(cell, Measurement):
                is_crossed = not math.isnan(cell.crossed_low)
                by_column[place] = max(by_column[place], CROSSED if is_crossed else BOUNDS, key=len)
    return by_column


def _with_bounds(row: Sequence[Cell], bounds_of_columns: Sequence[tuple[str, ...]]) -> list[Cell]:
    """Return the cells of a CSV row; a Measurement becomes estimate and bounds."""
    cells: list[Cell] = []
    for cell, ends in zip(row, bounds_of_columns, strict=True):
        is_measured = isinstance(cell, Measurement)
        cells.append(cell.estimate if is_measured else cell)
        for end in ends:
            cells.append(getattr(cell, end) if is_measured else None)
    return cells


def measurements_csv(measurements: Iterable[Measurement]) -> str:
    """Return measurements as CSV, one a row."""
    header = ["name", "estimate", "low", "high", "n", "n_clusters", "unit", "interval"]
    rows = []
    for m in measurements:
        basis = [m.n, m.n_clusters, m.unit, m.interval]
        rows.append([m.name, m.estimate, m.low, m.high, *basis, m.crossed_low, m.crossed_high])
    return csv_text([*header, "crossed_low", "crossed_high"], rows)
