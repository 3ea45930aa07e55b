"""A direction taken out of the weights, and a student scaled down.

    ablated    W <- W - s u (u . W)    b <- b - s (u . b) u    of the maps that leave attention and
                                                               MLP of some blocks
               E <- E - s (E . u) u                            of the embeddings, where asked for
    scaled     W <- W_base + s (W_student - W_base)

u is a vector's row at norm 1. With s = 1 these blocks write nothing along u (Arditi et al. 2024,
arXiv 2406.11717). What was in the residual stream before them stays, as other blocks write it.
A strength of 0, or a scale of 1, changes no byte.

Shapes: I in, O out, D d_model, V vocabulary, N prompts, L layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from traitscope import array_files
from traitscope.errors import ConfigError
from traitscope.interventions import peft_folder
from traitscope.interventions.applied import check_layers, checked_vector
from traitscope.interventions.intervention import Ablate
from traitscope.models import checkpoints
from traitscope.models.linear_maps import is_transposed, matrices_left_out
from traitscope.models.model import Model

State = dict[str, Tensor]
"""Weights by name."""


@dataclass(frozen=True)
class Ablation:
    """Directions that are taken out of the weights."""

    items: tuple[Ablate, ...] = ()
    """Vectors and blocks."""
    strength: float = 1.0
    """Part that is taken out."""
    row: int | None = None
    """Block whose row is taken at all layers; None takes each layer's own."""
    embedding: bool = False
    """Whether the row is taken out of the embeddings, too."""

    @property
    def acts(self) -> bool:
        """Whether anything is changed."""
        return bool(self.items) and self.strength > 0

    def units(self, model: Model) -> list[tuple[int, Tensor]]:
        """Pairs (block, direction [D] at norm 1).

        Raises VectorError for another model's vector and for a row without a direction. Raises
        ConfigError for a layer that the model lacks, and for an ablation at some tokens only.
        """
        pairs = []
        for item in self.items:
            if item.position != "all":
                raise ConfigError(
                    f"--ablate with position={item.position}: weights act at every token; expected"
                    " all; leave the position out, or use the hooks (generate --interventions)"
                )
            check_layers(item.layers, model)
            rows = item.layers if self.row is None else (self.row,) * len(item.layers)
            held = Ablate(item.vector, tuple(dict.fromkeys(rows)))
            units_LD = checked_vector(held, model).unit().rows_LD
            for layer, row in zip(item.layers, rows, strict=True):
                pairs.append((layer, torch.from_numpy(units_LD[row])))
        return pairs


def ablated(model: Model, state: State, ablation: Ablation) -> State:
    """The parameters that an ablation changes, by name, made of those in `state`.

    Raises ConfigError for a model whose maps do not show what they write, and for experts.
    """
    if not ablation.acts:
        return {}
    experts, _ = matrices_left_out(model)
    if experts:
        raise ConfigError(
            f"{model.name} has {experts[0]}, which is no linear map, so a direction cannot be taken"
            " out of it; use the hooks (generate --interventions ablate:...)"
        )
    attention, mlps = (
        checkpoints.maps_leaving_attention(model),
        checkpoints.maps_leaving_mlps(model),
    )
    changed: State = {}
    for layer, unit_D in ablation.units(model):
        for name in (attention[layer], mlps[layer]):
            transposed = is_transposed(model.lm.get_submodule(name))
            weight = f"{name}.weight"
            stored = changed.get(weight, state[weight])
            changed[weight] = without(stored, unit_D, ablation.strength, -1 if transposed else 0)
            bias = f"{name}.bias"
            if bias in state:
                stored = changed.get(bias, state[bias])
                changed[bias] = without(stored, unit_D, ablation.strength, 0)
    if ablation.embedding:
        for unit_D in _rows_of_embeddings(model, ablation):
            for name in checkpoints.embeddings_of(model):
                weight = f"{name}.weight"
                stored = changed.get(weight, state[weight])
                changed[weight] = without(stored, unit_D, ablation.strength, -1)
    return changed


def _rows_of_embeddings(model: Model, ablation: Ablation) -> list[Tensor]:
    """The direction of every vector, once."""
    first = []
    for item in ablation.items:
        one = Ablation((item,), ablation.strength, ablation.row)
        first.append(one.units(model)[0][1])
    return first


def without(stored: Tensor, unit_D: Tensor, strength: float, axis: int) -> Tensor:
    """A tensor that lost its component along a direction on one axis, in its own type."""
    values = stored.double().movedim(axis, -1)
    unit_D = unit_D.to(values)
    changed = values - strength * (values @ unit_D).unsqueeze(-1) * unit_D
    return changed.movedim(-1, axis).to(stored.dtype).contiguous()


def scaled(state: State, base_weights: Mapping[str, Tensor], scale: float) -> None:
    """Bring the weights of a student in `state` nearer to those of its base, by name."""
    if scale == 1:
        return
    for name, base in base_weights.items():
        base = base.to(state[name].device)
        if scale == 0:
            state[name] = base.detach().clone()
            continue
        moved = base.double() + scale * (state[name].double() - base.double())
        state[name] = moved.to(state[name].dtype)


def scaled_folder(folder: Path, scale: float) -> dict[str, bytes]:
    """The files of a plain LoRA student whose change is scaled: every B is multiplied."""
    from safetensors import safe_open

    weights = folder / peft_folder.WEIGHTS
    with safe_open(weights, framework="np") as file:
        metadata = file.metadata() or {}
    tensors = {}
    for name, tensor in array_files.read_tensors(weights).items():
        is_b = "lora_B" in name
        tensors[name] = (tensor.double() * scale).to(tensor.dtype) if is_b else tensor
    return {
        peft_folder.WEIGHTS: array_files.tensor_bytes(tensors, metadata),
        peft_folder.CONFIG: (folder / peft_folder.CONFIG).read_bytes(),
    }


def written_along(
    residuals_NLD: np.ndarray, pairs: Sequence[tuple[int, Tensor]], from_embedding: bool
) -> float:
    """The largest part of what a block writes that lies along the direction taken out of it.

    It is relative to the residual. Block 0 counts only where the embeddings lost it, too.
    """
    largest = 0.0
    for layer, unit_D in pairs:
        if layer == 0 and not from_embedding:
            continue
        wrote_ND = residuals_NLD[:, layer]
        if layer > 0:
            wrote_ND = wrote_ND - residuals_NLD[:, layer - 1]
        along_N = np.abs(wrote_ND @ unit_D.double().numpy())
        sizes_N = np.linalg.norm(residuals_NLD[:, layer], axis=1)
        largest = max(largest, float((along_N / np.maximum(sizes_N, 1e-30)).max()))
    return largest
