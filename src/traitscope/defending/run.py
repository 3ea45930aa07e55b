"""The stage `defend`: rows that carry less of what their teacher carries."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.rows.defend import DefendConfig
from traitscope.data.records import Record, kept_records
from traitscope.data.row_files import hold_the_same, rows_file
from traitscope.data.shapes import unchecked, writing
from traitscope.data.shapes.pairs import ONE_SIDED
from traitscope.defending import page, paraphrasing, suspicion
from traitscope.defending.changes import CHANGED, StepReport, joined, without_notes
from traitscope.defending.knowledge import CLEAN, Knowledge, knowledge_of
from traitscope.defending.methods import METHODS, Step, steps_of
from traitscope.defending.steps import apply
from traitscope.defending.suspicion import Judge
from traitscope.errors import ConfigError
from traitscope.models.identity.finding import find_model
from traitscope.models.model import Model
from traitscope.runs import opening, row_intake, store
from traitscope.runs.model_cache import model_digests
from traitscope.runs.progress import progress
from traitscope.stages import registry

RECORDS, CHANGES, SUMMARY, PAGE = "records.jsonl", "changes.jsonl", "summary.json", "report.html"
"""Files of a run: all rows, what happened to each that is not as it was, the counts, the page.

Where no clean rows joined, the kept rows of a user's file also stand as that file holds them."""


@dataclass(frozen=True)
class Defended:
    """Rows after defences, with what became of each."""

    rows: tuple[Record, ...]
    """All rows. Those that were dropped come last, with their reasons."""
    changes: tuple[dict[str, Any], ...]
    """What happened to each row that is not as it was: id, what, by, before, after."""
    counts: Mapping[str, Any]
    """Counts of rows, what the defender was allowed to know, and what each method did."""

    @property
    def kept(self) -> list[Record]:
        """The rows that are left, for `train`."""
        return kept_records(self.rows)

    def to_html(self) -> str:
        """The page: what each method did, and every changed row beside its original."""
        return page.defence_page(self.counts, self.changes)


def run_defend(config: DefendConfig, out: Output) -> store.Run:
    """Return the sealed run with `records.jsonl`, `changes.jsonl`, `summary.json`, `report.html`.

    With `report`, the page is also written there. Raises ConfigError for a method that lacks what
    it needs, DataError where no row would be left.
    """
    steps, known = checked(config)
    if config.data is not None and known.clean is not None:
        _check_others(config.data, known.clean)
    settings = opening.settled(replace(config, report=None))
    with registry.opened(settings, out) as run:
        if not run.sealed:
            _write(run, settings, steps, known)
    if config.report is not None:
        text = run.file(PAGE).read_text(encoding="utf-8")
        atomic_files.write_text(config.report, text)
    return run


def _check_others(data: Path, clean: Path) -> None:
    """Raise ConfigError where the clean rows are the rows that are defended."""
    if hold_the_same(data, clean):
        raise ConfigError(
            f"--data {data} and --known clean:{clean} hold the same rows; expected clean rows from"
            " elsewhere, which carry nothing; name others"
        )


def checked(config: DefendConfig, model: Model | None = None) -> tuple[list[Step], Knowledge]:
    """The methods of a config and what they may use.

    model: The base, where it is loaded already.

    Raises ConfigError for a method that lacks what it needs. Raises ModelError for a paraphrasing
    model that is not there, VectorError for a vector of another model.
    """
    steps = steps_of(config.by)
    known = knowledge_of(config.known, config.model)
    for step in steps:
        for need in step.needs:
            known.check(need, step.text)
        paraphrasing.check(step, config)
        if step.model is not None:
            find_model(step.model)
    if model is None:
        known.check_vector(config.model, lambda: model_digests(config.model, config.same_as))
    else:
        known.check_vector(model.name, lambda: (model.digest, *model.known_as))
    return steps, known


def defended(
    config: DefendConfig,
    records: Sequence[Record],
    steps: Sequence[Step],
    known: Knowledge,
    model: Model | None = None,
) -> Defended:
    """Rows after all methods, with what each did.

    model: The base, where it is loaded already.
    """
    before = list(map(without_notes, records))
    rows, reports = defended_rows(config, before, steps, known, model)
    summary = summary_of(before, rows, reports, known)
    return Defended(tuple(rows), tuple(changes_of(rows)), summary)


