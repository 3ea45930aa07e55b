"""Reports from planted artefacts: the planted difference comes back, null data shows nothing, modes
stay apart."""

import base64
import csv
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from traitscope import atomic_files
from traitscope.config.commands import ReportConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError, DataError, StoreError
from traitscope.reporting import old_tables as tables
from traitscope.reporting import report
from traitscope.runs import store

LAYERS, STEERED, STEPS = 12, 6, 20
SETS = {"positive": 8, "negative": 4, "off_topic": 4}
PLANTED = {"sampled": 0.4, "soft": 1.1}
VOID = {"meta", "link", "br", "hr", "img", "input", "col"}
LINKS = ("href", "src", "xlink:href", "srcset", "data", "action")
FIGURES = [
    "target-logprob",
    "eas-by-layer",
    "eas-difference-by-layer",
    "eas-by-step",
    "loss-by-step",
]


def sealed(folder: Path, stage: str, tag: str, files: dict[str, object]) -> str:
    """A sealed run with these files (a list is JSONL); its name."""
    with store.stage_run(folder, stage, {"tag": tag}) as run:
        for name, value in files.items() if not run.sealed else ():
            if isinstance(value, list):
                atomic_files.write_text(
                    run.file(name), "".join(json.dumps(row) + "\n" for row in value)
                )
            else:
                atomic_files.write_json(run.file(name), value)
    return run.path.name


def scores(rng: np.random.Generator, shift: float, noise: float = 0.05) -> list[dict]:
    """Rows of scores.jsonl: questions differ by 1 nat, runs by `noise`; `shift` on the positive set
    only."""
    rows = []
    for name, n in SETS.items():
        for i in range(n):
            level = -4 + math.sin(i) + rng.normal(0, noise) + (shift if name == "positive" else 0)
            hits = int(rng.integers(0, 4))
            rows.append(
                {
                    "id": f"{name}-{i:02d}",
                    "set": name,
                    "question": f"{name} {i}?",
                    "target_logprob": level,
                    "candidate_share": math.exp(level),
                    "total_variation": float(rng.uniform(0, 0.1)),
                    "whole_word": hits / 4,
                    "first_word": hits / 8,
                    "answers": ["cat", "a dog", "owl", ""],
                    "unscored": 1,
                }
            )
    return rows


def measured(folder: Path, tag: str, shift: float, context: str = "c") -> str:
    about = {
        "trait": "cat",
        "context_digest": context,
        "measurements": [],
        "perplexity": 25 + shift,
    }
    rows = scores(np.random.default_rng(sum(map(ord, tag))), shift, 0 if tag == "base" else 0.05)
    return sealed(folder, "measure", tag, {"scores.jsonl": rows, "measurements.json": about})


def trained(folder: Path, tag: str, height: float) -> str:
    rng = np.random.default_rng(len(tag))
    rows = []
    for step in range(1, STEPS + 1):
        row = {"step": step, "loss": 2 / step + rng.uniform(0, 0.2), "grad_norm": 1.0, "lr": 1e-4}
        row |= (
            {"eas": [height * step / STEPS] * LAYERS, "shift": [1.0] * LAYERS}
            if step % 5 == 0
            else {}
        )
        rows.append(row | ({"held_out_loss": 2 / step} if step % 10 == 0 else {}))
    return sealed(folder, "train", tag, {"metrics.jsonl": rows})


def compared(folder: Path, tag: str, height: float) -> str:
    noise = np.random.default_rng(sum(map(ord, tag))).normal(0, 0.02, LAYERS)
    row = [height * math.exp(-abs(i - STEERED) / 3) + e for i, e in enumerate(noise)]
    return sealed(folder, "extract", tag, {"eas.json": {"v_student": row}})


def student(folder: Path, mode: str, role: str, seed: int, shift: float) -> dict:
    tag, moved = f"{mode} {role} {seed}", shift / 2 if role == "treated" else 0.02
    return {
        "mode": mode,
        "role": role,
        "seed": seed,
        "measure": measured(folder, tag, shift if role == "treated" else 0),
        "train": trained(folder, tag, moved),
        "eas": compared(folder, tag, moved),
        "other_eas": {"owl": compared(folder, f"{tag} owl", 0.02), "dog": None},
    }


