"""A base whose linear maps are kept in 4 bits: QLoRA (Dettmers et al. 2023, arXiv 2305.14314), an
extra that needs bitsandbytes.

The maps of the blocks are stored as NF4 and written out for each product; embeddings, norms and
head stay as they are. The model is another one than the unquantised: it has a digest of its own, so
vectors and students are not mixed up.
"""

from importlib import util
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.errors import ConfigError, ModelError

NAME = "nf4"
"as a dtype"


def check_here() -> None:
    """Raise ModelError where bitsandbytes is missing."""
    if util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"--dtype {NAME} needs bitsandbytes, which is not here: pip install -c constraints.txt"
            " -e '.[qlora]'; or use --dtype bf16 or fp32"
        )


def pack(blocks: nn.ModuleList, device: str, compute: torch.dtype) -> None:
    """Replace every linear map inside the blocks by its NF4 form on the device.

    Raises ConfigError for blocks without plain linear maps (GPT-2's are of another kind).
    """
    import bitsandbytes

    found = [
        (parent, leaf, m)
        for parent in blocks.modules()
        for leaf, m in parent.named_children()
        if type(m) is nn.Linear
    ]
    if not found:
        raise ConfigError(
            f"--dtype {NAME}: {type(blocks[0]).__name__} has no plain linear maps to pack; use bf16"
            " or fp32"
        )
    for parent, leaf, linear in found:
        packed = bitsandbytes.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            compute_dtype=compute,
            quant_type=NAME,
            device="meta",
        )
        packed.weight = bitsandbytes.nn.Params4bit(
            linear.weight.data, requires_grad=False, quant_type=NAME, module=packed
        )
        packed.bias = linear.bias
        setattr(parent, leaf, packed.to(device))


def is_packed(linear: Any) -> bool:
    """Whether a linear map is in 4 bits."""
    return type(linear).__name__ == "Linear4bit"


def written_out(linear: Any) -> Tensor:
    """The weight [O, I] of a packed map, in the dtype that it was packed from."""
    import bitsandbytes

    return bitsandbytes.functional.dequantize_4bit(linear.weight.data, linear.weight.quant_state)


def refuse_packed(lm: nn.Module, what: str) -> None:
    """Raise ConfigError where a model has packed maps, whose weights cannot be changed or
    trained."""
    if any(is_packed(module) for module in lm.modules()):
        raise ConfigError(
            f"{what} changes weights, which a base in {NAME} does not let it; use --dtype bf16 or"
            " fp32"
        )
