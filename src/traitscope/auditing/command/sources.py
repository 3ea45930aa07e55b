"""Audits of a whole file and of each source in it, which share the error rate."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.auditing.result import AuditResult, Status, is_one_of
from traitscope.auditing.run import answered, result_of
from traitscope.auditing.settings import FEWEST_ROWS
from traitscope.config.audit import AuditConfig
from traitscope.config.common import Output
from traitscope.data.row_sources import sources_of
from traitscope.errors import AuditRefused
from traitscope.runs import row_intake

WHOLE = "the whole file"
SCHEMA = 1
"version of the JSON value"
WORST_FIRST: tuple[Status, ...] = ("suspect", "not-applicable", "insufficient", "nothing-found")
"order of the answers, of which the first one that an audit gave is that of the file"


@dataclass(frozen=True)
class AuditedSource:
    """What was audited, and its answer."""

    name: str
    "value of the field, or WHOLE"
    is_whole: bool
    "whether it is the whole file"
    rows: int
    "its rows that no filter dropped, copies among them"
    result: AuditResult | None
    "the answer; None for too few rows"

    @property
    def status(self) -> Status:
        """The answer in a word."""
        return "insufficient" if self.result is None else self.result.status

    @property
    def trait(self) -> str | None:
        """The trait that is named."""
        return None if self.result is None else self.result.trait

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the answer is what it is."""
        if self.result is None:
            return (f"{self.rows} rows; expected {FEWEST_ROWS} or more for any test",)
        return self.result.reasons

    @property
    def run(self) -> Path | None:
        """Run directory of the decision."""
        return None if self.result is None else self.result.run


@dataclass(frozen=True)
class AuditBySource:
    """The answers of a file and of its sources."""

    data: str
    "the file"
    by: str
    "field that names the sources"
    alpha: float
    "error rate of all audits together"
    alpha_each: float
    "error rate of each audit"
    sources: tuple[AuditedSource, ...]
    "the whole file first, then its sources by name"
    page: str = field(default="", repr=False, compare=False)
    "HTML page"

    @property
    def status(self) -> Status:
        """The worst answer of all."""
        given = {source.status for source in self.sources}
        return next(status for status in WORST_FIRST if status in given)

    def lines(self) -> list[str]:
        """What the terminal shows: a line for every audit."""
        suspects = [source.name for source in self.sources if source.status == "suspect"]
        answered = f"suspect: {', '.join(suspects)}" if suspects else self.status
        audits = sum(source.result is not None for source in self.sources)
        share = f"{audits} audits share alpha {self.alpha:g} by {self.by}, each"
        if audits == 1:
            share = (
                f"no source by {self.by} has {FEWEST_ROWS} rows; the audit of the file has alpha"
            )
        lines = [f"{answered}; {share} {self.alpha_each:.2g}"]
        for source in self.sources:
            answer = source.status
            if answer == "suspect":
                lines.append(f"{source.name}: suspect, trait {source.trait or 'unknown'}")
                lines += source.reasons
            else:
                lines.append(f"{source.name}: {answer}: {source.reasons[0]}")
            if source.run:
                lines.append(str(source.run))
        return lines

    def next_step(self, steps: Mapping[Status, str]) -> str:
        """What one would do next: for the worst source, or for the file if it is the worst."""
        worst = [source for source in self.sources if source.status == self.status]
        first = next((source for source in worst if not source.is_whole), worst[0])
        step = steps[self.status].format(run=first.run)
        if self.status == "suspect" and not first.is_whole:
            return f"leave out the rows of {first.name} and audit the others; {step}"
        return step

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        sources = []
        for source in self.sources:
            sources.append(
                {
                    "source": None if source.is_whole else source.name,
                    "rows_in_file": source.rows,
                    "status": source.status,
                    "trait": source.trait,
                    "run": None if source.run is None else str(source.run),
                    "result": None if source.result is None else source.result.as_dict(),
                }
            )
        return {
            "schema": SCHEMA,
            "status": self.status,
            "by": self.by,
            "alpha": self.alpha,
            "alpha_each": self.alpha_each,
            "sources": sources,
        }

    def sarif(self) -> str:
        """A SARIF log with a result for every audit."""
        logs, results = [], []
        for source in self.sources:
            if source.result is None:
                continue
            log = json.loads(source.result.sarif)
            (answered,) = log["runs"][0]["results"]
            message = f"{source.name}: {answered['message']['text']}"
            results.append(answered | {"message": {"text": message}})
            logs.append(log)
        log = logs[0]
        log["runs"][0]["results"] = results
        return json.dumps(log, indent=2) + "\n"

    def to_html(self, path: str | Path) -> Path:
        """Write the HTML page, and return its path. Raises StoreError where it cannot be
        written."""
        atomic_files.write_text(Path(path), self.page)
        return Path(path)

    def raise_if(self, *statuses: Status) -> None:
        """Raise AuditRefused if the answer is one of these, such as `suspect`.

        Raises ConfigError for a word that is no answer.
        """
        if is_one_of(self.status, statuses):
            raise AuditRefused(
                f"the audit by {self.by} answers {'; '.join(self.lines())}; look at the page before"
                " training on these data"
            )


def answered_by_source(config: AuditConfig, out: Output) -> AuditBySource:
    """Audit the whole file and each source with FEWEST_ROWS rows or more.

    Each audit has an equal part of alpha. So a clean file has any suspect audit with probability
    alpha at most (Bonferroni). Raises DataError for a field that names no sources.
    """
    counts = sources_of(row_intake.iter_kept(config), config.by)
    large = [name for name, rows in counts.items() if rows >= FEWEST_ROWS]
    each = replace(config, alpha=config.alpha / (1 + len(large)))
    total = sum(counts.values())
    _say(WHOLE, total)
    sources = [AuditedSource(WHOLE, True, total, result_of(answered(each, out)))]
    for name, rows in counts.items():
        result = None
        if name in large:
            _say(name, rows)
            result = result_of(answered(each, out, name))
        sources.append(AuditedSource(name, False, rows, result))
    return AuditBySource(str(config.data), config.by, config.alpha, each.alpha, tuple(sources))


def _say(name: str, rows: int) -> None:
    """Say on stderr what is audited now."""
    print(f"audit of {name}: {rows} rows", file=sys.stderr, flush=True)
