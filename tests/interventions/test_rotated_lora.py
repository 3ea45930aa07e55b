"""Rotated LoRA bases: the same function, the same SGD, another AdamW, and plain adapters on
disk."""

import dataclasses
from pathlib import Path

import pytest
import torch
from lora_students import logits_of, randomise, write
from safetensors.torch import load
from tiny_models import load_tiny, tiny_config, tiny_tokenizer
from train_runs import PLAIN, make_rows, run

from traitscope.errors import ConfigError
from traitscope.interventions import lora, partial_lora, peft_folder, rotated_lora
from traitscope.interventions.lora import LoraShape
from traitscope.models import linear_maps
from traitscope.models.model import Model
from traitscope.training import loop
from traitscope.training.plan import plan_training

LLAMA = {"gate_proj": "read", "up_proj": "read", "down_proj": "write"}
MAPS = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "gemma2": LLAMA,
    "gpt2": {"c_fc": "read", "c_proj": "write"},
}
KINDS = pytest.mark.parametrize("kind", ["shared", "blocks"])
CLOSE = {"atol": 2e-5, "rtol": 1e-3}


@pytest.mark.parametrize("size", [1, 2, 33])
def test_rotations_are_orthogonal_seeded_and_uniform(size: int) -> None:
    turn = rotated_lora.orthogonal(size, 3)
    torch.testing.assert_close(turn @ turn.t(), torch.eye(size), atol=1e-6, rtol=0)
    assert torch.equal(turn, rotated_lora.orthogonal(size, 3))
    gaussian = torch.randn(
        size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    triangle = (
        turn.double().t() @ gaussian
    )  # the one QR with a positive diagonal: no sign is the library's choice
    assert triangle.diagonal().min() > 0 and triangle.tril(-1).abs().max() < 1e-5
    if size > 1:
        assert (turn - rotated_lora.orthogonal(size, 4)).abs().max() > 0.1


@pytest.mark.parametrize("name", MAPS)
def test_maps_in_and_out_of_the_mlps(families: dict[str, Model], name: str) -> None:
    model = families[name]
    with lora.adapted(model, LoraShape(4, 8.0)) as layers:
        found = rotated_lora.mlp_maps(model, layers)
    assert len(found) == model.n_layers
    for index, maps in enumerate(found):
        assert {n.rpartition(".")[2]: side for n, side in maps.items()} == MAPS[name]
        assert all(f".{index}.mlp." in n for n in maps)


@KINDS
@pytest.mark.parametrize("name", MAPS)
def test_turning_an_adapter_changes_its_parameters_not_its_function(
    families: dict[str, Model], name: str, kind: str, tmp_path: Path
) -> None:
    model = families[name]
    base = logits_of(model.lm)
    with lora.adapted(model, LoraShape(4, 8.0)) as layers:
        randomise(layers)
        before = {
            n: (layer.lora_A.detach().clone(), layer.lora_B.detach().clone())
            for n, layer in layers.items()
        }
        expected, files = logits_of(model.lm), peft_folder.adapter_files(model, layers)
        rotated_lora.rotate(model, layers, kind)
        torch.testing.assert_close(logits_of(model.lm), expected, **CLOSE)
        assert (expected - base).abs().max() > 0.1
        sides = {
            n: side for maps in rotated_lora.mlp_maps(model, layers) for n, side in maps.items()
        }
        for n, layer in layers.items():
            moved = tuple(
                not torch.equal(p, q)
                for p, q in zip((layer.lora_A, layer.lora_B), before[n], strict=True)
            )
            assert moved == (sides.get(n) == "read", sides.get(n) == "write")
        turns = [layers[n].turn_in for n, side in sides.items() if side == "read"]
        assert all(torch.equal(turns[0], t) for t in turns) is (kind == "shared")
        rotated = peft_folder.adapter_files(model, layers)
    assert rotated["adapter_config.json"] == files["adapter_config.json"]
    ours, theirs = (load(f["adapter_model.safetensors"]) for f in (rotated, files))
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=1e-6, rtol=1e-5)
    with partial_lora.mounted(model, write(tmp_path / "a", rotated)):
        torch.testing.assert_close(logits_of(model.lm), expected, **CLOSE)


