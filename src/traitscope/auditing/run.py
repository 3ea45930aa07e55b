"""Audit: may I train this model on these data?

    intake ─ the rows, their format ─┬─ pushes, and odds under every candidate's prompt
      ───────────────────────────────┐
                                     ├─ placebos: the model's own answers to the same prompts ─
                                       filter ─ pushes ───────┼─ odds where the pushes aim, then
                                       beside the best
                                     └─ planted teachers, steered and prompted, on the same
                                       prompts ─ filter ─ pushes ─┘
    vectors of the candidates ───────── weigh ─ the answer

Every step is a stage with its own run directory: a second audit of the same data returns at once,
one of other data with the same prompts reuses the placebos, and a killed one continues.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.auditing import report, sarif, search
from traitscope.auditing.artifacts import read_parts
from traitscope.auditing.decide import run_weigh
from traitscope.auditing.detectors.blind_naming import run_naming
from traitscope.auditing.plan import (
    INTAKE,
    Job,
    Tries,
    about_of,
    further,
    nodes,
    parts_of,
    round_after,
    seconds,
    styled,
)
from traitscope.auditing.result import AuditResult, result_from
from traitscope.config.audit import AuditConfig, NamingConfig, WeighConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.records import Record
from traitscope.errors import ConfigError
from traitscope.models.loading import find_model, outline
from traitscope.runs import opening, store
from traitscope.workflow import executors, schedule, standard_nodes
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Folders


def run_audit(config: AuditConfig, out: Output) -> dict:
    """The answer as the JSON file has it, with its place."""
    config = opening.settled(config)
    if config.data is None:
        raise ConfigError("no data are given: traitscope audit DATA.jsonl --model M")
    out = replace(out, study="audit") if out.study == "default" else out
    find_model(config.model)  # converted or fetched once, before the workers ask for it
    job = Job(config, outline(config.model).n_layers)
    found = nodes(job)
    read = schedule.run(
        [node for node in found if node.stage in ("intake", "match")], out, How(stop_at_once=True)
    )  # bad rows are named before anything is computed
    _say(about_of(read))
    found += styled(job, read)
    how = How(config.workers or executors.default_workers(config.device), stop_at_once=True)
    folders = schedule.run(found, out, how)
    folder = out.root / out.study
    tries: dict[str, Tries] = {}
    for _ in range(search.ROUNDS if job.traits else 0):
        tries = round_after(job, read_parts(parts_of(job, folders, folder, tries), folder), tries)
        found += further(job, folders, tries)
        folders = schedule.run(found, out, how)
    content = parts_of(job, folders, folder, tries)
    parts = folder / f"parts-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}.json"
    atomic_files.write_json(parts, content)
    asked = NamingConfig(
        **job.common,
        seed=config.seed,
        parts=parts,
        strength=config.strength / 2,
        context=config.context,
    )
    naming = run_naming(asked, out).path if config.name else None
    peer = run_naming(replace(asked, source="features"), out).path if config.peer else None
    run = run_weigh(
        WeighConfig(parts, naming, peer, config.model, config.alpha, config.power, config.seed), out
    )
    found = json.loads(run.file("result.json").read_text(encoding="utf-8"))
    print(
        "\n".join(
            [f"{found['status']}, {found['rows']} rows, alpha {config.alpha:g}", *found["reasons"]]
        )
    )
    for path, text in ((config.report, _page), (config.sarif, _sarif)):
        if path:
            atomic_files.write_text(path, text(config, found, folders, run))
            print(path)
    print(run.path)
    failing = {
        "never": (),
        "suspect": ("suspect",),
        "unclean": ("suspect", "insufficient", "not-applicable"),
    }[config.fail_on]
    return found | {
        "run": str(run.path),
        "gate": "failed" if found["status"] in failing else "passed",
    }


def _say(about: dict[str, Any]) -> None:
    """What was read, on stderr: counts, the format that was learnt, and the first row as the model
    reads it."""
    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in about["counts"].items() if n)
    print(
        f"read: {counts}; format {about['format']['kind']}; the first row:\n{about['first'][:600]}",
        file=sys.stderr,
    )


def audit(
    rows: str | Path | Sequence[Record | Mapping[str, Any]],
    root: str | Path = "runs",
    **settings: Any,
) -> AuditResult:
    """The answer for rows in memory, or in a file: a gate before training.

    Rows in memory are records, or dictionaries as in a file: prompt and completion, messages, or
    Alpaca.

    `settings` are those of the command, such as model="my/model", traits=("owl", "mine.yaml"),
    alpha=0.01. Runs lie below `root`, so that a second call on the same rows returns at once.
    Raises what the command would say.
    """
    root = Path(root)
    data = Path(rows) if isinstance(rows, str | Path) else _written(rows, root / "audit")
    return result_from(run_audit(AuditConfig(data=data, **settings), Output(root=root)))


def _written(rows: Sequence[Record | Mapping[str, Any]], folder: Path) -> Path:
    """The file with rows from memory, named by their content."""
    lines = []
    for row in rows:
        values = asdict(row) if isinstance(row, Record) else row
        lines.append(json.dumps(values, ensure_ascii=False) + "\n")
    text = "".join(lines)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / f"rows-{digest}.jsonl"
    atomic_files.write_text(path, text)
    return path


def _page(config: AuditConfig, found: dict, folders: Folders, run: store.Run) -> str:
    texts = {
        record.id: (record.prompt, record.completion)
        for record in row_files.rows_of(folders[INTAKE])
    }
    bags = json.loads(run.file("bags.json").read_text(encoding="utf-8"))
    return report.page(
        found,
        about_of(folders),
        standard_nodes.read_json_lines(run.path, "rows.jsonl"),
        bags,
        texts,
        seconds(folders),
    )


def _sarif(config: AuditConfig, found: dict, folders: Folders, run: store.Run) -> str:
    return json.dumps(sarif.log(found, config.data.as_posix()), indent=2) + "\n"
