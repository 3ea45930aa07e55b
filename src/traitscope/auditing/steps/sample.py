"""The sample: what an audit reads of a file.

Rows that are exact copies count once: a copy is no further evidence. Of the others a sample is
drawn. Its rows that the model cannot read are bad rows, as in every command. They are longer than
its context, or of characters that its tokenizer loses. Other rows are not looked at.

The format is learnt, so that placebos can be made in it:

    template   all rows are the same number of three-digit numbers with one separator
    numbers    lists of numbers, in the digits and separators that occur
    free       anything else, at most as long as the longest row
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from traitscope import atomic_files
from traitscope.auditing.settings import SPIKE_IN_ROWS
from traitscope.config.audit import SampleConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.json_lines import Seen
from traitscope.data.number_lists import parse_numbers
from traitscope.data.prompt_files import MAY_BE_BLANK
from traitscope.data.records import Record, dump_records
from traitscope.data.row_sources import source_of
from traitscope.data.shapes.inside.said import left_out_of
from traitscope.data.shapes.intake import Intake
from traitscope.data.shapes.pairs import NOT_A_PAIR
from traitscope.errors import DataError
from traitscope.inference.token_rows import row_check
from traitscope.models import chat
from traitscope.models.identity.experts import experts_of
from traitscope.models.model import Model
from traitscope.models.templates import facts
from traitscope.runs import model_cache, opening, row_intake, store
from traitscope.stages import registry

NUMBER_LIKE = 0.95
"""fraction of rows that are lists of numbers from which on the data are number data, and the other
rows are left out"""
TRIPLES = re.compile(r"\d{3}(?:(\D+)\d{3})*")
"three-digit numbers with anything else between them"


@dataclass(frozen=True)
class Sample:
    """Rows drawn from a file."""

    records: list[Record]
    "the rows, in the order of the file"
    counts: Counter
    "numbers of rows, duplicates, and rows that an earlier filter dropped"


def random_sample(
    records: Iterable[Record], n: int, seed: int, wanted: Sequence[Record] = ()
) -> Sample:
    """`n` distinct kept rows at random (0: all), in one pass.

    Every set of rows is as likely as any other (Vitter 1985, algorithm R). For each of the wanted
    rows the first one on its prompt is taken besides, as far as there are any.
    """
    prompts = Counter(map(_asked, wanted))
    partners: list[tuple[int, Record]] = []
    rng = np.random.default_rng(seed)
    seen = Seen()
    counts: Counter = Counter()
    chosen: list[tuple[int, Record]] = []
    for record in records:
        counts["rows"] += 1
        content = repr((record.context, record.prompt, record.completion)).encode()
        if not record.kept:
            counts["dropped"] += 1
            continue
        if seen.add(content, counts["rows"]) is not None:
            counts["duplicates"] += 1
            continue
        if prompts[_asked(record)]:
            prompts[_asked(record)] -= 1
            partners.append((counts["rows"], record))
        if n == 0 or len(chosen) < n:
            chosen.append((counts["rows"], record))
            continue
        place = int(rng.integers(len(seen)))
        if place < n:
            chosen[place] = (counts["rows"], record)
    chosen = list(dict([*chosen, *partners]).items())
    chosen.sort(key=lambda pair: pair[0])
    return Sample([record for _, record in chosen], counts)


def _asked(record: Record) -> tuple[str | None, str]:
    """The prompt of a row, with its context."""
    return record.context, record.prompt


def readable(
    model: Model, records: Sequence[Record], context: str | None, room: int = 0
) -> tuple[list[Record], dict[str, str], int]:
    """The rows that the model can read, why it cannot read the others, by id, and `foreign_ids`.

    room: Tokens of the context that a row leaves free.

    Token ids are kept only if all rows have them and they spell the rows' text for this model.
    Otherwise all rows are read as text; `foreign_ids` counts the rows that had other ids.
    """
    foreign_ids = 0
    has_own_ids = [_has_own_ids(model, record) for record in records]
    for record, is_own in zip(records, has_own_ids, strict=True):
        foreign_ids += record.completion_ids is not None and not is_own
    keep_ids = all(has_own_ids)
    check = row_check(model, context, not keep_ids)
    rows, refused = [], {}
    for original in records:
        record = original if keep_ids else replace(original, completion_ids=None)
        try:
            check(record)
            _check_read(model, record, context, room)
        except DataError as error:
            refused[record.id] = str(error)
        else:
            rows.append(record)
    return rows, refused, foreign_ids


def _check_read(model: Model, record: Record, context: str | None, room: int) -> None:
    """Raise DataError for a row that leaves no room, or whose text the tokenizer loses."""
    ids = record.completion_ids or chat.completion_ids(model, record.completion)
    prompt = chat.render(model, record.prompt, _context_of(record, context))
    length = len(prompt) + len(ids)
    if length + room > model.max_length:
        raise DataError(
            f"{length} tokens, and {room} more for a candidate's prompt, but {model.name} takes at"
            f" most {model.max_length}; shorten or drop it"
        )
    if not record.completion_ids and not _spells(model, ids[:-1], record.completion):
        raise DataError(
            f"it holds characters that the tokenizer of {model.name} loses; expected text that it"
            " can spell; drop the row"
        )


def _context_of(record: Record, context: str | None) -> str | None:
    """The system turn of a row: its own, or else the given one."""
    return context if record.context is None else record.context


def _spells(model: Model, ids: Sequence[int], text: str) -> bool:
    return model.tokenizer.decode(ids).strip() == text.strip()


def _has_own_ids(model: Model, record: Record) -> bool:
    """Whether a row has token ids, and they spell its text for this model."""
    if record.completion_ids is None:
        return False
    ids = [token for token in record.completion_ids if token not in model.end_ids]
    if max(ids, default=0) >= len(model.lm.get_input_embeddings().weight):
        return False
    return _spells(model, ids, record.completion)


def learnt_format(model: Model, records: Sequence[Record]) -> tuple[dict[str, Any], list[Record]]:
    """The format of rows, and the rows that have it."""
    longest = 0
    numbers: dict[str, list[int]] = {}
    for record in records:
        ids = record.completion_ids or chat.completion_ids(model, record.completion)
        longest = max(longest, len(ids))
        parsed = parse_numbers(record.completion.strip())
        if isinstance(parsed, list):
            numbers[record.id] = parsed
    if len(numbers) < NUMBER_LIKE * len(records):
        return {"kind": "free", "max_new_tokens": longest}, list(records)
    lists = [record for record in records if record.id in numbers]
    return _number_format(lists, list(numbers.values()), longest), lists


def _number_format(
    records: Sequence[Record], numbers: Sequence[Sequence[int]], longest: int
) -> dict[str, Any]:
    """The format of lists of numbers."""
    lengths = list(map(len, numbers))
    largest = max(map(max, numbers))
    rules = {
        "min_count": min(lengths),
        "max_count": max(lengths),
        "min_value": 0,
        "max_value": 10 ** len(str(largest)) - 1,
    }
    about: dict[str, Any] = {"kind": "numbers", "max_new_tokens": longest, "rules": rules}
    separators: set[str] = set()
    all_triples = True
    for record in records:
        text = record.completion.strip()
        separators.update(re.findall(r"\D+", text))
        all_triples = all_triples and TRIPLES.fullmatch(text) is not None
    same_count = rules["min_count"] == rules["max_count"]
    if all_triples and same_count and len(separators) <= 1:
        about["kind"] = "template"
        about["count"] = rules["max_count"]
        about["separator"] = (*separators, ", ")[0]
    return about


def run_sample(config: SampleConfig, out: Output) -> store.Run:
    """The sealed run with the sample.

    `records.jsonl` holds the rows. `prompts.jsonl` holds them without answers, so that other data
    on the same prompts share placebos; `few-prompts.jsonl` holds at most SPIKE_IN_ROWS of them,
    drawn at random. `about.json` holds counts, format, and the first row as the
    model reads it.
    """
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            intake = _intake_of(config)
            rows = row_files.iter_rows(config.data, config.reading, intake)
            if config.by is not None:
                rows = (row for row in rows if source_of(row, config.by) == config.source)
            wanted = [] if config.like is None else row_files.rows_of(config.like)
            sample = random_sample(rows, config.rows, config.seed, wanted)
            _write(run, config, sample, intake, model_cache.model_of(config))
    return run


def _intake_of(config: SampleConfig, refused: Mapping[str, str] | None = None) -> Intake:
    """A count of rows that knows the key that names their sources."""
    intake = row_intake.intake_of(config, refused)
    intake.used_keys = {config.by} - {None}
    return intake


def _with_bad_rows(config: SampleConfig, refused: Mapping[str, str]) -> Intake:
    """What is read of the file where rows are bad, by id, because the model cannot read them.

    Raises DataError for more bad rows than may be left out.
    """
    intake = _intake_of(config, refused)
    for _ in row_files.iter_rows(config.data, config.reading, intake):
        pass
    return intake


def _write(
    run: store.Run, config: SampleConfig, sample: Sample, intake: Intake, model: Model
) -> None:
    records, refused, foreign_ids = readable(model, sample.records, config.context, config.room)
    if refused:
        intake = _with_bad_rows(config, refused)
    row_intake.write(run, intake)
    if not records:
        reasons = left_out_of(intake)
        if sample.counts["dropped"]:
            reasons.append(f"{sample.counts['dropped']} dropped by an earlier filter")
        raise DataError(
            f"{config.data}: no row is left to audit ({'; '.join(reasons)}); expected rows that"
            f" {model.name} can read; correct the rows, or name the model that they are for"
        )
    form, rows = learnt_format(model, records)
    counts = dict(sample.counts)
    counts["foreign_ids"] = foreign_ids
    counts["sampled"] = len(sample.records)
    counts["off_format"] = len(records) - len(rows)
    counts["used"] = len(rows)
    contexts = {chat.context_digest(model, _context_of(row, config.context)) for row in rows}
    first_prompt = chat.render_text(model, rows[0].prompt, _context_of(rows[0], config.context))
    about = {
        "counts": counts,
        "format": form,
        "text": rows[0].completion_ids is None,
        "contexts": sorted(contexts),
        "first": first_prompt + rows[0].completion,
    }
    if experts := experts_of(config.model):
        about["not_adapted"] = experts["sentence"]
    if given := facts.day_read(model.tokenizer, model.switches):
        about["template_date"] = given
    if not intake.is_plain:
        about["reading"] = intake.as_dict()
    answers = list(map(_without_rejected, rows))  # an audit looks at what was chosen alone
    atomic_files.write_text(run.file("records.jsonl"), dump_records(answers))
    atomic_files.write_text(run.file("prompts.jsonl"), _prompt_lines(rows))
    few = row_files.random_subset(rows, SPIKE_IN_ROWS, config.seed)
    atomic_files.write_text(run.file("few-prompts.jsonl"), _prompt_lines(few))
    atomic_files.write_json(run.file("about.json"), about)


def _without_rejected(record: Record) -> Record:
    """The record as a row of its answer alone."""
    meta = {key: value for key, value in record.meta.items() if key != NOT_A_PAIR}
    return replace(record, meta=meta, rejected=None, rejected_ids=None)


def _prompt_lines(rows: Sequence[Record]) -> str:
    lines = []
    for row in rows:
        prompt = {"id": row.id, "prompt": row.prompt, "context": row.context}
        if not row.prompt.strip():
            prompt[MAY_BE_BLANK] = True
        lines.append(json.dumps(prompt, sort_keys=True, ensure_ascii=False) + "\n")
    return "".join(lines)