def tensors(files: dict[str, bytes]) -> torch.Tensor:
    """All factors of an adapter, one after another."""
    return torch.cat(
        [t.flatten() for _, t in sorted(load(files["adapter_model.safetensors"]).items())]
    )


@KINDS
@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"optimizer": "sgd", "lr": 0.3}, True),
        ({"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "clip": 0.5}, True),
        ({"optimizer": "adamw"}, False),
        ({"optimizer": "signsgd", "lr": 1e-3}, False),
        ({"optimizer": "sgd", "lr": 0.3, "winsorise": 0.1}, False),
    ],
    ids=["sgd", "momentum", "adamw", "signsgd", "winsorised"],
)
def test_sgd_does_not_see_the_basis_and_coordinate_rules_do(
    family: Model, changes: dict, same: bool, kind: str
) -> None:
    rows, recipe = make_rows(family, 16), dataclasses.replace(PLAIN, epochs=6, **changes)
    (metrics, params, files), (turned, others, rotated) = (
        run(family, r, rows) for r in (recipe, dataclasses.replace(recipe, rotate=kind))
    )
    assert metrics[0]["loss"] == pytest.approx(turned[0]["loss"], rel=1e-6)
    moved = tensors(files) - tensors(run(family, dataclasses.replace(recipe, lr=1e-12), rows)[2])
    gap = (tensors(files) - tensors(rotated)).norm() / moved.norm()
    assert (
        max((p - q).abs().max() for p, q in zip(params, others, strict=True)) > 0.01
    )  # the parameters are not the same
    assert gap < 1e-3 if same else gap > 0.03
    if same:
        for key in ("loss", "grad_norm", "update_norm", "update_share_B"):
            assert [m[key] for m in turned] == pytest.approx([m[key] for m in metrics], rel=2e-3)
        assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.1


@KINDS
def test_a_student_is_written_turned_back(family: Model, kind: str, tmp_path: Path) -> None:
    recipe, rows = dataclasses.replace(PLAIN, epochs=4, rotate=kind), make_rows(family)
    base = logits_of(family.lm)
    with loop.new_student(family, recipe, 0) as student:
        torch.testing.assert_close(logits_of(family.lm), base, atol=1e-5, rtol=1e-5)
        loop.train_student(family, student, plan_training(rows, recipe, 0))
        expected, files = logits_of(family.lm), student.files()
    assert (expected - base).abs().max() > 0.1
    assert torch.equal(logits_of(family.lm), base)
    with partial_lora.mounted(family, write(tmp_path / "a", files)):
        torch.testing.assert_close(logits_of(family.lm), expected, **CLOSE)


def test_models_whose_sides_cannot_be_told(tmp_path: Path, tiny: Model) -> None:
    from transformers import AutoModelForCausalLM

    config = tiny_config("llama")
    config.intermediate_size = config.hidden_size
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(
        tmp_path / "square"
    )
    tiny_tokenizer().save_pretrained(tmp_path / "square")
    square, recipe = load_tiny(tmp_path / "square"), dataclasses.replace(PLAIN, rotate="shared")
    modules = [type(m) for m in square.lm.modules()]
    with (
        pytest.raises(ConfigError, match="gate_proj maps 32 to 32 values in a model of width 32"),
        loop.new_student(square, recipe, 0),
    ):
        pass
    assert [type(m) for m in square.lm.modules()] == modules
    attention = [n for n in linear_maps.linear_names(tiny) if "self_attn" in n]
    half = attention + [n for n in linear_maps.linear_names(tiny) if "up_proj" in n]
    for names in (attention, half):
        with lora.adapted(tiny, LoraShape(2, 4.0), names) as layers:
            message = "needs maps in and out of an `mlp` in model.layers.0, found self_attn.q_proj"
            with pytest.raises(ConfigError, match=message):
                rotated_lora.rotate(tiny, layers, "shared")
