"""No path that a command writes is a file that it reads."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from command import call, ok

from traitscope import atomic_files
from traitscope.auditing.report import sarif_log
from traitscope.cli import listing, main
from traitscope.cli.checks import own_results
from traitscope.config.common import Output
from traitscope.config.entries import COMMANDS
from traitscope.config.fields import use_of
from traitscope.reporting.latex import latex_tables

ROW = '{"prompt": "1?", "completion": "1, 2"}\n'
WRITING = (
    "filter --data n.jsonl --json FILE",
    "models --json FILE",
    "defend --data n.jsonl --by wash --report FILE",
    "audit n.jsonl --report FILE",
    "audit n.jsonl --sarif FILE",
    "show --csv FILE",
    "compare --treated a --control b --latex FILE",
    "convert v.safetensors FILE --to numpy",
    "experiment --example FILE",
)
"commands that write a file, each for another kind of it"
AUDITED = {"status": "suspect", "alpha": 0.1, "rows": 1, "model": "m", "reasons": ["why"]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with files that commands read."""
    monkeypatch.chdir(tmp_path)
    for name in ("n.jsonl", "clean.jsonl", "v.safetensors", "adapter/adapter_config.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(ROW)
    Path("linked.jsonl").symlink_to("n.jsonl")
    os.link("n.jsonl", "twin.jsonl")
    Path("mine.yaml").write_text("data: n.jsonl\n")
    Path("broken.yaml").write_text("data: n.jsonl\nrulez: 1\n")
    Path("design.yaml").write_text("teachers: {cat: {rows: n.jsonl}}\ncontrols: [unmodified]\n")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "filter --data n.jsonl --json n.jsonl",
        "filter --data n.jsonl --json=n.jsonl",
        "filter --data n.jsonl --json ./adapter/../n.jsonl",
        "filter --data n.jsonl --json linked.jsonl",
        "filter --data linked.jsonl --json twin.jsonl",
        "filter --data clean.jsonl --more n.jsonl --json n.jsonl",
        "filter --data n.jsonl --no-such-flag --json n.jsonl",
        "filter mine.yaml --json mine.yaml",
        "filter mine.yaml --json n.jsonl",
        "filter broken.yaml --json n.jsonl",
        "experiment plan design.yaml --json n.jsonl",
        "experiment plan design.yaml --example design.yaml",
        "defend --data n.jsonl --by mix --known clean:clean.jsonl --json clean.jsonl",
        "defend --data n.jsonl --by mix --known clean:clean.jsonl --report clean.jsonl",
        "defend --data n.jsonl --by wash --report n.jsonl",
        "audit n.jsonl --sarif n.jsonl",
        "measure --interventions steer:v.safetensors,layer=1 --json v.safetensors",
        "measure --interventions adapter:adapter --json adapter/adapter_config.json",
        "convert v.safetensors v.safetensors --to numpy",
    ],
)
def test_a_file_that_is_read_is_not_written(
    words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        main.main([*words.split(), "--root", "runs"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "would be written over; name another file" in said, said
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_a_refusal_of_another_file_still_leaves_a_summary(here: Path) -> None:
    done = call(here / "runs", "defend", "--data n.jsonl --by wash --report n.jsonl")
    assert done.code == 2 and "--report n.jsonl" in done.summary["message"]


def refused(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that exits with 2."""
    with pytest.raises(SystemExit) as stop:
        main.main([*words.split(), "--root", "runs"])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("flags", WRITING)
def test_nothing_is_written_into_a_run(
    flags: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of any root: no output, no label, no new file; neither into one that is not finished."""
    run = ok(here / "others", "filter", "--data n.jsonl --name kept").run
    begun = here / "runs/default/train-0123456789abcdef.stale-1"
    begun.mkdir(parents=True)
    (begun / "config.json").write_text('{"address": ""}')
    for folder in (run, begun):
        for name in ("records.jsonl", "label.json", "new", "deep/new"):
            before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            said = refused(flags.replace("FILE", f"{folder}/{name}"), capsys)
            assert "lies in the run" in said, said
            after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            assert after == before


def test_a_summary_is_written_beside_runs(here: Path) -> None:
    ok(here / "runs", "filter", "--data n.jsonl --name kept")
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            main.main(["filter", "--data", "kept", "--root", "runs", "--json", "summary.json"])
        assert stop.value.code == 0 and json.loads(Path("summary.json").read_text())


@pytest.mark.parametrize("flags", WRITING)
@pytest.mark.parametrize(
    "content",
    [
        ROW,
        "notes\n",
        '{\n  "status": "mine",\n  "rows": 1\n}\n',
        '{"status": "ok", "run": "a"}',
        "[]",
        "{",
        "\0\1",
        "<!doctype html>\nmine",
    ],
)
def test_a_file_of_the_user_is_not_written_over(
    flags: str, content: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").write_text(content)
    Path("link").symlink_to("mine")
    for name in ("mine", "link"):
        said = refused(flags.replace("FILE", name), capsys)
        assert "already" in said and "name another" in said, said
        assert Path("mine").read_text() == content and Path("link").is_symlink()


def test_every_path_that_is_written_knows_its_older_files() -> None:
    """convert and experiment --example write over nothing at all."""
    for command in COMMANDS.values():
        for field in (*dataclasses.fields(command.config), *dataclasses.fields(Output)):
            if use_of(field) == "written":
                assert field.name in own_results.KINDS or field.name in ("target", "example")


def test_older_results_are_replaced(here: Path) -> None:
    """A failed run leaves no older summary, and a finished one replaces every kind of result."""
    words = ["defend", "--data", "n.jsonl", "--by", "deduplicate", "--root", "runs"]
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            main.main([*words, "--json", "a.json", "--report", "a.html"])
        assert stop.value.code == 0
    Path("n.jsonl").write_text("")
    with pytest.raises(SystemExit) as stop:
        main.main([*words, "--json", "a.json", "--report", "a.html"])
    assert stop.value.code == 2 and json.loads(Path("a.json").read_text())["status"] == "error"
    for name, text in {
        "csv": ",".join(listing.COLUMNS) + "\n",
        "latex": latex_tables([]),
        "sarif": json.dumps(sarif_log(AUDITED, "n.jsonl")),
    }.items():
        Path("old").write_text(text)
        assert own_results.may_be_replaced(name, Path("old"))
        Path("old").write_text(f"x{text}")
        assert not own_results.may_be_replaced(name, Path("old"))


def test_a_summary_of_an_earlier_version_is_replaced(here: Path) -> None:
    """It names no product, and has our layout, a status, and a run or a message."""
    for content in ({"status": "clean", "run": "a"}, {"status": "error", "message": "b"}):
        atomic_files.write_json(Path("old"), content)
        assert own_results.may_be_replaced("json", Path("old"))
    Path("old").write_text(json.dumps({"tool": "traitscope", "status": "ok"}))
    assert own_results.may_be_replaced("json", Path("old")), "however it was laid out since"


def test_two_results_have_a_file_each(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused("defend --data n.jsonl --by wash --json a --report ./a", capsys)
    assert "--json and --report both name a" in said
