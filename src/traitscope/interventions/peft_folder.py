"""LoRA adapters as peft folders: `adapter_config.json` and `adapter_model.safetensors`.

Any peft user can load what is written here, from peft 0.10 on. So the digest of the base stands in
the metadata of the weights, because older versions refuse settings that they do not know. What is
read, and what it means, is in adapters/.

Shapes: I in, O out, R rank.
"""

import json
import re
from pathlib import Path

import torch
from torch import Tensor

from traitscope import array_files
from traitscope.distributed import say
from traitscope.errors import VectorError
from traitscope.interventions.adapters import meaning, names, origin
from traitscope.interventions.adapters.contents import Contents, contents_of
from traitscope.interventions.adapters.settings import (
    CONFIG,
    DIGEST,
    WEIGHTS,
    config_and_digest,
    damaged,
)
from traitscope.interventions.lora import LoraLinear, LoraShape
from traitscope.models.linear_maps import is_transposed, linear_names
from traitscope.models.model import Model

IN_BLOCK = re.compile(r".*\.\d+\..*\.lora_[AB](\.[^.]+)?\.weight")
"name of a factor on a linear map of a numbered block"


def adapter_files(model: Model, layers: dict[str, LoraLinear]) -> dict[str, bytes]:
    """The two files of a peft folder, by file name."""
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for letter, factor in zip("AB", layer.factors(), strict=True):
            key = f"{names.PREFIX}{name}.lora_{letter}.weight"
            tensors[key] = factor.detach().cpu().contiguous()
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
    }
    return {
        CONFIG: (json.dumps(config, indent=1, sort_keys=True) + "\n").encode(),
        WEIGHTS: array_files.tensor_bytes(tensors, {"format": "pt", DIGEST: model.digest}),
    }


def read_adapter(folder: Path, model: Model) -> tuple[LoraShape, dict[str, tuple[Tensor, Tensor]]]:
    """Shape of the adapter in a peft folder, and its factors A [R, I] and B [O, R] by linear map.

    Maps of several ranks and strengths get zeros up to the highest rank, and B takes the strength.

    Raises VectorError for a missing or damaged file, and for another base model. Also for an
    adapter that is more than low-rank additions to linear maps of the blocks.
    """
    folder = Path(folder)
    contents = read(folder, model)
    outside = sorted(contents.factors.keys() - set(linear_names(model)))
    further = [*contents.magnitudes, *contents.embeddings, *contents.replaced, *outside]
    if further:
        raise VectorError(
            f"{folder}: only plain LoRA on the maps of the blocks can stand here, and the adapter"
            f" also changes {', '.join(further[:3])}; use it as a whole and alone, or merge it into"
            " a model of its own"
        )
    rank = max(a_RI.shape[0] for a_RI, _ in contents.factors.values())
    scale = next(iter(contents.scales.values()))
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name, (a_RI, b_OR) in contents.factors.items():
        missing = rank - a_RI.shape[0]
        if missing:
            a_RI = torch.nn.functional.pad(a_RI, (0, 0, 0, missing))
            b_OR = torch.nn.functional.pad(b_OR, (0, missing))
        if contents.scales[name] != scale:
            b_OR = b_OR * (contents.scales[name] / scale)
        factors[name] = (a_RI, b_OR)
    return LoraShape(rank, scale * rank), factors


def read(folder: Path, model: Model) -> Contents:
    """What an adapter changes in a model. Raises VectorError as `read_adapter` does."""
    folder = Path(folder)
    where = str(folder / WEIGHTS)
    config, _ = config_and_digest(folder)
    for note in origin.notes_on(folder, model.name, (model.digest, *model.known_as)):
        say(note)
    meaning.check(str(folder), config)
    try:
        tensors = array_files.read_tensors(folder / WEIGHTS)
        return contents_of(where, config, tensors, model)
    except VectorError:
        raise
    except (ValueError, OSError) as error:
        raise damaged(folder, error) from error


def is_low_rank(folder: Path) -> bool:
    """Whether an adapter is low-rank additions to linear maps of the blocks and nothing else.

    Only names and settings are read. Raises VectorError for a missing or damaged file.
    """
    from safetensors import safe_open

    config, _ = config_and_digest(folder)
    with safe_open(folder / WEIGHTS, framework="np") as file:
        keys = list(file.keys())
    if config.get("use_dora") or config.get("modules_to_save"):
        return False
    return all(IN_BLOCK.fullmatch(key) for key in keys)
