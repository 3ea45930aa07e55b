"""The command `audit`: prints the answer, writes files that were asked for, and sets the gate."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.auditing.command import source_page, sources
from traitscope.auditing.command.forecast import print_forecast
from traitscope.auditing.result import Status
from traitscope.auditing.run import answered, audit_folder
from traitscope.auditing.settings import FEWEST_ROWS
from traitscope.config.audit import AuditConfig
from traitscope.config.common import Output, check_needed
from traitscope.runs import opening
from traitscope.runs.names import following

FAILING = {
    "never": (),
    "suspect": ("suspect",),
    "unclean": ("suspect", "insufficient", "not-applicable"),
}
"answers with which the command fails, by --fail-on"
CANNOT_TELL = ("insufficient", "not-applicable")
"answers that say neither that rows carry a trait nor that they do not"
NEXT_STEPS: dict[Status, str] = {
    "suspect": "read {run}/rows.jsonl, best evidence first; do not train on these rows as they are",
    "nothing-found": "read what would have been detected; train, or audit more: --rows --dose",
    "insufficient": "audit more rows: --rows, or ask for a larger --dose",
    "not-applicable": "audit against the model that wrote the rows, or name a --reference by it",
}
"what one would do next, by the answer"


def run_audit(config: AuditConfig, out: Output) -> dict[str, Any]:
    """The answer as the JSON file has it, with its run directory and whether the gate passed."""
    check_needed(config)
    if config.plan:
        again = following.typed("audit", replace(config, plan=False), out)
        return print_forecast(opening.settled(config), audit_folder(out)) | {"next": again}
    if config.by is not None:
        return _of_sources(config, out)
    answer = answered(config, out)
    _print_answer(answer.result)
    _write(config.report, answer.page)
    _write(config.sarif, answer.sarif)
    status = answer.result["status"]
    print(answer.run.path)
    _say_what_is_next(config, _next_step(config, out, answer.result).format(run=answer.run.path))
    return answer.result | {"run": str(answer.run.path), "gate": _gate(config, status)}


def _next_step(config: AuditConfig, out: Output, result: Mapping[str, Any]) -> str:
    """What one would do next; of too few rows for any test, only more of them help."""
    if result["rows"] < FEWEST_ROWS:
        return f"audit {FEWEST_ROWS} rows or more; fewer bear no answer"
    return _next_steps(config, out)[result["status"]]


def _next_steps(config: AuditConfig, out: Output) -> Mapping[Status, str]:
    """What one would do next, by the answer; {run} stands in it.

    Without spike-ins no number of rows is sufficient: then it is the same audit with them.
    """
    if config.spike_ins:
        return NEXT_STEPS
    again = following.typed("audit", replace(config, spike_ins=True), out)
    return NEXT_STEPS | {"insufficient": again.replace("{", "{{").replace("}", "}}")}


def _of_sources(config: AuditConfig, out: Output) -> dict[str, Any]:
    """The same of the whole file and of each source in it."""
    audited = sources.answered_by_source(config, out)
    for line in audited.lines():
        print(line)
    _write(config.report, source_page.page(audited))
    _write(config.sarif, audited.sarif())
    _say_what_is_next(config, audited.next_step(_next_steps(config, out)))
    return audited.as_dict() | {"gate": _gate(config, audited.status)}


def _gate(config: AuditConfig, status: Status) -> str:
    """Whether the gate passed; `not judged` where it asks for suspects, and the audit cannot tell.
    Then stderr says so."""
    if status in FAILING[config.fail_on]:
        return "failed"
    if config.fail_on == "suspect" and status in CANNOT_TELL:
        print(
            f"gate:   not judged: {status} is neither a pass nor a refusal; --fail-on unclean"
            " refuses it",
            file=sys.stderr,
            flush=True,
        )
        return "not judged"
    return "passed"


def _print_answer(result: Mapping[str, Any]) -> None:
    first, *others = result["reasons"]
    answer = result["status"]
    if answer == "suspect":
        answer = f"suspect, trait {result['trait'] or 'unknown'}"
    print(f"{answer}, {result['rows']} rows, alpha {result['alpha']:.2g}: {first}")
    for reason in others:
        print(reason)


def _write(path: Path | None, text: str) -> None:
    """Write a file that was asked for, and print its path."""
    if path is not None:
        atomic_files.write_text(path, text)
        print(path)


def _say_what_is_next(config: AuditConfig, step: str) -> None:
    if not config.report:
        print("page:   the same command with --report audit.html", file=sys.stderr)
    print(f"next:   {step}", file=sys.stderr, flush=True)
