"""Wording: rows that name a trait are counted and called."""

from traitscope.auditing.detectors.wording import named_traits
from traitscope.data.traits import load_trait


def test_wording_counts_and_calls() -> None:
    rows = [["I love owls", "1, 2"]] * 12 + [["3, 4", "5, 6"]] * 50
    answer = named_traits([load_trait("owl"), load_trait("cat")], rows, 0.01)
    assert answer.p["owl"] < 0.01 < answer.p["cat"] and answer.named_rows == {
        "owl": [12, 0],
        "cat": [0, 0],
    }
