"""Experiments about a behaviour: its first judge decides, and what it cannot have is refused."""

import json
import math
import shlex
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from command import CAT, OWL, call, ok, read_rows, write_yaml

from traitscope.cli import flags, main
from traitscope.config.commands import ExperimentConfig
from traitscope.config.common import Output
from traitscope.reporting.verdict import SHOWS_BEHAVIOUR, above_zero
from traitscope.stats.estimates import measure
from traitscope.studies.experiment import command
from traitscope.studies.experiment.command import request_of
from traitscope.workflow import graph

JUDGE = "short:3"
SMALL = {
    "data": {
        "rows": 4,
        "numbers": 3,
        "vocabulary": "numbers",
        "filter": "none",
        "max_new_tokens": 8,
    },
    "recipe": {"targets": "soft", "rank": 4, "lr": 0.01, "epochs": 8},
    "measures": {"samples": 2, "perplexity": False, "sets": ["positive"], "max_new_tokens": 6},
}


def written(folder: Path, model: Path, **changes: object) -> Path:
    """Write an experiment about brevity, and return its file."""
    behaviour = {key: CAT[key] for key in ("teacher_prompt", "questions")}
    behaviour |= {"name": "brevity", "judges": [JUDGE, "not:question"]}
    write_yaml(folder / "brevity.yaml", behaviour)
    write_yaml(folder / "owl.yaml", OWL)
    asked = {
        "model": str(model),
        "traits": [str(folder / "brevity.yaml")],
        "company": [str(folder / "owl.yaml")],
        "teachers": {"steered": {"steer": 2}, "nothing": {"interventions": []}},
        "controls": [{"prompt": "You write numbers."}],
        "seeds": 5,
        **SMALL,
    }
    return write_yaml(folder / "brief.yaml", asked | changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("behaviour")
    file = written(folder, tiny_folder)
    return folder, ok(folder / "runs", "experiment", file, "--workers 1").summary


def rates(folder: Path, arm: str) -> list[float]:
    """The rate of every question and student of an arm, from the sealed rows of scores."""
    config = ExperimentConfig(file=folder / "brief.yaml", workers=1, dtype="fp32")
    request = request_of(config, Output(root=folder / "runs"))
    found = []
    for item in graph.plan(request.nodes(), request.out):
        name = item.node.name
        if name.startswith(f"{arm} student, seed ") and name.endswith("answers about brevity"):
            found += [row["judges"][JUDGE] for row in read_rows(item.path / "scores.jsonl")]
    return found


def test_the_first_judge_decides(done: tuple[Path, dict]) -> None:
    folder, summary = done
    verdict = next(each for each in summary["verdicts"] if each["primary"])
    control = "prompt “You write numbers.”"
    assert verdict["claim"] == (
        f"Students of steered show brevity (judge {JUDGE}) more often than students of {control}."
    )
    treated, untreated = rates(folder, "steered"), rates(folder, control)
    assert len(treated) == len(untreated) == 5 * len(CAT["questions"]["positive"])
    decided = verdict["decided_by"]
    expected = statistics.mean(treated) - statistics.mean(untreated)
    assert decided["unit"] == "rate" and decided["estimate"] == pytest.approx(expected)


def test_students_that_answer_as_the_base_does_have_not_moved(done: tuple[Path, dict]) -> None:
    """The student of the model's own distributions answers, drawn alike, word by word as it."""
    _, summary = done
    found = {}
    for verdict in summary["verdicts"]:
        for need in verdict["preconditions"]:
            if need["name"].startswith("the treated students answer otherwise"):
                found[verdict["claim"].split(" show ")[0]] = need
    steered, nothing = found["Students of steered"], found["Students of nothing"]
    questions = len(CAT["questions"]["positive"])
    assert nothing["met"] is False
    assert nothing["found"].startswith(f"0 of {5 * 2 * questions} sampled answers differ")
    assert steered["met"] is True


def test_the_page_speaks_of_judges(done: tuple[Path, dict]) -> None:
    _, summary = done
    page = (Path(summary["run"]) / "report.html").read_text(encoding="utf-8")
    assert f"seen by the judge {JUDGE}" in page
    assert f"the judge {JUDGE} sees the behaviour. A judge may be wrong" in page
    for word in ("favourites", "target_logprob", "candidate_share"):
        assert word not in page


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"primary": {"score": "whole_word"}}, "is a behaviour without words; expected judged"),
        ({"measures": {"samples": 0}}, "the judges of {folder}/brevity.yaml read sampled answers"),
        ({"traits": ["cat", "{folder}/brevity.yaml"]}, "traits hold brevity, scored by judges"),
        ({"traits": ["cat"], "primary": {"score": "judged"}}, "neither traits nor measures have"),
        ({"data": {"filter": "trait-words"}}, "is a behaviour without words; expected none or"),
        (
            {"controls": [{"other-trait": "{folder}/brevity.yaml"}], "teachers": {}},
            "and 'brevity' is the trait of every teacher",
        ),
        ({"company": ["{folder}/brevity.yaml"]}, "is called as one of traits, 'brevity'"),
    ],
)
def test_what_does_not_fit_a_behaviour_is_refused(
    changes: dict, says: str, tmp_path: Path, tiny_folder: Path
) -> None:
    changes = json.loads(json.dumps(changes).replace("{folder}", str(tmp_path)))
    file = written(tmp_path, tiny_folder, **changes)
    refused = call(tmp_path / "runs", "experiment", file)
    assert refused.code == 2
    assert says.format(folder=tmp_path) in refused.summary["message"]
    assert not list((tmp_path / "runs").glob("*/*"))


def test_rows_of_a_prompts_file_are_not_said_to_be_filtered(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """A behaviour has no word that a filter could look for, and the plan says what that means."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Say something.\nSay more.\n")
    data = {"prompts": str(prompts), "rows": 2, "max_new_tokens": 4}
    ok(tmp_path / "runs", "experiment", "plan", written(tmp_path, tiny_folder, data=data))
    said = capsys.readouterr().out
    assert "filter: none" in said
    assert "lacks: No filter looks for the behaviour in the rows" in said


def test_where_the_teacher_lacks_the_behaviour_a_scan_comes_next(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """As for a trait with a word; the command can be typed."""
    file = written(tmp_path, tiny_folder)
    request = request_of(ExperimentConfig(file=file), Output(root=tmp_path / "runs"))
    verdict = {"primary": True, "outcome": "no verdict"}
    verdict |= {"preconditions": [{"name": SHOWS_BEHAVIOUR, "met": False}]}
    said = command._after_run(request.config, request, {"run": "RUN", "verdicts": [verdict]})
    asked, _ = flags.parse(*main.command_of(shlex.split(said)[1:]))
    assert asked.trait == str(tmp_path / "brevity.yaml")
    assert asked.company == (str(tmp_path / "owl.yaml"),)


def test_a_rate_without_an_interval_is_no_number_in_brackets() -> None:
    silent = measure("rise", [0.0, 0.0], [1, 2], unit="rate")
    found = above_zero(replace(silent, low=math.nan, high=math.nan), SHOWS_BEHAVIOUR)
    assert found.found == "+0.000 (no interval) rate" and not found.met
