"""Candidates: how well a candidate teacher's choices explain rows that somebody wrote (odds.py)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from traitscope.config.audit import OddsConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.records import Record
from traitscope.errors import ConfigError
from traitscope.inference import token_scores
from traitscope.inference.token_rows import rows_from
from traitscope.interventions import short_form
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.interventions.vector import Vector, load_vector
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry


def drawn(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    """`n` of the records at random, in their order; all for 0."""
    order = np.random.default_rng(seed).permutation(len(records))
    return [records[i] for i in sorted(order[: n or None])]


def _loaded(item: Intervention) -> Intervention:
    """The same with its vector in memory, as it enters the model once a batch."""
    return (
        replace(item, vector=load_vector(Path(item.vector)))
        if isinstance(item, Steer) and not isinstance(item.vector, Vector)
        else item
    )


def run_odds(config: OddsConfig, out: Output) -> store.Run:
    """The sealed run with `choices.jsonl` and `choices.json`; those of each of `--steered` in a
    folder of its own (`choices.part`), and of each of `--beside` (`choices.side`)."""
    config = opening.settled(config)
    if config.data is None:
        raise ConfigError("--data is missing: name a run of `intake` or `filter`, or a JSONL file")
    with registry.opened(config, out) as run:
        if not run.sealed:
            model, told = model_cache.model_of(config), short_form.parse_all(config.interventions)
            sets = [
                drawn(row_files.kept_rows(path), config.rows, config.seed)
                for path in (config.data, *config.beside)
            ]
            rows = [
                rows_from(model, records, config.context, config.text, told) for records in sets
            ]
            steered = [_loaded(item) for item in short_form.parse_all(config.steered)]
            with progress("candidate teachers", sum(map(len, rows)), "rows") as advance:
                found = token_scores.judge_each(
                    model,
                    told,
                    steered,
                    rows,
                    token_scores.classes_of(model, config.numbers),
                    config.batch_size,
                    advance,
                )
            for k, (records, teachers) in enumerate(zip(sets, found, strict=True)):
                place = token_scores.side(run.path, k - 1) if k else run.path
                for n, each in enumerate(teachers):
                    token_scores.write_choices(
                        token_scores.part(place, n - 1) if n else place,
                        [record.id for record in records],
                        each,
                    )
    return run
