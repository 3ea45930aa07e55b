"""No path that a command writes is a file that it reads."""

import json
import os
from pathlib import Path

import pytest
from command import call, ok

from traitscope.cli import main

ROW = '{"prompt": "1?", "completion": "1, 2"}\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with files that commands read."""
    monkeypatch.chdir(tmp_path)
    for name in ("n.jsonl", "clean.jsonl", "v.safetensors", "adapter/adapter_config.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(ROW)
    Path("linked.jsonl").symlink_to("n.jsonl")
    os.link("n.jsonl", "twin.jsonl")
    Path("mine.yaml").write_text("data: n.jsonl\n")
    Path("broken.yaml").write_text("data: n.jsonl\nrulez: 1\n")
    Path("design.yaml").write_text("teachers: {cat: {rows: n.jsonl}}\ncontrols: [unmodified]\n")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "filter --data n.jsonl --json n.jsonl",
        "filter --data n.jsonl --json=n.jsonl",
        "filter --data n.jsonl --json ./adapter/../n.jsonl",
        "filter --data n.jsonl --json linked.jsonl",
        "filter --data linked.jsonl --json twin.jsonl",
        "filter --data clean.jsonl --more n.jsonl --json n.jsonl",
        "filter --data n.jsonl --no-such-flag --json n.jsonl",
        "filter mine.yaml --json mine.yaml",
        "filter mine.yaml --json n.jsonl",
        "filter broken.yaml --json n.jsonl",
        "experiment plan design.yaml --json n.jsonl",
        "experiment plan design.yaml --example design.yaml",
        "defend --data n.jsonl --by mix --known clean:clean.jsonl --json clean.jsonl",
        "defend --data n.jsonl --by mix --known clean:clean.jsonl --report clean.jsonl",
        "defend --data n.jsonl --by wash --report n.jsonl",
        "audit n.jsonl --sarif n.jsonl",
        "measure --interventions steer:v.safetensors,layer=1 --json v.safetensors",
        "measure --interventions adapter:adapter --json adapter/adapter_config.json",
        "convert v.safetensors v.safetensors --to numpy",
    ],
)
def test_a_file_that_is_read_is_not_written(
    words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        main.main([*words.split(), "--root", "runs"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "would be written over; name another file" in said, said
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_a_refusal_of_another_file_still_leaves_a_summary(here: Path) -> None:
    done = call(here / "runs", "defend", "--data n.jsonl --by wash --report n.jsonl")
    assert done.code == 2 and "--report n.jsonl" in done.summary["message"]


def test_a_sealed_run_is_not_written_into(here: Path) -> None:
    """But beside its files."""
    run = ok(here / "runs", "filter", "--data n.jsonl --name kept").run
    before = (run / "records.jsonl").read_bytes()
    for words in ("--data kept", "--data clean.jsonl"):
        with pytest.raises(SystemExit) as stop:
            main.main(
                ["filter", *words.split(), "--root", "runs", "--json", f"{run}/records.jsonl"]
            )
        assert stop.value.code == 2 and (run / "records.jsonl").read_bytes() == before
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            main.main(["filter", "--data", "kept", "--root", "runs", "--json", "summary.json"])
        assert stop.value.code == 0 and json.loads(Path("summary.json").read_text())
