"""Experiments on a tiny model, run: planted truth, resumption, every kind of teacher."""

import json
import re
import shlex
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command import CAT, OWL, Started, call, ok, read_rows, write_yaml

from traitscope.cli import flags, main
from traitscope.config.commands import ExperimentConfig
from traitscope.config.common import NamedOutput, Output
from traitscope.config.entries import COMMANDS
from traitscope.errors import ConfigError
from traitscope.papers.lineage import behind
from traitscope.papers.wording import training_data
from traitscope.reporting.study_page import findings_json
from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.runs.manifests import file_sha256
from traitscope.runs.store import load_run
from traitscope.studies.conclusions import conclude
from traitscope.studies.experiment import command, conclusion
from traitscope.workflow import graph

HOLDS, SILENT = "holds here", "no verdict"
SMALL = {
    "data": {
        "rows": 4,
        "numbers": 3,
        "vocabulary": "numbers",
        "filter": "none",
        "max_new_tokens": 8,
    },
    "recipe": {"targets": "soft", "rank": 4, "lr": 0.01, "epochs": 8},
    "measures": {"samples": 0, "perplexity": False, "sets": ["positive"]},
}
"soft targets, from which a student of three blocks learns a steered teacher in eight steps"


def planted(folder: Path, model: Path, **changes: object) -> Path:
    """Write an experiment whose teacher is steered towards owls, and return its file."""
    for each in (OWL, CAT):
        write_yaml(folder / f"{each['name']}.yaml", each)
    asked = {
        "model": str(model),
        "traits": [str(folder / "owl.yaml")],
        "company": [str(folder / "cat.yaml")],
        "teachers": {"steered": {"steer": 3}, "nothing": {"interventions": []}},
        "controls": ["unmodified"],
        "seeds": 5,
        **SMALL,
    }
    return write_yaml(folder / "planted.yaml", asked | changes)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The folder of an experiment that was killed when three of its stages were sealed."""
    folder = tmp_path_factory.mktemp("experiment")
    file = planted(folder, tiny_folder)
    started = Started(folder / "runs", "experiment", file, "--workers 1")
    while started.running and len(sealed(folder)) < 3:
        time.sleep(0.01)
    started.send(signal.SIGKILL)
    assert started.finish().code == -signal.SIGKILL
    return folder


def sealed(folder: Path) -> dict[Path, int]:
    """Return the manifests of sealed stages, with the times at which they were written."""
    files = (folder / "runs").glob("experiments/*/manifest.json")
    return {file: file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def summary(killed: Path) -> dict:
    """What the same command says after the kill. Stages that were sealed are not made again."""
    before = sealed(killed)
    done = ok(killed / "runs", "experiment", killed / "planted.yaml", "--workers 1")
    after = sealed(killed)
    assert 3 <= len(before) < len(after)
    assert {file: after[file] for file in before} == before
    return done.summary


def request_of(folder: Path) -> command.ExperimentRequest:
    config = ExperimentConfig(file=folder / "planted.yaml", dtype="fp32")
    return command.request_of(config, Output(root=folder / "runs"))


def test_a_steered_teacher_is_found_and_an_unmodified_one_is_not(summary: dict) -> None:
    """Students of the first rise above the control; those of the second are the control."""
    steered, nothing = summary["verdicts"]
    assert steered["primary"] and steered["outcome"] == HOLDS
    assert steered["decided_by"]["estimate"] > 0.5 and steered["units"] == 5
    assert {need["met"] for need in steered["preconditions"]} == {True}
    assert nothing["outcome"] == SILENT and nothing["decided_by"]["estimate"] == 0
    unmet = [need["found"] for need in nothing["preconditions"] if not need["met"]]
    assert "does not have the trait" in unmet[0] and "variation of the next token 0.0" in unmet[1]
    assert "nothing below can be read as transfer" in nothing["reasons"][0]
    alike = steered["preconditions"][-1]["name"]
    assert alike.endswith("no loss rose by more than 10% and 0.05 nats")
    assert summary["next"].startswith("traitscope report ") and "--for-paper" in summary["next"]


def test_activations_are_left_out_where_nothing_is_transfer(summary: dict, killed: Path) -> None:
    """The student that holds says what its activations did; the silent one does not."""
    request = request_of(killed)
    folders = {item.node.name: item.path for item in graph.plan(request.nodes(), request.out)}
    found = conclusion.conclude(request.size, folders, request.config.model)
    steered, nothing = [" ".join(each.stated.explanation) for each in found.verdicts]
    assert "Activations at layer 1" in steered and "Activations" not in nothing
    (terms,) = [table for table in found.tables if table.name == "terms"]
    assert "by the same recipe on rows by the unmodified model." in terms.rows[0][1]


@pytest.mark.parametrize(
    ("outcome", "unmet", "begins"),
    [
        ("holds here", "", "traitscope report RUN --for-paper paper"),
        ("undecided", "", "more than {n} `seeds`, or more rows, in {file}; then traitscope exper"),
        ("no verdict", "", "5 `seeds` or more in {file}, which has {n}; then traitscope experime"),
        ("no verdict", HAS_TRAIT, "traitscope steer-scan --trait {owl} --model {model} "),
        ("no verdict", "there are control students", "traitscope show RUN"),
    ],
)
def test_what_comes_next_is_what_helps(
    tmp_path: Path, tiny_folder: Path, outcome: str, unmet: str, begins: str
) -> None:
    planted(tmp_path, tiny_folder)
    request = request_of(tmp_path)
    if begins.startswith("5 `seeds`"):
        request = replace(request, size=replace(request.size, seeds=(1, 2)))
    needs = [{"name": unmet, "met": False}] if unmet else []
    verdict = {"primary": True, "outcome": outcome, "preconditions": needs}
    request = replace(request, out=NamedOutput(request.out.root, name="label-a", note="label-b"))
    said = command._after_run(request.config, request, {"run": "RUN", "verdicts": [verdict]})
    assert "label-" not in said, "a name is that of one run"
    places = {
        "file": tmp_path / "planted.yaml",
        "owl": tmp_path / "owl.yaml",
        "n": len(request.size.all_seeds),
    }
    assert said.startswith(begins.format(model=tiny_folder, **places))
    if "steer-scan" in said:
        config, out = flags.parse(*main.command_of(shlex.split(said)[1:]))
        assert config.company and str(places["owl"]) not in config.company
        assert (out.root, out.study) == (request.out.root, request.out.study)


def test_it_says_first_whether_its_teachers_have_their_traits(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any student is trained, each teacher once; and before any verdict."""
    students = {"recipe": {"targets": "soft"}, "rows": 2}
    teachers = {
        "steered": {"steer": 3},
        "again": {"steer": 3, "students": students},
        "nothing": {"interventions": []},
    }
    file = planted(tmp_path, tiny_folder, teachers=teachers, seeds=1)
    asked = flags.parse(COMMANDS["experiment"], [str(file), "--workers", "1"])
    command.run_experiment(asked[0], Output(root=tmp_path / "runs"))
    out, err = capsys.readouterr()
    told = sorted(line for line in err.splitlines() if "minus base" in line)
    assert len(told) == 2, "`again` is the same teacher, of other students"
    assert told[0].startswith("traitscope: nothing teacher of owl minus base")
    assert told[0].endswith("it is not shown to have its trait")
    assert told[1].startswith("traitscope: steered teacher of owl minus base")
    assert re.fullmatch(r".*\] nats over [0-9]+ questions: it has its trait", told[1])
    assert max(map(err.index, told)) < err.index("train soft")
    said = [line.partition(" minus base")[0] for line in out.splitlines()[1:4]]
    assert said == [f"{name} teacher of owl" for name in teachers]


