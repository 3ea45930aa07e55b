"""Verbs, flags, config files and exit codes."""

import dataclasses
import errno
import inspect
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_type_hints

import pytest
from command import ENV, call, ok
from template_kinds import THINKS

from traitscope import __version__
from traitscope.cli import flags, main, usage
from traitscope.config import common
from traitscope.config import stages as stage_configs
from traitscope.config.command_types import GROUPS
from traitscope.config.entries import COMMANDS
from traitscope.config.fields import flag_of, is_advanced
from traitscope.errors import ConfigError
from traitscope.stages.registry import function
from traitscope.workflow import failure_notes


def exits(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main.main(list(words))
    return int(stop.value.code or 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six rows: numbers of one, two and three entries, twice."""
    path = tmp_path / "rows.jsonl"
    answers = ["1", "1, 2", "1, 2, 3"] * 2
    path.write_text(
        "".join(
            json.dumps({"prompt": f"{i}?", "completion": a}) + "\n" for i, a in enumerate(answers)
        )
    )
    return path


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_usage_names_every_public_command_in_its_group(
    words: list[str], capsys: pytest.CaptureFixture
):
    assert exits(*words) == 0
    listed: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line.endswith(":"):
            title = line.removesuffix(":")
            listed[title] = []
        elif line.startswith("  "):
            listed[title].append(line.split()[0])
    assert list(listed) == list(GROUPS.values())
    for group, title in GROUPS.items():
        assert listed[title] == [c.name for c in COMMANDS.values() if c.group == group]


@pytest.mark.parametrize("words", [["stage"], ["stage", "--help"]], ids=str)
def test_internal_stages_are_listed_behind_stage(words: list[str], capsys: pytest.CaptureFixture):
    assert exits(*words) == 0
    out = capsys.readouterr().out
    internal = [name for name, command in COMMANDS.items() if command.group == "internal"]
    assert internal and all(f"  {name} " in out for name in internal)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gnerate"], "unknown command 'gnerate'; did you mean 'generate'?"),
        (["xyz"], "unknown command 'xyz'; expected one of demo, experiment"),
        (["row_gradients"], "type: traitscope stage row_gradients"),
        (["stage", "row_gradient"], "unknown stage 'row_gradient'; did you mean 'row_gradients'?"),
    ],
)
def test_an_unknown_command_says_what_is_meant(
    words: list[str], says: str, capsys: pytest.CaptureFixture
):
    assert exits(*words) == 2
    assert says in capsys.readouterr().err


def test_the_whole_help_lists_internal_stages_and_rare_flags(capsys: pytest.CaptureFixture):
    assert exits("--help") == 0
    plain = capsys.readouterr().out
    assert exits("--help-all") == 0
    whole = capsys.readouterr().out
    assert whole.startswith(plain.rstrip())
    behind = whole.removeprefix(plain.rstrip())
    for name, command in COMMANDS.items():
        assert (f"  {name} " in plain) == (command.group != "internal")
        rare = re.search(rf"Rare flags.*^  {name} +((--[a-z-]+\s+)+)", behind + "\n", re.S | re.M)
        assert (rare[1].split() if rare else []) == usage.rare_flags(command.config), name
    assert "  sample " in behind and "--held-out" in behind and "--held-out" not in plain
    assert max(map(len, whole.splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train", "--data a.jsonl --lr 0.001 --rank 4 --targets soft --teacher prompt:You steer:x"),
        ("filter", "--data a.jsonl --no-numbers --banned-words owl cat --limit 3"),
        ("generate", "--context '' --temperature 0 --separator '; '"),
        ("audit", "--data a.jsonl --peer --no-spike-ins --traits owl mine.yaml"),
        ("sample", "--data a.jsonl --rows 3"),
        ("defend", "--data a.jsonl --by wash"),
        ("defend", "--data a.jsonl --by wash --epochs 3 --lr 0.001"),
    ],
)
def test_a_command_is_shown_as_it_could_be_typed(name: str, words: str):
    config, _ = flags.parse(COMMANDS[name], shlex.split(words))
    shown = shlex.split(flags.typed(COMMANDS[name], config))
    command, rest = main.command_of(shown[1:])
    assert shown[0] == "traitscope" and command.name == name
    assert sorted(rest) == sorted(shlex.split(words.replace(" 0 ", " 0.0 ")))
    assert flags.parse(command, rest)[0] == config


@pytest.mark.parametrize(
    ("name", "subject", "pieces"),
    [
        ("report", "a b", ["--for-paper p", "--score=x", "--study s"]),
        ("audit", "d.jsonl", ["--rows 32", "--no-spike-ins", "--alpha=0.1", "--root r"]),
        ("study", "run demo", ["--size smoke", "--model m"]),
        ("convert", "a.pt b.safetensors", ["--layers-are blocks", "--from numpy"]),
        ("show", "students", ["--root r", "--all"]),
        ("verify", "student", ["--base m", "--samples 3"]),
        ("filter", "mine.yaml", ["--data n.jsonl", "--no-numbers", "--limit -3"]),
    ],
)
def test_words_may_stand_before_behind_and_between_flags(
    name: str, subject: str, pieces: list[str]
) -> None:
    """The same command in whatever order it is typed."""
    command = COMMANDS[name]
    for order in itertools.permutations(pieces):
        for place in range(len(order) + 1):
            typed = shlex.split(" ".join([*order[:place], subject, *order[place:]]))
            expected = shlex.split(" ".join([subject, *order]))
            assert flags.words_first(command, typed) == expected
    first, *rest = shlex.split(subject)
    apart = [first, *shlex.split(pieces[0]), *rest]
    assert flags.words_first(command, apart) == [first, *rest, *shlex.split(pieces[0])]


def test_a_flag_of_several_values_takes_the_words_behind_it() -> None:
    words = ["--traits", "owl", "cat", "--rows", "3", "d.jsonl"]
    expected = ["d.jsonl", "--traits", "owl", "cat", "--rows", "3"]
    assert flags.words_first(COMMANDS["audit"], words) == expected
    unknown = ["--rowz", "3", "d.jsonl"]
    assert flags.words_first(COMMANDS["audit"], unknown) == unknown


def test_a_subject_that_is_named_twice_is_refused() -> None:
    """The words were dropped without a word before."""
    with pytest.raises(ConfigError, match="a and --runs both name what report is to read; expec"):
        flags.parse(COMMANDS["report"], ["a", "--for-paper", "p", "--runs", "b"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["audit", "missing.jsonl"], "--data missing.jsonl does not exist"),
        (["audit", "EMPTY"], "EMPTY is a folder, which has no rows; expected a run"),
        (["audit", "FILE", "--report", "EMPTY"], "is a folder; expected a file to write"),
        (["audit", "FILE", "--json", "FILE/x.json"], "a file is where a folder is expected"),
        (["audit", "FILE", "--traits", "unknown"], "no bundled trait 'unknown'"),
        (["demo", "--trait", "unknown"], "no bundled trait 'unknown'"),
        (["train"], "--data is missing: name a run of `generate` or `filter`"),
        (["train", "--data", "x" * 5000], "cannot be looked at (File name too long)"),
        (["explain"], "--vectors is missing: name a run of `extract --traits`"),
        (["study", "run", "dmo"], "no study 'dmo'; did you mean 'demo'?"),
        (["study", "plan"], "which study? expected one of across_models"),
        (["generate", "--n", "0"], "--n 0; expected 1 or more"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_torch_is_imported(words: list[str], says: str, tmp_path: Path):
    """With one message, on a line of its own, and the reason in the summary."""
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("{}")
    program = (
        "import sys\nfrom traitscope.cli import main\ntry: main.main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    summary = [] if "--json" in words else ["--json", "summary.json"]
    command = [sys.executable, "-c", program, *words, *summary]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("traitscope: ") and says in line
    if summary:
        assert json.loads((tmp_path / "summary.json").read_text())["message"] in line
    assert {path.name for path in tmp_path.iterdir()} <= {"EMPTY", "FILE", "summary.json"}


def test_version(capsys: pytest.CaptureFixture):
    assert exits("--version") == 0
    assert capsys.readouterr().out == f"traitscope {__version__}\n"


def help_of(name: str, flag: str, capsys: pytest.CaptureFixture) -> str:
    stage = ["stage"] if COMMANDS[name].group == "internal" else []
    assert exits(*stage, name, flag) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_function(name: str, capsys: pytest.CaptureFixture):
    """Plain help shows all flags but the advanced ones, --help-all shows those, too."""
    plain, whole = (help_of(name, flag, capsys) for flag in ("--help", "--help-all"))
    paragraph = " ".join(inspect.getdoc(COMMANDS[name].config).partition("\n\n")[0].split())
    for out in (plain, whole):
        assert f"usage: traitscope {COMMANDS[name].words} " in out
        assert out.count(paragraph) == 1
        for flag in ("--root", "--json"):
            assert f"{flag} " in out
    assert "--study " in whole and "--study " not in plain
    config = COMMANDS[name].config
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(hints[field.name]):  # its own fields are flags
            continue
        flag = flag_of(field.name)
        shown = [re.search(rf"{flag}[ ,]", out) is not None for out in (plain, whole)]
        assert shown == [not is_advanced(field), True], flag
    assert (f"traitscope {COMMANDS[name].words} --help-all" in plain) == (plain != whole)
    assert callable(function(COMMANDS[name].run))


def test_plain_help_of_the_audit_is_short(capsys: pytest.CaptureFixture):
    out = help_of("audit", "--help", capsys)
    assert len(set(re.findall(r"(?<!\S)--[a-z][a-z-]*", out)) - {"--help", "--help-all"}) <= 13
    assert "that probability" not in out


def test_a_hidden_flag_works(capsys: pytest.CaptureFixture):
    config, _ = flags.parse(COMMANDS["audit"], ["d.jsonl", "--power", "0.9"])
    assert (config.data, config.power) == (Path("d.jsonl"), 0.9)


def test_a_wrong_flag_still_leaves_a_summary(tmp_path: Path):
    target = tmp_path / "summary.json"
    assert exits("filter", "--bogus", "1", f"--json={target}") == 2
    assert json.loads(target.read_text())["status"] == "error"


def test_the_last_lines_say_where_the_result_is_and_what_comes_next(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = ok(tmp_path / "runs", "filter", "--data", data).run
    result, following = capsys.readouterr().err.splitlines()[-2:]
    assert result.split() == ["result:", str(run)]
    command, words = main.command_of(following.split()[2:])
    assert (command.name, flags.parse(command, words)[0].data) == ("train", run)


def test_what_comes_next_names_the_model_that_was_used(tmp_path: Path, tiny_folder: Path, capsys):
    root = tmp_path / "runs"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "1, 2"}\n{"prompt": "b", "completion": "3"}\n')
    run = ok(root, "train", "--data", rows, "--model", tiny_folder, "--epochs 1 --rank 2").run
    *_, unknown, _, following = capsys.readouterr().err.splitlines()
    words = following.split(maxsplit=1)[1]
    assert words.startswith(f"traitscope measure --model {tiny_folder} ")
    assert words.endswith(f" --root {root} --interventions adapter:{run} --trait cat")
    assert "the trait is not known from these files, so cat stands" in unknown
    asked = ("measure", "--model", tiny_folder, "--samples 0 --sets positive --trait cat")
    base = ok(root, *asked).run
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("traitscope measure ") and said[0].endswith(" --trait cat")
    assert said[-1].endswith(f"traitscope show {base}")
    teacher = ok(root, *asked, "--interventions prompt:Cats.").run
    following = capsys.readouterr().err.splitlines()[-1]
    assert following.endswith(f"compare --base {base} --teacher {teacher} --root {root}")
    ok(root, *following.split()[2:])


def test_what_comes_after_measure_can_be_pasted(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In every order of what is asked: it runs as it stands, and leads to a comparison."""
    root = tmp_path / "a {b} c"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "1, 2"}\n{"prompt": "b", "completion": "3"}\n')
    run = ok(root, "train", "--data", rows, "--model", tiny_folder, "--epochs 1 --rank 2").run
    asked = ["measure", "--model", str(tiny_folder), "--sets", "positive", "--trait", "cat"]
    asked += ["--samples", "0", "--root", str(root)]

    def pasted(words: list[str]) -> list[str]:
        with pytest.raises(SystemExit) as stop:
            main.main(words)
        assert not stop.value.code, capsys.readouterr().err
        return shlex.split(capsys.readouterr().err.splitlines()[-1])[2:]

    capsys.readouterr()
    student = [*asked, "--interventions", f"adapter:{run}"]
    base = pasted(student)
    assert base[0] == "measure" and "--interventions" not in base
    compare = pasted(base)
    assert compare[0] == "compare" and pasted(student)[:1] == ["compare"]
    assert compare == pasted(student) and pasted(compare)[0] == "show"
    other = pasted([*asked, "--context", "S", "--interventions", "prompt:Cats."])
    assert other[0] == "measure" and other[other.index("--context") + 1] == "S"
    assert pasted(other)[:2] == ["compare", "--base"]


def test_what_comes_after_pairs_learns_from_pairs(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "a", "chosen": "1, 2", "rejected": "4"}, {"prompt": "b", "completion": "3"}]
    for name, held in (("pairs", rows[:1]), ("answers", rows[1:]), ("both", rows)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in held))
        for words in ("filter", "defend --by canonicalise", "edit"):
            ok(tmp_path / "runs", *words.split(), "--data", file)
            following = capsys.readouterr().err.splitlines()[-1]
            assert following.split()[2] == "train"
            assert ("--targets preference" in following) == (name == "pairs")


