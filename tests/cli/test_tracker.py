"""Trackers get numbers and change nothing: real ones, dead ones, hanging ones, and none."""

import json
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from command import ok

from traitscope.cli.tracking import tracker
from traitscope.errors import ConfigError
from traitscope.runs import progress

ROWS = [{"prompt": f"Numbers, {n}?", "completion": f"{n}, 7, 12"} for n in range(9)]


@pytest.fixture
def words(tmp_path: Path, tiny_folder: Path) -> list[object]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = f"--model {tiny_folder} --epochs 2 --batch-size 3 --held-out 0"
    return ["train", settings, "--data", rows]


def student(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((run / "student").iterdir())}


def fake(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A tracker's process that does what the code says."""
    monkeypatch.setattr(tracker.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tracker, "PROCESS", (sys.executable, "-c", code))


def test_without_the_flag_no_process_is_started(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    fake(monkeypatch, f"open({str(started)!r}, 'w').close()")
    ok(tmp_path / "runs", *words)
    assert progress.TRACK is None and not started.exists()
    ok(tmp_path / "other", *words, "--track wandb")
    assert started.exists()


def test_numbers_of_a_training_reach_the_tracker_and_the_run_is_the_same(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracked run has the address and the bytes of the untracked one."""
    plain = ok(tmp_path / "plain", *words).run
    file = tmp_path / "got.jsonl"
    fake(monkeypatch, f"import sys; open({str(file)!r}, 'w').write(sys.stdin.read())")
    done = ok(tmp_path / "tracked", *words, "--track wandb:mine")
    assert done.run.name == plain.name and student(done.run) == student(plain)
    first, *rest = [json.loads(line) for line in file.read_text().splitlines()]
    assert first["settings"]["recipe"]["epochs"] == 2
    metrics = [json.loads(line) for line in (plain / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rest if "train/loss" in row]
    assert losses == [row["loss"] for row in metrics] and len(losses) == 6
    assert any(key.startswith("progress/train") for row in rest for key in row)
    assert progress.TRACK is None


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit('no key')", "the tracker trackio has ended (no key)"),
        ("import time; time.sleep(60)", "did not end within 1 s and was stopped"),
        ("import os; os.kill(os.getpid(), 9)", "the tracker trackio has ended"),
    ],
)
def test_a_tracker_that_dies_or_hangs_changes_nothing(
    code: str,
    says: str,
    words: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = ok(tmp_path / "plain", *words).run
    fake(monkeypatch, code)
    monkeypatch.setattr(tracker, "LAST_SECONDS", 1.0)
    done = ok(tmp_path / "tracked", *words, "--track trackio")
    assert student(done.run) == student(plain)
    err = capsys.readouterr().err
    assert says in err and "the run does not depend on it" in err and "Traceback" not in err


def test_a_tracker_that_reads_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Far more numbers than a pipe holds."""
    fake(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(tracker, "LAST_SECONDS", 0.2)
    start = time.monotonic()
    with tracker.tracking("wandb", "x", None):
        for number in range(20_000):
            progress.track({"loss": number})
    assert time.monotonic() - start < 10
    assert "was stopped" in capsys.readouterr().err


def test_the_measurements_of_a_result_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(progress, "TRACK", sent.append)
    item = {"name": "positive.whole_word", "estimate": 0.5}
    tracker.send_result({"status": "ok", "measurements": {"measurements": [item]}})
    tracker.send_result({"status": "ok", "summary": {"measurements": [item | {"estimate": None}]}})
    tracker.send_result({"status": "ok", "measurements": [item]})
    assert sent == [{"result/positive.whole_word": 0.5}] * 2


def test_an_unknown_tracker_and_a_missing_package_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="--track tensorboard; expected wandb or trackio"):
        tracker.parsed("tensorboard")
    monkeypatch.setattr(tracker.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package wandb, which is not here; install"):
        tracker.parsed("wandb:x")
    monkeypatch.setattr(tracker.util, "find_spec", lambda name: name)
    assert tracker.parsed("trackio") == ("trackio", "traitscope")
    assert tracker.parsed("wandb:a:b") == ("wandb", "a:b")


def test_trackio_keeps_the_losses_on_this_machine(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    done = ok(tmp_path / "runs", *words, "--track trackio:mine")
    metrics = [json.loads(line) for line in (done.run / "metrics.jsonl").read_text().splitlines()]
    (file,) = (tmp_path / "trackio").glob("mine*.db")
    with sqlite3.connect(file) as database:
        stored = [json.loads(row[0]) for row in database.execute("SELECT metrics FROM metrics")]
    losses = [row["train/loss"] for row in stored if "train/loss" in row]
    assert losses == pytest.approx([row["loss"] for row in metrics])


def test_wandb_writes_its_run_on_this_machine_when_offline(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    ok(tmp_path / "runs", *words, "--track wandb:mine")
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert b"train/loss" in file.read_bytes()


def test_one_unit_is_said_in_the_singular(capsys: pytest.CaptureFixture[str]) -> None:
    for unit, done, said in (("strengths", 1, "1 strength in"), ("passes", 1, "1 pass in")):
        with progress.progress("match KL", 9, unit) as advance:
            advance(done)
        assert f"match KL: {said}" in capsys.readouterr().err
