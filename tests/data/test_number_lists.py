"""The number parser against a table and against a second implementation."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traitscope.data.number_lists import parse_numbers

SEPARATORS = [
    ",",
    ", ",
    " , ",
    ";",
    "; ",
    " ;",
    " ",
    "  ",
    "\t",
    "\n",
    ",\n",
    "\n\n",
    "\r\n",
    ", \t",
]
ACCEPTED = {
    "1, 2, 3": [1, 2, 3],
    "1,2,3": [1, 2, 3],
    "1; 2; 3": [1, 2, 3],
    "1 2 3": [1, 2, 3],
    "1   2   3": [1, 2, 3],
    "1\t2\t3": [1, 2, 3],
    "1\n2\n3": [1, 2, 3],
    "1,\n2,\n3": [1, 2, 3],
    "1 , 2 , 3": [1, 2, 3],
    "[1, 2, 3]": [1, 2, 3],
    "(1; 2; 3)": [1, 2, 3],
    "1, 2, 3.": [1, 2, 3],
    "[1, 2].": [1, 2],
    "007, 010": [7, 10],
    "1, 2": [1, 2],
    "42": [42],
    "[42]": [42],
    "42.": [42],
    "1, 1000000": [1, 1000000],
}
REJECTED = [
    "",
    " ",
    ".",
    "[]",
    "abc",
    " 1, 2",
    "1, 2 ",
    "1, 2\n",
    "\n1, 2",
    "1, 2,3",
    "1, 2; 3",
    "1 2, 3",
    "1, 2,",
    "1, 2, ",
    ",1, 2",
    "[ 1, 2 ]",
    "( 1, 2)",
    "[1, 2)",
    "[1, 2",
    "[[1, 2]]",
    "([1, 2])",
    "[1, 2.]",
    "1, 2..",
    "-1, -2",
    "1, -2",
    "1-2-3",
    "1.5, 2",
    "1. 2. 3",
    "1:2",
    "1/2",
    "1,, 2",
    "1;,2",
    "1 and 2",
    "one, 2",
    "42 ",
    "42!",
    "Sure: 42",
    "1, 2, x",
    "٣, ٤",
    "1², 2",
    "**1, 2**",
]


def split_parser(text: str) -> list[int] | str:
    """The same rules, written as steps on the text instead of as one pattern."""
    text = text.removesuffix(".")
    if len(text) > 1 and text[0] + text[-1] in ("[]", "()"):
        text = text[1:-1]
    runs = list(re.finditer("[0-9]+", text))
    gap = text[runs[0].end() : runs[1].start()] if len(runs) > 1 else None
    pieces = text.split(gap) if gap else [text]
    if (gap or "").strip() not in ("", ",", ";") or not all(
        re.fullmatch("[0-9]+", piece) for piece in pieces
    ):
        return "format"
    return [int(piece) for piece in pieces]


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted(text: str) -> None:
    assert parse_numbers(text) == ACCEPTED[text]


@pytest.mark.parametrize("text", REJECTED)
def test_rejected(text: str) -> None:
    assert parse_numbers(text) == "format"


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=12),
    st.sampled_from(SEPARATORS),
    st.sampled_from(["{}", "[{}]", "({})"]),
    st.sampled_from(["", "."]),
    st.integers(0, 4),
)
def test_a_list_in_any_separator_parses_back(
    numbers: list[int], separator: str, frame: str, period: str, zeros: int
) -> None:
    text = frame.format(separator.join("0" * zeros + str(number) for number in numbers)) + period
    assert parse_numbers(text) == numbers


@given(
    st.lists(st.integers(0, 999), min_size=3, max_size=8),
    st.lists(st.sampled_from(SEPARATORS), min_size=2, max_size=2, unique=True),
)
def test_two_separators_never_parse(numbers: list[int], separators: list[str]) -> None:
    head, last = separators
    assert parse_numbers(head.join(map(str, numbers[:-1])) + last + str(numbers[-1])) == "format"


@given(st.text(alphabet="019 ,;\n\t[]().-a", max_size=12))
def test_pattern_and_split_agree(text: str) -> None:
    assert parse_numbers(text) == split_parser(text)


@given(st.text())
def test_any_text_is_decided(text: str) -> None:
    assert parse_numbers(text) == "format" or text.strip()


def test_a_run_longer_than_python_converts_is_no_number() -> None:
    assert parse_numbers("9" * 5000) == "format"
