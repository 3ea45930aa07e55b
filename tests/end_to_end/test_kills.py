"""Commands that are killed at random moments end with the result of an undisturbed one."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from traitscope.config.entries import COMMANDS

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def kill_trials(monkeypatch: pytest.MonkeyPatch):
    """The script that kills commands; `make kills` runs it at full size."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import kill_trials

    return kill_trials


def test_an_audit_and_a_training_survive_kills(kill_trials, tmp_path: Path) -> None:
    results = list(kill_trials.trials(tmp_path, 4, ["train", "audit", "select", "verify"], 1))
    assert sum(result.kills for result in results) >= 4
    assert all(result.is_good for result in results), results


def test_every_command_that_writes_is_killed(kill_trials, tmp_path: Path) -> None:
    public = {name for name, command in COMMANDS.items() if command.group != "internal"}
    killed = {words[0].replace("-", "_") for words in kill_trials.commands(tmp_path).values()}
    assert killed | set(kill_trials.UNKILLED) == public
    assert not killed & set(kill_trials.UNKILLED)


def test_another_result_and_what_is_left_are_seen(kill_trials, tmp_path: Path) -> None:
    assert not kill_trials.Trial("train", 1, same=False).is_good
    (tmp_path / ".a.jsonl.0123abcd.tmp").write_text("")
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, start_new_session=True)
    assert kill_trials.processes_of([sleeper.pid]) == [f"process {sleeper.pid}"]
    kill_trials.SECONDS_TO_END = 0.2
    began = time.monotonic()
    left = kill_trials.left_over(tmp_path, [sleeper.pid])
    sleeper.kill()
    sleeper.communicate()
    assert len(left) == 2 and time.monotonic() - began < 5
    assert kill_trials.left_over(tmp_path, [sleeper.pid])[1:] == []


def test_a_command_that_forgets_is_seen(kill_trials, tmp_path: Path, monkeypatch) -> None:
    """A stand-in for a command whose second run gives something else."""
    answers = iter(["one", "two"])
    monkeypatch.setattr(kill_trials, "ended", lambda words, root: next(answers))
    monkeypatch.setattr(kill_trials, "outputs_of", lambda summary, root: summary)
    words = ["show"]
    whole = kill_trials.undisturbed(words, tmp_path / "a")
    found = kill_trials.trial("show", words, tmp_path / "b", whole, random.Random(0))
    assert not found.same and not found.is_good
