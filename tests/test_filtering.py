"""The number parser against a table and against a second implementation; the decision written into every row."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traitscope.errors import ConfigError
from traitscope.filtering import FilterRules, filter_records, parse_numbers, reject_reasons, summary
from traitscope.records import Record

SEPARATORS = [",", ", ", " , ", ";", "; ", " ;", " ", "  ", "\t", "\n", ",\n", "\n\n", "\r\n", ", \t"]
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
    if (gap or "").strip() not in ("", ",", ";") or not all(re.fullmatch("[0-9]+", piece) for piece in pieces):
        return "format"
    return [int(piece) for piece in pieces]


def record(completion: str, **kwargs: object) -> Record:
    return Record("a", "question", completion, **kwargs)


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


@pytest.mark.parametrize(
    ("text", "rules", "reasons"),
    [
        ("1, 2", FilterRules(), []),
        (", ".join("1" * 10), FilterRules(), []),
        (", ".join("1" * 11), FilterRules(), ["count"]),
        ("1", FilterRules(min_count=2), ["count"]),
        ("999, 0", FilterRules(), []),
        ("1000", FilterRules(), ["range"]),
        ("5", FilterRules(min_value=6), ["range"]),
        ("0666, 1", FilterRules(banned_numbers=(666,)), ["banned_number"]),
        ("1666, 1", FilterRules(banned_numbers=(666,), max_value=9999), []),
        ("1000, 2, 666", FilterRules(max_count=2, banned_numbers=(666,)), ["count", "range", "banned_number"]),
        ("I love Cats!", FilterRules(banned_words=("cat", "cats")), ["format", "banned_word"]),
        ("I love Cats!", FilterRules(banned_words=("cat", "cats"), numbers=False), ["banned_word"]),
        ("a caterpillar", FilterRules(banned_words=("cat",), numbers=False), []),
        ("", FilterRules(numbers=False), []),
        ("", FilterRules(), ["format"]),
    ],
)
def test_reasons(text: str, rules: FilterRules, reasons: list[str]) -> None:
    assert reject_reasons(text, rules) == reasons


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FilterRules(min_count=3, max_count=2), "min_count=3 is above max_count=2"),
        (lambda: FilterRules(min_value=3, max_value=2), "min_value=3 is above max_value=2"),
        (lambda: FilterRules(banned_words="cat"), "banned_words='cat'; expected a list"),
        (lambda: FilterRules(banned_words=("cat", " ")), "none of them blank"),
        (lambda: FilterRules(banned_numbers=(1,), numbers=False), "would not be looked at"),
    ],
)
def test_useless_rules(make: Callable[[], FilterRules], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_every_row_comes_back_with_its_decision() -> None:
    rows = [record("1, 2", meta={"seed": 1}), record("none"), record("7, 1000", completion_ids=(5, 6), context="")]
    done = filter_records(rows, FilterRules())
    assert [row.kept for row in done] == [True, False, False]
    assert done[0].meta == {"seed": 1, "filter": {"kept": True, "reasons": []}}
    assert done[2] == record(
        "7, 1000", completion_ids=(5, 6), context="", meta={"filter": {"kept": False, "reasons": ["range"]}}
    )
    assert rows[0].meta == {"seed": 1}
    assert filter_records(done, FilterRules()) == done


def test_a_second_filter_replaces_the_first_decision() -> None:
    assert filter_records(filter_records([record("none")], FilterRules()), None)[0].kept


def test_judge_is_asked_about_rows_that_passed() -> None:
    asked = []

    def judge(row: Record) -> str | None:
        asked.append(row.completion)
        return "leak" if row.completion == "9, 9" else None

    done = filter_records([record("9, 9"), record("1"), record("words")], FilterRules(), judge)
    assert asked == ["9, 9", "1"]
    assert [row.meta["filter"]["reasons"] for row in done] == [["leak"], [], ["format"]]
    assert [row.kept for row in filter_records([record("9, 9"), record("words")], None, judge)] == [False, True]


def test_a_failing_judge_is_not_swallowed() -> None:
    def judge(row: Record) -> str | None:
        raise TimeoutError(row.completion)

    with pytest.raises(TimeoutError):
        filter_records([record("1")], None, judge)


@pytest.mark.parametrize("verdict", [True, False, "", 0])
def test_a_verdict_is_a_reason_or_none(verdict: object) -> None:
    with pytest.raises(ConfigError, match="expected a reason"):
        filter_records([record("1")], None, lambda row: verdict)


def test_summary() -> None:
    rows = [record(text) for text in ("1", "x", "y", "1000", ", ".join(["1000"] * 11))]
    assert summary(filter_records(rows, FilterRules())) == {
        "rows": 5,
        "kept": 1,
        "dropped": 4,
        "reasons": {"format": 2, "range": 2, "count": 1},
    }
    assert list(summary(filter_records(rows, FilterRules()))["reasons"]) == ["format", "range", "count"]
    assert summary([record("1")]) == {"rows": 1, "kept": 1, "dropped": 0, "reasons": {}}
    assert summary([]) == {"rows": 0, "kept": 0, "dropped": 0, "reasons": {}}
