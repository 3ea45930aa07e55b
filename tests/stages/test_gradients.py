"""A planted vector that data point back to; shares of energy; pairs; the command."""

from pathlib import Path

import numpy as np
import pytest
from command import CAT, OWL, call, ok, read_rows, write_yaml

from traitscope.data.records import Record
from traitscope.errors import DataError
from traitscope.interventions.vector import Vector, load_vector
from traitscope.stages import gradients
from traitscope.stages.gradients import Pushes


def planted(signal: float, rows: int = 64, width: int = 50, seed: int = 0) -> tuple[Pushes, Vector]:
    """Noise with a small consistent part along a known vector at layer 1, and none at layer 0."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((rows, 2, width))
    vector = Vector(rng.standard_normal((2, width)), "m")
    noise[:, 1] += signal * vector.unit().rows_LD[1]
    return Pushes(noise.astype(np.float32)), vector


def test_alignment_of_a_planted_direction() -> None:
    pushes, vector = planted(0.8)
    low, high = gradients.alignment_interval(pushes, vector)
    found = gradients.alignment(pushes.mean_LD, vector)
    assert low[1] > 0.3 and (low < found).all() and (found < high + 0.2).all()
    assert abs(found[0]) < 0.35 < found[1]
    noise = gradients.signal_to_noise(pushes, vector)
    assert noise[1] == pytest.approx(0.8 * 8, rel=0.3) and abs(noise[0]) < 3


def test_alignment_grows_with_rows() -> None:
    pushes, vector = planted(0.8, rows=100)
    rows = gradients.growth(pushes, vector)
    assert list(rows) == [1, 2, 4, 8, 16, 32, 64, 100]
    assert rows[100][1] > rows[1][1]
    np.testing.assert_allclose(rows[100], gradients.alignment(pushes.mean_LD, vector), atol=1e-6)


def test_energy_of_equal_coordinates_is_even_and_of_one_is_all() -> None:
    even = gradients.concentration(Pushes(np.ones((20, 1, 100), np.float32)))
    assert even["coordinates"]["0.1"] == [0.1] and even["rows"]["0.1"] == [0.1]
    single = np.zeros((20, 1, 100), np.float32)
    single[3, 0, 7] = 2
    found = gradients.concentration(Pushes(single))
    assert found["coordinates"]["0.001"] == [1.0] and found["rows"]["0.001"] == [1.0]


def test_outliers_can_hide_a_direction() -> None:
    pushes, vector = planted(0.8, rows=400)
    loud = pushes.rows_RLD.copy()
    loud[:, 1, 0] += 40 * np.random.default_rng(1).standard_normal(400)
    found = gradients.without_top(Pushes(loud), vector, fraction=0.02)
    assert found["alignment.rest"][1] > found["alignment.all"][1] + 0.1
    assert found["norm.top"][1] > found["norm.rest"][1]
    whole = np.hypot(found["norm.top"], found["norm.rest"])
    np.testing.assert_allclose(whole, found["norm.all"], rtol=1e-4)


def test_zero_push_has_no_direction() -> None:
    np.testing.assert_array_equal(gradients.alignment(np.zeros((2, 50)), planted(0)[1]), 0)


def test_pairs_by_id_and_prompt() -> None:
    def record(key: str, prompt: str = "p", kept: bool = True) -> Record:
        return Record(id=key, prompt=prompt, completion="1", meta={"filter": {"kept": kept}})

    data = [record("a"), record("b"), record("c"), record("d", kept=False)]
    control = [record("b"), record("a"), record("c", "other"), record("d")]
    assert [(d.id, c.id) for d, c in zip(*gradients.paired(data, control), strict=True)] == [
        ("a", "a"),
        ("b", "b"),
    ]
    with pytest.raises(DataError, match="same id and prompt"):
        gradients.paired(data, [record("z")])


def test_command(tmp_path: Path, tiny_folder: Path) -> None:
    """Rows of a strongly steered teacher push towards its vector at its block, more than towards
    another one."""
    root, model = tmp_path / "runs", ["--model", tiny_folder]
    owl, cat = (write_yaml(tmp_path / f"{trait['name']}.yaml", trait) for trait in (OWL, CAT))
    vectors = ok(root, "extract", *model, "--traits", owl, cat)
    asked = ["generate", *model, "--n 48 --count 4 --vocabulary template"]
    teacher = f"steer:{vectors.run / 'owl.safetensors'},layers=1,alpha=1.0"
    sides = [ok(root, *asked, *words).run for words in (["--interventions", teacher], [])]
    found = ok(
        root,
        "gradients",
        *model,
        "--data",
        sides[0],
        "--control",
        sides[1],
        "--vectors",
        vectors.run,
    )
    summary, rows = found.summary["summary"], read_rows(found.run / "rows.jsonl")
    assert summary["rows"] == len(rows) == 48 and summary["minus_control"]
    owl_ = summary["vectors"]["owl"]
    assert owl_["low"][1] > 0 and owl_["alignment"][1] > 0.1
    assert summary["vectors"]["cat"]["alignment"][1] == pytest.approx(
        -owl_["alignment"][1], abs=1e-5
    )  # centred over two
    push = load_vector(found.run / "push.safetensors")
    np.testing.assert_allclose(
        push.cosine(load_vector(vectors.run / "owl.safetensors")), owl_["alignment"], atol=1e-5
    )
    assert ok(root, "rerun", found.run).summary["status"] == "ok"
    alone = ok(root, "gradients", *model, "--data", sides[0], "--max-rows 1")
    assert alone.summary["summary"]["rows"] == 1 and not alone.summary["summary"]["minus_control"]


def test_bad_input(tmp_path: Path, tiny_folder: Path) -> None:
    root, model = tmp_path / "runs", ["--model", tiny_folder]
    made = ok(root, "generate", *model, "--n 2 --count 2 --vocabulary template").run
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "hello", "completion": "1, 2"}\n')
    for words, says in (
        ([], "--data is missing"),
        (["--data", made, "--control", other], "same id and prompt"),
    ):
        ran = call(root, "gradients", *model, *words)
        assert ran.code == 2 and says in ran.summary["message"], ran.summary
