"""Tables of a page as LaTeX, for papers: the same cells, in booktabs rules."""

import math
from collections.abc import Sequence

from traitscope.reporting.numbers import MINUS, digits_of, estimate, number
from traitscope.reporting.tables import NO_VALUE, Cell, Table, text_columns
from traitscope.stats.measurement import Measurement

NEEDS = "% needs \\usepackage{booktabs}"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MINUS: "$-$",
    NO_VALUE: "--",
    "×": r"$\times$",
    "“": "``",
    "”": "''",
    "\n": " ",
} | {character: f"\\{character}" for character in "&%$#_{}"}
"what LaTeX reads in place of a character"


def latex_tables(tables: Sequence[Table]) -> str:
    """Return tables as LaTeX, one float each, with the package that they need in the first line."""
    return "\n".join([NEEDS, *map(_float, tables)]) + "\n"


def _float(table: Table) -> str:
    columns = "".join("l" if is_text else "r" for is_text in text_columns(table))
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escaped(f'{table.title}. {table.caption}')}}}",
        f"\\label{{tab:{table.name}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _row(list(map(escaped, table.header))),
        "\\midrule",
    ]
    for row in table.rows:
        lines.append(_row(list(map(_cell, row))))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"])


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _cell(cell: Cell) -> str:
    """Return a cell; of a Measurement the estimate, and the interval where it has one."""
    if cell is None:
        return SPECIAL[NO_VALUE]
    if isinstance(cell, Measurement):
        return _measured(cell)
    return escaped(number(cell) if isinstance(cell, float) else str(cell))


def _measured(item: Measurement) -> str:
    if math.isnan(item.estimate):
        return SPECIAL[NO_VALUE]
    value = _math(estimate(item))
    if math.isnan(item.low):
        return value
    low, high = (number(bound, digits_of(item)) for bound in (item.low, item.high))
    return f"{value} [{_math(low)}, {_math(high)}]"


def _math(text: str) -> str:
    return f"${text.replace(MINUS, '-')}$"


def escaped(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(SPECIAL.get(character, character) for character in text)