def _write(run: store.Run, config: DefendConfig, steps: Sequence[Step], known: Knowledge) -> None:
    read = _readable(run, config, steps, known)
    known = _with_clean_rows(run, config, steps, known)
    done = defended(config, read, steps, known)
    summary = dict(done.counts)
    others = unchecked.with_other_answers(done.rows)
    if others and not summary["added"]:
        summary["with_other_answers"] = others
    without_room = ""
    if not summary["added"] and row_intake.is_written_back(config.data):
        file = rows_file(config.data)
        is_mapped = bool(config.reading.map)
        without_room = writing.without_room_for_masks(done.rows, file, is_mapped)
    if without_room:
        summary["not_written_back"] = without_room
    if summary["added"] or without_room:  # a clean file may have another shape
        row_intake.write_records(run, done.rows)
    else:
        summary |= row_intake.write_rows(run, done.rows, config.data)
    for change in done.changes:
        atomic_files.append_jsonl(run.file(CHANGES), change)
    atomic_files.write_text(run.file(PAGE), page.defence_page(summary, done.changes))
    atomic_files.write_json(run.file(SUMMARY), summary)


def _readable(
    run: store.Run, config: DefendConfig, steps: Sequence[Step], known: Knowledge
) -> list[Record]:
    """The rows that the models of all steps can read; all rows where no model reads them."""
    records = row_intake.kept_rows(run, config, keep_original=True)
    check = _check_of(config, steps, known)
    return row_intake.readable(run, config, records, check, keep_original=True)


def _with_clean_rows(
    run: store.Run, config: DefendConfig, steps: Sequence[Step], known: Knowledge
) -> Knowledge:
    """What is known, with clean rows where a method mixes them in, which steps behind it can read.

    They are read before any method acts. Raises DataError for bad rows, as those of the data do.
    """
    mixing = [place for place, step in enumerate(steps) if CLEAN in step.needs]
    if not mixing:
        return known
    records = row_intake.kept_rows(run, config, field=CLEAN)
    check = _check_of(config, steps[mixing[0] + 1 :], known)
    clean = row_intake.readable(run, config, records, check, field=CLEAN)
    return replace(known, clean_rows=tuple(clean))


def _check_of(
    config: DefendConfig, steps: Sequence[Step], known: Knowledge
) -> Callable[[Record], None]:
    """A function that raises DataError for a row that the model of some step cannot read."""
    judge = Judge(config, known)
    checks: list[Callable[[Record], None]] = []
    for step in steps:
        checks += [*suspicion.row_checks(step, judge), *paraphrasing.row_checks(step, judge)]

    def check(record: Record) -> None:
        for check_of_step in checks:
            check_of_step(record)

    return check


def defended_rows(
    config: DefendConfig,
    records: Sequence[Record],
    steps: Sequence[Step],
    known: Knowledge,
    model: Model | None = None,
) -> tuple[list[Record], list[StepReport]]:
    """All rows after all methods, and what each method did.

    Rows that a method dropped come behind the others.
    """
    reports = []
    for place, step in enumerate(steps):
        n_rows = len(kept_records(records))
        with progress(step.text, n_rows, "rows") as advance:
            read = _up_to(n_rows, advance)
            done = apply(records, step, Judge(config, known, read, model), place)
            read(n_rows)  # those that it left alone, and all where no model reads them
        records = done.records
        reports.append(done.report)
    return list(records), reports


def _up_to(n_rows: int, advance: Callable[[int], None]) -> Callable[[int], None]:
    """A function that reports rows once, where a method reads them several times."""
    left = n_rows

    def done(n: int) -> None:
        nonlocal left
        n = min(n, left)
        left -= n
        if n:
            advance(n)

    return done


def changes_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What happened to each row that is not as it was: id, what, by, before, after."""
    changes = []
    for record in records:
        note = record.meta.get(CHANGED, {})
        what = "changed" if "answer" in note else "masked"
        change = {"id": record.id, "what": what, "by": note.get("by", [])}
        change["before"] = note.get("answer", record.completion)
        change["after"] = note.get("masked", record.completion)
        if "rejected" in note:
            change |= {"rejected_before": note["rejected"], "rejected_after": record.rejected}
        if not record.kept:
            change |= {"what": "dropped", "by": record.drop_reasons, "after": None}
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
    counts = Counter[str]()
    for record in kept:
        note = {} if joined(record) else record.meta.get(CHANGED, {})
        counts["changed"] += "answer" in note
        counts["masked"] += "masked" in note
        counts[ONE_SIDED] += ONE_SIDED in note
    one_sided = {ONE_SIDED: counts[ONE_SIDED]} if counts[ONE_SIDED] else {}
    methods = []
    for report in reports:
        name = report.method.partition(":")[0]
        methods.append({**report.as_dict(), "control": METHODS[name].control})
    costs = Counter[str]()
    for report in reports:
        costs.update(report.endpoint or {})
    return (
        ({"endpoint": dict(costs)} if costs else {})
        | one_sided
        | {
            "rows": len(before),
            "kept": len(kept),
            "dropped": len(before) - (len(kept) - added),
            "changed": counts["changed"],
            "masked": counts["masked"],
            "added": added,
            "known": known.words,
            "methods": methods,
        }
    )
