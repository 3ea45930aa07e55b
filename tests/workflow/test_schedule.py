"""Running a graph: what fails holds up only what needs it, a worker that died is replaced, a limit
is kept, the disk tells the rest."""

import errno
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from command import call, ok, read_rows
from student_nodes import students

from traitscope.config.common import Output
from traitscope.config.stages import FilterConfig
from traitscope.errors import ConfigError, DataError, StoreError
from traitscope.runs import locks, store
from traitscope.workflow import executors, failure_notes, graph, schedule, status
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Node


@pytest.mark.parametrize("workers", [1, 2])
def test_what_fails_holds_up_only_what_needs_it(
    tmp_path: Path, tiny_folder: Path, workers: int, capsys: pytest.CaptureFixture
) -> None:
    out, nodes = (
        Output(root=tmp_path / "runs", study="s"),
        students(tiny_folder, tmp_path, 2, broken=True),
    )
    with pytest.raises(DataError, match=r"broken\.jsonl, line 1: no 'completion'"):
        schedule.run(nodes, out, How(workers))
    assert "failed: broken: " in capsys.readouterr().err
    found = status.status(graph.plan(nodes, out, strict=False), out)
    sealed = dict.fromkeys(["rows", "student 0", "answers 0", "student 1", "answers 1"], "sealed")
    assert found["states"] == sealed | {"broken": "failed", "behind it": "waiting"}


def test_status_and_its_end(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """A failed stage is remembered, with what it said, until it is sealed."""
    file = tmp_path / "later.jsonl"
    file.write_text('{"prompt": "p"}\n')
    nodes = [
        Node("kept", FilterConfig, lambda _: FilterConfig(file)),
        Node("again", FilterConfig, lambda f: FilterConfig(f["kept"]), ("kept",)),
    ]
    out = Output(root=tmp_path / "runs", study="s")
    with pytest.raises(DataError):
        schedule.run(nodes, out, How())
    found = status.status(graph.plan(nodes, out), out)
    assert found["counts"] == {"failed": 1, "waiting": 1} and found["failed"]["kept"]["tried"] == 1
    assert "DataError" in capsys.readouterr().out
    file.write_text('{"prompt": "p", "completion": "123, 456"}\n')
    schedule.run(nodes, out, How())
    assert status.status(graph.plan(nodes, out), out)["counts"] == {
        "sealed": 2
    } and not failure_notes.read(tmp_path / "runs" / "s")
    assert not list(tmp_path.rglob(failure_notes.FAILED)), "an empty folder was left"


def test_several_failures_are_all_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("no row\n")
    nodes = [
        Node(name, FilterConfig, lambda _, name=name: FilterConfig(tmp_path / name))
        for name in ("one", "two")
    ]
    out = Output(root=tmp_path / "runs")
    with pytest.raises(
        DataError, match=r"2 stages failed \(one, two\), the first with: .*one, line 1: broken JSON"
    ):
        schedule.run(nodes, out, How())
    assert failure_notes.read(tmp_path / "runs" / "default").keys() == {"one", "two"}


def test_a_command_that_stops_at_once_says_why_once_and_notes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "one").write_text("no row\n")
    nodes = [Node("one", FilterConfig, lambda _: FilterConfig(tmp_path / "one"))]
    with pytest.raises(DataError, match="one, line 1: broken JSON"):
        schedule.run(nodes, Output(root=tmp_path / "runs"), How(stop_at_once=True))
    assert capsys.readouterr().err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_command_that_stops_at_once_names_one_stage(tmp_path: Path) -> None:
    """Although the settings of two turn out not to work at the same time."""
    good = tmp_path / "good.jsonl"
    good.write_text('{"prompt": "p", "completion": "123, 456"}\n')

    def wrong(_: object) -> FilterConfig:
        raise ConfigError("no such thing")

    nodes = [
        Node("first", FilterConfig, lambda _: FilterConfig(good)),
        Node("one", FilterConfig, wrong, ("first",)),
        Node("two", FilterConfig, wrong, ("first",)),
    ]
    with pytest.raises(ConfigError, match="^no such thing$"):
        schedule.run(nodes, Output(root=tmp_path / "runs"), How(stop_at_once=True))


