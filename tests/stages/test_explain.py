"""A teacher that is a vector is explained by it whole, by nothing else; what is chosen is not what
is scored."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import CAT, OWL, call, ok, read_rows, write_yaml
from tiny_models import random_rows, random_vector

from traitscope.config.analysis import ExplainConfig
from traitscope.data.records import Record
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError, DataError, VectorError
from traitscope.inference import losses
from traitscope.inference.token_rows import Row, teacher_hidden
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import COMMON, Vector, random_like
from traitscope.models.model import Model
from traitscope.stages import explain
from traitscope.stages.explain import GridPoint
from traitscope.vectors.means import extract_vectors

LAYERS, POSITIONS, ALPHAS = (0, 1), ("prompt", "all"), (1.0, 2.0, 3.0)


def some_rows(model: Model, n: int = 6) -> list[Row]:
    return [
        Row(tuple(ids[:5]), tuple(ids[5:]))
        for ids in random_rows(model, [5 + 2 + i % 3 for i in range(n)])
    ]


def planted(model: Model, vector: Vector) -> tuple[np.ndarray, explain.Score, dict[str, Vector]]:
    """KL of the unsteered model, scorer and directions where the teacher is 2 x the vector at block
    1, all positions."""
    rows = some_rows(model)
    target = teacher_hidden(
        model, [Steer(vector, (1,), 2.0, "all", "raw")], rows, [r.prompt_ids for r in rows]
    )
    vectors = {"owl": vector, "cat": random_vector(model, 5, norm=3.0)}
    directions = explain.candidate_directions(vectors, "owl", n_random=2)
    return *explain.scorer(model, rows, target, directions, 4), directions


def test_a_steered_teacher_is_explained_by_its_vector(family: Model) -> None:
    neutral, score, directions = planted(family, random_vector(family, 11, norm=3.0))
    assert neutral.min() > 0
    points = list(explain.search(list(directions), LAYERS, POSITIONS, ALPHAS, score))
    kinds = explain.summarise(points, neutral)
    assert kinds["raw"].best == GridPoint("raw", 1, 2.0, "all")
    assert kinds["raw"].fraction.estimate == pytest.approx(1, abs=1e-4)
    by_layer = kinds["raw"].by_layer
    assert by_layer[1] == pytest.approx(1, abs=1e-4) and by_layer[0] < 0.99
    controls = ("other-raw:cat", "random-raw:0", "random-raw:1")
    assert max(kinds[kind].fraction.estimate for kind in controls) < 0.6


def test_a_prompt_is_explained_from_values(tiny: Model, tmp_path: Path) -> None:
    """The core takes a trait and vectors of extract_vectors, and reports every point."""
    owl, cat = (load_trait(write_yaml(tmp_path / f"{t['name']}.yaml", t)) for t in (OWL, CAT))
    vectors = extract_vectors(tiny, [owl, cat])
    seen: list[explain.ScoredPoint] = []
    explanation = explain.explain(
        tiny, owl, vectors, layers=LAYERS, alphas=ALPHAS, n_random=1, done=seen.append
    )
    assert seen == list(explanation.points) and len(seen) == 2 * 12 + 5 * 3
    assert len(explanation.neutral_kl_R) == 3 and explanation.n_tokens > 3
    kinds = explanation.kinds()
    assert {"raw", "centred", "common", "other-raw:cat", "random-raw:0"} < kinds.keys()
    least = min(point.kl for point in seen if point.point.kind == "raw")
    neutral = explanation.neutral_kl_R.sum()
    assert max(kinds["raw"].by_layer.values()) == pytest.approx(1 - least / neutral)
    with pytest.raises(VectorError, match="vector of model"):
        explain.explain(tiny, owl, vectors | {"cat": replace(vectors["cat"], model="another")})
    dropped = [Record("a", "p", "1", meta={"filter": {"kept": False}})]
    with pytest.raises(DataError, match="no row to compare on was kept"):
        explain.explain(tiny, owl, vectors, dropped)


def test_no_strength_explains_nothing(tiny: Model) -> None:
    neutral, score, _ = planted(tiny, random_vector(tiny, 11, norm=3.0))
    np.testing.assert_allclose(score(GridPoint("raw", 1, 0.0, "all")), neutral, rtol=1e-5)


def test_sums_do_not_depend_on_the_batch(tiny: Model) -> None:
    rows, vector = some_rows(tiny), random_vector(tiny, 11, norm=3.0)
    target = teacher_hidden(tiny, [], rows, [r.prompt_ids for r in rows])
    point = GridPoint("raw", 0, 1.0, "prompt")
    one, many = (
        explain.scorer(tiny, rows, target, {"raw": vector}, size)[1](point) for size in (1, 6)
    )
    np.testing.assert_allclose(one, many, rtol=1e-3, atol=1e-6)


def test_divergence_is_the_textbook_sum(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    p, q = torch.randn(2, 7, tiny.d_model)
    logs = [torch.log_softmax(tiny.head(h), -1) for h in (p, q)]
    expected = torch.nn.functional.kl_div(logs[1], logs[0], log_target=True, reduction="none").sum(
        -1
    )
    monkeypatch.setattr(losses, "CHUNK", 3)
    torch.testing.assert_close(losses.divergence(tiny, p, q), expected, rtol=1e-4, atol=1e-5)


def test_candidates_put_the_common_part_back(tiny: Model) -> None:
    own, other, common = (random_vector(tiny, seed) for seed in (11, 12, 13))
    vectors = {"owl": own, "cat": other, COMMON: common, "raw/owl": own + common}
    found = explain.candidate_directions(vectors, "owl", n_random=1)
    assert set(found) == {
        "raw",
        "centred",
        "common",
        "other-raw:cat",
        "other-centred:cat",
        "random-raw:0",
        "random-centred:0",
    }
    np.testing.assert_allclose(found["raw"].rows_LD, own.rows_LD + common.rows_LD)
    np.testing.assert_allclose(found["other-raw:cat"].rows_LD, other.rows_LD + common.rows_LD)
    np.testing.assert_allclose(found["random-raw:0"].norms_L, found["raw"].norms_L, rtol=1e-5)
    assert found["centred"] is own and found["common"] is common
    assert np.abs(random_like(own, 0).cosine(own)).max() < 0.9


def test_controls_are_tried_where_their_kind_was_best() -> None:
    def score(point: GridPoint) -> np.ndarray:
        best = {"raw": 0, "centred": 1}.get(point.kind)
        return np.array([1.0 + (point.layer != best) + (point.position != "all")])

    kinds = ["raw", "centred", "common", "other-centred:cat", "random-raw:0"]
    tried: dict[str, set] = {kind: set() for kind in kinds}
    for scored in explain.search(kinds, LAYERS, POSITIONS, ALPHAS, score):
        point = scored.point
        tried[point.kind].add((point.layer, point.position, point.alpha))
    assert len(tried["raw"]) == len(tried["centred"]) == 12
    assert tried["common"] == tried["random-raw:0"] == {(0, "all", a) for a in ALPHAS}
    assert tried["other-centred:cat"] == {(1, "all", a) for a in ALPHAS}


def test_choosing_on_half_of_the_rows_is_not_rewarded() -> None:
    """Cells of pure noise: the best of many looks good on the rows it was chosen on, and is zero on
    average on others."""
    rng, neutral, shares, naive = np.random.default_rng(0), np.full(20, 10.0), [], []
    for _ in range(200):
        cells = list(10 + rng.standard_normal((30, 20)))
        shares.append(explain.crossfitted("share", cells, neutral).estimate)
        naive.append(1 - min(c.sum() for c in cells) / neutral.sum())
    error = np.std(shares) / np.sqrt(len(shares))
    assert abs(np.mean(shares)) < 4 * error < 0.01 < np.mean(naive)


def test_one_row_has_no_interval() -> None:
    found = explain.crossfitted("share", [np.array([1.0]), np.array([3.0])], np.array([4.0]))
    assert found.estimate == 0.75 and np.isnan(found.low)


@pytest.mark.parametrize("with_data", [False, True])
def test_command(tmp_path: Path, tiny_folder: Path, with_data: bool) -> None:
    root, model = tmp_path / "runs", ["--model", tiny_folder]
    owl, cat = (write_yaml(tmp_path / f"{trait['name']}.yaml", trait) for trait in (OWL, CAT))
    vectors = ok(root, "extract", *model, "--traits", owl, cat)
    data = []
    if with_data:
        made = ok(root, "generate", *model, "--n 5 --count 3 --vocabulary template")
        data = ["--data", made.run]
    asked = [
        "explain",
        *model,
        "--trait",
        owl,
        "--vectors",
        vectors.run,
        "--layers 0 1 --alphas 1 2 --randoms 1",
        *data,
    ]
    found = ok(root, *asked)
    summary, cells = found.summary["summary"], read_rows(found.run / "cells.jsonl")
    assert summary["rows"] == (5 if with_data else 3)
    assert len(cells) == 2 * 8 + 5 * 2
    assert all(len(cell["kl"]) == summary["rows"] for cell in cells)
    best = min((c for c in cells if c["kind"] == "centred"), key=lambda c: sum(c["kl"]))
    assert summary["kinds"]["centred"]["best"] == {
        k: best[k] for k in ("kind", "layer", "alpha", "position")
    }
    assert ok(root, "rerun", found.run).summary["status"] == "ok"


def test_bad_input(tmp_path: Path, tiny_folder: Path) -> None:
    root, model = tmp_path / "runs", ["--model", tiny_folder]
    cat = write_yaml(tmp_path / "cat.yaml", CAT)
    owl = write_yaml(tmp_path / "owl.yaml", OWL)
    vectors = ok(root, "extract", *model, "--traits", cat)
    for words, says in (
        (["--trait", owl, "--vectors", vectors.run], "no vector of owl (found: cat)"),
        (["--trait", cat], "--vectors is missing"),
        (["--trait", cat, "--vectors", vectors.run, "--layers", "9"], "layers 0 to 2"),
        (["--trait", cat, "--vectors", vectors.run, "--alphas", "nan"], "--alphas nan"),
    ):
        ran = call(root, "explain", *model, *words)
        assert ran.code == 2 and says in ran.summary["message"], ran.summary


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"alphas": (1.0, float("nan"), float("inf"))}, "--alphas nan inf; expected a finite"),
        ({"alphas": ()}, "--alphas is empty; expected one or more"),
        ({"positions": ()}, "--positions is empty; expected one or more"),
        ({"randoms": -1}, "--randoms -1"),
        ({"max_rows": 0}, "--max-rows 0"),
    ],
)
def test_config_refuses_what_cannot_work(wrong: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        ExplainConfig(**wrong)
