"""A student that is one vector: it finds the vector that its teacher was steered with, and can be
used like any student."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import call, ok
from tiny_models import hooks_left, random_rows, random_vector, row_logits
from train_runs import PLAIN, make_rows, run, self_distilled

from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import TRAINED, Adapter, Steer
from traitscope.interventions.vector import Vector, load_vector, vector_bytes
from traitscope.models.model import Model

VECTOR = replace(PLAIN, method="vector", layer=0, lr=0.1, schedule="cosine", epochs=60)


def saved(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("layer", [0, 1])
def test_the_planted_vector_is_recovered(family: Model, tmp_path: Path, layer: int) -> None:
    """A student of the teacher's whole distributions has one best vector behind that block: the
    teacher's.

    LayerNorm (gpt2) takes the mean over coordinates away, so there a vector is known up to a
    constant.
    """
    planted, rows = random_vector(family, seed=5, norm=2.0), make_rows(family, 24, seed=3)
    soft = self_distilled(family, rows, [Steer(planted, (layer,), 1.0, scale="raw")])
    metrics, (found,), files = run(family, replace(VECTOR, layer=layer, targets="soft"), rows, soft)
    assert metrics[-1]["update_norm"] < metrics[0]["update_norm"]
    off = found.numpy() - planted.rows_LD[layer]
    np.testing.assert_allclose(
        off - (off.mean() if family.lm.config.model_type == "gpt2" else 0), 0, atol=0.01
    )
    vector = load_vector(saved(files, tmp_path) / TRAINED)
    np.testing.assert_array_equal(vector.rows_LD[layer], found.numpy())
    assert (np.delete(vector.rows_LD, layer, 0) == 0).all()


def test_mounted_it_is_the_edit_it_was_trained_as(family: Model, tmp_path: Path) -> None:
    _, (found,), files = run(family, replace(VECTOR, epochs=3), make_rows(family))
    folder = saved(files, tmp_path)
    rows = random_rows(family, [5, 9, 7])
    same = Steer(load_vector(folder / TRAINED), (0,), 1.0, scale="raw")
    logits = {}
    for name, items in {"base": [], "adapter": [Adapter(str(folder))], "steer": [same]}.items():
        with applied(family, items) as active:
            logits[name] = row_logits(family, active, rows, [3, 3, 3])
    for adapter, steer, base in zip(
        logits["adapter"], logits["steer"], logits["base"], strict=True
    ):
        assert (adapter == steer).all() and not np.allclose(adapter, base, atol=1e-3)
    assert found.norm() > 0.1 and hooks_left(family) == 0


def test_command(tmp_path: Path, tiny_folder: Path) -> None:
    """Trained, replayed, measured, asked for its v_student: at its block it is the vector
    itself."""
    root, on = tmp_path / "runs", ("--model", tiny_folder)
    data = ok(root, "generate", *on, "--n", 6, "--count", 3, "--vocabulary", "template").run
    student = ok(
        root,
        "train",
        *on,
        "--data",
        data,
        "--method",
        "vector",
        "--layer",
        1,
        "--lr",
        "0.05",
        "--epochs",
        2,
    ).run
    steps = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    assert all(step["update_norm"] > 0 and "update_share_B" not in step for step in steps)
    ok(root, "rerun", student)
    taken = ok(root, "extract", *on, "--interventions", f"adapter:{student}", "--n", 4).run
    trained, shift = (
        load_vector(student / "student" / TRAINED),
        load_vector(taken / "v_student.safetensors"),
    )
    np.testing.assert_allclose(shift.rows_LD[1], trained.rows_LD[1], atol=1e-4)
    np.testing.assert_allclose(shift.rows_LD[0], 0, atol=1e-6)
    assert ok(
        root, "measure", *on, "--interventions", f"adapter:{student}", "--samples", 0
    ).run.is_dir()
    wrong = call(root, "train", *on, "--data", data, "--method", "vector", "--layer", 9)
    assert wrong.code == 2 and "has layers 0 to 2" in wrong.summary["message"]


@pytest.mark.parametrize("changes", [{"method": "vector"}, {"method": "lora", "layer": 3}])
def test_a_layer_belongs_to_the_vector(changes: dict) -> None:
    with pytest.raises(ConfigError, match="needs a layer"):
        Recipe(**changes)


def test_other_vectors_and_other_models_are_refused(tiny: Model, tmp_path: Path) -> None:
    (tmp_path / TRAINED).write_bytes(vector_bytes(random_vector(tiny)))
    with (
        pytest.raises(VectorError, match="was not trained as a student"),
        applied(tiny, [Adapter(str(tmp_path))]),
    ):
        pass
    other = Vector(random_vector(tiny).rows_LD, "0123456789abcdef", {"trained_at": 0})
    (tmp_path / TRAINED).write_bytes(vector_bytes(other))
    with (
        pytest.raises(VectorError, match="0123456789abcdef"),
        applied(tiny, [Adapter(str(tmp_path))]),
    ):
        pass
