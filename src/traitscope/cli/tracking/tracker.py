"""Numbers of a running command for W&B or trackio, through a process of its own.

Nothing is sent without `--track`. The tracker has its own process (tracker_process.py), so it
changes no byte of a run. It gets numbers through a pipe that is never waited for. Where it is slow
numbers are left out; where it dies the run goes on, and one sentence says so.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import util
from typing import Any

from traitscope.errors import ConfigError
from traitscope.plurals import counted
from traitscope.runs import progress

TOOLS = ("wandb", "trackio")
"""Trackers that are known."""
PROCESS = (sys.executable, "-m", "traitscope.cli.tracking.tracker_process")
"""What is started, before tool, project and name of the run."""
PROJECT = "traitscope"
"""Project that numbers go to, where none is named."""
LAST_SECONDS = 30.0
"""Seconds that a tracker has at the end to send what it got."""
WHOLE = 3500
"""Bytes of a line that a pipe takes as a whole."""


def parsed(text: str) -> tuple[str, str]:
    """Return tool and project of `--track TOOL[:PROJECT]`.

    Raises ConfigError for another tool, and for one whose package is not here.
    """
    tool, _, project = text.partition(":")
    if tool not in TOOLS:
        raise ConfigError(
            f"--track {text}; expected {' or '.join(TOOLS)}, with :PROJECT behind it or not; name"
            " one, or leave the flag out"
        )
    if util.find_spec(tool) is None:
        raise ConfigError(
            f"--track {text} needs the package {tool}, which is not here; install it: pip install"
            " 'traitscope[track]'"
        )
    return tool, project or PROJECT


@contextmanager
def tracking(track: str, name: str, config: Any) -> Iterator[None]:
    """Send numbers of what runs inside to the tool of `--track`; without the flag nothing is."""
    if not track:
        yield
        return
    tracker = _Tracker(*parsed(track), name, config)
    progress.TRACK = tracker.send
    try:
        yield
    finally:
        progress.TRACK = None
        tracker.end()


def send_result(summary: Mapping[str, Any]) -> None:
    """Send the measurements of a finished command."""
    if progress.TRACK is None:
        return
    found = summary.get("measurements") or summary.get("summary") or {}
    listed = found.get("measurements", []) if isinstance(found, dict) else found
    values = {}
    for item in listed:
        if isinstance(item, dict) and isinstance(item.get("estimate"), int | float):
            values[f"result/{item['name']}"] = item["estimate"]
    if values:
        progress.TRACK(values)


class _Tracker:
    """The process of a tracker, and the pipe to it."""

    def __init__(self, tool: str, project: str, name: str, config: Any) -> None:
        self.tool = tool
        self.said = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [*PROCESS, tool, project, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.said,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.pipe = self.process.stdin.fileno()
        os.set_blocking(self.pipe, False)
        self.left_out, self.is_dead = 0, False
        settings = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else {}
        self.send({"settings": json.loads(json.dumps(settings, default=str))})

    def send(self, values: Mapping[str, Any]) -> None:
        """Hand numbers over, or leave them out where the tracker does not take them."""
        line = (json.dumps(values, default=str) + "\n").encode()
        if self.is_dead or len(line) > WHOLE:
            self.left_out += 1
            return
        try:
            os.write(self.pipe, line)
        except BlockingIOError:
            self.left_out += 1
        except OSError:
            self.is_dead = True
            self._say("has ended")

    def end(self) -> None:
        """Let the tracker send what it has, for LAST_SECONDS at most."""
        with suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        with self.said:
            self._await_end()

    def _await_end(self) -> None:
        try:
            code = self.process.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self._say(f"did not end within {LAST_SECONDS:g} s and was stopped")
            return
        if code and not self.is_dead:
            self._say("has ended")
        elif self.left_out:
            lines = counted(self.left_out, "line of numbers was", "lines of numbers were")
            self._say(f"was slow: {lines} left out")

    def _say(self, what: str) -> None:
        with suppress(OSError, subprocess.TimeoutExpired):
            self.process.wait(1.0)
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        last = f" ({lines[-1][:200]})" if lines else ""
        print(
            f"traitscope: the tracker {self.tool} {what}{last}; the run does not depend on it",
            file=sys.stderr,
            flush=True,
        )


def run_name(command: str) -> str:
    """Return the name of a command's run at the tracker."""
    return f"{command} {time.strftime('%Y-%m-%d %H:%M:%S')}"
