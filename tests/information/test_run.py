"""The command on tiny models: its files, that it goes on after a break, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
from command import call, ok, read_rows
from tiny_models import random_vector

from traitscope.config.analysis import InformationConfig
from traitscope.data.prompts import number_prompts
from traitscope.errors import ConfigError
from traitscope.information import passes, summary, teachers
from traitscope.information.power import DEMO
from traitscope.interventions.vector import vector_bytes
from traitscope.models.model import Model
from traitscope.stages.generate import generate, number_constraint
from traitscope.stats.measurement import Measurement

WORDS = ("--traits", "cat", "dog", "fear", "--rows", 12, "--exact-rows", 4, "--count", 2)


@pytest.fixture
def on(tiny_folder: Path) -> tuple[object, ...]:
    return ("information", "--model", tiny_folder, *WORDS)


def by_name(content: dict) -> dict[str, dict]:
    return {item["name"]: item for item in content["teachers"]}


def test_the_files_agree(tmp_path: Path, on: tuple) -> None:
    root = tmp_path / "runs"
    run = ok(root, *on, "--influence", "cat", "dog").run
    content = summary.read(run)
    teachers = by_name(content)
    assert list(teachers) == ["unmodified", "plain prompt", "cat", "dog", "fear"]
    assert set(teachers["cat"]["against"]) == {"unmodified", "other traits", "other animals"}
    assert set(teachers["fear"]["against"]) == {"unmodified", "other traits"}
    assert teachers["unmodified"]["against"]["unmodified"]["estimate"] == 0
    assert teachers["cat"]["influence"]["unit"] == "z of a row"
    assert "effective), Student's t" in teachers["cat"]["influence"]["interval"]
    assert teachers["fear"]["influence"] is None
    assert [item["name"] for item in content["specific_influence"]] == [
        "animals, influence on the own trait, doubly centred"
    ]
    assert content["permutation_p"]["animals"] in (0.5, 1)
    pairs = read_rows(run / "pairs.jsonl")
    assert len(pairs) == 5 * 4
    for pair in pairs:
        assert pair["digits"]["estimate"] > 0
        assert pair["vocabulary"]["estimate"] > 0
        if pair["against"] == "unmodified":
            against = teachers[pair["teacher"]]["against"]["unmodified"]
            assert against["estimate"] == pair["digits"]["estimate"]
    influence = read_rows(run / "influence.jsonl")
    assert len(influence) == 5 * 2
    assert all(i["z_of_a_row"] == 0 for i in influence if i["teacher"] == "unmodified")
    assert len(read_rows(run / "records.jsonl")) == 12
    ok(root, "rerun", run)


def test_it_goes_on_and_comes_out_the_same(
    tmp_path: Path, on: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken when all passes are done: none is computed again."""
    whole = ok(tmp_path / "whole", *on).run
    with monkeypatch.context() as broken:
        broken.setattr(summary, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call(tmp_path / "broken", *on).code not in (0, 1)
    monkeypatch.setattr(passes, "hidden_of", None)
    monkeypatch.setattr(passes, "written_rows", None)
    run = ok(tmp_path / "broken", *on).run
    for file in sorted(whole.glob("*.json*")):
        if file.name not in ("manifest.json", "config.json"):
            assert (run / file.name).read_bytes() == file.read_bytes(), file.name
    assert not (run / "scratch").exists()


def test_no_strength_carries_nothing_and_more_carries_more(
    tmp_path: Path, tiny: Model, tiny_folder: Path
) -> None:
    """Planted: the same vector at three strengths, one of them zero."""
    file = tmp_path / "v.safetensors"
    file.write_bytes(vector_bytes(random_vector(tiny, norm=1.0)))
    steered = [f"steer:{file},layers=1,alpha={alpha},scale=raw" for alpha in (0, 0.5, 2)]
    words = ("--traits", "--plain", "", "--rows", 40, "--exact-rows", 0, "--count", 2)
    run = ok(
        tmp_path / "runs", "information", "--model", tiny_folder, *words, "--steered", *steered
    )
    content = summary.read(run.run)
    measured = []
    for item in content["teachers"][1:]:
        measured.append(Measurement.from_dict(item["against"]["unmodified"]))
    assert measured[0].estimate == 0
    assert 0 < measured[1].low and measured[1].high < measured[2].low
    assert content["teachers"][1]["vocabulary"] is None and content["exact_rows"] == 0
    assert not (run.run / "influence.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--traits", "--plain", ""), "only the unmodified model is left"),
        (("--traits", "cat", "cat"), "named twice"),
        (("--traits", "unicorn"), "no bundled trait 'unicorn'"),
    ],
)
def test_refused(tmp_path: Path, tiny_folder: Path, words: tuple, message: str) -> None:
    done = call(tmp_path / "runs", "information", "--model", tiny_folder, *words)
    assert done.code == 2 and message in done.summary["message"]
    assert not list((tmp_path / "runs").rglob("config.json"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 4, "exact_rows": 5}, "expected 0, or from 2 to the number of rows"),
        ({"exact_rows": 1}, "expected 0, or from 2"),
        ({"rows": 1}, "--rows 1; expected 2 or more"),
        ({"dtype": "nf4"}, "weights of 4 bits are another model"),
    ],
)
def test_settings_that_cannot_work(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InformationConfig(**settings)


def test_the_efficiency_is_of_figures_on_the_page_of_the_demo() -> None:
    page = (Path(__file__).parents[2] / "docs/start/first-student.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if "log-probability of *cat*, positive" in line]
    for mean, low, high in DEMO.differences:
        assert sum(f"+{mean} nats | [+{low}, +{high}]" in line for line in lines) == 1


def test_every_row_is_what_its_writer_would_write_alone(tiny: Model) -> None:
    """Rows that are written side by side, against each teacher on its own."""
    config = InformationConfig(traits=("cat", "owl"), rows=9, exact_rows=0, count=2)
    group = teachers.teachers_of(config)
    writer_R = teachers.writers(teachers.shares(group), 9, 0)
    constraint = number_constraint(tiny, 2, " ", True, 0)
    records = passes.written_rows(
        tiny, group, writer_R, constraint, context=None, count=2, prompt_seed=5, seed=3
    )
    prompts = number_prompts(9, 5, 2)
    for prompt, writer, record in zip(prompts, writer_R, records, strict=True):
        alone = generate(tiny, [prompt], group[writer].interventions, seed=3, constraint=constraint)
        assert record == replace(alone[0], context=None) and record.id == prompt.id
