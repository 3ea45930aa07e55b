"""Tables as Markdown: one line a row, the numbers of the page, and no character read as a mark."""

import math

from traitscope.reporting.markdown import escaped, markdown_table
from traitscope.reporting.tables import Table
from traitscope.stats.measurement import Measurement

NUMBER = Measurement("m", -0.41, -0.68, -0.14, 5, 5, 0, "nats")
ALONE = Measurement("m", 0.5, math.nan, math.nan, 1, 1, 0, "nats")


def test_a_table_has_a_line_a_row_and_aligns_numbers_to_the_right() -> None:
    rows = (("a|b", NUMBER, 250), ("two\nlines", ALONE, None))
    lines = markdown_table(Table("t", "Title", "95 % of *it*", ("score", "value", "n"), rows))
    assert lines.splitlines() == [
        "**Title.** 95 % of \\*it\\*",
        "",
        "| score | value | n |",
        "| --- | ---: | ---: |",
        "| a\\|b | −0.41 \\[−0.68, −0.14\\] | 250 |",
        "| two lines | 0.500 no interval | – |",
    ]


def test_marks_are_escaped() -> None:
    assert escaped("a_b [c](d) `e` <f> #g ~h & \\") == (
        "a\\_b \\[c\\](d) \\`e\\` \\<f\\> \\#g \\~h \\& \\\\"
    )
