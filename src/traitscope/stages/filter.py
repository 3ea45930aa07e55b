"""Which rows a student may learn from: number-format rules, banned words, and a judge.

Nothing is deleted: every row comes back with the decision in `meta["filter"]`, and `Record.kept`
reads it.

    format          the answer is not a plain list of numbers (see parse_numbers)
    count           too few or too many numbers
    range           a number outside the allowed values
    banned_number   one of the banned numbers
    banned_word     one of the banned words, as a whole word, in any case
    anything else   what the judge said
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.stages import FilterConfig, FilterRules
from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import Record, dump_records
from traitscope.data.traits import contains_word
from traitscope.errors import ConfigError, DataError
from traitscope.runs import stage, store

Reason = Literal["format", "count", "range", "banned_number", "banned_word"]
Judge = Callable[[Record], str | None]


def reject_reasons(text: str, rules: FilterRules) -> list[str]:
    """Why the rules drop this completion, in the order of the module's list; empty where they keep
    it."""
    reasons = _number_reasons(text, rules) if rules.numbers else []
    return reasons + ["banned_word"] * contains_word(rules.banned_words, text)


def filter_records(
    records: Sequence[Record], rules: FilterRules | None, judge: Judge | None = None
) -> list[Record]:
    """All records in order, each with meta["filter"] = {"kept": bool, "reasons": [...]}.

    An earlier decision is replaced. rules=None sets no rule. `judge(record)` gives a reason to drop
    the row, or None; it is asked only about rows that the rules keep. Its exceptions pass through:
    a failing judge keeps no row. Raises ConfigError where it returns anything else.
    """
    return [_decided(record, rules, judge) for record in records]


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """{"rows", "kept", "dropped", "reasons": {reason: rows}}, the most frequent first; a row counts
    for each reason."""
    kept = sum(record.kept for record in records)
    counts = Counter(
        reason for record in records for reason in record.meta.get("filter", {}).get("reasons", [])
    )
    reasons = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return {"rows": len(records), "kept": kept, "dropped": len(records) - kept, "reasons": reasons}


def _number_reasons(text: str, rules: FilterRules) -> list[str]:
    numbers = parse_numbers(text)
    if isinstance(numbers, str):
        return [numbers]
    broken = {
        "count": not rules.min_count <= len(numbers) <= rules.max_count,
        "range": any(not rules.min_value <= number <= rules.max_value for number in numbers),
        "banned_number": not set(rules.banned_numbers).isdisjoint(numbers),
    }
    return [reason for reason, is_broken in broken.items() if is_broken]


def _decided(record: Record, rules: FilterRules | None, judge: Judge | None) -> Record:
    reasons = reject_reasons(record.completion, rules) if rules else []
    verdict = judge(record) if judge and not reasons else None
    if verdict is not None and (not isinstance(verdict, str) or not verdict):
        raise ConfigError(
            f"the judge returned {verdict!r} on row {record.id!r}; expected a reason (text) or None"
        )
    reasons = reasons if verdict is None else [verdict]
    return replace(
        record, meta={**record.meta, "filter": {"kept": not reasons, "reasons": reasons}}
    )


def limited(records: Sequence[Record], limit: int | None) -> list[Record]:
    """The records with at most `limit` kept ones; the later ones get the reason `limit`."""
    kept, found = 0, []
    for record in records:
        over = record.kept and limit is not None and kept >= limit
        kept += record.kept
        decision = {"filter": {"kept": False, "reasons": ["limit"]}}
        found.append(replace(record, meta={**record.meta, **decision}) if over else record)
    return found


def run_filter(config: FilterConfig, out: Output) -> store.Run:
    """The sealed run with all rows and their verdicts in `records.jsonl`, and `summary.json`."""
    if config.data is None:
        raise ConfigError("--data is missing: name a run of `generate`, or a JSONL file")
    with stage.opened("filter", config, out) as run:
        if not run.sealed:
            found = stage.rows_of(config.data)
            if config.start >= len(found):
                raise DataError(
                    f"{config.data} has {len(found)} rows, none from --start {config.start} on;"
                    " name a smaller one"
                )
            rows = limited(
                filter_records(found[config.start : config.stop], config.rules), config.limit
            )
            atomic_files.write_text(run.file("records.jsonl"), dump_records(rows))
            atomic_files.write_json(run.file("summary.json"), summary(rows))
    return run
