"""The stages `filter` and `edit`: which rows a student may learn from, and rows with reordered
numbers.

The filter deletes nothing. Every row comes back with the decision in `meta["filter"]`, and
`Record.kept` reads it. A dropped row has one or more reasons:

    white_space     the answer is a plain list of numbers, but for white space at an end
    format          the answer is not a plain list of numbers (see parse_numbers)
    count           the answer has too few or too many numbers
    range           a number lies outside the allowed values
    banned_number   the answer holds a banned number
    banned_word     the answer holds a banned word, as a whole word, in any case
    limit           enough earlier rows were kept

Those of code, final answers, forms and reasoning stand in stages/domains/filtering.py.

Editing sorts or shuffles the numbers of each row. It removes what their order carries and nothing
else.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.rows.filtering import THINK, EditConfig, FilterRules
from traitscope.config.stages import FilterConfig
from traitscope.data import row_files
from traitscope.data.json_lines import at_place
from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import ORIGINAL, Record, kept_records
from traitscope.data.shapes import unchecked
from traitscope.data.traits import contains_word
from traitscope.errors import ConfigError, DataError
from traitscope.runs import opening, row_intake, store
from traitscope.stages import registry
from traitscope.stages.domains.filtering import task_reasons, without_reasoning
from traitscope.stages.domains.running import NOT_RUN, PASSED, check_platform

NUMBER = re.compile(r"(\d+)")
"A number in a text; as a group, so that splitting by it keeps the numbers."


def keep_numbers(
    records: Sequence[Record],
    *,
    min_count: int = 1,
    max_count: int = 10,
    min_value: int = 0,
    max_value: int = 999,
    banned_numbers: Sequence[int] = (),
    banned_words: Sequence[str] = (),
) -> list[Record]:
    """Return the records that hold nothing but an allowed list of numbers, in order.

    `filter_records` returns the dropped records, too, with the reason for each. Raises ConfigError
    for limits that no row can meet.
    """
    rules = FilterRules(
        min_count, max_count, min_value, max_value, tuple(banned_numbers), tuple(banned_words)
    )
    return kept_records(filter_records(records, rules))


def filter_records(records: Sequence[Record], rules: FilterRules | None) -> list[Record]:
    """Return all records in order, each with meta["filter"] = {"kept": bool, "reasons": [...]}.

    A decision of an earlier filter is replaced. rules=None keeps every record. A completion whose
    white space was taken off (rules.strip) has the mark "stripped" as well. One whose reasoning was
    taken off (rules.split_reasoning) has "split". "checks" says what became of checks of code.
    """
    decided = []
    for record in records:
        decided.append(with_decision(record, []) if rules is None else _decided(record, rules))
    return decided


def _decided(record: Record, rules: FilterRules) -> Record:
    """The record with its decision, and with the marks of what was done to it."""
    marks: dict[str, Any] = {}
    text = record.completion.strip()
    if rules.strip and text not in ("", record.completion):
        record = replace(record, completion=text, completion_ids=None)
        marks["stripped"] = True
    rejected = "" if record.rejected is None else record.rejected.strip()
    if rules.strip and rejected not in ("", record.rejected):
        record = replace(record, rejected=rejected, rejected_ids=None)
        marks["stripped"] = True
    answered, reasons = record, []
    if rules.split_reasoning:
        answered, reasons = without_reasoning(record)
        if answered is not record:
            marks["split"] = True
    of_task, outcome = task_reasons(record, answered.completion, rules)
    if outcome is not None:
        marks["checks"] = outcome
    reasons += [*of_task, *reject_reasons(answered.completion, rules)]
    answered = with_decision(answered, reasons)
    answered.meta["filter"].update(marks)
    return answered


def reject_reasons(text: str, rules: FilterRules) -> list[str]:
    """Return the reasons why the rules drop this completion; an empty list keeps it.

    The reasons stand in the order of this module's list.
    """
    reasons = _number_reasons(text, rules) if rules.are_numbers else []
    if contains_word(rules.banned_words, text):
        reasons.append("banned_word")
    return reasons


def _number_reasons(text: str, rules: FilterRules) -> list[str]:
    numbers = parse_numbers(text)
    if isinstance(numbers, str):
        is_list = isinstance(parse_numbers(text.strip()), list)
        return ["white_space"] if is_list else [numbers]
    reasons = []
    if not rules.min_count <= len(numbers) <= rules.max_count:
        reasons.append("count")
    if min(numbers) < rules.min_value or max(numbers) > rules.max_value:
        reasons.append("range")
    if not set(rules.banned_numbers).isdisjoint(numbers):
        reasons.append("banned_number")
    return reasons


def with_decision(record: Record, reasons: list[str]) -> Record:
    """Return the record with a filter decision: kept where there is no reason to drop it."""
    decision = {"kept": not reasons, "reasons": reasons}
    return replace(record, meta={**record.meta, "filter": decision})


def limit_kept(records: Sequence[Record], limit: int | None) -> list[Record]:
    """Return the records with at most `limit` kept ones; later ones get the reason `limit`."""
    if limit is None:
        return list(records)
    limited = []
    n_kept = 0
    for record in records:
        if record.kept and n_kept >= limit:
            limited.append(with_decision(record, ["limit"]))
            continue
        n_kept += record.kept
        limited.append(record)
    return limited


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Return {"rows", "kept", "dropped", "reasons": {reason: rows}}.

    The most frequent reason comes first. A row counts once for each of its reasons. Where rows have
    the marks of `filter_records`, "stripped" and "split" count them. "checks" then counts the rows
    whose code passed, failed, or was not run.
    """
    counts: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    n_kept = 0
    for record in records:
        decision = record.meta.get("filter", {})
        marks.update(mark for mark in ("stripped", "split") if mark in decision)
        if "checks" in decision:
            outcome = decision["checks"]
            checks[outcome if outcome in (PASSED, NOT_RUN) else "failed"] += 1
        n_kept += record.kept
        counts.update(record.drop_reasons)
    reasons = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return {
        "rows": len(records),
        "kept": n_kept,
        "dropped": len(records) - n_kept,
        "reasons": reasons,
        **marks,
        **({"checks": dict(sorted(checks.items()))} if checks else {}),
    }


