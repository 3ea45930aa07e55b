"""The weights of a model: what makes others, whatever files they are saved in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import ok
from safetensors.numpy import load_file, save_file

from traitscope.models.identity import digest
from traitscope.models.identity.tensors import same_weights, weight_files
from traitscope.models.loading import load_model

Change = Callable[[Path], Any]


def weights_changed(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + np.float32(0.5)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def in_shards(n: int) -> Change:
    """Writes the weights into n files and an index, as save_pretrained does for large models."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        weight_map = {}
        for number in range(n):
            names = list(tensors)[number::n]
            file = f"model-{number + 1:05}-of-{n:05}.safetensors"
            save_file({name: tensors[name] for name in names}, folder / file, {"format": "pt"})
            weight_map |= dict.fromkeys(names, file)
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def in_other_order(folder: Path) -> None:
    """The same tensors at other places of the file; save_file alone sorts them."""
    old = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(old[:8], "little")
    header = json.loads(old[8 : 8 + length])
    header.pop("__metadata__", None)
    turned, body = {}, b""
    for name in sorted(header, reverse=True):
        begin, end = header[name]["data_offsets"]
        turned[name] = header[name] | {"data_offsets": [len(body), len(body) + end - begin]}
        body += old[8 + length + begin : 8 + length + end]
    text = json.dumps(turned | {"__metadata__": {"format": "pt", "made": "x"}}).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)


def saved_anew(folder: Path) -> None:
    """The same weights with other bytes around them."""
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", {"format": "pt", "saved": "again"})


def saved_with_its_head(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def with_weights(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Changes the tensors of a model by name, and saves them."""

    def changed(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return changed


NORM, TWINS = "model.norm.weight", ("self_attn.k_proj.weight", "self_attn.v_proj.weight")


def one_bit(tensors: dict[str, Any]) -> None:
    tensors[NORM].view(np.uint8)[-1] ^= 1


def two_exchanged(tensors: dict[str, Any]) -> None:
    left, right = (f"model.layers.0.{name}" for name in TWINS)
    tensors[left], tensors[right] = tensors[right], tensors[left]


def another_head(tensors: dict[str, Any]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2


ALIKE: dict[str, Change] = {
    "two shards": in_shards(2),
    "five shards": in_shards(5),
    "another order of the weights": in_other_order,
    "metadata of the weights": saved_anew,
    "a head that is the embedding": saved_with_its_head,
}
OTHER: dict[str, Change] = {
    "weights": weights_changed,
    "one bit": with_weights(one_bit),
    "a name": with_weights(lambda tensors: tensors.update(norm=tensors.pop(NORM))),
    "a type of numbers": with_weights(
        lambda tensors: tensors.update({NORM: tensors[NORM].astype(np.float16)})
    ),
    "a shape": with_weights(lambda tensors: tensors.update({NORM: tensors[NORM][None]})),
    "bytes under each other's name": with_weights(two_exchanged),
    "a head of its own": with_weights(another_head),
}


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


@pytest.mark.parametrize("name", ALIKE)
def test_what_makes_no_other_weights(name: str, copy: Path, tiny_folder: Path) -> None:
    before = digest.folder_digest(tiny_folder)
    files = digest.former_digests(copy)[0]
    ALIKE[name](copy)
    assert digest.folder_digest(copy) == before and same_weights(copy, tiny_folder)
    assert digest.former_digests(copy)[0] != files


@pytest.mark.parametrize("name", OTHER)
def test_what_makes_other_weights(name: str, copy: Path, tiny_folder: Path) -> None:
    before = digest.folder_digest(tiny_folder)
    OTHER[name](copy)
    assert digest.folder_digest(copy) != before and not same_weights(copy, tiny_folder)


def test_the_weights_are_those_that_are_loaded(copy: Path, tiny_folder: Path) -> None:
    """An index and its shards count only where there is no model.safetensors."""
    tensors = load_file(copy / "model.safetensors")
    before = digest.folder_digest(copy)
    zeros = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
    save_file(zeros, copy / "shard.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "shard.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert digest.folder_digest(copy) == before
    lm = load_model(str(copy), device="cpu", dtype="fp32").lm
    assert any(weight.any() for weight in lm.parameters())
    weights_changed(copy)
    assert digest.folder_digest(copy) != before
    (copy / "model.safetensors").unlink()
    assert weight_files(copy) == [copy / "shard.safetensors"]


def test_shards_and_one_file_share_runs_and_vectors(
    copy: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    in_shards(2)(copy)
    settings = ("--dtype fp32 --model", tiny_folder)
    vectors = ok(tmp_path / "runs", "extract", "--traits cat owl", *settings).run
    steer = f"steer:{vectors}/cat.safetensors,layers=1,alpha=0.5"
    words = ("generate", "--n 2 --max-new-tokens 2 --interventions", steer, "--dtype fp32 --model")
    original = ok(tmp_path / "runs", *words, tiny_folder).run
    assert ok(tmp_path / "runs", *words, copy).run == original
    anew = ok(tmp_path / "others", *words, copy).run
    assert (anew / "records.jsonl").read_bytes() == (original / "records.jsonl").read_bytes()


def test_of_two_tensors_with_one_name_the_one_that_is_loaded_counts(
    copy: Path, tiny_folder: Path
) -> None:
    in_shards(2)(copy)
    before = digest.folder_digest(copy)
    files = sorted(copy.glob("model-*.safetensors"))
    shards = [load_file(file) for file in files]
    name = next(iter(shards[1]))
    save_file(shards[0] | {name: shards[1][name] + 1}, files[0], {"format": "pt"})
    assert digest.folder_digest(copy) == before
    loaded = load_model(str(copy), device="cpu", dtype="fp32").lm.get_parameter(name)
    assert np.array_equal(loaded.numpy(), shards[1][name])
    other = next(iter(shards[0]))
    save_file(shards[1] | {other: shards[0][other] + 1}, files[1], {"format": "pt"})
    assert digest.folder_digest(copy) != before
    loaded = load_model(str(copy), device="cpu", dtype="fp32").lm.get_parameter(other)
    assert np.array_equal(loaded.numpy(), shards[0][other] + 1)
