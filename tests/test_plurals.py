"""Counts are written as people write them."""

from traitscope.auditing.steps import answer
from traitscope.data.shapes import intake as intakes
from traitscope.data.shapes.inside.said import notes_of
from traitscope.data.shapes.intake import Intake
from traitscope.plurals import counted


def test_one_has_no_plural() -> None:
    assert counted(1, "row") == "1 row"
    assert [counted(n, "row") for n in (0, 2, 11)] == ["0 rows", "2 rows", "11 rows"]
    assert counted(1, "row was", "rows were") == "1 row was"
    assert counted(3, "row was", "rows were") == "3 rows were"


def test_every_note_of_a_file_has_both_forms() -> None:
    """One of each kind is said in the singular, two in the plural."""
    said = {}
    for n in (1, 2):
        intake = Intake(container="jsonl", rows=n, records=n)
        intake.add_counts(dict.fromkeys(intakes.NOTES, n), {"source": n})
        for _ in range(n):
            intake.add_bad("line 2", "no completion")
        said[n] = notes_of(intake.as_dict())
    assert len(said[1]) == len(intakes.NOTES) + 3 == len(said[2]) - 1
    for one, two in zip(said[1][1:-1], said[2][1:-2], strict=True):
        assert one.startswith("1 ") and two.startswith("2 ")
        assert one[2:] != two[2:], one
    assert "source (1 row)" in said[1][0] and "source (2 rows)" in said[2][0]
    assert "1 bad row left out" in said[1] and "2 bad rows left out" in said[2]


def test_terminal_texts_have_both_forms() -> None:
    """Notes of an audit, and of one stage in a plan."""
    for forms in answer.COUNTED.values():
        one, more = (counted(n, *forms) for n in (1, 2))
        assert one.startswith("1 sampled row ") or one.startswith("1 row is ")
        assert " rows " in more and not {"rows", "are", "were left"} & set(one.split()[:4])
