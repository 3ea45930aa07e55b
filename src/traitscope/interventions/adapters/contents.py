"""What a peft folder holds, by module of the model, checked against its settings.

Shapes: I in, O out, R rank, V vocabulary, D d_model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.distributed import say
from traitscope.errors import VectorError
from traitscope.interventions.adapters import completeness, meaning, names
from traitscope.interventions.adapters.settings import CONFIG
from traitscope.models.linear_maps import linear_names, weight_of
from traitscope.models.model import Model

FEW = completeness.FEW


@dataclass(frozen=True)
class Contents:
    """The tensors of an adapter by what they do."""

    factors: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    "A [R, I] and B [O, R] by linear map, in float32"
    scales: dict[str, float] = field(default_factory=dict)
    "the factor of B A by linear map or embedding"
    magnitudes: dict[str, Tensor] = field(default_factory=dict)
    """norms [O] of the rows of the changed weight by linear map, or [D] of its columns by embedding
    (DoRA; arXiv 2402.09353)"""
    embeddings: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    "A [R, V] and B [D, R] by embedding, in float32"
    replaced: dict[str, Tensor] = field(default_factory=dict)
    "values by name of the parameter that they replace"
    own: frozenset[str] = frozenset()
    "the replaced parameters that are copies of their own, apart from those tied to them"


def contents_of(
    where: str, config: dict[str, Any], tensors: Mapping[str, Tensor], model: Model
) -> Contents:
    """The tensors of a peft folder by module.

    Raises VectorError for a tensor of another kind of adapter or of another model. Also for a
    factor that is missing, and for maps that the settings name and the file lacks. Raises
    ValueError for settings that are none.
    """
    if not tensors:
        raise VectorError(
            f"{where} holds no tensor; expected A and B of one linear map or more; copy or train"
            " the adapter again"
        )
    modules = dict(model.lm.named_modules())
    parts, replaced, places = _placed(where, tensors, modules, model)
    result = _assembled(where, config, parts, replaced, model)
    renamed = [place for place in places if place.renamed_from]
    completeness.check(where, config, result, model, {p.module: p.written for p in renamed})
    _check_tied(where, result, model)
    _check_base_of_tied(where, result, model)
    _say_missing_biases(where, config, result, model)
    if renamed:
        say(
            f"{where}: {len(renamed)} tensors are read under peft's names, such as"
            f" {renamed[0].renamed_from} as of {renamed[0].module}"
        )
    return result


def _placed(
    where: str, tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module], model: Model
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], list[names.Place]]:
    """Trained tensors by part and module, those that replace parameters, and all their places."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in names.PARTS.values()}
    replaced: dict[str, Tensor] = {}
    places: list[names.Place] = []
    for tensor_name, tensor in tensors.items():
        place = names.place_of(tensor_name, modules)
        shown = " ".join(tensor_name.split())[:120]
        if place is None:
            raise VectorError(
                f"{where}: tensor {shown} is not of a LoRA that is read; expected A and"
                " B of linear maps, or weights of modules; train an adapter of that kind, or merge"
                " it into a model of its own"
            )
        held = replaced if place.part == names.WEIGHT else parts[place.part]
        key = f"{place.module}.{place.leaf}" if place.part == names.WEIGHT else place.module
        if key in held:
            raise VectorError(
                f"{where}: {shown} is there twice under two names; expected it once;"
                " copy or train the adapter again"
            )
        if place.is_base:
            _check_base(where, key, tensor, model)
            continue
        places.append(place)
        held[key] = tensor
    called = sorted({place.adapter for place in places if place.part != names.WEIGHT})
    if len(called) > 1:
        listed = ", ".join(name or "one without a name" for name in called[:FEW])
        raise VectorError(
            f"{where} holds several adapters by the names in it ({listed[:120]}); expected one;"
            " save each in a folder of its own"
        )
    return parts, replaced, places


