"""Candidates: how well a candidate teacher's choices explain rows that somebody wrote (odds.py)."""

from collections.abc import Sequence

import numpy as np

from traitscope import odds, stage, store
from traitscope.audit_config import OddsConfig
from traitscope.configs import Output
from traitscope.errors import ConfigError
from traitscope.progress import progress
from traitscope.records import Record
from traitscope.rows import rows_from


def drawn(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    """`n` of the records at random, in their order; all for 0."""
    order = np.random.default_rng(seed).permutation(len(records))
    return [records[i] for i in sorted(order[: n or None])]


def run_odds(config: OddsConfig, out: Output) -> store.Run:
    """The sealed run with `choices.jsonl` and `choices.json`."""
    config = stage.settled(config)
    if config.data is None:
        raise ConfigError("--data is missing: name a run of `intake` or `filter`, or a JSONL file")
    with stage.opened("odds", config, out) as run:
        if not run.sealed:
            model, records = stage.model_of(config), drawn(stage.kept_rows(config.data), config.rows, config.seed)
            told = stage.parse_all(config.interventions)
            rows = rows_from(model, records, config.context, config.text, told)
            with progress("candidate teacher", len(rows), "rows") as advance:
                found = odds.judge_rows(model, told, rows, odds.classes_of(model, config.numbers), config.batch_size, advance)
            odds.write_choices(run.path, [record.id for record in records], found)
    return run