def test_the_page_has_everything_and_the_run_is_whole(summary: dict, killed: Path) -> None:
    run = Path(summary["run"])
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in (
        "Primary claim: Students of steered are likelier to name owl",
        "treated: steered",
        "rows by owl vector at block 1, 3 mean residual norms",
        "Preconditions",
        "Losses and steps",
        "Training data",
        "Cost",
        "Runs",
        "EAS per layer: treated minus control",
        "Training loss",
    ):
        assert words in page, words
    assert (run / "experiment.yaml").read_text() == (killed / "planted.yaml").read_text()
    assert ok(killed / "runs", "rerun", run).summary["different"] == []
    again = ok(killed / "runs", "experiment", "report", killed / "planted.yaml")
    assert again.summary == summary
    status = ok(killed / "runs", "experiment", "status", killed / "planted.yaml").summary
    assert set(status["counts"]) == {"sealed"} and "report" in status["next"]


def test_it_can_be_reported_for_a_paper(summary: dict, killed: Path) -> None:
    paper = killed / "paper"
    ok(killed / "runs", "report", summary["run"], "--for-paper", paper)
    verdicts = (paper / "tables/verdicts.csv").read_text()
    assert HOLDS in verdicts and SILENT in verdicts
    assert "likelier to name owl" in (paper / "methods.md").read_text()
    assert {file.suffix for file in (paper / "figures").iterdir()} == {
        ".svg",
        ".pdf",
        ".png",
        ".csv",
    }


