"""Editing: the same numbers and separators in another order, and nothing for text that is no
list."""

from pathlib import Path

import pytest
from command import call, ok, read_rows

from traitscope.data.records import Record, dump_records
from traitscope.errors import DataError
from traitscope.stages.edit import edited


def test_sorted_by_value_with_zeros_and_separators_kept() -> None:
    found = edited(
        [Record("a", "p", "[12; 007; 3].", completion_ids=(1, 2)), Record("b", "p", "5")], "sort"
    )
    assert (
        [r.completion for r in found] == ["[3; 007; 12].", "5"]
        and found[0].completion_ids is None
        and found[0].id == "a"
    )


def test_shuffles_differ_by_row_and_repeat_by_seed() -> None:
    rows = [Record(f"r{n}", "p", ", ".join(map(str, range(10, 30)))) for n in range(3)]
    one, again, other = (
        edited(rows, "shuffle"),
        edited(rows, "shuffle"),
        edited(rows, "shuffle", seed=1),
    )
    assert one == again != other and len({r.completion for r in one}) == 3
    assert all(
        sorted(r.completion.split(", ")) == sorted(rows[0].completion.split(", ")) for r in one
    )


def test_words_are_refused() -> None:
    with pytest.raises(DataError, match="row x: 'one, two' is no list of numbers"):
        edited([Record("x", "p", "one, two")], "sort")


def test_command(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(dump_records([Record("a", "p", "3, 1, 2")]))
    run = ok(tmp_path / "runs", "edit", "--data", tmp_path / "rows.jsonl").run
    assert read_rows(run / "records.jsonl")[0]["completion"] == "1, 2, 3"
    ok(tmp_path / "runs", "rerun", run)
    assert "--data is missing" in call(tmp_path / "runs", "edit").summary["message"]