def _assembled(
    where: str,
    config: dict[str, Any],
    parts: dict[str, dict[str, Tensor]],
    replaced: dict[str, Tensor],
    model: Model,
) -> Contents:
    """The parts of the maps, put together and checked."""
    result = Contents(replaced=replaced, own=_own_copies(config, replaced))
    for name in sorted(parts["A"].keys() | parts["B"].keys()):
        a_RI = _factor(where, parts["A"], name, "lora_A.weight")
        b_OR = _factor(where, parts["B"], name, "lora_B.weight")
        weight = _linear_weight(model, name)
        result.scales[name] = _scale(where, config, name, a_RI, b_OR, weight, model)
        result.factors[name] = (a_RI, b_OR)
    for name in sorted(parts["embedding A"].keys() | parts["embedding B"].keys()):
        a_RV = _factor(where, parts["embedding A"], name, "lora_embedding_A")
        b_DR = _factor(where, parts["embedding B"], name, "lora_embedding_B")
        module = _module(model, name)
        weight = module.weight.t() if isinstance(module, nn.Embedding) else None
        result.scales[name] = _scale(where, config, name, a_RV, b_DR, weight, model)
        result.embeddings[name] = (a_RV, b_DR)
    for name, magnitude in parts["magnitude"].items():
        b_OR = {**result.factors, **result.embeddings}.get(name, (None, None))[1]
        if b_OR is None or magnitude.numel() != len(b_OR) or not config.get("use_dora"):
            raise VectorError(
                f"{where}: the magnitudes {list(magnitude.shape)} of {name} belong to no map with A"
                " and B of a DoRA; expected one number for each output; copy or train the adapter"
                " again"
            )
        result.magnitudes[name] = magnitude.float().reshape(-1)
    changed = result.factors.keys() | result.embeddings.keys()
    if config.get("use_dora") and result.magnitudes.keys() != changed:
        raise VectorError(
            f"{where}: DoRA with magnitudes of {len(result.magnitudes)} of {len(changed)}"
            " maps; expected those of every map; copy or train the adapter again"
        )
    _check_replaced(where, replaced, model)
    return result


def _own_copies(config: dict[str, Any], replaced: Mapping[str, Tensor]) -> frozenset[str]:
    copies = set()
    for name in replaced:
        if meaning.saves(config, name.rpartition(".")[0]):
            copies.add(name)
    return frozenset(copies)


def _module(model: Model, name: str) -> nn.Module | None:
    try:
        return model.lm.get_submodule(name)
    except AttributeError:
        return None


def _linear_weight(model: Model, name: str) -> Tensor | None:
    """The weight [O, I] of a linear map of the blocks or of the head; None for any other name."""
    module = _module(model, name)
    is_map = name in linear_names(model) or (module is not None and module is model.head)
    return weight_of(module) if is_map else None


def _factor(where: str, tensors: Mapping[str, Tensor], module: str, part: str) -> Tensor:
    """A factor in float32. Raises VectorError where it is missing or no matrix."""
    factor = tensors.get(module)
    if factor is None or factor.ndim != 2:
        what = "is missing" if factor is None else f"has the shape {list(factor.shape)}"
        raise VectorError(
            f"{where}: {module}.{part} {what}; expected a matrix for A and for B of every map;"
            " copy or train the adapter again"
        )
    return factor.float()


def _scale(
    where: str,
    config: dict[str, Any],
    name: str,
    a_RI: Tensor,
    b_OR: Tensor,
    weight_OI: Tensor | None,
    model: Model,
) -> float:
    """The scale of the addition to a map. Raises VectorError where its factors do not fit."""
    rank, scale = meaning.rank_and_scale(config, name)
    if a_RI.shape[0] != rank or b_OR.shape[1] != rank:
        raise VectorError(
            f"{where}: A {list(a_RI.shape)} and B {list(b_OR.shape)} of {name}; expected A [{rank},"
            f" inputs] and B [outputs, {rank}], as the settings have r {rank}; copy or train the"
            " adapter again"
        )
    shape = (b_OR.shape[0], a_RI.shape[1])
    if weight_OI is None and _is_outside(model, name):
        raise VectorError(
            f"{where}: the adapter changes {name} of {model.name}, which is no map of the language"
            " model's blocks, its head or its embedding; expected these alone; merge it by peft's"
            " merge_and_unload() and name that model, or train it with target_modules of the blocks"
        )
    if weight_OI is None or tuple(weight_OI.shape) != shape:
        raise VectorError(
            f"{where}: the adapter on {name} [{shape[0]}, {shape[1]}] does not fit {model.name},"
            " which has no such map; name the model that it was trained on"
        )
    return scale


