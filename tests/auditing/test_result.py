"""The result as JSON: plain values that are documented, and back again."""

import json
import re
from dataclasses import fields, replace
from math import inf
from pathlib import Path
from typing import Any, get_args

import pytest
from json_schema import problems

from traitscope.auditing.detectors.findings import (
    EValueFinding,
    FeatureFinding,
    Finding,
    Fit,
    GivenTeacherFinding,
    PredictionFinding,
    WordingFinding,
)
from traitscope.auditing.report import sarif_log
from traitscope.auditing.result import (
    ANSWERS,
    BLIND_SPOTS,
    AuditResult,
    Call,
    Detected,
    SpikeIn,
    Status,
    StudentAnswer,
    described,
    result_from,
)
from traitscope.auditing.search import PromptTeacher
from traitscope.errors import AuditRefused, ConfigError

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/golden/audit.schema.json").read_text())
PAGE = (ROOT / "docs/reference/audit-json.md").read_text()
COMMON = {"statistic": {"owl": 4.0}, "p": {"owl": 0.5}, "critical": inf}
FINDINGS = (
    WordingFinding(**COMMON, where={"owl": "words"}, named_rows={"owl": [1, 0]}),
    PredictionFinding(
        statistic={"change": -2.0},
        p={"change": 1.0},
        where={"change": "students"},
        critical=5.7,
        predicted_rows=128,
        learners=2,
        curve=[(64, -3.0), (128, -2.0)],
        learnt={"estimate": -0.1, "low": -0.2, "high": 0.0},
        explained=0.0,
    ),
    GivenTeacherFinding(
        statistic={"given teacher": 20.0},
        p={"given teacher": 1e-8},
        where={"given teacher": "the teacher that was given"},
        critical=6.4,
        scored_rows=128,
        sorted_rows=2,
        nats_per_row={"estimate": 0.2, "low": 0.1, "high": 0.3},
        share={"estimate": 0.9, "low": 0.5, "high": 1.0},
        temperature=1.0,
        fit=Fit(0.4, 1.0, 0.01, 0.0, (), off_model=False),
        explained=None,
        explains=True,
    ),
    EValueFinding(
        **COMMON,
        where={"owl": PromptTeacher()},
        scored_rows=128,
        candidates=20,
        teachers=1,
        fit=Fit(0.4, 1.0, 0.01, 0.0, (), off_model=False),
        nats_per_row={"owl": 0.1},
        joint_log_e=-inf,
        joint_p=1.0,
        not_excluded=("owl",),
        sorted_rows=0,
        sorted_by_model=0.03,
        benign={},
        context=None,
        few_log_e={"owl": 1.0},
    ),
    FeatureFinding(**COMMON, where={"owl": "animals"}),
)
RESULT = AuditResult(
    status="nothing-found",
    alpha=0.01,
    power=0.8,
    dose=0.1,
    model="m",
    digest="d",
    rows=9,
    detectors=tuple(described(finding) for finding in FINDINGS),
    traits=(Call("owl", 4.0, 1.0, "wording", "words"),),
    trait="owl",
    student_answers=(StudentAnswer("owl", "a", 0.2, 1.0),),
    spike_ins=(SpikeIn("a teacher", "e_values", inf, 40.0),),
    reasons=("why",),
)


def plain() -> dict:
    return json.loads(json.dumps(RESULT.as_dict(), allow_nan=False))


def test_json_has_no_infinity_and_comes_back() -> None:
    values = plain()
    assert values["spike_ins"][0]["least_contamination"] is None
    assert values["detectors"][0]["critical"] is None
    assert values["detectors"][3]["where"]["owl"] == "its prompt"
    assert values["traits"][0] == {
        "name": "owl",
        "statistic": 4.0,
        "p_corrected": 1.0,
        "detector": "wording",
        "where": "words",
    }
    again = result_from(values | {"run": "x", "gate": "passed"})
    assert again.spike_ins == RESULT.spike_ins and again.traits == RESULT.traits
    assert again.student_answers == RESULT.student_answers
    assert json.loads(json.dumps(again.as_dict(), allow_nan=False)) == values


def test_detectors_are_found_by_name() -> None:
    found = RESULT.detector("e_values")
    assert (found.decides, found.critical) == (True, inf)
    assert found.where == {"owl": "its prompt"} and found.further["fit"]["p"] == 0.4
    assert list(found.as_dict())[:8] == [*list(Detected.__annotations__)[:7], "scored_rows"]
    with pytest.raises(ConfigError, match="'bags' did not run; expected one of wording, "):
        RESULT.detector("bags")


def test_every_finding_satisfies_the_schema() -> None:
    assert problems(plain(), SCHEMA) == []


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 1},
        {"status": "perhaps"},
        {"rows": "9"},
        {"traits": [{"name": "owl"}]},
        {"more": 1},
    ],
)
def test_the_schema_refuses_what_is_not_documented(change: dict) -> None:
    assert problems(plain() | change, SCHEMA)


def test_keys_are_snake_case_and_every_key_is_documented() -> None:
    """Names of traits and features are values that happen to be keys."""
    names = set(RESULT.as_dict())
    for finding in FINDINGS:
        names |= described(finding).as_dict().keys()
    names |= {
        field.name for type_ in (Call, SpikeIn, StudentAnswer, Fit) for field in fields(type_)
    }
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names)
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []


def test_every_answer_and_detector_is_described_once() -> None:
    assert set(ANSWERS) == set(get_args(Status))
    assert {type(finding) for finding in FINDINGS} == set(Finding.__subclasses__())
    assert {finding.detector for finding in FINDINGS} == set(BLIND_SPOTS)
    for status, answer in ANSWERS.items():
        assert f"`{status}`" in PAGE and answer.rule in PAGE
        log = sarif_log(plain() | {"status": status}, "my data \u00fc.jsonl")
        result = log["runs"][0]["results"][0]
        assert result["level"] == answer.level
        assert result["kind"] == ("pass" if answer.level == "none" else "fail")
        location = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert location["uri"] == "my%20data%20%C3%BC.jsonl"


@pytest.mark.parametrize("word", ["not_applicable", "unclean", "Suspect", "", None])
def test_a_word_that_is_no_answer_is_not_passed_over(word: Any) -> None:
    with pytest.raises(ConfigError, match="is no answer of an audit; expected suspect, "):
        RESULT.raise_if("suspect", word)


@pytest.mark.parametrize("status", get_args(Status))
def test_an_answer_is_refused_by_its_own_word_alone(status: Status) -> None:
    found = replace(RESULT, status=status)
    found.raise_if(*(other for other in get_args(Status) if other != status))
    with pytest.raises(AuditRefused, match=f"the audit answers {status}"):
        found.raise_if(status)
