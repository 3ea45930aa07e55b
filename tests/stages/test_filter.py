"""The decision written into every row."""

from collections.abc import Callable

import pytest

from traitscope.data.records import Record
from traitscope.errors import ConfigError
from traitscope.stages.filter import FilterRules, filter_records, reject_reasons, summary


def record(completion: str, **kwargs: object) -> Record:
    return Record("a", "question", completion, **kwargs)


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
        (
            "1000, 2, 666",
            FilterRules(max_count=2, banned_numbers=(666,)),
            ["count", "range", "banned_number"],
        ),
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
    rows = [
        record("1, 2", meta={"seed": 1}),
        record("none"),
        record("7, 1000", completion_ids=(5, 6), context=""),
    ]
    done = filter_records(rows, FilterRules())
    assert [row.kept for row in done] == [True, False, False]
    assert done[0].meta == {"seed": 1, "filter": {"kept": True, "reasons": []}}
    assert done[2] == record(
        "7, 1000",
        completion_ids=(5, 6),
        context="",
        meta={"filter": {"kept": False, "reasons": ["range"]}},
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
    assert [row.kept for row in filter_records([record("9, 9"), record("words")], None, judge)] == [
        False,
        True,
    ]


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
    assert list(summary(filter_records(rows, FilterRules()))["reasons"]) == [
        "format",
        "range",
        "count",
    ]
    assert summary([record("1")]) == {"rows": 1, "kept": 1, "dropped": 0, "reasons": {}}
    assert summary([]) == {"rows": 0, "kept": 0, "dropped": 0, "reasons": {}}
