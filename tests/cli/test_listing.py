"""The list of runs: what made each one, its main number, and what people call it."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from command import OWL, call, ok, write_yaml

from traitscope.cli import run_files


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A steered teacher's student with seed 7, measured, and what it was made from."""
    place = tmp_path_factory.mktemp("listing")
    root, model = place / "runs", f"--model {tiny_folder}"
    trait = write_yaml(place / "bird.yaml", OWL)
    vectors = ok(root, "extract", model, "--traits", trait, "cat").run
    teacher = ("--interventions", f"steer:{vectors}/owl.safetensors,layers=1,alpha=0.5")
    rows = ok(root, "generate", model, "--n 8 --count 3 --vocabulary template", *teacher).run
    student = ok(root, "train", model, "--seed 7 --epochs 1", "--data", rows).run
    measured = ("--samples 0", "--trait", trait, "--interventions", f"adapter:{student}")
    ok(root, "measure", model, *measured)
    return root


def rows_of(out: str) -> dict[str, dict[str, str]]:
    """The cells of the list by column, by stage; columns begin where their headings do."""
    header, *lines = out.splitlines()
    names = [name for name in header.split("  ") if name]
    starts = [header.index(name) for name in names]
    rows = {}
    for line in lines:
        ends = [*starts[1:], len(line)]
        cells = [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        rows[cells[0]] = dict(zip([name.strip() for name in names], cells, strict=True))
    return rows


def test_each_run_says_what_made_it_and_its_number(
    root: Path, capsys: pytest.CaptureFixture[str], tiny_folder: Path
) -> None:
    capsys.readouterr()
    ok(root, "show")
    rows = rows_of(capsys.readouterr().out)
    assert {row["model"] for row in rows.values()} == {tiny_folder.name}
    assert rows["extract"]["trait"] == "owl cat"
    made_by = {stage: row["teacher or student"] for stage, row in rows.items()}
    assert made_by["generate"] == made_by["train"] == "steer owl 0.5 at 1"
    assert made_by["measure"] == Path(rows["train"]["run"]).name
    assert (rows["train"]["seed"], rows["measure"]["seed"]) == ("7", "7")
    assert rows["measure"]["trait"] == "owl" and rows["generate"]["result"] == "8 rows"
    assert rows["train"]["result"].startswith("1 optimizer step, loss ")
    measured = Path(rows["measure"]["run"]) / "measurements.json"
    first = json.loads(measured.read_text())["measurements"][0]
    interval = "{estimate:+.2f} [{low:.2f}, {high:.2f}]".format(**first)
    assert rows["measure"]["result"] == f"target_logprob {interval}"
    assert all(row["made"].startswith("20") for row in rows.values())
    for stage in ("generate", "train", "measure"):
        assert (rows[stage]["block"], rows[stage]["strength"]) == ("1", "0.5")
    assert "name" not in rows["train"] and "note" not in rows["train"]


def test_a_comparison_has_the_trait_that_its_models_were_asked_about(
    root: Path, tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "runs"
    shutil.copytree(root, place)
    trait = write_yaml(tmp_path / "bird.yaml", OWL)
    (treated,) = place.glob("default/measure-*")
    asked = ("--samples 0", "--trait", trait, f"--model {tiny_folder}")
    control = ok(place, "measure", *asked).run
    ok(place, "compare", "--treated", treated, "--control", control)
    capsys.readouterr()
    ok(place, "show", "--trait owl --stage compare")
    assert rows_of(capsys.readouterr().out)["compare"]["trait"] == "owl"


def test_one_run_says_its_settings_and_its_numbers(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = root.glob("default/train-*")
    capsys.readouterr()
    shown = ok(root, "show", run).summary
    out = capsys.readouterr().out
    assert f"settings: {shown['command']}" in out
    assert "--seed 7 --data" in shown["command"] and "--epochs 1" in shown["command"]
    assert "--batch-size" not in shown["command"], "it stands at its default"
    assert "1 optimizer step, loss " in out


def test_a_damaged_run_is_listed_and_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "default" / f"measure-{'1' * 16}"
    run.mkdir(parents=True)
    (source,) = root.glob("default/measure-*")
    for name in ("config.json", "manifest.json"):
        (run / name).write_bytes((source / name).read_bytes())
    (run / "measurements.json").write_text("{broken")
    capsys.readouterr()
    ok(tmp_path / "runs", "show")
    assert "cannot be read" in capsys.readouterr().out


def test_the_list_is_filtered_sorted_and_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "list.csv"
    listed = ok(root, "show", "--sort stage --csv", file).summary["listed"]
    assert [row["stage"] for row in listed] == ["extract", "generate", "measure", "train"]
    assert list(csv.DictReader(io.StringIO(file.read_text()))) == listed
    for flags, stages in (
        ("--stage train measure", {"train", "measure"}),
        ("--trait owl", {"extract", "measure"}),
        ("--trait cat", {"extract"}),
        ("--stage generate --trait owl", set()),
    ):
        summary = ok(root, "show", flags).summary
        assert {row["stage"] for row in summary["listed"]} == stages
        assert summary["runs"] == [row["run"] for row in summary["listed"]]
    assert "no such runs below" in capsys.readouterr().out
    made = [row["made"] for row in ok(root, "show", "--sort made").summary["listed"]]
    assert made == sorted(made)


def test_stages_of_audits_studies_and_experiments_are_listed_by_all_alone(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result of an audit is listed, its stages are counted; a name makes one of them listed.

    A conclusion in the folder that people use hides nothing there.
    """
    runs = tmp_path / "runs"
    shutil.copytree(root / "default", runs / "default")
    shutil.copytree(root / "default", runs / "audit")
    shutil.copytree(root / "default", runs / "mine")
    (train,) = runs.glob("default/train-*")
    shutil.copytree(train, runs / "default" / f"decision-{'2' * 16}")
    shutil.copytree(train, runs / "audit" / f"decision-{'2' * 16}")
    shutil.copytree(train, runs / "mine" / f"experiment-{'3' * 16}")
    capsys.readouterr()
    summary = ok(runs, "show").summary
    assert "8 stages of audits, studies and experiments are not listed" in capsys.readouterr().out
    listed = {Path(row).parent.name + "/" + Path(row).name[:5] for row in summary["runs"]}
    usual = {f"default/{name}" for name in ("decis", "extra", "gener", "measu", "train")}
    assert listed == usual | {"audit/decis", "mine/exper"} and summary["not_listed"] == 8
    everything = ok(runs, "show", "--all").summary
    assert (len(everything["runs"]), everything["not_listed"]) == (15, 0)
    assert len(ok(runs, "show", "--stage train").summary["runs"]) == 3
    (student,) = runs.glob("audit/train-*")
    ok(runs, "show", student, "--name mine-too")
    assert str(student) in ok(runs, "show").summary["runs"]


def test_flags_of_the_list_are_refused_beside_a_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = root.glob("default/train-*")
    assert call(root, "show", run, "--stage train").code == 2
    assert call(root, "show", "--name x").code == 2
    assert "drop them, or the run" in (said := capsys.readouterr().err)
    assert "--name or --note without a run" in said


def test_every_small_file_is_read_once_and_no_large_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of a training and of its measurement, with files of a terabyte that hold nothing."""
    place = tmp_path / "runs" / "default"
    shutil.copytree(root / "default", place)
    (train,), (measure,) = place.glob("train-*"), place.glob("measure-*")
    for number in range(50):
        shutil.copytree(train, place / f"train-{number:016x}")
        shutil.copytree(measure, place / f"measure-{number:016x}")
    for file in (*place.glob("generate-*/records.jsonl"), *place.glob("measure-*/scores.jsonl")):
        with open(file, "ab") as stream:
            stream.truncate(2**40)
    reads: dict[Path, int] = {}
    described = run_files.read_described

    def counted(path: Path, keys: set[str]) -> dict:
        reads[path] = reads.get(path, 0) + 1
        return described(path, keys)

    monkeypatch.setattr(run_files, "read_described", counted)
    listed = ok(tmp_path / "runs", "show").summary["listed"]
    assert len(listed) == 104 and set(reads.values()) == {1} and len(reads) == 104
    assert {row["result"] for row in listed if row["stage"] == "generate"} == {"8 rows"}
