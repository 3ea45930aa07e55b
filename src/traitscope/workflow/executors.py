"""Executors that run independent stages side by side, on this machine or on a cluster.

The executors for clusters are in ray_executor.py and slurm_executor.py. The type of a config names
the stage, so plain data travel between processes. Every result is a sealed run with a content
address. Workers keep a loaded model between stages. On two cores, two workers with one torch thread
each are faster than one worker with two threads. Workers are forks of a process that has imported
the common modules, so a new worker starts at once. A worker ends itself when its command is gone.
The next worker continues the unfinished run.
"""

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, Literal, NamedTuple

from traitscope.config.common import Output
from traitscope.errors import TraitscopeError
from traitscope.runs import progress


@dataclass(frozen=True)
class How:
    """Where stages run, how many at once, and what happens after a failure."""

    workers: int = 1
    """Number of jobs that run at the same time."""
    executor: Literal["local", "ray", "submitit"] = "local"
    """Processes of this machine, or a cluster."""
    pack: int = 1
    """Largest number of students in one pass (packed.py)."""
    limit: int = 0
    """Largest number of stages to compute; 0 computes all."""
    retries: int = 2
    """Number of further tries of a stage whose worker died."""
    stop_at_once: bool = False
    """Whether no stage is begun after the first failure."""
    cluster: tuple[str, ...] = ()
    """Settings of the cluster, KEY=VALUE (ray_executor.py, slurm_executor.py)."""


class Died(Exception):
    """A worker ended with its job unfinished: killed, out of memory, preempted."""


Results = list[Path | TraitscopeError]
"""For each config of a job the folder of its run, or the error for which there is no run."""


class Message(NamedTuple):
    """A progress message of a stage that is running in a worker."""

    label: str
    """Label of the job."""
    fraction: float
    """Fraction of the stage that is done."""
    line: str
    """Text for a reader."""


@dataclass(frozen=True)
class Pool:
    """Workers that jobs are sent to."""

    size: int
    """Number of jobs that run at the same time."""
    submit: Callable[[str, Sequence[Any]], Future[Results]]
    """Sends a job, given its label and its settled configs; several configs are packed."""
    heard: Callable[[], list[Message]] = list
    """Returns the messages that have arrived since the last call."""
    batch: Callable[[], AbstractContextManager] = nullcontext
    """Opens a block; jobs that are submitted inside may be sent to the cluster as one array."""


def default_workers(device: str) -> int:
    """Two workers on a CPU with two cores or more, else one: a GPU is not shared."""
    return 1 if device == "cuda" else min(2, os.cpu_count() or 1)


@contextmanager
def pool(how: How, out: Output) -> Iterator[Pool]:
    """Workers that live until the block ends; jobs that run by then are finished.

    A single local worker is this process itself. So it is where no other process can be made.
    """
    if how.executor != "local":
        with import_module(CLUSTERS[how.executor]).pool(how, out) as cluster_pool:
            yield cluster_pool
        return
    processes = _processes(how.workers, out) if how.workers > 1 else None
    if processes is None:
        yield Pool(1, lambda label, configs: _run_here(configs, out))
        return
    try:
        with _ended_in_order():
            yield Pool(how.workers, processes.submit, processes.new_messages)
    except KeyboardInterrupt:
        _kill_workers()
        raise
    finally:
        processes.executor.shutdown(cancel_futures=True)


def _kill_workers() -> None:
    """End the workers, and their parent: it may be about to make one whose command has ended."""
    for worker in multiprocessing.active_children():
        worker.kill()
    parent = forkserver._forkserver._forkserver_pid
    if parent is not None:
        with suppress(ProcessLookupError):
            os.kill(parent, signal.SIGKILL)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Take SIGTERM for an interruption. A process that it kills leaves semaphores, of which Python
    warns."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _processes(workers: int, out: Output) -> "_Processes | None":
    """Worker processes; None where the machine lets none be made."""
    try:
        return _Processes(workers, out)
    except NO_PROCESSES as error:
        _say_alone(error)
        return None


def _say_alone(error: Exception) -> None:
    print(
        f"no worker processes can be made here ({error}), so stages run one after the other in"
        " this one; they need shared memory (/dev/shm) and enough open files (ulimit -n)",
        file=sys.stderr,
        flush=True,
    )