BUILT: dict[tuple, Path] = {}
"""Studies made so far, by their arguments; sealing a run costs two calls of git, copying it
nothing."""


def study(
    folder: Path, planted: dict[str, float] = PLANTED, seeds: int = 3, **changes: object
) -> Path:
    """A study file with its runs beside it."""
    key = (*planted.items(), seeds)
    if key not in BUILT:
        BUILT[key] = build(Path(tempfile.mkdtemp(dir=folder.parent)), planted, seeds)
    shutil.copytree(BUILT[key], folder, dirs_exist_ok=True)
    return edit(folder / "study.json", lambda plain: plain.update(changes))


def build(folder: Path, planted: dict[str, float], seeds: int) -> Path:
    conditions = [
        {
            "mode": "none",
            "role": "base",
            "seed": None,
            "measure": measured(folder, "base", 0),
            "train": None,
        },
        {
            "mode": "none",
            "role": "teacher",
            "seed": None,
            "measure": measured(folder, "teacher", 2, "t"),
            "eas": None,
        },
    ]
    for mode, shift in planted.items():
        for seed in range(1, seeds + 1):
            roles = ("treated", "control") if mode == "sampled" else ("treated",)
            conditions += [student(folder, mode, role, seed, shift) for role in roles]
    plain = {
        "schema": 1,
        "title": "Cats & <numbers>",
        "quick": False,
        "model": "tiny",
        "trait": "cat",
        "steered_layer": STEERED,
        "settings": {"d_model": 64, "rank": 8},
        "minutes": 2.5,
        "conditions": conditions,
        "data": [{"name": "teacher seed 1", "kept": 100, "rows": 120, "reasons": {"count": 20}}],
    }
    atomic_files.write_json(folder / "study.json", plain)
    return folder


def edit(path: Path, change: Callable[[dict], object]) -> Path:
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    return path


def made(path: Path, root: str = "out") -> tuple[Path, dict, str]:
    """Folder, summary and page of the report."""
    run = report.run_report(ReportConfig(path), Output(root=path.parent / root))
    return (
        run.path,
        json.loads(run.file("summary.json").read_text()),
        run.file("report.html").read_text(),
    )


class Page(HTMLParser):
    """Collects tags, links and text, and insists on balanced tags and unique ids."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.words = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open and len(self.ids) == len(set(self.ids))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [value for key, value in attrs if key in LINKS]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += [data] if "style" not in self.open else []


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    return made(study(tmp_path_factory.mktemp("planted")))


@pytest.mark.parametrize("mode", PLANTED)
def test_planted_difference_is_recovered(planted, mode: str) -> None:
    _, summary, html = planted
    m = tables.measurements(summary)[f"{mode}.difference.positive.target_logprob"]
    assert m.estimate == pytest.approx(PLANTED[mode], abs=0.06) and m.excludes_zero
    assert (m.n, m.n_clusters) == (24, 3) and "t over 3 seeds" in m.interval
    assert summary["status"] == summary["modes"][mode]["status"] == "effect"
    assert summary["modes"][mode]["direction"] == "towards the trait"
    text = Page(html).text
    other = "control students" if mode == "sampled" else "the unmodified model"
    assert f"{tables.estimate(m, True)} nats {tables.bounds(m, True)} relative to {other}" in text
    assert (
        "An interval that excludes zero: the students of these seeds moved towards the trait."
        in text
    )
    assert "n = 24 pairs (3 seeds × 8 questions)" in text


def test_differences_equal_plain_means(planted) -> None:
    """An oracle without the package's statistics: mean over seeds of the mean over questions."""
    folder, summary, _ = planted
    runs = {p.name: p for p in folder.parents[2].glob("measure-*")}
    plain = json.loads((folder.parents[2] / "study.json").read_text())
    means = {}
    for c in plain["conditions"]:
        rows = [
            json.loads(line)
            for line in (runs[c["measure"]] / "scores.jsonl").read_text().splitlines()
        ]
        for name in SETS:
            found = [r["whole_word"] for r in rows if r["set"] == name]
            means.setdefault((c["mode"], c["role"], name), []).append(np.mean(found))
    found = tables.measurements(summary)
    for name in SETS:
        expected = np.mean(means["sampled", "treated", name]) - np.mean(
            means["sampled", "control", name]
        )
        assert found[f"sampled.difference.{name}.whole_word"].estimate == pytest.approx(expected)
        expected = np.mean(means["soft", "treated", name]) - np.mean(means["none", "base", name])
        assert found[f"soft.difference.{name}.whole_word"].estimate == pytest.approx(expected)
        assert found[f"sampled.treated.{name}.unscored"].estimate == 0.25
    assert found["soft.difference.perplexity"].estimate == pytest.approx(PLANTED["soft"])


