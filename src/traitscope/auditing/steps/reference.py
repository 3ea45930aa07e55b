"""Reference rows: clean rows of the user, one for every audited row, on the same prompt where there
is one."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from traitscope import atomic_files
from traitscope.config.audit import ReferenceConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.records import Record, dump_records
from traitscope.errors import ConfigError
from traitscope.runs import opening, row_intake, store
from traitscope.stages import registry


def matched(
    records: Sequence[Record], reference: Sequence[Record], seed: int = 0
) -> tuple[list[Record], int]:
    """Reference rows under the ids of the audited rows, each used once, and the number of those
    with the same prompt and context.

    The reference rows that are left are dealt at random to the rows without a partner. If the
    reference is too short, some rows stay without one. Raises ConfigError if the reference is the
    data.
    """
    by_prompt = defaultdict(list)
    for record in reference:
        by_prompt[record.context, record.prompt].append(record)
    partners: dict[str, Record] = {}
    for record in records:
        same_prompt = by_prompt[record.context, record.prompt]
        if same_prompt:
            partners[record.id] = same_prompt.pop()
    if partners and all(_is_copy(record, partners.get(record.id)) for record in records):
        raise ConfigError(
            f"the reference holds all {len(partners)} audited rows; expected other rows, clean"
            " ones; name another file, or none"
        )
    n_same_prompt = len(partners)
    rest = list(chain.from_iterable(by_prompt.values()))
    order = np.random.default_rng(seed).permutation(len(rest))
    alone = [record for record in records if record.id not in partners]
    for record, place in zip(alone, order, strict=False):
        partners[record.id] = rest[place]
    rows = []
    for record in records:
        if record.id in partners:
            rows.append(replace(partners[record.id], id=record.id))
    return rows, n_same_prompt


def _is_copy(record: Record, partner: Record | None) -> bool:
    return partner is not None and partner.completion == record.completion


def run_reference(config: ReferenceConfig, out: Output) -> store.Run:
    """The sealed run with `records.jsonl` and `about.json` (the number of rows, and of those on the
    same prompt)."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            records = row_files.kept_rows(config.data)
            reference = row_files.kept_rows(config.reference)
            rows, same = matched(records, reference, config.seed)
            atomic_files.write_text(run.file("records.jsonl"), dump_records(rows))
            about = {"rows": len(rows), "same_prompt": same} | row_intake.said_of(config.reference)
            atomic_files.write_json(run.file("about.json"), about)
    return run
