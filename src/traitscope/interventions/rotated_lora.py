"""LoRA factors in a rotated basis of the residual stream.

They test whether the optimizer depends on the coordinates. R [D, D] is orthogonal. Of a map that
reads the residual stream, A R is trained instead of A. Of a map that writes it, R^T B is trained
instead of B. Both act turned back: y = W x + s B (A R) R^T x. So a student's function is that of
the unrotated student, at its start and after every step of SGD. Only a rule that treats coordinates
one by one can tell the difference.

Only MLPs are rotated, as in Blank et al. 2026 (arXiv 2606.00995). The factors at attention stay as
they are. Students are written turned back, as plain adapters.
"""

import torch
from torch import Tensor

from traitscope.errors import ConfigError
from traitscope.interventions.lora import LoraLinear
from traitscope.models.linear_maps import block_names, is_in_mlp, residual_side, weight_of
from traitscope.models.model import Model

SEED = 42
"""seed of the rotation that all blocks share; the rotation of block l alone has SEED + l + 1.
Students of all seeds share the rotations"""


def orthogonal(size: int, seed: int) -> Tensor:
    """A random rotation or reflection [size, size] in float32, drawn uniformly.

    It is Q of the QR decomposition of a Gaussian matrix, with the signs of R's diagonal moved to Q.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(size, size, dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).float()


def mlp_maps(model: Model, layers: dict[str, LoraLinear]) -> list[dict[str, str]]:
    """For each block, the adapted maps in its MLP, with the side of the residual stream they are
    on: read or write.

    Of Llama, Qwen and Gemma the maps gate and up read the residual stream, and down writes to it.
    Of GPT-2 these are c_fc and c_proj. Raises ConfigError for a model where names and widths do
    not show the side.
    """
    maps_of_blocks = []
    for block_name in block_names(model):
        maps_of_blocks.append(_maps_of(model, layers, f"{block_name}."))
    return maps_of_blocks


def _maps_of(model: Model, layers: dict[str, LoraLinear], prefix: str) -> dict[str, str]:
    """The adapted maps in the MLP of the block whose modules' names begin with `prefix`."""
    in_block: list[str] = []
    sides: dict[str, str] = {}
    for name, layer in layers.items():
        if not name.startswith(prefix):
            continue
        in_block.append(name.removeprefix(prefix))
        if is_in_mlp(in_block[-1]):
            sides[name] = _side(name, weight_of(layer.linear).shape, model.d_model)
    if set(sides.values()) != {"read", "write"}:
        raise ConfigError(
            f"--rotate needs maps in and out of an `mlp` in {prefix[:-1]}, found"
            f" {', '.join(in_block)}; leave it out"
        )
    return sides


def _side(name: str, shape: tuple[int, int], d_model: int) -> str:
    side = residual_side(shape, d_model)
    if side is None:
        outputs, inputs = shape
        raise ConfigError(
            f"--rotate: {name} maps {inputs} to {outputs} values in a model of width {d_model}, so"
            " its side of the residual stream is unknown; leave it out"
        )
    return side


def rotate(model: Model, layers: dict[str, LoraLinear], kind: str) -> None:
    """Turn the parameters of the adapters in the MLPs, and let them act turned back.

    `kind` is `shared` (one rotation for all blocks) or `blocks` (one for each block). Raises
    ConfigError for a model whose MLPs are not recognised.
    """
    turn = None
    for index, maps in enumerate(mlp_maps(model, layers)):
        if kind != "shared":
            turn = orthogonal(model.d_model, SEED + index + 1).to(model.device)
        elif turn is None:
            turn = orthogonal(model.d_model, SEED).to(model.device)
        for name, side in maps.items():
            layer = layers[name]
            if side == "read":
                layer.turn_in = turn
                layer.lora_A.data = layer.lora_A.data @ turn
            else:
                layer.turn_out = turn
                layer.lora_B.data = turn.t() @ layer.lora_B.data
