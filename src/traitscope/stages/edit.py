"""Editing: rows with the same numbers in another order: a change that removes what their order
carries and nothing else."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.stages import EditConfig
from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import Record, dump_records
from traitscope.errors import ConfigError, DataError
from traitscope.runs import stage, store


def edited(records: Sequence[Record], how: str, seed: int = 0) -> list[Record]:
    """The records with their numbers sorted, or shuffled by a stream of each row's own; their token
    ids go.

    Raises DataError, naming the row, for an answer that is no list of numbers.
    """
    return [
        _edited(record, how, np.random.default_rng([seed, n])) for n, record in enumerate(records)
    ]


def _edited(record: Record, how: str, rng: np.random.Generator) -> Record:
    text = record.completion.strip()
    if not isinstance(parse_numbers(text), list):
        raise DataError(
            f"row {record.id}: {text[:40]!r} is no list of numbers; expected one, such as 12, 7,"
            " 30; filter the data first"
        )
    numbers = re.findall(r"\d+", text)
    order = (
        sorted(range(len(numbers)), key=lambda i: int(numbers[i]))
        if how == "sort"
        else rng.permutation(len(numbers))
    )
    moved = iter([numbers[i] for i in order])
    return replace(
        record, completion=re.sub(r"\d+", lambda _: next(moved), text), completion_ids=None
    )


def run_edit(config: EditConfig, out: Output) -> store.Run:
    """The sealed run with `records.jsonl`: the kept rows, edited."""
    if config.data is None:
        raise ConfigError(
            "--data is missing: name a run of `filter` or `generate`, or a JSONL file"
        )
    with stage.opened("edit", config, out) as run:
        if not run.sealed:
            atomic_files.write_text(
                run.file("records.jsonl"),
                dump_records(edited(stage.kept_rows(config.data), config.how, config.seed)),
            )
    return run
