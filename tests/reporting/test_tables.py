"""Tables: cells as a page shows them, and CSV with the ends of intervals."""

import csv
import io
import math
from dataclasses import replace

import pytest

from traitscope.reporting.numbers import sentence
from traitscope.reporting.tables import (
    Table,
    csv_text,
    measurements_csv,
    shown,
    table_csv,
    text_columns,
)
from traitscope.stats.measurement import Measurement

NARROW = Measurement("m", 0.2, 0.1, 0.3, 5, 5, 0, "cosine")
CROSSED = replace(NARROW, crossed_low=0.05, crossed_high=0.35)
WITHOUT_INTERVAL = Measurement("m", -0.25, math.nan, math.nan, 1, 1, 0, "cosine")


def table(*rows: tuple) -> Table:
    return Table("t", "Title", "Caption", ("who", "one", "two"), rows)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "–"),
        ("a text", "a text"),
        (3, "3"),
        (0.5, "0.500"),
        (-0.00001, "0.000"),
        (math.nan, "undefined"),
        (NARROW, "0.20\n[0.10, 0.30]"),
        (CROSSED, "0.20\n[0.10, 0.30]\nnew questions, too: [0.05, 0.35]"),
        (WITHOUT_INTERVAL, "−0.250\nno interval"),
    ],
)
def test_a_cell_as_a_page_shows_it(cell: object, text: str) -> None:
    assert shown(cell) == text


def test_a_column_of_measurements_has_three_columns_in_csv() -> None:
    lines = table_csv(table(("a", NARROW, 1), ("b", 0.5, 2))).splitlines()
    assert lines == ['who,one,"one, low","one, high",two', "a,0.2,0.1,0.3,1", "b,0.5,,,2"]


def test_bounds_for_new_questions_have_two_columns_more() -> None:
    header, first, second = table_csv(table(("a", CROSSED, 1), ("b", NARROW, 2))).splitlines()
    names = '"one, low","one, high","one, crossed low","one, crossed high"'
    assert header == f"who,one,{names},two"
    assert (first, second) == ("a,0.2,0.1,0.3,0.05,0.35,1", "b,0.2,0.1,0.3,,,2")
    measurements = measurements_csv([CROSSED, NARROW]).splitlines()
    assert measurements[0].endswith("interval,crossed_low,crossed_high")
    assert measurements[1].endswith(",0.05,0.35") and measurements[2].endswith(",,")
    assert "for new questions, too: [0.05, 0.35]" in sentence(CROSSED)
    assert "new questions" not in sentence(NARROW)


def test_csv_keeps_commas_quotes_and_line_breaks() -> None:
    rows = [["a,b", 'say "x"', "two\nlines"], [None, math.nan, 1 / 3]]
    read = list(csv.reader(io.StringIO(csv_text(["x", "y", "z"], rows))))
    assert read == [["x", "y", "z"], rows[0], ["", "", "0.33333333"]]


def test_columns_of_words_are_told_from_numbers() -> None:
    rows = (("a", "no interval", 1.0), ("b", "[0.1, 0.2]", 2.0), ("c", "0.3", 3.0))
    assert text_columns(table(*rows)) == (True, False, False)
    assert text_columns(table()) == (False, False, False)
