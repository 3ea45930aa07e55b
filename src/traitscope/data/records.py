"""Rows: prompts, and what a model answered to them.

A JSONL file holds one of three shapes, found in its first row and the same in every row:

    native     {"prompt", "completion"} + id, completion_ids, context, meta: what this package
               writes
    messages   {"messages": [system?, user, assistant]} + id, meta: one exchange, longer chats are
               refused
    alpaca     {"instruction", "input", "output"} + id, context, meta: prompt = instruction, blank
               line, input

Keys that are not named here are kept in `meta["extra"]` and otherwise unused. Only a line feed ends
a line: other Unicode line breaks may stand inside a text.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from traitscope.errors import DataError

Shape = Literal["native", "messages", "alpaca"]
REQUIRED: dict[Shape, tuple[str, ...]] = {
    "native": ("prompt", "completion"),
    "messages": ("messages",),
    "alpaca": ("instruction", "output"),
}
USED: dict[Shape, set[str]] = {
    "native": {"id", "prompt", "completion", "completion_ids", "context", "meta"},
    "messages": {"id", "messages", "meta"},
    "alpaca": {"id", "instruction", "input", "output", "context", "meta"},
}
COLUMNS = {"prompt": ("prompt", "Goal"), "id": ("id", "Index")}
"of a .csv file of prompts"
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
    """Tokens as sampled, with the end-of-turn token where it was sampled; None for text from
    elsewhere."""
    context: str | None = None
    """System turn: None leaves it to the chat template, "" is explicitly empty."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Anything else that JSON can hold; `filter` is the decision of the filter stage."""

    @property
    def kept(self) -> bool:
        """Whether the row passed the filter; True where none was run."""
        return self.meta.get("filter", {}).get("kept", True)


def read_records(path: str | Path) -> list[Record]:
    """Every row of a JSONL file, in order; a row without an id is named after its line.

    Raises DataError, with the line, on a file that is missing or empty, broken JSON, mixed shapes,
    a field that is missing or of the wrong type, a row without a completion, and an id that was
    used before.
    """
    return list(iter_records(path))


def iter_records(path: str | Path) -> Iterator[Record]:
    """The rows of `read_records` one by one, for files that are larger than memory; of a row that
    went by only the id is kept."""
    shape, lines = None, {}
    for where, number, row in _json_rows(path):
        found = _located(where, shape_of, row)
        if shape not in (None, found):
            raise DataError(
                f"{where}: shape {found} after rows of shape {shape}; expected one in a file; split"
                " the file"
            )
        shape = found
        record = _located(where, _record, row, shape, f"row{number:06d}")
        _check_answered(where, record)
        _check_new(where, record.id, f"line {number}", lines)
        yield record


def read_prompts(path: str | Path) -> list[Prompt]:
    """The prompts of a .txt file (one a line), of a JSONL file of {"prompt"} + id, context, or of a
    .csv file; blank lines are skipped.

    Other keys are ignored, so a file of records can serve as prompts. A .csv file has a column
    prompt or Goal, and id or Index, as JailbreakBench's behaviors do (Chao et al. 2024, arXiv
    2404.01318). Raises DataError, with the line, on a file that is missing or empty, broken JSON, a
    field that is missing, blank or of the wrong type, and an id used before.
    """
    if Path(path).suffix.lower() == ".csv":
        return _csv_prompts(path)
    if Path(path).suffix.lower() == ".txt":
        return [Prompt(f"row{number:06d}", line) for _, number, line in _lines(path)]
    prompts, lines = [], {}
    for where, number, row in _json_rows(path):
        prompts.append(_located(where, _prompt, row, f"row{number:06d}"))
        _check_new(where, prompts[-1].id, f"line {number}", lines)
    return prompts