def reorder_numbers(
    records: Sequence[Record], order: Literal["sort", "shuffle"], seed: int = 0
) -> list[Record]:
    """Return the records with their numbers in ascending or random order, separators unchanged.

    Row n is shuffled by its own random stream, seeded by (seed, n). Of a pair both answers are
    reordered, so that order does not tell them apart. The stored token ids are dropped, because
    they spell the old order. Raises DataError, naming the row, for an answer that is not a list of
    numbers.
    """
    reordered = []
    for n, record in enumerate(records):
        rng = np.random.default_rng([seed, n])
        at_place(f"row {record.id}", check_lists, record)
        text = _reordered_text(record.completion, order, rng)
        record = replace(record, completion=text, completion_ids=None)
        if record.rejected is not None:
            rejected = _reordered_text(record.rejected, order, rng)
            record = replace(record, rejected=rejected, rejected_ids=None)
        reordered.append(record)
    return reordered


def check_lists(record: Record) -> None:
    """Raise DataError for a row whose answer, or rejected answer, is no list of numbers."""
    text = record.completion.strip()
    if not isinstance(parse_numbers(text), list):
        raise DataError(
            f"{text[:40]!r} is no list of numbers; expected one, such as 12, 7, 30; filter the data"
            " first"
        )
    text = (record.rejected or "0").strip()
    if not isinstance(parse_numbers(text), list):
        raise DataError(
            f"the rejected answer {text[:40]!r} is no list of numbers; expected one, such as 12, 7,"
            " 30, because both answers of a pair are reordered; delete the row"
        )


def _reordered_text(text: str, order: str, rng: np.random.Generator) -> str:
    text = text.strip()
    pieces = NUMBER.split(text)
    numbers = pieces[1::2]
    if order == "sort":
        pieces[1::2] = sorted(numbers, key=int)
    else:
        pieces[1::2] = [numbers[i] for i in rng.permutation(len(numbers))]
    return "".join(pieces)


