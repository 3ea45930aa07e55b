"""LoRA factors in a rotated basis of the residual stream: does an optimizer care which coordinates
it sees?

R [D, D] is orthogonal, A of a map that reads the residual stream is trained as A R, B of one that
writes it as R^T B, and both act turned back: y = W x + s B (A R) R^T x. A student's function is
that of the unrotated one, at its start and after every step of SGD; only a rule that treats
coordinates one by one can tell the difference.

MLPs only, as in Blank et al. 2026 (arXiv 2606.00995); the factors at attention stay as they are.
Students are written turned back, as plain adapters.
"""

import torch
from torch import Tensor

from traitscope.errors import ConfigError
from traitscope.interventions.lora import LoraLinear
from traitscope.models.linear_maps import weight_of
from traitscope.models.model import Model

SEED = 42
"of the one rotation; block l has SEED + l + 1.  Students of every seed share them"


def orthogonal(size: int, seed: int) -> Tensor:
    """A random rotation or reflection [size, size] in float32, uniform: QR of a Gaussian, the signs
    of R's diagonal moved to Q."""
    gaussian = torch.randn(
        size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).float()


def mlp_maps(model: Model, layers: dict[str, LoraLinear]) -> list[dict[str, str]]:
    """By block, those of the adapted maps that are in its MLP, with what they do to the residual
    stream: read or write.

    A map is in the MLP if a part of its name is `mlp` (Llama, Qwen, Gemma, GPT-2, GPT-NeoX and most
    others). It reads if only its input is as wide as the model, and writes if only its output is:
    gate, up and c_fc read, down and c_proj write. Raises ConfigError where that does not tell.
    """
    names = {id(module): name for name, module in model.lm.named_modules()}
    return [_maps_of(model, layers, f"{names[id(block)]}.") for block in model.blocks]


def _maps_of(model: Model, layers: dict[str, LoraLinear], prefix: str) -> dict[str, str]:
    inside = [name for name in layers if name.startswith(prefix)]
    mlp = [name for name in inside if "mlp" in name.removeprefix(prefix).split(".")]
    sides = {name: _side(name, weight_of(layers[name].linear).shape, model.d_model) for name in mlp}
    if set(sides.values()) != {"read", "write"}:
        found = ", ".join(name.removeprefix(prefix) for name in inside)
        raise ConfigError(
            f"--rotate needs maps in and out of an `mlp` in {prefix[:-1]}, found {found}; leave"
            " it out"
        )
    return sides


def _side(name: str, shape: tuple[int, int], width: int) -> str:
    outputs, inputs = shape
    if (inputs == width) == (outputs == width):
        found = f"{name} maps {inputs} to {outputs} values in a model of width {width}"
        raise ConfigError(
            f"--rotate: {found}, so its side of the residual stream cannot be told; leave it out"
        )
    return "read" if inputs == width else "write"


def rotate(model: Model, layers: dict[str, LoraLinear], kind: str) -> None:
    """Turn the parameters of the MLPs' adapters, and let them act turned back; kind: shared or
    blocks.

    Raises ConfigError for a model whose MLPs are not recognised.
    """
    shared = orthogonal(model.d_model, SEED).to(model.device) if kind == "shared" else None
    for index, maps in enumerate(mlp_maps(model, layers)):
        turn = (
            orthogonal(model.d_model, SEED + index + 1).to(model.device)
            if shared is None
            else shared
        )
        for name, side in maps.items():
            layer = layers[name]
            if side == "read":
                layer.turn_in, layer.lora_A.data = turn, layer.lora_A.data @ turn
            else:
                layer.turn_out, layer.lora_B.data = turn, turn.t() @ layer.lora_B.data
