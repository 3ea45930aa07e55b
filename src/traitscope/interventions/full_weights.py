"""Fully fine-tuned students: every weight of the blocks trained, float32 masters, stored beside the
base's digest.

A bf16 update of 1e-5 to a weight of 0.02 rounds to zero, so masters are float32 and the model
computes in its own dtype. A student is the base plus a file `weights.safetensors` in its folder,
mounted like an adapter.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from traitscope.errors import ConfigError, VectorError
from traitscope.models import dtensor, nf4
from traitscope.models.model import Model

WEIGHTS, ABOUT = "weights.safetensors", "student.json"


def trained_names(model: Model) -> list[str]:
    """Parameters that full fine-tuning trains: those of the blocks, not the embeddings, the final
    norm and the head.

    The embedding is tied to the head in most small models; training it makes one token's rows the
    shortest way to any trait, which is not the question here.
    """
    nf4.refuse_packed(model.lm, "--method full")
    inside = {id(p) for p in model.blocks.parameters()}
    return [name for name, p in model.lm.named_parameters() if id(p) in inside]


def student_files(model: Model, masters: dict[str, Tensor]) -> dict[str, bytes]:
    """The files of a full student's folder, by name; weights in float32."""
    from safetensors.torch import save

    about = {"traitscope_base_digest": model.digest, "base": model.name, "format": 1}
    tensors = {
        name: dtensor.gathered(value).float().contiguous() for name, value in masters.items()
    }
    return {WEIGHTS: save(tensors), ABOUT: (json.dumps(about, indent=1) + "\n").encode()}


@contextmanager
def mounted(model: Model, folder: Path) -> Iterator[dict[str, Tensor]]:
    """The model with a full student's weights, until the context ends; yields the base's own."""
    if not (folder / ABOUT).is_file() or not (folder / WEIGHTS).is_file():
        raise VectorError(
            f"{folder} holds neither a LoRA adapter (adapter_config.json) nor a full student"
            f" ({ABOUT})"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        digest, weights = (
            json.loads((folder / ABOUT).read_text())["traitscope_base_digest"],
            load_file(folder / WEIGHTS),
        )
    except (ValueError, KeyError, SafetensorError) as error:
        raise VectorError(
            f"{folder} holds a damaged student: {error}; copy or train it again"
        ) from error
    if digest != model.digest:
        raise VectorError(
            f"{folder} was trained on a model with digest {digest}, but {model.name} has"
            f" {model.digest}"
        )
    with swapped(model, weights) as kept:
        yield kept


@contextmanager
def swapped(model: Model, weights: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The model with some parameters replaced (cast to its dtype), until the context ends; yields
    the replaced values."""
    if weights and model.sharded:
        raise ConfigError(
            "weights cannot be replaced while they are in parts on several devices; use a LoRA"
            " student, or one process"
        )
    kept = {name: model.lm.get_parameter(name).data for name in weights}
    try:
        for name, value in weights.items():
            model.lm.get_parameter(name).data = value.to(kept[name].device, kept[name].dtype)
        yield kept
    finally:
        for name, value in kept.items():
            model.lm.get_parameter(name).data = value