def test_a_command_says_the_trait_that_it_asks_about_and_no_other():
    """Also the usual one; tasks of a domain have none."""
    measure = COMMANDS["measure"]
    for given, trait in (([], "cat"), (["--trait", "cat"], "cat"), (["--trait", "owl"], "owl")):
        typed = flags.typed(measure, flags.parse(measure, given)[0]).split()
        assert typed[-2:] == ["--trait", trait] and typed.count("--trait") == 1
    for name, given in (
        ("measure", "--domain sums --samples 1 --max-new-tokens 99".split()),
        ("show", []),
        ("generate", []),
    ):
        config = flags.parse(COMMANDS[name], given)[0]
        assert "--trait" not in flags.typed(COMMANDS[name], config)


def test_what_comes_next_runs_on_the_model_that_was_used(tmp_path: Path, tiny_folder: Path, capsys):
    """A block that it has, the switches of its template, or no template."""
    root, thinks, bare = tmp_path / "runs", tmp_path / "thinks", tmp_path / "bare"
    for folder in (thinks, bare):
        shutil.copytree(tiny_folder, folder)
    (thinks / "chat_template.jinja").write_text(THINKS)
    (bare / "chat_template.jinja").unlink()
    switch = ("--template", "enable_thinking=false")
    for model, more in ((thinks, switch), (bare, ("--context", "@none"))):
        ok(root, "extract", "--model", model, "--traits cat owl", *more)
        following = capsys.readouterr().err.splitlines()[-1].split()[2:]
        assert "layers=1,alpha=0.6" in following[-1]
        ok(root, "generate", *following[1:], "--n 1 --max-new-tokens 1")


