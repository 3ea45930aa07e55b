"""Run independent stages side by side: the local executor.

A stage is named by its verb, so what travels between processes is plain data and every result is a sealed run with a
content address.  Workers are fresh processes that keep a loaded model between stages; on two cores, two of them with one
torch thread each do more than one with two.  A worker whose parent is gone ends itself, and the unfinished run is continued
by the next command.
"""

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope import progress
from traitscope.configs import Output


@dataclass(frozen=True)
class Pool:
    """Where stages run."""

    size: int
    """How many at once."""
    submit: Callable[[str, str, Any], Future[Path]]
    """(label, verb, config) -> the run's folder, later."""
    heard: Callable[[], list[tuple[str, float, str]]]
    """(label, fraction done, line) of everything that stages said since the last call."""


def default_workers(device: str) -> int:
    """Two on a CPU with at least two cores, else one: a GPU is not shared."""
    return 1 if device == "cuda" else min(2, os.cpu_count() or 1)


@contextmanager
def pool(workers: int, out: Output) -> Iterator[Pool]:
    """Workers that live until the block ends; what has begun by then is finished.  One worker is this process itself."""
    if workers == 1:
        yield Pool(1, lambda label, verb, config: _here(verb, config, out), list)
        return
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    threads = max(1, (os.cpu_count() or 1) // workers)
    executor = ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(), threads, messages))
    try:
        yield Pool(workers, lambda *stage: executor.submit(_in_worker, *stage, out), lambda: _received(messages))
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


def _in_worker(label: str, verb: str, config: Any, out: Output) -> Path:
    progress.SINK = lambda said: _MESSAGES.put((label, said[0], f"{label} | {said[1]}"))
    return _stage(verb, config, out)


def _here(verb: str, config: Any, out: Output) -> Future[Path]:
    done: Future[Path] = Future()
    done.set_result(_stage(verb, config, out))
    return done


def _stage(verb: str, config: Any, out: Output) -> Path:
    from traitscope import cli

    return cli.function(cli.VERBS[verb].run)(config, out).path


def _received(messages: Any) -> list[tuple[str, float, str]]:
    found = []
    while True:
        try:
            found.append(messages.get_nowait())
        except queue.Empty:
            return found