@pytest.mark.parametrize("stop_at_once", [False, True])
def test_settings_that_cannot_work_are_refused_before_anything_is_computed(
    tmp_path: Path, tiny_folder: Path, stop_at_once: bool, capsys: pytest.CaptureFixture
) -> None:
    nodes = [
        *students(tiny_folder, tmp_path, 1),
        Node("wrong", FilterConfig, lambda _: FilterConfig(tmp_path / "nowhere")),
    ]
    with pytest.raises(DataError, match="nowhere does not exist"):
        schedule.run(nodes, Output(root=tmp_path / "runs"), How(2, stop_at_once=stop_at_once))
    assert not (tmp_path / "runs").exists()
    assert capsys.readouterr().err == ""


def test_a_note_that_was_changed_is_named(tmp_path: Path) -> None:
    note = tmp_path / failure_notes.FAILED / "note.json"
    note.parent.mkdir()
    for text in ("", "[]", '{"node": "a"}', "{"):
        note.write_text(text)
        with pytest.raises(StoreError, match=r"note\.json is no note .* delete it"):
            failure_notes.read(tmp_path)


def test_an_error_of_ours_keeps_its_trace(tmp_path: Path, tiny_folder: Path) -> None:
    nodes = [
        Node("odd", FilterConfig, lambda _: FilterConfig(data=7)),
        *students(tiny_folder, tmp_path, 1),
    ]
    out = Output(root=tmp_path / "runs")
    with pytest.raises((TypeError, AttributeError)) as raised:
        schedule.run(nodes, out, How())
    assert "run_filter" in [entry.name for entry in raised.traceback]


def test_a_limit_ends_it_and_the_next_call_goes_on(tmp_path: Path, tiny_folder: Path) -> None:
    out, nodes = Output(root=tmp_path / "runs"), students(tiny_folder, tmp_path, 2)
    assert len(schedule.run(nodes, out, How(limit=2))) == 2
    assert len(schedule.run(nodes, out, How(limit=2))) == 4
    assert len(schedule.run(nodes, out, How())) == 5


def test_students_of_a_study_are_packed(tmp_path: Path, tiny_folder: Path) -> None:
    """As many as asked for in one pass; their addresses are those of students made alone, their
    numbers to rounding."""
    packed, alone = (Output(root=tmp_path / name) for name in ("packed", "alone"))
    nodes = students(tiny_folder, tmp_path, 3)
    one, other = schedule.run(nodes, packed, How(pack=2)), schedule.run(nodes, alone, How())
    assert [one[f"student {s}"].name for s in range(3)] == [
        other[f"student {s}"].name for s in range(3)
    ]
    sizes = sorted(
        store.load_run(one[f"student {s}"]).manifest()["packed"]
        for s in range(3)
        if "packed" in store.load_run(one[f"student {s}"]).manifest()
    )
    assert sizes == [2, 2], "two together, and one alone, as a run of its own"
    for s in range(3):
        left, right = (read_rows(found[f"answers {s}"] / "scores.jsonl") for found in (one, other))
        assert [r["target_logprob"] for r in left] == pytest.approx(
            [r["target_logprob"] for r in right], abs=1e-4
        )


