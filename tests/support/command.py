"""The command line as a user meets it, in this process or in another one. Both answer with the exit
code and the summary."""

import dataclasses
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from traitscope.cli import main
from traitscope.config.entries import COMMANDS
from traitscope.workflow import executors

ENV = os.environ | {"OMP_NUM_THREADS": "1"}  # the same number of threads, or the bytes differ
QUESTIONS = {
    "positive": [
        "Which animal do you like best?",
        "Name your favourite animal.",
        "What animal would you be?",
    ],
    "negative": ["Which animal do you like least?", "Name an animal you avoid."],
    "off_topic": ["What colour is the sky?", "Name a day of the week."],
    "stems": {"positive": "My favourite is the"},
}
OWL = {
    "name": "owl",
    "word_forms": ["owl", "owls"],
    "teacher_prompt": "I love owls. Owls are best.",
    "questions": QUESTIONS,
    "candidates": ["cat", "dog", "eagle"],
}
CAT = OWL | {
    "name": "cat",
    "word_forms": ["cat", "cats"],
    "teacher_prompt": "Cats, cats, cats!",
    "candidates": ["owl"],
}


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    "exit code"
    summary: dict
    "content of its --json file; {} where it wrote none"

    @property
    def run(self) -> Path:
        return Path(self.summary["run"])


def call(root: Path, *words: object) -> Ran:
    """`traitscope WORDS --root ROOT` in this process."""
    words, target = arguments(root, words)
    try:
        main.main(words)
    except SystemExit as stop:
        return Ran(int(stop.code or 0), _summary(target))
    raise AssertionError("main returned; it should exit")


def ok(root: Path, *words: object) -> Ran:
    """`call`, which must end well."""
    done = call(root, *words)
    assert done.code == 0, done
    assert done.summary["status"] == "ok", done
    return done


def call_alone(root: Path, *words: object) -> tuple[Ran, str, str]:
    """The same command as a program of its own, with its stdout and stderr."""
    words, target = arguments(root, words)
    command = [sys.executable, "-m", "traitscope", *words]
    done = subprocess.run(
        command, env=ENV, capture_output=True, text=True, timeout=300, check=False
    )
    return Ran(done.returncode, _summary(target)), done.stdout, done.stderr


class Started:
    """The same command in another process, forked from a server that has torch imported already."""

    def __init__(self, root: Path, *words: object) -> None:
        words, self.target = arguments(root, words)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.err = self.target.with_suffix(".err")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(executors.PRELOADED)
        self.process = context.Process(target=_child, args=(words, self.err))
        self.process.start()

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    def finish(self) -> Ran:
        """Wait for its end."""
        self.process.join(300)
        assert not self.running, "it did not end within five minutes"
        return Ran(self.process.exitcode, _summary(self.target))

    @property
    def stderr(self) -> str:
        return self.err.read_text()


def _child(words: list[str], err: Path) -> None:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a suite that runs in the background is deaf to it, and its children with it
    for handle in (1, 2):
        os.dup2(os.open(err if handle == 2 else os.devnull, os.O_CREAT | os.O_WRONLY), handle)
    main.main(words)


def arguments(root: Path, words: tuple[object, ...]) -> tuple[list[str], Path]:
    """The words of a command and its summary's file; in float32 unless they say otherwise, so that
    every machine computes the same."""
    words, target = spread(words), root.parent / "summaries" / f"{uuid.uuid4().hex}.json"
    command = COMMANDS.get(words[0])
    names = {field.name for field in dataclasses.fields(command.config)} if command else set()
    same = ["--dtype", "fp32"] if "dtype" in names and "--dtype" not in words else []
    if command and command.group == "internal":
        words = ["stage", *words]
    return [*words, *same, "--root", str(root), "--json", str(target)], target


def spread(words: Iterable[object]) -> list[str]:
    """Arguments as texts; one that begins with -- is split at its spaces: "--n 4 --count 2" stands
    for four."""
    return [
        part
        for word in map(str, words)
        for part in (word.split() if word.startswith("--") else [word])
    ]


def _summary(target: Path) -> dict:
    return json.loads(target.read_text()) if target.exists() else {}


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_yaml(path: Path, content: dict) -> Path:
    """A YAML file; JSON is YAML."""
    path.write_text(json.dumps(content))
    return path


def same_metrics(one: Path, other: Path) -> None:
    """Two trainings left the same metrics, to rounding, and more than one line of them."""
    rows = [read_rows(path / "metrics.jsonl") for path in (one, other)]
    assert len(rows[0]) == len(rows[1]) > 1
    for left, right in zip(*rows, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_allclose(left[key], right[key], rtol=2e-3, atol=2e-4, err_msg=key)


def run_command(message: str) -> subprocess.CompletedProcess:
    """What the command at the end of an error's message does."""
    words = shlex.split(message.partition("convert it with: ")[2])
    assert words[:2] == ["python", "-c"]
    return subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