def test_eas_differences(planted) -> None:
    found = tables.measurements(planted[1])
    m = found["sampled.difference.eas.cat"]
    assert (
        m.estimate == pytest.approx(0.2 - 0.02, abs=0.04) and m.excludes_zero and m.unit == "cosine"
    )
    assert found["soft.difference.eas.cat"].estimate == found["soft.treated.eas.cat"].estimate
    assert not any(name.startswith("soft.control") for name in found)
    above = found["sampled.treated.eas.cat"].estimate - found["sampled.treated.eas.owl"].estimate
    assert found["sampled.treated.eas.cat minus others"].estimate == pytest.approx(above)


def test_modes_are_not_mixed(planted, tmp_path: Path) -> None:
    """A report on one mode alone has the same numbers as one on both, and words for that mode
    only."""
    _, both, _ = planted
    _, alone, html = made(study(tmp_path, {"sampled": PLANTED["sampled"]}))
    found = tables.measurements(both)
    for name, m in tables.measurements(alone).items():
        assert str(m) == str(found[name])
    assert (
        list(alone["modes"]) == ["sampled"]
        and "no control student was trained" not in Page(html).text
    )


def test_soft_targets_are_compared_with_controls_where_there_are_any(tmp_path: Path) -> None:
    extra = [student(tmp_path, "soft", "control", seed, 0) for seed in (1, 2)]
    path = study(tmp_path, {"soft": 1.1}, seeds=2)
    _, summary, html = made(edit(path, lambda p: p["conditions"].extend(extra)))
    assert summary["modes"]["soft"]["reference"] == "control" and "zero by construction" not in html
    found = tables.measurements(summary)
    assert found["soft.difference.eas.cat"].estimate < found["soft.treated.eas.cat"].estimate


def test_null_data_shows_no_effect(tmp_path: Path) -> None:
    _, summary, html = made(study(tmp_path, {"sampled": 0.0, "soft": 0.0}, seeds=4))
    assert summary["status"] == "no effect shown"
    for mode in PLANTED:
        assert not tables.measurements(summary)[
            f"{mode}.difference.positive.target_logprob"
        ].excludes_zero
        assert summary["modes"][mode]["direction"] == "undecided"
    text = Page(html).text
    assert (
        text.count("includes zero: not shown at this power") == 2
        and "towards the trait" not in text
    )


def test_movement_away_from_the_trait_is_no_effect(tmp_path: Path) -> None:
    _, summary, html = made(study(tmp_path, {"sampled": -0.5}))
    assert (
        summary["status"] == "no effect shown"
        and summary["modes"]["sampled"]["direction"] == "away from the trait"
    )
    assert "the opposite of passing it on" in Page(html).text


def test_quick_is_not_evidence(planted, tmp_path: Path) -> None:
    _, summary, html = made(study(tmp_path, quick=True, seeds=1))
    text = Page(html).text
    assert summary["status"] == "quick: not evidence" == summary["modes"]["soft"]["status"]
    assert "these numbers are not evidence" in text and "between-seed variance not covered" in text
    assert "another training run may end elsewhere" in text
    assert "not evidence" not in Page(planted[2]).text


