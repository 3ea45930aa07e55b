"""An audit, which says whether a model may be trained on given data.

    sample ─┬─ predictions: students predict each row before they learn it
            ├─ a few rows under every candidate's prompt ─ all rows under the likeliest
            ├─ gradients of some rows ─ steered teachers where they point
            └─ if anything would be called: more nulls, placebos, students of placebos
               else: spike-in teachers, to know what would have been called
    answer

Every step is a stage with its own run directory (phases.py says which are needed). So a second
audit of the same data returns at once, and a killed audit continues. Other data with the same
prompts reuse placebos and spike-in teachers.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitscope.auditing import report
from traitscope.auditing.detectors import predictions
from traitscope.auditing.detectors.predictions import CHANGE
from traitscope.auditing.evidence import predicted_rows
from traitscope.auditing.planning import phases, plan
from traitscope.auditing.planning.job import BLIND_NAMING, CANARY, SAMPLE, Job, predictions_of
from traitscope.auditing.planning.learnt_rows import check_is_older
from traitscope.auditing.planning.phases import Audit
from traitscope.auditing.result import AuditResult, result_from
from traitscope.auditing.settings import NULLS, STYLED
from traitscope.auditing.steps.answer import run_decision
from traitscope.config.audit import AuditConfig, DecisionConfig
from traitscope.config.common import Output, check_needed
from traitscope.data import row_files
from traitscope.data.shapes.inside.said import lines_of
from traitscope.data.shapes.turns import shown
from traitscope.data.traits import load_trait
from traitscope.errors import DataError
from traitscope.inference.token_rows import row_check
from traitscope.interventions.intervention import SystemPrompt, context_of
from traitscope.models import chat
from traitscope.models.identity.finding import find_model
from traitscope.models.loading import outline
from traitscope.models.templates.facts import ASKED
from traitscope.runs import opening, store
from traitscope.runs.given_teacher import check_readable, given_teacher
from traitscope.workflow import executors, schedule, standard_nodes
from traitscope.workflow.executors import How

FOLDER = "audit"
"folder of an audit's runs below the root, where none is named"
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


def answered(config: AuditConfig, out: Output, source: str | None = None) -> AuditOutput:
    """The answer of an audit; computes what is missing and prints what it reads on stderr.

    source: Only rows of this source are audited, by the field `config.by`.
    """
    check_needed(config)
    config = opening.settled(config)
    out = audit_folder(out)
    find_model(config.model)  # converted or fetched once, before the workers ask for it
    if config.teacher is not None:
        teacher = given_teacher(config.teacher, config.model)
        check_readable(teacher, config.model, config.template)
        if config.data is not None:
            check_is_older(teacher, config.teacher, config.data)
    job = Job(config, outline(config.model, config.template).n_layers, source)
    done = _computed(job, out)
    run = run_decision(_decision(done), out)
    result = json.loads(run.file("result.json").read_text(encoding="utf-8"))
    log = report.sarif_log(result, config.data.as_posix())
    return AuditOutput(result, run, _page(done, result, run), json.dumps(log, indent=2) + "\n")


def audit_folder(out: Output) -> Output:
    """Where an audit's runs lie: in a folder of their own, unless the user names one."""
    return replace(out, study=FOLDER) if out.study == "default" else out


def result_of(answer: AuditOutput) -> AuditResult:
    """The same as one typed value."""
    result = result_from(answer.result)
    return replace(result, run=answer.run.path, page=answer.page, sarif=answer.sarif)


def _computed(job: Job, out: Output) -> Audit:
    """Run the stages: files are read first, so that bad rows are named before anything is
    computed; then phase by phase."""
    workers = job.config.workers or executors.default_workers(job.config.device)
    how = How(workers, stop_at_once=True)
    with executors.pool(how, out) as pool:
        nodes = plan.reading_nodes(job)
        read = schedule.run(nodes.nodes, out, How(stop_at_once=True))
        job = replace(job, room=room_needed(job, read[SAMPLE]))
        if job.room:
            nodes = plan.reading_nodes(job)
            read = schedule.run(nodes.nodes, out, How(stop_at_once=True))
        _print_sample(plan.about_sample(read), job.config.by)
        audit = Audit(job, out.root / out.study, plan.is_free_text(read), nodes, read)
        _run_phases(audit, out, how, pool)
    return audit


