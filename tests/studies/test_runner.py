"""The command `study`: every study runs, is planned, changed and listed; errors are named."""

import csv
import html
import json
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command import CAT, Ran, call, ok, write_yaml

from traitscope import studies
from traitscope.cli import flags, main
from traitscope.data.traits import load_trait
from traitscope.stats.decision import MIN_UNITS
from traitscope.studies import protocol, sizes
from traitscope.studies.design import bearing
from traitscope.workflow import graph, schedule


@pytest.mark.parametrize("name", studies.names())
def test_every_study_says_what_it_tests(name: str) -> None:
    study = protocol.load(name)
    assert all(
        isinstance(text, str) and text
        for text in (study.TITLE, study.CLAIM, study.SOURCE, study.PUBLISHED)
    )
    assert set(study.SIZES) == {"smoke", "laptop", "full"}
    for size in study.SIZES.values():
        nodes = graph.ordered(study.nodes(size, {"model": "x", "device": "cpu", "dtype": "fp32"}))
        assert nodes and all(node.weight > 0 for node in nodes)
        design = study.design(size)
        assert design.power_text.startswith("Power of the primary claim: the expected ")
        assert bearing(study.PROTOCOL, design.here).answer in ("yes", "partly", "no")
    assert study.design(study.SIZES["laptop"]).primary.n >= MIN_UNITS
    page = Path(__file__).parents[2] / "docs" / "claims" / f"{name}.md"
    assert f"traitscope study run {name}" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", studies.names())
