"""Models by name: what loads, what a digest depends on, and errors that say what to do."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, LENGTH, VOCABULARY, WIDTH, load_tiny, save_tiny

from traitscope.errors import ModelError
from traitscope.models import model as models
from traitscope.models.model import Model, load_model


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


@pytest.mark.parametrize("name", FAMILIES)
def test_digest_is_of_the_content_alone(
    folders: dict[str, Path], families: dict, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(folders[name], tmp_path / "copy")
    (folder / "notes.txt").write_text("not part of the model")
    assert load_tiny(folder, "bf16").digest == families[name].digest
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("small", "large"))
    assert load_tiny(folder).digest != families[name].digest


def test_digest_sees_the_weights(tiny: Model, tmp_path: Path) -> None:
    assert load_tiny(save_tiny("llama", tmp_path, seed=1)).digest != tiny.digest


def test_dtype(tiny_folder: Path) -> None:
    assert load_tiny(tiny_folder, "bf16").dtype == torch.bfloat16
    assert models.default_dtype("cuda") == "bf16"
    assert models.default_dtype("cpu") in models.DTYPES


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert models.resolve_device("auto") == models.resolve_device("cpu") == "cpu"
    with pytest.raises(ModelError, match="--device cuda"):
        models.resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (models.resolve_device("auto"), models.resolve_device("cpu")) == ("cuda", "cpu")


def test_unknown_name() -> None:
    with pytest.raises(
        ModelError,
        match="'nonsense' is neither smollm2-135m nor gemma3-270m, a folder, nor a hub id",
    ):
        load_model("nonsense")


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)
    with pytest.raises(
        ModelError, match=r"'org/name'.*ConnectionError.*check the name and the network"
    ):
        load_model("org/name")


def test_folder_without_weights(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found nothing"):
        load_model(str(tmp_path))
    shutil.copy(tiny_folder / "config.json", tmp_path)
    with pytest.raises(
        ModelError, match=r"expected config.json and \*.safetensors, found config.json"
    ):
        load_model(str(tmp_path))


def test_truncated_weights(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"copy.*cannot"):
        load_tiny(folder)


def test_unknown_architecture(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "unheard_of"}))
    with pytest.raises(ModelError, match="cannot load this folder as a causal LM"):
        load_tiny(folder)


def test_scaled_logits_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """Granite and Cohere scale their logits behind the head; ours would be wrong by that factor."""
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"logits_scaling": 8.0}))
    with pytest.raises(ModelError, match="logits_scaling 8.0"):
        load_tiny(folder)


@pytest.mark.parametrize("dtype, size", [("fp32", 4), ("bf16", 2)])
def test_not_enough_memory(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, dtype: str, size: int
) -> None:
    """The need is the number of stored values times the width of the working dtype, whatever they
    are stored in."""
    needed = size * sum(p.numel() for p in tiny.lm.parameters())
    monkeypatch.setattr(models, "available_memory", lambda: needed - 1)
    with pytest.raises(ModelError, match="use a smaller model"):
        load_model(tiny.name, "cpu", dtype)
    monkeypatch.setattr(models, "available_memory", lambda: needed)
    assert load_model(tiny.name, "cpu", dtype).digest == tiny.digest


def test_available_memory_is_plausible() -> None:
    assert 2**24 < models.available_memory() < 2**46


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

    assert models._blocks(Lm()) is Lm.base_model.layers


def test_no_blocks() -> None:
    class Lm:
        base_model = torch.nn.Linear(2, 2)

    with pytest.raises(ModelError, match="Lm has no list of residual blocks"):
        models._blocks(Lm())
