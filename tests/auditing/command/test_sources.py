"""Audits by source share alpha, and the worst answer counts."""

import json
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from traitscope.auditing.command import source_page, sources
from traitscope.auditing.command.run import NEXT_STEPS
from traitscope.auditing.command.sources import WHOLE, AuditBySource, AuditedSource
from traitscope.auditing.report import sarif_log
from traitscope.auditing.result import AuditResult, Status
from traitscope.config import AuditConfig
from traitscope.config.common import Output
from traitscope.errors import AuditRefused, ConfigError

CLEAN = AuditResult(
    status="nothing-found",
    alpha=0.0025,
    power=0.8,
    dose=0.1,
    model="m",
    digest="d",
    rows=64,
    trait=None,
    detectors=(),
    traits=(),
    student_answers=(),
    spike_ins=(),
    reasons=("a teacher would have been detected",),
    run=Path("runs/audit/x"),
)
SUSPECT = replace(CLEAN, status="suspect", trait="owl", reasons=("the trait is owl", "owl: 12.0"))


def with_sarif(result: AuditResult) -> AuditResult:
    return replace(result, sarif=json.dumps(sarif_log(result.as_dict(), "d.jsonl")))


def audited(*results: AuditResult | None) -> AuditBySource:
    """The whole file first, then the sources a, b and so on."""
    items = []
    for number, result in enumerate(results):
        name = WHOLE if number == 0 else "abc"[number - 1]
        result = None if result is None else with_sarif(result)
        items.append(AuditedSource(name, number == 0, 64, result))
    return AuditBySource("d.jsonl", "vendor", 0.01, 0.0025, tuple(items))


@pytest.mark.parametrize(
    ("others", "status"),
    [
        (("nothing-found", "nothing-found"), "nothing-found"),
        (("nothing-found", "insufficient"), "insufficient"),
        (("insufficient", "not-applicable"), "not-applicable"),
        (("not-applicable", "suspect"), "suspect"),
    ],
)
def test_the_worst_answer_is_that_of_the_file(others: tuple[Status, ...], status: Status) -> None:
    found = audited(CLEAN, *(replace(CLEAN, status=each) for each in others))
    assert found.status == status
    with pytest.raises(AuditRefused, match="by vendor answers"):
        found.raise_if(status)
    with pytest.raises(ConfigError, match="'not_applicable' is no answer of an audit"):
        found.raise_if("not_applicable")


def test_a_source_with_too_few_rows_is_insufficient_and_has_no_run() -> None:
    found = audited(CLEAN, CLEAN, None)
    assert found.status == "insufficient" and found.sources[2].run is None
    assert "expected 32 or more" in " ".join(found.lines())
    assert found.as_dict()["sources"][2]["result"] is None
    assert len(json.loads(found.sarif())["runs"][0]["results"]) == 2


def test_what_is_shown_names_the_suspect_source() -> None:
    found = audited(CLEAN, SUSPECT, CLEAN)
    first, *others = found.lines()
    assert first == "suspect: a; 3 audits share alpha 0.01 by vendor, each 0.0025"
    assert "a: suspect, trait owl" in others and "owl: 12.0" in others
    assert found.next_step(NEXT_STEPS).startswith("leave out the rows of a and audit the others")
    html = unescape(source_page.page(found))
    assert "Suspect: a." in html and "owl: 12.0" in html and "Answers by source" in html
    messages = [each["message"]["text"] for each in json.loads(found.sarif())["runs"][0]["results"]]
    assert [text.partition(":")[0] for text in messages] == [WHOLE, "a", "b"]
    plain = found.as_dict()
    assert [each["source"] for each in plain["sources"]] == [None, "a", "b"]
    assert plain["sources"][1]["result"]["trait"] == "owl"


def test_audits_share_alpha_and_small_sources_take_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "d.jsonl"
    lines = []
    for number in range(100):
        vendor = "small" if number < 20 else "ab"[number % 2]
        lines.append(json.dumps({"prompt": f"{number}?", "completion": "1", "vendor": vendor}))
    data.write_text("\n".join(lines))
    asked: list[tuple[float, str | None]] = []

    def answered(config: AuditConfig, out: Output, source: str | None = None) -> AuditResult:
        asked.append((config.alpha, source))
        return CLEAN

    monkeypatch.setattr(sources, "answered", answered)
    monkeypatch.setattr(sources, "result_of", lambda result: result)
    config = AuditConfig(data=data, by="vendor", alpha=0.03)
    found = sources.answered_by_source(config, Output(root=tmp_path))
    assert asked == [(0.01, None), (0.01, "a"), (0.01, "b")]
    assert [(each.name, each.rows) for each in found.sources] == [
        (WHOLE, 100),
        ("a", 40),
        ("b", 40),
        ("small", 20),
    ]
    assert found.alpha == 0.03 and found.alpha_each == 0.01
