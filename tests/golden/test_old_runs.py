"""Runs that the first version left (old_runs/) are read, found at their address, and replayed."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, ok, read_rows
from safetensors.numpy import load_file

from traitscope.cli import show
from traitscope.comparison.read_runs import read_model
from traitscope.config.common import Output
from traitscope.runs import lineage, opening, store
from traitscope.stages import registry

OLD = Path(__file__).parent / "old_runs"
RUNS = sorted(path.name for path in (OLD / "runs" / "old").iterdir())
DIGEST = "5eac105d04ecdd0b"
"""Of the tiny model that they were made with."""


@pytest.fixture
def place(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the old runs and the model, which they name as `model`."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model").symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "model_digests", lambda name, same_as: (DIGEST,))
    monkeypatch.setattr(opening, "address_name", lambda name, same_as: name)
    return tmp_path


def named_as_recorded(config: Any, run: store.Run) -> Any:
    """The config with its trait files named as they were, because their names enter the address."""
    recorded = json.loads((run.path / "config.json").read_text())["config"]
    if "traits" in recorded:
        return dataclasses.replace(config, traits=tuple(recorded["traits"]))
    return dataclasses.replace(config, trait=recorded["trait"]) if "trait" in recorded else config


def path_of(place: Path, stage: str) -> Path:
    (path,) = (place / "runs" / "old").glob(f"{stage}-*")
    return path


@pytest.mark.parametrize("name", RUNS)
def test_it_is_whole_and_found_at_its_address(name: str, place: Path) -> None:
    run = store.load_run(place / "runs" / "old" / name)
    assert lineage.verify(run.path) == []
    assert ok(place / "new", "show", run.path).summary["lineage"]["state"] == "sealed"
    config = named_as_recorded(show.replayed_config(run), run)
    out = Output(root=place / "runs", study="old")
    assert registry.address(config, out) == run.path
    assert registry.run_stage(config, out).sealed


@pytest.mark.parametrize("stage", ["generate", "filter", "edit"])
def test_rows_are_replayed_to_the_byte(stage: str, place: Path) -> None:
    assert ok(place / "new", "rerun", path_of(place, stage)).summary["different"] == []


def again(place: Path, stage: str) -> tuple[Path, Path]:
    """An old run, and its replay."""
    before = path_of(place, stage)
    config = show.replayed_config(store.load_run(before))
    return before, registry.run_stage(config, Output(root=place / "again")).path


@pytest.mark.parametrize(
    ("stage", "files"),
    [
        ("extract", ["owl.safetensors", "cat.safetensors", "raw/owl.safetensors"]),
        ("train", ["student/adapter_model.safetensors", "v_student.safetensors"]),
    ],
)
def test_numbers_are_replayed_to_rounding(stage: str, files: list[str], place: Path) -> None:
    before, after = again(place, stage)
    for name in files:
        old, new = load_file(before / name), load_file(after / name)
        assert old.keys() == new.keys()
        for key in old:
            np.testing.assert_allclose(new[key], old[key], rtol=1e-4, atol=1e-6, err_msg=name)


def test_answers_are_replayed_to_rounding(place: Path) -> None:
    folders = again(place, "measure")
    before, after = (json.loads((path / "measurements.json").read_text()) for path in folders)
    assert before.keys() == after.keys()
    assert after["perplexity"] == pytest.approx(before["perplexity"], rel=1e-4)
    for old, new in zip(before["measurements"], after["measurements"], strict=True):
        assert (old["name"], old["n"]) == (new["name"], new["n"])
        if old["estimate"] is None:
            assert new["estimate"] is None
        else:
            assert new["estimate"] == pytest.approx(old["estimate"], rel=1e-4, abs=1e-6)


def test_metrics_have_the_same_keys(place: Path) -> None:
    before, after = (read_rows(path / "metrics.jsonl") for path in again(place, "train"))
    assert [row.keys() for row in before] == [row.keys() for row in after]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("stage", "sieve", "a run of 'sieve', which no command of this version makes"),
        ("config", {"data": None, "colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_what_this_version_lacks_is_refused_with_what_to_do(
    key: str, value: object, says: str, place: Path, capsys: pytest.CaptureFixture
) -> None:
    run = path_of(place, "filter")
    name = "manifest.json" if key == "stage" else "config.json"
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(content | {key: value}))
    sealed = json.loads((run / "manifest.json").read_text())
    sealed["config_sha256"] = hashlib.sha256((run / "config.json").read_bytes()).hexdigest()
    (run / "manifest.json").write_text(json.dumps(sealed))
    done = call(place / "new", "rerun", run)
    assert done.code == 2
    message = capsys.readouterr().err
    assert says in message
    assert "it was made by traitscope 0.1.0" in message and "install that to replay it" in message


def test_answers_are_joined_with_the_training_of_their_student() -> None:
    read = read_model(path_of(OLD, "measure")).model
    assert read.name.startswith("train-") and (read.seed, read.targets) == (0, "sampled")
    assert list(read.eas) == ["owl", "cat"]
