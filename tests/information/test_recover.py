"""The stage `recover`: what is chosen on one half is scored on the other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import CAT, OWL, call, ok, read_rows, write_yaml
from tiny_models import random_vector

from traitscope.config.analysis import RecoverConfig
from traitscope.errors import ConfigError, VectorError
from traitscope.inference.token_rows import Row
from traitscope.information import recover
from traitscope.information.recover import SteeringOption
from traitscope.interventions.vector import load_vector

GRID = "--layers 0 1 --alphas 1 2 --grid-rows 3 --epochs 2 --batch-size 3 --dtype fp32"


@pytest.fixture
def runs(tmp_path: Path, tiny_folder: Path):
    """Words of a command on vectors of two traits, and the rows that the owl teacher wrote."""
    root, model = tmp_path / "runs", ["--model", tiny_folder]
    owl, cat = (write_yaml(tmp_path / f"{t['name']}.yaml", t) for t in (OWL, CAT))
    vectors = ok(root, "extract", *model, "--traits", owl, cat, "--prompt-set numbers --n 4").run
    prompt = f"prompt:{OWL['teacher_prompt']}"
    made = ["--n 10 --count 3 --vocabulary template --separator", " ", "--interventions", prompt]
    rows = ok(root, "generate", *model, *made).run
    words = ["recover", *model, "--trait", owl, "--vectors", vectors, GRID]
    return root, words, rows


def test_every_kind_is_scored_on_the_second_half(runs) -> None:
    root, words, rows = runs
    more = "--digits --tiled-layers 1 --tiled-alphas 0.1 --trained-layers 0 1"
    done = ok(root, *words, "--data", rows, more)
    summary, cells = done.summary["summary"], read_rows(done.run / "cells.jsonl")
    assert summary["rows"] == 5 and summary["grid_rows"] == 3 and summary["other"] == "cat"
    kinds = summary["kinds"]
    assert list(kinds) == ["own", "tiled", "other", "centred", "common", "trained"]
    for scores in (summary["teacher"], *kinds.values()):
        assert len(scores["gain"]) == len(scores["kl"]) == 5
    np.testing.assert_allclose(summary["teacher"]["kl"], 0, atol=1e-5)
    assert min(summary["base_kl"]) > 0
    assert len(cells) == 8 + 2 + 4 + 2 + 2
    own = [cell for cell in cells if cell["kind"] == "own"]
    best = max(own, key=lambda cell: cell["share_of_kl"])
    assert {key: kinds["own"][key] for key in best if key in kinds["own"]} == {
        key: value for key, value in best.items() if key != "share_of_kl"
    }
    trained = load_vector(done.run / "trained.safetensors")
    assert trained.norms_L[kinds["trained"]["layer"]] >= 0
    assert len(summary["trained_kl"]) == 3
    assert ok(root, "rerun", done.run).summary["different"] == []


def test_rows_of_the_second_half_choose_nothing(runs, tmp_path: Path) -> None:
    """Other rows in the second half leave every choice and the trained vector as they were."""
    root, words, rows = runs
    more = "--digits --trained-layers 1"
    lines = (rows / "records.jsonl").read_text().splitlines(keepends=True)
    other = tmp_path / "other.jsonl"
    again = [line.replace("numbers-42-", "again-") for line in lines[:5]]
    other.write_text("".join([*lines[:5], *again]))
    one = ok(root, *words, "--data", rows, more)
    two = ok(root, *words, "--data", other, more)
    assert read_rows(one.run / "cells.jsonl") == read_rows(two.run / "cells.jsonl")
    assert (one.run / "trained.safetensors").read_bytes() == (
        two.run / "trained.safetensors"
    ).read_bytes()
    assert one.summary["summary"]["base_kl"] != two.summary["summary"]["base_kl"]


def test_without_data_the_teacher_answers_questions(runs) -> None:
    root, words, _ = runs
    ran = call(root, *words)
    assert ran.code == 2 and "3 rows to choose and to test on" in ran.summary["message"]


def test_a_tiled_row_stands_behind_every_block(tiny) -> None:
    vector = random_vector(tiny)
    steer = recover.steering(SteeringOption("tiled", 1, 0.5, "prompt"), {"tiled": vector})
    assert steer.layers == (0, 1, 2) and steer.alpha == 0.5 and steer.scale == "raw"
    np.testing.assert_array_equal(steer.vector.rows_LD, np.tile(vector.rows_LD[1], (3, 1)))
    one = recover.steering(SteeringOption("own", 1, 0.5, "prompt"), {"own": vector})
    assert one.layers == (1,) and one.vector is vector


def test_bad_input(runs) -> None:
    root, words, rows = runs
    for more, says in (
        (["--other", "fox", "--data", rows], "holds cat, owl; expected one of these besides owl"),
        (["--layers", "9", "--data", rows], "layers 0 to 2"),
    ):
        ran = call(root, *words, *more)
        assert ran.code == 2 and says in ran.summary["message"], ran.summary
    without = call(root, "recover", *words[1:3], "--data", rows)
    assert without.code == 2 and "--vectors is missing" in without.summary["message"]


def test_vectors_that_lack_what_is_needed(tiny, tmp_path: Path) -> None:
    """What several traits share, a layer that the model has, and norms to measure steps in."""
    for name in ("owl", "cat"):
        random_vector(tiny).save(tmp_path / f"{name}.safetensors")
    config = RecoverConfig(vectors=tmp_path, trained_layers=(0,))
    with pytest.raises(ConfigError, match=r"has no common/mean\.safetensors.*; name one"):
        recover._directions(config, "owl")
    sampled = recover.Sampled([Row((5, 6), (7,))] * 8, [[5, 6]] * 8, None)
    without = replace(random_vector(tiny), about={})
    with pytest.raises(VectorError, match="records no residual norms"):
        recover._trained(config, tiny, sampled, slice(0, 4), without)
    deep = replace(config, trained_layers=(3,))
    with pytest.raises(ConfigError, match="has layers 0 to 2"):
        recover._trained(deep, tiny, sampled, slice(0, 4), random_vector(tiny))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"alphas": ()}, "--alphas is empty"),
        ({"tiled_alphas": ()}, "--tiled-alphas is empty"),
        ({"alphas": (float("nan"),)}, "nan; expected a finite strength"),
        ({"max_rows": 7}, "--max-rows 7; expected 8 or more"),
    ],
)
def test_config_refuses_what_cannot_work(wrong: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RecoverConfig(**wrong)
