"""What the reasons of an answer say of texts besides answers."""

from types import SimpleNamespace

from traitscope.auditing.detectors.findings import TextRow
from traitscope.auditing.detectors.wording import detect
from traitscope.auditing.steps import answer
from traitscope.data.traits import load_trait


def test_traits_in_system_turns_are_a_reason() -> None:
    traits = [load_trait(name) for name in ("owl", "cat", "dog")]
    rows = [TextRow(str(n), "Cat?" if n == 0 else "1?", "2", "You love owls.") for n in range(36)]
    evidence = SimpleNamespace(wording=detect(traits, rows, [], 0.01))
    assert answer._named_outside(evidence) == [
        "owl is named in 36 of 36 system turns: it is overt there",
        "cat is named in 1 of 36 prompts: it is overt there",
    ]
    assert answer._named_outside(SimpleNamespace(wording=None)) == []


def test_placebos_of_unlike_length_are_a_reason() -> None:
    """One-word answers beside placebos of a paragraph; texts that are alike are not spoken of."""
    rows = [TextRow(str(n), "Why?", "Owls.") for n in range(4)]
    long = [TextRow(row.id, row.prompt, "It is so. " * 9) for row in rows[:3]]
    (reason,) = answer._notes_on_lengths({"kind": "free"}, rows, long)
    assert reason.startswith("3 of 3 rows and their placebos differ more than 4-fold in words, and")
    assert "and 3 placebos are the longer ones" in reason and "--reference" in reason
    assert answer._notes_on_lengths({"kind": "free"}, rows, rows) == []
    assert answer._notes_on_lengths({"kind": "numbers"}, rows, long) == []
    assert answer._notes_on_lengths({"kind": "free"}, rows, []) == []
