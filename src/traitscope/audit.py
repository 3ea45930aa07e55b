"""Audit: may I train this model on these data?

    intake ─ the rows, their format ─┬─ pushes, and odds under every candidate's prompt ───────────────────┐
                                     ├─ placebos: the model's own answers to the same prompts ─ filter ─ pushes ─┼─ odds where the pushes aim
                                     └─ planted teachers, steered and prompted, on the same prompts ─ filter ─ pushes, odds ┘
    vectors of the candidates ───────── weigh ─ the answer

Every step is a stage with its own run directory: a second audit of the same data returns at once, one of other data with the
same prompts reuses the placebos, and a killed one continues.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from traitscope import aiming, audit_page, chain, execute, sarif, schedule, stage, store
from traitscope.audit_config import AuditConfig, NamingConfig, WeighConfig
from traitscope.audit_graph import (
    DATA,
    INTAKE,
    NULLS,
    PROMPTED,
    REFERENCE,
    STEERED,
    TEACHERS,
    Job,
    Tries,
    about_of,
    canary,
    further,
    judged,
    nodes,
    placebo,
    reworded,
    sets,
    tries_of,
    under_vectors,
)
from traitscope.audit_result import AuditResult, result_from
from traitscope.configs import Output
from traitscope.errors import ConfigError
from traitscope.execute import How
from traitscope.graph import Folders
from traitscope.model import find_model, outline
from traitscope.naming import run_naming
from traitscope.parts import read_parts
from traitscope.traits import load_trait
from traitscope.weigh import run_weigh


def run_audit(config: AuditConfig, out: Output) -> dict:
    """The answer as the JSON file has it, with its place."""
    config = stage.settled(config)
    if config.data is None:
        raise ConfigError("no data are given: traitscope audit DATA.jsonl --model M")
    out = replace(out, study="audit") if out.study == "default" else out
    find_model(config.model)  # converted or fetched once, before the workers ask for it
    job = Job(config, outline(config.model).n_layers)
    found = nodes(job)
    read = schedule.run([node for node in found if node.verb in ("intake", "match")], out, How(stop_at_once=True))  # bad rows are named before anything is computed
    _say(about_of(read))
    how = How(config.workers or execute.default_workers(config.device), stop_at_once=True)
    folders = schedule.run(found, out, how)
    folder = out.root / out.study
    tries = tries_of(job, read_parts(_parts(job, folders, folder, {}), folder)) if job.traits else {}
    folders = schedule.run(found + further(job, folders, tries), out, how)
    content = _parts(job, folders, folder, tries)
    parts = folder / f"parts-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}.json"
    store.write_json(parts, content)
    asked = NamingConfig(**job.common, seed=config.seed, parts=parts, strength=config.strength / 2, context=config.context)
    naming = run_naming(asked, out).path if config.name else None
    peer = run_naming(replace(asked, source="features"), out).path if config.peer else None
    run = run_weigh(WeighConfig(parts, naming, peer, config.model, config.alpha, config.power, config.seed), out)
    found = json.loads(run.file("result.json").read_text(encoding="utf-8"))
    print("\n".join([f"{found['status']}, {found['rows']} rows, alpha {config.alpha:g}", *found["reasons"]]))
    for path, text in ((config.report, _page), (config.sarif, _sarif)):
        if path:
            store.write_text(path, text(config, found, folders, run))
            print(path)
    print(run.path)
    failing = {"never": (), "suspect": ("suspect",), "unclean": ("suspect", "insufficient", "not-applicable")}[config.fail_on]
    return found | {"run": str(run.path), "gate": "failed" if found["status"] in failing else "passed"}


def _say(about: dict[str, Any]) -> None:
    """What was read, on stderr: counts, the format that was learnt, and the first row as the model reads it."""
    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in about["counts"].items() if n)
    print(f"read: {counts}; format {about['format']['kind']}; the first row:\n{about['first'][:600]}", file=sys.stderr)


def audit(rows: Path | Sequence[Mapping[str, Any]], root: Path = Path("runs"), **settings: Any) -> AuditResult:
    """The answer for rows in memory (prompt and completion, messages, or Alpaca) or in a file: a gate before training.

    `settings` are those of the command, such as model="my/model", traits=("owl", "mine.yaml"), alpha=0.01.  Runs lie below `root`,
    so that a second call on the same rows returns at once.  Raises what the command would say.
    """
    data = rows
    if not isinstance(rows, str | Path):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        data = root / "audit" / f"rows-{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
        store.write_text(data, text)
    return result_from(run_audit(AuditConfig(data=Path(data), **settings), Output(root=root)))


def _page(config: AuditConfig, found: dict, folders: Folders, run: store.Run) -> str:
    texts = {record.id: (record.prompt, record.completion) for record in stage.rows_of(folders[INTAKE])}
    bags = json.loads(run.file("bags.json").read_text(encoding="utf-8"))
    return audit_page.page(found, about_of(folders), chain.lines(run.path, "rows.jsonl"), bags, texts, seconds(folders))


def _sarif(config: AuditConfig, found: dict, folders: Folders, run: store.Run) -> str:
    return json.dumps(sarif.log(found, config.data.as_posix()), indent=2) + "\n"


def seconds(folders: Folders) -> dict[str, float]:
    """What each detector has cost, with the placebos and planted teachers that it needs; shared steps count for each."""
    spent = {name: store.load_run(path).manifest()["seconds"] for name, path in folders.items()}
    made = sum(s for name, s in spent.items() if name.startswith("placebo") and "pushes" not in name and "under" not in name)
    pushed = spent[DATA] + sum(s for name, s in spent.items() if name.startswith("placebo") and name.endswith("pushes"))
    asked = sum(s for name, s in spent.items() if " under " in name)
    trained = sum(s for name, s in spent.items() if name.startswith("vector of"))
    found = {"wording": made, "gradients": made + pushed + spent[chain.VECTORS], "odds": spent[DATA] + asked, "baselines": made}
    return found | ({"fitted": made + trained} if trained else {})


def _parts(job: Job, folders: Folders, folder: Path, tries: dict[str, Tries]) -> dict[str, Any]:
    """The audit's file, without what is not there yet."""
    at = {name: path.relative_to(folder).as_posix() for name, path in folders.items()}
    trait = job.config.traits[0]
    name, where = load_trait(trait).name, {PROMPTED: aiming.PROMPT}
    where |= {how: f"{aiming.PROMPT} in other words" + how.removeprefix("reworded").replace(" 0", "") for t in job.traits for how in reworded(t)}
    teachers = {
        STEERED: f"a teacher steered by {name} at block {job.planted}, {job.config.strength:g} mean residual norms",
        PROMPTED: f"a teacher prompted with the candidate's own prompt ({name})",
    }  # fmt: skip

    def nulls(rows: str) -> list[str]:
        return [at[judged(rows, *null)] for null in NULLS if job.traits]

    def told(rows: str) -> dict[str, dict[str, str]]:
        return {load_trait(t).name: {where[how]: at[judged(rows, t, how)] for how in where if judged(rows, t, how) in at} for t in job.traits}

    def aimed(rows: str, of: str) -> dict[str, Any]:
        node = under_vectors(rows, of)
        return {"run": at[node], "cells": [[c.trait, c.layer, c.strength] for c in tries[of].cells]} if node in at else {}

    planted = {
        how: {"teacher": teachers[how], "trait": name, "rows": at[how], "pushes": at[f"{how} pushes"]}
        | {"odds": [{"own": at[judged(how, trait, how)], "clean": at[judged(placebo(0), trait, how)]}] if how == PROMPTED else []}
        | {"aimed": {"own": aimed(how, how), "clean": aimed(placebo(0), how)}, "nulls": {"own": nulls(how), "clean": nulls(placebo(0))}}
        for how in TEACHERS if how in at
    }  # fmt: skip
    beside = {"told": told(placebo(0)), "own": aimed(INTAKE, REFERENCE), "beside": aimed(placebo(0), REFERENCE)}
    return {
        "schema": 2, "intake": at[INTAKE], "data": at[DATA], "vectors": at[chain.VECTORS], "traits": list(job.config.traits),
        "placebos": [{"rows": at[name], "pushes": at[f"{name} pushes"]} for name in sets(job)[1:]],
        "canary": {
            load_trait(t).name: [[at[f"{t} of {canary(rows, seed)}"] for rows in (INTAKE, placebo(0))] for seed in range(job.config.canary)] for t in job.traits
        } if job.config.canary else {},
        "fitted": [at[f"vector of {name}"] for name in sets(job)] if job.config.fit else [],
        "odds": told(INTAKE), "aimed": aimed(INTAKE, INTAKE), "reference_odds": beside if REFERENCE in tries else {},
        "nulls": nulls(INTAKE), "planted": planted,
    }  # fmt: skip
