"""Several models and traits in one figure, and what cannot stand in one."""

import csv
import io
import json
from pathlib import Path

import pytest
from command import call, ok
from paper_runs import run_named

from traitscope.papers.lineage import Made
from traitscope.papers.together import put_together

THREE = ("llama-owl", "qwen2-owl", "llama-cat")
PRIMARY = "positive.target_logprob"


def test_models_and_traits_stand_in_one_figure_with_their_intervals_and_n(
    root: Path, tmp_path: Path
) -> None:
    ok(root, "report", *THREE, "--for-paper", tmp_path)
    rows = list(
        csv.DictReader(io.StringIO((tmp_path / "tables/by-model-and-trait.csv").read_text()))
    )
    assert [(row["model"], row["trait"]) for row in rows] == [
        ("llama", "owl"),
        ("llama", "cat"),
        ("qwen2", "owl"),
    ]
    svg = (tmp_path / "figures/by-model-and-trait.svg").read_text()
    for text in ("llama", "qwen2", "owl", "cat", "positive.target_logprob, treated − base, nats"):
        assert f">{text}</text>" in svg
    for row in rows:
        summary = Made(run_named(root, f"{row['model']}-{row['trait']}")).numbers("summary.json")
        (item,) = [item for item in summary["differences"] if item["score"] == PRIMARY]
        sealed = item["difference"]
        for column, bound in (("estimate", "estimate"), ("estimate, low", "low")):
            assert float(row[column]) == pytest.approx(sealed[bound], rel=1e-6)
        assert row["n"].startswith(f"n = {sealed['n_clusters']} {sealed['counted']}")
        assert f">n = {sealed['n_clusters']} {sealed['counted']}</text>" in svg
    drawn = list(
        csv.DictReader(io.StringIO((tmp_path / "figures/by-model-and-trait.csv").read_text()))
    )
    assert [row["name"] for row in drawn] == ["llama, owl", "llama, cat", "qwen2, owl"]
    text = (tmp_path / "methods.md").read_text()
    assert (
        text.startswith("Models are llama") and "the trait owl" in text and "the trait cat" in text
    )


def test_runs_of_one_model_and_trait_are_told_apart_by_name(root: Path) -> None:
    measured = [Made(run_named(root, name)) for name in ("llama-owl-base", "llama-cat-base")]
    contents = put_together([measured[0], *measured], PRIMARY)
    (table,) = contents.tables
    assert [row[1] for row in table.rows] == [
        "owl, llama-owl-base",
        "owl, llama-owl-base",
        "cat",
    ]


@pytest.mark.parametrize(
    ("names", "flags", "said"),
    [
        (("llama-owl", "students"), "", "'positive.target_logprob, treated − base' and "),
        (("llama-owl", "llama-owl-base"), "", "runs of compare, measure in one figure; expected"),
        (("llama-owl", "treated-1"), "", "runs of compare, train in one figure; expected"),
        (("llama-owl", "qwen2-owl"), "--score nope", "--score nope: "),
        (("treated-1", "generated"), "", "--runs generated does not exist"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    names: tuple[str, ...],
    flags: str,
    said: str,
) -> None:
    words = ("report", *names, *([flags] if flags else []), "--for-paper", tmp_path / "paper")
    assert call(root, *words).code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "paper").exists()


def test_sampled_scores_need_one_way_of_sampling(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (Made(run_named(root, f"llama-{name}-base")) for name in ("owl", "cat"))
    settings = dict(other.settings) | {"temperature": 0.5}
    monkeypatch.setitem(vars(other), "settings", settings)
    put_together([one, other], PRIMARY)
    with pytest.raises(Exception, match="the temperature is '1.0' and '0.5'; expected the same"):
        put_together([one, other], "positive.whole_word")


def test_students_stand_in_one_figure_by_condition(root: Path, tmp_path: Path) -> None:
    names = ("treated-1", "treated-2", "control-1", "control-2")
    ok(root, "report", *names, "--for-paper", tmp_path)
    header, *rows = (tmp_path / "tables/eas.md").read_text().splitlines()[2:]
    assert "treated, sampled tokens" in header and "control, sampled tokens" in header
    table = list(csv.reader(io.StringIO((tmp_path / "tables/eas.csv").read_text())))
    eas = [json.loads(run_named(root, name).file("eas.json").read_text()) for name in names[:2]]
    for layer, row in enumerate(table[1:]):
        mean = sum(each["v_student"][layer] for each in eas) / 2
        assert float(row[1]) == pytest.approx(mean, abs=1e-7)
    training = list(csv.DictReader(io.StringIO((tmp_path / "tables/training.csv").read_text())))
    assert [(row["condition"], row["seed"]) for row in training] == [
        ("treated", "1"),
        ("treated", "2"),
        ("control", "1"),
        ("control", "2"),
    ]
    svg = (tmp_path / "figures/eas-by-layer.svg").read_text()
    assert ">treated</text>" in svg and ">control</text>" in svg


def test_a_measurement_and_other_stages(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok(root, "report", "llama-owl-base", "--for-paper", tmp_path / "one")
    table = list(csv.DictReader(io.StringIO((tmp_path / "one/tables/scores.csv").read_text())))
    sealed = Made(run_named(root, "llama-owl-base")).numbers("measurements.json")
    for row, item in zip(table, sealed["measurements"], strict=False):
        assert row["quantity"] == item["name"] and row["values"] == str(item["n"])
        assert row["estimate"] == ("" if item["estimate"] is None else f"{item['estimate']:.8g}")
    (vectors, *_) = root.glob("default/extract-*")
    assert call(root, "report", vectors, "--for-paper", tmp_path / "two").code == 2
    assert "is a run of extract; expected one of measure, compare" in capsys.readouterr().err
    assert call(root, "report", "--for-paper", tmp_path / "two").code == 2
    assert call(root, "report", "llama-owl-base").code == 2
    assert not (tmp_path / "two").exists()
