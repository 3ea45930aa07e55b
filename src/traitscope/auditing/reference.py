"""Matching: of clean rows that the user has, one for every audited row, on the same prompt where
there is one."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from traitscope import atomic_files
from traitscope.config.audit import MatchConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.records import Record, dump_records
from traitscope.errors import ConfigError
from traitscope.runs import store
from traitscope.stages import registry


def matched(
    records: Sequence[Record], reference: Sequence[Record], seed: int = 0
) -> tuple[list[Record], int]:
    """Reference rows under the names of the audited rows, each used once, and how many of them have
    the same prompt and context.

    What is left of the reference is dealt at random to the rows without a partner; these are fewer
    where it is too short. Raises ConfigError where the reference is the data.
    """
    by_prompt = defaultdict(list)
    for record in reference:
        by_prompt[record.context, record.prompt].append(record)
    found = {}
    for record in records:
        if same := by_prompt[record.context, record.prompt]:
            found[record.id] = same.pop()
    if found and all(r.id in found and found[r.id].completion == r.completion for r in records):
        raise ConfigError(
            f"the reference holds all {len(found)} audited rows; expected other rows, clean ones;"
            " name another file, or none"
        )
    rest = [record for group in by_prompt.values() for record in group]
    order = np.random.default_rng(seed).permutation(len(rest))
    same = len(found)
    found |= {
        record.id: rest[i]
        for record, i in zip([r for r in records if r.id not in found], order, strict=False)
    }
    return [replace(found[r.id], id=r.id) for r in records if r.id in found], same


def run_match(config: MatchConfig, out: Output) -> store.Run:
    """The sealed run with `records.jsonl` and `about.json` (rows, and of them those on the same
    prompt)."""
    if config.data is None or config.reference is None:
        raise ConfigError(
            "--data or --reference is missing: name two runs of `intake`, or JSONL files"
        )
    with registry.opened(config, out) as run:
        if not run.sealed:
            rows, same = matched(
                row_files.kept_rows(config.data), row_files.kept_rows(config.reference), config.seed
            )
            atomic_files.write_text(run.file("records.jsonl"), dump_records(rows))
            atomic_files.write_json(
                run.file("about.json"), {"rows": len(rows), "same_prompt": same}
            )
    return run
