"""The rungs of a ladder of models: a model itself, with weight noise, or another model.

A rung is a text, as the sizes of studies hold it: `+` is the model that the study runs on,
`+noise:0.1,seed=1` is that model with weight noise, and anything else is another model's name.
"""

from dataclasses import replace
from typing import Any, Literal

from traitscope.interventions.vector import load_vector
from traitscope.models import weight_noise
from traitscope.studies import shared_nodes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders
from traitscope.workflow.standard_nodes import VECTORS, vector_of

SELF = "+"
"the rung of the study's model itself"


def noisy(*scales: float) -> tuple[str, ...]:
    """Return the rungs of the model itself and of weight noise of some scales."""
    names = [SELF]
    for scale in scales:
        names.append(f"{weight_noise.MARK}{scale:g},seed=1")
    return tuple(names)


def kind_of(rung: str) -> Literal["self", "noisy", "other"]:
    """Return whether a rung is the model itself, the model with noise, or another model.

    Raises ConfigError for noise that is not understood.
    """
    if rung == SELF:
        return "self"
    name, noise = weight_noise.split_name(rung)
    return "noisy" if noise is not None and not name else "other"


def with_other_families(size: Any, model: str) -> Any:
    """Return the size of a study with the loadable models of other families as last rungs of both.

    If `model` is one of them itself, its strength is that of the teacher.
    """
    candidates = [name for name in size.other_families if name != model]
    others = tuple(filter(shared_nodes.is_loadable, candidates))
    return replace(
        size,
        rungs=size.rungs + others,
        matrix=size.matrix + others,
        strength=size.other_families.get(model, size.strength),
    )


def settings_of(common: dict, rung: str) -> dict:
    """Return the settings `common` with a rung's model."""
    model = common["model"]
    match kind_of(rung):
        case "noisy":
            model = f"{model}{rung}"
        case "other":
            model = rung
    return common | {"model": model}


def vectors_name(rung: str) -> str:
    """Return the name of the node of a rung's vectors."""
    return f"{VECTORS} of {rung}"


def needs_of_layer(rung: str) -> tuple[str, ...]:
    """Return the nodes that `layer_of` reads: the vectors of the first rung and of this one."""
    return tuple(dict.fromkeys((vectors_name(SELF), vectors_name(rung))))


def layer_of(folders: Folders, trait: str, layer: int, rung: str) -> int:
    """Return the block of a rung at the depth that `layer` has in the first one."""
    blocks = _blocks(folders, trait, rung)
    first_blocks = _blocks(folders, trait, SELF)
    return round(layer * (blocks - 1) / (first_blocks - 1))


def steered(size: Any, rung: str, trait: str, folders: Folders) -> tuple[str, ...]:
    """Return the intervention that adds the rung's own vector of a trait."""
    vector = vector_of(folders, trait, vectors_name(rung))
    strength = size.other_families.get(rung, size.strength)
    layer = layer_of(folders, trait, size.layer, rung)
    return (standard_nodes.steered(vector, layer, strength),)


def _blocks(folders: Folders, trait: str, rung: str) -> int:
    """Return how many blocks a rung's model has, by the rows of its vector."""
    return len(load_vector(vector_of(folders, trait, vectors_name(rung))).rows_LD)
