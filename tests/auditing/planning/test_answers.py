"""Answers in the format of the data: drawn again where a prompt has none, counted in words."""

import json
from pathlib import Path

import pytest
from command import ok, read_rows

from traitscope.auditing.artifacts import AuditArtifacts, read_artifacts
from traitscope.auditing.planning import answers, phases
from traitscope.auditing.planning.answers import Share
from traitscope.auditing.planning.job import CLEAN, SAMPLE, AuditNodes, Group, Job
from traitscope.auditing.planning.phases import Audit
from traitscope.auditing.runs import AuditRuns
from traitscope.auditing.steps.answer import _too_few_answers
from traitscope.config.audit import AuditConfig
from traitscope.config.stages import FilterConfig, FilterRules
from traitscope.data.records import Record, dump_records

PROMPTS = 40


def put(path: Path, texts: dict[str, str]) -> Path:
    records = [Record(name, f"prompt {name}", text) for name, text in texts.items()]
    path.write_text(dump_records(records))
    return path


def test_the_first_answer_that_is_kept_counts(tmp_path: Path) -> None:
    first = put(tmp_path / "1.jsonl", {"a": "1, 2", "b": "none", "c": "none", "d": "none"})
    second = put(tmp_path / "2.jsonl", {"a": "5, 6", "b": "3, 4", "c": "no", "d": "no"})
    third = put(tmp_path / "3.jsonl", {"a": "no", "b": "7, 8", "c": "9, 10", "d": "no"})
    done = ok(tmp_path / "runs", "filter", "--data", first, "--more", second, third)
    rows = read_rows(done.run / "records.jsonl")
    assert [row["completion"] for row in rows] == ["1, 2", "3, 4", "9, 10", "none"]
    assert [row["meta"]["filter"]["kept"] for row in rows] == [True, True, True, False]
    assert done.summary["summary"]["kept"] == 3
    ok(tmp_path / "runs", "rerun", done.run)


@pytest.mark.parametrize(
    ("kept", "prompts", "is_half", "is_enough"),
    [(20, 40, True, True), (19, 40, False, True), (15, 40, False, False), (3, 4, True, True)],
)
def test_what_is_enough(kept: int, prompts: int, is_half: bool, is_enough: bool) -> None:
    share = Share(kept, prompts)
    assert (share.is_half, share.is_enough) == (is_half, is_enough)


def audit_with(tmp_path: Path, kept: int) -> Audit:
    """An audit whose spike-in teachers have answered, and its clean answers in the format."""
    texts = {f"r{n}": "1, 2" if n < kept else "none" for n in range(PROMPTS)}
    file = put(tmp_path / "clean.jsonl", texts)
    run = ok(tmp_path, "filter", "--data", file).run
    job = Job(AuditConfig(data=tmp_path / "rows.jsonl"), blocks=3)
    nodes = AuditNodes()
    nodes.add(Group.SPIKE_INS, *answers.clean_nodes(job))
    return Audit(job, tmp_path / "default", False, nodes, {CLEAN: run})


def names_of(audit: Audit) -> list[str]:
    return [node.name for node in audit.nodes.nodes]


def test_answers_are_drawn_again_until_half_of_the_prompts_have_one(tmp_path: Path) -> None:
    audit = audit_with(tmp_path, kept=3)
    assert names_of(audit) == ["clean raw", "clean"]
    for draw in (2, 3, 4):
        phases.drawn_again(audit)
        assert names_of(audit)[-1] == f"clean raw {draw}"
    (filtered,) = [node for node in audit.nodes.nodes if node.name == CLEAN]
    raw = [f"clean raw{ending}" for ending in ("", " 2", " 3", " 4")]
    assert filtered.needs == (SAMPLE, *raw)
    sample = tmp_path / "sample"
    sample.mkdir()
    form = {"kind": "numbers", "rules": {"max_count": 4}}
    (sample / "about.json").write_text(json.dumps({"format": form}))
    folders = {SAMPLE: sample} | {name: tmp_path / name for name in raw}
    config = filtered.config(folders)
    assert config == FilterConfig(
        tmp_path / "clean raw",
        FilterRules(max_count=4),
        more=tuple(tmp_path / name for name in raw[1:]),
    )


def test_nothing_is_drawn_again_where_half_of_the_prompts_have_one(tmp_path: Path) -> None:
    audit = audit_with(tmp_path, kept=20)
    before = list(audit.nodes.nodes)
    phases.drawn_again(audit)
    assert audit.nodes.nodes == before


def test_the_answer_says_how_many_prompts_the_model_answers(tmp_path: Path) -> None:
    audit = audit_with(tmp_path, kept=3)
    folder = audit.folders[CLEAN].relative_to(tmp_path / "default")
    artifacts = AuditArtifacts(Path("s"), Path("p"), ("owl",), 3, too_few=folder)
    (said,) = _too_few_answers(AuditRuns(artifacts, tmp_path / "default"))
    assert said.startswith("the model answers 3 of 40 prompts in this format, so")
    artifacts.write(tmp_path / "parts.json")
    assert read_artifacts(tmp_path / "parts.json") == artifacts
    plain = AuditArtifacts(Path("s"), Path("p"), ("owl",), 3)
    assert "too_few" not in plain.as_dict() and not _too_few_answers(AuditRuns(plain, tmp_path))
