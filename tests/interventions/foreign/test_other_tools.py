"""Vectors in other tools' files steer as these tools do: same layer, same sign, same scale.

Every file is made here in the structure that its tool writes. The oracle is a plain forward hook on
transformers' own model, placed as the tool places it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from control_vectors import write_gguf
from tiny_models import eager_lm, random_rows, random_vector, row_logits
from torch import Tensor, nn

from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.applied import applied
from traitscope.interventions.foreign import files
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import HELD, Vector
from traitscope.models.linear_maps import block_names
from traitscope.models.model import Model

COEFFICIENT = -1.5
"the strength that the tool is given: a sign and a scale that are not 1"
D = 32


def rows(count: int) -> Tensor:
    """Lively rows [count, D]; each tool's own index counts them."""
    return torch.randn(count, D, generator=torch.Generator().manual_seed(4))


def hooked_logits(model: Model, module_name: str, row_D: Tensor) -> Tensor:
    """Logits of transformers' model with a row added to the output of one of its modules."""
    lm = eager_lm(model)

    def add(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        if isinstance(output, tuple):
            return (output[0] + row_D, *output[1:])
        return output + row_D

    handle = lm.get_submodule(module_name).register_forward_hook(add)
    ids = torch.tensor(random_rows(model, [7]))
    with torch.inference_mode():
        logits = lm(ids).logits[0]
    handle.remove()
    return logits


def steered_logits(model: Model, vector: Vector | str, layer: int) -> Tensor:
    steer = Steer(vector, layer=layer, alpha=COEFFICIENT, scale="raw")
    with applied(model, [steer]) as active:
        return row_logits(model, active, random_rows(model, [7]), [7])[0]


def check_as_tool(model: Model, vector: Vector, layer: int, module: str, row_D: Tensor) -> None:
    expected = hooked_logits(model, module, COEFFICIENT * row_D)
    steered = steered_logits(model, vector, layer)
    torch.testing.assert_close(steered, expected, atol=3e-5, rtol=1e-4)
    plain = hooked_logits(model, module, torch.zeros(D))
    assert (expected - plain).abs().max() > 0.1


def test_persona_vectors(family: Model, tmp_path: Path) -> None:
    """[L + 1, D]; its flag --layer k adds row k to the output of block k - 1."""
    stored = rows(family.n_layers + 1)
    path = tmp_path / "evil_response_avg_diff.pt"
    torch.save(stored, path)
    vector = Vector.load(path, family)
    assert vector.about["behind_final_norm"] == family.n_layers - 1
    for flag in range(1, family.n_layers + 1):
        module = block_names(family)[flag - 1]
        check_as_tool(family, vector, flag - 1, module, stored[flag])


def test_agu18dec(family: Model, tmp_path: Path) -> None:
    """{raw, unit, norm, meta}; consumers drop row 0 and count blocks from 0; alpha times raw."""
    raw = rows(family.n_layers + 1)
    norm = raw.norm(dim=-1)
    stored = {"raw": raw, "unit": raw / norm.unsqueeze(-1), "norm": norm, "meta": {"n": 1024}}
    torch.save(stored, tmp_path / "v_teacher.pt")
    vector = Vector.load(tmp_path / "v_teacher.pt", family)
    for block, module in enumerate(block_names(family)):
        check_as_tool(family, vector, block, module, raw[1:][block])


def test_steering_vectors(family: Model, tmp_path: Path) -> None:
    """`layer_activations`, a dictionary of block and row, here without the first block."""
    activations = {block: row for block, row in enumerate(rows(family.n_layers)) if block}
    torch.save(activations, tmp_path / "v.pt")
    vector = Vector.load(tmp_path / "v.pt", family, format="steering-vectors")
    assert vector.about[HELD] == list(activations)
    for block, row_D in activations.items():
        check_as_tool(family, vector, block, block_names(family)[block], row_D)
    for derived in (vector, -vector, vector.unit()):
        with pytest.raises(VectorError, match="has no row for layer 0: .*; name one of these"):
            steered_logits(family, derived, 0)


def test_repeng(family: Model, tmp_path: Path) -> None:
    """direction.K is added to the output of block K; block 0 is not there."""
    directions = {block: row.numpy() for block, row in enumerate(rows(family.n_layers)) if block}
    vector = Vector.load(write_gguf(tmp_path / "v.gguf", directions, "controlvector"), family)
    for block, row_D in directions.items():
        check_as_tool(family, vector, block, block_names(family)[block], torch.from_numpy(row_D))


def test_lm_eval(family: Model, tmp_path: Path) -> None:
    """A hookpoint is a module of the base model; the coefficient is a number of the file."""
    prefix = family.lm.base_model_prefix + "."
    hookpoint = block_names(family)[1].removeprefix(prefix)
    row_D = rows(1)[0]
    settings = {"steering_vector": row_D, "steering_coefficient": 0.7, "action": "add"}
    torch.save({hookpoint: settings | {"bias": None, "head_index": None}}, tmp_path / "steer.pt")
    vector = Vector.load(tmp_path / "steer.pt", family)
    assert vector.about["coefficients"] == {"1": 0.7}
    check_as_tool(family, vector, 1, prefix + hookpoint, 0.7 * row_D)


def save_safetensors(path: Path, array: np.ndarray) -> None:
    from safetensors.numpy import save_file

    save_file({"vector": array}, path)


def save_npz(path: Path, array: np.ndarray) -> None:
    np.savez(path, vector=array)


PLAIN: dict[str, Callable[[Path, np.ndarray], None]] = {
    "v.safetensors": save_safetensors,
    "v.npy": np.save,
    "v.npz": save_npz,
    "v.pt": lambda path, array: torch.save(torch.from_numpy(array), path),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_plain_arrays(tiny: Model, tmp_path: Path, name: str, kind: str) -> None:
    """One array [L, D], [L + 1, D] or [D], as the caller says."""
    stored = rows(tiny.n_layers + 1).numpy().astype(kind)
    path = tmp_path / name
    PLAIN[name](path, stored)
    of_states = Vector.load(path, tiny, layers_are="hidden-states")
    row_D = torch.from_numpy(stored[2].astype(np.float32))
    check_as_tool(tiny, of_states, 1, "model.layers.1", row_D)
    PLAIN[name](path, stored[: tiny.n_layers])
    of_blocks = Vector.load(path, tiny, layers_are="blocks")
    check_as_tool(tiny, of_blocks, 2, "model.layers.2", row_D)
    PLAIN[name](path, stored[2])
    of_one = Vector.load(path, tiny, layer=0)
    check_as_tool(tiny, of_one, 0, "model.layers.0", row_D)
    assert of_one.about == {"converted_from": files.read(path)[0], "file": name, HELD: [0]}


@pytest.mark.parametrize("name", PLAIN)
def test_one_row_in_two_dimensions(tiny: Model, tmp_path: Path, name: str) -> None:
    stored = rows(1).numpy()
    PLAIN[name](tmp_path / name, stored)
    vector = Vector.load(tmp_path / name, tiny, layer=1)
    check_as_tool(tiny, vector, 1, "model.layers.1", torch.from_numpy(stored[0]))


@pytest.mark.parametrize(
    ("settings", "block"),
    [
        ({"layer": 2}, 2),
        ({"layers_are": "blocks"}, 2),
        ({"layers_are": "hidden-states"}, 1),
        ({"layers_are": "hidden-states", "layer": 1}, 1),
    ],
)
def test_one_row_whose_name_has_its_layer(
    tiny: Model, tmp_path: Path, settings: dict, block: int
) -> None:
    np.savez(tmp_path / "v.npz", layer_2=rows(1)[0].numpy())
    vector = Vector.load(tmp_path / "v.npz", tiny, **settings)
    assert vector.about[HELD] == [block]
    check_as_tool(tiny, vector, block, f"model.layers.{block}", rows(1)[0])


def test_one_tensor_a_layer(tiny: Model, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    stored = {f"layer_{block}": row.bfloat16() for block, row in enumerate(rows(3))}
    save_file(stored, tmp_path / "v.safetensors")
    vector = Vector.load(tmp_path / "v.safetensors", tiny, layers_are="blocks")
    for block in range(3):
        name = f"model.layers.{block}"
        check_as_tool(tiny, vector, block, name, stored[f"layer_{block}"].float())


@pytest.mark.parametrize("kind", [*files.TORCH_FORMATS, "repeng", "safetensors", "numpy"])
def test_what_is_written_is_read_back(family: Model, tmp_path: Path, kind: str) -> None:
    """By the same format, and by what suffix and content tell where they do."""
    vector = Vector(rows(family.n_layers).numpy(), family.digest, {"trait": "owl"})
    suffix = {"repeng": ".gguf", "safetensors": ".safetensors", "numpy": ".npz"}.get(kind, ".pt")
    path = tmp_path / f"v{suffix}"
    vector.save(path, format=kind, model=family)
    counting = "blocks" if kind == "numpy" else ""
    back = Vector.load(path, family, format=kind, layers_are=counting)
    first = 1 if kind == "repeng" else 0
    assert np.array_equal(back.rows_LD[first:], vector.rows_LD[first:])
    assert back.model == family.digest and not back.rows_LD[:first].any()


def test_the_names_of_hookpoints_are_those_of_the_model(family: Model, tmp_path: Path) -> None:
    vector = Vector(rows(family.n_layers).numpy(), family.digest)
    path = tmp_path / "v.pt"
    with pytest.raises(ConfigError, match="names modules of a model, .*; name it with --model"):
        vector.save(path, format="lm-eval")
    vector.save(path, format="lm-eval", model=family)
    modules = dict(family.lm.base_model.named_modules())
    stored = torch.load(path, weights_only=True)
    for block, (hookpoint, settings) in enumerate(stored.items()):
        assert modules[hookpoint] is family.blocks[block]
        assert np.array_equal(settings["steering_vector"].numpy(), vector.rows_LD[block])


def test_agu18dec_holds_units_and_norms(tiny: Model, tmp_path: Path) -> None:
    vector = Vector(rows(3).numpy(), tiny.digest)
    vector.save(tmp_path / "v.pt", format="agu18dec")
    stored = torch.load(tmp_path / "v.pt", weights_only=True)
    torch.testing.assert_close(stored["unit"] * stored["norm"].unsqueeze(-1), stored["raw"])
    assert stored["raw"].shape == (4, D) and not stored["raw"][0].any()


@pytest.mark.parametrize("form", ["{}", "layer_{}", "model.layers.{}", "layer-{}"])
def test_layers_as_texts(family: Model, tmp_path: Path, form: str) -> None:
    """A dictionary of name and row, with the layer's number in the name."""
    stored = rows(2)
    torch.save({form.format(0): stored[0], form.format(1): stored[1]}, tmp_path / "v.pt")
    for settings in ({"layers_are": "blocks"}, {"format": "steering-vectors"}):
        vector = Vector.load(tmp_path / "v.pt", family, **settings)
        for block, row_D in enumerate(stored):
            check_as_tool(family, vector, block, block_names(family)[block], row_D)


def test_a_list_of_rows(tiny: Model, tmp_path: Path) -> None:
    """One row a layer, in the order of the list."""
    stored = rows(4)
    torch.save(list(stored), tmp_path / "v.pt")
    vector = Vector.load(tmp_path / "v.pt", tiny, layers_are="hidden-states")
    assert vector.about["behind_final_norm"] == 2
    check_as_tool(tiny, vector, 1, block_names(tiny)[1], stored[2])
    with pytest.raises(ConfigError, match="does not say how it counts layers"):
        Vector.load(tmp_path / "v.pt", tiny)


def hint_in(path: Path) -> str:
    """The family of the model that a control vector names."""
    import gguf

    return gguf.GGUFReader(path).get_field("controlvector.model_hint").contents()


def test_the_family_of_a_control_vector_is_kept_and_compared(
    tiny: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """repeng reads no file without a family; that of another model is said."""
    directions = {1: rows(1)[0].numpy()}
    for family, says in (("llama", ""), ("mistral", "made for a model of the kind mistral, and")):
        file = write_gguf(tmp_path / f"{family}.gguf", directions, "controlvector", family)
        vector = Vector.load(file, tiny)
        said = capsys.readouterr().err
        assert (says in said) if says else not said
        vector.save(tmp_path / "again.gguf", format="repeng")
        assert hint_in(tmp_path / "again.gguf") == family
    vector.save(tmp_path / "ours.gguf", format="repeng", model=tiny)
    assert hint_in(tmp_path / "ours.gguf") == "llama"
    random_vector(tiny).save(tmp_path / "bare.gguf", format="repeng")
    assert hint_in(tmp_path / "bare.gguf") == "unknown"
    capsys.readouterr()
    Vector.load(tmp_path / "bare.gguf", tiny)
    assert not capsys.readouterr().err
