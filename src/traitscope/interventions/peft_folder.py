"""LoRA adapters as peft folders: `adapter_config.json` and `adapter_model.safetensors`.

Any peft user can load what is written here. Of peft's adapters plain LoRA on linear maps is read.

Shapes: I in, O out, R rank.
"""

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from traitscope import array_files
from traitscope.errors import VectorError
from traitscope.interventions.lora import LoraLinear, LoraShape
from traitscope.models.linear_maps import is_transposed, linear_names, weight_of
from traitscope.models.model import Model
from traitscope.plain_values import from_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"files of a peft folder"
PREFIX = "base_model.model."
"stands before the name of a linear map in the names of peft's tensors"
UNSUPPORTED = (
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "alora_invocation_tokens",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
)
"settings of peft that make an adapter more than plain LoRA"
LARGEST_ALPHA = 1e30
"largest strength whose additions float32 can hold"


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
    plain LoRA on linear maps. Also for a factor that is missing or has another shape.
    """
    folder = Path(folder)
    config, tensors = _read_files(folder)
    _check_kind(folder, config, model)
    rank, known = config["r"], set(linear_names(model))
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name in _map_names(folder, tensors):
        a_RI = _factor(folder, tensors, _tensor_name(name, "A"))
        b_OR = _factor(folder, tensors, _tensor_name(name, "B"))
        if a_RI.shape[0] != rank or b_OR.shape[1] != rank:
            raise VectorError(
                f"{folder / WEIGHTS}: A {list(a_RI.shape)} and B {list(b_OR.shape)} of {name};"
                f" expected A [{rank}, inputs] and B [outputs, {rank}], as {CONFIG} has r {rank};"
                " copy or train the adapter again"
            )
        shape = (b_OR.shape[0], a_RI.shape[1])
        if name not in known or weight_of(model.lm.get_submodule(name)).shape != shape:
            raise VectorError(
                f"{folder}: the adapter on {name} [{shape[0]}, {shape[1]}] does not fit"
                f" {model.name}, which has no such map; name the model that it was trained on"
            )
        factors[name] = (a_RI, b_OR)
    # rsLoRA scales the addition by alpha / sqrt(rank) instead of alpha / rank
    stretch = math.sqrt(rank) if config.get("use_rslora") else 1.0
    return LoraShape(rank, config["lora_alpha"] * stretch), factors


def _map_names(folder: Path, tensors: dict[str, Tensor]) -> list[str]:
    """The linear maps that the tensors of a peft folder belong to."""
    names: set[str] = set()
    for tensor_name in tensors:
        is_factor = tensor_name.endswith((".lora_A.weight", ".lora_B.weight"))
        if not is_factor or not tensor_name.startswith(PREFIX):
            raise VectorError(
                f"{folder}: tensor {tensor_name} is not of a plain LoRA on linear maps; expected"
                " nothing else; train an adapter of that kind, or merge it into a model of its own"
            )
        names.add(tensor_name.removeprefix(PREFIX).rsplit(".lora_", 1)[0])
    if not names:
        raise VectorError(
            f"{folder / WEIGHTS} holds no tensor; expected A and B of one linear map or more; copy"
            " or train the adapter again"
        )
    return sorted(names)


def _factor(folder: Path, tensors: dict[str, Tensor], name: str) -> Tensor:
    """A factor in float32. Raises VectorError where it is missing or no matrix."""
    factor = tensors.get(name)
    if factor is None or factor.ndim != 2:
        what = "is missing" if factor is None else f"has the shape {list(factor.shape)}"
        raise VectorError(
            f"{folder / WEIGHTS}: {name} {what}; expected a matrix for A and for B of every map;"
            " copy or train the adapter again"
        )
    return factor.float()


def _read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors in a peft folder."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise VectorError(
            f"{folder} is no adapter folder: {' and '.join(missing)} missing; expected both"
            f" {CONFIG} and {WEIGHTS}; name a run of `train`, or a peft folder"
        )
    try:
        config = from_json((folder / CONFIG).read_bytes())
        _check_config(config)
        return config, array_files.read_tensors(folder / WEIGHTS)
    except (ValueError, OSError) as error:
        raise VectorError(
            f"{folder} holds a damaged adapter: {error}; copy or train it again"
        ) from error


def _check_config(config: Any) -> None:
    """Raise ValueError unless a peft config holds rank and alpha."""
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} holds a {type(config).__name__}, expected settings by name")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise ValueError(f"r is {rank!r} in {CONFIG}, expected a whole number of 1 or more")
    if type(alpha) not in (int, float) or not 0 < alpha <= LARGEST_ALPHA:
        raise ValueError(f"lora_alpha is {alpha!r} in {CONFIG}, expected a number above 0")


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
