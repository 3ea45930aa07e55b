"""Executors that run independent stages side by side, on this machine or on a cluster.

The executors for clusters are in ray_executor.py and slurm_executor.py. The type of a config names
the stage, so what travels between processes is plain data. Every result is a sealed run with a
content address. Workers keep a loaded model between stages. On two cores, two workers with one
torch thread each do more than one with two. Workers are forks of a process that has imported what
all need, so a second or a replacing one starts at once. A worker whose command is gone ends itself,
and the next one continues the unfinished run.
"""

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

from traitscope.config.common import Output
from traitscope.errors import TraitscopeError
from traitscope.runs import progress


@dataclass(frozen=True)
class How:
    """Where stages run, and how many of them."""

    workers: int = 1
    """Jobs at once."""
    executor: Literal["local", "ray", "submitit"] = "local"
    """Processes of this machine, or a cluster."""
    pack: int = 1
    """Students in one pass, at most (packed.py)."""
    limit: int = 0
    """Stages to compute, at most; 0 computes all."""
    retries: int = 2
    """How often a stage whose worker died is tried again."""
    stop_at_once: bool = False
    """Begin nothing after the first failure."""
    cluster: tuple[str, ...] = ()
    """Settings of the cluster, KEY=VALUE (ray_executor.py, slurm_executor.py)."""


class Died(Exception):
    """A worker ended with its job unfinished: killed, out of memory, preempted."""


Results = list[Path | TraitscopeError]
"""The run's folder of every config of a job, or the error why there is none."""


@dataclass(frozen=True)
class Pool:
    """Where stages run."""

    size: int
    """How many jobs at once."""
    submit: Callable[[str, Sequence[Any]], Future[Results]]
    """(label, settled configs) -> what they come to, later; several configs are packed."""
    heard: Callable[[], list[tuple[str, float, str]]] = list
    """(label, fraction done, line) of everything that stages said since the last call."""
    batch: Callable[[], AbstractContextManager] = nullcontext
    """Jobs that are submitted inside this block may go out as one."""


def default_workers(device: str) -> int:
    """Two on a CPU with at least two cores, else one: a GPU is not shared."""
    return 1 if device == "cuda" else min(2, os.cpu_count() or 1)


@contextmanager
def pool(how: How, out: Output) -> Iterator[Pool]:
    """Workers that live until the block ends; what has begun by then is finished. One local worker
    is this process itself."""
    if how.executor != "local":
        with import_module(CLUSTERS[how.executor]).pool(how, out) as there:
            yield there
    elif how.workers == 1:
        yield Pool(1, lambda label, configs: _here(configs, out))
    else:
        processes = _Processes(how.workers, out)
        try:
            yield Pool(how.workers, processes.submit, lambda: _received(processes.messages))
        finally:
            processes.executor.shutdown(cancel_futures=True)


PRELOADED = [
    "transformers.models.llama.modeling_llama",
    "traitscope.stages.generate",
    "traitscope.stages.filter",
    "traitscope.stages.train",
    "traitscope.stages.measure",
    "traitscope.stages.extract",
]
"""Modules that the parent of all workers imports, so that a new worker starts at once."""
CLUSTERS = {
    "ray": "traitscope.workflow.ray_executor",
    "submitit": "traitscope.workflow.slurm_executor",
}


class _Processes:
    """Processes of this machine; new ones take the place of a pool that broke because one of them
    died."""

    def __init__(self, workers: int, out: Output) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.workers, self.out, self.messages = workers, out, self.context.Queue()
        self.executor = self._new()

    def _new(self) -> ProcessPoolExecutor:
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        return ProcessPoolExecutor(
            self.workers, self.context, _start_worker, (threads, self.messages)
        )

    def submit(self, label: str, configs: Sequence[Any]) -> Future[Results]:
        try:
            return self.executor.submit(_in_worker, label, configs, self.out)
        except BrokenExecutor:
            self.executor.shutdown(cancel_futures=True)
            self.executor = self._new()
            return self.executor.submit(_in_worker, label, configs, self.out)


_MESSAGES: Any = None
"In a worker: the queue to its parent."


def _start_worker(threads: int, messages: Any) -> None:
    import torch

    global _MESSAGES
    _MESSAGES = messages
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_command, daemon=True).start()


def _end_with_command() -> None:
    """End this process when the command has ended, which tells its workers nothing if it was
    killed."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _in_worker(label: str, configs: Sequence[Any], out: Output) -> Results:
    progress.SINK = lambda said: _MESSAGES.put((label, said[0], f"{label} | {said[1]}"))
    return computed(configs, out)


def _here(configs: Sequence[Any], out: Output) -> Future[Results]:
    done: Future[Results] = Future()
    try:
        done.set_result(computed(configs, out))
    except Exception as error:  # noqa: BLE001 (whoever waits for the job hears it)
        done.set_exception(error)
    return done


def computed(configs: Sequence[Any], out: Output) -> Results:
    """Compute a stage, or several in a pack; a user's error stands in the place of its run."""
    from traitscope.stages import registry

    if len(configs) > 1:
        from traitscope.workflow import packed

        return packed.run_together(configs, out)
    try:
        return [registry.run_stage(configs[0], out).path]
    except TraitscopeError as error:
        return [error]


def _received(messages: Any) -> list[tuple[str, float, str]]:
    received = []
    while True:
        try:
            received.append(messages.get_nowait())
        except queue.Empty:
            return received