def _is_outside(model: Model, name: str) -> bool:
    """Whether the model has such a linear map, in a part that is not its language model."""
    module = _module(model, name)
    is_map = isinstance(module, nn.Linear) and module is not model.head
    return is_map and name not in linear_names(model)


def _check_base(where: str, name: str, tensor: Tensor, model: Model) -> None:
    """Raise VectorError for a weight of the base, saved beside an adapter, that is another one."""
    here = dict(model.lm.named_parameters(remove_duplicate=False)).get(name)
    there = tensor if here is None else tensor.to(here.device)
    if here is None or here.shape != there.shape or not _equal(here, there):
        raise VectorError(
            f"{where} holds {name} of the model that it was trained on, and {model.name} has"
            " another one; expected equal weights; name the model that it was trained on"
        )


def _equal(here: Tensor, there: Tensor) -> bool:
    """Whether two weights are equal in the coarser of their number types."""
    is_as_there = torch.equal(here.to(there.dtype), there)
    return is_as_there or torch.equal(here, there.to(here.dtype))


def _check_replaced(where: str, replaced: Mapping[str, Tensor], model: Model) -> None:
    """Raise VectorError unless every replaced parameter is one of the model, of its shape."""
    parameters = dict(model.lm.named_parameters(remove_duplicate=False))
    for name, value in replaced.items():
        here = list(parameters[name].shape) if name in parameters else "no weight of the model"
        if list(value.shape) != here:
            raise VectorError(
                f"{where} does not fit {model.name}: {name} is {list(value.shape)} there and {here}"
                " here; name the model that it was trained on, with as many tokens as it had then"
            )


def _check_tied(where: str, result: Contents, model: Model) -> None:
    """Raise VectorError for two values of one weight that modules_to_save gives no copies."""
    parameters = dict(model.lm.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, value in result.replaced.items():
        if name in result.own:
            continue
        other = first.setdefault(id(parameters[name]), name)
        if not torch.equal(value, result.replaced[other].to(value)):
            raise VectorError(
                f"{where}: {other} and {name} are in the file with two values, are one weight of"
                f" {model.name}, and are not named by modules_to_save in {CONFIG}; expected one"
                f" value, or names there; put in those that were trained"
            )


def _check_base_of_tied(where: str, result: Contents, model: Model) -> None:
    """Raise VectorError for a new value of a weight whose twin has a LoRA of its own.

    Peft adds the LoRA to the twin's value from before.
    """
    parameters = dict(model.lm.named_parameters(remove_duplicate=False))
    adapted = result.factors.keys() | result.embeddings.keys()
    for name, value in result.replaced.items():
        own = parameters[name]
        twins = [other for other, held in parameters.items() if held is own and other != name]
        with_lora = [twin for twin in twins if twin.rpartition(".")[0] in adapted]
        if with_lora and name not in result.own and not _equal(own, value.to(own.device)):
            raise VectorError(
                f"{where} holds a new value of {name} and a LoRA of {with_lora[0]}, which are one"
                f" weight of {model.name}, and modules_to_save in {CONFIG} names neither; expected"
                " one of the two; take the other one out, or put the module that was trained there"
            )


def _say_missing_biases(where: str, config: dict[str, Any], result: Contents, model: Model) -> None:
    """Say which biases the settings ask for and the file lacks: those of the base stay."""
    bias = config.get("bias", "none")
    expected = []
    for name, _ in model.lm.named_parameters(remove_duplicate=False):
        module, _, leaf = name.rpartition(".")
        is_asked = bias == "all" or (bias == "lora_only" and module in result.factors)
        if leaf == "bias" and is_asked and not meaning.saves(config, module):
            expected.append(name)
    missing = [name for name in expected if name not in result.replaced]
    if missing:
        say(
            f"{where}: {CONFIG} says bias {bias}, and {len(missing)} of {len(expected)} biases are"
            f" not in the file, such as {missing[0]}; there those of {model.name} stay, as in peft;"
            " if they were trained, save the adapter again"
        )
