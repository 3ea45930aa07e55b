"""Equal weights in other files are equal, and one changed number is not."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from traitscope.errors import ModelError
from traitscope.models.identity import tensors
from traitscope.models.identity.tensors import same_weights

NAME = "model.safetensors"


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "copy")


def test_the_same_numbers_in_other_bytes(
    copy: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "PIECE", 1000)
    weights = load_file(copy / NAME)
    save_file(dict(reversed(weights.items())), copy / NAME, {"format": "pt", "saved": "again"})
    assert (copy / NAME).read_bytes() != (tiny_folder / NAME).read_bytes()
    assert same_weights(copy, tiny_folder)
    tied = weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    save_file(tied, copy / NAME)
    assert same_weights(copy, tiny_folder) and same_weights(tiny_folder, copy)


@pytest.mark.parametrize("place", [0, 500, -1])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight"])
def test_one_changed_number(copy: Path, tiny_folder: Path, name: str, place: int) -> None:
    weights = load_file(copy / NAME)
    flat = weights[name].view(-1)
    flat[place % len(flat)] += 1e-3
    save_file(weights, copy / NAME)
    assert not same_weights(copy, tiny_folder)


def test_other_names_shapes_and_number_types(copy: Path, tiny_folder: Path) -> None:
    weights = load_file(copy / NAME)
    less = {name: tensor for name, tensor in weights.items() if "norm" not in name}
    coarser = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    for other in (less, coarser, weights | {"model.norm.weight": torch.ones(3)}):
        save_file(other, copy / NAME)
        assert not same_weights(copy, tiny_folder)


def test_a_file_that_was_cut(copy: Path, tiny_folder: Path) -> None:
    whole = (copy / NAME).read_bytes()
    for length in (4, 100, len(whole) - 10):
        (copy / NAME).write_bytes(whole[:length])
        with pytest.raises(ModelError, match="cannot be compared .*; expected whole"):
            same_weights(tiny_folder, copy)
