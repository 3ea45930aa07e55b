"""Directions taken out of weights, and students scaled down, against formulas and hooks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from command import call, ok
from lora_students import randomise, write
from tiny_models import load_tiny, random_rows, random_vector, row_logits, save_tiny
from torch import Tensor, nn

from traitscope.errors import ConfigError, VectorError
from traitscope.interventions import lora, peft_folder
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Ablate, Adapter, Steer
from traitscope.interventions.lora import LoraShape
from traitscope.interventions.vector import Vector, vector_bytes
from traitscope.interventions.weights import undo
from traitscope.interventions.weights.undo import Ablation
from traitscope.models import checkpoints
from traitscope.models.hardware import default_dtype
from traitscope.models.linear_maps import weight_of
from traitscope.models.model import Model
from traitscope.stages import export


def everywhere(model: Model, vector: Vector, **settings: object) -> Ablation:
    """The row of block 0, taken out of all blocks and of the embeddings."""
    item = Ablate(vector, tuple(range(model.n_layers)))
    return Ablation((item,), row=0, embedding=True, **settings)


def unit_of(vector: Vector, row: int = 0) -> Tensor:
    return torch.from_numpy(vector.unit().rows_LD[row])


def student_of(model: Model, folder: Path, alpha: float = 6.0) -> Adapter:
    with lora.adapted(model, LoraShape(3, alpha)) as layers:
        randomise(layers)
        return Adapter(str(write(folder, peft_folder.adapter_files(model, layers))))


def writers(model: Model) -> list[str]:
    return [*checkpoints.maps_leaving_attention(model), *checkpoints.maps_leaving_mlps(model)]


def logits(lm: nn.Module, rows: list[list[int]]) -> list[Tensor]:
    with torch.inference_mode():
        return [lm(torch.tensor([row])).logits[0] for row in rows]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


@contextmanager
def projected(lm: nn.Module, names: list[str], unit_D: Tensor) -> Iterator[None]:
    """Plain hooks of torch that take a direction out of the outputs of some modules."""

    def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return output - (output @ unit_D).unsqueeze(-1) * unit_D

    with ExitStack() as stack:
        for name in names:
            handle = lm.get_submodule(name).register_forward_hook(hook)
            stack.callback(handle.remove)
        yield


def test_edited_maps_write_nothing_along_the_direction(family: Model) -> None:
    """For any input, bias and all; other weights are the same bytes."""
    vector = random_vector(family, 5)
    item = Ablate(vector, (1,))
    lm = export.plain_model(family, [], Ablation((item,)))
    before, after = family.lm.state_dict(), lm.state_dict()
    edited = [
        names[1]
        for names in (
            checkpoints.maps_leaving_attention(family),
            checkpoints.maps_leaving_mlps(family),
        )
    ]
    for name in edited:
        module = lm.get_submodule(name)
        inputs = torch.randn(7, weight_of(module).shape[1])
        with torch.inference_mode():
            along = module(inputs) @ unit_of(vector, 1)
            wrote = family.lm.get_submodule(name)(inputs) @ unit_of(vector, 1)
        assert along.abs().max() < 1e-5 < 0.05 < wrote.abs().max()
    for name, value in before.items():
        is_edited = name.rpartition(".")[0] in edited
        assert torch.equal(value, after[name]) != is_edited, name


def test_logits_are_those_of_hooks_at_every_write(family: Model) -> None:
    """With the embeddings: torch's own hooks behind embeddings, attention and MLPs do the same."""
    vector, rows = random_vector(family, 6), random_rows(family, [5, 9])
    found = logits(export.plain_model(family, [], everywhere(family, vector)), rows)
    base = export.plain_model(family, [])
    names = [*checkpoints.embeddings_of(family), *writers(family)]
    with projected(base, names, unit_of(vector)):
        expected = logits(base, rows)
    assert_close(found, expected)
    assert (found[0] - logits(base, rows)[0]).abs().max() > 0.05


