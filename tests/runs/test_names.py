"""Names of runs: one name for one run, kept beside the seal, and a name in the place of a path."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from command import OWL, call, ok, write_yaml

from traitscope.config.commands import CompareConfig, RerunConfig
from traitscope.config.rows.defend import DefendConfig
from traitscope.config.screen import ScreenConfig
from traitscope.config.stages import GenerateConfig, MeasureConfig
from traitscope.errors import ConfigError, StoreError
from traitscope.runs import lineage, store
from traitscope.runs.names import labels, lookup
from traitscope.runs.names.labels import Label, label_of, set_label


def sealed(root: Path, seed: int, folder: str = "default") -> Path:
    """A sealed run of a stage `toy`."""
    with store.stage_run(root / folder, "toy", {"seed": seed}) as run:
        run.file("rows.txt").write_text(f"{seed}\n")
    return run.path


def test_a_label_is_no_part_of_the_sealed_run(tmp_path: Path) -> None:
    run = sealed(tmp_path, 1)
    before = store.load_run(run)
    manifest, digest = (run / "manifest.json").read_bytes(), before.digest
    assert set_label(tmp_path, run, "treated-1", "why") == Label("treated-1", "why")
    assert set_label(tmp_path, run, note="other") == label_of(run) == Label("treated-1", "other")
    assert lineage.verify(run) == [] and store.load_run(run).digest == digest
    assert (run / "manifest.json").read_bytes() == manifest
    with store.stage_run(tmp_path / "default", "toy", {"seed": 1}) as again:
        assert again.sealed and again.path == run
    assert set_label(tmp_path, run, "", "") == Label()
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json",
        "manifest.json",
        "rows.txt",
    ]
    assert not (tmp_path / ".locks").exists()


def test_a_name_stands_for_one_run(tmp_path: Path) -> None:
    one, other = sealed(tmp_path, 1), sealed(tmp_path, 2, "elsewhere")
    set_label(tmp_path, one, "cat")
    with pytest.raises(ConfigError, match=f"--name cat is the name of {one}; expected one that"):
        set_label(tmp_path, other, "cat")
    assert label_of(other) == Label()
    set_label(tmp_path, one, "dog")
    set_label(tmp_path, other, "cat")
    names = lookup.Names(tmp_path)
    assert names.path(Path("cat")) == other
    assert names.path(Path("dog/a/b.json")) == one / "a/b.json"


@pytest.mark.parametrize(
    "name", ["", "-x", "a b", "a/b", "..", ".x", "é", "x" * 65, "train-0123456789abcdef", "x\n"]
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected at most 64 letters"):
        labels.check_name(name)


def test_long_notes_and_runs_outside_the_root_are_refused(tmp_path: Path) -> None:
    run = sealed(tmp_path / "a", 1)
    with pytest.raises(ConfigError, match="--note of 2001 characters; expected 2000"):
        set_label(tmp_path / "a", run, note="x" * 2001)
    with pytest.raises(ConfigError, match="does not lie below"):
        set_label(tmp_path / "b", run, "x")


@pytest.mark.parametrize("content", ["{", "[]", '{"name": 1, "note": ""}', '{"name": "x"}'])
def test_a_damaged_label_is_named_and_stops_no_other_name(tmp_path: Path, content: str) -> None:
    run, other = sealed(tmp_path, 1), sealed(tmp_path, 2)
    (run / "label.json").write_text(content)
    set_label(tmp_path, other, "fine")
    assert labels.runs_by_name(tmp_path) == {"fine": [other]}
    with pytest.raises(StoreError, match="is no label of a run .*; delete it"):
        label_of(run)


def test_two_runs_of_one_name_are_refused_with_the_list(tmp_path: Path) -> None:
    """As when the folders of two people are merged."""
    one = sealed(tmp_path, 1)
    set_label(tmp_path, one, "cat")
    shutil.copytree(tmp_path / "default", tmp_path / "theirs")
    twin = tmp_path / "theirs" / one.name
    with pytest.raises(ConfigError, match="cat is the name of 2 runs") as caught:
        lookup.Names(tmp_path).path(Path("cat"))
    assert str(one) in str(caught.value) and str(twin) in str(caught.value)


def test_names_are_found_wherever_a_path_is_taken(tmp_path: Path) -> None:
    run = sealed(tmp_path / "runs", 1)
    set_label(tmp_path / "runs", run, "cat")
    (run / "model").mkdir()

    def resolved(config: object) -> object:
        return lookup.with_runs(config, tmp_path / "runs")

    assert resolved(RerunConfig(run=Path("cat"))) == RerunConfig(run=run)
    both = CompareConfig(treated=(Path("cat"), Path("dog")), control=(Path("cat/x"),))
    assert resolved(both) == CompareConfig(treated=(run, Path("dog")), control=(run / "x",))
    taught = MeasureConfig(
        model="cat/model",
        interventions=("adapter:cat,top=1", "prompt:cat", "steer:cat/cat.s,layer=1"),
    )
    changed = resolved(taught)
    assert changed.model == str(run / "model")
    assert changed.interventions == (
        f"adapter:{run},top=1",
        "prompt:cat",
        f"steer:{run}/cat.s,layer=1",
    )
    known = ("clean:cat", "vector:cat/v.s,layers=1,alpha=0.5", "teacher:cat", "trait:cat", "base")
    assert resolved(DefendConfig(known=known)).known == (
        f"clean:{run}",
        f"vector:{run}/v.s,layers=1,alpha=0.5",
        f"teacher:{run}",
        "trait:cat",
        "base",
    )
    written = CompareConfig(treated=(Path("cat"),), report=Path("cat"))
    assert resolved(written).report == Path("cat")
    assert resolved(MeasureConfig(model="cat")).model == "cat", "a model of that name"
    assert resolved(ScreenConfig(teacher="cat")).teacher == str(run)
    assert resolved(ScreenConfig(teacher="adapter:cat")).teacher == f"adapter:{run}"
    assert resolved(GenerateConfig(model="org/cat")).model == "org/cat"


def test_a_path_that_exists_goes_before_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sealed(tmp_path / "runs", 1)
    set_label(tmp_path / "runs", run, "cat")
    monkeypatch.chdir(tmp_path)
    assert lookup.Names(Path("runs")).path(Path("cat")) == Path("runs/default") / run.name
    (tmp_path / "cat").mkdir()
    assert lookup.Names(Path("runs")).path(Path("cat")) == Path("cat")


def test_a_name_that_is_a_path_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could reach the run by it."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "1?", "completion": "1"}\n')
    monkeypatch.chdir(tmp_path)
    done = call(Path("runs"), "filter", "--data rows.jsonl --name rows.jsonl")
    assert done.code == 2 and "is a file or folder here" in done.summary["message"]
    run = ok(Path("runs"), "filter", "--data rows.jsonl --name kept").run
    done = call(Path("runs"), "show", "kept --name runs")
    assert done.code == 2 and label_of(run).name == "kept"


def _name_for_ever(root: Path, run: Path) -> None:
    number = 0
    while True:
        set_label(root, run, f"name-{number}", "x" * 1000)
        number += 1


def test_a_kill_leaves_one_label_or_the_other(tmp_path: Path) -> None:
    run = sealed(tmp_path, 1)
    context = multiprocessing.get_context("fork")
    for _ in range(8):
        child = context.Process(target=_name_for_ever, args=(tmp_path, run))
        child.start()
        time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        label = label_of(run)
        assert label == Label() or (label.name.startswith("name-") and len(label.note) == 1000)
        assert lineage.verify(run) == [], "what a kill left is no output"
    set_label(tmp_path, run, "after")
    assert label_of(run).name == "after"


def _claim(root: Path, run: Path, barrier: object, queue: object) -> None:
    barrier.wait()
    try:
        set_label(root, run, "one")
        queue.put("named")
    except ConfigError:
        queue.put("refused")


def test_of_two_processes_that_give_one_name_one_is_refused(tmp_path: Path) -> None:
    runs = [sealed(tmp_path, seed) for seed in range(4)]
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(len(runs)), context.Queue()
    children = [
        context.Process(target=_claim, args=(tmp_path, run, barrier, queue)) for run in runs
    ]
    for child in children:
        child.start()
    answers = sorted(queue.get(timeout=30) for _ in runs)
    for child in children:
        child.join()
    assert answers == ["named", "refused", "refused", "refused"]
    assert sum(label_of(run).name == "one" for run in runs) == 1


def test_commands_name_runs_and_take_names(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, model = tmp_path / "runs", f"--model {tiny_folder}"
    trait = write_yaml(tmp_path / "owl.yaml", OWL)
    rows = ok(root, "generate", model, "--n 6 --count 3 --vocabulary template --name rows").run
    assert label_of(rows) == Label("rows")
    train = ("train", model, "--epochs 1 --data rows", "--name student --note", "first try")
    student = ok(root, *train).run
    assert label_of(student) == Label("student", "first try")
    assert not ok(root, *train).summary["computed"], "the same name for the same run"
    base = ok(root, "measure", model, "--samples 0 --trait", trait, "--name base").run
    measured = ("measure", model, "--samples 0 --trait", trait, "--interventions adapter:student")
    after = ok(root, *measured, "--name after").run
    compared = (
        "compare",
        "--treated after --control base --name pair --report",
        tmp_path / "r.html",
    )
    pair = ok(root, *compared).run
    assert json.loads((pair / "config.json").read_text())["inputs"]["treated0"]["path"].endswith(
        after.name
    )
    assert ok(root, *compared).run == pair, "a page elsewhere does not make it another run"
    capsys.readouterr()
    shown = ok(root, "show", "pair").summary
    assert (shown["name"], shown["note"]) == ("pair", "")
    assert "name: pair" in capsys.readouterr().out
    assert ok(root, "rerun", "base").summary["run"] == str(base)
    listed = {row["name"]: row for row in ok(root, "show").summary["listed"]}
    assert listed["student"]["note"] == "first try" and set(listed) == {
        "rows",
        "student",
        "base",
        "after",
        "pair",
    }
    before = len(list(root.glob("default/*")))
    assert call(root, *measured, "--seed 4 --name base").code == 2
    assert f"--name base is the name of {base}" in capsys.readouterr().err
    assert len(list(root.glob("default/*"))) == before, "refused before anything is computed"
    assert call(root, "show", "nobody").code == 2
    assert "a run below --root by its name" in capsys.readouterr().err
    renamed = ok(root, "show", "base", "--name control --note", "the base").summary
    assert (renamed["name"], renamed["note"]) == ("control", "the base")
    assert label_of(base) == Label("control", "the base") and lineage.verify(base) == []
