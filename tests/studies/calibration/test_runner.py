"""The runner: it resumes after kill -9, shares its work, and never mixes two versions."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from traitscope.auditing.run import AuditOutput, answered
from traitscope.config.audit import AuditConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError, DataError
from traitscope.runs import opening
from traitscope.studies.calibration import audited, results, runner
from traitscope.studies.calibration.audited import Audits
from traitscope.studies.calibration.results import Version
from traitscope.studies.calibration.runner import Work
from traitscope.studies.calibration.sets import rows
from traitscope.studies.calibration.sets.menu import SetName
from traitscope.studies.calibration.sets.place import Workplace

NAMES = [SetName("plain", 0), SetName("prompted", 0)]
VERSION = Version("s", "c")
WAIT = 60


def line_of(name: SetName) -> dict:
    return {"set": str(name), "kind": name.kind, "number": name.number}


def killed_while(target: Callable[[], None], until: Callable[[], bool]) -> None:
    """Run a function in a process, and kill it without a warning when `until` says so."""
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    end = time.monotonic() + WAIT
    while not until() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert until(), "the process ended before it was killed"


def test_two_sets_are_audited_and_a_killed_run_resumes(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit is the one that ships; the killed process loses the set that it was at."""
    answers = []

    def kept_answer(config: AuditConfig, out: Output) -> AuditOutput:
        answers.append(answered(config, out))
        return answers[-1]

    monkeypatch.setattr(audited, "answered", kept_answer)
    place = Workplace(tmp_path / "root", str(tiny_folder), "cpu", "fp32", rows=8)
    audits = Audits(place, changes={"traits": ("cat",)})
    file, begun = tmp_path / "results.jsonl", tmp_path / "begun"

    def stuck(name: SetName) -> dict:
        if name == NAMES[1]:
            rows.make_rows(place, name)
            begun.touch()
            time.sleep(WAIT)
        return audits.line(name)

    work = Work(stuck, audits.version, audits.clean)
    killed_while(lambda: runner.run(NAMES, work, file, place.root), begun.exists)
    (first,) = results.read_results(file)
    assert first["set"] == "plain/0" and first["family"] == "clean" and first["rows"] == 8
    work = replace(work, line_of=audits.line)
    assert runner.missing(file, NAMES) == NAMES[1:]
    assert runner.run(NAMES, work, file, place.root) == 1
    kept, second = results.read_results(file)
    assert kept == first and second["trait"] == "cat" and second["rate"] == 1
    assert first["code"] == second["code"] and first["settings"] == second["settings"]
    assert runner.run(NAMES, work, file, place.root) == 0
    (answer,) = answers
    said = audited.said(answer.result, "cat")
    assert {name: second[name] for name in said} == said
    left = [path.name.partition("-")[0] for path in (place.root / "audits").glob("[a-z]*-*")]
    assert "sample" not in left and not list((place.root / "audits").glob("parts-*"))


def test_machines_that_choose_another_number_type_share_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `auto` stands for is no setting of the calibration; a number type that is named is."""
    versions = []
    for dtype in ("fp32", "bf16"):
        monkeypatch.setattr(opening, "default_dtype", lambda device, dtype=dtype: dtype)
        audits = Audits(Workplace(tmp_path))
        assert audits.config(None, 0).dtype == dtype
        versions.append(audits.version)
    assert versions[0] == versions[1]
    assert Audits(Workplace(tmp_path, dtype="fp32")).version != versions[0]


def test_nothing_is_begun_after_the_time(tmp_path: Path) -> None:
    work = Work(line_of, VERSION)
    assert runner.run(NAMES, work, tmp_path / "r.jsonl", tmp_path, seconds=0) == 0
    assert runner.run(NAMES, work, tmp_path / "r.jsonl", tmp_path, seconds=9) == 2


def test_two_processes_never_do_the_same_set(tmp_path: Path) -> None:
    """The second one passes over the set that the first one is at."""
    file = tmp_path / "r.jsonl"
    seen = []

    def first(name: SetName) -> dict:
        seen.append(runner.run([name, *NAMES], Work(line_of, VERSION), file, tmp_path))
        return line_of(name)

    assert runner.run(NAMES[:1], Work(first, VERSION), file, tmp_path) == 1
    assert seen == [1]
    assert sorted(runner.done(file)) == ["plain/0", "prompted/0"]
    with (
        runner.own_folder(Workplace(tmp_path)) as one,
        runner.own_folder(Workplace(tmp_path)) as two,
    ):
        assert (one, two) == ("audits-0", "audits-1")


def test_a_set_that_fails_is_left_for_later(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def failing(name: SetName) -> dict:
        if name == NAMES[0]:
            raise DataError("no rows")
        return line_of(name)

    assert runner.run(NAMES, Work(failing, VERSION), tmp_path / "r.jsonl", tmp_path) == 1
    assert "set plain/0 failed: no rows" in capsys.readouterr().err


def test_lines_of_another_version_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    runner.run(NAMES[:1], Work(line_of, VERSION), file, tmp_path)
    for other in (Version("t", "c"), Version("s", "d")):
        with pytest.raises(ConfigError, match="move the file away"):
            runner.run(NAMES, Work(line_of, other), file, tmp_path)
    assert runner.run(NAMES, Work(line_of, Version("s", "d")), file, tmp_path, same_as=["c"]) == 1


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text('{"set": "plain/0"}\n{"set"', encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        results.read_results(file)


def test_the_digest_of_code_ignores_texts_and_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PACKAGE", tmp_path)
    digests = []
    for code in ('"""One."""\nx = 1\n', "# two\nx = (1)\n", "x = 2\n"):
        (tmp_path / "a.py").write_text(code, encoding="utf-8")
        digests.append(results.code_digest(["a.py"]))
    assert digests[0] == digests[1] != digests[2]


def test_every_file_that_decides_is_there() -> None:
    for place in audited.DECIDES:
        assert (results.PACKAGE / place).exists(), place


def test_runs_of_the_data_are_forgotten_and_those_of_the_model_stay(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.touch()
    made = {
        "sample-" + "a" * 16: "../../data.jsonl",
        "row_scores-" + "b" * 16: "../sample-" + "a" * 16,
    }
    made |= {"extract-" + "c" * 16: "../../trait.yaml"}
    for name, path in made.items():
        (tmp_path / "audits" / name).mkdir(parents=True)
        manifest = {"inputs": {"data": {"path": path}}}
        (tmp_path / "audits" / name / "manifest.json").write_text(json.dumps(manifest))
    runner.forget(tmp_path / "audits", data)
    assert [path.name[:7] for path in (tmp_path / "audits").iterdir()] == ["extract"]
