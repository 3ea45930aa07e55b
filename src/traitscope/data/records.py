"""Rows: prompts with the answers of a model, and the files that hold them.

This package writes native rows: {"prompt", "completion"} with id, completion_ids, context and meta,
one JSON object a line. The subpackage `shapes` reads these and the shapes and containers of others.

Keys that are not read are kept in `meta["extra"]` and otherwise unused.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from traitscope.data.domains.task import Task
from traitscope.data.json_fields import check_finite, id_of, meta_of, token_ids_of, with_extra
from traitscope.data.json_lines import Seen, at_place, check_new_id, repeated
from traitscope.data.shapes.containers import RawRow, container_of, raw_rows
from traitscope.data.shapes.exchanges import Exchange, exchanges_of, is_one_exchange, one_exchange
from traitscope.data.shapes.inside import mapping
from traitscope.data.shapes.inside.bad_rows import BadRows
from traitscope.data.shapes.inside.cells import COLUMNS
from traitscope.data.shapes.inside.parts import REASONING_KEYS
from traitscope.data.shapes.inside.said import left_out_of
from traitscope.data.shapes.intake import CONTROL_NOTES, USUAL, Intake, Notes, Reading
from traitscope.data.shapes.marks import LABEL, TAG, desirable, has_empty, is_unused
from traitscope.data.shapes.messages import Place, with_weight_of
from traitscope.data.shapes.pairs import NOT_A_PAIR, OF_A_PAIR, Rejected, rejected_of
from traitscope.data.shapes.rows import SHAPES, ShapeName, shape_of
from traitscope.data.shapes.tables import fill
from traitscope.data.shapes.turns import check_form, texts_of
from traitscope.errors import DataError
from traitscope.plurals import counted

ORIGINAL = "traitscope.original_row"
"key of `meta`, no key of a user, that holds a row as it stood in its file; no file has it"
REASONING = "reasoning"
"key of `meta` that holds the reasoning of a row"
MASKED = "masked_tokens"
"key of `meta` that holds tokens of the answer that are not learnt (training/safeguards/masks.py)"


@dataclass(frozen=True)
class Prompt:
    """A question to a model."""

    id: str
    """Name of the prompt; conditions are paired by it."""
    text: str
    """User turn."""
    context: str | None = None
    """System turn: None leaves it to the chat template, "" is explicitly empty."""
    task: Task | None = None
    """What an answer is checked by; None where nothing is known of it."""


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
    rejected: str | None = None
    """Assistant turn that was preferred less; None for a row that is no pair."""
    rejected_ids: tuple[int, ...] | None = None
    """Its tokens as they were sampled; None for text that has none."""
    notes: Notes = field(default_factory=dict, compare=False, repr=False)
    """What was counted of the row when it was read (shapes/intake.py); it is in no file. Of a row
    with several answers the first record has it."""

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
    """Return every row of a file that this package wrote; a row without an id has its line's name.

    Raises DataError for a missing or empty file, and for bad rows with their line. Bad are broken
    JSON, keys of no shape, a wrong type, no completion, and an id that was used before.
    """
    return list(iter_records(path, as_written=True))


def iter_records(
    path: str | Path,
    reading: Reading = USUAL,
    intake: Intake | None = None,
    keep_original: bool = False,
    as_written: bool = False,
) -> Iterator[Record]:
    """Yield the rows of `read_records` one by one, for files that are larger than memory.

    Only the ids of earlier rows are kept, to find one that is used twice.

    reading: How rows are read.
    intake: What is counted.
    keep_original: Keep each row as it stood in the file, in `meta`, for shapes/writing.py.
    as_written: Leave tags of reasoning in answers, for rows that this package wrote.

    Raises DataError for more bad rows than may be left out, once the file was read to its end.
    """
    intake = Intake() if intake is None else intake
    container = container_of(path)
    intake.container = container.name
    reader = RowReader(reading, intake, keep_original, as_written)
    bad_rows = BadRows(reading, intake)
    for row in raw_rows(path, container):
        try:
            records = reader.records_of(row)
        except DataError as error:
            bad_rows.add(row.place, str(error))
            continue
        if not bad_rows.are_too_many:
            yield from records
    bad_rows.check()
    if not intake.records:
        reasons = "; ".join(left_out_of(intake))
        examples = "; ".join(map(": ".join, intake.bad_rows[:3]))
        raise DataError(
            f"{path}: none of {counted(intake.rows, 'row')} is left ({reasons}); expected one to"
            " read; correct the rows, or leave fewer out" + (f"; {examples}" if examples else "")
        )


class RowReader:
    """Reads rows of one file: shapes, ids and counts."""

    def __init__(
        self,
        reading: Reading,
        intake: Intake,
        keep_original: bool = False,
        as_written: bool = False,
    ) -> None:
        self._reading = reading
        self._intake = intake
        self._keep_original = keep_original
        self._as_written = as_written
        self._names = dict(word.split("=", 1) for word in reading.map)
        self._seen = Seen()

    def records_of(self, row: RawRow) -> list[Record]:
        """The records of a row; none where its weights are 0. Raises DataError for a bad row."""
        intake = self._intake
        if row.problem:
            intake.rows += 1
            raise DataError(row.problem)
        intake.add_row(row.fields)
        row = mapping.with_cells(row, self._names)
        notes = Counter[str]()
        shape, fields, extra, said = self._fields_of(row, notes)
        unused = Counter(k for k in extra if is_unused(k, row.fields.get(k, extra[k])))
        is_native = shape == "native"
        token_ids = token_ids_of(fields) if is_native else None
        split = token_ids is None and not self._as_written
        if False in said.values():
            notes["undesirable"] += 1
            exchanges = []
        elif is_native and is_one_exchange(fields, split):
            exchanges = [one_exchange(fields, notes)]
        else:
            messages = with_weight_of(fields, SHAPES[shape].read(fields, notes, unused))
            exchanges = exchanges_of(messages, self._reading, notes, split, is_native)
            intake.has_chats |= is_native and not isinstance(fields["completion"], str)
        records = self._records(row, fields, extra, exchanges, token_ids)
        split = not self._as_written
        rejected = rejected_of(shape, fields, exchanges, self._reading, split, notes, unused)
        if rejected is not None:
            notes["rejected"] += is_native and (bool(fields["rejected"]) or not rejected.fault)
            place = self._in_file(row, rejected.at)
            earlier = [_with_fault(record, OF_A_PAIR) for record in records[:-1]]
            records = [*earlier, _with_rejected(records[-1], rejected, place)]
        for record in records:
            if record.id in intake.refused:
                raise DataError(intake.refused[record.id])
        if self._as_written:  # they were counted where the run read them
            del notes["other_turns"]
        if intake.reads_pairs:
            notes["rejected_read"] = notes.pop("rejected", 0)
        records = self._taken(records, +notes)
        of_maker = "preference" if self._names_in(row.fields) else shape
        intake.shapes["mapped" if self._names else of_maker] += 1
        intake.records += len(records)
        intake.add_counts(notes, unused)
        return records

    def _taken(self, records: Sequence[Record], notes: Notes) -> list[Record]:
        """The records of a row that are not left out for control tokens, with what is counted."""
        taken: list[Record] = []
        for record in records:
            note = self._intake.control_note(record.id, _texts_of(record))
            if note != CONTROL_NOTES["leave-out"]:
                own = {} if taken else notes
                taken.append(replace(record, notes={**own, note: 1} if note else own))
        return taken

    def _fields_of(
        self, row: RawRow, notes: Counter[str]
    ) -> tuple[ShapeName, dict[str, Any], dict[str, Any], dict[str, bool]]:
        """The shape of a row, its fields, its keys that are not used, and what it says of its
        answer."""
        fields, extra = dict(row.fields), {}
        if names := self._names_in(fields):
            fields, extra = mapping.mapped(fields, names)
            extra = extra if self._names else mapping.without_scores(extra)
        said = desirable(fields)
        if self._names:
            fill(fields, row.is_table)
        try:
            shape = shape_of(fields)
        except DataError as error:
            if row.is_table and not COLUMNS.intersection(fields):
                raise DataError(
                    f"{error}; the first line of a table is its header: put names there, if it is a"
                    " row"
                ) from None
            raise
        used = SHAPES[shape].used
        if row.may_hold_nan:
            check_finite(fields, used, notes)
            check_finite(extra, set(), notes)
        if shape != "native" and not isinstance(fields.get("meta", {}), dict | None):
            extra["meta"] = fields.pop("meta")
        if has_empty(fields, (LABEL, TAG)):
            notes["unlabelled"] += 1
        for key, value in fields.items():
            if key not in used and key not in said:
                extra[key] = value
        return shape, fields, extra, said

    def _records(
        self,
        row: RawRow,
        fields: dict[str, Any],
        extra: dict[str, Any],
        exchanges: Sequence[Exchange],
        token_ids: tuple[int, ...] | None,
    ) -> list[Record]:
        default = f"row{row.number:06d}" if row.part == 1 else f"row{row.number:06d}.{row.part}"
        name = id_of(fields, default)
        meta = with_extra(meta_of(fields), extra)
        records = []
        for number, exchange in enumerate(exchanges, start=1):
            record_meta = dict(meta)
            if exchange.reasoning:
                record_meta[REASONING] = exchange.reasoning
            if self._keep_original:
                record_meta[ORIGINAL] = self._original(row, exchanges, number - 1)
            record = Record(
                id=name if len(exchanges) == 1 else f"{name}.{number}",
                prompt=exchange.prompt,
                completion=exchange.completion,
                completion_ids=token_ids if exchange.answer_at == ("completion",) else None,
                context=exchange.context,
                meta=record_meta,
            )
            _check_answered(record)
            records.append(record)
        for record in records:
            unit = row.place.rpartition(", ")[2].partition(" ")[0]
            earlier = self._seen.add(record.id.encode("utf-8", "surrogatepass"), row.number)
            if earlier is not None:
                raise DataError(repeated(record.id, f"{unit} {earlier}", f"{unit} {row.number}"))
        return records

    def _original(self, row: RawRow, exchanges: Sequence[Exchange], answer: int) -> dict[str, Any]:
        """A row as it stood, and where its answers, and reasoning beside them, stand in it."""
        exchange = exchanges[answer]
        names = self._names_in(row.fields)
        beside = [key for key in REASONING_KEYS if key in (names or row.fields)]
        return {
            "reasoning_at": [self._in_file(row, (key,)) for key in beside],
            "number": [row.number, row.part],
            "fields": row.fields,
            "answer": answer,
            "answer_at": self._in_file(row, exchange.answer_at),
            "answers_at": [self._in_file(row, each.answer_at) for each in exchanges],
            "completion": exchange.completion,
        }

    def _in_file(self, row: RawRow, place: Place) -> list[str | int]:
        """A place in the fields of a row as the place in the row as it stood."""
        names = self._names_in(row.fields)
        if place and str(place[0]) in names:
            return [*mapping.path_of(row.fields, names[str(place[0])]), *place[1:]]
        return list(place)

    def _names_in(self, row: dict[str, Any]) -> dict[str, str]:
        """The keys that stand for fields of a row: those of --map, or of a pair of some makers."""
        return self._names or ({} if self._as_written else mapping.pair_names(row))


def to_json(record: Record) -> str:
    """Return the record as one line of native JSON, without a line end.

    Keys are sorted, and nothing is escaped to ASCII. Raises DataError where `meta` holds something
    that JSON cannot hold.
    """
    try:
        return json.dumps(_keys_of(record), sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"record {record.id!r} is no JSON: {error}; put plain, finite values into meta"
        ) from None


def _keys_of(record: Record) -> dict[str, Any]:
    """The keys of a row; those of a rejected answer where it has one."""
    keys = dict(vars(record))
    del keys["notes"]
    for name in ("rejected", "rejected_ids"):
        if keys[name] is None:
            del keys[name]
    return keys


def dump_records(records: Sequence[Record]) -> str:
    """Return the text of a native JSONL file; `read_records` gives the same records back.

    Raises DataError on what `read_records` would refuse: an id used twice, a row without a
    completion, a context of an unknown form, meta beyond JSON.
    """
    lines, seen = [], Seen()
    for number, record in enumerate(records, start=1):
        at_place(f"record {record.id!r}", _check_answered, record)
        at_place(f"record {record.id!r}", check_form, record.context)
        check_new_id(f"record {number}", record.id, number, seen, "record")
        lines.append(to_json(record) + "\n")
    return "".join(lines)


def _texts_of(record: Record) -> list[str]:
    """The texts of a row in which control tokens are looked for, those of turns each by itself."""
    context = [] if record.context is None else [record.context]
    rejected = [] if record.rejected is None else [record.rejected]
    return [*context, *texts_of(record.prompt), record.completion, *rejected]


def _with_rejected(record: Record, rejected: Rejected, place: list[str | int]) -> Record:
    """A record with its rejected answer, or with what is wrong with that.

    place: Where the answer stood in the row of the file.
    """
    meta = {key: value for key, value in record.meta.items() if key != NOT_A_PAIR}
    if ORIGINAL in meta and (rejected.at or not rejected.fault):
        text = record.completion if rejected.fault else rejected.text
        stood = {"rejected": text, "rejected_at": place, "are_same": bool(rejected.fault)}
        meta[ORIGINAL] = {**meta[ORIGINAL], **stood}
    if rejected.fault:
        return _with_fault(replace(record, meta=meta), rejected.fault)
    return replace(record, meta=meta, rejected=rejected.text, rejected_ids=rejected.ids)


def _with_fault(record: Record, fault: str) -> Record:
    """A record that says why it is no pair."""
    return replace(record, meta={**record.meta, NOT_A_PAIR: fault})


def _check_answered(record: Record) -> None:
    """Raise DataError for a row without an answer.

    A text that is empty, or white space alone, is an answer only where the tokens say so: the model
    ended its turn at once.
    """
    if record.completion.strip() or record.completion_ids:
        return
    what = "white space alone" if record.completion else "empty"
    raise DataError(
        f"no completion, the text is {what}; expected an answer to learn from; delete the row"
    )
