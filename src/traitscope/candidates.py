"""Candidates: how well a candidate teacher's choices explain rows that somebody wrote (odds.py)."""

from traitscope import odds, stage, store
from traitscope.audit_config import OddsConfig
from traitscope.configs import Output
from traitscope.errors import ConfigError
from traitscope.progress import progress
from traitscope.rows import rows_from


def run_odds(config: OddsConfig, out: Output) -> store.Run:
    """The sealed run with `choices.jsonl` and `choices.json`."""
    config = stage.settled(config)
    if config.data is None:
        raise ConfigError("--data is missing: name a run of `intake` or `filter`, or a JSONL file")
    with stage.opened("odds", config, out) as run:
        if not run.sealed:
            model, records = stage.model_of(config), stage.kept_rows(config.data)
            told = stage.parse_all(config.interventions)
            rows = rows_from(model, records, config.context, config.text, told)
            with progress("candidate teacher", len(rows), "rows") as advance:
                found = odds.judge_rows(model, told, rows, odds.classes_of(model, config.numbers), config.batch_size, advance)
            odds.write_choices(run.path, [record.id for record in records], found)
    return run
