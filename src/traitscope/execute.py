"""Run independent stages side by side: the local executor.

A task names its stages by their verbs, so what travels between processes is plain data and every result is a sealed run
with a content address.  Workers are fresh processes that keep a loaded model between tasks; on two cores, two of them
with one torch thread each do more than one with two.  A worker whose parent is gone ends itself, and the unfinished run
is continued by the next command.
"""

import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope import progress
from traitscope.configs import Output

Step = tuple[str, Any]
"(verb, config), or (verb, function from the folder of the step before to a config)"


@dataclass(frozen=True)
class Task:
    """Stages that run one after the other in one process."""

    label: str
    """Shown while it runs."""
    steps: tuple[Step, ...]
    """What to run."""
    weight: float
    """Expected work, in a unit that all tasks share."""


Runner = Callable[[Sequence[Task]], list[list[Path]]]


def default_workers(device: str) -> int:
    """Two on a CPU with at least two cores, else one: a GPU is not shared."""
    return 1 if device == "cuda" else min(2, os.cpu_count() or 1)


@contextmanager
def pool(workers: int, out: Output) -> Iterator[Runner]:
    """Yields run(tasks) -> for each task the folders of its steps; the workers live until the block ends.

    The first exception of a task is raised, and tasks that have not begun are dropped.
    """
    if workers == 1:
        yield lambda tasks: [_run_task(0, task, out) for task in tasks]
        return
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        messages = manager.Queue()
        threads = max(1, (os.cpu_count() or 1) // workers)
        executor = ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(), threads, messages))
        try:
            yield lambda tasks: _run_all(executor, messages, tasks, out)
        finally:
            executor.shutdown(cancel_futures=True)


_MESSAGES: Any = None
"In a worker: the queue to its parent."


def _start_worker(parent: int, threads: int, messages: Any) -> None:
    import torch

    global _MESSAGES
    _MESSAGES = messages
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has ended; a killed parent cannot tell its workers."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run_task(index: int, task: Task, out: Output) -> list[Path]:
    from traitscope import cli

    if _MESSAGES is not None:
        progress.SINK = lambda said: _MESSAGES.put((index, said[0], f"{task.label} | {said[1]}"))
    folders: list[Path] = []
    for verb, config in task.steps:
        settled = config(folders[-1]) if callable(config) else config
        folders.append(cli.function(cli.VERBS[verb].run)(settled, out).path)
    return folders


def _run_all(executor: ProcessPoolExecutor, messages: Any, tasks: Sequence[Task], out: Output) -> list[list[Path]]:
    futures = [executor.submit(_run_task, i, task, out) for i, task in enumerate(tasks)]
    shown = [0.0] * len(tasks)
    with progress.progress(f"{len(tasks)} tasks", sum(t.weight for t in tasks), "tokens") as advance:

        def reach(i: int, fraction: float) -> None:
            if fraction > shown[i]:
                advance(tasks[i].weight * (fraction - shown[i]))
                shown[i] = fraction

        while _any_running(futures):
            for i, fraction, line in _received(messages):
                print(line, file=sys.stderr, flush=True)
                reach(i, 0.95 * fraction)
        for i, future in enumerate(futures):
            future.result()
            reach(i, 1.0)
    return [future.result() for future in futures]


def _any_running(futures: Sequence[Future]) -> bool:
    """Whether some task is not done; an exception of a finished one is raised at once."""
    done, left = wait(futures, timeout=0.5)
    for future in done:
        if future.exception() is not None:
            for other in left:
                other.cancel()
            future.result()
    return bool(left)


def _received(messages: Any) -> list[tuple[int, float, str]]:
    found = []
    while True:
        try:
            found.append(messages.get_nowait())
        except queue.Empty:
            return found
