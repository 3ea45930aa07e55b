"""Killed, started twice, out of space, read-only: the same command again gives what an undisturbed
run gives.

A command is killed while its run directory is unsealed and holds what the test waits for.
"""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import CAT, ENV, OWL, Ran, Started, call, ok, read_rows, spread, write_yaml

from traitscope import array_files
from traitscope.cli import main
from traitscope.data.records import read_records
from traitscope.errors import StoreError
from traitscope.inference.token_rows import rows_from
from traitscope.models.loading import load_model
from traitscope.runs import store

STEPS = 80


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trait, many rows of numbers to filter and fewer to train on."""
    folder = tmp_path_factory.mktemp("reliability")
    write_yaml(
        folder / "owl.yaml", OWL | {"questions": OWL["questions"] | {"positive": questions(150)}}
    )
    (folder / "many.jsonl").write_text(rows(20_000))
    (folder / "few.jsonl").write_text(rows(160))
    return folder


def questions(n: int) -> list[str]:
    return [f"Which animal is number {i}?" for i in range(n)]


def rows(n: int) -> str:
    return "".join(
        json.dumps({"prompt": f"Question {i}?", "completion": f"{i % 900}, 7, 12"}) + "\n"
        for i in range(n)
    )


def command(stage: str, place: Path, model: Path) -> list:
    """A command that takes a second or more once its run directory is there."""
    on = ["--model", model]
    match stage:
        case "generate":
            return ["generate", *on, "--n 512 --max-new-tokens 24 --batch-size 32"]
        case "filter":
            return ["filter", "--data", place / "many.jsonl"]
        case "train":
            recipe = (
                "--epochs 4 --batch-size 8 --rank 4 --lr 1e-3 --resume-every 5 --held-out 0"
                f" --max-rows {2 * STEPS}"
            )
            return ["train", *on, "--data", place / "few.jsonl", recipe, "--checkpoint-every", "30"]
        case "measure":
            return ["measure", *on, "--trait", place / "owl.yaml", "--samples 8 --batch-size 16"]
        case "extract":
            adapter = ok(
                place / "runs",
                "train",
                *on,
                "--data",
                place / "few.jsonl",
                "--epochs",
                "1",
                "--max-rows",
                "8",
            )
            return [
                "extract",
                *on,
                "--interventions",
                f"adapter:{adapter.run}",
                "--n 300 --batch-size 2",
            ]
    raise ValueError(stage)


@pytest.fixture(scope="module")
def undisturbed(place: Path, tiny_folder: Path) -> Callable[[str], Ran]:
    """By stage, the run that nothing happened to."""
    made: dict[str, Ran] = {}

    def of(stage: str) -> Ran:
        if stage not in made:
            made[stage] = ok(place / "runs", *command(stage, place, tiny_folder))
        return made[stage]

    return of


def kill_when(root: Path, words: list, ready: Callable[[Path], bool]) -> Path:
    """Start a command and kill it as soon as `ready(its run directory)`; returns that directory,
    unsealed."""
    process = Started(root, *words)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert process.running, f"ended before it could be killed: {process.stderr}"
            folders = list((root / "default").glob(f"{words[0]}-*"))
            if folders and (folders[0] / "config.json").exists() and ready(folders[0]):
                process.send(signal.SIGKILL)
                assert process.finish().code == -signal.SIGKILL
                assert not (folders[0] / "manifest.json").exists(), (
                    "it was sealed before it could be killed"
                )
                return folders[0]
            time.sleep(0.002)
        raise AssertionError("nothing to see within five minutes")
    finally:
        process.process.kill()
        process.process.join()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def at_once(_: Path) -> bool:
    return True


def after(seconds: float) -> Callable[[Path], bool]:
    """A while after the directory was first seen."""
    seen: list[float] = []

    def ready(_: Path) -> bool:
        seen.append(time.monotonic())
        return seen[-1] - seen[0] >= seconds

    return ready


@pytest.mark.parametrize(
    ("stage", "ready"),
    [("filter", at_once), ("measure", after(0.2)), ("extract", after(0.1))],
    ids=lambda v: str(v)[:8],
)
def test_a_killed_run_is_made_again(stage, ready, place, tiny_folder, tmp_path, undisturbed):
    """What it had written is moved aside; a folder with its config alone is taken over."""
    words, root = command(stage, place, tiny_folder), tmp_path / "runs"
    folder = kill_when(root, words, ready)
    had_results = [path.name for path in folder.iterdir()] != ["config.json"]
    assert call(root, "show", folder).code == 2
    again = ok(root, *words)
    assert again.summary["computed"] is True
    assert again.run == folder
    assert again.summary["digest"] == undisturbed(stage).summary["digest"]
    aside = [p.name for p in folder.parent.glob("*.stale-*")]
    assert aside == ([f"{folder.name}.stale-1"] if had_results else [])


def test_killed_generation_keeps_its_finished_rows(
    place, tiny_folder, tmp_path, undisturbed, capsys
):
    words, root = command("generate", place, tiny_folder), tmp_path / "runs"
    folder = kill_when(root, words, lambda run: len(list(run.glob("scratch/rows-*.jsonl"))) >= 1)
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("scratch/rows-*.jsonl")}
    assert len(kept) == 1
    capsys.readouterr()
    again = ok(root, *words)
    done = int(re.search(r"generate: (\d+) rows in", capsys.readouterr().err)[1])
    assert done == 512 - 256 * len(kept), "rows were answered twice"
    assert again.summary["digest"] == undisturbed("generate").summary["digest"]
    assert not (folder / "scratch").exists()


@pytest.mark.parametrize("step", [1, 34], ids=["before-the-first-state", "behind-a-checkpoint"])
def test_killed_training_continues(step, place, tiny_folder, tmp_path, undisturbed, capsys):
    words, root = command("train", place, tiny_folder), tmp_path / "runs"
    folder = kill_when(root, words, lambda run: lines(run / "metrics.jsonl") >= step)
    written = read_rows(folder / "metrics.jsonl")
    saved = 5 * (
        (len(written) - 1) // 5
    )  # at least: the state of the last step itself may be on disk or not
    model, records = load_model(str(tiny_folder), "cpu", "fp32"), read_records(place / "few.jsonl")
    per_epoch = sum(len(row.ids) for row in rows_from(model, records, None))
    capsys.readouterr()
    again = ok(root, *words)
    tokens = int(re.search(r"train sampled: (\d+) tokens in", capsys.readouterr().err)[1])
    whole = undisturbed("train")
    assert again.summary["digest"] == whole.summary["digest"]
    assert read_rows(again.run / "metrics.jsonl")[: len(written)] == written
    total = 4 * per_epoch
    assert tokens <= total * (1 - saved / STEPS) + 0.1 * total, (
        f"{tokens} of {total} tokens after step {len(written)}"
    )
    assert (folder / "checkpoints/step-000030/adapter_model.safetensors").exists()
    assert not (folder / "scratch").exists()


def test_two_at_once_compute_once(place, tiny_folder, tmp_path, undisturbed):
    words, root = command("train", place, tiny_folder), tmp_path / "runs"
    both = [process.finish() for process in [Started(root, *words), Started(root, *words)]]
    assert [done.code for done in both] == [0, 0], both
    assert sorted(done.summary["computed"] for done in both) == [False, True]
    digests = {done.summary["digest"] for done in both}
    assert digests == {undisturbed("train").summary["digest"]}
    assert list((root / "default").glob("*.stale-*")) == []


@pytest.mark.parametrize("stage", ["generate", "filter", "train", "measure", "extract"])
def test_a_flipped_byte_is_named(stage, undisturbed, place, tmp_path, capsys):
    run = tmp_path / undisturbed(stage).run.name
    subprocess.run(["cp", "-r", undisturbed(stage).run, run], check=True)
    files = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name != "manifest.json"]
    for file in files:
        data = file.read_bytes()
        place_in_file = len(data) // 3
        file.write_bytes(
            data[:place_in_file] + bytes([data[place_in_file] ^ 4]) + data[place_in_file + 1 :]
        )
        capsys.readouterr()
        assert call(place / "runs", "show", run).code == 1
        assert f"{file} changed" in capsys.readouterr().out
        file.write_bytes(data)
    missing = files[-1].rename(tmp_path / "away")
    assert call(place / "runs", "show", run).code == 1
    assert f"{files[-1]} is missing" in capsys.readouterr().out
    missing.rename(files[-1])
    assert call(place / "runs", "show", run).summary["problems"] == []


@pytest.mark.parametrize("how", ["changed", "missing"])
@pytest.mark.parametrize(
    ("stage", "command"), [("generate", "rerun"), ("filter", "rerun"), ("train", "verify")]
)
def test_a_damaged_run_is_neither_replayed_nor_verified(
    stage, command, how, undisturbed, place, tiny_folder, tmp_path, capsys
):
    run = tmp_path / undisturbed(stage).run.name
    subprocess.run(["cp", "-r", undisturbed(stage).run, run], check=True)
    words = ("rerun", run)
    if command == "verify":
        words = (
            "verify",
            "--model",
            tiny_folder,
            "--students",
            run,
            "--traits",
            place / "owl.yaml",
        )
    for name in sorted(
        {"config.json", *json.loads((run / "manifest.json").read_text())["outputs"]}
    ):
        kept = (run / name).read_bytes()
        (run / name).unlink()
        if how == "changed":
            (run / name).write_bytes(kept + b"\n")
        capsys.readouterr()
        done = call(tmp_path / "runs", *words)
        assert done.code == 2, (name, done)
        if how == "missing" and name == "student/adapter_model.safetensors":
            assert f"{run} names no student" in done.summary["message"]
        else:
            assert f"{run / name} {'is ' * (how == 'missing')}{how}" in done.summary["message"]
        (run / name).write_bytes(kept)


@pytest.mark.parametrize("stage", ["generate", "filter", "train"])
def test_a_full_disk_is_named_and_nothingis_sealed(
    stage, place, tiny_folder, tmp_path, small_disk, undisturbed, capsys
):
    disk, words = small_disk("size=100k"), command(stage, place, tiny_folder)
    done = call(disk / "runs", *words)
    assert done.code == 2
    assert (
        "the disk is full: free some space, then run the same command again"
        in capsys.readouterr().err
    )
    assert list(disk.rglob("manifest.json")) == []
    for file in disk.rglob("*.jsonl"):
        assert all(json.loads(line) for line in file.read_text().splitlines()), (
            "half a row was left"
        )
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    again = ok(disk / "runs", *words)
    assert again.summary["digest"] == undisturbed(stage).summary["digest"]


@pytest.fixture(scope="module")
def audit_words(place: Path, tiny_folder: Path) -> list:
    """An audit of rows that the model wrote."""
    prompts = place / "prompts.txt"
    prompts.write_text("".join(f"{n}, {3 * n % 97}:\n" for n in range(48)))
    how = "--count 6 --vocabulary template --prompts"
    rows = ok(place / "runs", "generate", "--model", tiny_folder, how, prompts).run
    traits = [write_yaml(place / f"{t['name']}-audit.yaml", t) for t in (OWL, CAT)]
    small = "--workers 1 --dose 1 --no-spike-ins"
    return ["audit", rows, "--model", tiny_folder, "--traits", *traits, small]


@pytest.fixture(scope="module")
def undisturbed_audit(place: Path, audit_words: list) -> str:
    """The digest of its answer."""
    return answer_of(call(place / "runs", *audit_words))


def answer_of(done: Ran) -> str:
    assert done.code == 0, done
    return store.load_run(done.run).digest


@pytest.mark.parametrize("size", ["100k", "468k", "1560k", "1588k", "2m"])
def test_an_audit_goes_on_when_the_disk_has_grown(
    size, audit_words, small_disk, undisturbed_audit, capsys
):
    """At these sizes it ends in the weights of a learner, in learners.npy, in the arrays of row
    gradients, between two lines of token scores, and at a candidate."""
    disk = small_disk(f"size={size}")
    assert call(disk / "runs", *audit_words).code == 2
    assert "(No space left on device): the disk is full: free some space" in capsys.readouterr().err
    assert list(disk.rglob("*.tmp")) == []
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    assert answer_of(call(disk / "runs", *audit_words)) == undisturbed_audit


def test_arrays_that_a_disk_cannot_hold(small_disk):
    """Also one that is larger than the disk from the start, and one that is written row by row."""
    disk = small_disk("size=64k")
    rows = np.ones((8, 8192), dtype=np.float32)
    for write in (
        lambda: array_files.write_array(disk / "a.npy", rows),
        lambda: array_files.write_arrays(disk / "a.npz", {"a": rows}),
        lambda: array_files.write_rows(disk / "a.npy", rows.shape, rows.dtype, rows),
    ):
        with pytest.raises(StoreError, match="the disk is full: free some space"):
            write()
        assert list(disk.iterdir()) == []


def code_of(*words: object) -> int:
    """The exit code of a command that writes no summary."""
    with pytest.raises(SystemExit) as stop:
        main.main(spread(words))
    return int(stop.value.code or 0)


def test_a_full_disk_leaves_no_empty_run(place, tiny_folder, small_disk, capsys):
    disk = small_disk("size=12k")  # a page is left, which the lock takes
    (disk / "filling").write_bytes(b"0" * 8192)
    assert code_of(*command("filter", place, tiny_folder), "--root", disk / "runs") == 2
    assert "(No space left on device): the disk is full" in capsys.readouterr().err
    assert [path.name for path in disk.iterdir()] == ["filling"]


def test_a_read_only_folder_is_named(place, tiny_folder, small_disk, capsys):
    disk = small_disk("size=1m")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert code_of(*command("filter", place, tiny_folder), "--root", disk / "runs") == 2
    says = "read-only, or not permitted: choose a folder that you can write to"
    assert says in capsys.readouterr().err
    study = ["study", "run", "steering_gradients", "--size", "smoke", "--model", tiny_folder]
    assert code_of(*study, "--root", disk / "runs") == 2
    assert capsys.readouterr().err.count(says) == 1
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("root", "words"),
    [("/proc/nowhere/runs", "cannot write"), ("FILE/runs", "a file is where a folder")],
)
def test_a_place_that_is_no_folder_is_named(root, words, place, tiny_folder, tmp_path, capsys):
    (tmp_path / "FILE").write_text("a file")
    target = tmp_path / "summary.json"
    folder = Path(root if root.startswith("/") else tmp_path / root)
    for stage in ("filter", "train"):
        with pytest.raises(SystemExit) as stop:
            main.main(
                [
                    *spread(command(stage, place, tiny_folder)),
                    "--root",
                    str(folder),
                    "--json",
                    str(target),
                ]
            )
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
        assert json.loads(target.read_text())["error"] == "StoreError"
    assert (tmp_path / "FILE").read_text() == "a file"


def test_a_summary_that_cannot_be_written_loses_no_run(place, tmp_path, small_disk, capsys):
    full = small_disk("size=8k") / "summary.json"
    (full.parent / "filling").write_bytes(b"0" * 8192)
    words = [
        "filter",
        "--data",
        str(place / "few.jsonl"),
        "--root",
        str(tmp_path / "runs"),
        "--json",
        str(full),
    ]
    with pytest.raises(SystemExit) as stop:
        main.main(words)
    assert stop.value.code == 2
    assert f"cannot write {full} (No space left on device)" in capsys.readouterr().err
    assert len(list(tmp_path.rglob("manifest.json"))) == 1


def test_interrupted_by_hand_says_how_to_continue(place, tiny_folder, tmp_path):
    root, words = tmp_path / "runs", command("train", place, tiny_folder)
    process = Started(
        root, *words, "--epochs", "60"
    )  # long enough that the signal cannot come too late
    deadline = time.monotonic() + 300
    while (
        not any(lines(p) >= 3 for p in root.rglob("metrics.jsonl")) and time.monotonic() < deadline
    ):
        time.sleep(0.005)
    process.send(signal.SIGINT)
    assert process.finish().code == 130
    assert (
        process.stderr.splitlines()[-1]
        == "traitscope: interrupted; run the same command again to continue"
    )


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")
def test_a_killed_study_leaves_no_process_and_goes_on(tiny_folder: Path, tmp_path: Path) -> None:
    """Workers end with their parent, and so does everything else that it started; what was sealed
    is not made again."""
    words = [
        "study",
        "run",
        "steering_gradients",
        "--size",
        "smoke",
        "--model",
        str(tiny_folder),
        "--root",
        str(tmp_path),
    ]
    command = [sys.executable, "-m", "traitscope", *words, "--workers", "2"]
    study = tmp_path / "study-steering_gradients-smoke"
    with subprocess.Popen(
        command, env=ENV, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        for _ in range(3000):
            time.sleep(0.1)
            if list(study.glob("*/manifest.json")):
                break
        assert len(session(process.pid)) >= 3
        process.kill()
    sealed = {path.parent.name: path.stat().st_mtime_ns for path in study.glob("*/manifest.json")}
    assert 0 < len(sealed) < 11
    for _ in range(100):
        if not session(process.pid):
            break
        time.sleep(0.1)
    assert session(process.pid) == []
    ok(tmp_path, *words[:-2], "--workers", 1)
    assert all(
        (study / name / "manifest.json").stat().st_mtime_ns == when for name, when in sealed.items()
    )


def session(leader: int) -> list[str]:
    """Processes of a session that are still running."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(path.parent.name)
    return found
