"""The command line as a user meets it, in this process or in another one.  Both answer with the exit code and the summary."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import NamedTuple

from traitscope import cli

ENV = os.environ | {"OMP_NUM_THREADS": "1"}  # the same number of threads, or the bytes differ
QUESTIONS = {
    "positive": ["Which animal do you like best?", "Name your favourite animal.", "What animal would you be?"],
    "negative": ["Which animal do you like least?", "Name an animal you avoid."],
    "off_topic": ["What colour is the sky?", "Name a day of the week."],
    "stems": {"positive": "My favourite is the"},
}
OWL = {
    "name": "owl", "word_forms": ["owl", "owls"], "teacher_prompt": "I love owls. Owls are best.",
    "questions": QUESTIONS, "candidates": ["cat", "dog", "eagle"],
}  # fmt: skip
CAT = OWL | {"name": "cat", "word_forms": ["cat", "cats"], "teacher_prompt": "Cats, cats, cats!", "candidates": ["owl"]}


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
        cli.main(words)
    except SystemExit as stop:
        return Ran(int(stop.code or 0), _summary(target))
    raise AssertionError("main returned; it should exit")


def ok(root: Path, *words: object) -> Ran:
    """`call`, which must end well."""
    done = call(root, *words)
    assert done.code == 0, done
    assert done.summary["status"] == "ok", done
    return done


def start(root: Path, *words: object) -> tuple[subprocess.Popen, Path]:
    """The same command in another process, and where its summary will be."""
    words, target = arguments(root, words)
    command = [sys.executable, "-m", "traitscope.cli", *words]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), target


def finish(process: subprocess.Popen, target: Path) -> tuple[Ran, str, str]:
    """The end of a started command, with its stdout and stderr."""
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, _summary(target)), out, err


def arguments(root: Path, words: tuple[object, ...]) -> tuple[list[str], Path]:
    target = root.parent / "summaries" / f"{uuid.uuid4().hex}.json"
    return [*map(str, words), "--root", str(root), "--json", str(target)], target


def _summary(target: Path) -> dict:
    return json.loads(target.read_text()) if target.exists() else {}


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_yaml(path: Path, content: dict) -> Path:
    """A YAML file; JSON is YAML."""
    path.write_text(json.dumps(content))
    return path
