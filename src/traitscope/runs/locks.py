"""The kernel lock of a run directory: one process computes it, others wait.

A lock dies with its process, also by kill -9. A process that ends as it should deletes its lock
file, and the folders that it made and that stayed empty. So a refused command leaves nothing.
"""

import fcntl
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from traitscope.atomic_files import writing

TRIES = 1000
"Attempts to open a lock file whose folder other processes remove."


def lock_of(path: Path) -> Path:
    """The file that whoever computes a run directory holds a kernel lock on."""
    return path.parent / ".locks" / f"{path.name}.lock"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the kernel lock of a run directory, after waiting for whoever has it.

    Raises StoreError where the lock file cannot be written.
    """
    lock = lock_of(path)
    with ExitStack() as stack:
        with writing(lock):
            made = [folder for folder in lock.parent.parents if not folder.exists()]
            stack.callback(_remove_empty, [lock.parent, *made])
            stream = stack.enter_context(_locked_file(lock, path))
            stack.callback(_delete, lock)  # while the lock is still held
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {platform.node()}".encode())
        yield


def _locked_file(lock: Path, path: Path) -> BinaryIO:
    """The lock file of a run directory, open and locked.

    Whoever held it before has deleted it. So the file is opened again until the one that is locked
    still has its name.
    """
    while True:
        with ExitStack() as stack:
            stream = stack.enter_context(_opened(lock))
            _wait_for_lock(stream, path)
            if _is_at(lock, stream):
                stack.pop_all()
                return stream


def _opened(lock: Path) -> BinaryIO:
    """A lock file, open; its folder is made again where another process removes it in between."""
    for _ in range(TRIES):
        with suppress(FileExistsError, FileNotFoundError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            return open(lock, "a+b", buffering=0)
    lock.parent.mkdir(parents=True, exist_ok=True)  # raises what is in the way
    return open(lock, "a+b", buffering=0)


def _is_at(lock: Path, stream: BinaryIO) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), lock.stat())
    except FileNotFoundError:
        return False


def _wait_for_lock(stream: BinaryIO, path: Path) -> None:
    """Lock an open file; say who is waited for."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        holder = stream.read().decode(errors="replace") or "another process"
        print(f"waiting for {holder} to finish {path}", file=sys.stderr, flush=True)
        fcntl.flock(stream, fcntl.LOCK_EX)


def _delete(lock: Path) -> None:
    with suppress(OSError):  # a file that stays locks nobody out
        lock.unlink()


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove those folders that are empty; the innermost stand first."""
    for folder in folders:
        with suppress(OSError):  # not empty, in use, or gone
            folder.rmdir()
