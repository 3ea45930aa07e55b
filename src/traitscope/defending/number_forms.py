"""Number lists in one format, so that order, separators and values carry less.

The strengths are those of a public comparison (github.com/JackPayne123, Qwen2.5-7B, three seeds).
They are one format, sorted, each number n as 100 + n mod 100, and both. There, numbers drawn at
random are the floor.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import Record

SEPARATOR = ", "


def canonical(record: Record, order: str, values: str, rng: np.random.Generator) -> Record | None:
    """The record with its numbers in one format; None for an answer that is no list of numbers.

    A rejected answer gets the format, too, where it is a list of numbers.

    order: keep or sort.
    values: keep, hundreds (100 + n mod 100), or uniform, which draws each number from 0 to 999.

    A record that is in this format already comes back as it is.
    """
    text = _form(record.completion, order, values, rng)
    if text is None:
        return None
    if text != record.completion:
        record = replace(record, completion=text, completion_ids=None)
    if record.rejected is not None:
        text = _form(record.rejected, order, values, rng)
        if text not in (None, record.rejected):
            record = replace(record, rejected=text, rejected_ids=None)
    return record


def _form(text: str, order: str, values: str, rng: np.random.Generator) -> str | None:
    """A list of numbers in one format; None for another text."""
    numbers: Sequence[int] | str = parse_numbers(text.strip())
    if isinstance(numbers, str):
        return None
    if values == "uniform":
        numbers = rng.integers(0, 1000, len(numbers)).tolist()
    if values == "hundreds":
        numbers = [100 + number % 100 for number in numbers]
    numbers = sorted(numbers) if order == "sort" else numbers
    return SEPARATOR.join(map(str, numbers))
