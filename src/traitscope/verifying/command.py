"""The command `verify`: prints what was found, writes the page, and sets the gate."""

import json
import statistics
import sys
from dataclasses import replace
from typing import Any

from traitscope.config.common import Output
from traitscope.config.students.verify import VerifyConfig
from traitscope.data.shapes.inside.said import notes_of
from traitscope.models.loading import outline
from traitscope.plurals import counted
from traitscope.runs import manifests, store
from traitscope.runs.names import following
from traitscope.runs.row_intake import READING
from traitscope.stages import registry
from traitscope.verifying.ask import question_count
from traitscope.verifying.contrasts import RELEARNING
from traitscope.verifying.run import FILE, settings_of_models, settled, verified
from traitscope.verifying.sentences import NEXT
from traitscope.verifying.students import participants

WORDS = {"asked": "asking", "relearning": "asking while they relearn"}
"""What runs of `ask` do, by the kind of them."""
FAILING = {"never": (), "trait": ("trait",), "unclear": ("trait", "no-verdict")}
"""Answers with which the command fails, by --fail-on."""


def run_verify(config: VerifyConfig, out: Output) -> dict[str, Any]:
    """Return the content of verify.json, with the run directory, the gate and the next step.

    With `plan`, nothing is asked, and what would be is returned.
    """
    if config.plan:
        again = following.typed("verify", replace(config, plan=False), out)
        return print_plan(settled(config), out) | {"next": again}
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


def print_plan(config: VerifyConfig, out: Output) -> dict[str, Any]:
    """Print what a verification asks of which models, and return the same as a summary.

    Raises what a verification raises before anything is computed. Minutes are those of runs that
    are there, and null without any.
    """
    models = participants(config)
    asked = settings_of_models(config, models)
    there = {"asked": [], "relearning": []}
    missing = dict.fromkeys(there, 0)
    for name, ask in asked.items():
        kind = "relearning" if name.endswith(RELEARNING) else "asked"
        path = registry.address(ask, out)
        if manifests.is_sealed(path):
            there[kind].append(store.load_run(path).manifest()["seconds"])
        else:
            missing[kind] += 1
    n_questions = question_count(outline(config.model, config.template), config.traits)
    for model in models:
        print(f"{model.name}: {model.text}")
    turns = counted(len(config.turns), "system turn")
    print(f"{counted(len(models), 'model')} under {turns}, {counted(n_questions, 'question')} each")
    if config.samples:
        print(f"{counted(config.samples, 'sampled answer')} to each question")
    minutes = 0.0
    for kind, seconds in there.items():
        n = len(seconds) + missing[kind]
        if not n:
            continue
        time = ""
        if missing[kind] and seconds:
            minutes += missing[kind] * statistics.mean(seconds) / 60
            time = f", the rest takes about {minutes:.1f} minutes by those"
        print(f"{WORDS[kind]}: {len(seconds)} of {counted(n, 'run')} are there{time}")
    is_known = all(there[kind] or not missing[kind] for kind in there)
    return {
        "status": "ok",
        "models": {model.name: model.text for model in models},
        "system_turns": len(config.turns),
        "questions": n_questions,
        "missing": missing,
        "there": {kind: len(seconds) for kind, seconds in there.items()},
        "minutes": round(minutes, 1) if is_known else None,
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
