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


def test_a_folder_with_adapters_in_it(tiny: Model, tmp_path: Path) -> None:
    """A trainer's folder, or that of several adapters of one peft model."""
    for name in ("checkpoint-10", "checkpoint-20"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
    with (
        pytest.raises(VectorError, match="name one of the adapters in it, such as .*point-20"),
        full_weights.mounted(tiny, tmp_path),
    ):
        pass


def refused(model: Model, folder: Path) -> str:
    """What is said about a folder that holds no student of the model; the model stays as it is."""
    before = parameters_of(model)
    with pytest.raises(VectorError) as raised, full_weights.mounted(model, folder):
        pass
    assert all(torch.equal(p, before[n]) for n, p in parameters_of(model).items())
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"text"', "student.json holds a str, expected settings by name; copy or train"),
        ("[]", "student.json holds a list"),
        ("{}", "traitscope_base_digest is None in student.json, expected a text"),
        ('{"traitscope_base_digest": [1]}', "traitscope_base_digest is [1]"),
        ('{"traitscope_base_digest": "0", "format": 2}', "format is 2 in student.json, expected 1"),
        ("{", "holds a damaged student"),
        ("[" * 9999, "nested too deep"),
        ("\udcff", "holds a damaged student"),
    ],
)
def test_what_is_said_of_a_student_is_checked(
    tiny: Model, tmp_path: Path, text: str, message: str
) -> None:
    write(tiny, tmp_path)
    (tmp_path / full_weights.ABOUT).write_bytes(text.encode(errors="surrogateescape"))
    assert message in refused(tiny, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.nothing": torch.zeros(1)}, "model.nothing is [1] there and no weight of its"),
        ({"model.embed_tokens.weight": torch.zeros(420, 32)}, "and no weight of its blocks here"),
        ({"model.norm": torch.zeros(32)}, "model.norm is [32] there and no weight"),
        ({"model.layers.0.mlp.up_proj.weight": torch.zeros(47, 32)}, "[47, 32] there and [48, 32]"),
        ({"model.layers.0.mlp.up_proj.weight": None}, "is missing there and [48, 32] here"),
        ({"model.layers.0.input_layernorm.weight": torch.zeros(32).int()}, "is int32, expected"),
        ({"model.layers.0.input_layernorm.weight": torch.ones(32) / 0}, "that are not finite"),
    ],
)
def test_weights_that_the_model_does_not_have(
    tiny: Model, tmp_path: Path, changes: dict, message: str
) -> None:
    from safetensors.torch import load_file, save_file

    write(tiny, tmp_path)
    weights = load_file(tmp_path / full_weights.WEIGHTS) | changes
    save_file(
        {name: value for name, value in weights.items() if value is not None},
        tmp_path / full_weights.WEIGHTS,
    )
    said = refused(tiny, tmp_path)
    assert message in said and str(tmp_path) in said
