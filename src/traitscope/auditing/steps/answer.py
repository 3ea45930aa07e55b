"""The answer as a stage of an audit: reads its runs, runs the detectors, decides, writes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from traitscope import atomic_files
from traitscope.auditing.artifacts import read_artifacts
from traitscope.auditing.decide import Decision, Evidence, decide
from traitscope.auditing.detectors import fit_test
from traitscope.auditing.detectors.findings import (
    NO_BOUND,
    EValueFinding,
    FeatureFinding,
    Finding,
    TextRow,
)
from traitscope.auditing.evidence import evidence_of
from traitscope.auditing.result import AuditResult, StudentAnswer, described
from traitscope.auditing.runs import AuditRuns
from traitscope.auditing.settings import FEW_ROWS, Settings
from traitscope.auditing.steps import row_scores
from traitscope.config.audit import DecisionConfig
from traitscope.config.common import Output
from traitscope.data.shapes.inside.said import notes_of
from traitscope.plurals import counted
from traitscope.runs import store
from traitscope.stages import registry

FEATURES_SHOWN = 20
"answers of the published method that are listed"
UNLIKE_LENGTHS, SHARE_OF_UNLIKE = 4, 0.25
"how many times as long a text is that is unlike, and the share of such pairs that is said"
NAMED_SHOWN = 3
"traits named outside of answers that the reasons list"
COUNTED = {
    "duplicates": (
        "row is a copy of another and counts once",
        "rows are copies of others and count once",
    ),
    "too_long": (
        "sampled row is longer than the model's context, or leaves no room in it for a candidate's"
        " prompt, and was left out",
        "sampled rows are longer than the model's context, or leave no room in it for a candidate's"
        " prompt, and were left out",
    ),
    "unreadable": (
        "sampled row holds characters that the model's tokenizer loses and was left out",
        "sampled rows hold characters that the model's tokenizer loses and were left out",
    ),
    "off_format": (
        "sampled row is no list of numbers, as the others are, and was left out",
        "sampled rows are no list of numbers, as the others are, and were left out",
    ),
    "foreign_ids": (
        "sampled row came with another model's token ids; all rows were read as text",
        "sampled rows came with another model's token ids; all rows were read as text",
    ),
}
"""what the counts of the sample mean, for the reasons: of one row, and of more. Samples of earlier
versions counted rows that are too long or unreadable; now these are bad rows"""


def run_decision(config: DecisionConfig, out: Output) -> store.Run:
    """The sealed run with `result.json` and `rows.jsonl`."""
    artifacts = read_artifacts(config.parts)
    folder = config.parts.parent
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, AuditRuns(artifacts, folder))
    return run


def _write(run: store.Run, config: DecisionConfig, runs: AuditRuns) -> None:
    settings = Settings(config.alpha, config.power, config.dose)
    evidence = evidence_of(runs, settings, config.seed)
    decision = decide(evidence, settings)
    result = _result(config, runs, evidence, decision)
    atomic_files.write_json(run.file("result.json"), result.as_dict())
    for row in row_scores.scored_rows(runs, decision.e_values):
        atomic_files.append_jsonl(run.file("rows.jsonl"), row)


def _result(
    config: DecisionConfig, runs: AuditRuns, evidence: Evidence, decision: Decision
) -> AuditResult:
    optional: list[Finding | None] = [
        evidence.wording,
        decision.change,
        decision.given,
        decision.e_values,
    ]
    findings = [finding for finding in optional if finding is not None]
    if config.features:
        findings.append(_features(config))
    answers = []
    if config.canary:
        answers = json.loads((config.canary / "named.json").read_text(encoding="utf-8"))
    notes = _named_outside(evidence) + _notes(runs) + _notes_on_e_values(decision, evidence)
    predictions = store.load_run(runs.at(runs.artifacts.predictions))
    return AuditResult(
        status=decision.status,
        alpha=config.alpha,
        power=config.power,
        dose=config.dose,
        model=config.model,
        digest=predictions.manifest()["model"],
        rows=evidence.rows,
        trait=decision.trait,
        detectors=tuple(described(finding) for finding in findings),
        traits=decision.traits,
        student_answers=tuple(StudentAnswer(**values) for values in answers),
        spike_ins=tuple(evidence.spike_ins),
        reasons=(*_too_few_answers(runs), *decision.reasons, *notes),
    )


def _too_few_answers(runs: AuditRuns) -> list[str]:
    """That too few prompts are answered in the format of the data, and what to do."""
    if runs.artifacts.too_few is None:
        return []
    folder = runs.at(runs.artifacts.too_few)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    draws = 1 + len(data["config"].get("more", ()))
    again = f", drawn {draws} times," if draws > 1 else ""
    return [
        f"the model{again} answers {summary['kept']} of {summary['rows']} prompts in this format,"
        " so what would have been found is not known; audit against the model that wrote the rows,"
        " or rows in a format that this model keeps to"
    ]


def _features(config: DecisionConfig) -> FeatureFinding:
    """The published method: blind naming by mean features."""
    text = (config.features / "named.json").read_text(encoding="utf-8")
    names = json.loads(text)[:FEATURES_SHOWN]
    statistic, p, where = {}, {}, {}
    for row in names:
        name = row["name"]
        statistic[name], p[name], where[name] = row["statistic"], row["p_corrected"], row["kind"]
    return FeatureFinding(statistic, p, where, NO_BOUND)


def _named_outside(evidence: Evidence) -> list[str]:
    """The traits that are named outside of answers, most rows first."""
    named = []
    outside = {} if evidence.wording is None else evidence.wording.named_outside
    for trait, places in outside.items():
        for place, (count, rows) in places.items():
            named.append(
                (count, f"{trait} is named in {count} of {rows} {place}: it is overt there")
            )
    named.sort(key=lambda item: -item[0])
    return [sentence for _, sentence in named[:NAMED_SHOWN]]


def _notes(runs: AuditRuns) -> list[str]:
    """What a reader has to know of the rows besides the answer's reasons."""
    about = json.loads((runs.at(runs.artifacts.sample) / "about.json").read_text(encoding="utf-8"))
    counts = about["counts"]
    notes = [counted(counts[name], *COUNTED[name]) for name in COUNTED if counts.get(name)]
    if "reading" in about:
        notes += notes_of(about["reading"])
    if runs.artifacts.placebo is not None:
        notes += _notes_on_reference(runs)
        notes += _notes_on_lengths(about["format"], runs.records, runs.placebos)
    if "not_adapted" in about:
        notes.append(f"students of this audit: {about['not_adapted']}")
    if "template_date" in about:
        notes.append(
            f"the model's chat template reads today's date; it was given {about['template_date']}"
        )
    if runs.artifacts.placebo is None:
        return notes
    with_placebo = {row.id for row in runs.placebos}
    alone = sum(row.id not in with_placebo for row in runs.records)
    if alone:
        notes.append(
            f"{alone} of {len(runs.records)} rows have no placebo in the format of the data: the"
            " test of wording leaves them out"
        )
    return notes


