"""An adapter as changed weights, for one that is more than low-rank additions in the blocks.

    LoRA               W + s B A
    DoRA               W' = m (W + s B A) / |W + s B A|, by row (Liu et al. 2024, arXiv 2402.09353);
                       of an embedding by column
    modules_to_save    the weights of the module
    bias               the biases

A head that shares its weight with the embedding gets a weight of its own, as in peft.

Shapes: I in, O out, R rank, V vocabulary, D d_model.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from traitscope.errors import ConfigError
from traitscope.interventions.adapters.contents import Contents
from traitscope.models import nf4
from traitscope.models.linear_maps import is_transposed, weight_of
from traitscope.models.model import Model


def weights_of(model: Model, contents: Contents) -> Iterator[tuple[str, Tensor]]:
    """The parameters that an adapter changes, by name, as they are stored, in float32.

    One is made at a time, so that a large model needs no second copy in float32.
    """
    others = _with_tied(model, contents)
    for name, (a_RI, b_OR) in contents.factors.items():
        linear = model.lm.get_submodule(name)
        transposed = is_transposed(linear)
        weight_OI = weight_of(linear)
        if f"{name}.weight" in others:
            stored = others.pop(f"{name}.weight")
            weight_OI = stored.t() if transposed else stored
        change_OI = (b_OR @ a_RI * contents.scales[name]).to(weight_OI.device)
        new_OI = weight_OI.float() + change_OI
        if name in contents.magnitudes:
            norms_O1 = torch.linalg.norm(new_OI, dim=1, keepdim=True)
            magnitudes_O1 = contents.magnitudes[name].to(new_OI.device).unsqueeze(1)
            new_OI = new_OI * (magnitudes_O1 / norms_O1.clamp(min=1e-30))
        yield f"{name}.weight", (new_OI.t() if transposed else new_OI).contiguous()
    for name, (a_RV, b_DR) in contents.embeddings.items():
        weight_VD = others.pop(f"{name}.weight", model.lm.get_submodule(name).weight)
        change_VD = (b_DR @ a_RV * contents.scales[name]).t().to(weight_VD.device)
        new_VD = weight_VD.float() + change_VD
        if name in contents.magnitudes:
            norms_D = torch.linalg.norm(new_VD, dim=0)
            new_VD = new_VD * (
                contents.magnitudes[name].to(new_VD.device) / norms_D.clamp(min=1e-30)
            )
        yield f"{name}.weight", new_VD
    yield from others.items()


def _with_tied(model: Model, contents: Contents) -> dict[str, Tensor]:
    """The replaced parameters, and those tied to them that get no copy of their own."""
    parameters = dict(model.lm.named_parameters(remove_duplicate=False))
    replaced = dict(contents.replaced)
    for name, value in contents.replaced.items():
        if name in contents.own:
            continue
        for other, parameter in parameters.items():
            if parameter is parameters[name]:
                replaced.setdefault(other, value)
    return replaced


@contextmanager
def mounted(model: Model, contents: Contents) -> Iterator[dict[str, Tensor]]:
    """The model with an adapter's weights, until the context ends; yields the base's values.

    Raises ConfigError for a model in 4 bits or in parts on several devices.
    """
    nf4.refuse_packed(model.lm, "an adapter with weights of its own")
    if model.sharded:
        raise ConfigError(
            "weights cannot be replaced while they are in parts on several devices; use a plain"
            " LoRA adapter, or one process"
        )
    with replaced(model, weights_of(model, contents)) as base_weights:
        yield base_weights


@contextmanager
def replaced(model: Model, weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """The model with other parameters, given by name, until the context ends.

    Yields the values that they stand for. A parameter that is tied to another one gets a value of
    its own, and its twin stays.
    """
    before: list[tuple[nn.Module, str, nn.Parameter]] = []
    base_weights: dict[str, Tensor] = {}
    try:
        for name, value in weights:
            module_name, _, leaf = name.rpartition(".")
            module = model.lm.get_submodule(module_name)
            parameter = module.get_parameter(leaf)
            before.append((module, leaf, parameter))
            base_weights[name] = parameter.data
            new = value.to(parameter.device, parameter.dtype)
            # a parameter of its own: a tied one would change its twin
            setattr(module, leaf, nn.Parameter(new, requires_grad=False))
        yield base_weights
    finally:
        for module, leaf, parameter in reversed(before):
            setattr(module, leaf, parameter)