def _csv_prompts(path: str | Path) -> list[Prompt]:
    text = "\n".join(line for _, _, line in _lines(path))
    rows = csv.DictReader(io.StringIO(text))
    columns = {
        wanted: next((c for c in names if c in (rows.fieldnames or ())), None)
        for wanted, names in COLUMNS.items()
    }
    if columns["prompt"] is None:
        raise DataError(
            f"{path} has the columns {rows.fieldnames}; expected one of"
            f" {' or '.join(COLUMNS['prompt'])}; rename it"
        )
    found, lines = [], {}
    for number, row in enumerate(rows, start=1):
        plain = {wanted: row[column] for wanted, column in columns.items() if column is not None}
        found.append(_located(f"{path}, row {number}", _prompt, plain, f"row{number:06d}"))
        _check_new(f"{path}, row {number}", found[-1].id, f"row {number}", lines)
    return found


def shape_of(row: dict[str, Any]) -> Shape:
    """The shape of a row, by its keys; one with half of a shape's keys counts as that shape.

    Raises DataError where no shape fits, or more than one.
    """
    whole = [shape for shape, keys in REQUIRED.items() if all(key in row for key in keys)]
    found = whole or [shape for shape, keys in REQUIRED.items() if any(key in row for key in keys)]
    if len(found) == 1:
        return found[0]
    what = f"fits {' and '.join(found)}" if found else "fits no known shape"
    expected = '{"prompt", "completion"}, {"messages"} or {"instruction", "input", "output"}'
    raise DataError(
        f"a row with the keys {sorted(row)} {what}; expected {expected}; rename or delete keys"
    )


def to_json(record: Record) -> str:
    """The record as one line of native JSON, keys sorted, not escaped to ASCII, without a line end.

    Raises DataError where `meta` holds something that JSON cannot.
    """
    try:
        return json.dumps(vars(record), sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"record {record.id!r} is no JSON: {error}; put plain, finite values into meta"
        ) from None


def dump_records(records: Sequence[Record]) -> str:
    """The text of a native JSONL file; read_records gives the same records back.

    Raises DataError on what read_records would refuse: an id used twice, a row without a
    completion, meta beyond JSON.
    """
    seen: dict[str, str] = {}
    for number, record in enumerate(records, start=1):
        _check_answered(f"record {record.id!r}", record)
        _check_new(f"record {number}", record.id, f"record {number}", seen)
    return "".join(to_json(record) + "\n" for record in records)


def _lines(path: str | Path) -> Iterator[tuple[str, int, str]]:
    """(place to name in an error, line number, line) of every line that is not blank. Raises
    DataError."""
    empty = True
    for number, line in enumerate(_raw_lines(path), start=1):
        where = f"{path}, line {number}"
        if line.strip():
            empty = False
            yield (
                where,
                number,
                _located(where, _decoded, line.removesuffix(b"\n").removesuffix(b"\r")),
            )
    if empty:
        raise DataError(f"{path} is empty; expected one row a line; check the step that wrote it")


