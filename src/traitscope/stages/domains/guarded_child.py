"""The program that runs the code of one answer: `python -I -S -B guarded_child.py`.

It imports nothing of this package. It reads one line of JSON with the code, the checks and the
limits. It writes one line: a word of the parent's, and what became of the code.

The limits hold off accidents: endless loops, huge memory, files, further processes, the network.
They are no sandbox: code that was written to break out can.
"""

import json
import os
import resource
import signal
import sys

FORBIDDEN = 77
"exit code of a process whose code did what it may not do"
DENIED = (
    "ctypes",
    "fcntl.",
    "ftplib.",
    "http.",
    "mmap.",
    "os.",
    "pty.",
    "resource.",
    "shutil.",
    "signal.",
    "smtplib.",
    "socket.",
    "sqlite3.",
    "subprocess.",
    "syslog.",
    "tempfile.",
    "urllib.",
    "webbrowser.",
)
"how the names of audited events begin that end the process"
HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.listxattr", "os.getxattr")
"events of os that importing a module of the standard library raises"
MODULES = (
    "_ctypes",
    "_multiprocessing",
    "_posixsubprocess",
    "_socket",
    "ctypes",
    "multiprocessing",
)
"modules whose import ends the process: what they do raises no event, or starts processes"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
NEW_USER, NEW_NET = 0x10000000, 0x40000000
"flags of unshare(2)"


def main() -> None:
    """Run what stands on the standard input, and say what became of it."""
    job = json.loads(sys.stdin.buffer.readline())
    results = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    _leave_network()
    _limit(job)
    outcome = _outcome(job["code"], job["checks"])
    line = json.dumps([job["word"], outcome]) + "\n"
    os.write(results, line.encode())
    os._exit(0)  # nothing that the code left for the end is run


def _leave_network() -> None:
    """Move to a network without any device, where the system allows it."""
    if not sys.platform.startswith("linux"):
        return
    try:
        import ctypes

        library = ctypes.CDLL(None)
        if library.unshare(NEW_NET) != 0:
            library.unshare(NEW_USER | NEW_NET)
    except (ImportError, OSError, AttributeError):
        pass
    for name in [name for name in sys.modules if "ctypes" in name]:
        del sys.modules[name]


def _limit(job: dict) -> None:
    """Set the limits of the process, and end it some time after its parent should have."""
    signal.alarm(int(job["wall_seconds"]) + 5)
    limits = {
        "RLIMIT_CPU": job["cpu_seconds"],
        "RLIMIT_AS": job["memory_bytes"],
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_NOFILE": 32,
    }
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, OSError, ValueError):
            pass  # a limit that this system does not have; the parent's clock holds everywhere
    del sys.modules["resource"]


def _hook(leave):  # type: ignore[no-untyped-def]
    """A hook of audited events, with what it needs bound: the code may change every module."""
    readable = tuple({sys.base_prefix, sys.base_exec_prefix, os.path.dirname(os.__file__)})
    denied, harmless, modules, writes, code = DENIED, HARMLESS, MODULES, WRITES, FORBIDDEN

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            is_inside = isinstance(path, str) and path.startswith(readable)
            if (flags or 0) & writes or not (isinstance(path, int) or is_inside):
                leave(code)
        elif event == "import":
            if arguments[0] in modules:
                leave(code)
        elif event.startswith(denied) and event not in harmless:
            leave(code)

    return hook


def _outcome(code: str, checks: list) -> str:
    """passed, or the error that ended the code or a check."""
    names = {"__name__": "answer"}
    step = "the code"
    try:
        program = compile(code, "<answer>", "exec")
        compiled = [compile(check, "<check>", "exec") for check in checks]
        sys.addaudithook(_hook(os._exit))  # what comes now is the code's doing
        exec(program, names)
        for number, check in enumerate(compiled, start=1):
            step = f"check {number}"
            exec(check, names)
    except BaseException as error:
        return f"{step}: {type(error).__name__}"[:200]
    return "passed"


if __name__ == "__main__":
    main()
