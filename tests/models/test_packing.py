"""Weights that are packed while rows are decoded."""

from pathlib import Path

import pytest
import torch
from tiny_models import load_tiny, save_tiny
from torch import nn

from traitscope.inference import decode, forward
from traitscope.interventions import full_weights
from traitscope.interventions.applied import applied
from traitscope.models.kernels import packing
from traitscope.models.model import Model

needs_bf16 = pytest.mark.skipif(
    not packing._is_supported(), reason="torch has no products in bf16 by oneDNN here"
)
STEPS = packing.FEWEST_STEPS


@pytest.fixture
def model(tmp_path: Path) -> Model:
    loaded = load_tiny(save_tiny("llama", tmp_path))
    loaded.lm.to(torch.bfloat16)
    return loaded


def packed_maps(lm: nn.Module) -> list[nn.Module]:
    return [module for module in lm.modules() if packing.is_packed(module)]


@needs_bf16
@pytest.mark.parametrize("tokens", [1, 7, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_no_bit_of_a_product_changes(tokens: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(96, 160, bias=bias).to(torch.bfloat16)
    x = torch.randn(2, tokens, 96, generator=generator).to(torch.bfloat16)
    with torch.inference_mode():
        alone = linear(x)
        with packing.packed_weights(linear, STEPS):
            assert packing.is_packed(linear)
            assert torch.equal(linear(x), alone)
        assert torch.equal(linear(x), alone) and not packing.is_packed(linear)


@needs_bf16
def test_a_weight_that_takes_the_place_of_the_packed_one_counts(model: Model) -> None:
    """As where a pass of the base stands in for a block of a student with other weights."""
    name = next(name for name, module in model.lm.named_modules() if packing.can_be_packed(module))
    linear = model.lm.get_submodule(name)
    x = torch.ones(2, linear.in_features, dtype=torch.bfloat16)
    with torch.inference_mode(), packing.packed_weights(model.lm, STEPS):
        before = linear(x)
        with full_weights.swapped(model, {f"{name}.weight": 2 * linear.weight}):
            assert torch.equal(linear(x), 2 * before) and before.abs().max() > 0
        assert torch.equal(linear(x), before)


@needs_bf16
def test_the_same_tokens_are_decoded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, keys = [[3, 4, 5], [6, 7], [8, 9, 10, 11]], ["a", "b", "c"]
    sampling = decode.Sampling(max_new_tokens=STEPS)
    packed_logits = []
    true_logits = forward.raw_logits

    def watched(model: Model, *args: object) -> torch.Tensor:
        packed_logits.append(packing.is_packed(model.head))
        return true_logits(model, *args)

    monkeypatch.setattr(forward, "raw_logits", watched)
    answers = []
    for most_bytes in (packing.MOST_BYTES, 0):
        monkeypatch.setattr(packing, "MOST_BYTES", most_bytes)
        with applied(model, []) as active:
            answers.append(decode.decode(model, active, prompts, keys, sampling))
    assert answers[0] == answers[1]
    assert any(packed_logits) and not all(packed_logits)
    assert packed_maps(model.lm) == []


@needs_bf16
def test_only_as_many_weights_as_memory_is_granted_for(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    linears = [module for module in model.lm.modules() if packing.can_be_packed(module)]
    first_two = linears[0].weight.nbytes + linears[1].weight.nbytes
    monkeypatch.setattr(packing, "MOST_BYTES", first_two)
    with packing.packed_weights(model.lm, STEPS):
        assert packed_maps(model.lm) == linears[:2]


@needs_bf16
def test_maps_are_restored_after_an_error(model: Model) -> None:
    with pytest.raises(KeyError), packing.packed_weights(model.lm, STEPS):
        raise KeyError
    assert packed_maps(model.lm) == []


def test_few_steps_and_single_precision_pack_nothing(tmp_path: Path) -> None:
    lm = load_tiny(save_tiny("llama", tmp_path)).lm
    with packing.packed_weights(lm, STEPS):
        assert packed_maps(lm) == []
    lm.to(torch.bfloat16)
    with packing.packed_weights(lm, STEPS - 1):
        assert packed_maps(lm) == []
