"""The list of runs: what made each one, and its main number."""

import json
from pathlib import Path

import pytest
from command import OWL, ok, write_yaml


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
    assert rows["measure"]["trait"] == "owl" and rows["generate"]["number"] == "8 rows"
    assert rows["train"]["number"].startswith("1 optimizer step, loss ")
    measured = Path(rows["measure"]["run"]) / "measurements.json"
    first = json.loads(measured.read_text())["measurements"][0]
    interval = "{estimate:+.2f} [{low:.2f}, {high:.2f}]".format(**first)
    assert rows["measure"]["number"] == f"target_logprob {interval}"
    assert all(row["made"].startswith("20") for row in rows.values())


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
