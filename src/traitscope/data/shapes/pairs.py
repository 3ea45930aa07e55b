"""The rejected answer of a row: pairs of a chosen and a rejected answer to one prompt.

A row whose rejected answer cannot be used is still a row with an answer. So what is wrong with it
is kept, and raised where pairs are wanted alone (`train --targets preference`, `select`).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from traitscope.data.json_fields import token_ids_of
from traitscope.data.shapes.exchanges import Exchange, exchanges_of
from traitscope.data.shapes.inside.dialogues import dialogue_in
from traitscope.data.shapes.inside.parts import REASONING_KEYS
from traitscope.data.shapes.intake import USUAL, Reading
from traitscope.data.shapes.messages import Message, Place
from traitscope.data.shapes.rows import (
    Row,
    ShapeName,
    answer_at,
    native_messages,
    preference_messages,
)
from traitscope.errors import DataError

OF_A_PAIR = (
    "no rejected answer: an earlier turn of a pair, whose answers are the last turns; expected"
    " pairs alone; take --turns last"
)
ONE_SIDED = "chosen_alone"
"name of pairs of which a defence could change the chosen answer alone"
NOT_A_PAIR = "not_a_pair"
"key of `meta` that says why the rejected answer of a row cannot be used"
REJECTED, REJECTED_IDS = "rejected", "rejected_ids"
"keys of the rejected answer and of its tokens in rows that this package writes"


class Rejected(NamedTuple):
    """A rejected answer, or why there is none."""

    text: str | None = None
    """The answer; None where it cannot be used."""
    ids: tuple[int, ...] | None = None
    """Its tokens as they were sampled; None for text that has none."""
    at: Place = ()
    """Where it stands in the row; where it cannot be used, only if it is the chosen answer."""
    fault: str = ""
    """Why it cannot be used; empty where it can."""


def rejected_of(
    shape: ShapeName,
    row: Row,
    exchanges: Sequence[Exchange],
    reading: Reading,
    split: bool,
    notes: Counter[str],
    unused: Counter[str],
) -> Rejected | None:
    """The rejected answer beside the last of a row's answers; None for a row of answers alone.

    exchanges: The answers of the row, with their prompts.
    split: Take reasoning in tags out of answers.
    notes, unused: What is counted of the rejected answer.
    """
    is_native = shape == "native" and row.get(REJECTED) is not None
    if not exchanges or not (is_native or shape == "preference"):
        return None
    chosen = exchanges[-1]
    try:
        ids = _ids_of(row) if is_native else None
        # Reasoning beside the answers is that of the chosen one.
        bare = {key: value for key, value in row.items() if key not in REASONING_KEYS}
        usual = USUAL._replace(reasoning=reading.reasoning)
        messages = _messages(shape, bare, unused)
        counts = Counter[str]()
        exchanges_there = exchanges_of(messages, usual, counts, split and ids is None, is_native)
        notes["reasoning_dropped"] += counts["reasoning_dropped"]
        further = counts["reasoning_earlier"] - notes["reasoning_earlier"]
        notes["reasoning_earlier"] += max(further, 0)
        rejected = _last(exchanges_there)
    except DataError as error:
        return Rejected(fault=str(error))
    try:
        _check(chosen, rejected, ids)
    except DataError as error:
        are_same = chosen.completion == rejected.completion
        return Rejected(at=rejected.answer_at if are_same else (), fault=str(error))
    return Rejected(rejected.completion, ids, rejected.answer_at)


def _ids_of(row: Row) -> tuple[int, ...] | None:
    """The tokens of the rejected answer; None where they are absent or null."""
    if row.get(REJECTED_IDS) is None:
        return None
    try:
        return token_ids_of({"completion_ids": row[REJECTED_IDS]})
    except DataError as error:
        raise DataError(str(error).replace("completion_ids", REJECTED_IDS)) from None


def _messages(shape: ShapeName, row: Row, unused: Counter[str]) -> list[Message]:
    """The messages that end with the rejected answer; its prompt may be left to the chosen one.

    Keys inside of the answer that are not used are counted.
    """
    answer = answer_at(row, REJECTED, unused)
    is_dialogue = shape == "preference" and bool(dialogue_in(row, REJECTED))
    if len(answer) == 1 and answer[0].role == "assistant" and not is_dialogue:
        return answer
    if shape == "native":
        return native_messages(row, REJECTED, Counter())
    return preference_messages(row, REJECTED, Counter())


def _last(exchanges: Sequence[Exchange]) -> Exchange:
    if not exchanges:
        raise DataError(
            "no rejected answer: its weight is 0; expected an answer to compare with; delete the"
            " row"
        )
    return exchanges[-1]


def _check(chosen: Exchange, rejected: Exchange, ids: tuple[int, ...] | None) -> None:
    """Raise DataError for answers that are no pair.

    A rejected answer that stands alone has no prompt, and so that of the chosen one.
    """
    if rejected.prompt and (rejected.prompt, rejected.context) != (chosen.prompt, chosen.context):
        what = "system turns" if rejected.prompt == chosen.prompt else "prompts"
        raise DataError(
            f"the {what} of the chosen and the rejected answer differ; expected two answers to one"
            " prompt; delete the row"
        )
    check_two(chosen.completion, rejected.completion, ids)


def check_two(chosen: str, rejected: str, rejected_ids: Any = None) -> None:
    """Raise DataError where a rejected answer is empty, or the chosen one."""
    if not rejected.strip() and not rejected_ids:
        what = "white space alone" if rejected else "empty"
        raise DataError(
            f"the rejected answer is {what}; expected two answers to compare; delete the row"
        )
    if chosen == rejected:
        raise DataError(
            f"the chosen and the rejected answer are the same, {chosen[:40]!r}; expected two that"
            " differ; delete the row"
        )