def _notes_on_reference(runs: AuditRuns) -> list[str]:
    """What was read of reference rows, and how many of them are on other prompts."""
    assert runs.artifacts.placebo is not None
    matched = runs.at(runs.artifacts.placebo) / "about.json"
    if not matched.is_file():
        return []
    match = json.loads(matched.read_text(encoding="utf-8"))
    notes = []
    for note in notes_of(match["reading"]) if "reading" in match else ():
        notes.append(f"reference: {note}")
    other = match["rows"] - match["same_prompt"]
    if other > 0:
        notes.append(
            f"{other} of {match['rows']} rows are compared with reference rows on other"
            " prompts: a difference of prompts counts as one of the data"
        )
    return notes


def _notes_on_lengths(
    form: Mapping[str, Any], rows: Sequence[TextRow], placebos: Sequence[TextRow]
) -> list[str]:
    """That placebos of free text are much longer or shorter than the rows on their prompts.

    They have one longest length, that of the longest row. A cap by prompt would make them shorter
    than rows that the model wrote itself, so they could not be exchanged.
    """
    words = {row.id: len(row.completion.split()) for row in placebos}
    pairs = [(len(row.completion.split()), words[row.id]) for row in rows if row.id in words]
    unlike = sum(max(pair) > UNLIKE_LENGTHS * max(1, min(pair)) for pair in pairs)
    is_rare = not unlike or unlike < SHARE_OF_UNLIKE * len(pairs)
    if form["kind"] != "free" or is_rare:
        return []
    longer = sum(placebo > own for own, placebo in pairs)
    return [
        f"{unlike} of {len(pairs)} rows and their placebos differ more than {UNLIKE_LENGTHS}-fold"
        f" in words, and {longer} placebos are the longer ones: the test of wording compares texts"
        " of unlike length; rows by the same writer as --reference avoid it"
    ]


def _notes_on_e_values(decision: Decision, evidence: Evidence) -> list[str]:
    """What a reader has to know of the e-values besides the answer's reasons."""
    finding = decision.e_values
    notes = []
    dropped = len(finding.few_log_e) - len(finding.statistic)
    if dropped > 0:
        few = min(FEW_ROWS, finding.scored_rows)
        notes.append(
            f"{dropped} of {len(finding.few_log_e)} candidates were tried on {few} rows only, where"
            " others came before them"
        )
    if finding.reference_z is not None:
        notes.append(
            "this model did not generate these rows, so their likelihoods are compared with those"
            " of the reference, row by row"
        )
    if _are_sorted(finding, evidence.likelihoods.under_nulls.placebo_orders_N):
        notes.append(
            f"{finding.sorted_rows} of {finding.scored_rows} rows are sorted, more than the"
            f" {finding.sorted_by_model:.1%} of clean rows: they were selected or edited; sorted"
            " rows are no evidence for a trait"
        )
    if finding.context and decision.status != "suspect":
        notes.append(
            f'the rows fit the model better under "{finding.context}" than without it: if a system'
            " prompt stood before them, name it with --context, or in the rows"
        )
    return notes


def _are_sorted(finding: EValueFinding, placebo_orders_N: np.ndarray) -> bool:
    """Whether more rows are sorted than of the model's own (Fisher's exact test)."""
    from scipy.stats import fisher_exact

    n_placebos = len(placebo_orders_N)
    if not n_placebos or not finding.sorted_rows:
        return False
    sorted_placebos = int((np.asarray(placebo_orders_N) != 0).sum())
    table = [
        [finding.sorted_rows, finding.scored_rows - finding.sorted_rows],
        [sorted_placebos, n_placebos - sorted_placebos],
    ]
    return bool(fisher_exact(table, alternative="greater").pvalue < fit_test.FIT_ALPHA)
