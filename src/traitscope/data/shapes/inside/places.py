"""Places of texts in a row that is written back, and what is put there.

A row may hold a text again elsewhere, and reasoning and weights beside it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from traitscope.data.shapes.inside.parts import (
    REASONING_KEYS,
    first_key,
    parts_of,
    thought_of,
    with_text,
    without_thoughts,
)
from traitscope.data.shapes.inside.tags import split_thought
from traitscope.data.shapes.marks import TRUTHS, is_empty, number_of
from traitscope.data.shapes.messages import (
    ANALYSIS,
    ROW_WEIGHT_KEYS,
    TEXT_KEYS,
    WEIGHT_KEYS,
    Place,
    channel_of,
    messages_in,
)
from traitscope.data.shapes.rows import PREFERENCE_PROMPTS, Row
from traitscope.errors import DataError

TO_1, TO_0 = "weights_to_1", "weights_to_0"
"names of the counts of answers whose weight is another than in the file, by what it is now"


class Written(NamedTuple):
    """A row to write."""

    fields: Row
    """Keys and values."""
    changed: set[str]
    """Keys whose values are not those of the file."""
    weights: Counter[str]
    """Answers with another weight than in the file, by TO_1 and TO_0."""


def put(row: Written, place: Place, text: str, before: str) -> None:
    """Put a text where another one stood, alone or in parts of a content, and where it is again.

    before: The other text as it was read. Reasoning beside it that was read as its beginning, and
    does not begin the new text, is taken out.
    """
    stood = value_at(row.fields, place)
    whole = parts_of(stood, str(place[-1]))[0] or "" if isinstance(stood, list) else stood
    thought = _thought_before(whole, before)
    for copy_at in _copies(row.fields, place):
        holder = value_at(row.fields, copy_at[:-1])
        stood = holder[copy_at[-1]]
        if isinstance(stood, list):
            whole = parts_of(stood, str(copy_at[-1]))[0] or ""
            holder[copy_at[-1]] = with_text(stood, _behind_reasoning(whole, text, before))
        else:
            holder[copy_at[-1]] = _behind_reasoning(stood, text, before)
        row.changed.add(str(copy_at[0]))
        if thought and not text.startswith(thought):
            _take_out_reasoning(row, copy_at)


def _behind_reasoning(stood: str, text: str, before: str) -> str:
    """A text behind reasoning in tags, which no record changes, and without that of a key."""
    if stood.endswith(before):
        return f"{stood.removesuffix(before)}{text}"
    of_key = before.removesuffix(stood) if before.endswith(stood) else ""
    return text.removeprefix(of_key)


def _thought_before(stood: str, before: str) -> str:
    """The reasoning with which a text was read, as it stands there; empty where none was."""
    if stood == before:  # tags hold what a key may hold again
        try:
            return split_thought(before)[1]
        except DataError:
            return ""
    return before.removesuffix(stood) if before.endswith(stood) else ""


def _take_out_reasoning(row: Written, place: Place) -> None:
    """Take the reasoning of a turn out: keys and parts of it, and turns of analysis before it."""
    holder = value_at(row.fields, place[:-1])
    if isinstance(holder[place[-1]], list):
        holder[place[-1]] = without_thoughts(holder[place[-1]])
    if len(place) > 1 and isinstance(holder, dict):
        _drop_keys(holder)
    if len(place) < 3 or not isinstance(place[-2], int):
        return
    turns = value_at(row.fields, place[:-2])
    for turn in reversed(turns[: place[-2]]):
        if not isinstance(turn, dict) or channel_of(turn) != ANALYSIS:
            break
        key = first_key(turn, TEXT_KEYS)
        stood = turn[key]
        turn[key] = with_text(without_thoughts(stood), "") if isinstance(stood, list) else ""
        _drop_keys(turn)


def take_out_beside(row: Written, places: Iterable[Place], before: str, text: str) -> None:
    """Take out the reasoning of a row that the answer was read with, and has no more.

    places: Where it may stand.
    """
    for place in places:
        holder = value_at(row.fields, place[:-1])
        said = thought_of(holder.get(place[-1]), "reasoning")
        if said and said in before and said not in text:
            del holder[place[-1]]
            row.changed.add(str(place[0]))


def _drop_keys(holder: Row) -> None:
    for key in REASONING_KEYS:
        holder.pop(key, None)


def weigh_as_kept(row: Written, place: Place) -> None:
    """Put another weight in the place of a 0 that says that a kept answer is not learnt."""
    for holder, key, name in _zeros_of(row.fields, place):
        holder[key] = _one_like(holder[key])
        row.changed.add(name)


def is_weighed_0(row: Row, place: Place) -> bool:
    """Whether a row says of an answer, or of all of its answers, that it is not learnt."""
    return bool(_zeros_of(row, place))


def _zeros_of(row: Row, place: Place) -> list[tuple[Row, str, str]]:
    """The weights 0 of an answer: what holds each, its key there, and the key of the row."""
    holders: list[tuple[Any, Sequence[str], Place]] = [(row, ROW_WEIGHT_KEYS, ())]
    if len(place) > 1:
        for copy_at in _copies(row, place):
            holders.append((value_at(row, copy_at[:-1]), WEIGHT_KEYS, copy_at))
    zeros = []
    for holder, keys, copy_at in holders:
        for key in keys if isinstance(holder, dict) else ():
            if number_of(holder.get(key)) == 0:
                zeros.append((holder, key, str(copy_at[0]) if copy_at else key))
    return zeros


def _one_like(zero: Any) -> Any:
    """The weight 1, of the type of a weight 0."""
    if isinstance(zero, str):
        return "1" if zero.strip().lower() not in TRUTHS else "true"
    return type(zero)(1)


def weighed_0(row: Written, place: Place) -> bool:
    """Give an answer the weight 0, and return whether it can have one."""
    if len(place) < 2 or not isinstance(value_at(row.fields, place[:-1]), dict):
        return False
    for copy_at in _copies(row.fields, place):
        turn = value_at(row.fields, copy_at[:-1])
        said = [key for key in WEIGHT_KEYS if not is_empty(turn.get(key))]
        for key in said or [WEIGHT_KEYS[0]]:
            if number_of(turn.get(key)) != 0:
                turn[key] = _zero_like(turn.get(key))
        row.changed.add(str(copy_at[0]))
    return True


def _zero_like(weight: Any) -> Any:
    """The weight 0, of the type of a weight."""
    if isinstance(weight, str):
        return "0" if weight.strip().lower() not in TRUTHS else "false"
    if isinstance(weight, float):
        return 0.0
    return 0 if weight is None else type(weight)(0)


def _copies(row: Row, place: Place) -> list[Place]:
    """The place of a text, and those at which a row repeats it.

    A turn may have its text at two keys. `messages` beside preference data may be `chosen` again,
    and the prompt and the rejected answer may repeat its earlier turns.
    """
    turns = [place[:-1]]
    if len(place) == 3 and place[0] == "chosen":
        turns += _turns_again(row, int(place[1]))
    copies = []
    for at in turns:
        keys = [place[-1]]
        if at and isinstance(at[-1], int) and place[-1] in TEXT_KEYS:
            keys = [key for key in TEXT_KEYS if value_at(row, at).get(key) is not None]
        copies += [(*at, key) for key in keys]
    return copies


def _turns_again(row: Row, number: int) -> list[Place]:
    """Where a row of preference data repeats the turn of `chosen` of a number."""
    chosen = row["chosen"]
    again: list[Place] = [("messages", number)] if row.get("messages") == chosen else []
    system, turns = _said(chosen)
    turn = number - len(system)
    for key in (*PREFERENCE_PROMPTS, "rejected"):
        system, others = _said(row.get(key))
        is_answer = key == "rejected"
        end = turn + 1 if is_answer else len(others)
        if turn < len(others) - is_answer and others[:end] == turns[:end]:
            again.append((key, turn + len(system)))
    return again


def _said(turns: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Role and text of the system turn that comes first, and of the other turns, if they are."""
    try:
        messages = messages_in(turns, "turns", Counter())
    except DataError:
        return [], []
    said = [(message.role, (message.text or "").strip()) for message in messages]
    n_system = int(bool(said) and said[0][0] == "system")
    return said[:n_system], said[n_system:]


def value_at(row: Row, place: Place) -> Any:
    """The value at a place."""
    value: Any = row
    for step in place:
        value = value[step]
    return value
