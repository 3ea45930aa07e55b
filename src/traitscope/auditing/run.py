"""The command `audit`, which says whether a model may be trained on given data.

    sample ── the rows and their format ─┬─ row gradients ─┬─ scores under every candidate's prompt
                                         │                 └─ scores under the nulls
                                         ├─ placebos: the model's own answers to the same prompts
                                         │     └─ filter ─ row gradients
                                         └─ spike-in teachers: steered and prompted, on the same
                                               prompts ─ filter ─ row gradients ─ scores
    vectors of the candidates ─ rounds of the search for steered teachers ─ answer

Every step is a stage with its own run directory. So a second audit of the same data returns at
once, and a killed audit continues. Other data with the same prompts reuse the placebos.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.auditing import plan, report, rounds, search
from traitscope.auditing.evidence import AuditRuns
from traitscope.auditing.job import SAMPLE, AuditNodes, Job
from traitscope.auditing.result import AuditResult, result_from
from traitscope.auditing.steps.answer import run_decision
from traitscope.auditing.steps.naming import run_blind_naming
from traitscope.config.audit import AuditConfig, BlindNamingConfig, DecisionConfig
from traitscope.config.common import Output, check_needed
from traitscope.data import row_files
from traitscope.data.records import Record
from traitscope.models.loading import find_model, outline
from traitscope.runs import opening, store
from traitscope.workflow import executors, schedule, standard_nodes
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Folders

FAILING = {
    "never": (),
    "suspect": ("suspect",),
    "unclean": ("suspect", "insufficient", "not-applicable"),
}
"answers with which the command fails, by --fail-on"
NEXT_STEPS = {
    "suspect": "read {run}/rows.jsonl, best evidence first; do not train on these rows as they are",
    "nothing-found": "read above what would have been found; train, or audit more: --rows --dose",
    "insufficient": "audit more rows: --rows --judged, or ask for a larger --dose",
    "not-applicable": "audit against the model that wrote the rows, or name a --reference by it",
}
"what one would do next, by the answer"
FIRST_ROW_SHOWN = 600
"characters of the first row that are printed"


@dataclass(frozen=True)
class AuditOutput:
    """The answer of an audit in all its forms."""

    result: dict[str, Any]
    "as audit.json has it"
    run: store.Run
    "the sealed run of the decision"
    page: str
    "HTML"
    sarif: str
    "SARIF 2.1.0"


def run_audit(config: AuditConfig, out: Output) -> dict[str, Any]:
    """The answer as the JSON file has it, with its run directory and whether the gate passed."""
    answer = answered(config, out)
    _print_answer(answer.result)
    if config.report:
        _write_and_say(config.report, answer.page)
    if config.sarif:
        _write_and_say(config.sarif, answer.sarif)
    status = answer.result["status"]
    print(answer.run.path)
    if not config.report:
        print("page:   the same command with --report audit.html", file=sys.stderr)
    print(f"next:   {NEXT_STEPS[status].format(run=answer.run.path)}", file=sys.stderr, flush=True)
    gate = "failed" if status in FAILING[config.fail_on] else "passed"
    return answer.result | {"run": str(answer.run.path), "gate": gate}


def answered(config: AuditConfig, out: Output) -> AuditOutput:
    """The answer of an audit; computes what is missing and prints what it reads on stderr."""
    check_needed(config)
    config = opening.settled(config)
    if out.study == "default":
        out = replace(out, study="audit")
    find_model(config.model)  # converted or fetched once, before the workers ask for it
    job = Job(config, outline(config.model).n_layers)
    done = _computed(job, out)
    parts = _artifacts_file(done)
    run = _answered(job, parts, out)
    result = json.loads(run.file("result.json").read_text(encoding="utf-8"))
    log = report.sarif_log(result, config.data.as_posix())
    return AuditOutput(result, run, _page(done, result, run), json.dumps(log, indent=2) + "\n")


@dataclass(frozen=True)
class Computed:
    """The stages of an audit that are done, all but naming and the answer."""

    nodes: AuditNodes
    "the nodes, and what each is for"
    index: rounds.Index
    "where their runs lie"

    @property
    def folders(self) -> Folders:
        """Run directories by node."""
        return self.index.folders


def _computed(job: Job, out: Output) -> Computed:
    """Run the stages: files are read first, so that bad rows are named before anything is
    computed; then everything; then the rounds of the search."""
    read = schedule.run(plan.reading_nodes(job).nodes, out, How(stop_at_once=True))
    _print_sample(plan.about_sample(read))
    is_free = plan.is_free_text(read)
    nodes = plan.audit_nodes(job, is_free)
    workers = job.config.workers or executors.default_workers(job.config.device)
    how = How(workers, stop_at_once=True)
    root = out.root / out.study
    folders = schedule.run(nodes.nodes, out, how)
    index = rounds.Index(job, folders, root, {}, len(plan.nulls_of(is_free)))
    for _ in range(search.ROUNDS if job.traits else 0):
        runs = AuditRuns(rounds.artifacts_of(index), root)
        tries = rounds.round_after(job, runs, index.tries)
        rounds.add_round(job, nodes, index.folders, tries)
        folders = schedule.run(nodes.nodes, out, how)
        index = replace(index, folders=folders, tries=tries)
    return Computed(nodes, index)


def _artifacts_file(done: Computed) -> Path:
    """The file with the artifacts, named by its content."""
    artifacts = rounds.artifacts_of(done.index)
    content = json.dumps(artifacts.as_dict())
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    path = done.index.root / f"parts-{digest}.json"
    artifacts.write(path)
    return path


def _answered(job: Job, parts: Path, out: Output) -> store.Run:
    """The run with the answer, after blind naming."""
    config = job.config
    naming = BlindNamingConfig(
        **job.common,
        seed=config.seed,
        parts=parts,
        strength=config.strength * search.HALF,
        context=config.context,
    )
    by_gradients = run_blind_naming(naming, out).path if config.name else None
    by_features = None
    if config.peer:
        by_features = run_blind_naming(replace(naming, source="features"), out).path
    decision = DecisionConfig(
        parts=parts,
        naming=by_gradients,
        features=by_features,
        model=config.model,
        alpha=config.alpha,
        power=config.power,
        dose=config.dose,
        seed=config.seed,
    )
    return run_decision(decision, out)


def _print_sample(about: Mapping[str, Any]) -> None:
    """Say on stderr what was read: counts, the format that was learnt, and the first row as the
    model reads it."""
    counts = [f"{n} {name.replace('_', ' ')}" for name, n in about["counts"].items() if n]
    print(
        f"read: {', '.join(counts)}; format {about['format']['kind']}; the first row:\n"
        f"{about['first'][:FIRST_ROW_SHOWN]}",
        file=sys.stderr,
    )


def _print_answer(result: Mapping[str, Any]) -> None:
    first, *others = result["reasons"]
    print(f"{result['status']}, {result['rows']} rows, alpha {result['alpha']:g}: {first}")
    for reason in others:
        print(reason)


def _write_and_say(path: Path, text: str) -> None:
    atomic_files.write_text(path, text)
    print(path)


def _page(done: Computed, result: Mapping[str, Any], run: store.Run) -> str:
    texts = {}
    for record in row_files.rows_of(done.folders[SAMPLE]):
        texts[record.id] = (record.prompt, record.completion)
    return report.page(
        result=result,
        about=plan.about_sample(done.folders),
        rows=standard_nodes.read_json_lines(run.path, "rows.jsonl"),
        bags=json.loads(run.file("bags.json").read_text(encoding="utf-8")),
        texts=texts,
        seconds=plan.seconds_by_detector(done.folders, done.nodes.groups),
    )


def audit(
    rows: str | Path | Sequence[Record | Mapping[str, Any]],
    root: str | Path = "runs",
    **settings: Any,
) -> AuditResult:
    """The answer for rows in memory, or in a file: a gate before training.

    Rows in memory are records, or dictionaries as in a file: prompt and completion, messages, or
    Alpaca. `settings` are those of the command, such as model="my/model", traits=("owl",
    "mine.yaml"), alpha=0.01. Runs lie below `root`, so that a second call on the same rows returns
    at once. Raises what the command would say.
    """
    root = Path(root)
    data = Path(rows) if isinstance(rows, str | Path) else _rows_file(rows, root / "audit")
    answer = answered(AuditConfig(data=data, **settings), Output(root=root))
    result = result_from(answer.result)
    return replace(result, run=answer.run.path, page=answer.page, sarif=answer.sarif)


def _rows_file(rows: Sequence[Record | Mapping[str, Any]], folder: Path) -> Path:
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
