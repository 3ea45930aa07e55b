"""Whether a peft folder has what its settings name, and nothing that they do not name.

Settings speak of modules as the program that wrote them calls them. Where a file has other names
than the model, its settings are read under both.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from traitscope.errors import VectorError
from traitscope.interventions.adapters import meaning
from traitscope.interventions.adapters.names import without_wrappers
from traitscope.interventions.adapters.settings import CONFIG
from traitscope.models.linear_maps import linear_names
from traitscope.models.model import Model

if TYPE_CHECKING:
    from traitscope.interventions.adapters.contents import Contents

FEW = 3
"names that a message lists"


def check(
    where: str,
    config: dict[str, Any],
    result: Contents,
    model: Model,
    renamed: Mapping[str, str],
) -> None:
    """Raise VectorError unless the file has the maps that the settings name, and no others.

    renamed: Names in the file by module of the model, where they are not peft's names of it.
    """
    _check_maps(where, config, result, model, renamed)
    missing: list[str] = []
    for name, module in model.lm.named_modules():
        if not meaning.saves(config, name):
            continue
        for leaf, _ in module.named_parameters():
            owner = f"{name}.{leaf}".rpartition(".")[0]
            if f"{name}.{leaf}" not in result.replaced and owner not in missing:
                missing.append(owner)
    if missing:
        raise VectorError(
            f"{where}: modules_to_save names {', '.join(missing[:FEW])}, whose weights are not in"
            " the file; expected all of them; copy or save the adapter again"
        )
    for name in result.factors.keys() | result.embeddings.keys():
        if f"{name}.weight" in result.replaced:
            raise VectorError(
                f"{where}: {name}.weight stands beside A and B of that map, where peft does not"
                f" read it; expected none, or {name}.base_layer.weight of the base; copy or save"
                " the adapter again"
            )


def _check_maps(
    where: str,
    config: dict[str, Any],
    result: Contents,
    model: Model,
    renamed: Mapping[str, str],
) -> None:
    """Raise VectorError for maps that are named and missing, or there and not named."""
    there = result.factors.keys() | result.embeddings.keys()
    if not there:
        return
    if not config.get("target_modules"):
        _refuse_unnamed(where, there)
    in_blocks = set(linear_names(model))
    possible, linear = [], []
    for name, module in model.lm.named_modules():
        is_head = module is model.head
        # names of another model cannot mean what this one has beside its blocks
        is_meant = is_head or isinstance(module, nn.Embedding) or name in in_blocks
        if meaning.saves(config, name) or not _takes_lora(module) or (renamed and not is_meant):
            continue
        possible.append(name)
        if not is_head and not isinstance(module, nn.Embedding):
            linear.append(name)
    expected: set[str] = set()
    for spelt in _spellings(possible, renamed):
        theirs = list(map(spelt.__getitem__, possible))
        chosen = meaning.targeted(config, theirs, set(map(spelt.__getitem__, linear)))
        ours = {name for name in possible if spelt[name] in chosen}
        expected = (_with_twins(ours, model) if config.get(meaning.TYING) else ours) or expected
        if expected == there:
            return
    _refuse_partly(where, expected, there)


def _spellings(ours: Collection[str], renamed: Mapping[str, str]) -> list[dict[str, str]]:
    """Modules by our names: as we call them, and as a file with other words before them does."""
    same = {name: name for name in ours}
    before = {}
    for module, written in renamed.items():
        bare = without_wrappers(module)
        before[module.removesuffix(bare)] = written.removesuffix(bare)
    theirs = {}
    for name in ours:
        bare = without_wrappers(name)
        words = name.removesuffix(bare)
        theirs[name] = before.get(words, words) + bare
    return [same, theirs] if theirs != same else [same]


def _with_twins(chosen: set[str], model: Model) -> set[str]:
    """Maps and those that share their weights, which ensure_weight_tying adapts as well."""
    weights = {id(getattr(model.lm.get_submodule(name), "weight", None)) for name in chosen}
    twins = set(chosen)
    for name, module in model.lm.named_modules():
        if _takes_lora(module) and id(module.weight) in weights:
            twins.add(name)
    return twins


def _refuse_unnamed(where: str, there: Collection[str]) -> None:
    """Raise VectorError for maps of settings without target_modules: peft takes maps of its own."""
    listed = ", ".join(sorted(there)[:FEW])
    endings = sorted({name.rpartition(".")[2] for name in there})
    raise VectorError(
        f"{where}: the file holds A and B of {listed}, and {CONFIG} names no target_modules, for"
        f" which peft chooses maps of its own; expected their names; put in"
        f' "target_modules": {json.dumps(endings)}'
    )


def _takes_lora(module: nn.Module) -> bool:
    """Whether peft puts an adapter on such a module where target_modules names it."""
    is_conv1d = type(module).__name__ == "Conv1D"  # GPT-2's linear map
    return isinstance(module, nn.Linear | nn.Embedding) or is_conv1d


def _refuse_partly(where: str, expected: set[str], there: Collection[str]) -> None:
    missing, further = sorted(expected - set(there)), sorted(set(there) - expected)
    if missing:
        raise VectorError(
            f"{where}: {len(expected) - len(missing)} of {len(expected)} maps that target_modules"
            f" names are in the file, {', '.join(missing[:FEW])} are not; expected all of them;"
            " copy or save the adapter again"
        )
    raise VectorError(
        f"{where}: the adapter on {', '.join(further[:FEW])} is of a map that target_modules does"
        " not name, so peft would leave it out; expected the maps that are named; correct"
        " target_modules"
    )
