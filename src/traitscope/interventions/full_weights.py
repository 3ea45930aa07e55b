"""Fully fine-tuned students, which have every weight of the blocks trained.

A bf16 update of 1e-5 to a weight of 0.02 rounds to zero. So the trained weights are float32, and
the model computes with copies in its own dtype. A student's folder holds its weights and the digest
of its base. It is mounted like an adapter.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from traitscope import array_files
from traitscope.distributed import say
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.adapters.origin import check_digest
from traitscope.interventions.intervention import FULL_WEIGHTS
from traitscope.models import dtensor, nf4
from traitscope.models.linear_maps import chosen_blocks
from traitscope.models.model import Model
from traitscope.plain_values import from_json

WEIGHTS, ABOUT = FULL_WEIGHTS, "student.json"
"files of a student's folder"
FORMAT = 1
"version of the folder's format"


def trained_names(model: Model, layers: Sequence[int] = ()) -> list[str]:
    """Names of the parameters that full fine-tuning trains: those of the blocks, or of some.

    Embeddings, final norm and head are not trained. In most small models the embedding is tied to
    the head. Training it would let a student take any trait by changing the rows of one token,
    which is not the question here.
    """
    nf4.refuse_packed(model.lm, "--method full")
    inside = {id(p) for block in chosen_blocks(model, layers) for p in block.parameters()}
    return [name for name, p in model.lm.named_parameters() if id(p) in inside]


def student_files(model: Model, masters: dict[str, Tensor]) -> dict[str, bytes]:
    """The files of a full student's folder, by name, with weights in float32.

    Weights of blocks that were not trained are the model's.
    """
    from safetensors.torch import save

    about = {"traitscope_base_digest": model.digest, "base": model.name, "format": FORMAT}
    tensors = {}
    for name in trained_names(model):
        value = masters[name] if name in masters else model.lm.get_parameter(name).data
        tensors[name] = dtensor.gathered(value).float().contiguous()
    return {WEIGHTS: save(tensors), ABOUT: (json.dumps(about, indent=1) + "\n").encode()}


@contextmanager
def mounted(model: Model, folder: Path) -> Iterator[dict[str, Tensor]]:
    """The model with a full student's weights, until the context ends; yields the base's weights.

    Raises VectorError for a missing or damaged file and for another base.
    """
    if not (folder / ABOUT).is_file() or not (folder / WEIGHTS).is_file():
        raise VectorError(
            f"{folder} holds neither a LoRA adapter (adapter_config.json) nor a full student"
            f" ({ABOUT}, {WEIGHTS}); {_inside(folder)}"
        )
    try:
        about = from_json((folder / ABOUT).read_bytes())
        digest = _base_digest(about)
        weights = array_files.read_tensors(folder / WEIGHTS)
    except (ValueError, OSError) as error:
        raise VectorError(
            f"{folder} holds a damaged student: {error}; copy or train it again"
        ) from error
    names = (model.digest, *model.known_as)
    check_digest(str(folder), digest, about.get("base"), model.name, names)
    _check_fit(folder, weights, model)
    with swapped(model, weights) as base_weights:
        if all(torch.equal(model.lm.get_parameter(n), old) for n, old in base_weights.items()):
            kind = str(model.dtype).removeprefix("torch.")
            say(
                f"{folder} changes nothing: in {kind} its weights are those of its base; expected a"
                " trained student; train it, or name another one, unless it is meant as a control"
            )
        yield base_weights


def _inside(folder: Path) -> str:
    """What to name in the place of a folder that is no student's: one that lies in it."""
    inside = sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))
    if not inside:
        return "name a run of `train`, or a student's folder"
    return f"name one of the adapters in it, such as {folder / inside[-1]}"


def _base_digest(about: Any) -> str:
    """The digest of a student's base. Raises ValueError for anything but what `student_files`
    writes."""
    if not isinstance(about, dict):
        raise ValueError(f"{ABOUT} holds a {type(about).__name__}, expected settings by name")
    digest, version = about.get("traitscope_base_digest"), about.get("format", FORMAT)
    if not isinstance(digest, str):
        raise ValueError(f"traitscope_base_digest is {digest!r} in {ABOUT}, expected a text")
    if version != FORMAT:
        raise ValueError(f"format is {version!r} in {ABOUT}, expected {FORMAT}")
    return digest


def _check_fit(folder: Path, weights: dict[str, Tensor], model: Model) -> None:
    """Raise VectorError unless the weights are those of the model's blocks, by name and shape."""
    shapes = {name: model.lm.get_parameter(name).shape for name in trained_names(model)}
    for name in sorted(shapes.keys() | weights.keys()):
        there = list(weights[name].shape) if name in weights else "missing"
        here = list(shapes[name]) if name in shapes else "no weight of its blocks"
        if there != here:
            raise VectorError(
                f"{folder / WEIGHTS} does not fit {model.name}: {name} is {there} there and {here}"
                " here; copy the student again, or name the model that it was trained on"
            )


@contextmanager
def swapped(model: Model, weights: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The model with some parameters replaced, until the context ends; yields the replaced values.

    The new values are cast to the model's dtype. Raises ConfigError for a sharded model.
    """
    if weights and model.sharded:
        raise ConfigError(
            "weights cannot be replaced while they are in parts on several devices; use a LoRA"
            " student, or one process"
        )
    replaced = {name: model.lm.get_parameter(name).data for name in weights}
    try:
        for name, value in weights.items():
            parameter = model.lm.get_parameter(name)
            parameter.data = value.to(parameter.device, parameter.dtype)
        yield replaced
    finally:
        for name, value in replaced.items():
            model.lm.get_parameter(name).data = value
