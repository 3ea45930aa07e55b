"""What comparisons and studies give a paper.

Their pages are made of values that the sealed run holds as text only. So the values are computed
again from the sealed inputs, which needs no model, and compared with the numbers that were sealed.
"""

import json
import math
from typing import Any

from traitscope.comparison import compare
from traitscope.comparison.compare import comparison_json
from traitscope.comparison.page import (
    comparison_figures,
    comparison_tables,
    conditions_tables,
    runs_table,
)
from traitscope.comparison.results import Comparison
from traitscope.comparison.wording import wording_of
from traitscope.config.commands import ExperimentConfig
from traitscope.config.common import Output
from traitscope.errors import StoreError
from traitscope.papers.contents import Contents, measurements_table
from traitscope.reporting.figures import line_figure
from traitscope.reporting.study_page import (
    FINDINGS,
    SMOKE_NOTE,
    all_measurements,
    findings_json,
    forest_figures,
    teachers_figure,
)
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Findings
from traitscope.runs import store
from traitscope.studies import runner
from traitscope.studies.conclusions import Concluded, concluded_again
from traitscope.studies.experiment import command as experiment
from traitscope.workflow.replay import input_places, replayed_config


def compared(run: store.Run) -> Contents:
    """Return the differences, scores and figures of a comparison."""
    comparison = comparison_of(run)
    numbers = tuple(item.difference for item in comparison.differences)
    tables = (
        *comparison_tables("differences", comparison.heading, comparison),
        *conditions_tables(comparison),
        runs_table(comparison.sources),
    )
    return Contents(comparison_figures(comparison), tables, numbers)


def comparison_of(run: store.Run) -> Comparison:
    """Return the comparison of a sealed run, computed again from its inputs.

    Raises StoreError where this version computes other numbers than those that were sealed.
    """
    comparison = compare.compared(replayed_config(run))
    now = comparison_json(comparison, wording_of(comparison))
    _check_same(run, "summary.json", now)
    return comparison


def concluded(run: store.Run) -> Contents:
    """Return the verdicts, measurements, tables and figures of a study."""
    study = conclusion_of(run)
    findings, tables = study.findings, []
    for table in (*findings.tables, *([study.before] if study.before is not None else [])):
        if table.rows:
            tables.append(table)
    numbers = tuple(all_measurements(findings))
    curves = [line_figure(table) for table in tables if table.curve]
    first = teachers_figure(findings)
    figures = (*first, *findings.figures, *curves, *forest_figures(numbers))
    shown = (
        verdicts_table(findings),
        measurements_table("measurements", "Measurements", numbers),
        *study.header.protocol_tables,
        *tables,
    )
    return Contents(figures, shown, numbers, claim_text(study), study.header.source)


def claim_text(study: Concluded) -> str:
    """Return what a study claims, its size, and the rule of each claim, in sentences."""
    rules = []
    for verdict in study.findings.verdicts:
        rules.append(f"{verdict.claim.removesuffix('.')}: {verdict.stated.rule}")
    said = [study.header.claim]
    if study.header.size:
        said.append(f"Size: {SMOKE_NOTE if study.header.is_smoke else study.header.size}.")
    return " ".join([*said, *rules])


def conclusion_of(run: store.Run) -> Concluded:
    """Return what a sealed study or experiment concludes, computed again from its stages.

    Raises StoreError where this version concludes otherwise than was sealed.
    """
    config = replayed_config(run)
    places = input_places(run)
    if isinstance(config, ExperimentConfig):
        request = experiment.request_of(config, Output(), places["file"])
    else:
        request = runner.request_of(config, Output())
    study = concluded_again(request, places)
    _check_same(run, FINDINGS, findings_json(study.header, study.findings))
    return study


def verdicts_table(findings: Findings) -> Table:
    """Return a row for each claim: its outcome, and the number that decided."""
    rows = []
    for verdict in findings.verdicts:
        decided = verdict.decided_by
        smallest = min(verdict.decision.p_above, verdict.decision.p_below)
        p = None if verdict.outcome == "no verdict" else f"{smallest:.2g}"
        units = f"{verdict.stated.tested.n_units} {verdict.stated.counted or decided.counted}"
        primary = "yes" if verdict.stated.primary else "no"
        rows.append((verdict.claim, primary, verdict.outcome, decided, decided.unit, units, p))
    caption = (
        "Estimates with 95 % intervals. p is for the direction, corrected over the study's claims;"
        " there is none without a verdict."
    )
    header = ("claim", "primary", "outcome", "decided by", "unit", "n", "corrected p")
    return Table("verdicts", "Verdicts", caption, header, tuple(rows))


def _check_same(run: store.Run, name: str, now: dict[str, Any]) -> None:
    """Raise StoreError where a file of a run holds other values than this version computes."""
    sealed = json.loads(run.file(name).read_bytes())
    if not _same(sealed, json.loads(json.dumps(now))):
        made_by = run.manifest().get("versions", {}).get("traitscope", "another version")
        raise StoreError(
            f"{run.file(name)} holds other values than this version computes from the same runs;"
            f" expected the same; it was made by traitscope {made_by}: report it with that version,"
            " or make the run again"
        )


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same, numbers to nine digits: processors round otherwise."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other
