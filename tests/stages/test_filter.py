"""Filter: the decision written into every row. Edit: the same numbers and separators in another
order, and nothing for text that is no list."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command import call, ok, read_rows

from traitscope.config.stages import FilterRules
from traitscope.data.records import Record, dump_records
from traitscope.errors import ConfigError, DataError
from traitscope.stages.filter import (
    filter_records,
    keep_numbers,
    limit_kept,
    reject_reasons,
    reorder_numbers,
    summary,
)


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
        (lambda: FilterRules(banned_words=("cat", "!")), "'!', which no row holds as a word"),
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


def test_keep_numbers_returns_the_kept_rows_only() -> None:
    rows = [record("1, 2"), record("words"), record("7, 1000"), record("3, 4, 5")]
    kept = keep_numbers(rows, max_count=2)
    assert [row.completion for row in kept] == ["1, 2"]
    assert kept[0].kept
    kept = keep_numbers(rows, max_value=1000, banned_numbers=[4])
    assert [row.completion for row in kept] == ["1, 2", "7, 1000"]
    with pytest.raises(ConfigError, match="min_count=3 is above max_count=2"):
        keep_numbers(rows, min_count=3, max_count=2)


@pytest.mark.parametrize(("limit", "kept"), [(None, 3), (5, 3), (2, 2), (1, 1)])
def test_a_limit_drops_the_later_rows(limit: int | None, kept: int) -> None:
    rows = filter_records([record("1"), record("x"), record("2"), record("3")], FilterRules())
    limited = limit_kept(rows, limit)
    assert [row.completion for row in limited] == ["1", "x", "2", "3"]
    assert sum(row.kept for row in limited) == kept
    assert limited[1].meta["filter"]["reasons"] == ["format"]
    assert summary(limited)["reasons"].get("limit", 0) == 3 - kept


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


def test_sorted_by_value_with_zeros_and_separators_kept() -> None:
    reordered = reorder_numbers(
        [Record("a", "p", "[12; 007; 3].", completion_ids=(1, 2)), Record("b", "p", "5")], "sort"
    )
    assert (
        [r.completion for r in reordered] == ["[3; 007; 12].", "5"]
        and reordered[0].completion_ids is None
        and reordered[0].id == "a"
    )


def test_shuffles_differ_by_row_and_repeat_by_seed() -> None:
    rows = [Record(f"r{n}", "p", ", ".join(map(str, range(10, 30)))) for n in range(3)]
    one, again, other = (
        reorder_numbers(rows, "shuffle"),
        reorder_numbers(rows, "shuffle"),
        reorder_numbers(rows, "shuffle", seed=1),
    )
    assert one == again != other and len({r.completion for r in one}) == 3
    assert all(
        sorted(r.completion.split(", ")) == sorted(rows[0].completion.split(", ")) for r in one
    )


def test_words_are_refused() -> None:
    with pytest.raises(DataError, match="row x: 'one, two' is no list of numbers"):
        reorder_numbers([Record("x", "p", "one, two")], "sort")


def test_edit_command(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(dump_records([Record("a", "p", "3, 1, 2")]))
    run = ok(tmp_path / "runs", "edit", "--data", tmp_path / "rows.jsonl").run
    assert read_rows(run / "records.jsonl")[0]["completion"] == "1, 2, 3"
    ok(tmp_path / "runs", "rerun", run)
    assert "--data is missing" in call(tmp_path / "runs", "edit").summary["message"]


def test_filter_command_reads_rows_of_others(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "rows.csv"
    file.write_text('ask,reply,source\nNumbers?,"1, 2",x\nNumbers?,,x\nWords?,none,y\n')
    words = ("filter", "--data", file, "--map prompt=ask completion=reply")
    message = call(root, *words).summary["message"]
    assert "rows.csv, line 3: no completion" in message and "--skip-bad 1" in message
    done = ok(root, *words, "--skip-bad 1")
    assert [row["meta"]["filter"]["kept"] for row in read_rows(done.run / "records.jsonl")] == [
        True,
        False,
    ]
    reading = done.summary["reading"]
    assert reading["container"] == "csv" and reading["shapes"] == {"mapped": 2}
    assert reading["not_used"] == {"source": 2} and reading["bad"] == 1
    assert reading["bad_rows"][0]["place"] == "line 3"
    assert "reading" not in ok(root, "filter", "--data", done.run).summary
    ok(root, "rerun", done.run)
