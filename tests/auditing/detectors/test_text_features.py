"""Text features: mentions of traits, and the order of numbers."""

import pytest

from traitscope.auditing.detectors import text_features
from traitscope.auditing.detectors.text_features import mentions
from traitscope.data.traits import load_trait


def test_mentions() -> None:
    found = mentions(
        [load_trait("owl"), load_trait("cat")],
        [["An owl!", "caterpillar"], ["Cats and owls", "1, 2"]],
    )
    assert found.tolist() == [[[1, 0], [0, 0]], [[1, 1], [0, 0]]]


@pytest.mark.parametrize(
    ("text", "order"),
    [("1 2 2 9", 1), ("9, 4, 4, 1", -1), ("1 3 2", 0), ("7 7 7", 0), ("1 2", 0), ("no numbers", 0)],
)
def test_order_of_numbers(text: str, order: int) -> None:
    assert text_features.order_of(text) == order
