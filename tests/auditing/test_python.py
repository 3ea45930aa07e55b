"""`ts.audit` hands its arguments to the audit, and rows and vectors in memory as files."""

import dataclasses
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import traitscope as ts
from traitscope.auditing import audit_by_source
from traitscope.auditing import run as audit_run
from traitscope.config import AuditConfig, FilterConfig
from traitscope.config.common import Output
from traitscope.config.rows.reading import Reading
from traitscope.errors import ConfigError, DataError

RESULT = {
    "status": "insufficient",
    "alpha": 0.01,
    "power": 0.8,
    "dose": 0.1,
    "model": "m",
    "digest": "d",
    "rows": 1,
    "detectors": [],
    "traits": [],
    "trait": None,
    "student_answers": [],
    "spike_ins": [],
    "reasons": ["why"],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[AuditConfig]:
    """The settings of the audits that are asked for; each answers RESULT."""
    settings: list[AuditConfig] = []

    def answered(config: AuditConfig, out: Output) -> Any:
        settings.append(config)
        return SimpleNamespace(
            result=RESULT, run=SimpleNamespace(path=out.root / "x"), page="<p>", sarif="{}"
        )

    monkeypatch.setattr(audit_run, "answered", answered)
    return settings


def test_rows_and_vectors_in_memory_become_files(tmp_path: Path, asked: list[AuditConfig]) -> None:
    vector = ts.Vector(np.ones((2, 3), np.float32), "m")
    row = {"prompt": "a?", "completion": "1"}
    record = ts.Record("r", "b?", "2")
    teacher = ts.Steer(vector, layer=1, alpha=0.5)
    result = ts.audit([row, record], tmp_path, rows=7, traits=["owl"], teacher=teacher)
    (config,) = asked
    lines = [json.loads(line) for line in config.data.read_text().splitlines()]
    assert lines[0] == row and (lines[1]["id"], lines[1]["completion"]) == ("r", "2")
    assert (config.rows, config.traits) == (7, ("owl",))
    file = config.teacher.removeprefix("steer:").partition(",")[0]
    assert ts.Vector.load(file).rows_LD.tolist() == vector.rows_LD.tolist()
    assert result.status == "insufficient" and result.run == tmp_path / "x"
    assert result.to_html(tmp_path / "p.html").read_text() == "<p>"


def test_sources_of_a_file_are_audited_with_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traitscope.auditing.command import sources

    asked: list[AuditConfig] = []

    def answered_by_source(config: AuditConfig, out: Output) -> sources.AuditBySource:
        asked.append(config)
        return sources.AuditBySource(str(config.data), str(config.by), 0.01, 0.005, AUDITED)

    AUDITED = (sources.AuditedSource(sources.WHOLE, True, 9, None),)
    monkeypatch.setattr(sources, "answered_by_source", answered_by_source)
    changed: dict[str, Any] = {"model": "m", "traits": ("owl",), "context": "c", "device": "cpu"}
    changed |= {"dtype": "fp32", "alpha": 0.02, "power": 0.9, "dose": 0.2, "spike_ins": False}
    changed |= {"rows": 9, "workers": 2, "seed": 3}
    found = audit_by_source([{"prompt": "a?", "completion": "1"}], "vendor", tmp_path, **changed)
    assert asked[0].by == "vendor" and asked[0].data.is_file()
    assert {name: getattr(asked[0], name) for name in changed} == changed
    assert found.to_html(tmp_path / "p.html").read_text().startswith("<!doctype html>")


def test_every_keyword_is_handed_on(tmp_path: Path, asked: list[AuditConfig]) -> None:
    """Each differs from its default, so that none can be forgotten."""
    changed: dict[str, Any] = {
        "model": "m",
        "traits": ("owl",),
        "teacher": "t",
        "reference": tmp_path / "r.jsonl",
        "context": "c",
        "position": "last",
        "device": "cpu",
        "dtype": "fp32",
        "template": ("a=1",),
        "control_tokens": "token",
        "same_as": "m",
        "reading": Reading(turns="every"),
    }
    for name, parameter in inspect.signature(ts.audit).parameters.items():
        if name not in ("data", "root", *changed):
            value = parameter.default
            changed[name] = not value if isinstance(value, bool) else value + type(value)(1) / 8
    changed.update(rows=9, workers=2, seed=3, dose=0.2, power=0.9)
    ts.audit(tmp_path / "d.jsonl", tmp_path, **changed)
    (config,) = asked
    assert {name: getattr(config, name) for name in changed} == changed
    written = {"data", "report", "sarif", "fail_on", "by", "plan"}
    assert {field.name for field in dataclasses.fields(config)} == changed.keys() | written


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a?", "completion": "1", "score": float("nan")},
        {"prompt": "a?", "completion": "half \ud800"},
        {"prompt": "a?", "completion": {1, 2}},
        "a row",
        None,
    ],
    ids=["nan", "surrogate", "set", "text", "none"],
)
def test_a_row_in_memory_that_no_file_can_hold(tmp_path: Path, row: Any) -> None:
    good = {"prompt": "a?", "completion": "1"}
    with pytest.raises(DataError, match="row 2 "):
        ts.audit([good, row], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_may_be_a_path(tmp_path: Path, asked: list[AuditConfig]) -> None:
    ts.audit(tmp_path / "d.jsonl", tmp_path, model=tmp_path / "m")
    assert asked[0].model == str(tmp_path / "m")


def test_a_folder_outside_the_root_is_refused(tmp_path: Path) -> None:
    config = FilterConfig(data=tmp_path / "rows.jsonl")
    config.data.write_text('{"prompt": "a?", "completion": "1"}\n')
    with pytest.raises(ConfigError, match="leads out of the root"):
        ts.run(config, tmp_path / "runs", folder="../elsewhere")


def test_one_trait_may_be_a_text(tmp_path: Path, asked: list[AuditConfig]) -> None:
    ts.audit(tmp_path / "d.jsonl", tmp_path, traits="owl")
    assert asked[0].traits == ("owl",)
