"""The page of an audit shows no p-value where none holds."""

import json
from dataclasses import replace

import pytest

from traitscope.auditing import reasons, report
from traitscope.auditing.decide import calls_of
from traitscope.auditing.detectors.findings import (
    EValueFinding,
    Fit,
    PredictionFinding,
    WordingFinding,
)
from traitscope.auditing.result import AuditResult, described
from traitscope.auditing.search import PromptTeacher
from traitscope.inference.token_bins import BETAS

FITS = Fit(0.4, 1.0, 0.01, 0.0, (), off_model=False)
OFF_MODEL = Fit(1e-9, 1.0, 0.5, 0.02, ("which tokens are taken",), off_model=True)
E_VALUES = EValueFinding(
    statistic={"owl": 61.7},
    p={"owl": 1.0},
    where={"owl": PromptTeacher()},
    critical=7.1,
    scored_rows=128,
    candidates=4,
    teachers=1,
    fit=FITS,
    nats_per_row={"owl": 0.4},
    joint_log_e=60.3,
    joint_p=1.0,
    sorted_rows=0,
    sorted_by_model=0.03,
    benign={"system prompt": 0.2},
    context=None,
    few_log_e={"owl": 5.0},
)
WORDING = WordingFinding({"owl": 0.1}, {"owl": 0.9}, {"owl": "words"}, 3.5, {"owl": [0, 0]})
CHANGE = PredictionFinding(
    {"change": 64.2}, {"change": 0.0}, {"change": "students"}, 5.7, 128, 2, [(128, 64.2)], {}, 0.6
)


def p_cells(finding: EValueFinding) -> tuple[str, str]:
    """The cells of p in the tables of traits and of detectors, of the e-values."""
    trait, by_name = all_p_cells(finding)
    return trait, by_name["e_values"]


def all_p_cells(finding: EValueFinding) -> tuple[str, dict[str, str]]:
    """The cell of p in the table of traits, and those of all detectors."""
    result = AuditResult(
        status="suspect",
        alpha=0.01,
        power=0.8,
        dose=0.1,
        model="m",
        digest="d",
        rows=128,
        detectors=tuple(described(item) for item in (WORDING, CHANGE, finding)),
        traits=calls_of([WORDING, finding]),
        trait=None,
        student_answers=(),
        spike_ins=(),
        reasons=("why",),
    )
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    about = {"format": {"kind": "numbers"}, "counts": {}, "text": False, "first": "1"}
    tables = {table.name: table for table in report.tables(plain, about, [], {}, {})}
    page = report.page(plain, about, [], {}, {})
    traits, detectors = tables["traits"], tables["detectors"]
    (trait,) = traits.rows
    by_name = {row[0]: row for row in detectors.rows}
    shown = trait[traits.header.index("corrected p")]
    assert "<" in shown or shown in page
    return shown, {name: row[3] for name, row in by_name.items()}


def test_rows_off_the_model_have_a_dash_and_the_reason_in_place_of_p() -> None:
    off_model = replace(E_VALUES, fit=OFF_MODEL, explained={"owl": 0.2})
    assert p_cells(off_model) == ("– (rows do not fit the model)",) * 2
    beyond = replace(E_VALUES, fit=replace(FITS, temperature=1 / BETAS[-1]))
    assert p_cells(beyond) == ("– (temperature is not tried)",) * 2


def test_predictions_and_wording_have_a_dash_where_their_null_is_not_the_rows() -> None:
    dash = "– (rows do not fit the model)"
    fitting = all_p_cells(E_VALUES)[1]
    assert fitting["predictions"].startswith("<") and fitting["wording"] == "0.9"
    nearly = all_p_cells(replace(E_VALUES, fit=replace(FITS, p=1e-5)))[1]
    assert nearly["predictions"] == dash and nearly["wording"] == "0.9"
    other = replace(E_VALUES, fit=OFF_MODEL, explained={"owl": 0.2})
    assert all_p_cells(other)[1] == dict.fromkeys(("wording", "predictions", "e_values"), dash)
    with_reference = all_p_cells(replace(other, explained=None, reference_z={"owl": 0.1}))[1]
    assert with_reference["wording"] == "0.9", "the reference is by the same writer"


@pytest.mark.parametrize(("p", "shown"), [(1e-9, "<\u00a00.0001"), (0.002, "0.002")])
def test_rows_of_the_model_keep_their_p(p: float, shown: str) -> None:
    for_all_detectors = report.p_text(calls_of([replace(E_VALUES, p={"owl": p})])[0].p_corrected)
    assert p_cells(replace(E_VALUES, p={"owl": p})) == (for_all_detectors, shown)


def test_a_called_candidate_off_the_model_has_no_p_in_the_reasons_either() -> None:
    called = replace(E_VALUES, p={"owl": 1e-9}, fit=OFF_MODEL, explained={"owl": 0.9})
    hits = calls_of([called])
    *_, last = reasons.of_calls("owl", hits, called, 0.01)
    assert last == "owl: log e-value 61.7 by its prompt, corrected p – (rows do not fit the model)"
    fitting = replace(called, fit=FITS, explained=None)
    *_, last = reasons.of_calls("owl", hits, fitting, 0.01)
    assert last.endswith("corrected p 3e-09 (threshold: 0.01)")
