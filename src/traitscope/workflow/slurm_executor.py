"""Stages as jobs of Slurm, through submitit.

The jobs are arrays with a throttle. They are requeued when they are preempted.

    traitscope study run NAME --executor submitit --max-jobs 40 --cluster partition=gpu
      minutes=240 gpus=1 memory_gb=32

The root must lie on a disk that every node sees. `cluster=local` runs the jobs as processes of this
machine, as tests do.
"""

import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from traitscope.config import parsing
from traitscope.config.common import Output
from traitscope.errors import ConfigError
from traitscope.workflow import executors
from traitscope.workflow.executors import Died, How, Pool, Results

USUAL = 32
"usual number of jobs at once"
SECONDS = 1.0
"seconds between two looks at the jobs"


@dataclass(frozen=True)
class SlurmSettings:
    """What a job asks for."""

    cluster: str = "slurm"
    "slurm, or local: processes of this machine"
    partition: str = ""
    "partition of the cluster; empty: its default"
    minutes: int = 120
    "longest time of a job"
    memory_gb: int = 16
    "memory of a job, GB"
    cpus: int = 2
    "cores of a job"
    gpus: int = 0
    "GPUs of a job"


@contextmanager
def pool(how: How, out: Output) -> Iterator[Pool]:
    """Jobs that are submitted together form one array. Jobs that run when the block ends go on."""
    executor = _executor(
        parsing.changed(SlurmSettings(), how.cluster, "--cluster"), how.workers or USUAL, out
    )
    out = replace(out, root=out.root.absolute())
    waiting: list[tuple[Any, Future[Results]]] = []
    ended = threading.Event()
    threading.Thread(target=_watch, args=(waiting, ended), daemon=True).start()

    def submit(label: str, configs: Sequence[Any]) -> Future[Results]:
        done: Future[Results] = Future()
        waiting.append((executor.submit(Stage(), list(configs), out), done))
        return done

    try:
        yield Pool(how.workers or USUAL, submit, batch=partial(_batch, executor))
    finally:
        ended.set()


@contextmanager
def _batch(executor: Any) -> Iterator[None]:
    """One array of the jobs that are submitted inside; there may be none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with executor.batch():
            yield


class Stage:
    """A job. If it is preempted, it is queued again and continues its run."""

    def __call__(self, configs: Sequence[Any], out: Output) -> Results:
        return executors.computed(configs, out)

    def checkpoint(self, *args: Any) -> Any:
        """The job that submitit queues in the place of a preempted one."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *args)


def _executor(asked: SlurmSettings, at_once: int, out: Output) -> Any:
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            "--executor submitit needs submitit: pip install -c constraints.txt 'traitscope[slurm]'"
        ) from None
    if asked.cluster not in ("slurm", "local"):
        raise ConfigError(f"--cluster cluster={asked.cluster}: expected slurm or local; name one")
    try:
        executor = submitit.AutoExecutor(
            folder=out.root.absolute() / out.study / ".slurm", cluster=asked.cluster
        )
    except RuntimeError as error:
        raise ConfigError(
            f"Slurm cannot be reached from here ({error}); run this where sbatch works, or with"
            " --cluster cluster=local"
        ) from error
    executor.update_parameters(
        timeout_min=asked.minutes,
        mem_gb=asked.memory_gb,
        cpus_per_task=asked.cpus,
        gpus_per_node=asked.gpus,
    )
    if asked.cluster == "slurm":
        executor.update_parameters(slurm_array_parallelism=at_once)
        if asked.partition:
            executor.update_parameters(slurm_partition=asked.partition)
    return executor


def _watch(waiting: list[tuple[Any, Future[Results]]], ended: threading.Event) -> None:
    """Settle the futures of jobs that have ended, until the pool ends."""
    while not ended.is_set():
        for job, done in list(waiting):
            if not done.done() and _has_ended(job):
                _settle(job, done)
        waiting[:] = [pair for pair in waiting if not pair[1].done()]
        time.sleep(SECONDS)


def _has_ended(job: Any) -> bool:
    from submitit.core.core import DelayedJob

    return not isinstance(job, DelayedJob) and job.done()


def _settle(job: Any, done: Future[Results]) -> None:
    from submitit.core.utils import UncompletedJobError

    try:
        done.set_result(job.result())
    except UncompletedJobError as error:  # it left nothing: killed, out of memory or time
        done.set_exception(Died(str(error)))
    except Exception as error:  # noqa: BLE001 (the future passes it on)
        done.set_exception(error)
