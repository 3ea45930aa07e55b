"""Code of answers, run against checks in a process of its own with limits.

The process has its own session, an empty folder, no environment, and limits of CPU seconds, memory,
files and processes (guarded_child.py). Its own output goes nowhere. Once it ended, or its time is
over, every process of its group is killed, and the folder is deleted.

This holds off accidents, and is no sandbox against code that was written to do harm.
"""

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from traitscope.errors import ConfigError
from traitscope.stages.domains.guarded_child import FORBIDDEN

CHILD = Path(__file__).with_name("guarded_child.py")
PASSED = "passed"
NOT_RUN = "not run"
MOST_RESULT = 4096
"bytes that are read of a process"
KILLED = (-signal.SIGXCPU, -signal.SIGKILL)
"exit codes of a process that used up its CPU seconds"


@dataclass(frozen=True)
class Limits:
    """What the code of one answer may use."""

    cpu_seconds: int = 2
    """CPU seconds."""
    wall_seconds: float = 10.0
    """Seconds by the clock, after which the process is killed."""
    memory_bytes: int = 512 * 2**20
    """Address space."""


LIMITS = Limits()


def check_platform() -> None:
    """Raise ConfigError where code cannot be run with limits."""
    if os.name != "posix":
        raise ConfigError(
            f"--run-code on {sys.platform}: there are no limits of processes; expected Linux or"
            " macOS; leave it out, and checks are not run"
        )


def outcome_of(code: str, checks: Sequence[str], limits: Limits = LIMITS) -> str:
    """PASSED where the code runs and no check raises, else what happened.

    Failed are an error, an exit, a limit that is passed, and whatever reaches for files, processes
    or the network. Raises ConfigError on a system without limits of processes.
    """
    check_platform()
    word = secrets.token_hex(16)
    job = {
        "word": word,
        "code": code,
        "checks": list(checks),
        "cpu_seconds": limits.cpu_seconds,
        "wall_seconds": limits.wall_seconds,
        "memory_bytes": limits.memory_bytes,
    }
    with tempfile.TemporaryDirectory(prefix="traitscope-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            result = _exchange(process, json.dumps(job).encode() + b"\n", limits.wall_seconds)
        finally:
            _end(process)
    return _read(result, word, process.returncode)


def _exchange(process: subprocess.Popen, job: bytes, seconds: float) -> bytes | None:
    """What the process wrote, at most MOST_RESULT bytes; None where its time was over."""
    assert process.stdin and process.stdout
    until = time.monotonic() + seconds
    with suppress(BrokenPipeError), process.stdin as to_child:
        to_child.write(job)
    result = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(result) < MOST_RESULT:
            if not selector.select(max(0.0, until - time.monotonic())):
                return None
            piece = os.read(process.stdout.fileno(), MOST_RESULT - len(result))
            if not piece:
                break
            result += piece
    return result


def _end(process: subprocess.Popen) -> None:
    """Kill what is left of the process and its group, and take its exit code."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.2)  # it may be about to end by itself, with an exit code that says why
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _read(result: bytes | None, word: str, returncode: int) -> str:
    """What became of the code, from what its process wrote and how it ended."""
    if result is None or (not result and returncode in KILLED):
        return "it used too much time or memory"
    with suppress(ValueError, TypeError):
        said, outcome = json.loads(result)
        if said == word and returncode == 0:
            return str(outcome)
    if returncode == FORBIDDEN:
        return "it reached for files, processes or the network"
    return "it ended or broke its process"
