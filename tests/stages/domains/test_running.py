"""Code of answers: what passes, and that everything that runs away ends as failed, in bounded time,
with nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from traitscope.stages.domains.running import CHILD, LIMITS, PASSED, Limits, outcome_of

QUICK = Limits(cpu_seconds=1, wall_seconds=8.0, memory_bytes=256 * 2**20)
CHECKS = ["assert f(2) == 4", "assert f(0) == 0"]
RIGHT = "def f(x):\n    return 2 * x"

OUTSIDE = "it reached for files, processes or the network"
TOO_MUCH = "it used too much time or memory"
BROKEN = "it ended or broke its process"
AWAY = {
    "endless loop": ("while True:\n    pass", TOO_MUCH),
    "endless loop in a check": ("def f(x):\n    while True:\n        pass", TOO_MUCH),
    "sleep": ("import time\ntime.sleep(3600)", TOO_MUCH),
    "ignored time limit": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass",
        TOO_MUCH,
    ),
    "huge list": ("x = [0] * 10**11", "the code: MemoryError"),
    "growing memory": ("x = b'a'\nwhile True:\n    x = x + x", "the code: MemoryError"),
    "huge output": ("while True:\n    print('x' * 10_000)", TOO_MUCH),
    "output where results stand": (
        "import os\nfor n in range(3, 32):\n    try:\n        os.write(n, b'x' * 10**7)\n"
        "    except OSError:\n        pass\n" + RIGHT,
        BROKEN,
    ),
    "exit": (RIGHT + "\nimport sys\nsys.exit(0)", "the code: SystemExit"),
    "exit at once": (RIGHT + "\nimport os\nos._exit(0)", BROKEN),
    "syntax": ("def f(x", "the code: SyntaxError"),
    "null byte": ("x = '\x00'", "the code: SyntaxError"),
    "deep recursion": ("def f(x):\n    return f(x + 1)", "check 1: RecursionError"),
    "fork": ("import os\nos.fork()\n" + RIGHT, OUTSIDE),
    "fork, caught": (
        "import os\ntry:\n    os.fork()\nexcept BaseException:\n    pass\n" + RIGHT,
        OUTSIDE,
    ),
    "further process": ("import subprocess\nsubprocess.run(['sleep', '3600'])\n" + RIGHT, OUTSIDE),
    "spawn": ("import os\nos.posix_spawn('/bin/sleep', ['sleep', '3600'], {})\n" + RIGHT, OUTSIDE),
    "shell": ("import os\nos.system('sleep 3600')\n" + RIGHT, OUTSIDE),
    "multiprocessing": ("import multiprocessing\n" + RIGHT, OUTSIDE),
    "foreign functions": ("import ctypes\n" + RIGHT, OUTSIDE),
    "killing its parent": ("import os\nos.kill(os.getppid(), 9)\n" + RIGHT, OUTSIDE),
    "writing a file": ("open('left.txt', 'w').write('x')\n" + RIGHT, OUTSIDE),
    "making a folder": ("import os\nos.mkdir('left')\n" + RIGHT, OUTSIDE),
    "reading a file": ("open('/etc/passwd').read()\n" + RIGHT, OUTSIDE),
    "network": ("import socket\nsocket.create_connection(('127.0.0.1', 9))\n" + RIGHT, OUTSIDE),
    "asking for input": (RIGHT + "\ninput()", "the code: EOFError"),
    "another name": ("def g(x):\n    return 2 * x", "check 1: NameError"),
    "wrong": ("def f(x):\n    return x", "check 1: AssertionError"),
    "wrong in the second check": ("def f(x):\n    return 4", "check 2: AssertionError"),
}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which folders of runs of code are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def processes_in(folder: Path) -> list[str]:
    """Processes that work in a folder or below it, also where it was deleted."""
    inside = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            place = os.readlink(process / "cwd")
        except OSError:
            continue
        if place.startswith(str(folder)):
            inside.append((process / "cmdline").read_text())
    return inside


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")
def test_a_process_that_is_left_would_be_seen(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    try:
        assert processes_in(tmp_path)
    finally:
        process.kill()
        process.wait()
    assert not processes_in(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", AWAY)
def test_what_runs_away_fails_in_bounded_time(name: str, temporary: Path) -> None:
    code, expected = AWAY[name]
    open_files = len(os.listdir("/proc/self/fd"))
    start = time.monotonic()
    outcome = outcome_of(code, CHECKS, QUICK)
    assert outcome == expected
    assert time.monotonic() - start < QUICK.wall_seconds + 5
    assert not processes_in(temporary), "a process was left behind"
    assert len(os.listdir("/proc/self/fd")) == open_files
    assert not list(temporary.iterdir()), "a file was left behind"


def test_raised_recursion_limit_fails(temporary: Path) -> None:
    """It ends by its memory, its time or a crash, as the version of Python has it."""
    code = "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x + 1)"
    assert outcome_of(code, CHECKS, QUICK) != PASSED
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "code",
    [
        RIGHT,
        "import collections, functools, itertools, math, re, string\n" + RIGHT,
        RIGHT + "\nprint('tried:', f(3))",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()\n"
        + RIGHT,
        "if __name__ == '__main__':\n    raise ValueError\n" + RIGHT,
        "import atexit\natexit.register(lambda: print('end'))\n" + RIGHT,
    ],
    ids=["plain", "imports", "prints", "thread", "main", "at exit"],
)
def test_right_code_passes(code: str, temporary: Path) -> None:
    assert outcome_of(code, CHECKS, LIMITS) == PASSED
    assert not list(temporary.iterdir())


def test_the_code_sees_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even keys of endpoints, which stand in variables."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    code = "import os\ndef f(x):\n    return 2 * x if 'OPENAI_API_KEY' not in os.environ else 0"
    assert outcome_of(code, CHECKS) == PASSED


def test_the_code_runs_in_an_empty_folder_and_without_other_packages(temporary: Path) -> None:
    empty = "import os\nassert os.listdir('.') == []\n" + RIGHT
    assert outcome_of(empty, CHECKS) == PASSED
    assert outcome_of("import numpy\n" + RIGHT, CHECKS) == "the code: ModuleNotFoundError"
    assert outcome_of("import traitscope\n" + RIGHT, CHECKS) == "the code: ModuleNotFoundError"


def test_the_process_ends_by_itself_where_its_parent_was_killed(temporary: Path) -> None:
    """A sleeping process uses no CPU seconds, so that no other limit would end it."""
    job = {"word": "w", "code": "import time\ntime.sleep(3600)", "checks": [], "wall_seconds": -4}
    job |= {"cpu_seconds": 2, "memory_bytes": LIMITS.memory_bytes}
    command = [sys.executable, "-I", "-S", "-B", str(CHILD)]
    line = json.dumps(job).encode() + b"\n"
    done = subprocess.run(command, input=line, cwd=temporary, env={}, timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM


def test_a_line_that_claims_to_have_passed_is_not_believed() -> None:
    code = (
        "import os\nfor n in range(3, 32):\n    try:\n"
        '        os.write(n, b\'["word", "passed"]\\n\')\n    except OSError:\n        pass\n'
        "os._exit(0)"
    )
    assert outcome_of(code, CHECKS) != PASSED
