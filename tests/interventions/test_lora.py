"""Adapters against plain autograd, and against peft in both directions."""

from pathlib import Path

import pytest
import torch
from lora_students import logits_of, randomise, write
from tiny_models import parameters_of
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from traitscope.errors import ConfigError
from traitscope.interventions import lora, partial_lora, peft_folder
from traitscope.interventions.lora import LoraLinear, LoraShape
from traitscope.models import linear_maps
from traitscope.models.model import Model

PEFT = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft calls a deprecated name
CLOSE = {"atol": 3e-5, "rtol": 1e-4}


def saved(model: Model, folder: Path, rank: int = 3, alpha: float = 7.0) -> tuple[Path, Tensor]:
    """A folder with a random adapter, and the logits of the adapted model."""
    with lora.adapted(model, LoraShape(rank, alpha)) as layers:
        randomise(layers)
        return write(folder, peft_folder.adapter_files(model, layers)), logits_of(model.lm)


def test_every_linear_map_of_every_block(families: dict[str, Model]) -> None:
    assert len(linear_maps.linear_names(families["llama"])) == 3 * 7
    assert len(linear_maps.linear_names(families["qwen2"])) == 2 * 7
    assert sorted(linear_maps.linear_names(families["gpt2"]))[:4] == [
        f"transformer.h.0.{n}" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ]


def test_zero_initialised_adapter_is_the_identity(family: Model) -> None:
    before = logits_of(family.lm)
    with lora.adapted(family, LoraShape(4, 32.0)) as layers:
        lora.initialise(layers, 0)
        assert len(layers) == len(linear_maps.linear_names(family)) > 0
        assert all(layer.lora_A.abs().sum() > 0 for layer in layers.values())
        torch.testing.assert_close(logits_of(family.lm), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits_of(family.lm), before)


def test_initialisation_is_seeded_and_bounded(family: Model) -> None:
    drawn = []
    for seed in (0, 0, 1):
        with lora.adapted(family, LoraShape(4, 8.0)) as layers:
            lora.initialise(layers, seed)
            drawn.append(torch.cat([layers[n].lora_A.flatten() for n in sorted(layers)]))
            for layer in layers.values():
                bound = layer.lora_A.shape[1] ** -0.5
                assert 0.8 * bound < layer.lora_A.abs().max() <= bound and not layer.lora_B.any()
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("kind", ["linear", "linear without bias", "conv1d"])
@pytest.mark.parametrize("input_needs_grad", [True, False])
def test_forward_and_backward_equal_plain_autograd(kind: str, input_needs_grad: bool) -> None:
    torch.manual_seed(0)
    linear = Conv1D(7, 5) if kind == "conv1d" else nn.Linear(5, 7, bias=kind == "linear")
    linear.requires_grad_(False)
    if linear.bias is not None:
        linear.bias.data.normal_()
    layer = LoraLinear(linear, 3, 6.0)
    layer.lora_A.data.normal_()
    layer.lora_B.data.normal_()
    weight = linear.weight.t() if kind == "conv1d" else linear.weight
    found = []
    for ours in (True, False):
        x = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_(
            input_needs_grad
        )
        a, b = (p.detach().clone().requires_grad_(True) for p in (layer.lora_A, layer.lora_B))
        if ours:
            a, b = layer.lora_A, layer.lora_B
            y = layer(x)
        else:
            y = x @ weight.T + (0 if linear.bias is None else linear.bias) + 2.0 * (x @ a.T) @ b.T
        y.sin().sum().backward()
        found.append((y.detach(), a.grad, b.grad, x.grad))
    assert (found[0][3] is None) is not input_needs_grad
    for ours, plain in zip(*found, strict=True):
        if plain is not None:
            torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def test_gradcheck_in_double_precision() -> None:
    torch.manual_seed(0)
    x, weight, bias, a, b = (
        torch.randn(s, dtype=torch.float64) for s in ((4, 5), (6, 5), (6,), (2, 5), (6, 2))
    )
    free = [t.requires_grad_(True) for t in (x, a, b)]
    assert torch.autograd.gradcheck(
        lambda x, a, b: lora._LowRank.apply(x, weight, bias, a, b, 1.7), free
    )


def test_a_bf16_model_keeps_float32_adapters() -> None:
    torch.manual_seed(0)
    layer = LoraLinear(
        nn.Linear(8, 8, bias=False, dtype=torch.bfloat16).requires_grad_(False), 2, 4.0
    )
    layer.lora_A.data.normal_()
    y = layer(torch.randn(3, 8, dtype=torch.bfloat16))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert (
        layer.lora_B.dtype == layer.lora_B.grad.dtype == torch.float32 and layer.lora_B.grad.any()
    )


def test_switched_off_gives_the_base(family: Model) -> None:
    base = logits_of(family.lm)
    with lora.adapted(family, LoraShape(2, 4.0)) as layers:
        randomise(layers)
        adapted = logits_of(family.lm)
        assert (adapted - base).abs().max() > 0.1
        with pytest.raises(KeyError), lora.switched_off(family):
            assert torch.equal(logits_of(family.lm), base)
            raise KeyError("planned")
        assert torch.equal(logits_of(family.lm), adapted)


def test_the_model_is_restored_after_an_exception(family: Model) -> None:
    before, modules = parameters_of(family), [type(m) for m in family.lm.modules()]
    with pytest.raises(KeyError), lora.adapted(family, LoraShape(2, 4.0)) as layers:
        randomise(layers)
        raise KeyError("planned")
    after = parameters_of(family)
    assert [type(m) for m in family.lm.modules()] == modules
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


def test_rank_larger_than_every_map(tiny: Model) -> None:
    modules = [type(m) for m in tiny.lm.modules()]
    message = r"--rank 33 is larger than any map of .* allows \(32\)"
    with pytest.raises(ConfigError, match=message), lora.adapted(tiny, LoraShape(33, 8.0)):
        pass
    assert [type(m) for m in tiny.lm.modules()] == modules


def test_rank_larger_than_a_narrow_map(tiny: Model, tmp_path: Path) -> None:
    """Keys are 16 wide; their adapter of rank 20 is read back, and its 16 directions are all there
    is."""
    folder, expected = saved(tiny, tmp_path / "student", rank=20)
    for top, same in ((16, False), (20, True), (None, True)):
        with partial_lora.mounted(tiny, folder, partial_lora.AdapterPart(top=top)):
            found = logits_of(tiny.lm)
        assert torch.allclose(found, expected, atol=1e-3) is same
    a, b = torch.randn(20, 32), torch.randn(16, 20)
    new_a, new_b = partial_lora.directions(a, b, 16, 0)
    assert new_a.shape == a.shape and new_b.shape == b.shape
    torch.testing.assert_close(new_b @ new_a, b @ a, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rank, alpha", [(0, 8.0), (-1, 8.0), (4, float("nan"))])
def test_shapes_that_cannot_be(rank: int, alpha: float) -> None:
    with pytest.raises(ConfigError, match="rank must be at least 1, alpha finite"):
        LoraShape(rank, alpha)
