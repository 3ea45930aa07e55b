"""What a model says about itself, and how its blocks are recognised."""

import copy
import dataclasses

import pytest
import torch
from tiny_models import LENGTH, VOCABULARY, WIDTH

from traitscope.errors import ModelError
from traitscope.models.model import Model, residual_blocks


@pytest.mark.parametrize("name, layers", [("llama", 3), ("qwen2", 2), ("gpt2", 2), ("gemma2", 2)])
def test_what_a_model_says_about_itself(families: dict[str, Model], name: str, layers: int) -> None:
    model = families[name]
    assert (model.n_layers, model.d_model, model.max_length) == (layers, WIDTH, LENGTH)
    assert model.head.weight.shape == (VOCABULARY, WIDTH)
    assert (model.end_ids, model.pad_id) == ((2,), 0)
    assert (model.dtype, str(model.device)) == (torch.float32, "cpu")
    assert model.softcap == (3.0 if name == "gemma2" else None)
    assert not model.lm.training and not any(p.requires_grad for p in model.lm.parameters())


def test_end_ids_join_generation_config_and_tokenizer(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.lm.generation_config, "eos_token_id", [9, 7])
    assert tiny.end_ids == (2, 7, 9)
    monkeypatch.setattr(tiny.lm.generation_config, "eos_token_id", None)
    assert tiny.end_ids == (2,)


def test_pad_falls_back_to_an_end_token(tiny: Model) -> None:
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.pad_token = None
    assert dataclasses.replace(tiny, tokenizer=tokenizer).pad_id == 2


def test_blocks_are_not_the_experts_inside_one() -> None:
    """A mixture of experts may hold more experts than blocks."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(5))

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(Block() for _ in range(2))

    class Lm:
        base_model = Backbone()

    assert residual_blocks(Lm()) is Lm.base_model.layers


def test_no_blocks() -> None:
    class Lm:
        base_model = torch.nn.Linear(2, 2)

    with pytest.raises(ModelError, match="Lm has no list of residual blocks"):
        residual_blocks(Lm())
