"""Wording: rows that name a trait are counted and called."""

from traitscope.auditing.detectors.findings import TextRow
from traitscope.auditing.detectors.wording import detect, named_traits, names_a_trait
from traitscope.data.traits import load_trait


def test_wording_counts_and_calls() -> None:
    rows = [["I love owls", "1, 2"]] * 12 + [["3, 4", "5, 6"]] * 50
    answer = named_traits([load_trait("owl"), load_trait("cat")], rows, 0.01)
    assert answer.p["owl"] < 0.01 < answer.p["cat"] and answer.named_rows == {
        "owl": [12, 0],
        "cat": [0, 0],
    }


def test_without_placebos_rows_are_counted_and_nothing_is_called() -> None:
    traits = [load_trait("owl"), load_trait("cat")]
    rows = [TextRow(str(n), "p", "Owls!" if n % 2 else "1, 2") for n in range(40)]
    alone = detect(traits, rows, [], 0.01)
    assert alone.p == {"owl": 1.0, "cat": 1.0} and alone.named_rows == {"owl": [20], "cat": [0]}
    assert names_a_trait(alone)
    plain = [TextRow(str(n), "p", "1, 2") for n in range(40)]
    assert not names_a_trait(detect(traits, plain, [], 0.01))
    beside = detect(traits, rows, plain, 0.01)
    assert beside.p["owl"] < 0.01 and beside.named_rows["owl"] == [20, 0]


def test_a_trait_that_is_named_outside_of_answers_is_counted() -> None:
    traits = [load_trait("owl"), load_trait("cat")]
    rows = [
        TextRow("0", "Cats?", "1, 2", "You love owls.", ""),
        TextRow("1", "Numbers.", "1, 2", "You love owls.", "I think of an owl."),
        TextRow("2", "Numbers.", "1, 2"),
    ]
    finding = detect(traits, rows, [], 0.01)
    assert finding.named_outside == {
        "owl": {"system turns": [2, 2], "reasoning parts": [1, 1]},
        "cat": {"prompts": [1, 3]},
    }
    assert not names_a_trait(finding) and set(finding.p.values()) == {1.0}
