"""Tables as LaTeX: every character prints as itself, and numbers are those of the page."""

import math

from traitscope.reporting.latex import NEEDS, escaped, latex_tables
from traitscope.reporting.tables import Table
from traitscope.stats.measurement import Measurement

NUMBER = Measurement("m", -0.41, -0.68, -0.14, 5, 5, 0, "nats")
TABLE = Table(
    "differences",
    "Treated − control",
    "95 % of them",
    ("score", "difference", "n"),
    (
        ("positive.target_logprob", NUMBER, 250),
        ("alone", Measurement("m", 0.5, math.nan, math.nan, 1, 1, 0, "nats"), None),
    ),
)


def test_a_table_is_a_float_with_booktabs_rules() -> None:
    lines = latex_tables([TABLE]).splitlines()
    assert lines[0] == NEEDS
    assert "\\caption{Treated $-$ control. 95 \\% of them}" in lines
    assert "\\label{tab:differences}" in lines and "\\begin{tabular}{lrr}" in lines
    assert "positive.target\\_logprob & $-0.41$ [$-0.68$, $-0.14$] & 250 \\\\" in lines
    assert "alone & $0.500$ & -- \\\\" in lines
    rules = [line for line in lines if line.endswith("rule")]
    assert rules == ["\\toprule", "\\midrule", "\\bottomrule"]


def test_special_characters_are_escaped() -> None:
    assert escaped("50 % & _a_ #1 “x” − 3 × 4") == "50 \\% \\& \\_a\\_ \\#1 ``x'' $-$ 3 $\\times$ 4"
    assert escaped("\\{~^") == "\\textbackslash{}\\{\\textasciitilde{}\\textasciicircum{}"


def test_any_character_compiles() -> None:
    """What pdflatex cannot print becomes its code; letters of Europe stay."""
    assert escaped("König ß ž") == "König ß ž"
    assert escaped("α ≥ 2 ± 1 → ∞ √D λ") == (
        "$\\alpha$ $\\ge$ 2 $\\pm$ 1 $\\to$ $\\infty$ $\\surd$D $\\lambda$"
    )
    assert escaped("🦉 日 \x07") == "[U+1F989] [U+65E5] [U+0007]"
    assert escaped('<a|b> "c" …') == "\\textless{}a\\textbar{}b\\textgreater{} ''c'' \\ldots{}"
    for code in range(0x2600):
        printed = escaped(chr(code))
        assert printed.isascii() or (printed.isalpha() and printed <= "\u017f"), hex(code)


def test_a_row_that_begins_with_a_bracket_is_no_option_of_the_row_before() -> None:
    table = Table("t", "T", "", ("a", "b"), (("[x]", 1), ("*", 2), ("y", 3)))
    lines = latex_tables([table]).splitlines()
    assert ("{}[x] & 1 \\\\" in lines) and ("{}* & 2 \\\\" in lines) and ("y & 3 \\\\" in lines)
