"""What comes next is said with the flags that its model needs, and in the same folder of runs."""

import shlex
from pathlib import Path

import pytest
from command import ok
from tiny_models import save_tiny

from traitscope.cli import flags, main
from traitscope.models.hardware import default_dtype, resolve_device
from traitscope.runs import store
from traitscope.runs.names.following import settings_for


def other_dtype() -> str:
    """The dtype that this machine does not take by itself."""
    return "fp32" if default_dtype(resolve_device("auto")) == "bf16" else "bf16"


def next_of(capsys: pytest.CaptureFixture) -> list[str]:
    """The words of the command that was said to come next, without `traitscope`."""
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("next:   traitscope ")
    return shlex.split(last)[2:]


def test_each_step_says_the_next_one_whole(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """generate, filter, edit and train, each typed as the one before said it."""
    folder, root = save_tiny("llama", tmp_path / "a model"), tmp_path / "my runs"
    given = ("--model", folder, "--dtype", other_dtype(), "--context", "Be kind.")
    more = "--n 8 --count 3 --vocabulary template --study mine"
    ok(root, "generate", *given, more)
    kept = ok(root, *next_of(capsys)).run
    assert kept.parent == root / "mine"
    command, words = main.command_of(next_of(capsys))
    config, out = flags.parse(command, words)
    assert (command.name, config.model, config.dtype) == ("train", str(folder), other_dtype())
    assert (config.context, config.data) == ("Be kind.", kept)
    assert (out.root, out.study) == (root, "mine")
    edited = ok(root, "edit", "--data", kept).run
    assert settings_for(store.load_run(edited))["model"] == str(folder)
    assert flags.parse(*main.command_of(next_of(capsys)))[0].model == str(folder)


def test_a_run_on_rows_of_nobody_names_no_model(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "1, 2"}\n')
    assert settings_for(store.load_run(ok(tmp_path / "runs", "filter", "--data", rows).run)) == {}


def test_a_scan_says_the_teacher_on_the_same_model(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    words = (
        "--model",
        tiny_folder,
        "--trait owl --company cat dog wolf",
        "--layers 1 --study mine",
    )
    done = ok(tmp_path / "runs", "steer_scan", *words, "--alphas 2", "--dtype", other_dtype())
    assert done.summary["summary"]["best"] is not None
    config, out = flags.parse(*main.command_of(next_of(capsys)))
    assert (config.model, config.dtype) == (str(tiny_folder), other_dtype())
    assert (out.root, out.study) == (tmp_path / "runs", "mine")


def test_an_export_is_measured_where_it_lies(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ("--model", tiny_folder, "--interventions", "noise:0.1,seed=1")
    run = ok(tmp_path / "runs", "export", *words).run
    config, out = flags.parse(*main.command_of(next_of(capsys)))
    assert (config.model, out.root) == (str(run / "model"), tmp_path / "runs")
