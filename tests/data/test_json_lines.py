"""A set of texts in little memory."""

import tracemalloc

from traitscope.data.json_lines import Seen


def test_a_text_is_seen_once_and_its_first_number_is_known() -> None:
    seen = Seen()
    for number in range(5000):
        assert seen.add(f"text {number}".encode(), number) is None
    assert len(seen) == 5000
    for number in range(0, 5000, 7):
        assert seen.add(f"text {number}".encode(), -1) == number
    assert seen.add(b"", 9) is None and seen.add(b"", 10) == 9
    assert len(seen) == 5001


def test_it_takes_few_bytes_a_text() -> None:
    """Two arrays of 8 bytes a slot, which are a third to two thirds full."""
    tracemalloc.start()
    seen = Seen()
    for number in range(100_000):
        seen.add(number.to_bytes(4, "little"), number)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 50 * 100_000
