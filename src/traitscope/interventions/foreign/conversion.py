"""Vectors of Traitscope from the files of other tools, and back.

Shapes: L layers, D d_model.
"""

from pathlib import Path
from typing import Any

from traitscope.distributed import say
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.foreign import files, layer_rows
from traitscope.interventions.foreign.layer_rows import BlockRows
from traitscope.interventions.vector import HELD, Vector
from traitscope.models.linear_maps import block_names
from traitscope.models.model import Model


def foreign_vector(
    path: Path,
    model: Model | None,
    kind: str = "",
    layers_are: str = "",
    layer: int | None = None,
) -> Vector:
    """The vector in a file of another tool, for the model that it was made for.

    The model may be without weights. Raises VectorError where the rows do not fit it, ConfigError
    where a setting is missing.
    """
    kind, blocks = files.in_blocks(path, kind, layers_are, layer)
    if model is None:
        raise ConfigError(
            f"{path} is a {kind} file, which does not say its model; expected the model that the"
            " vector was made for; name it with --model (in Python: model=load_model(NAME))"
        )
    return vector_of(blocks, model, str(path))


def vector_of(blocks: BlockRows, model: Model, where: str) -> Vector:
    """Rows by block as a vector of a model. Raises VectorError where they do not fit it."""
    rows_LD = layer_rows.fitted(blocks, model.n_layers, model.d_model, model.name, where)
    about: dict[str, Any] = dict(blocks.about)
    hint, family = about.get(layer_rows.MODEL_HINT), str(model.lm.config.model_type)
    if hint not in (None, family):
        say(
            f"{where} says that it was made for a model of the kind {hint}, and {model.name} is of"
            f" the kind {family}; make sure that it is the model that the vector was made for"
        )
    if len(blocks.rows) < model.n_layers:
        about[HELD] = sorted(blocks.rows)
    return Vector(rows_LD, model.digest, about)


def blocks_of(vector: Vector, layer: int | None = None) -> BlockRows:
    """The rows of a vector by block, or that of one layer. Raises VectorError without that layer.

    Rows that its own file had not are left out.
    """
    held = vector.about.get(HELD)
    numbers = held if isinstance(held, list) else list(range(len(vector.rows_LD)))
    kept = numbers if layer is None else [layer]
    if not kept or not set(kept) <= set(numbers) or max(numbers) >= len(vector.rows_LD):
        raise VectorError(
            f"this vector has rows for layers {', '.join(map(str, numbers))}, and layer {layer} is"
            " asked for; name one that it has with --layer"
        )
    rows = {number: vector.rows_LD[number] for number in kept}
    hint = vector.about.get(layer_rows.MODEL_HINT)
    about = {layer_rows.MODEL_HINT: hint} if isinstance(hint, str) else {}
    return BlockRows(rows, len(vector.rows_LD), about)


def foreign_bytes(vector: Vector, kind: str, path: Path, model: Model | None = None) -> bytes:
    """The content of a vector's file for another tool; see files.file_bytes."""
    files.check_format(kind, "--to")
    target = target_of(model, len(vector.rows_LD))
    return files.file_bytes(blocks_of(vector), kind, path, target)


def target_of(model: Model | None, n_layers: int | None) -> files.Target:
    """What formats say of a model, as far as it is known."""
    if model is None:
        return files.Target(n_layers)
    prefix = f"{model.lm.base_model_prefix}."
    names = [name.removeprefix(prefix) for name in block_names(model)]
    return files.Target(model.n_layers, names, str(model.lm.config.model_type))