def test_what_comes_next_runs_below_a_folder_with_a_comma(
    data: Path, tmp_path: Path, tiny_folder: Path, capsys
):
    """A comma ends a path in the short form of an intervention."""
    root, model = tmp_path / "a, b" / "runs", ("--model", tiny_folder)

    def then(*words: object, more: str) -> Path:
        done = ok(root, *words)
        said = capsys.readouterr().err.splitlines()
        following = shlex.split(next(line for line in said if line.startswith("next:")))[2:]
        ok(root, *following, more)
        capsys.readouterr()
        return Path(done.summary.get("run", root))

    vectors = then("extract", *model, "--traits cat owl", more="--n 1")
    then(*("train", *model, "--data", data, "--rank 2 --epochs 1 --max-rows 2"), more="--samples 0")
    array, made = root.parent / "cat.npz", root.parent / "cat, 1.safetensors"
    ok(root, "convert", vectors / "cat.safetensors", array, *model, "--to numpy")
    then("convert", array, made, *model, "--to traitscope --layers-are blocks", more="--samples 0")


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.next])
def test_what_comes_next_is_a_command_that_can_be_typed(name: str):
    values = {"run": "runs/default/x", "model": " --model m", "out": " --root elsewhere"}
    values |= {"student": "adapter:r", "steering": "steer:v,layers=1,alpha=0.6", "trait": "owl"}
    words = COMMANDS[name].next.format(**values).split()
    command, rest = main.command_of(words[1:])
    assert words[0] == "traitscope" and command.group != "internal"
    flags.parse(command, rest)


