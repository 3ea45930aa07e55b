"""What a model says about itself, and how its blocks are recognised."""

import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import LENGTH, VOCABULARY, WIDTH, load_tiny, save_tiny_of_images

from traitscope.errors import ModelError
from traitscope.inference import forward
from traitscope.models.model import Model, backbone, check_logits, residual_blocks


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


@pytest.mark.parametrize("vision_layers", [1, 4])
def test_the_text_part_of_a_model_of_several_media(tmp_path: Path, vision_layers: int) -> None:
    """Its settings lie in a nested configuration, and its vision tower may have more blocks."""
    save_tiny_of_images(tmp_path, vision_layers)
    model = load_tiny(tmp_path)
    assert (model.n_layers, model.max_length, model.window) == (2, 512, 64)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        hidden = backbone(model.lm)(input_ids=ids).last_hidden_state[0]
        expected = model.lm(input_ids=ids).logits[0]
    torch.testing.assert_close(forward.logits_of(model, hidden), expected)


def test_logits_that_the_head_does_not_give_are_refused(tiny: Model) -> None:
    class Scaled(torch.nn.Module):
        """A model that scales its logits behind the head."""

        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner, self.base_model, self.config = inner, inner.base_model, inner.config

        def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=2 * self.inner(**inputs).logits)

        def get_input_embeddings(self) -> torch.nn.Module:
            return self.inner.get_input_embeddings()

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.inner.get_output_embeddings()

    check_logits(tiny)
    with pytest.raises(ModelError, match="differ from the model's own"):
        check_logits(dataclasses.replace(tiny, lm=Scaled(tiny.lm)))