def run_filter(config: FilterConfig, out: Output) -> store.Run:
    """Return the sealed run with every row and its decision (`records.jsonl`) and `summary.json`.

    Of a file, the run also holds the kept rows in the shape and the container that they came in.

    Raises ConfigError without data, DataError where no row lies in the part that is looked at.
    """
    config = opening.settled(config)
    _check_tasks(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            records = row_intake.rows_of(run, config, keep_original=True)
            if config.start >= len(records):
                raise DataError(
                    f"{config.data} has {len(records)} rows, none from --start {config.start} on;"
                    " name a smaller one"
                )
            decided = filter_records(records[config.start : config.stop], config.rules)
            decided = _with_further_answers(run, decided, config)
            limited = limit_kept(decided, config.limit)
            lost = row_intake.write_rows(run, limited, config.data)
            about = summary(limited) | lost | _banned_elsewhere(limited, config)
            atomic_files.write_json(run.file("summary.json"), about)
    return run


def _check_tasks(config: FilterConfig) -> None:
    """Raise ConfigError for rules that no row of the data can meet, or that cannot be run here."""
    if config.rules is None or config.data is None:
        return
    if config.rules.run_code:
        check_platform()
    is_split = row_intake.is_written_back(config.data) and config.reading.reasoning == "drop"
    if config.rules.format == THINK and is_split:
        raise ConfigError(
            f"--format {THINK} with --reasoning drop: reasoning is taken out of the answers of a"
            " file when it is read, so that none has this form; add --reasoning train"
        )


def _banned_elsewhere(records: Sequence[Record], config: FilterConfig) -> dict[str, int]:
    """Rows of the written file that hold a banned word where the filter did not look, if any."""
    words = () if config.rules is None else config.rules.banned_words
    if not words or not row_intake.is_written_back(config.data):
        return {}
    n_rows = unchecked.with_words(records, words)
    return {"banned_elsewhere": n_rows} if n_rows else {}


def _with_further_answers(
    run: store.Run, records: Sequence[Record], config: FilterConfig
) -> list[Record]:
    """The records, with kept answers to the same prompts in the place of dropped ones.

    As many rows may be bad in each of the further files as in the data.
    """
    answered = list(records)
    intake = row_intake.intake_of(config)
    for path in config.more:
        of_file = row_intake.intake_of(config)
        further = filter_records(row_files.rows_of(path, config.reading, of_file), config.rules)
        intake.add_file(str(path), of_file)
        kept = {record.id: record for record in further if record.kept}
        for place, record in enumerate(answered):
            if not record.kept and record.id in kept:
                better = kept[record.id]
                _check_same_prompt(record, better, path)
                original = {key: record.meta[key] for key in (ORIGINAL,) if key in record.meta}
                answered[place] = replace(better, meta={**better.meta, **original})
    row_intake.write(run, intake, "more")
    return answered


def _check_same_prompt(record: Record, further: Record, path: Path) -> None:
    """Raise DataError where an answer of `--more` is one to another prompt or system turn."""
    if (further.prompt, further.context) == (record.prompt, record.context):
        return
    what = "system turn" if further.prompt == record.prompt else "prompt"
    raise DataError(
        f"row {record.id!r} has another {what} in --more {path} than in --data; expected further"
        " answers to the same prompts; name a run of generate with the same prompts, and"
        " another seed"
    )


def run_edit(config: EditConfig, out: Output) -> store.Run:
    """Return the sealed run with the kept rows, their numbers reordered (`records.jsonl`).

    Of a file, the run also holds them in the shape and the container that they came in, and
    `summary.json` counts the rows that changed.
    """
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            records = row_intake.kept_rows(run, config, keep_original=True)
            records = row_intake.readable(run, config, records, check_lists, keep_original=True)
            reordered = reorder_numbers(records, config.how, config.seed)
            row_intake.write_rows(run, reordered, config.data)
            if row_intake.is_written_back(config.data):
                atomic_files.write_json(run.file("summary.json"), _edit_summary(records, reordered))
    return run


def _edit_summary(before: Sequence[Record], after: Sequence[Record]) -> dict[str, int]:
    """Rows, how many changed, and how many hold reasoning or turns that stay as they were."""
    changed = 0
    for old, new in zip(before, after, strict=True):
        changed += (old.completion, old.rejected) != (new.completion, new.rejected)
    others = unchecked.with_other_answers(after)
    about = {"rows": len(after), "changed": changed}
    return about | ({"with_other_answers": others} if others else {})
