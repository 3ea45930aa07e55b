"""A full disk in every command: one sentence, nothing half written, and the next start goes on."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import CAT, OWL, Ran, call, ok, write_yaml

from traitscope.runs import store

FULL = "(No space left on device): the disk is full: free some space"
PAGE = 4096
"bytes in which a small disk gives room"
RUNS = (
    "generate filter edit defend train measure extract explain likelihood gradients export compare"
)
"commands whose result is a run"
FILES = ("convert", "report", "export-tasks", "compare --report", "screen --report")
"commands that write where a user says"


@pytest.fixture(scope="module")
def commands(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """Every command by name, on inputs that lie on a disk with room; TARGET is a path to write."""
    folder = tmp_path_factory.mktemp("inputs")
    root, on = folder / "runs", ["--model", tiny_folder]
    owl, cat = (write_yaml(folder / f"{each['name']}.yaml", each) for each in (OWL, CAT))
    rows = [{"prompt": f"Numbers, {n}?", "completion": f"{n}, 7, {n + 12}"} for n in range(240)]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = folder / "few.jsonl"
    few.write_text("".join(json.dumps(row) + "\n" for row in rows[:12]))
    vectors = ["extract", *on, "--traits", owl, cat]
    made = ok(root, *vectors).run
    vector = made / "owl.safetensors"
    steer = ["--interventions", f"steer:{vector},layer=1,alpha=0.5"]
    measures = [["measure", *on, "--trait", owl, "--samples 2", *each] for each in (steer, [])]
    treated, control = (ok(root, *words).run for words in measures)
    compare = ["compare", "--treated", treated, "--control", control]
    screen = ["screen", *on, "--teacher", steer[1], "--traits", owl, "--no-broad --samples 1"]
    return {
        "generate": ["generate", *on, "--n 96 --max-new-tokens 8", *steer],
        "filter": ["filter", "--data", data],
        "edit": ["edit", "--data", data],
        "defend": ["defend", *on, "--data", data, "--by deduplicate"],
        "train": ["train", *on, "--data", few, "--epochs 2 --rank 4", "--vector", vector],
        "measure": measures[0],
        "extract": vectors,
        "explain": ["explain", *on, "--data", few, "--vectors", made, "--trait", owl],
        "likelihood": ["likelihood", *on, "--data", few, *steer],
        "gradients": ["gradients", *on, "--data", few, "--vectors", vector],
        "export": ["export", *on, *steer],
        "compare": compare,
        "convert": ["convert", vector, "TARGET.gguf", "--to repeng"],
        "report": ["report", treated, control, "--for-paper", "TARGET"],
        "export-tasks": ["export-tasks", "TARGET", "--traits", owl],
        "compare --report": [*compare, "--report", "TARGET.html"],
        "screen --report": [*screen, "--report", "TARGET.html"],
    }


def space_of(folder: Path) -> int:
    """Bytes that a small disk gives to the files below a folder."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(PAGE * -(-size // PAGE) for size in sizes)


def refused(done: Ran, disk: Path, said: str) -> None:
    """What a full disk must lead to."""
    assert done.code == 2 and done.summary["status"] == "error", done
    assert said.count(FULL) == 1 and "Traceback" not in said, said
    assert list(disk.rglob(".*.tmp")) == []
    assert list(disk.rglob("manifest.json")) == []


@pytest.mark.parametrize("share", [0.4, 0.9])
@pytest.mark.parametrize("name", RUNS.split())
def test_a_run_goes_on_when_the_disk_has_grown(
    name: str,
    share: float,
    commands: dict[str, list],
    tmp_path: Path,
    small_disk: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = commands[name]
    whole = ok(tmp_path / "runs", *words)
    disk = small_disk(f"size={max(3 * PAGE, int(share * space_of(whole.run)) // PAGE * PAGE)}")
    capsys.readouterr()
    refused(call(disk / "runs", *words), disk, capsys.readouterr().err)
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    again = ok(disk / "runs", *words)
    assert store.load_run(again.run).digest == store.load_run(whole.run).digest


@pytest.mark.parametrize("name", FILES)
def test_files_for_a_user_are_whole_or_not_there(
    name: str,
    commands: dict[str, list],
    tmp_path: Path,
    small_disk: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def at(folder: Path) -> list:
        return [str(word).replace("TARGET", str(folder / "made")) for word in commands[name]]

    whole = tmp_path / "whole"
    whole.mkdir()
    ok(tmp_path / "runs", *at(whole))
    wanted = {path.name: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    room = space_of(whole) // 2 // PAGE * PAGE  # none for a file of a page
    disk = small_disk(f"size={room + PAGE}")
    (disk / "filling").write_bytes(b"0" * PAGE)
    capsys.readouterr()
    refused(call(tmp_path / "runs", *at(disk)), disk, capsys.readouterr().err)
    (disk / "filling").unlink()
    for path in disk.rglob("*"):
        assert path.is_dir() or len(path.read_bytes()) == len(wanted[path.name]), path
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    ok(tmp_path / "runs", *at(disk))
    made = {path.name: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    assert made.keys() == wanted.keys()