def test_logits_are_those_of_the_intervention_where_both_exist(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Where attention and embeddings write nothing along it, MLPs alone are edited: `ablate` behind
    every block then does the same."""
    tiny = load_tiny(tiny_folder)
    vector = random_vector(tiny, 7)
    unit_D = unit_of(vector)
    vector = Vector(unit_D.repeat(tiny.n_layers, 1).numpy(), tiny.digest, {})
    names = [*checkpoints.maps_leaving_attention(tiny), *checkpoints.embeddings_of(tiny)]
    for name in names:
        weight = tiny.lm.get_submodule(name).weight
        axis = -1 if name in checkpoints.embeddings_of(tiny) else 0
        weight.data = undo.without(weight.data, unit_D, 1.0, axis)
    rows = random_rows(tiny, [5, 9])
    item = Ablate(vector, tuple(range(tiny.n_layers)))
    with applied(tiny, [item]) as active:
        expected = row_logits(tiny, active, rows, list(map(len, rows)))
    with applied(tiny, []) as active:
        base = row_logits(tiny, active, rows, list(map(len, rows)))
    assert (expected[0] - base[0]).abs().max() > 0.05
    assert_close(logits(export.plain_model(tiny, [], Ablation((item,))), rows), expected)


def test_the_intervention_finds_nothing_left(family: Model, tmp_path: Path) -> None:
    """`ablate` behind every block of the written model changes nothing beyond rounding."""
    vector = random_vector(family, 8)
    lm = export.plain_model(family, [], everywhere(family, vector))
    lm.save_pretrained(tmp_path / "m")
    family.tokenizer.save_pretrained(tmp_path / "m")
    model = load_tiny(tmp_path / "m")
    flat = Vector(unit_of(vector).repeat(model.n_layers, 1).numpy(), model.digest, {})
    rows = random_rows(model, [6])
    with applied(model, [Ablate(flat, tuple(range(model.n_layers)))]) as active:
        found = row_logits(model, active, rows, [6])
    with applied(model, []) as active:
        assert_close(found, row_logits(model, active, rows, [6]))


def test_strength_zero_and_scale_one_change_no_byte(family: Model, tmp_path: Path) -> None:
    student = student_of(family, tmp_path / "s")
    ablation = everywhere(family, random_vector(family, 9), strength=0.0)
    plain, _ = export.state_of(family, [student])
    same, _ = export.state_of(family, [student], ablation, 1.0)
    for name, value in plain.items():
        assert value.numpy().tobytes() == same[name].numpy().tobytes(), name
    base, _ = export.state_of(family, [student], scale=0.0)
    for name, value in family.lm.state_dict().items():
        assert value.numpy().tobytes() == base[name].numpy().tobytes(), name


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_part_of_the_direction(strength: float) -> None:
    """(1 - s) of the component is left, and nothing else is moved."""
    stored, unit_D = torch.randn(5, 8), nn.functional.normalize(torch.randn(8), dim=0)
    found = undo.without(stored, unit_D, strength, -1)
    assert torch.allclose(found @ unit_D, (1 - strength) * (stored @ unit_D), atol=1e-6)
    rest = torch.eye(8) - torch.outer(unit_D, unit_D)
    assert torch.allclose(found @ rest, stored @ rest, atol=1e-6)
    assert torch.equal(undo.without(stored.t(), unit_D, strength, 0), found.t())


def test_a_scaled_student_is_the_formula_and_its_own_folder(family: Model, tmp_path: Path) -> None:
    """W + s (alpha / r) B A, written out; the scaled peft folder acts as the scaled checkpoint."""
    student = student_of(family, tmp_path / "s")
    lm = export.plain_model(family, [student], scale=0.25)
    shape, factors = peft_folder.read_adapter(Path(student.folder), family)
    factor = shape.alpha / shape.rank
    for name, (a_RI, b_OR) in factors.items():
        expected = weight_of(family.lm.get_submodule(name)) + 0.25 * factor * (b_OR @ a_RI)
        torch.testing.assert_close(weight_of(lm.get_submodule(name)), expected, atol=1e-6, rtol=0)
    files = undo.scaled_folder(Path(student.folder), 0.25)
    scaled = Adapter(str(write(tmp_path / "quarter", files)))
    rows = random_rows(family, [5, 9])
    with applied(family, [scaled]) as active:
        assert_close(logits(lm, rows), row_logits(family, active, rows, [5, 9]))


def test_norms_behind_the_maps_are_refused(families: dict[str, Model]) -> None:
    gemma = families["gemma2"]
    with pytest.raises(ConfigError, match="still writes along the direction"):
        export.export(gemma, [], Ablation((Ablate(random_vector(gemma), (1,)),)))


def test_what_cannot_be_undone_is_refused(tiny: Model, tmp_path: Path) -> None:
    vector = random_vector(tiny)
    elsewhere = Vector(vector.rows_LD, "another", {})
    with pytest.raises(VectorError, match="another"):
        export.plain_model(tiny, [], Ablation((Ablate(elsewhere, (1,)),)))
    with pytest.raises(ConfigError, match="layer"):
        export.plain_model(tiny, [], Ablation((Ablate(vector, (9,)),), row=0))
    with pytest.raises(ConfigError, match="weights act at every token"):
        export.plain_model(tiny, [], Ablation((Ablate(vector, (1,), "last"),)))
    with pytest.raises(ConfigError, match="--scale 0.5 without a student"):
        export.plain_model(tiny, [Steer(vector, (1,), 1.0)], scale=0.5)
    two = [Adapter(str(tmp_path / "a")), Adapter(str(tmp_path / "b"))]
    with pytest.raises(ConfigError, match="--scale 0.5 with 2 students: expected one"):
        export.plain_model(tiny, two, scale=0.5)


def test_the_command(tmp_path: Path) -> None:
    """A checkpoint and a peft folder, the same to the byte again; bad input leaves no run."""
    folder = save_tiny("llama", tmp_path / "m")
    tiny = load_tiny(folder)
    student = student_of(tiny, tmp_path / "s")
    file = tmp_path / "v.safetensors"
    file.write_bytes(vector_bytes(random_vector(tiny, 4)))
    words = ("export", "--model", folder, "--interventions", f"adapter:{student.folder}")
    ablate = ("--ablate", f"{file},layers=0+1+2", "--ablate-row 1 --ablate-embedding")
    done = ok(tmp_path / "runs", *words, "--scale 0.5", *ablate)
    assert done.summary["summary"]["difference"] < 1e-3
    assert (done.run / "model" / "config.json").exists()
    assert (done.run / "student" / "adapter_config.json").exists()
    ok(tmp_path / "runs", "rerun", done.run)
    small = ok(tmp_path / "runs", *words, "--scale 0.5 --no-checkpoint")
    assert not (small.run / "model").exists()
    following = f"traitscope verify {small.run / 'student'} --base {folder}"
    dtype = "" if default_dtype("cpu") == "fp32" else " --dtype fp32"  # said where it is not usual
    assert small.summary["next"] == f"{following}{dtype} --root {tmp_path / 'runs'}"
    assert (small.run / "student" / "adapter_model.safetensors").read_bytes() == (
        done.run / "student" / "adapter_model.safetensors"
    ).read_bytes()
    for wrong, says in (
        (("--scale", "1.5"), "--scale 1.5; expected a number from 0 to 1"),
        (("--ablate", "none.safetensors,layers=1"), "no vector file"),
        (("--ablate", f"{file},layers=7"), "layers 0 to 2"),
        (("--ablate", f"steer:{file},layers=1,alpha=1"), "ablate"),
        (("--ablate-strength", "0.5"), "without --ablate"),
        (("--ablate", f"{file},layers=1", "--ablate-embedding"), "without --ablate-row"),
        (("--no-checkpoint",), "nothing would be written"),
    ):
        refused = call(tmp_path / "bad", *words, *wrong)
        assert refused.code == 2 and says in refused.summary["message"], refused
    assert not list((tmp_path / "bad").rglob("config.json"))
