"""The same sweep here, on Ray while its workers are killed, and through submitit: the same runs to
the byte."""

import os
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from command import call
from student_nodes import students

from traitscope import atomic_files
from traitscope.config.commands import StudyConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError
from traitscope.runs import store
from traitscope.workflow import executors, ray_executor, schedule
from traitscope.workflow.executors import How

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, str]:
    """Digests of the sweep made by this process."""
    place = tmp_path_factory.mktemp("here")
    return digests(
        schedule.run(students(tiny_folder, place, 3), Output(root=place / "runs"), How())
    )


def test_every_executor_that_the_settings_offer_is_there() -> None:
    offered = get_args(get_type_hints(StudyConfig)["executor"])
    assert offered == get_args(get_type_hints(How)["executor"]) == ("local", *executors.CLUSTERS)
    for module in executors.CLUSTERS.values():
        assert callable(import_module(module).pool)


def digests(folders: dict[str, Path]) -> dict[str, str]:
    return {name: store.load_run(path).digest for name, path in folders.items()}


def workers_of_ray() -> list[int]:
    """Processes whose title is that of our actors."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::Worker"):
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers by their title in /proc")
def test_a_sweep_on_ray_survives_the_death_of_workers(
    tmp_path: Path, tiny_folder: Path, here: dict, capsys: pytest.CaptureFixture
) -> None:
    killed: list[int] = []

    def kill() -> None:
        while not list((tmp_path / "runs" / "default").glob("train-*/config.json")):
            time.sleep(0.02)
        for pid in [pid for pid in workers_of_ray() if os.getpid() in parents(pid)][:2]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    threading.Thread(target=kill, daemon=True).start()
    folders = schedule.run(
        students(tiny_folder, tmp_path, 3), Output(root=tmp_path / "runs"), How(3, "ray")
    )
    assert digests(folders) == here
    assert killed and "its worker died, so it is tried again" in capsys.readouterr().err


def parents(pid: int) -> list[int]:
    """The process, its parent, and so on."""
    found = []
    while pid > 1:
        found.append(pid)
        try:
            pid = int((Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
    return found


def test_a_worker_too_large_for_any_node_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    how = How(1, "ray", cluster=("memory_gb=100000",))
    with pytest.raises(
        ConfigError,
        match=(
            r"asks for 1 cores, 0 GPUs and 100000 GiB; no node has that, the largest figures are 1"
            r" cores"
        ),
    ):
        schedule.run(students(tiny_folder, tmp_path, 1), Output(root=tmp_path / "runs"), how)


def test_a_ray_that_cannot_be_reached_is_named(tmp_path: Path, tiny_folder: Path) -> None:
    how = How(1, "ray", cluster=("address=127.0.0.1:1",))
    with pytest.raises(ConfigError, match=r"Ray at 127\.0\.0\.1:1 cannot be reached"):
        schedule.run(students(tiny_folder, tmp_path, 1), Output(root=tmp_path / "runs"), how)


def test_a_worker_that_sees_another_root_says_so(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Output(root=tmp_path / "runs")
    atomic_files.write_text(out.root / ray_executor.MARK, "another")
    monkeypatch.setitem(
        sys.modules,
        "ray",
        type(
            "Ray",
            (),
            {"util": type("Util", (), {"get_node_ip_address": staticmethod(lambda: "10.0.0.7")})},
        ),
    )
    (found,) = ray_executor.Worker(out, "mine", 1).run([None], None)
    assert (
        isinstance(found, ConfigError)
        and "the worker on 10.0.0.7 does not see" in str(found)
        and "shared disk" in str(found)
    )


def test_jobs_of_submitit_make_the_same_runs(tmp_path: Path, tiny_folder: Path, here: dict) -> None:
    how = How(2, "submitit", cluster=("cluster=local", "minutes=5"))
    found = digests(
        schedule.run(students(tiny_folder, tmp_path, 1)[:2], Output(root=tmp_path / "runs"), how)
    )
    assert len(found) == 2 and found.items() <= here.items()
    assert list((tmp_path / "runs" / "default" / ".slurm").iterdir())


def test_a_preempted_job_is_put_in_the_queue_again(tmp_path: Path) -> None:
    from submitit.helpers import DelayedSubmission

    from traitscope.workflow.slurm_executor import Stage

    again = Stage().checkpoint("train", [1], "out")
    assert (
        isinstance(again, DelayedSubmission)
        and isinstance(again.function, Stage)
        and again.args == ("train", [1], "out")
    )


@pytest.mark.parametrize(("executor", "module"), [("ray", "ray"), ("submitit", "submitit")])
def test_a_cluster_that_is_not_installed_is_named(
    tmp_path: Path, tiny_folder: Path, executor: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = call(
        tmp_path,
        "study",
        "run",
        "steering_gradients",
        "--size",
        "smoke",
        "--model",
        tiny_folder,
        "--executor",
        executor,
    )
    assert (
        done.code == 2
        and f"--executor {executor} needs" in done.summary["message"]
        and "pip install" in done.summary["message"]
    )


@pytest.mark.parametrize(
    ("executor", "setting", "says"),
    [
        ("submitit", "cluster=pbs", "expected slurm or local"),
        ("ray", "cores=3", "no field 'cores'"),
        ("submitit", "minutes=soon", "minutes"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, executor: str, setting: str, says: str) -> None:
    with (
        pytest.raises(ConfigError, match=says),
        executors.pool(How(1, executor, cluster=(setting,)), Output(root=tmp_path)),
    ):
        pass
