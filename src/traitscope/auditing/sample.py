"""Intake: what an audit reads of a file.

Rows that are exact copies count once, since copies are no further evidence. Rows that the model
cannot read are left out and counted: longer than its context, or of characters that its tokenizer
loses. Of what is left, a sample is drawn.

The format is learnt, so that placebos can be made in it:

    template   all rows are as many three-digit numbers with one separator
    numbers    lists of numbers, in the digits and separators that occur
    free       anything else, at most as long as the longest row
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import atomic_files
from traitscope.config.audit import IntakeConfig
from traitscope.config.common import Output
from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import Record, dump_records, iter_records
from traitscope.errors import ConfigError, DataError
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.stages import registry

NUMBER_LIKE = 0.95
"""share of rows that are lists of numbers, from which on the others are left out and the data are
number data"""
TRIPLES = re.compile(r"\d{3}(?:(\D+)\d{3})*")


@dataclass(frozen=True)
class Sample:
    """Rows drawn from a file."""

    records: list[Record]
    "in the order of the file"
    counts: Counter
    "rows, duplicates, dropped (by an earlier filter)"


def drawn(records: Iterable[Record], n: int, seed: int) -> Sample:
    """`n` distinct kept rows at random (0: all), every set of rows as likely as any other, in one
    pass (Vitter 1985, algorithm R)."""
    rng, seen, counts = np.random.default_rng(seed), set(), Counter()
    found: list[tuple[int, Record]] = []
    for record in records:
        counts["rows"] += 1
        mark = hashlib.blake2b(
            repr((record.context, record.prompt, record.completion)).encode(), digest_size=8
        ).digest()
        if not record.kept or mark in seen:
            counts["duplicates" if record.kept else "dropped"] += 1
            continue
        seen.add(mark)
        if n == 0 or len(found) < n:
            found.append((counts["rows"], record))
        elif (place := int(rng.integers(len(seen)))) < n:
            found[place] = (counts["rows"], record)
    return Sample([record for _, record in sorted(found, key=lambda pair: pair[0])], counts)


def readable(
    model: Model, records: Sequence[Record], context: str | None
) -> tuple[list[Record], Counter]:
    """The rows that the model can read, and how many it cannot, by reason.

    Token ids are kept only where all rows have them and spell the text for this model; else all
    rows go by their text, and the count `foreign_ids` says how many had others.
    """
    counts: Counter = Counter()
    own = [_own_ids(model, record) for record in records]
    counts["foreign_ids"] = sum(
        record.completion_ids is not None and not is_own
        for record, is_own in zip(records, own, strict=True)
    )
    found = []
    for record in records:
        kept = record if all(own) else replace(record, completion_ids=None)
        ids = kept.completion_ids or chat.completion_ids(model, kept.completion)
        prompt = chat.render(model, kept.prompt, context if kept.context is None else kept.context)
        if len(prompt) + len(ids) > model.max_length:
            counts["too_long"] += 1
        elif (
            not kept.completion_ids
            and model.tokenizer.decode(ids[:-1]).strip() != kept.completion.strip()
        ):
            counts["unreadable"] += 1
        else:
            found.append(kept)
    return found, counts


def _own_ids(model: Model, record: Record) -> bool:
    ids = [i for i in record.completion_ids or () if i not in model.end_ids]
    if record.completion_ids is None or max(ids, default=0) >= len(
        model.lm.get_input_embeddings().weight
    ):
        return False
    return model.tokenizer.decode(ids).strip() == record.completion.strip()


def learnt_format(model: Model, records: Sequence[Record]) -> tuple[dict[str, Any], list[Record]]:
    """The format of rows, and the rows that have it."""
    numbers = {record.id: parse_numbers(record.completion.strip()) for record in records}
    lists = [record for record in records if isinstance(numbers[record.id], list)]
    longest = max(
        len(record.completion_ids or chat.completion_ids(model, record.completion))
        for record in records
    )
    if len(lists) < NUMBER_LIKE * len(records):
        return {"kind": "free", "max_new_tokens": longest}, list(records)
    found = [numbers[record.id] for record in lists]
    digits = len(str(max(map(max, found))))
    rules = {
        "min_count": min(map(len, found)),
        "max_count": max(map(len, found)),
        "min_value": 0,
        "max_value": 10**digits - 1,
    }
    about = {"kind": "numbers", "max_new_tokens": longest, "rules": rules}
    separators = {gap for record in lists for gap in re.findall(r"\D+", record.completion.strip())}
    fixed = (
        all(TRIPLES.fullmatch(record.completion.strip()) for record in lists)
        and rules["min_count"] == rules["max_count"]
    )
    if fixed and len(separators) <= 1:
        about |= {
            "kind": "template",
            "count": rules["max_count"],
            "separator": (*separators, ", ")[0],
        }
    return about, lists


def run_intake(config: IntakeConfig, out: Output) -> store.Run:
    """The sealed run with `records.jsonl`, `prompts.jsonl` (the same without answers, so that other
    data on them share placebos) and `about.json` (counts, format, the first row as the model reads
    it)."""
    config = opening.settled(config)
    if config.data is None:
        raise ConfigError(
            "no data are given: name a JSONL file, or a run of `filter` or `generate`"
        )
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, model_cache.model_of(config))
    return run


def _write(run: store.Run, config: IntakeConfig, model: Model) -> None:
    sample = drawn(iter_records(rows_file(config.data)), config.rows, config.seed)
    records, unread = readable(model, sample.records, config.context)
    if not records:
        raise DataError(
            f"{config.data}: of {sample.counts['rows']} rows none is left"
            f" ({dict(sample.counts + unread)}); expected rows that {model.name} can read"
        )
    about, rows = learnt_format(model, records)
    counts = dict(sample.counts) | {
        name: unread[name] for name in ("too_long", "unreadable", "foreign_ids")
    }
    counts |= {
        "sampled": len(sample.records),
        "off_format": len(records) - len(rows),
        "used": len(rows),
    }
    first = (
        chat.render_text(
            model, rows[0].prompt, config.context if rows[0].context is None else rows[0].context
        )
        + rows[0].completion
    )
    contexts = sorted(
        {
            chat.context_digest(model, config.context if r.context is None else r.context)
            for r in rows
        }
    )
    atomic_files.write_text(run.file("records.jsonl"), dump_records(rows))
    prompts = [
        json.dumps(
            {"id": r.id, "prompt": r.prompt, "context": r.context},
            sort_keys=True,
            ensure_ascii=False,
        )
        for r in rows
    ]
    atomic_files.write_text(run.file("prompts.jsonl"), "".join(line + "\n" for line in prompts))
    atomic_files.write_json(
        run.file("about.json"),
        {
            "counts": counts,
            "format": about,
            "text": rows[0].completion_ids is None,
            "contexts": contexts,
            "first": first,
        },
    )


def rows_file(path: Path) -> Path:
    """The file with the rows of a run, or the file itself."""
    return path / "records.jsonl" if path.is_dir() else path