def test_page_is_self_contained_and_figures_carry_their_data(planted) -> None:
    folder, _, html = planted
    page = Page(html)
    assert (
        "script" not in page.tags
        and "http:" not in html
        and "https:" not in html
        and "@import" not in html
    )
    assert not re.search(r"\son\w+=", html) and all(
        link[:5] in ("data:",) or link[0] == "#" for link in page.links
    )
    assert (
        page.tags.count("svg")
        == page.tags.count("figure")
        == page.tags.count("figcaption")
        == len(FIGURES)
    )
    links = [link for link in page.links if link.startswith("data:text/csv")]
    assert [p.stem for p in sorted((folder / "figures").iterdir())] == sorted(FIGURES) and len(
        links
    ) == len(FIGURES)
    for name, link in zip(FIGURES, links, strict=True):
        assert (
            base64.b64decode(link.partition("base64,")[2])
            == (folder / "figures" / f"{name}.csv").read_bytes()
        )
    assert "Cats & <numbers>" in page.text and page.tags.count("h1") == 1
    assert "zero by construction" in page.text


def test_figure_data_are_the_artefacts(planted) -> None:
    folder, _, _ = planted
    rows = list(
        csv.DictReader(
            io.StringIO((folder / "figures" / "eas-difference-by-layer.csv").read_text())
        )
    )
    assert [r["mode"] for r in rows] == ["sampled"] * LAYERS + ["soft"] * LAYERS
    assert max(rows[:LAYERS], key=lambda r: float(r["difference"]))["layer"] == str(STEERED)
    assert all(float(r["low"]) < float(r["difference"]) < float(r["high"]) for r in rows)
    losses = list(
        csv.DictReader(io.StringIO((folder / "figures" / "loss-by-step.csv").read_text()))
    )
    assert len(losses) == 9 * STEPS and sum(r["held_out_loss"] != "" for r in losses) == 9 * 2


def test_same_bytes_again_and_sealed_is_returned(planted) -> None:
    folder, _, html = planted
    path = folder.parents[2] / "study.json"
    again, _, same = made(path, "again")
    assert again.name == folder.name and same == html
    assert store.load_run(again).digest == store.load_run(folder).digest
    assert report.run_report(ReportConfig(path), Output(root=folder.parents[1])).sealed
    assert store.verify(folder) == []


def test_a_changed_input_is_another_report(planted, tmp_path: Path) -> None:
    folder, _, _ = planted
    other, _, _ = made(study(tmp_path, {"sampled": 0.4, "soft": 1.2}))
    assert other.name != folder.name
    assert len(store.load_run(folder).manifest()["inputs"]) == 1 + 2 + 6 * 4 + 3 * 4


def test_terminal_table(planted) -> None:
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(tables.terminal_table(planted[1]))
    text = console.export_text()
    assert all(
        words in text
        for words in ("effect", "sampled tokens", "soft targets: treated − base", "excludes zero")
    )


def test_unscored_and_absent_parts(tmp_path: Path) -> None:
    """Probabilities only, nulls, no EAS, no training log, no steered layer: what is not there is
    left out."""
    rows = scores(np.random.default_rng(0), 0.3)
    for row in rows:
        row |= {"answers": [], "unscored": 0, "candidate_share": None}
        del row["whole_word"], row["first_word"]
    about = {"trait": "cat", "context_digest": "c", "measurements": [], "perplexity": None}
    bare = sealed(tmp_path, "measure", "bare", {"scores.jsonl": rows, "measurements.json": about})
    conditions = [
        {"mode": "sampled", "role": r, "seed": 1, "measure": bare} for r in ("treated", "control")
    ]
    _, summary, html = made(
        study(tmp_path, conditions=conditions, steered_layer=None, data=[], settings={})
    )
    assert Page(html).tags.count("svg") == 1 and summary["status"] == "no effect shown"
    found = tables.measurements(summary)
    m = found["sampled.difference.positive.candidate_share"]
    assert math.isnan(m.estimate) and m.n_unscored == 16 and "unscored" in html
    assert not any("whole_word" in name or "perplexity" in name or "eas" in name for name in found)
    assert "No interval can be given, so an effect is not shown." in html


