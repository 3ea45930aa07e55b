"""Base models whose linear maps are kept in 4 bits, as in QLoRA (Dettmers et al. 2023, arXiv
2305.14314).

They need the extra `qlora`, which installs bitsandbytes. The maps of the blocks are stored as NF4
and dequantised for each product. Embeddings, norms and head stay as they are. The quantised model
has a digest of its own, so that vectors and students of the two models are not mixed up.
"""

from importlib import util
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.errors import ConfigError, ModelError
from traitscope.models.hardware import NF4


def check_installed() -> None:
    """Raise ModelError where bitsandbytes is missing."""
    if util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"--dtype {NF4} needs bitsandbytes, which is not here: pip install -c constraints.txt"
            " -e '.[qlora]'; or use --dtype bf16 or fp32"
        )


def pack(blocks: nn.ModuleList, device: str, compute: torch.dtype) -> None:
    """Replace every linear map inside the blocks by its NF4 form on the device.

    `compute` is the dtype of the products. Raises ConfigError for blocks without plain linear maps.
    GPT-2's maps are of another kind.
    """
    places: list[tuple[nn.Module, str, nn.Linear]] = []
    for parent in blocks.modules():
        for name, module in parent.named_children():
            if type(module) is nn.Linear:
                places.append((parent, name, module))
    if not places:
        raise ConfigError(
            f"--dtype {NF4}: {type(blocks[0]).__name__} has no plain linear maps to pack; use bf16"
            " or fp32"
        )
    for parent, name, linear in places:
        setattr(parent, name, _packed(linear, compute).to(device))


def _packed(linear: nn.Linear, compute: torch.dtype) -> nn.Module:
    """The NF4 form of a linear map. Its weight is quantised when it is moved to a device."""
    import bitsandbytes

    packed = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,
        compute_dtype=compute,
        quant_type=NF4,
        device="meta",
    )
    packed.weight = bitsandbytes.nn.Params4bit(
        linear.weight.data, requires_grad=False, quant_type=NF4, module=packed
    )
    packed.bias = linear.bias
    return packed


def is_packed(linear: Any) -> bool:
    """Whether a linear map is in 4 bits."""
    return type(linear).__name__ == "Linear4bit"


def dequantised(linear: Any) -> Tensor:
    """The weight [O, I] of a map in 4 bits, in the dtype that it was packed from."""
    import bitsandbytes

    return bitsandbytes.functional.dequantize_4bit(linear.weight.data, linear.weight.quant_state)


def refuse_packed(lm: nn.Module, what: str) -> None:
    """Raise ConfigError where a model has maps in 4 bits, which cannot be changed or trained."""
    if any(is_packed(module) for module in lm.modules()):
        raise ConfigError(
            f"{what} changes weights, which a base in {NF4} does not let it; use --dtype bf16 or"
            " fp32"
        )