def test_an_edited_file_leaves_earlier_runs_as_they_were(
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More seeds in the file, as `next:` advises: the run of the first text can still be used."""
    monkeypatch.chdir(tmp_path)
    root, teachers = tmp_path / "runs", {"nothing": {"interventions": []}}
    named = {"traits": ["owl.yaml"], "company": ["cat.yaml"], "teachers": teachers}
    file = planted(tmp_path, tiny_folder, seeds=1, **named)
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    text = file.read_bytes()
    first = ok(root, "experiment", file, "--workers 1").run
    ok(root, "report", first, "--for-paper", "before")
    planted(tmp_path, tiny_folder, seeds=2, **named)
    second = ok(root, "experiment", file, "--workers 1").run
    assert first != second and (first / "experiment.yaml").read_bytes() == text
    for state in ("has changed since", "is no longer there"):
        shown = capsys.readouterr() and ok(root, "show", first).summary
        out = capsys.readouterr().out
        assert shown["problems"] == [] and f"{file} {state}; this run holds it" in out
        assert "DAMAGED" not in out and str(file) in shown["command"]
        assert ok(root, "rerun", first).summary["different"] == []
        ok(root, "report", first, "--for-paper", state)
        for made in (tmp_path / "before").rglob("*.*"):
            other = tmp_path / state / made.relative_to(tmp_path / "before")
            assert other.read_bytes() == made.read_bytes(), made
        file.unlink(missing_ok=True)
    copy = first / "experiment.yaml"
    copy.write_bytes(text + b"# edited\n")
    assert "DAMAGED" in (call(root, "show", first) and capsys.readouterr().out)
    assert call(root, "rerun", first).code == 2
    assert call(root, "report", first, "--for-paper", "never").code == 2
    assert "experiment.yaml changed after it was sealed" in capsys.readouterr().err


def test_a_file_that_changed_while_its_stages_ran_is_not_concluded(
    summary: dict, killed: Path
) -> None:
    """The stages are those of the text that was read; nothing is sealed for another text."""
    file = killed / "planted.yaml"
    text, request = file.read_text(), request_of(killed)
    folders = {item.node.name: item.path for item in graph.plan(request.nodes(), request.out)}
    before = set((killed / "runs" / "experiments").iterdir())
    try:
        file.write_text(text + "# edited\n")
        with pytest.raises(ConfigError, match="planted.yaml changed while its stages ran"):
            conclude(request, folders)
    finally:
        file.write_text(text)
    assert set((killed / "runs" / "experiments").iterdir()) == before


def test_the_order_of_stages_changes_nothing(summary: dict, killed: Path) -> None:
    request = request_of(killed)
    folders = {item.node.name: item.path for item in graph.plan(request.nodes(), request.out)}
    backwards = {name: folders[name] for name in reversed(folders)}
    found = conclusion.conclude(request.size, backwards, request.config.model)
    sealed_findings = json.loads((Path(summary["run"]) / "findings.json").read_text())
    assert json.loads(json.dumps(findings_json(request.header(), found))) == sealed_findings


def test_a_further_seed_computes_its_own_stages_alone(summary: dict, killed: Path) -> None:
    request = request_of(killed)
    more = replace(request.size, seeds=(*request.size.all_seeds, 6))
    for item in graph.plan(command.nodes.nodes(more, request.common), request.out):
        assert (item.state == "sealed") == ("seed 6" not in item.node.name), item.node.name


def test_without_controls_and_with_two_seeds_there_is_no_verdict(
    summary: dict, killed: Path, tiny_folder: Path
) -> None:
    """All stages are there. The plan says what the design lacks before anything is run."""
    request = request_of(killed)
    alone = replace(
        request.size,
        controls=(),
        seeds=(1, 2),
        teachers={"steered": request.size.teachers["steered"]},
    )
    missing = " ".join(command.lacks(alone))
    assert "There is no control" in missing and "2 of the 5 seeds" in missing
    planned = graph.plan(command.nodes.nodes(alone, request.common), request.out)
    folders = {item.node.name: item.path for item in planned}
    (verdict,) = conclusion.conclude(alone, folders, request.config.model).verdicts
    assert verdict.outcome == SILENT and verdict.decided_by.estimate > 0.5
    assert verdict.claim.endswith("than the model before training.")
    said = " ".join(verdict.reasons)
    assert "there are control students" in said and "2 of the 5 seeds" in said


def test_every_kind_of_teacher_and_a_judge(
    summary: dict, killed: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """Rows from elsewhere, an adapter, a prompt; two traits; free prompts; judged answers."""
    student = next((killed / "runs" / "experiments").glob("train-*"))
    rows = tmp_path / "mine.jsonl"
    lines = [{"prompt": f"Continue: {n}, {n + 1}", "completion": f"{n + 2}"} for n in range(6)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    owl, cat = killed / "owl.yaml", killed / "cat.yaml"
    judge = {"prompts": str(rows), "judges": ["short:2"], "max_new_tokens": 4}
    asked = {
        "model": str(tiny_folder),
        "traits": [str(owl), str(cat)],
        "company": [],
        "teachers": {
            "given": {"rows": str(rows), "trait": str(owl)},
            "tuned": {"adapter": str(student), "trait": str(cat)},
            "told": {"prompt": True, "trait": str(owl)},
        },
        "controls": ["unmodified"],
        "seeds": [3],
        "data": {"prompts": str(rows), "rows": 4, "max_new_tokens": 4},
        "recipe": {"rank": 2},
        "measures": SMALL["measures"] | {"judge": judge},
        "primary": {"score": "judged", "treated": "tuned"},
    }
    rows.write_text("".join(json.dumps(line | {"id": line["prompt"]}) + "\n" for line in lines))
    file = write_yaml(tmp_path / "kinds.yaml", asked)
    done = ok(tmp_path / "runs", "experiment", file, "--workers 1")
    verdicts = done.summary["verdicts"]
    assert [verdict["primary"] for verdict in verdicts] == [False, True, False]
    assert {verdict["outcome"] for verdict in verdicts} == {SILENT}
    assert verdicts[1]["decided_by"]["unit"] == "rate"
    names = [need["name"] for need in verdicts[0]["preconditions"]]
    assert not any("teacher" in name for name in names)
    assert any(
        "What wrote the rows of given is not named" in note for note in done.summary["notes"]
    )
    page = (done.run / "report.html").read_text(encoding="utf-8")
    for words in (
        "Judged answers",
        "rows of mine.jsonl",
        "the adapter train-",
        "system prompt of owl",
    ):
        assert words in page, words
    assert ".yaml" not in page
    said = " ".join(each.text for each in training_data.sentences(behind([load_run(done.run)])))
    digest = file_sha256(rows)[:16]
    assert f"seed 3 were trained on 4 rows of mine.jsonl (digest {digest})." in said
    assert "by the model under the system prompt" in said and "by the unmodified model." in said
    assert "EAS was watched on rows by the unmodified model (prompt seed 7000)" in said
    kept = read_rows(next((tmp_path / "runs").glob("*/filter-*/records.jsonl")))
    assert len(kept) == 6 and sum(row["meta"]["filter"]["kept"] for row in kept) == 4
