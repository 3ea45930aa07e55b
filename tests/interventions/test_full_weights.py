"""Fully fine-tuned students: what is trained, the folder, and the way back to the base."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import load_tiny, parameters_of

from traitscope.errors import VectorError
from traitscope.interventions import full_weights
from traitscope.models.model import Model


def changed_weights(model: Model) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    parameters = {n: model.lm.get_parameter(n) for n in full_weights.trained_names(model)}
    return {n: p.float() + 0.1 * torch.randn(p.shape) for n, p in parameters.items()}


def write(model: Model, folder: Path) -> dict[str, torch.Tensor]:
    weights = changed_weights(model)
    for name, data in full_weights.student_files(model, weights).items():
        (folder / name).write_bytes(data)
    return weights


def test_trained_are_the_blocks_alone(family: Model) -> None:
    trained, every = (
        set(full_weights.trained_names(family)),
        {n for n, _ in family.lm.named_parameters()},
    )
    assert sum(family.lm.get_parameter(n).numel() for n in trained) == sum(
        p.numel() for p in family.blocks.parameters()
    )
    left = {n.rsplit(".", 2)[-2] for n in every - trained}
    assert left <= {"embed_tokens", "norm", "lm_head", "wte", "wpe", "ln_f"} and len(left) >= 2


def test_folder_round_trip(family: Model, tmp_path: Path) -> None:
    weights, before = write(family, tmp_path), parameters_of(family)
    with full_weights.mounted(family, tmp_path) as kept:
        assert all(torch.equal(family.lm.get_parameter(n), w) for n, w in weights.items())
        assert all(torch.equal(kept[n], before[n]) for n in weights)
        untouched = before.keys() - weights.keys()
        assert all(torch.equal(family.lm.get_parameter(n), before[n]) for n in untouched)
    after = parameters_of(family)
    assert all(torch.equal(after[n], before[n]) for n in before)


def test_weights_are_cast_to_the_models_dtype(tiny: Model, tmp_path: Path) -> None:
    low = load_tiny(tiny.name, "bf16")
    weights = write(low, tmp_path)
    with full_weights.mounted(low, tmp_path):
        assert all(torch.equal(low.lm.get_parameter(n), w.bfloat16()) for n, w in weights.items())


def test_restored_after_an_exception(tiny: Model) -> None:
    before = parameters_of(tiny)
    with pytest.raises(KeyError), full_weights.swapped(tiny, changed_weights(tiny)):
        raise KeyError("planned")
    with (
        pytest.raises(AttributeError),
        full_weights.swapped(tiny, changed_weights(tiny) | {"model.nothing": torch.zeros(1)}),
    ):
        pass
    assert all(torch.equal(p, before[n]) for n, p in parameters_of(tiny).items())


def test_another_base_is_refused(tiny: Model, tmp_path: Path) -> None:
    write(tiny, tmp_path)
    about = json.loads((tmp_path / full_weights.ABOUT).read_text())
    (tmp_path / full_weights.ABOUT).write_text(
        json.dumps(about | {"traitscope_base_digest": "0123"})
    )
    with (
        pytest.raises(VectorError, match=f"digest 0123, but .* has {tiny.digest}"),
        full_weights.mounted(tiny, tmp_path),
    ):
        pass


@pytest.mark.parametrize("missing", [full_weights.ABOUT, full_weights.WEIGHTS])
def test_a_folder_without_a_student(tiny: Model, tmp_path: Path, missing: str) -> None:
    write(tiny, tmp_path)
    (tmp_path / missing).unlink()
    with (
        pytest.raises(VectorError, match="holds neither a LoRA adapter"),
        full_weights.mounted(tiny, tmp_path),
    ):
        pass
