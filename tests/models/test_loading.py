"""Models by name: what loads, what a digest depends on, and errors that say what to do."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_models import FAMILIES, load_tiny, save_tiny

from traitscope.errors import ModelError
from traitscope.models import loading
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