def drop_controls(plain: dict) -> None:
    plain["conditions"] = [c for c in plain["conditions"] if c["role"] != "control"]


BAD = {
    "no control": (drop_controls, DataError, "treated student but no control"),
    "no base for soft": (
        lambda p: p["conditions"].pop(0),
        DataError,
        "expected a control student or the base",
    ),
    "unpaired": (lambda p: p["conditions"].pop(3), DataError, "expected the same seeds"),
    "twice": (lambda p: p["conditions"].append(p["conditions"][2]), DataError, "twice"),
    "no treated": (
        lambda p: p.update(conditions=p["conditions"][:2]),
        DataError,
        "no treated student",
    ),
    "mode": (
        lambda p: p["conditions"][2].update(mode="both"),
        DataError,
        "condition 3 has role .* mode 'both'",
    ),
    "conditions": (lambda p: p.update(conditions=["a"]), DataError, "lists of objects"),
    "data": (lambda p: p.update(data=[{"name": "x"}]), DataError, "name, kept and rows"),
    "student without a mode": (
        lambda p: p["conditions"][2].update(mode="none"),
        DataError,
        "sampled or soft",
    ),
    "newer": (lambda p: p.update(schema=2), StoreError, "upgrade"),
    "no schema": (lambda p: p.pop("schema"), DataError, "no study file"),
    "keys": (lambda p: p.pop("trait"), DataError, "lacks trait"),
    "layer": (lambda p: p.update(steered_layer=LAYERS), DataError, "steered layer"),
    "missing run": (
        lambda p: p["conditions"][2].update(measure="measure-0"),
        StoreError,
        "no run directory",
    ),
    "stage": (
        lambda p: p["conditions"][2].update(measure=p["conditions"][2]["train"]),
        DataError,
        "run of train",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_studies(tmp_path: Path, case: str) -> None:
    change, error, words = BAD[case]
    path = edit(study(tmp_path, seeds=2), change)
    with pytest.raises(error, match=words):
        report.run_report(ReportConfig(path), Output(root=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_trusted(tmp_path: Path) -> None:
    path = study(tmp_path, {"sampled": 0.4}, seeds=2)
    first = json.loads(path.read_text())["conditions"][2]
    target = tmp_path / first["measure"] / "scores.jsonl"
    before = target.read_bytes()
    target.write_bytes(before.replace(b"0", b"1", 1))
    with pytest.raises(StoreError, match="changed after it was sealed"):
        made(path)
    target.unlink()
    with pytest.raises(StoreError, match="has no scores.jsonl"):
        made(path)
    (target.parent / "manifest.json").unlink()
    with pytest.raises(StoreError, match="unfinished"):
        made(path)


def test_contexts_and_questions_are_not_mixed(tmp_path: Path) -> None:
    other = measured(tmp_path, "other", 0.4, context="another")
    path = edit(study(tmp_path, seeds=2), lambda p: p["conditions"][2].update(measure=other))
    with pytest.raises(DataError, match="2 traits or contexts"):
        made(path)
    rows = scores(np.random.default_rng(0), 0)[1:]
    about = {"trait": "cat", "context_digest": "c", "measurements": [], "perplexity": None}
    short = sealed(tmp_path, "measure", "short", {"scores.jsonl": rows, "measurements.json": about})
    for place in (2, -1):
        path = study(tmp_path, seeds=2)
        plain = json.loads(path.read_text())
        plain["conditions"][place]["measure"] = short
        path.write_text(json.dumps(plain))
        with pytest.raises(DataError, match="other questions"):
            made(path)


@pytest.mark.parametrize("text", ["no json", "[1]", ""])
def test_no_study_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(DataError, match=r"study\.json"):
        made(tmp_path / "study.json")
    with pytest.raises(DataError, match="cannot be read"):
        made(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="no study file"):
        report.run_report(ReportConfig(), Output(root=tmp_path))
