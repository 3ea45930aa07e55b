"""Models by name: what loads, what a digest depends on, and errors that say what to do."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, load_tiny, save_tiny

from traitscope.errors import ModelError
from traitscope.models import loading
from traitscope.models.identity import finding
from traitscope.models.loading import load_model
from traitscope.models.model import Model


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


def test_unknown_name() -> None:
    with pytest.raises(
        ModelError,
        match="'nonsense' is neither smollm2-135m nor gemma3-270m, a folder, nor a hub id",
    ):
        load_model("nonsense")


@pytest.mark.parametrize("name", ["x" * 300, "./" + "x" * 300, "~no-such-user/model"])
def test_a_name_that_cannot_be_a_path(name: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be looked for \(.*; name one of these") as raised:
        load_model(name)
    assert len(str(raised.value)) < 300


def test_a_file_that_cannot_be_read(tiny_folder: Path, tmp_path: Path, monkeypatch) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "x.json").write_text("{}")

    def refused(file: object, name: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hashlib, "file_digest", refused)
    with pytest.raises(ModelError, match=r"cannot be read .*Permission denied"):
        finding.digests_of(str(folder))


def test_weights_that_cannot_be_read(tiny_folder: Path, tmp_path: Path) -> None:
    """A folder in the place of a file is unreadable for every user, root as well."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(ModelError, match=r"cannot be read .*Is a directory.*fetch the model again"):
        finding.folder_digest(folder)


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
    monkeypatch.setattr(loading, "available_memory", lambda: needed - 1)
    with pytest.raises(ModelError, match="use a smaller model"):
        load_model(tiny.name, "cpu", dtype)
    monkeypatch.setattr(loading, "available_memory", lambda: needed)
    assert load_model(tiny.name, "cpu", dtype).digest == tiny.digest


CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
Path({marker!r}).write_text("ran")
class ForeignConfig(LlamaConfig):
    model_type = "foreign"
class ForeignModel(LlamaForCausalLM):
    config_class = ForeignConfig
class ForeignTokenizer(PreTrainedTokenizerFast):
    pass
"""
"code that a model's folder may bring, and that says when it runs"


@pytest.mark.parametrize(
    ("file", "auto_map"),
    [
        (
            "config.json",
            {"AutoConfig": "code.ForeignConfig", "AutoModelForCausalLM": "code.ForeignModel"},
        ),
        ("tokenizer_config.json", {"AutoTokenizer": ["code.ForeignTokenizer", None]}),
    ],
)
def test_code_of_a_folder_is_never_asked_for_and_never_run(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    auto_map: dict,
) -> None:
    """Whoever would be asked says yes."""
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(tiny_folder, folder)
    (folder / "code.py").write_text(CODE.format(marker=str(marker)))
    content = json.loads((folder / file).read_text()) | {"auto_map": auto_map}
    if file == "config.json":
        content["model_type"] = "foreign"
    else:
        content["tokenizer_class"] = "ForeignTokenizer"
    (folder / file).write_text(json.dumps(content))
    asked: list[str] = []

    def says_yes(question: str = "") -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", says_yes)
    with pytest.raises(ModelError, match=r"code of its own.*never run"):
        load_model(str(folder))
    with pytest.raises(ModelError, match=r"code of its own.*never run"):
        loading.outline(str(folder))
    assert asked == [] and not marker.exists()


class Trap:
    """A pickle that leaves a file where it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("left", ["x.safetensors", "model-00001-of-00002.safetensors"])
def test_a_pickle_beside_other_tensors_is_never_loaded(
    tiny_folder: Path, tmp_path: Path, left: str
) -> None:
    """Any *.safetensors makes a folder look like a model; its weights must be in it."""
    folder, marker = shutil.copytree(tiny_folder, tmp_path / "model"), tmp_path / "loaded"
    (folder / "model.safetensors").rename(folder / left)
    torch.save({"trap": Trap(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load this folder as a causal LM"):
        load_tiny(folder)
    assert not marker.exists()


def test_weights_that_are_missing_are_not_drawn_at_random(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    whole = weights.pop(name)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"1 of the model's weights .* such as {name}; expected"):
        load_tiny(folder)
    weights[name] = whole[:-1].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="its weights have other shapes than config.json says"):
        load_tiny(folder)


def test_an_adapter_beside_the_weights_is_not_mounted(tiny_folder: Path, tmp_path: Path) -> None:
    """transformers adds it without a word where peft is installed."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "adapter_config.json").write_text("{}")
    for load in (load_model, loading.outline, finding.digest_of):
        with pytest.raises(
            ModelError, match="beside the weights of a model; .* is merged into the"
        ):
            load(str(folder))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="move the adapter's files into a folder of their own"):
        finding.digest_of(str(folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[]"),
        ("config.json", "{"),
        ("config.json", "[" * 100_000),
        ("tokenizer_config.json", '{"a":' * 100_000),
        ("generation_config.json", "[" * 100_000),
        ("config.json", '{"model_type": "llama", "num_attention_heads": 0}'),
        ("config.json", '{"model_type": ["llama"]}'),
        ("config.json", '{"model_type": "llama", "num_hidden_layers": "three"}'),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "\udcff"),
        ("tokenizer_config.json", "[1]"),
        ("tokenizer_config.json", '{"tokenizer_class": 7}'),
        ("chat_template.jinja", "\udcff"),
        ("generation_config.json", "7"),
        ("generation_config.json", '{"eos_token_id": "two"}'),
        ("generation_config.json", '{"eos_token_id": [[2]]}'),
        ("model.safetensors", "{"),
    ],
)
def test_any_file_of_a_model_may_be_broken(
    tiny_folder: Path, tmp_path: Path, file: str, content: str
) -> None:
    """One sentence on one line, whatever transformers raises."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / file).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=f"{folder}") as raised:
        load_tiny(folder)
    assert "\n" not in str(raised.value)
    if file != "model.safetensors":
        with pytest.raises(ModelError, match=f"{folder}"):
            loading.outline(str(folder))


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt])
def test_what_no_file_causes_stays_as_it_is(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def fails(*_: object) -> None:
        raise kind

    monkeypatch.setattr(loading, "_load_tokenizer", fails)
    with pytest.raises(kind):
        load_tiny(tiny_folder)


def test_weights_that_the_config_does_not_ask_for_are_said(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of three blocks under a config of two is another model."""
    folder = shutil.copytree(tiny_folder, tmp_path / "fewer")
    load_tiny(folder)
    assert "no part of the model" not in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] -= 1
    (folder / "config.json").write_text(json.dumps(config))
    load_tiny(folder)
    said = capsys.readouterr().err
    assert "in the files of" in said and "no part of the model that config.json asks for" in said