def _raw_lines(path: str | Path) -> Iterator[bytes]:
    """The lines of a file, ended by line feeds, without a byte order mark; never more than one in
    memory."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                yield line if number else line.removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}; expected a text file; check the path"
        ) from None


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start + 1} is not UTF-8; expected UTF-8 text; convert the file"
        ) from None


def _json_rows(path: str | Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for where, number, line in _lines(path):
        yield where, number, _located(where, _json_row, line)


def _json_row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"broken JSON ({error}); expected one JSON object a line; repair or delete the line"
        ) from None
    return _typed(row, dict, "the row")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _located(where: str, call: Callable, *args: Any) -> Any:
    """`call(*args)`, with the place put before the message of a DataError."""
    try:
        return call(*args)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _record(row: dict[str, Any], shape: Shape, default_id: str) -> Record:
    meta, extra = _meta(row), {key: value for key, value in row.items() if key not in USED[shape]}
    if extra:
        meta = {**meta, "extra": {**_typed(meta.get("extra", {}), dict, "meta.extra"), **extra}}
    prompt, completion, context = {"native": _native, "messages": _messages, "alpaca": _alpaca}[
        shape
    ](row)
    ids = _ids(row.get("completion_ids")) if shape == "native" else None
    return Record(_id(row, default_id), prompt, completion, ids, context, meta)


def _native(row: dict[str, Any]) -> tuple[str, str, str | None]:
    return _text(row, "prompt"), _text(row, "completion"), _context(row)


def _alpaca(row: dict[str, Any]) -> tuple[str, str, str | None]:
    given = _text(row, "input") if row.get("input") is not None else ""
    parts = [part for part in (_text(row, "instruction"), given) if part]
    return "\n\n".join(parts), _text(row, "output"), _context(row)


def _messages(row: dict[str, Any]) -> tuple[str, str, str | None]:
    turns = [_typed(turn, dict, "a message") for turn in _typed(row["messages"], list, "messages")]
    roles = [_text(turn, "role") for turn in turns]
    if roles in (["user"], ["system", "user"]):
        raise DataError(
            "no completion: the last message is a user turn; expected an assistant turn; delete"
            " the row"
        )
    if roles not in TURNS:
        what = (
            "several turns"
            if roles.count("user") > 1 or roles.count("assistant") > 1
            else "the roles"
        )
        found = f"{what} ({', '.join(roles) or 'none'})"
        raise DataError(
            f"{found}; expected user, assistant, with or without system before; split or drop the"
            " chat"
        )
    contents = [_text(turn, "content") for turn in turns]
    return contents[-2], contents[-1], contents[0] if len(contents) == 3 else None


def _prompt(row: dict[str, Any], default_id: str) -> Prompt:
    text = _text(row, "prompt")
    if not text.strip():
        raise DataError("'prompt' is blank; expected a question; delete the row")
    return Prompt(_id(row, default_id), text, _context(row))


def _text(row: dict[str, Any], key: str) -> str:
    if key not in row:
        raise DataError(
            f"no {key!r} among the keys {sorted(row)}; expected one; add it or delete the row"
        )
    text = _typed(row[key], str, repr(key))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{key!r} holds half a surrogate pair; expected text that UTF-8 can hold; repair it"
        ) from None
    return text


def _context(row: dict[str, Any]) -> str | None:
    return None if row.get("context") is None else _text(row, "context")


def _id(row: dict[str, Any], default: str) -> str:
    """The id as text (a whole number is one too), or the default where it is absent or null."""
    value = row.get("id")
    if value is None:
        return default
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise DataError(
            f"'id' is {_short(value)}; expected a text or a whole number; correct it or leave"
            " it out"
        )
    return str(value) if isinstance(value, int) else _text(row, "id")


def _ids(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not _typed(value, list, "'completion_ids'") or any(
        type(token) is not int or token < 0 for token in value
    ):
        raise DataError(
            f"'completion_ids' is {_short(value)}; expected token numbers from 0, at least one, or"
            " null"
        )
    return tuple(value)


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    meta = {} if row.get("meta") is None else _typed(row["meta"], dict, "'meta'")
    if "filter" in meta:
        _typed(
            _typed(meta["filter"], dict, "meta.filter").get("kept", True), bool, "meta.filter.kept"
        )
    return meta


def _typed(value: Any, kind: type, name: str) -> Any:
    if isinstance(value, kind):
        return value
    words = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    raise DataError(
        f"{name} is {_short(value)}; expected {words[kind]}; correct the row or delete it"
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_answered(where: str, record: Record) -> None:
    """An empty text is an answer only where the tokens say so: the model ended its turn at once."""
    if not record.completion and not record.completion_ids:
        raise DataError(
            f"{where}: no completion, the text is empty; expected an answer to learn from; delete"
            " the row"
        )


def _check_new(where: str, name: str, place: str, seen: dict[str, str]) -> None:
    """Adds the id to `seen`; raises DataError where it stands there already."""
    if name in seen:
        raise DataError(
            f"{where}: again the id {name!r} of {seen[name]}; expected every id once; rename or"
            " drop the ids"
        )
    seen[name] = place