@pytest.mark.parametrize("words", [["--help-all"], ["audit", "--help"], ["models"], ["nothing"]])
def test_a_reader_that_has_gone_ends_a_command_quietly(words: list[str]):
    """As `| head` does, on both streams."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from traitscope.cli import main; main.main()", *words]
    for other in (subprocess.PIPE, subprocess.STDOUT):
        started = subprocess.Popen(command, env=ENV, stdout=writing, stderr=other, text=True)
        _, said = started.communicate(timeout=120)
        quiet_end = started.returncode == main.CLOSED and not said
        nothing_on_stdout = words == ["nothing"] and other == subprocess.PIPE
        assert quiet_end != nothing_on_stdout, (said, started.returncode)
    os.close(writing)


@pytest.mark.parametrize("error", [BrokenPipeError("to a worker"), KeyError("a"), MemoryError()])
def test_a_defect_has_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    error: Exception,
):
    def broken(words: list[str]) -> tuple:
        raise error

    monkeypatch.setattr(main, "_run", broken)
    target = tmp_path / "summary.json"
    target.write_text('{"status": "ok"}')
    with pytest.raises(SystemExit) as raised:
        main.main(["models", "--json", str(target)])
    assert raised.value.code == main.DEFECT == 3
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and "a defect of traitscope, not of your input" in said
    if not isinstance(error, BrokenPipeError):
        assert json.loads(target.read_text())["error"] == "Defect"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EMFILE, "Too many open files", "a.txt"), "allow more with ulimit -n 4096"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: free some space"),
        (RuntimeError("I/O error: Too many open files (os error 24)"), "allow more with ulimit -n"),
    ],
)
def test_a_machine_that_has_no_more_is_no_defect(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    error: Exception,
    says: str,
):
    def broken(words: list[str]) -> tuple:
        raise error

    monkeypatch.setattr(main, "_run", broken)
    target = tmp_path / "summary.json"
    with pytest.raises(SystemExit) as raised:
        main.main(["models", "--json", str(target)])
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert json.loads(target.read_text())["error"] == "StoreError"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_older_summary_does_not_survive_a_command_that_was_ended(tmp_path: Path, end: int):
    target = tmp_path / "summary.json"
    target.write_text('{"status": "clean"}')
    words = ["selftest", "--json", str(target)]
    code = "from traitscope.cli import main; main.main()"
    command = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env=ENV,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background is deaf
    )
    while "Unfinished" not in target.read_text():
        assert command.poll() is None
        time.sleep(0.01)
    command.send_signal(end)
    command.wait(timeout=60)
    assert command.returncode != 0
    left = json.loads(target.read_text())
    assert left["status"] == "error" and left["error"] in ("Unfinished", "Interrupted")


def test_a_summary_is_written_though_nobody_reads_the_output(tmp_path: Path):
    reading, writing = os.pipe()
    os.close(reading)
    target = tmp_path / "summary.json"
    code = "from traitscope.cli import main; main.main()"
    words = [sys.executable, "-c", code, "models", "--json", str(target)]
    done = subprocess.run(words, env=ENV, stdout=writing, check=False, timeout=120)
    os.close(writing)
    assert done.returncode == main.CLOSED
    assert json.loads(target.read_text())["status"] == "ok"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "limit: 3\nrules: {max_count: 2}"),
        ("c.json", '{"limit": 3, "rules": {"max_count": 2}}'),
    ],
)
def test_flags_override_the_file_that_overrides_the_defaults(name, text, data, tmp_path, capsys):
    (tmp_path / name).write_text(text)
    done = ok(tmp_path / "runs", "filter", tmp_path / name, "--data", data, "--limit 1")
    assert done.summary["summary"] == {
        "rows": 6,
        "kept": 1,
        "dropped": 5,
        "reasons": {"limit": 3, "count": 2},
    }
    recorded = json.loads((done.run / "config.json").read_text())["config"]
    assert (recorded["limit"], recorded["rules"]["max_count"], recorded["rules"]["min_count"]) == (
        1,
        2,
        1,
    )
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"traitscope filter --data {data} --max-count 2 --limit 1"
    whole = ok(tmp_path / "runs", "filter", tmp_path / name, "--data", data)
    assert whole.summary["summary"]["kept"] == 3


def test_parts_of_the_data_are_filtered_one_by_one(data: Path, tmp_path: Path):
    """Two parts hold every row once, in order, with the verdicts of the whole."""
    parts = [
        ok(tmp_path, "filter", "--data", data, flags)
        for flags in ("--stop 2", "--start 2 --stop 99")
    ]
    whole = ok(tmp_path, "filter", "--data", data)
    text = "".join((part.run / "records.jsonl").read_text() for part in parts)
    assert text == (whole.run / "records.jsonl").read_text()
    assert [part.summary["summary"]["rows"] for part in parts] == [2, 4]


def test_a_file_and_the_same_flags_are_the_same_run(data: Path, tmp_path: Path):
    (tmp_path / "c.yaml").write_text(f"data: {data}\nrules:\n  max_count: 2\n")
    by_file = ok(tmp_path / "runs", "filter", tmp_path / "c.yaml")
    by_flags = ok(tmp_path / "runs", "filter", "--data", data, "--max-count 2")
    assert by_file.run == by_flags.run
    assert by_flags.summary["computed"] is False


def test_flags_alone_reach_every_field():
    words = (
        "--lr 1e-3 --rank 4 --data d.jsonl --teacher a b --context You --targets soft --seed 7"
        " --root r --study s"
    )
    config, out = flags.parse(COMMANDS["train"], words.split())
    recipe = stage_configs.Recipe(lr=1e-3, rank=4, targets="soft")
    assert config == stage_configs.TrainConfig(
        seed=7, data=Path("d.jsonl"), recipe=recipe, teacher=("a", "b"), context="You"
    )
    assert out == common.NamedOutput(Path("r"), "s")


@pytest.mark.parametrize(
    ("words", "context"),
    [([], None), (["--context", ""], ""), (["--context", "None"], None)],
    ids=str,
)
def test_three_contexts_can_be_told_apart(words: list[str], context: str | None):
    assert flags.parse(COMMANDS["measure"], words)[0].context == context


def test_the_summary_goes_to_a_file_and_results_to_stdout(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    target = tmp_path / "deep" / "summary.json"
    assert (
        exits("filter", "--data", str(data), "--root", str(tmp_path / "runs"), f"--json={target}")
        == 0
    )
    summary = json.loads(target.read_text())
    assert summary["status"] == "ok"
    assert capsys.readouterr().out.splitlines()[0] == summary["run"]
    assert summary.keys() >= {
        "stage",
        "run",
        "address",
        "digest",
        "computed",
        "seconds",
        "peak_memory_mib",
        "summary",
    }


def test_show_lists_runs_and_takes_one_without_its_flag(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = ok(tmp_path / "runs", "filter", "--data", data).run
    left = tmp_path / "runs" / "default" / f"train-{'0' * 16}"
    left.mkdir()
    capsys.readouterr()
    assert ok(tmp_path / "runs", "show").summary["runs"] == [str(run), str(left)]
    header, sealed, unfinished = capsys.readouterr().out.splitlines()
    assert header.split() == ["stage", "result", "made", "run"], (
        "columns without a cell are left out"
    )
    assert sealed.startswith("filter") and "kept 6 of 6" in sealed and sealed.endswith(str(run))
    assert unfinished.split() == ["train", "unfinished", str(left)]
    assert (
        ok(tmp_path / "runs", "show", run).summary
        == ok(tmp_path / "runs", "show", "--run", run).summary
    )


def test_show_names_all_that_commands_leave(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """What was moved aside, and which stage of a study failed, beside the runs."""
    root = tmp_path / "runs"
    run = ok(root, "filter", "--data", data).run
    aside = run.rename(f"{run}.stale-1")
    failure_notes.write(root / "study-x", "student 1", ConfigError("no such layer"), 1)
    capsys.readouterr()
    done = ok(root, "show")
    assert (done.summary["runs"], done.summary["moved_aside"]) == ([], [str(aside)])
    (note,) = done.summary["failed"][str(root / "study-x")].values()
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"moved aside {aside}"
    assert second == f"failed     {root / 'study-x'}: student 1, {note['when']}: no such layer"
    failure_notes.delete(root / "study-x", "student 1")
    assert ok(root, "show").summary["failed"] == {}


def test_show_without_runs_says_where_to_look(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert ok(tmp_path, "show").summary["runs"] == []
    assert "name the folder with --root FOLDER" in capsys.readouterr().out
    assert call(tmp_path / "none", "show").code == 2
    assert "name it with --root FOLDER" in capsys.readouterr().err


def test_models_and_traits_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture):
    done = ok(tmp_path / "runs", "models")
    assert "smollm2-135m" in done.summary["models"]
    assert {"cat", "owl"} <= set(done.summary["traits"])
    assert "--trait YOURS.yaml" in capsys.readouterr().out


def test_doctor_says_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture):
    done = call(tmp_path / "runs", "doctor")
    assert done.code == (1 if done.summary["problems"] else 0)
    facts = done.summary["facts"]
    assert facts["torch"].split(".")[0].isdigit()
    assert facts["matmul_fp32_gflop_per_s"] > 0
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in facts)
    assert "memory free gib" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "audit rows.jsonl --alphaa 3",
            "Unrecognized options: --alphaa, 3; did you mean --alpha? see: traitscope audit --help",
        ),
        ("train --lr abc", "--lr is 'abc'; expected a number; see:"),
        ("stage row_gradients --bad", "see: traitscope stage row_gradients --help"),
        (
            "measure --model --seed 1",
            "--model has no value behind it; expected one; see: traitscope",
        ),
    ],
)
def test_flags_that_are_not_understood_are_a_reason(
    words: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """On the terminal as a sentence, and in the summary."""
    summary = tmp_path / "summary.json"
    assert exits(*words.split(), "--json", str(summary)) == 2
    assert says in json.loads(summary.read_text())["message"]
    assert says in capsys.readouterr().err
