"""What the lines of a calibration say, as tables: rates with exact intervals, and distributions.

A set is the unit: no two sets share a prompt, a seed or, within a kind, a writer. A kind with fewer
than MIN_UNITS sets shows its counts and no rate.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from traitscope.reporting.numbers import number
from traitscope.reporting.tables import NO_VALUE, Table
from traitscope.stats.decision import MIN_UNITS
from traitscope.stats.intervals import clopper_pearson
from traitscope.studies.calibration.results import Line
from traitscope.studies.calibration.sets.menu import CLEAN, KINDS, MIXED, RATES

ALPHA = 0.01
"error rate that the audit states, which the calibration tests"
LEVEL = 0.95
"level of intervals, and of the one-sided bound"
STATUSES = ("suspect", "nothing-found", "insufficient", "not-applicable")
QUANTILES = (0.05, 0.5, 0.95, 1.0)
AT_ROWS = (64, 128, 256)
"rows at which power is read from the curve of a set"
WHOLE = ("prompted", "unlisted trait prompted", "steered", "tuned")
"kinds whose rows are all a teacher's, in numbers"


def tables(lines: Sequence[Line]) -> list[Table]:
    """All tables of the page."""
    return [
        clean_table(lines),
        distribution_table(lines),
        status_table(lines),
        power_table(lines),
        rows_table(lines),
        names_table(lines),
        cost_table(lines),
    ]


def verdict(lines: Sequence[Line], alpha: float = ALPHA) -> str:
    """Whether the stated error rate holds over the clean sets, in a sentence with its rule.

    It holds if the one-sided 95 % bound of Clopper and Pearson is at most alpha. The opposite holds
    if the lower bound is above alpha. Fewer than MIN_UNITS sets have no verdict.
    """
    clean = _of_family(lines, "clean")
    count, called = len(clean), _count_suspect(clean)
    text = f"{called} of {count} clean sets are called"
    if count < MIN_UNITS:
        return f"*No verdict*: {text}; a verdict needs {MIN_UNITS} or more."
    low, high = clopper_pearson(called, count, 2 * LEVEL - 1)
    if high <= alpha:
        outcome = "*Holds here*"
    elif low > alpha:
        outcome = "*Opposite here*"
    else:
        outcome = "*Undecided*"
    return (
        f"{outcome}: {text}, so at most {high:.2%} (one-sided, 95 %); the audit states {alpha:.0%}."
        " This is the average over the kinds of the table: one kind may have another rate."
    )


def clean_table(lines: Sequence[Line]) -> Table:
    """Clean sets that are called, by kind and altogether."""
    rows = []
    for kind in CLEAN:
        rows.append((kind, *_counts(_of_kind(lines, kind), CLEAN[kind][0])))
    planned = sum(sets for sets, _ in CLEAN.values())
    rows.append(("all", *_counts(_of_family(lines, "clean"), planned)))
    return Table(
        "clean",
        "Clean sets",
        "`called`: the answer is `suspect`. The interval is that of Clopper and Pearson, 95 %.",
        ("kind", "planned", "sets", "called", "rate", "not applicable"),
        tuple(rows),
    )


def distribution_table(lines: Sequence[Line]) -> Table:
    """Quantiles of the log e-values, by kind."""
    rows = []
    for kind in KINDS:
        of_kind = _of_kind(lines, kind)
        if of_kind:
            predicted = _quantiles(line["predictions"] for line in of_kind)
            rows.append(
                (kind, len(of_kind), *predicted, *_quantiles(line["joint"] for line in of_kind))
            )
    names = [f"{quantile:.0%}" for quantile in QUANTILES[:-1]] + ["largest"]
    header = [f"predictions, {name}" for name in names] + [f"candidates, {name}" for name in names]
    return Table(
        "log_e",
        "Log e-values",
        "Quantiles over sets of ln e of the predictions, and of the candidates together.",
        ("kind", "sets", *header),
        tuple(rows),
    )


def status_table(lines: Sequence[Line]) -> Table:
    """How often each answer is given, by kind."""
    rows = []
    for kind in KINDS:
        of_kind = _of_kind(lines, kind)
        if of_kind:
            counts = Counter(line["status"] for line in of_kind)
            each = [counts[status] for status in STATUSES]
            rows.append((kind, KINDS[kind].family, len(of_kind), *each))
    return Table(
        "statuses", "Answers", "Number of sets.", ("kind", "family", "sets", *STATUSES), tuple(rows)
    )


def power_table(lines: Sequence[Line]) -> Table:
    """Sets of teachers that are called, by kind and contamination rate."""
    rates = [f"{rate:.0%}" for rate in (1.0, *RATES)]
    rows = []
    for teacher in MIXED:
        cells = []
        for rate in rates:
            kind = teacher if rate == "100%" else f"{teacher} {rate}"
            cells.append(_rate(_of_kind(lines, kind)))
        edited = _rate(_of_kind(lines, f"{teacher}, a quarter sorted"))
        rows.append((teacher, *cells, edited, _rate(_of_kind(lines, f"text, {teacher}"))))
    return Table(
        "power",
        "Sets of teachers that are called, by contamination rate",
        "It is the fraction of the rows that are the teacher's. A kind has ten teachers.",
        ("teacher", *rates, "a quarter sorted", "free text"),
        tuple(rows),
    )


def rows_table(lines: Sequence[Line]) -> Table:
    """Sets whose predictions alone are beyond the threshold, by number of rows."""
    rows = []
    for kind in (*WHOLE, "random vector", "benign tuned", *(f"text, {each}" for each in MIXED)):
        cells = [_rate(_of_kind(lines, kind), _beyond(count)) for count in AT_ROWS]
        rows.append((kind, *cells))
    return Table(
        "rows",
        "Sets that the predictions alone would call, by number of rows",
        "All rows are the teacher's. One set is read at several numbers of rows.",
        ("kind", *map(str, AT_ROWS)),
        tuple(rows),
    )


def names_table(lines: Sequence[Line]) -> Table:
    """How often the true trait comes first, is named, or another one is named."""
    rows = []
    kinds = [*WHOLE, *(f"{each} 50%" for each in MIXED), *(f"text, {each}" for each in MIXED)]
    for kind in (*kinds, "random vector", "benign tuned"):
        of_kind = _of_kind(lines, kind)
        if not of_kind:
            continue
        has_trait = KINDS[kind].family == "trait"
        first = sum(line["best"] == line["trait"] for line in of_kind) if has_trait else None
        right = sum(line["named"] == line["trait"] for line in of_kind) if has_trait else None
        wrong = sum(line["named"] not in (None, line["trait"]) for line in of_kind)
        rows.append((kind, len(of_kind), first, right, wrong))
    return Table(
        "names",
        "Which trait is named",
        "`first`: the true trait has the largest e-value of all candidates. `named`: it is named."
        " `another named`: a trait is named that the writer does not have. Traits that are not"
        " bundled cannot be named.",
        ("kind", "sets", "first", "named", "another named"),
        tuple(rows),
    )


def cost_table(lines: Sequence[Line]) -> Table:
    """Seconds of CPU of a set: its rows and its audit."""
    rows = []
    for family in dict.fromkeys(kind.family for kind in KINDS.values()):
        of_family = _of_family(lines, family)
        if of_family:
            made = float(np.median([line["seconds_rows"] for line in of_family]))
            audited = float(np.median([line["seconds_audit"] for line in of_family]))
            rows.append((family, len(of_family), made, audited))
    return Table(
        "seconds",
        "Seconds of CPU a set",
        "Medians.",
        ("family", "sets", "rows", "audit"),
        tuple(rows),
    )


def markdown(table: Table) -> str:
    """A table as markdown, with its title and caption."""
    lines = [f"## {table.title}", "", table.caption, "", _row(table.header)]
    lines.append("|" + " --- |" * len(table.header))
    for row in table.rows:
        lines.append(_row([_shown(cell) for cell in row]))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(cell: Any) -> str:
    if cell is None:
        return NO_VALUE
    return number(cell, 1) if isinstance(cell, float) else str(cell)


def _of_kind(lines: Sequence[Line], kind: str) -> list[Line]:
    return [line for line in lines if line["kind"] == kind]


def _of_family(lines: Sequence[Line], family: str) -> list[Line]:
    return [line for line in lines if line["family"] == family]


def _is_suspect(line: Line) -> bool:
    return str(line["status"]) == "suspect"


def _count_suspect(lines: Sequence[Line]) -> int:
    return sum(map(_is_suspect, lines))


def _counts(lines: Sequence[Line], planned: int) -> tuple[Any, ...]:
    """Planned sets, sets, calls, their rate, and sets that the tests do not apply to."""
    other = sum(line["status"] == "not-applicable" for line in lines)
    return planned, len(lines), _count_suspect(lines), _rate(lines), other


def _rate(lines: Sequence[Line], hit: Callable[[Line], bool | None] = _is_suspect) -> str | None:
    """The fraction of sets with its exact interval; counts alone below MIN_UNITS; None without.

    A set for which `hit` is None does not count.
    """
    hits = [value for value in map(hit, lines) if value is not None]
    if not hits:
        return None
    count, total = sum(hits), len(hits)
    if total < MIN_UNITS:
        return f"{count} of {total}"
    low, high = clopper_pearson(count, total, LEVEL)
    return f"{count / total:.0%} [{low:.1%}, {high:.1%}]"


def _beyond(count: int) -> Callable[[Line], bool | None]:
    """Whether the predictions of a set are beyond the threshold after so many rows."""

    def hit(line: Line) -> bool | None:
        value, critical = line["curve"].get(str(count)), line["critical"]
        return None if value is None or critical is None else bool(value >= critical)

    return hit


def _quantiles(values: Iterable[float | None]) -> list[float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return [None] * len(QUANTILES)
    return [float(value) for value in np.quantile(known, QUANTILES)]
