"""Rows: prompts with the answers of a model, and the JSONL files that hold them.

A JSONL file holds one of three shapes, found in its first row and the same in every row:

    native     {"prompt", "completion"} + id, completion_ids, context, meta: what this package
               writes
    messages   {"messages": [system?, user, assistant]} + id, meta: one exchange, longer chats are
               refused
    alpaca     {"instruction", "input", "output"} + id, context, meta: prompt = instruction, blank
               line, input

Keys that are not named here are kept in `meta["extra"]` and otherwise unused.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from traitscope.data.json_fields import context_of, id_of, meta_of, text_of, token_ids_of, typed
from traitscope.data.json_lines import Seen, at_place, check_new_id, iter_json_rows
from traitscope.errors import DataError

Shape = Literal["native", "messages", "alpaca"]
Exchange = tuple[str, str, str | None]
"prompt, completion and context"
REQUIRED: dict[Shape, tuple[str, ...]] = {
    "native": ("prompt", "completion"),
    "messages": ("messages",),
    "alpaca": ("instruction", "output"),
}
"keys that a row of a shape must have"
USED: dict[Shape, set[str]] = {
    "native": {"id", "prompt", "completion", "completion_ids", "context", "meta"},
    "messages": {"id", "messages", "meta"},
    "alpaca": {"id", "instruction", "input", "output", "context", "meta"},
}
"keys that a row of a shape may have; others are extra"
TURNS = (["user", "assistant"], ["system", "user", "assistant"])


@dataclass(frozen=True)
class Prompt:
    """A question to a model."""

    id: str
    """Name of the prompt; conditions are paired by it."""
    text: str
    """User turn."""
    context: str | None = None
    """System turn: None leaves it to the chat template, "" is explicitly empty."""


@dataclass(frozen=True)
class Record:
    """A prompt with the answer to it."""

    id: str
    """Unique within a file."""
    prompt: str
    """User turn."""
    completion: str
    """Assistant turn as text."""
    completion_ids: tuple[int, ...] | None = None
    """Tokens as they were sampled, with the end-of-turn token if it was sampled; None for text
    that has none."""
    context: str | None = None
    """System turn: None leaves it to the chat template, "" is explicitly empty."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Anything else that JSON can hold; the key `filter` holds the filter stage's decision."""

    @property
    def kept(self) -> bool:
        """Whether the row passed the filter; True where no filter was run."""
        return self.meta.get("filter", {}).get("kept", True)

    @property
    def drop_reasons(self) -> list[str]:
        """Why the filter dropped the row; empty where it did not."""
        return self.meta.get("filter", {}).get("reasons", [])


def kept_records(records: Iterable[Record]) -> list[Record]:
    """The records that no filter dropped, in order."""
    return [record for record in records if record.kept]


def read_records(path: str | Path) -> list[Record]:
    """Return every row of a JSONL file, in order; a row without an id is named after its line.

    Raises DataError, with the line, for a missing or empty file, broken JSON and mixed shapes. A
    field that is missing or of the wrong type, a row without a completion, and an id that was used
    before also raise DataError.
    """
    return list(iter_records(path))


def iter_records(path: str | Path) -> Iterator[Record]:
    """Yield the rows of `read_records` one by one, for files that are larger than memory.

    Only the ids of earlier rows are kept, to find one that is used twice.
    """
    shape, seen = None, Seen()
    for row in iter_json_rows(path):
        row_shape = at_place(row.place, shape_of, row.fields)
        if shape is not None and row_shape != shape:
            raise DataError(
                f"{row.place}: shape {row_shape} after rows of shape {shape}; expected one in a"
                " file; split the file"
            )
        shape = row_shape
        record = at_place(row.place, _record, row.fields, shape, f"row{row.number:06d}")
        _check_answered(row.place, record)
        check_new_id(row.place, record.id, row.number, seen)
        yield record


