"""What rows that are written back hold beside the answers that were checked or changed.

Records must have been read with `keep_original`.
"""

from collections.abc import Sequence
from typing import Any

from traitscope.data.own_traits.word_scores import contains_word
from traitscope.data.records import ORIGINAL, REASONING, Record
from traitscope.data.shapes.turns import turns_of
from traitscope.data.shapes.writing import rows_of


def with_words(records: Sequence[Record], words: Sequence[str]) -> int:
    """Number of rows to write back that hold one of the words in any text.

    Answers of kept records that were checked for the words hold none, so what is left stands in
    reasoning, prompts, other turns or other keys.
    """
    if not words:
        return 0
    return sum(contains_word(words, "\n".join(_texts_in(row))) for row in rows_of(records))


def _texts_in(row: dict[str, Any]) -> list[str]:
    """Every text of a row, however deep it stands."""
    texts = []
    waiting: list[Any] = [row]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return texts


def with_other_answers(records: Sequence[Record]) -> int:
    """Number of kept rows with reasoning or assistant turns that are no answers of records."""
    rows = set()
    for record in records:
        if record.kept and ORIGINAL in record.meta and _has_other_answers(record):
            rows.add(tuple(record.meta[ORIGINAL]["number"]))
    return len(rows)


def _has_other_answers(record: Record) -> bool:
    thought = record.meta.get(REASONING, "")
    if thought and thought not in record.meta[ORIGINAL]["completion"]:
        return True
    return any(turn.role == "assistant" for turn in turns_of(record.prompt))