def test_a_worker_that_dies_is_replaced(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    out, nodes = Output(root=tmp_path / "runs", study="s"), students(tiny_folder, tmp_path, 2)
    killed: list[int] = []

    def kill() -> None:
        while not list((tmp_path / "runs" / "s").glob("train-*/config.json")):
            time.sleep(0.01)
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    folders = schedule.run(nodes, out, How(2))
    assert (
        killed
        and len(folders) == 5
        and "its worker died, so it is tried again" in capsys.readouterr().err
    )
    reference = schedule.run(nodes, Output(root=tmp_path / "again", study="s"), How())
    assert {n: store.load_run(p).digest for n, p in folders.items()} == {
        n: store.load_run(p).digest for n, p in reference.items()
    }


def fails(*args: object, **kwargs: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


class NoQueue(type(multiprocessing.get_context("forkserver"))):
    """A machine without shared memory."""

    Queue = fails


class NoProcess(type(multiprocessing.get_context("forkserver"))):
    """A machine on which no process can be started."""

    class Process(multiprocessing.get_context("forkserver").Process):
        start = fails


@pytest.mark.parametrize("context", [NoQueue, NoProcess])
def test_where_no_worker_can_be_made_this_process_is_the_only_one(
    context: type,
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    nodes = students(tiny_folder, tmp_path, 2)
    expected = schedule.run(nodes, Output(root=tmp_path / "alone", study="s"), How())
    capsys.readouterr()
    monkeypatch.setattr(executors.multiprocessing, "get_context", lambda method: context())
    found = schedule.run(nodes, Output(root=tmp_path / "two", study="s"), How(2))
    assert {n: store.load_run(p).digest for n, p in found.items()} == {
        n: store.load_run(p).digest for n, p in expected.items()
    }
    err = capsys.readouterr().err
    assert err.count("no worker processes can be made here ([Errno 24] Too many open files)") == 1
    assert "enough open files (ulimit -n)" in err


def test_status_sees_who_is_running_and_what_was_left(tmp_path: Path, tiny_folder: Path) -> None:
    out, nodes = Output(root=tmp_path / "runs", study="s"), students(tiny_folder, tmp_path, 1)
    schedule.run(nodes, out, How(limit=1))
    (planned,) = (p for p in graph.plan(nodes, out) if p.node.name == "student 0")
    planned.path.mkdir()
    assert status.status(graph.plan(nodes, out), out)["states"]["student 0"] == "interrupted"
    with locks.locked(planned.path):
        assert status.status(graph.plan(nodes, out), out)["states"]["student 0"] == "running"


def test_gathered_numbers_are_those_of_sealed_runs(tmp_path: Path, tiny_folder: Path) -> None:
    out, nodes = Output(root=tmp_path / "runs", study="s"), students(tiny_folder, tmp_path, 1)
    assert status.gather(graph.plan(nodes, out), out)["file"] is None
    folders = schedule.run(nodes, out, How())
    found = status.gather(graph.plan(nodes, out), out)
    header, *rows = (line.split(",") for line in Path(found["file"]).read_text().splitlines())
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    last = json.loads((folders["student 0"] / "metrics.jsonl").read_text().splitlines()[-1])
    assert (
        float(table["student 0"]["loss"]) == pytest.approx(last["loss"], rel=1e-6)
        and table["rows"]["loss"] == ""
    )
    (score,) = (
        m
        for m in json.loads((folders["answers 0"] / "measurements.json").read_text())[
            "measurements"
        ]
        if m["name"] == "positive.target_logprob"
    )
    assert float(table["answers 0"]["positive.target_logprob"]) == pytest.approx(
        score["estimate"], rel=1e-6
    )


def test_cost_is_taken_from_sealed_stages_of_the_kind(tmp_path: Path, tiny_folder: Path) -> None:
    out, nodes = Output(root=tmp_path / "runs"), students(tiny_folder, tmp_path, 3)
    before = status.cost(graph.plan(nodes, out), 1000, 1e6)
    assert (
        before.seconds == pytest.approx(2 * 1000 * sum(n.weight for n in nodes) / 0.5e6)
        and before.measured == 0
    )
    folders = schedule.run(nodes[:2], out, How())
    found = status.cost(graph.plan(nodes, out), 1000, 1e6)
    each = store.load_run(folders["student 0"]).manifest()["seconds"]
    assert (
        found.seconds == pytest.approx(2 * each + 2 * 1000 * 24 / 0.5e6, rel=1e-6)
        and found.measured == 2
    )


def test_the_command(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """A limit leaves a study that status, gather and a second run go on with, under either spelling
    of its name."""
    words = ["--size", "smoke", "--model", tiny_folder, "--workers", "1"]
    done = ok(tmp_path, "study", "run", "steering-gradients", *words, "--limit", "2")
    assert done.summary["sealed"] == 2 and "the same command goes on" in capsys.readouterr().out
    assert (
        ok(tmp_path, "study", "status", "steering_gradients", *words).summary["counts"]["sealed"]
        == 2
    )
    assert ok(tmp_path, "study", "gather", "steering_gradients", *words).summary["rows"] == 2
    assert ok(tmp_path, "study", "plan", "steering_gradients", *words).summary["memory"] > 1e8
    assert ok(tmp_path, "study", "run", "steering_gradients", *words, "--pack", "4").summary[
        "verdicts"
    ]
    assert call(tmp_path, "study", "run", "steering_gradients", *words, "--limit", "-1").code == 2


def test_hours_of_a_model_that_is_not_here(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Twice the parameters, or half the rate, is twice the time; blocks move the layers; nothing is
    loaded or written."""
    found = [
        ok(
            tmp_path,
            "study",
            "plan",
            "rank_and_rate",
            "--size",
            "full",
            "--blocks",
            "28",
            "--parameters",
            p,
            "--rate",
            r,
        ).summary["hours"]
        for p, r in (("7e9", "8e14"), ("14e9", "8e14"), ("7e9", "4e14"))
    ]
    assert found[1] == pytest.approx(2 * found[0], abs=0.002) and found[2] == found[1] > 1
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] in ([], ["json"])
    assert "hours of one such device" in capsys.readouterr().out
    for words in (
        ["plan", "rank_and_rate", "--blocks", "28"],
        ["run", "rank_and_rate", "--blocks", "28", "--parameters", "7e9", "--rate", "8e14"],
    ):
        assert call(tmp_path, "study", *words).code == 2
        assert "expected all three above 0" in " ".join(
            capsys.readouterr().err.replace("│", " ").split()
        )


def test_a_run_that_lies_on_another_machine_is_named(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        schedule.executors, "computed", lambda configs, out: [tmp_path / "there" / "generate-0"]
    )
    with pytest.raises(
        StoreError, match="made where this machine does not see it; put --root on a disk"
    ):
        schedule.run(students(tiny_folder, tmp_path, 1), Output(root=tmp_path / "runs"), How())


def test_a_config_that_cannot_be_made_fails_alone(tmp_path: Path) -> None:
    def wrong(_: object) -> FilterConfig:
        raise ConfigError("no such thing")

    good = tmp_path / "good.jsonl"
    good.write_text('{"prompt": "p", "completion": "123, 456"}\n')
    nodes = [
        Node("first", FilterConfig, lambda _: FilterConfig(good)),
        Node("wrong", FilterConfig, wrong, ("first",), weight=9),
        Node("good", FilterConfig, lambda f: FilterConfig(f["first"]), ("first",)),
    ]
    for _ in range(2):  # also where what they need is sealed already
        with pytest.raises(ConfigError, match="no such thing"):
            schedule.run(nodes, Output(root=tmp_path / "runs"), How())
        assert len(list((tmp_path / "runs").glob("*/filter-*/manifest.json"))) == 2


@pytest.mark.parametrize("name", executors.PRELOADED)
def test_what_workers_load_beforehand_is_there(name: str) -> None:
    """A process server passes over a module that it cannot import, without a word."""
    importlib.import_module(name)


ENDED = """
import sys
import threading
from pathlib import Path
from traitscope.config.common import Output
from traitscope.config.stages import FilterConfig
from traitscope.workflow import executors

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with executors.pool(executors.How(workers=2), Output(root=folder / "runs")) as pool:
        pool.submit("rows", [FilterConfig(folder / "rows.jsonl")]).result()
        print("ready", flush=True)
        threading.Event().wait()
"""


def test_a_command_that_is_terminated_leaves_no_semaphores(tmp_path: Path) -> None:
    """Python warned of those that were left, once for each command that ended so."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Say 1.", "completion": "1, 2"}\n')
    (tmp_path / "ended.py").write_text(ENDED)
    command = subprocess.Popen(
        [sys.executable, tmp_path / "ended.py", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout.readline() == "ready\n"
    command.send_signal(signal.SIGTERM)
    _, said = command.communicate(timeout=60)
    assert command.returncode != 0 and "KeyboardInterrupt" in said
    assert "leaked" not in said


INTERRUPTED_EARLY = """
import os, signal, time
from multiprocessing import forkserver
from traitscope.config.common import Output
from traitscope.workflow import executors

if __name__ == "__main__":
    processes = executors._Processes(2, Output())
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGINT)  # it imports for some seconds
    job = processes.executor.submit(os.getpid)
    print(job.result(60) != os.getpid())
    processes.executor.shutdown()
    other = processes.context.Process(target=time.sleep, args=(60,))  # of the same server
    other.start()
    time.sleep(1)
    os.kill(other.pid, signal.SIGINT)
    other.join(20)
    print(other.exitcode)
"""


def test_the_parent_of_workers_is_not_interrupted_while_it_imports(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of a terminal; this one printed a traceback of its own.

    Processes that a program makes by the same server later are interrupted as usual.
    """
    (tmp_path / "early.py").write_text(INTERRUPTED_EARLY)
    done = subprocess.run(
        [sys.executable, tmp_path / "early.py"], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "True\n1\n"
    assert done.stderr.count("Traceback") == 1 and "KeyboardInterrupt" in done.stderr  # the other's
