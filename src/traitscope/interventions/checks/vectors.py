"""Checks of a vector before it is used: whose it is, and whether it has a direction.

A row of zeros steers nothing, ablates nothing, and has a cosine of 0 with everything. So a control
at strength 0 takes a real vector, and a vector of zeros is refused. What is measured of a student
may be zero: it says that the student is its base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from traitscope.errors import VectorError
from traitscope.interventions.vector import HELD, Vector
from traitscope.models.identity.finding import DIGEST

if TYPE_CHECKING:
    from traitscope.models.model import Model

THIS = "this vector"
"what messages call a vector that lies in no file"
LEAST_NORM = 1e-12
"a row with a smaller norm has no direction; Vector.unit divides by no smaller one"


def check_vector(
    vector: Vector, model: Model, name: str = THIS, may_be_zero: bool = False
) -> Vector:
    """The vector, with the digest that its model has now.

    The vector may know the model by the digest of an earlier version, or of the model that it is a
    copy of. `name` is its file, for messages. Raises VectorError for another model's vector, and
    for one whose rows are all zero unless it may be so.
    """
    if not model.is_called(vector.model):
        raise of_another_model(vector, model.name, model.digest)
    if vector.rows_LD.shape != (model.n_layers, model.d_model):
        raise VectorError(
            f"vector of shape {vector.rows_LD.shape}, but {model.name} has {model.n_layers} layers"
            f" of {model.d_model}; extract it again on this model"
        )
    if not may_be_zero:
        check_direction(vector, name)
    return vector if vector.model == model.digest else replace(vector, model=model.digest)


def of_another_model(vector: Vector, name: str, digest: str) -> VectorError:
    """The error for a vector that is not one of the model `name`."""
    vouch = ""
    if DIGEST.fullmatch(vector.model):
        vouch = f", or vouch that {name} is a copy of it: --same-as {vector.model}"
    return VectorError(
        f"vector of model {vector.model}, but {name} has digest {digest}; name that model, or"
        f" extract it again on this one{vouch}"
    )


def check_vectors(vectors: Mapping[str, Vector], model: Model) -> dict[str, Vector]:
    """The same for vectors by name."""
    return {name: check_vector(vector, model, f"vector {name}") for name, vector in vectors.items()}


def check_direction(vector: Vector, name: str = THIS, layers: Sequence[int] = ()) -> None:
    """Raise VectorError for a vector whose rows are all zero, or zero at one of some layers.

    Layers that the vector has not are left to `applied.check_layers`.
    """
    norms_L = np.linalg.norm(vector.rows_LD.astype(np.float64), axis=1)
    zero_L = norms_L < LEAST_NORM
    if zero_L.all():
        raise VectorError(
            f"{name} has no direction: its {len(zero_L)} rows are all zero; expected rows that are"
            " not; extract it again, and take strength 0 of a real vector as a control"
        )
    check_held(vector, layers)
    without = [layer for layer in layers if 0 <= layer < len(zero_L) and zero_L[layer]]
    if without:
        filled = ", ".join(map(str, np.flatnonzero(~zero_L)))
        raise VectorError(
            f"{name} has no direction at layer {', '.join(map(str, without))}: the row there is"
            f" zero; expected one that is not; name one of the layers {filled}, or extract it again"
        )


def check_held(vector: Vector, layers: Sequence[int]) -> None:
    """Raise VectorError for a layer that the file of another tool had no row for."""
    held = vector.about.get(HELD)
    if not isinstance(held, list):
        return
    without = [layer for layer in layers if layer not in held]
    if without:
        raise VectorError(
            f"this vector has no row for layer {', '.join(map(str, without))}: the file that it was"
            f" converted from has rows for {', '.join(map(str, held))}; name one of these layers"
        )
