"""LoRA adapters as peft folders: `adapter_config.json` and `adapter_model.safetensors`.

Any peft user can load what is written here. Of peft's adapters plain LoRA on linear maps is read.

Shapes: I in, O out, R rank.
"""

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from traitscope.errors import VectorError
from traitscope.interventions.lora import LoraLinear, LoraShape
from traitscope.models.linear_maps import is_transposed, linear_names, weight_of
from traitscope.models.model import Model
from traitscope.plain_values import from_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"files of a peft folder"
PREFIX = "base_model.model."
"stands before the name of a linear map in the names of peft's tensors"
UNSUPPORTED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern")
"settings of peft that make an adapter more than plain LoRA"


def adapter_files(model: Model, layers: dict[str, LoraLinear]) -> dict[str, bytes]:
    """The two files of a peft folder, by file name."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for letter, factor in zip("AB", layer.factors(), strict=True):
            tensors[_tensor_name(name, letter)] = factor.detach().cpu().contiguous()
    first = next(iter(layers.values()))
    rank = first.lora_A.shape[0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name,
        "bias": "none",
        "r": rank,
        "lora_alpha": first.scale * rank,
        "lora_dropout": 0.0,
        "inference_mode": True,
        "target_modules": sorted(layers),
        "fan_in_fan_out": is_transposed(first.linear),
        "traitscope_base_digest": model.digest,
    }
    return {
        CONFIG: (json.dumps(config, indent=1, sort_keys=True) + "\n").encode(),
        WEIGHTS: save(tensors, metadata={"format": "pt"}),
    }


def _tensor_name(map_name: str, letter: str) -> str:
    """peft's name of factor A or B on a linear map."""
    return f"{PREFIX}{map_name}.lora_{letter}.weight"


def read_adapter(folder: Path, model: Model) -> tuple[LoraShape, dict[str, tuple[Tensor, Tensor]]]:
    """Shape of the adapter in a peft folder, and its factors A [R, I] and B [O, R] by linear map.

    Raises VectorError for a missing or damaged file, another base model, and an adapter that is not
    plain LoRA on linear maps.
    """
    config, tensors = _read_files(Path(folder))
    _check_kind(folder, config, model)
    names: set[str] = set()
    for tensor_name in tensors:
        if not tensor_name.endswith((".lora_A.weight", ".lora_B.weight")):
            raise VectorError(
                f"{folder}: tensor {tensor_name} is not of a plain LoRA on linear maps; expected"
                " nothing else; train an adapter of that kind, or merge it into a model of its own"
            )
        names.add(tensor_name.removeprefix(PREFIX).rsplit(".lora_", 1)[0])
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name in sorted(names):
        a_RI = tensors[_tensor_name(name, "A")].float()
        b_OR = tensors[_tensor_name(name, "B")].float()
        factors[name] = (a_RI, b_OR)
    _check_fit(folder, factors, model)
    # rsLoRA scales the addition by alpha / sqrt(rank) instead of alpha / rank
    stretch = math.sqrt(config["r"]) if config.get("use_rslora") else 1.0
    return LoraShape(config["r"], config["lora_alpha"] * stretch), factors


def _read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors in a peft folder."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise VectorError(
            f"{folder} is no adapter folder: {' and '.join(missing)} missing; expected both"
            f" {CONFIG} and {WEIGHTS}; name a run of `train`, or a peft folder"
        )
    try:
        config = from_json((folder / CONFIG).read_bytes())
        _check_config(config)
        return config, load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise VectorError(
            f"{folder} holds a damaged adapter: {error}; copy or train it again"
        ) from error


def _check_config(config: Any) -> None:
    """Raise ValueError unless a peft config holds rank and alpha."""
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} holds a {type(config).__name__}, expected settings by name")
    for name in ("r", "lora_alpha"):
        value = config.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise ValueError(f"{name} is {value!r} in {CONFIG}, expected a number above 0")


def _check_kind(folder: Path, config: dict[str, Any], model: Model) -> None:
    """Raise VectorError for another base model and for more than plain LoRA."""
    digest = config.get("traitscope_base_digest")
    if digest not in (None, model.digest):
        raise VectorError(
            f"{folder} was trained on a model with digest {digest}, but {model.name} has"
            f" {model.digest}; name that model, or train the adapter again on this one"
        )
    further = [name for name in UNSUPPORTED if config.get(name)]
    bias = config.get("bias", "none")
    if config.get("peft_type") != "LORA" or further or bias != "none":
        raise VectorError(
            f"{folder}: {config.get('peft_type')} with {further or config.get('bias')}; only plain"
            " LoRA is read; train it without these settings, or merge it into a model of its own"
        )


def _check_fit(folder: Path, factors: dict[str, tuple[Tensor, Tensor]], model: Model) -> None:
    """Raise VectorError for an adapter on maps that the model lacks or that have other sizes."""
    known = set(linear_names(model))
    for name, (a_RI, b_OR) in factors.items():
        shape = (b_OR.shape[0], a_RI.shape[1])
        if name not in known or weight_of(model.lm.get_submodule(name)).shape != shape:
            raise VectorError(
                f"{folder}: the adapter on {name} [{shape[0]}, {shape[1]}] does not fit"
                f" {model.name}, which has no such map; name the model that it was trained on"
            )