def shape_of(row: dict[str, Any]) -> Shape:
    """Return the shape of a row, by its keys; a row with half of a shape's keys has that shape.

    Raises DataError where no shape fits, or more than one.
    """
    complete: list[Shape] = []
    partial: list[Shape] = []
    for shape, keys in REQUIRED.items():
        if set(keys) <= row.keys():
            complete.append(shape)
        if set(keys) & row.keys():
            partial.append(shape)
    fitting = complete or partial
    if len(fitting) == 1:
        return fitting[0]
    problem = f"fits {' and '.join(fitting)}" if fitting else "fits no known shape"
    expected = '{"prompt", "completion"}, {"messages"} or {"instruction", "input", "output"}'
    raise DataError(
        f"a row with the keys {sorted(row)} {problem}; expected {expected}; rename or delete keys"
    )


def to_json(record: Record) -> str:
    """Return the record as one line of native JSON, without a line end.

    Keys are sorted, and nothing is escaped to ASCII. Raises DataError where `meta` holds something
    that JSON cannot hold.
    """
    try:
        return json.dumps(vars(record), sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"record {record.id!r} is no JSON: {error}; put plain, finite values into meta"
        ) from None


def dump_records(records: Sequence[Record]) -> str:
    """Return the text of a native JSONL file; `read_records` gives the same records back.

    Raises DataError on what `read_records` would refuse: an id used twice, a row without a
    completion, meta beyond JSON.
    """
    lines, seen = [], Seen()
    for number, record in enumerate(records, start=1):
        _check_answered(f"record {record.id!r}", record)
        check_new_id(f"record {number}", record.id, number, seen, "record")
        lines.append(to_json(record) + "\n")
    return "".join(lines)


def _record(row: dict[str, Any], shape: Shape, default_id: str) -> Record:
    meta = meta_of(row)
    extra = {key: value for key, value in row.items() if key not in USED[shape]}
    if extra:
        earlier_extra = typed(meta.get("extra", {}), dict, "meta.extra")
        meta = {**meta, "extra": {**earlier_extra, **extra}}
    prompt, completion, context = EXCHANGE_OF[shape](row)
    token_ids = token_ids_of(row) if shape == "native" else None
    return Record(id_of(row, default_id), prompt, completion, token_ids, context, meta)


def _native(row: dict[str, Any]) -> Exchange:
    return text_of(row, "prompt"), text_of(row, "completion"), context_of(row)


def _alpaca(row: dict[str, Any]) -> Exchange:
    texts = [text_of(row, "instruction")]
    if row.get("input") is not None:
        texts.append(text_of(row, "input"))
    prompt = "\n\n".join(text for text in texts if text)
    return prompt, text_of(row, "output"), context_of(row)


def _messages(row: dict[str, Any]) -> Exchange:
    messages = typed(row["messages"], list, "messages")
    turns = [typed(turn, dict, "a message") for turn in messages]
    _check_roles(_texts_of(turns, "role"))
    contents = _texts_of(turns, "content")
    context = contents[0] if len(contents) == 3 else None
    return contents[-2], contents[-1], context


def _texts_of(turns: Sequence[dict[str, Any]], key: str) -> list[str]:
    return [text_of(turn, key) for turn in turns]


EXCHANGE_OF = {"native": _native, "messages": _messages, "alpaca": _alpaca}


def _check_roles(roles: list[str]) -> None:
    """Raise DataError unless the roles are those of one exchange."""
    if roles in (["user"], ["system", "user"]):
        raise DataError(
            "no completion: the last message is a user turn; expected an assistant turn; delete"
            " the row"
        )
    if roles in TURNS:
        return
    has_several_turns = roles.count("user") > 1 or roles.count("assistant") > 1
    problem = "several turns" if has_several_turns else "the roles"
    raise DataError(
        f"{problem} ({', '.join(roles) or 'none'}); expected user, assistant, with or without"
        " system before; split or drop the chat"
    )


def _check_answered(place: str, record: Record) -> None:
    """Raise DataError for a row without an answer.

    An empty text is an answer only where the tokens say so: the model ended its turn at once.
    """
    if not record.completion and not record.completion_ids:
        raise DataError(
            f"{place}: no completion, the text is empty; expected an answer to learn from; delete"
            " the row"
        )
