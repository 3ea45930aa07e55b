"""Vectors: algebra, the file, and the refusal of another model's."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_models import random_vector

from traitscope.errors import VectorError
from traitscope.interventions.checks.vectors import check_vector
from traitscope.interventions.vector import (
    Vector,
    centred,
    load_vector,
    mean,
    random_like,
    vector_bytes,
)
from traitscope.models.model import Model

A = Vector(np.array([[3.0, 4.0], [0.0, 0.0]]), "m", {"of": "a"})
B = Vector(np.array([[4.0, -3.0], [1.0, 2.0]]), "m", {"of": "b"})


def test_algebra() -> None:
    assert (A + B).rows_LD.tolist() == [[7, 1], [1, 2]]
    assert (A - B).rows_LD.tolist() == [[-1, 7], [-1, -2]]
    assert (2 * A).rows_LD.tolist() == (A * 2).rows_LD.tolist() == [[6, 8], [0, 0]]
    assert (-A).rows_LD.tolist() == [[-3, -4], [0, 0]]
    assert A.norms_L.tolist() == [5, 0]
    assert A.rows_LD.dtype == np.float32


def test_unit_and_cosine_with_a_zero_row() -> None:
    np.testing.assert_allclose(A.unit().rows_LD, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert A.cosine(B).tolist() == [0, 0]
    np.testing.assert_allclose(A.cosine(-3 * A), [-1, 0], atol=1e-7)
    np.testing.assert_allclose(B.cosine(Vector(np.eye(2), "m")), [0.8, 2 / 5**0.5], rtol=1e-6)


def test_project_out_leaves_nothing_along_the_other(tiny: Model) -> None:
    one, other = random_vector(tiny, 1, 5.0), random_vector(tiny, 2, 0.1)
    left = one.project_out(other)
    np.testing.assert_allclose(left.cosine(other), 0, atol=1e-6)
    np.testing.assert_allclose(left.norms_L**2 + (one - left).norms_L ** 2, 25, rtol=1e-5)


def test_centred_vectors_sum_to_zero_and_keep_their_differences(tiny: Model) -> None:
    given = {name: random_vector(tiny, seed) for seed, name in enumerate("xyz")}
    found = centred(given)
    np.testing.assert_allclose(mean(list(found.values())).rows_LD, 0, atol=1e-7)
    np.testing.assert_allclose(
        (found["x"] - found["y"]).rows_LD, (given["x"] - given["y"]).rows_LD, atol=1e-6
    )
    assert found["x"].about["residual_norms"] == given["x"].about["residual_norms"]
    with pytest.raises(VectorError, match="at least two traits, found 1"):
        centred({"x": given["x"]})


def test_random_like(tiny: Model) -> None:
    vector = random_vector(tiny, 0, 7.0)
    control = random_like(vector, seed=3)
    np.testing.assert_allclose(control.norms_L, 7.0, rtol=1e-5)
    assert np.array_equal(control.rows_LD, random_like(vector, seed=3).rows_LD)
    assert not np.array_equal(control.rows_LD, random_like(vector, seed=4).rows_LD)
    assert np.abs(control.cosine(vector)).max() < 0.6


@pytest.mark.parametrize(
    "rows",
    [np.zeros(3), np.array([[1.0, np.nan]]), np.array([[np.inf, 1.0]]), np.array([[1e300, 1.0]])],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_rows_must_be_finite_and_two_dimensional(rows: np.ndarray) -> None:
    with pytest.raises(VectorError, match="needs finite rows"):
        Vector(rows, "m")


@pytest.mark.parametrize(
    "other", [Vector(np.ones((2, 2)), "another"), Vector(np.ones((1, 2)), "m")]
)
def test_vectors_of_different_models_do_not_mix(other: Vector) -> None:
    for operation in (Vector.__add__, Vector.__sub__, Vector.cosine, Vector.project_out):
        with pytest.raises(VectorError, match="two vectors of different models"):
            operation(A, other)


def test_check_vector(tiny: Model) -> None:
    check_vector(random_vector(tiny), tiny)
    with pytest.raises(VectorError, match=f"digest {tiny.digest}; name that model, or extract it"):
        check_vector(Vector(random_vector(tiny).rows_LD, "another"), tiny)
    with pytest.raises(VectorError, match="has 3 layers of 32"):
        check_vector(Vector(np.ones((2, 32)), tiny.digest), tiny)


def test_file_round_trip_is_the_identity(tmp_path: Path) -> None:
    vector = Vector(
        np.random.default_rng(0).standard_normal((3, 5)),
        "m",
        {"prompts": ["ä", 1], "position": "last"},
    )
    path = tmp_path / "v.safetensors"
    path.write_bytes(vector_bytes(vector))
    back = load_vector(path)
    assert np.array_equal(back.rows_LD, vector.rows_LD) and (back.model, back.about) == (
        vector.model,
        vector.about,
    )
    assert vector_bytes(back) == path.read_bytes()


def test_files_of_earlier_versions_have_the_present_keys(tmp_path: Path) -> None:
    """Nested ones, too. Keys that somebody chose stay as they are."""
    former = {"mean of": [{"trained at": 3}], "centred over": ["cat"], "my key": {"of": "x"}}
    Vector(A.rows_LD, "m", former).save(tmp_path / "old.safetensors")
    assert load_vector(tmp_path / "old.safetensors").about == {
        "mean_of": [{"trained_at": 3}],
        "centred_over": ["cat"],
        "my key": {"of": "x"},
    }
    old_runs = Path(__file__).parents[1] / "golden" / "old_runs" / "runs" / "old"
    (file,) = old_runs.glob("extract-*/owl.safetensors")
    assert load_vector(file).about["centred_over"] == ["cat", "owl"]


def test_keys_of_provenance_are_snake_case() -> None:
    made = [A.unit(), mean([A, B]), *centred({"a": A, "b": B}).values(), random_like(B, 1), 2 * A]
    for vector in made:
        for key in re.findall(r'"([^"]+)":', json.dumps(vector.about)):
            assert re.fullmatch(r"[a-z_]+", key), key


def test_broken_files(tmp_path: Path) -> None:
    from safetensors.numpy import save

    path = tmp_path / "v.safetensors"
    with pytest.raises(VectorError, match="no vector file at .*traitscope extract"):
        load_vector(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(VectorError, match="is no vector file of this package"):
        load_vector(path)
    path.write_bytes(save({"other": np.ones(2)}))
    with pytest.raises(VectorError, match="is no vector file of this package"):
        load_vector(path)
    rows = {"rows": np.ones((1, 2), dtype=np.float32)}
    for metadata in (
        None,
        {"format": "2", "model": "m", "about": json.dumps({})},
        {"format": "x"},
        {"format": "1"},
    ):
        path.write_bytes(save(rows, metadata=metadata))
        with pytest.raises(VectorError):
            load_vector(path)


def test_saved_is_loaded(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    vector = Vector(rows, "0123456789abcdef", {"prompts": 4})
    path = tmp_path / "new" / "owl.safetensors"
    vector.save(path)
    assert path.read_bytes() == vector_bytes(vector)
    back = Vector.load(str(path))
    assert np.array_equal(back.rows_LD, rows)
    assert (back.model, back.about) == (vector.model, vector.about)
    with pytest.raises(VectorError, match="no vector file at"):
        Vector.load(tmp_path / "cat.safetensors")


def file_with(folder: Path, about: object, rows: np.ndarray | None = None) -> Path:
    """A vector file, whatever it says about its vector."""
    from safetensors.numpy import save

    path = folder / "v.safetensors"
    metadata = {"format": "1", "model": "m", "about": json.dumps(about)}
    path.write_bytes(save({"rows": A.rows_LD if rows is None else rows}, metadata=metadata))
    return path


@pytest.mark.parametrize("about", [[], "owl", 7, None, [{"trait": "owl"}]])
def test_provenance_is_values_by_name(tmp_path: Path, about: object) -> None:
    path = file_with(tmp_path, about)
    with pytest.raises(
        VectorError, match=rf"{path}: what a vector says .*; expected values by name"
    ):
        load_vector(path)
    with pytest.raises(VectorError, match="what a vector says about itself is a"):
        Vector(A.rows_LD, "m", about)


def test_provenance_that_is_nested_too_deep(tmp_path: Path) -> None:
    about: dict = {}
    for _ in range(400):
        about = {"of": about}
    with pytest.raises(VectorError, match="is no JSON: it is nested too deep; extract it again"):
        load_vector(file_with(tmp_path, about))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_rows_of_other_precisions_become_float32(tmp_path: Path, kind: str) -> None:
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "v.safetensors"
    rows = torch.tensor([[1.0, 2.5], [-3.0, 0.0]], dtype=getattr(torch, kind))
    save_file({"rows": rows}, path, metadata={"format": "1", "model": "m", "about": "{}"})
    vector = load_vector(path)
    assert vector.rows_LD.dtype == np.float32 and vector.rows_LD.tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            np.ones((2, 2), dtype=np.int64),
            "rows in v.safetensors is int64, expected one of float16",
        ),
        (np.ones((2, 2), dtype=bool), "rows in v.safetensors is bool"),
        (np.full((2, 2), np.nan, dtype=np.float32), "holds numbers that are not finite"),
        (np.full((2, 2), 1e300), "not finite in float32"),
        (
            np.ones(4, dtype=np.float32),
            r"v.safetensors: a vector needs finite rows \[layers, d_model\]",
        ),
    ],
)
def test_rows_that_are_no_matrix_of_numbers(tmp_path: Path, rows: np.ndarray, message: str) -> None:
    with pytest.raises(VectorError, match=message):
        load_vector(file_with(tmp_path, {}, rows))


def test_a_vector_that_was_loaded_stays_when_its_file_is_cut(tmp_path: Path) -> None:
    path = file_with(tmp_path, {}, np.ones((64, 512), dtype=np.float32))
    vector = load_vector(path)
    with path.open("r+b") as file:
        file.truncate(10)
    assert vector.rows_LD.sum() == 64 * 512


@pytest.mark.parametrize(
    "norms",
    [[1.0], [1.0, 2.0, 3.0], "12", 7, {"0": 1}, [1.0, None], [1, True], [1, -1], [1, 10**400]],
)
def test_residual_norms_that_are_none(norms: object) -> None:
    vector = Vector(A.rows_LD, "m", {"residual_norms": norms})
    with pytest.raises(VectorError, match=r"expected 2 numbers of 0 or more, one a layer; extract"):
        _ = vector.residual_norms_L


def test_residual_norms() -> None:
    assert Vector(A.rows_LD, "m", {"residual_norms": [1, 2.5]}).residual_norms_L.tolist() == [
        1,
        2.5,
    ]
    with pytest.raises(VectorError, match="records no residual norms"):
        _ = A.residual_norms_L
