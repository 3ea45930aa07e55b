"""What is no vector of this model is refused in one sentence: found, expected, what to do."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from control_vectors import write_gguf

from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.foreign import files, layer_rows
from traitscope.interventions.vector import Vector
from traitscope.models.model import Model

ROWS = torch.ones(4, 32)
ADD = {"steering_vector": torch.ones(32), "steering_coefficient": 1.0, "action": "add"}


class Activations:
    """A class of another package, such as steering-vectors' own."""

    def __init__(self) -> None:
        self.layer_activations = {1: torch.ones(32)}


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (ROWS, {}, "has 4 rows of 32 and does not say how it counts layers; expected --layers-are"),
        ({1: torch.ones(32)}, {}, "has 1 row of 32 and does not say how it counts layers"),
        (torch.ones(32), {}, "holds one row of 32 and does not say where it belongs; expected"),
        (ROWS, {"layers_are": "blocks"}, "has rows for 4 blocks, and .* has 3; name the model"),
        (torch.ones(3, 32), {"format": "persona_vectors"}, "has rows for 2 blocks, and .* has 3"),
        (
            ROWS,
            {"format": "persona_vectors", "layers_are": "blocks"},
            "counts hidden-states by its format, and --layers-are says blocks; leave",
        ),
        (ROWS, {"layers_are": "rows"}, "layers are 'rows'; expected blocks or hidden-states; name"),
        (ROWS, {"format": "gguf"}, "--from 'gguf' is no format; expected one of traitscope, per"),
        (torch.ones(4, 31), {"layers_are": "hidden-states"}, "has rows of 31, and .* d_model 32"),
        (torch.ones(32), {"layer": 3}, "has rows for 4 blocks, and .* has 3; name the model"),
        (ROWS, {"layers_are": "hidden-states", "layer": 3}, "no row for block 3; it has blocks 0"),
        (torch.ones(2, 4, 32), {}, r"has the shape \[2, 4, 32\]; expected \[layers, d_model\] or"),
        (torch.ones(1, 32), {"layers_are": "hidden-states"}, "no row but that of the embedding"),
        (ROWS * float("nan"), {"layers_are": "hidden-states"}, "holds 128 numbers that are not"),
        (ROWS.double() * 1e300, {"layers_are": "hidden-states"}, "not finite in float32; expected"),
        (ROWS.int(), {"layers_are": "hidden-states"}, "is int32 .*; expected one of float16"),
        (ROWS.to_sparse(), {"layers_are": "hidden-states"}, "sparse.*; expected one of .* dense"),
        (ROWS.to("meta"), {"layers_are": "hidden-states"}, "without numbers.*; expected one of"),
        (
            torch.ones(32),
            {"layers_are": "hidden-states", "layer": 1},
            "one row without a number, so --layers-are hidden-states says nothing of it; expected",
        ),
        (torch.ones(1, 32), {}, "holds one row of 32 and does not say where .* with --layer"),
        (
            {"layers.1": ADD, "model.layers.1": ADD},
            {},
            "holds 'layers.1' and 'model.layers.1', both of layer 1; expected one row a layer",
        ),
        (
            {"-1": torch.ones(32)},
            {},
            "holds '-1', a layer below 0; expected layers from 0 on; count",
        ),
        ({"layer_-1": torch.ones(32)}, {}, "holds 'layer_-1', a layer below 0; expected layers fr"),
        ({"1": torch.ones(32)}, {}, "holds one row of 32 and does not say where it belongs; expec"),
        (
            {"cat1": torch.ones(32), "owl2": torch.ones(32)},
            {},
            "'cat1' and 'owl2', whose names differ in more than a number",
        ),
        ([torch.ones(32), torch.ones(31)], {}, r"layers \[0, 1\] of widths \[31, 32\]"),
        ([ROWS], {}, "holds a list with no keys; expected one of persona_vectors, agu18dec"),
        ({"model": {"weight": ROWS}}, {}, "holds a dict with model; expected one of"),
        ({"raw": 3, "unit": 3, "norm": 3}, {}, "raw is a int; expected a tensor; name its format"),
        ({1: torch.ones(2), 2: torch.ones(3)}, {}, r"layers \[1, 2\] of widths \[2, 3\]"),
        ({-1: torch.ones(32)}, {}, r"layers \[-1\] .*; expected layers from 0 on of one width"),
        ({1: torch.ones(2, 2)}, {}, r"layer 1 has the shape \[2, 2\]; expected \[d_model\]; save"),
        ({"layers.1.mlp": ADD}, {}, "hookpoint 'layers.1.mlp' is no whole block; expected one"),
        ({"layers.1": ADD | {"action": "clamp"}}, {}, "layers.1 has the action 'clamp' and the"),
        ({"layers.1": ADD | {"head_index": 2}}, {}, "the head 2; expected add on all heads"),
        ({"layers.1": ADD | {"steering_coefficient": "x"}}, {}, "coefficient 'x' .*; expected a"),
    ],
)
def test_contents_of_torch_files(
    tiny: Model, tmp_path: Path, content: Any, settings: dict, message: str
) -> None:
    path = tmp_path / "v.pt"
    torch.save(content, path)
    with pytest.raises((VectorError, ConfigError), match=message) as raised:
        Vector.load(path, tiny, **settings)
    assert "\n" not in str(raised.value) and "; " in str(raised.value)


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib", ".PKL"])
def test_pickles_by_their_suffix(tiny: Model, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    path.write_bytes(pickle.dumps(np.ones((3, 32))))
    with pytest.raises(VectorError, match="pickle by its suffix, .*; expected tensors; save them"):
        Vector.load(path, tiny, layers_are="blocks")


@pytest.mark.parametrize("name", ["v.pt", "plain.pt"])
def test_pickles_are_never_run(tiny: Model, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "v.pt":
        torch.save(Activations(), path)
    else:
        path.write_bytes(pickle.dumps(Activations()))
    with pytest.raises(VectorError, match="holds Python objects .*; save these alone where the"):
        Vector.load(path, tiny)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.pt", b"PK\x03\x04broken", "is no file of torch.save"),
        ("v.gguf", b"GGUF", "is no whole GGUF file"),
        ("v.npy", b"\x93NUMPY", "holds no array of numbers"),
        ("v.npz", b"PK", "holds no array of numbers"),
        ("v.safetensors", b"x" * 20, "holds no vector"),
        ("v.csv", b"loader,action", "holds no vector; save the decoder's row as .pt"),
        ("v.txt", b"1 2 3", "suffix '.txt', which tells no format; expected one of traitscope"),
    ],
)
def test_damaged_files(
    tiny: Model, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((VectorError, ConfigError), match=message) as raised:
        Vector.load(tmp_path / name, tiny)
    assert "\n" not in str(raised.value)


def test_objects_in_numpy_files(tiny: Model, tmp_path: Path) -> None:
    for name, save in (("v.npy", np.save), ("v.npz", np.savez)):
        save(tmp_path / name, np.array([{}]), allow_pickle=True)
        with pytest.raises(VectorError, match="holds no array of numbers .*; save it with numpy"):
            Vector.load(tmp_path / name, tiny)


@pytest.mark.parametrize(
    ("directions", "architecture", "message"),
    [
        ({1: np.ones(32, np.float32)}, "llama", "architecture 'llama'; expected controlvector"),
        ({}, "controlvector", "holds no tensor; expected direction.BLOCK; export"),
        ({"x": np.ones(32, np.float32)}, "controlvector", "holds the tensor 'direction.x'"),
        ({5: np.ones(32, np.float32)}, "controlvector", "has rows for 6 blocks, and .* has 3"),
        (
            {"01": np.ones(32, np.float32), "1": np.ones(32, np.float32)},
            "controlvector",
            "holds 'direction.01' and 'direction.1', both of layer 1; expected one row a layer",
        ),
        ({1: np.ones(32, np.int32)}, "controlvector", "layer 1 is int32; expected one of float16"),
    ],
)
def test_contents_of_gguf(
    tiny: Model, tmp_path: Path, directions: dict, architecture: str, message: str
) -> None:
    path = write_gguf(tmp_path / "v.gguf", directions, architecture)
    with pytest.raises(VectorError, match=message):
        Vector.load(path, tiny)


def test_several_arrays_without_numbers(tiny: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", pos=np.ones(32), neg=np.ones(32))
    with pytest.raises(VectorError, match="holds 2 arrays such as 'pos'; expected one array"):
        Vector.load(tmp_path / "v.npz", tiny, layers_are="blocks")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat0", "owl1", "dog2"), "'cat0' and 'owl1', whose names differ in more than a number"),
        (("layer_1", "layer_1_bias"), "'layer_1' and 'layer_1_bias', whose names differ in more"),
        (("layer_01", "layer_1"), "holds 'layer_01' and 'layer_1', both of layer 1; expected one"),
    ],
)
def test_arrays_of_several_vectors(
    tiny: Model, tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    np.savez(tmp_path / "v.npz", **dict.fromkeys(names, np.ones(32)))
    with pytest.raises(VectorError, match=message):
        Vector.load(tmp_path / "v.npz", tiny, layers_are="blocks")


def test_a_layer_that_contradicts_the_name(tiny: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", layer_2=np.ones(32))
    message = "names its row for layer 2, and --layer is 1; expected the same; give --layer 2, or"
    with pytest.raises(ConfigError, match=message):
        Vector.load(tmp_path / "v.npz", tiny, layer=1)
    with pytest.raises(VectorError, match="no row for block 1; it has blocks 2; name one"):
        Vector.load(tmp_path / "v.npz", tiny, layer=1, layers_are="blocks")


def test_files_that_are_too_large(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_FILE", 100)
    torch.save(ROWS, tmp_path / "v.pt")
    with pytest.raises(VectorError, match="expected a vector of at most 1 GiB; name the vector's"):
        Vector.load(tmp_path / "v.pt", tiny)
    with pytest.raises(VectorError, match="no vector file at .*; check the path"):
        Vector.load(tmp_path / "none.pt", tiny)
    (tmp_path / "cat.safetensors").write_bytes(b"")
    with pytest.raises(VectorError, match="name one inside it, such as .*/cat.safetensors"):
        Vector.load(tmp_path, tiny)


def test_a_file_without_its_model(tmp_path: Path) -> None:
    torch.save(ROWS, tmp_path / "v.pt")
    with pytest.raises(ConfigError, match="does not say its model; .*; name it with --model"):
        Vector.load(tmp_path / "v.pt", layers_are="hidden-states")


def test_a_foreign_file_where_a_vector_file_is_expected(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.save(ROWS, tmp_path / "v.pt")
    save_file({"rows": ROWS}, tmp_path / "v.safetensors")
    for name, reason in (("v.pt", "is no .safetensors file"), ("v.safetensors", "has no metadata")):
        message = f"it {reason}.*traitscope convert .*{name} vector.safetensors"
        with pytest.raises(VectorError, match=message):
            Vector.load(tmp_path / name)


def test_block_0_alone_is_no_control_vector(tiny: Model, tmp_path: Path) -> None:
    vector = Vector(np.ones((3, 32)), tiny.digest, {"held_blocks": [0]})
    with pytest.raises(VectorError, match="row for block 0 alone, .*; choose another format"):
        vector.save(tmp_path / "v.gguf", format="repeng")


def test_layers_of_a_stack_have_a_limit() -> None:
    with pytest.raises(VectorError, match=r"has the shape \[10001, 1\]; expected"):
        layer_rows.stack(np.ones((10_001, 1)), "v.npy")