PRELOADED = [
    "transformers.models.llama.modeling_llama",
    "traitscope.stages.generate",
    "traitscope.stages.filter",
    "traitscope.stages.train",
    "traitscope.stages.measure",
    "traitscope.stages.extract",
    "traitscope.interruptible",
]
"""Modules that the parent of all workers imports, so that a new worker starts at once; the last one
lets workers be interrupted again."""
CLUSTERS = {
    "ray": "traitscope.workflow.ray_executor",
    "submitit": "traitscope.workflow.slurm_executor",
}
"""Module of every executor of a cluster."""
NO_PROCESSES = (OSError, EOFError, NotImplementedError)
"""What Python raises where shared memory, semaphores, handles or processes run out."""


class _Processes:
    """Worker processes of this machine; if one of them dies, new ones take the place of all."""

    def __init__(self, workers: int, out: Output) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.workers, self.out, self.messages = workers, out, self.context.Queue()
        self.is_alone = False
        with _main_hidden(), _interrupts_held():  # the workers' parent imports for some seconds
            forkserver.ensure_running()
        self.executor = self._new()

    def _new(self) -> ProcessPoolExecutor:
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        return ProcessPoolExecutor(
            self.workers, self.context, _start_worker, (threads, self.messages)
        )

    def submit(self, label: str, configs: Sequence[Any]) -> Future[Results]:
        """Send a job to a worker; where none can be started, compute it here."""
        try:
            with _main_hidden():  # a worker may be started here
                return self._sent(label, configs)
        except NO_PROCESSES as error:
            if not self.is_alone:
                _say_alone(error)
            self.is_alone = True
        return _run_here(configs, self.out)

    def _sent(self, label: str, configs: Sequence[Any]) -> Future[Results]:
        try:
            return self.executor.submit(_in_worker, label, configs, self.out)
        except BrokenExecutor:
            self.executor.shutdown(cancel_futures=True)
            self.executor = self._new()
            return self.executor.submit(_in_worker, label, configs, self.out)

    def new_messages(self) -> list[Message]:
        """The messages of workers that have arrived since the last call."""
        received = []
        while True:
            try:
                received.append(self.messages.get_nowait())
            except queue.Empty:
                return received


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start a process that Ctrl-C, which comes to all of a terminal, does not interrupt at first.

    It can be interrupted once it has imported interruptible.py.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Let workers that are started inside not run the user's script again.

    Otherwise each would, and a script without a main guard would start workers in its turn. Jobs
    are functions of the package, so workers need nothing of the script.
    """
    main = sys.modules["__main__"]
    hidden = {}
    for name in ("__spec__", "__file__"):
        if hasattr(main, name):
            hidden[name] = getattr(main, name)
            setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


_MESSAGES: Any = None
"In a worker: the queue to its parent."


def _start_worker(threads: int, messages: Any) -> None:
    import torch

    global _MESSAGES
    _MESSAGES = messages
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_command, daemon=True).start()


def _end_with_command() -> None:
    """End this process when its command has ended: a killed command cannot stop its workers."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _in_worker(label: str, configs: Sequence[Any], out: Output) -> Results:
    def send(fraction_and_line: tuple[float, str]) -> None:
        fraction, line = fraction_and_line
        _MESSAGES.put(Message(label, fraction, f"{label} | {line}"))

    progress.SINK = send
    return computed(configs, out)


def _run_here(configs: Sequence[Any], out: Output) -> Future[Results]:
    """Compute a job in this process; the future is settled when this returns."""
    done: Future[Results] = Future()
    try:
        done.set_result(computed(configs, out))
    except Exception as error:  # noqa: BLE001 (the future passes it on)
        done.set_exception(error)
    return done


def computed(configs: Sequence[Any], out: Output) -> Results:
    """Compute a stage, or several in one pass; the result of a failed stage is its error."""
    from traitscope.stages import registry

    if len(configs) > 1:
        from traitscope.workflow import packed

        return packed.run_together(configs, out)
    try:
        return [registry.run_stage(configs[0], out).path]
    except TraitscopeError as error:
        return [error]
