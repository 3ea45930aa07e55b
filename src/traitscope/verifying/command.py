"""The command `verify`: prints what was found, writes the page, and sets the gate."""

import json
import sys
from typing import Any

from traitscope.config.common import Output
from traitscope.config.students.verify import VerifyConfig
from traitscope.data.shapes.intake import notes_of
from traitscope.runs.row_intake import READING
from traitscope.verifying.run import FILE, verified
from traitscope.verifying.sentences import NEXT

FAILING = {"never": (), "trait": ("trait",), "unclear": ("trait", "no-verdict")}
"""Answers with which the command fails, by --fail-on."""


def run_verify(config: VerifyConfig, out: Output) -> dict[str, Any]:
    """Return the content of verify.json, with the run directory, the gate and the next step."""
    run = verified(config, out)
    content = json.loads(run.file(FILE).read_text(encoding="utf-8"))
    *findings, next_step = content["findings"]
    for sentence in findings:
        print(sentence)
    if run.file(READING).exists():  # bad rows of --relearn were left out
        content["reading"] = json.loads(run.file(READING).read_bytes())
        for line in notes_of(content["reading"]):
            print(f"relearning: {line}")
    if config.report is not None:
        print(config.report)
    else:
        print("page:   the same command with --report verify.html", file=sys.stderr)
    return content | {
        "stage": run.stage,
        "run": str(run.path),
        "gate": _gate(config, content["status"]),
        "next": next_step.removeprefix(NEXT),
    }


def _gate(config: VerifyConfig, status: str) -> str:
    """Whether the gate passed; `not judged` where it asks for traits, and there is no verdict.
    Then stderr says so."""
    if status in FAILING[config.fail_on]:
        print(f"gate:   failed: {status}, with --fail-on {config.fail_on}", file=sys.stderr)
        return "failed"
    if config.fail_on == "trait" and status == "no-verdict":
        print(
            "gate:   not judged: no-verdict is neither a pass nor a refusal; --fail-on unclear"
            " refuses it",
            file=sys.stderr,
            flush=True,
        )
        return "not judged"
    return "passed"
