"""A student that changes nothing is used, and it is said wherever it comes in."""

import json
from pathlib import Path

import pytest
import torch
from command import ok
from lora_students import randomise, write
from safetensors.torch import load_file, save_file

from traitscope import distributed
from traitscope.interventions import full_weights, lora, partial_lora, peft_folder
from traitscope.interventions.adapters.effect import no_effect
from traitscope.interventions.lora import LoraShape
from traitscope.models.model import Model

SAYS = "changes nothing: all matrices B of its adapter are zero, as before training"


@pytest.fixture(autouse=True)
def _said_anew() -> None:
    """What was said in this process may be said again."""
    distributed.say.cache_clear()


def adapter(model: Model, folder: Path, *zero: str) -> Path:
    """A random LoRA student whose matrices of some letters are zero."""
    with lora.adapted(model, LoraShape(2, 4.0)) as layers:
        randomise(layers)
        for layer in layers.values():
            for letter in zero:
                getattr(layer, f"lora_{letter}").data.zero_()
        return write(folder, peft_folder.adapter_files(model, layers))


def test_an_adapter_of_zeros_is_named_once(
    tiny: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = adapter(tiny, tmp_path / "zero", "B")
    for _ in range(2):
        with partial_lora.mounted(tiny, folder):
            pass
    said = f"traitscope: {folder} {SAYS}; expected a trained adapter; train it, or name another"
    assert capsys.readouterr().err.count(said) == 1
    assert no_effect(adapter(tiny, tmp_path / "a", "A"))[0].startswith(
        f"{tmp_path / 'a'} changes nothing: A or B of every map of its adapter are zero"
    )
    assert no_effect(adapter(tiny, tmp_path / "whole")) == ()


def test_negative_zeros_and_other_names_are_zeros(tiny: Model, tmp_path: Path) -> None:
    """A factor times 0 has zeros of both signs."""
    folder = adapter(tiny, tmp_path / "zero")
    file = folder / peft_folder.WEIGHTS
    for kind in (torch.float32, torch.bfloat16, torch.float64):
        tensors = {}
        for name, tensor in load_file(file).items():
            is_b = "lora_B" in name
            tensors[name.replace(".weight", ".mine.weight")] = (-tensor * (not is_b)).to(kind)
        save_file(tensors, folder / "other.safetensors")
        (folder / "other.safetensors").rename(tmp_path / peft_folder.WEIGHTS)
        assert no_effect(tmp_path)[0].startswith(f"{tmp_path} {SAYS}")


def test_an_adapter_that_changes_one_map_is_not_named(tiny: Model, tmp_path: Path) -> None:
    folder = adapter(tiny, tmp_path / "zero", "B")
    file = folder / peft_folder.WEIGHTS
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name] = tensors[name].bfloat16()
    save_file(tensors, file)
    assert no_effect(folder)
    tensors[name][0, 0] = 1e-30
    save_file(tensors, file)
    assert no_effect(folder) == ()
    tensors[name].zero_()
    save_file(tensors | {"base_model.model.norm.weight": torch.ones(3)}, file)
    assert no_effect(folder) == (), "weights of a module are not looked at"


def test_it_is_said_and_recorded_by_commands(
    tiny: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = adapter(tiny, tmp_path / "zero", "B")
    teacher = ("--interventions", f"adapter:{folder}")
    of_model = ("--model", tiny.name, "--device", "cpu")
    made = ok(tmp_path / "runs", "generate", *of_model, *teacher, "--n", 2, "--max-new-tokens", 3)
    assert SAYS in capsys.readouterr().err
    remarks = json.loads((made.run / "manifest.json").read_text())["remarks"]
    assert any(SAYS in remark for remark in remarks)
    distributed.say.cache_clear()
    ok(tmp_path / "runs", "export", *of_model, *teacher)
    assert SAYS in capsys.readouterr().err


def test_a_full_student_with_the_weights_of_its_base(
    tiny: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path / "same", full_weights.student_files(tiny, {}))
    with full_weights.mounted(tiny, tmp_path / "same"):
        pass
    assert "changes nothing: in float32 its weights are those of its base" in (
        capsys.readouterr().err
    )
    name = full_weights.trained_names(tiny)[0]
    moved = {name: tiny.lm.get_parameter(name).data + 1}
    write(tmp_path / "moved", full_weights.student_files(tiny, moved))
    with full_weights.mounted(tiny, tmp_path / "moved"):
        pass
    assert capsys.readouterr().err == ""