def room_needed(job: Job, sample: Path) -> int:
    """Tokens that rows have to leave free, where one of them has no room for a candidate's prompt.

    0 where all rows of the sample fit with every prompt.
    """
    config = job.config
    texts = [null.system_prompt for null in (*NULLS, *STYLED) if null.system_prompt]
    for trait in map(load_trait, config.traits):
        texts += [trait.teacher_prompt, *trait.paraphrases]
    model = outline(config.model, config.template, config.control_tokens)
    prompts = [(SystemPrompt(text),) for text in texts]
    check = row_check(model, config.context, True, *prompts)
    try:
        for record in row_files.rows_of(sample):
            check(record)
    except DataError:
        neutral = len(chat.render(model, ASKED, config.context))
        taught = [
            len(chat.render(model, ASKED, context_of(prompt, config.context))) for prompt in prompts
        ]
        return max(0, max(taught) - neutral)
    return 0


def _run_phases(audit: Audit, out: Output, how: How, pool: executors.Pool) -> None:
    """Compute phase by phase, and say what the first look found as soon as it is known."""
    read = audit.folders
    learners = predictions_of(SAMPLE)
    announced = False

    def sealed(name: str, folder: Path) -> None:
        nonlocal announced
        if name == learners:
            announced = True
            _print_first_look(replace(audit, folders=read | {name: folder}))

    for phase in phases.PHASES:
        phase(audit)
        audit.folders = schedule.run(audit.nodes.nodes, out, how, pool, sealed)
        if not announced:  # the learners' run was there before
            sealed(learners, audit.folders[learners])


def _print_first_look(audit: Audit) -> None:
    """Say on stderr what students' predictions say, before anything else is known."""
    share = audit.settings.error_share / (2 if audit.job.config.teacher else 1)
    change = predictions.detect(predicted_rows(audit.runs), share)
    log_e = change.statistic[CHANGE]
    says = "nothing is found so far"
    if log_e >= change.critical:
        says = (
            "this model alone did not write these rows; plain prompts and candidates are tried next"
        )
    print(
        f"first look: students predict the rows with log e-value {log_e:.1f} against the model"
        f" (threshold: {change.critical:.1f}): {says}",
        file=sys.stderr,
        flush=True,
    )


def _decision(done: Audit) -> DecisionConfig:
    """The stage that answers, from a file with the artifacts that is named by its content."""
    artifacts = done.artifacts
    content = json.dumps(artifacts.as_dict())
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    parts = done.root / f"parts-{digest}.json"
    artifacts.write(parts)
    config = done.job.config
    return DecisionConfig(
        parts=parts,
        canary=done.folders.get(CANARY),
        features=done.folders.get(BLIND_NAMING),
        model=config.model,
        alpha=config.alpha,
        power=config.power,
        dose=config.dose,
        seed=config.seed,
    )


def _print_sample(about: Mapping[str, Any], by: str | None) -> None:
    """Say on stderr what was read: counts, the format that was learnt, and the first row as the
    model reads it.

    by: Key that names the sources of rows, which is used.
    """
    counts = [f"{n} {name.replace('_', ' ')}" for name, n in about["counts"].items() if n]
    print(
        f"read: {', '.join(counts)}; format {about['format']['kind']}; the first row:\n"
        f"{about['first'][:FIRST_ROW_SHOWN]}",
        file=sys.stderr,
    )
    reading = about.get("reading", {})
    reading.get("not_used", {}).pop(by, None)
    for line in lines_of(reading) if reading else ():
        print(line, file=sys.stderr)


def _page(done: Audit, result: Mapping[str, Any], run: store.Run) -> str:
    texts = {}
    for record in row_files.rows_of(done.folders[SAMPLE]):
        texts[record.id] = (shown(record.prompt), record.completion)
    return report.page(
        result=result,
        about=plan.about_sample(done.folders),
        rows=standard_nodes.read_json_lines(run.path, "rows.jsonl"),
        texts=texts,
        seconds=plan.seconds_by_detector(done.folders, done.nodes.groups),
    )
