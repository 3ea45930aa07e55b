"""Equal weights in other files are equal, and one changed number is not."""

import shutil
from pathlib import Path
from typing import Any

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
    elsewhere = whole[:8] + whole[8:].replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1)
    damaged = [whole[:4], whole[:100], whole[:-10], whole + b"x", b"", elsewhere]
    for broken in ("[1]", '{"w": 3}', '{"w": {"dtype": "F32"}}', "[" * 10**5):
        damaged.append(len(broken).to_bytes(8, "little") + broken.encode())
    for content in damaged:
        (copy / NAME).write_bytes(content)
        with pytest.raises(ModelError, match="it is damaged .*; expected a whole"):
            same_weights(tiny_folder, copy)


def test_weights_are_read_in_pieces(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tensors.weights_identity(copy)
    monkeypatch.setattr(tensors, "PIECE", 1000)
    (copy / "model.safetensors").touch()
    largest = []
    pieces = tensors._pieces

    def watched(stream: Any, length: int) -> Any:
        for piece in pieces(stream, length):
            largest.append(len(piece))
            yield piece

    monkeypatch.setattr(tensors, "_pieces", watched)
    tensors._read.cache_clear()
    assert tensors.weights_identity(copy) == before
    assert max(largest) == 1000
