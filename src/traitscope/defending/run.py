"""The stage `defend`: rows that carry less of what their teacher carries."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.rows.defend import DefendConfig
from traitscope.data.records import Record, dump_records, kept_records
from traitscope.data.shapes import unchecked, writing
from traitscope.defending import page
from traitscope.defending.knowledge import Knowledge, knowledge_of
from traitscope.defending.methods import METHODS, Step, steps_of
from traitscope.defending.steps import CHANGED, StepReport, apply, joined, without_notes
from traitscope.defending.suspicion import Judge
from traitscope.runs import opening, row_intake, store
from traitscope.runs.progress import progress
from traitscope.stages import registry

RECORDS, CHANGES, SUMMARY, PAGE = "records.jsonl", "changes.jsonl", "summary.json", "report.html"
"""Files of a run: all rows, what happened to each that is not as it was, the counts, the page.

Where no clean rows joined, the kept rows of a user's file also stand as that file holds them."""


def run_defend(config: DefendConfig, out: Output) -> store.Run:
    """Return the sealed run with `records.jsonl`, `changes.jsonl`, `summary.json`, `report.html`.

    With `report`, the page is also written there. Raises ConfigError for a method that lacks what
    it needs, DataError where no row would be left.
    """
    steps = steps_of(config.by)
    known = knowledge_of(config.known, config.model)
    for step in steps:
        for need in step.needs:
            known.check(need, step.text)
    settings = opening.settled(replace(config, report=None))
    with registry.opened(settings, out) as run:
        if not run.sealed:
            _write(run, settings, steps, known)
    if config.report is not None:
        text = run.file(PAGE).read_text(encoding="utf-8")
        atomic_files.write_text(config.report, text)
    return run


def _write(run: store.Run, config: DefendConfig, steps: Sequence[Step], known: Knowledge) -> None:
    read = row_intake.kept_rows(run, config, keep_original=True)
    records = list(map(without_notes, read))
    defended, reports = defended_rows(config, records, steps, known)
    changes = changes_of(defended)
    summary = summary_of(records, defended, reports, known)
    others = unchecked.with_other_answers(defended)
    if others and not summary["added"]:
        summary["with_other_answers"] = others
    if summary["added"]:  # a clean file may have another shape
        bare = writing.without_original(defended)
        atomic_files.write_text(run.file(RECORDS), dump_records(bare))
    else:
        row_intake.write_rows(run, defended, config.data)
    for change in changes:
        atomic_files.append_jsonl(run.file(CHANGES), change)
    atomic_files.write_text(run.file(PAGE), page.defence_page(summary, changes))
    atomic_files.write_json(run.file(SUMMARY), summary)


def defended_rows(
    config: DefendConfig, records: Sequence[Record], steps: Sequence[Step], known: Knowledge
) -> tuple[list[Record], list[StepReport]]:
    """All rows after all methods, and what each method did.

    Rows that a method dropped come behind the others.
    """
    reports = []
    for place, step in enumerate(steps):
        with progress(step.text, len(records), "rows") as advance:
            done = apply(records, step, Judge(config, known, advance), place)
        records = done.records
        reports.append(done.report)
    return list(records), reports


def changes_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What happened to each row that is not as it was: id, what, by, before, after."""
    changes = []
    for record in records:
        note = record.meta.get(CHANGED, {})
        change = {"id": record.id, "what": "changed", "by": note.get("by", [])}
        change |= {"before": note.get("answer"), "after": record.completion}
        if not record.kept:
            change |= {"what": "dropped", "by": record.drop_reasons, "after": None}
            change["before"] = note.get("answer", record.completion)
        elif joined(record):
            change |= {"what": "added", "before": None}
        elif not note:
            continue
        changes.append(change)
    return changes


def summary_of(
    before: Sequence[Record],
    after: Sequence[Record],
    reports: Sequence[StepReport],
    known: Knowledge,
) -> dict[str, Any]:
    """Counts of rows, what was known, and what each method did."""
    kept = kept_records(after)
    added = sum(map(joined, kept))
    changed = 0
    for record in kept:
        changed += not joined(record) and CHANGED in record.meta
    methods = []
    for report in reports:
        name = report.method.partition(":")[0]
        methods.append({**report.as_dict(), "control": METHODS[name].control})
    return {
        "rows": len(before),
        "kept": len(kept),
        "dropped": len(before) - (len(kept) - added),
        "changed": changed,
        "added": added,
        "known": sorted(known.kinds) or ["nothing"],
        "methods": methods,
    }