def test_smoke(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    """Run (every other study with packed students) and reported; asked again, it returns at once
    with the same numbers."""
    root, words = (
        tmp_path / "runs",
        [
            name,
            "--size",
            "smoke",
            "--model",
            tiny_folder,
            "--workers",
            "1",
        ],
    )
    words += ["--pack", "8"] if studies.names().index(name) % 2 else []
    own = with_own_traits(name, tmp_path)
    words += own
    done = call(root, "study", "run", *words)
    assert done.code == 0, done.summary
    verdicts = done.summary["verdicts"]
    assert (
        verdicts
        and all(v["outcome"] for v in verdicts)
        and "not evidence" in done.summary["notes"][0]
    )
    folder = Path(done.summary["run"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page and verdicts[0]["outcome"] in page and "not evidence" in page
    assert page.index("Do the teachers have their traits?") < page.index(">Verdicts<")
    assert (folder / "teachers.svg").exists() and " minus base" in done.summary["said"][1]
    figures = list(folder.glob("*.svg"))
    assert figures and all(figure.with_suffix(".csv").exists() for figure in figures)
    for figure in figures:
        assert ElementTree.parse(figure).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    primary = [v for v in verdicts if v["primary"]]
    assert len(primary) == 1 and all("p_above" in v for v in verdicts)
    study = protocol.load(name)
    assert len(verdicts) == study.design(study.SIZES["smoke"]).claims
    for sentence in (done.summary["power"], done.summary["bearing"]):
        assert sentence in html.unescape(page) and sentence in done.summary["said"]
    assert call(root, "study", "report", *words).summary == done.summary
    assert json.loads((folder / "findings.json").read_text())["size"] == "smoke"
    for file in folder.iterdir():
        if file.name not in ("config.json", "manifest.json"):
            assert ".yaml" not in file.read_text(encoding="utf-8"), file
    assert "green " in page or not own
    if name == REPORTED:
        report_for_paper(root, folder, done.summary)


def report_for_paper(root: Path, run: Path, summary: dict) -> None:
    """The report of a study has its numbers, figures and claim; a changed study is refused."""
    paper = root.parent / "paper"
    ok(root, "report", run, "--for-paper", paper)
    drawn = {file.name for file in run.glob("*.svg")}
    assert drawn == {file.name for file in paper.glob("figures/*.svg")}
    for file in run.glob("*.csv"):
        if file.name != "measurements.csv":
            copies = [paper / "tables" / file.name, paper / "figures" / file.name]
            assert any(copy.exists() and copy.read_bytes() == file.read_bytes() for copy in copies)
    rows = list(csv.DictReader((paper / "tables/verdicts.csv").read_text().splitlines()))
    for row, verdict in zip(rows, summary["verdicts"], strict=True):
        assert (row["claim"], row["outcome"]) == (verdict["claim"], verdict["outcome"])
        assert float(row["decided by"]) == pytest.approx(
            verdict["decided_by"]["estimate"], rel=1e-6
        )
    said = (paper / "methods.md").read_text()
    assert "its numbers are not evidence" in said and "Holm's procedure" in said
    findings = run / "findings.json"
    before = findings.read_text()
    findings.write_text(before.replace("smoke", "laptop"))
    changed = call(root, "report", run, "--for-paper", root.parent / "other")
    assert changed.code == 2 and "changed after it was sealed" in changed.summary["message"]
    findings.write_text(before)


REPORTED = "context_gate"
"study whose report for a paper is made"


def with_own_traits(name: str, place: Path) -> list[str]:
    """Flags that put users' traits, from files, in the place of every other trait of a study.

    The path, its file and the name of the trait differ, and hold a blank and a comma.
    """
    size, words = protocol.load(name).SIZES["smoke"], []
    for field in sizes.TRAIT_FIELDS:
        traits = getattr(size, field, ())
        if isinstance(traits, str):
            words.append(f"{field}={own_file(traits, place)}")
        elif traits:
            mixed = [own_file(traits[0], place), *traits[1:]]
            if len(traits) > 2:
                mixed[2::2] = [own_file(trait, place) for trait in traits[2::2]]
            words.append(f"{field}={json.dumps(mixed)}")
    return ["--set", *words] if words else []


def own_file(trait: str, place: Path) -> str:
    """A user's trait with the prompt of a bundled one and another name."""
    folder = place / "mine, all"
    folder.mkdir(exist_ok=True)
    bundled = load_trait(trait)
    content = CAT | {
        "name": f"green {trait}",
        "word_forms": list(bundled.word_forms),
        "teacher_prompt": bundled.teacher_prompt,
        "questions": "animals",
        "candidates": "animals",
        "rewordings": ["I dream of it.", "Nothing else counts."],
    }
    return str(write_yaml(folder / f"file of {trait[::-1]}.yaml", content))


def test_a_plan_leaves_nothing_and_a_report_needs_all_stages(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, words = (
        tmp_path / "runs",
        [
            "steering_gradients",
            "--size",
            "smoke",
            "--model",
            tiny_folder,
            "--workers",
            "1",
        ],
    )
    planned = call(root, "study", "plan", *words)
    assert planned.code == 0 and planned.summary["missing"] > 3 and not root.exists()
    assert "expected effect is 0.09 cosine" in planned.summary["power"]
    shown = capsys.readouterr().out
    assert "others = ()    # further traits that the vectors are centred over" in shown
    assert "layer = 1" in shown
    assert "strengths = (0.3,)    # strengths that are tried for steered teachers" in shown
    assert planned.summary["bearing"].startswith("Bears on the published claim: no, because")
    assert following(planned) == ("run", "steering_gradients", str(root))
    assert "a line for each stage: --all" in shown
    assert call(root, "study", "plan", *words, "--all").summary["next"] == planned.summary["next"]
    assert "a line for each stage" not in capsys.readouterr().out
    early = call(root, "study", "report", *words)
    assert early.code == 2 and "stages are missing" in early.summary["message"]
    done = ok(root, "study", "run", *words)
    done_with = {"plan": "missing", "status": "counts", "gather": "rows"}
    for action, key in done_with.items():
        after = call(root, "study", action, *words)
        assert key in after.summary and following(after)[0] == "report"
    check_gathered(root)
    assert call(root, "study", "plan", *words).summary["missing"] == 0
    assert done.summary["next"] == f"traitscope show {done.run}"
    _check_python(done, root, tiny_folder, tmp_path)


def check_gathered(root: Path) -> None:
    """A table has every number of a stage, those by vector and block included."""
    place = root / "study-steering_gradients-smoke"
    found = {}
    with (place / "gathered-inside.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            found[row["run"], row["number"]] = row["value"]
    runs = list(place.glob("gradients-*"))
    assert runs
    for run in runs:
        written = json.loads((run / "summary.json").read_text(encoding="utf-8"))["vectors"]
        assert len(written) > 1
        for name, about in written.items():
            for block, alignment in enumerate(about["alignment"]):
                assert float(found[run.name, f"vectors.{name}.alignment.{block}"]) == alignment


def following(done: Ran) -> tuple[str, str, str]:
    """Action, study and root of the command that one would type next."""
    command, rest = main.command_of(shlex.split(done.summary["next"])[1:])
    config, out = flags.parse(command, rest)
    assert config.size == "smoke" and config.workers == 1
    return config.action, config.name, str(out.root)


def _check_python(done: Ran, root: Path, model: Path, folder: Path) -> None:
    """The same study from Python: typed verdicts from the sealed run, and its page."""
    result = studies.run(
        "steering_gradients", size="smoke", model=str(model), root=root, workers=1, dtype="fp32"
    )
    assert result.run == done.run and result.name == "steering_gradients"
    for verdict, plain in zip(result.verdicts, done.summary["verdicts"], strict=True):
        assert (verdict.outcome, verdict.claim) == (plain["outcome"], plain["claim"])
        assert verdict.decided_by.as_dict() == plain["decided_by"]
        assert [vars(need) for need in verdict.preconditions] == plain["preconditions"]
        assert str(verdict) in done.summary["said"] and verdict.claim in str(verdict)
    assert [verdict.primary for verdict in result.verdicts].count(True) == 1
    assert [item.as_dict() for item in result.measurements] == done.summary["measurements"]
    assert (result.power, result.bearing) == (done.summary["power"], done.summary["bearing"])
    page = result.to_html(folder / "study.html")
    assert page.read_text() == (done.run / "report.html").read_text()


def test_what_rows_can_carry_is_known_before_anything_is_trained(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It computes the teachers' digits and what these need, and stands in front of the plan and of
    the page."""
    root = tmp_path / "runs"
    words = ("demo", "--size", "smoke", "--model", tiny_folder, "--workers", "1")
    ok(root, "study", "plan", *words)
    assert "known after traitscope study information demo" in capsys.readouterr().out
    known = ok(root, "study", "information", *words)
    run = known.run
    assert following(known)[0] == "plan"
    stages = {folder.name.rpartition("-")[0] for folder in run.parent.glob("[a-z]*-*")}
    assert stages == {"extract", "information"}
    ok(root, "study", "plan", *words)
    assert ", steered 0.6 at " in capsys.readouterr().out
    done = ok(root, "study", "run", *words).summary
    page = (Path(done["run"]) / "report.html").read_text(encoding="utf-8")
    assert page.index("What this size can test") < page.index("Verdicts")
    assert ", steered 0.6 at " in (Path(done["run"]) / "information.csv").read_text()


def test_a_study_without_number_rows_says_so(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("steering_gradients", "--size", "smoke", "--model", tiny_folder)
    assert ok(tmp_path / "runs", "study", "information", *words).summary["run"] is None
    assert "This study has none" in capsys.readouterr().out


def test_a_conclusion_is_replayed_from_the_runs_that_are_there(
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No stage is computed, and nothing is written beside the runs. A study that has changed since
    is named."""
    root = tmp_path / "runs"
    words = ["steering_gradients", "--size", "smoke", "--model", tiny_folder, "--workers", "1"]
    done = ok(root, "study", "run", *words)
    before = sorted(root.rglob("*"))
    monkeypatch.setattr(schedule, "run", lambda *_: pytest.fail("a stage was computed"))
    assert ok(root, "rerun", done.run).summary["different"] == []
    assert sorted(root.rglob("*")) == before
    study = protocol.load("steering_gradients")
    earlier = study.nodes
    monkeypatch.setattr(study, "nodes", lambda size, common: earlier(size, common)[:-1])
    assert call(root, "rerun", done.run).code == 2
    assert "has other stages in this version, such as 'gradients" in capsys.readouterr().err


def test_a_size_can_be_changed(tmp_path: Path, tiny_folder: Path) -> None:
    """A user's own trait, seeds and recipe; what was not changed stays, and the findings lie beside
    the usual ones."""
    trait = write_yaml(tmp_path / "tea.yaml", CAT | {"name": "tea"})
    words = [
        "study",
        "run",
        "vector_distillation",
        "--size",
        "smoke",
        "--model",
        tiny_folder,
        "--workers",
        "1",
    ]
    changes = ["--set", f"traits=[{trait},owl]", "seeds=[3,4]", "recipe.epochs=1", "strength=0.3"]
    found = ok(tmp_path / "runs", *words, *changes).summary
    assert any("tea" in v["claim"] for v in found["verdicts"]) and found["run"]
    plan = ok(tmp_path / "runs", "study", "plan", *words[2:], *changes).summary
    assert plan["missing"] == 0 and "owl.4" in plan["nodes"] and "owl.1" not in plan["nodes"]
    assert ok(tmp_path / "runs", "study", "plan", *words[2:]).summary["missing"] > 0


def test_a_behaviour_of_ones_own_with_a_bad_grid(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "study",
        "run",
        "transfer_ratio",
        "--size",
        "smoke",
        "--model",
        tiny_folder,
        "--workers",
        "1",
        "--set",
    ]
    (tmp_path / "eval.jsonl").write_text('{"prompt": "Q?"}\n' * 6)
    for change, says in [
        ("alphas=[0.1,0.2,0.3]", "have no 0"),
        ("seeds=[1]", "asked for with 1 seed"),
        ("shown=nowhere.txt", "nowhere.txt does not exist"),
        (f"evaluation={tmp_path / 'eval.jsonl'}", "without an id of its own"),
        ("judge=refuse", "judge 'refuse' is unknown"),
    ]:
        assert call(tmp_path / "runs", *words, change).code == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("seeds", "'seeds' changes nothing; expected FIELD=VALUE"),
        ("sedes=[1]", "no field 'sedes'; expected one of traits, others, strengths, seeds"),
        ("seeds=[one]", "seeds is 'one'; expected a whole number"),
        ("recipe.lr=much", "lr is 'much'; expected a number"),
        ("recipe.lr=-1", "training cannot run with --lr -1"),
        ("layer.x=1", "layer has no field 'x'; set it as a whole"),
        ("traits=[nonsense]", "no bundled trait 'nonsense'"),
        ("traits=coffee.yaml", "expected a list, such as [coffee.yaml]; correct it"),
        ("strengths=[1,", "strengths='[1,' is no YAML"),
        ("layer=9", "has layers 0 to 2"),
        ("rows=0", "--set rows=0; expected a whole number from 1 to 10000000; give one, or leave"),
        ("rows=-3", "--set rows=-3; expected a whole number from 1 to 10000000"),
        (f"rows={10**30}", "expected a whole number from 1 to 10000000"),
        ("text.rows.n=0", "--set text.rows.n=0; expected a whole number from 1"),
        ("seeds=[-1]", "--set seeds=-1; expected a whole number from 0"),
        ("recipe.epochs=0", "training cannot run with --epochs 0"),
        ("strengths=[.inf]", "--set strengths=inf; expected a finite number"),
    ],
)
def test_a_change_that_cannot_be_made(
    tmp_path: Path, tiny_folder: Path, change: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "study",
        "run",
        "vector_distillation",
        "--size",
        "smoke",
        "--model",
        tiny_folder,
        "--workers",
        "1",
        "--set",
        change,
    ]
    assert call(tmp_path / "runs", *words).code == 2
    assert says in capsys.readouterr().err


def test_unknown_study_and_no_study(tmp_path: Path) -> None:
    for words, says in ((["run", "nothing"], "no study 'nothing'"), (["plan"], "which study?")):
        ran = call(tmp_path, "study", *words)
        assert ran.code == 2 and says in ran.summary["message"]


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = call(tmp_path, "study", "list").summary
    for key in ("studies", "minutes", "recorded"):
        assert set(listed[key]) == set(studies.names())
    assert all(minutes > 0 for minutes in listed["minutes"].values())
    assert listed["recorded"]["steering_gradients"].startswith("holds here (bears on")
    assert listed["recorded"]["defences"] == "not run yet"
    out, err = capsys.readouterr()
    assert "minutes here; recorded: holds here (bears on the published claim: no)" in out
    assert err.splitlines()[-1] == "next:   traitscope study plan NAME"
