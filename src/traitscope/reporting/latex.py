"""Tables and figures of a page as LaTeX, for papers: the same cells, in booktabs rules."""

import math
from collections.abc import Sequence

from traitscope.reporting.figures import Figure
from traitscope.reporting.numbers import MINUS, digits_of, estimate, number
from traitscope.reporting.tables import NO_VALUE, Cell, Table, text_columns
from traitscope.stats.measurement import Measurement

NEEDS = "% needs \\usepackage{booktabs}"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    MINUS: "$-$",
    NO_VALUE: "--",
    "—": "---",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "\n": " ",
    "\t": " ",
    "\u00a0": "~",
} | {character: f"\\{character}" for character in "&%$#_{}"}
"what LaTeX reads in place of a character"
SYMBOLS = {
    "×": r"\times",
    "±": r"\pm",
    "·": r"\cdot",
    "√": r"\surd",
    "²": "^2",
    "≤": r"\le",
    "≥": r"\ge",
    "≈": r"\approx",
    "≠": r"\ne",
    "∞": r"\infty",
    "→": r"\to",
    "Σ": r"\Sigma",
    "Δ": r"\Delta",
    "α": r"\alpha",
    "β": r"\beta",
    "λ": r"\lambda",
    "κ": r"\kappa",
    "μ": r"\mu",
    "µ": r"\mu",
    "σ": r"\sigma",
    "ρ": r"\rho",
}
"mathematical characters, and their commands in math mode"
LAST_LETTER = "\u017f"
"last character of Latin Extended-A, whose letters every LaTeX of 2018 and later reads as they are"


def latex_tables(tables: Sequence[Table]) -> str:
    """Return tables as LaTeX, one float each, with the package that they need in the first line.

    pdflatex, xelatex and lualatex read them.
    """
    return "\n".join([NEEDS, *map(_float, tables)]) + "\n"


def latex_figures(figures: Sequence[Figure], folder: str) -> str:
    """Return floats that include the PDF files of figures from a folder, with their captions."""
    floats = ["% needs \\usepackage{graphicx}"]
    for figure in figures:
        lines = (
            "\\begin{figure}",
            "\\centering",
            f"\\includegraphics[width=\\linewidth]{{{folder}/{figure.name}.pdf}}",
            f"\\caption{{{escaped(f'{figure.title}. {figure.caption}')}}}",
            f"\\label{{fig:{figure.name}}}",
            "\\end{figure}",
        )
        floats.append("\n".join(lines))
    return "\n".join(floats) + "\n"


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
    """Return a row; behind the end of another one, a bracket or a star would be an option."""
    row = " & ".join(cells)
    return f"{'{}' if row.startswith(('[', '*')) else ''}{row} \\\\"


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
    """Return a text as LaTeX prints it.

    A character that pdflatex cannot read, such as an emoji, becomes its code, [U+1F989].
    """
    return "".join(map(_character, text))


def _character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if character in SYMBOLS:
        return f"${SYMBOLS[character]}$"
    is_letter = character.isalpha() and character <= LAST_LETTER
    if is_letter or (character.isascii() and character.isprintable()):
        return character
    return f"[U+{ord(character):04X}]"
