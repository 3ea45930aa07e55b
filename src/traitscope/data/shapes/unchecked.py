"""What rows hold beside the answers that were checked or changed: other turns, and reasoning.

Records must have been read with `keep_original`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from traitscope.data.own_traits.word_scores import contains_word
from traitscope.data.records import ORIGINAL, REASONING, Record
from traitscope.data.shapes.inside.tags import split_thought
from traitscope.data.shapes.turns import Turn, prompt_of, turns_of
from traitscope.data.shapes.writing import rows_of
from traitscope.errors import DataError

Number = tuple[int, ...]
"number of a row, and of the object on it"


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


def with_earlier_answers(records: Sequence[Record]) -> list[Record]:
    """The records; prompts hold the earlier answers of the same row as these are now.

    A row that is written back has them so, too. Answers of dropped records stay as they were.
    """
    changed: dict[Number, dict[int, Turn]] = {}
    for record in records:
        original = record.meta.get(ORIGINAL)
        if original and record.kept and record.completion != original["completion"]:
            turn = Turn("assistant", _without_thought(record.completion))
            changed.setdefault(tuple(original["number"]), {})[_place(record)] = turn
    return [_following(record, changed) if changed else record for record in records]


def _following(record: Record, changed: dict[Number, dict[int, Turn]]) -> Record:
    """A record whose prompt holds the changed answers of its row."""
    answers = changed.get(tuple(record.meta.get(ORIGINAL, {}).get("number", ())), {})
    if not answers or min(answers) >= _place(record):
        return record
    turns = turns_of(record.prompt)
    for place, turn in answers.items():
        if place < len(turns) and turns[place].role == "assistant":
            turns[place] = turn
    return replace(record, prompt=prompt_of(turns))


def _place(record: Record) -> int:
    """Number of the answer of a record among the turns of its row."""
    return len(turns_of(record.prompt)) if record.prompt else 0


def _without_thought(text: str) -> str:
    """An answer as an earlier turn: without reasoning."""
    try:
        return split_thought(text)[2]
    except DataError:
        return text


def with_other_answers(records: Sequence[Record]) -> int:
    """Number of kept rows with reasoning or assistant turns that are no answers of kept records."""
    rows = set()
    answers = Counter[Number]()
    for record in records:
        if not record.kept or ORIGINAL not in record.meta:
            continue
        number = tuple(record.meta[ORIGINAL]["number"])
        earlier = 0
        for turn in turns_of(record.prompt):
            earlier += turn.role == "assistant" and bool(turn.text.strip())
        if _has_other_reasoning(record) or earlier > answers[number]:
            rows.add(number)
        answers[number] += 1
    return len(rows)


def _has_other_reasoning(record: Record) -> bool:
    thought = record.meta.get(REASONING, "")
    return bool(thought) and thought not in record.meta[ORIGINAL]["completion"]
