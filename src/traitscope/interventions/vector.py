"""A vector: one float32 row for each layer, with its provenance.

Row l belongs to the residual stream leaving block l. A vector file is safetensors with JSON
metadata, never pickle. A vector records the digest of the model that it was taken from, and refuses
any other model.

Shapes: L layers, D d_model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from traitscope import array_files, atomic_files
from traitscope.errors import VectorError
from traitscope.plain_values import NotPlainError, from_json

if TYPE_CHECKING:
    from traitscope.models.model import Model

FORMAT = 1
"version of the file format"
COMMON = "common/mean"
"""name, in a run of `extract`, of the mean of the vectors of its traits, which was subtracted from
each of them"""
CENTRED_OVER = "centred_over"
"key of provenance: the vectors, itself among them, whose mean was subtracted from it"
HELD = "held_blocks"
"key of provenance: the blocks that a file of another tool had rows for; the other rows are zero"
DEEPEST = 200
"levels of provenance that are read; every operation on a vector adds one or two"
LARGEST_NORM = 1e30
"largest norm that float32 rows are scaled to"

CONVERT = "traitscope convert {} vector.safetensors --model MODEL"
"the command that makes a vector file from another tool's"

FORMER_KEYS = (
    "centred over",
    "mean of",
    "minus control",
    "random with norms of",
    "share of variance",
    "trained at",
    "trained to stand in",
    "unit of",
)
"""keys of provenance as earlier versions wrote them, with spaces in place of underscores"""


@dataclass(frozen=True, eq=False)
class Vector:
    """float32 rows by layer, and their provenance.

    Raises VectorError for rows that are not finite or not two-dimensional, and for provenance that
    is no dictionary.
    """

    rows_LD: np.ndarray
    "[L, D]; row l is added to or compared with the residual stream leaving block l"
    model: str
    "digest of the model that the vector was taken from"
    about: dict[str, Any] = field(default_factory=dict)
    "how the vector was made: prompts, contexts, position; JSON values only"

    def __post_init__(self) -> None:
        rows = np.asarray(self.rows_LD, dtype=np.float32)
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise VectorError(
                f"a vector needs finite rows [layers, d_model], found shape {rows.shape} with"
                f" {int((~np.isfinite(rows)).sum())} values that are not finite; correct the rows"
            )
        if not isinstance(self.about, dict):
            raise VectorError(
                f"what a vector says about itself is a {type(self.about).__name__}; expected values"
                " by name; give a dictionary"
            )
        object.__setattr__(self, "rows_LD", rows)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: Model | None = None,
        *,
        format: str = "",
        layers_are: str = "",
        layer: int | None = None,
    ) -> Vector:
        """The vector in a file of Traitscope, or in one of another tool.

        A file of another tool needs the model that it was made for. `format` names the tool where
        the file does not tell. `layers_are` is blocks or hidden-states, where the format does not
        tell. `layer` is the block of a file with one row (docs/how-to/others-vectors.md).

        Raises VectorError for a file that is missing, damaged or of another model. Raises
        ConfigError where a setting is missing.
        """
        from traitscope.interventions.checks.vectors import check_vector
        from traitscope.interventions.foreign import conversion, files

        if model is None and not (format or layers_are or layer is not None):
            return load_vector(Path(path))
        if format in ("", files.OWN) and files.is_own(Path(path)):
            vector = load_vector(Path(path))
            return vector if model is None else check_vector(vector, model, may_be_zero=True)
        return conversion.foreign_vector(Path(path), model, format, layers_are, layer)

    def save(
        self, path: str | Path, *, format: str = "traitscope", model: Model | None = None
    ) -> None:
        """Write the vector into a file, from which `load` reads it.

        `format` names another tool that is to read the file; lm-eval also needs the model. Raises
        StoreError, and VectorError where its format has no place for the vector.
        """
        from traitscope.interventions.foreign import conversion

        data = vector_bytes(self)
        if format != "traitscope":
            data = conversion.foreign_bytes(self, format, Path(path), model)
        atomic_files.write_bytes(Path(path), data)

    def __add__(self, other: Vector) -> Vector:
        return self._combined(self.rows_LD + self._matching(other), "+", other)

    def __sub__(self, other: Vector) -> Vector:
        return self._combined(self.rows_LD - self._matching(other), "-", other)

    def __mul__(self, factor: float) -> Vector:
        return replace(
            self,
            rows_LD=self.rows_LD * np.float32(factor),
            about=self._derived({"times": factor, "of": self.about}),
        )

    __rmul__ = __mul__

    def __neg__(self) -> Vector:
        return self * -1.0

    @property
    def norms_L(self) -> np.ndarray:
        """Euclidean norm of each row [L]."""
        return np.linalg.norm(self.rows_LD, axis=1)

    @property
    def residual_norms_L(self) -> np.ndarray:
        """Mean norm of the residual stream at each layer [L], which the vector records.

        Raises VectorError where it records none, or anything else than a number for each layer.
        """
        norms = self.about.get("residual_norms")
        if norms is None:
            raise VectorError(
                "this vector records no residual norms, so a strength of scale 'residual' has no"
                " meaning; expected norms, which files of other tools lack; steer with scale=raw or"
                " scale=unit, or extract it again"
            )
        is_list = isinstance(norms, list) and len(norms) == len(self.rows_LD)
        if not is_list or not all(map(_is_norm, norms)):
            raise VectorError(
                f"residual_norms of this vector is {str(norms)[:80]}; expected"
                f" {len(self.rows_LD)} numbers of 0 or more, one a layer; extract it again"
            )
        return np.array(norms, dtype=np.float64)

    def unit(self) -> Vector:
        """Each row at norm 1; a zero row stays zero."""
        norms = np.maximum(self.norms_L, 1e-12)[:, None]
        return replace(
            self, rows_LD=self.rows_LD / norms, about=self._derived({"unit_of": self.about})
        )

    def cosine(self, other: Vector) -> np.ndarray:
        """Cosine with another vector at each layer [L]; 0 where a row is zero."""
        products = (self.rows_LD.astype(np.float64) * self._matching(other)).sum(1)
        norms = self.norms_L.astype(np.float64) * other.norms_L
        return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)

    def project_out(self, other: Vector) -> Vector:
        """This vector without its component along `other`, at each layer.

        Raises VectorError for a vector of another model.
        """
        self._matching(other)
        unit_LD = other.unit().rows_LD
        component_LD = (self.rows_LD * unit_LD).sum(1, keepdims=True) * unit_LD
        return self._combined(self.rows_LD - component_LD, "without", other)

    def _matching(self, other: Vector) -> np.ndarray:
        if other.model != self.model or other.rows_LD.shape != self.rows_LD.shape:
            raise VectorError(
                f"two vectors of different models: {self.model} {self.rows_LD.shape} and "
                f"{other.model} {other.rows_LD.shape}; take both from one model"
            )
        return other.rows_LD

    def _combined(self, rows: np.ndarray, sign: str, other: Vector) -> Vector:
        about = {"left": self.about, "operation": sign, "right": other.about}
        return replace(self, rows_LD=rows, about=self._derived(about))

    def _derived(self, about: dict[str, Any]) -> dict[str, Any]:
        """`about` of a vector made from this one.

        The residual norms stay, because they belong to the model. So do the blocks that a file of
        another tool had rows for.
        """
        kept = {key: self.about[key] for key in ("residual_norms", HELD) if key in self.about}
        return {**about, **kept}


def _is_norm(value: Any) -> bool:
    """Whether a value of provenance is a finite number of 0 or more."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 <= value <= LARGEST_NORM


def mean(vectors: list[Vector]) -> Vector:
    """The mean of vectors of one model."""
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    about = total._derived({"mean_of": [vector.about for vector in vectors]})
    return replace(total, rows_LD=total.rows_LD / len(vectors), about=about)


def centred(vectors: dict[str, Vector]) -> dict[str, Vector]:
    """Each vector minus the mean of all vectors, by name.

    This leaves the trait and removes the form of the prompt. One axis explains about 99 % of the
    variance across animal prompts (independent replication of arXiv 2606.00995). Centring is the
    variant in appendix F.2 of that paper. Raises VectorError for fewer than two vectors.
    """
    if len(vectors) < 2:
        raise VectorError(
            f"centring needs at least two traits, found {len(vectors)}: name others to compare with"
        )
    middle = mean(list(vectors.values()))
    result: dict[str, Vector] = {}
    for name, vector in vectors.items():
        about = {**vector.about, CENTRED_OVER: sorted(vectors)}
        result[name] = replace(vector - middle, about=about)
    return result


def random_like(vector: Vector, seed: int) -> Vector:
    """A vector of Gaussian rows with the norms of `vector`, as the control for its direction."""
    rows = np.random.default_rng([seed, vector.rows_LD.size]).standard_normal(vector.rows_LD.shape)
    rows *= (vector.norms_L / np.linalg.norm(rows, axis=1))[:, None]
    about = vector._derived({"random_with_norms_of": vector.about, "seed": seed})
    return replace(vector, rows_LD=rows, about=about)


def vector_bytes(vector: Vector) -> bytes:
    """The content of a vector's file; the same bytes for the same vector."""
    from safetensors.numpy import save

    metadata = {
        "format": str(FORMAT),
        "model": vector.model,
        "about": json.dumps(vector.about, sort_keys=True),
    }
    return array_files.with_sorted_header(save({"rows": vector.rows_LD}, metadata=metadata))


def load_vector(path: Path) -> Vector:
    """The vector in a file. Raises VectorError where it is missing, damaged or newer."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise VectorError(f"no vector file at {path}; make one with: traitscope extract")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        tensors = array_files.read_rows(path)
        if "rows" not in tensors:
            raise ValueError(f"it has no tensor rows, found {', '.join(tensors) or 'none'}")
    except array_files.NotFiniteError as error:
        raise VectorError(
            f"{path}: {error}; expected finite numbers; extract the vector again, or make it again"
            " with its own tool"
        ) from None
    except (SafetensorError, ValueError, OSError) as error:
        reason = error if path.suffix == ".safetensors" else "it is no .safetensors file"
        raise VectorError(
            f"{path} is no vector file of this package: {reason}; make one with: traitscope"
            f" extract, or from another tool's with: {CONVERT.format(path)}"
        ) from error
    if not {"format", "model", "about"} <= metadata.keys():
        raise VectorError(
            f"{path} is no vector file of this package: it has no metadata on format, model and"
            f" origin; convert it with: {CONVERT.format(path)}"
        )
    if metadata["format"] != str(FORMAT):
        raise VectorError(
            f"{path}: vector format {metadata['format'][:20]}, expected {FORMAT}; upgrade"
            " traitscope"
        )
    try:
        about = _with_present_keys(from_json(metadata["about"]))
    except NotPlainError as error:
        raise VectorError(
            f"{path}: what the file says about its vector is no JSON: {error}; extract it again"
        ) from None
    rows_LD = tensors["rows"]
    try:
        return Vector(rows_LD, metadata["model"], about)
    except VectorError as error:
        raise VectorError(f"{path}: {error}") from None


def _with_present_keys(about: Any, depth: int = 0) -> Any:
    """Provenance from a file, with the keys of earlier versions replaced by the present ones.

    Raises NotPlainError for values that are nested deeper than provenance ever is.
    """
    if depth > DEEPEST:
        raise NotPlainError("it is nested too deep")
    if isinstance(about, list):
        return [_with_present_keys(value, depth + 1) for value in about]
    if not isinstance(about, dict):
        return about
    renamed = {}
    for key, value in about.items():
        present = key.replace(" ", "_") if key in FORMER_KEYS else key
        renamed[present] = _with_present_keys(value, depth + 1)
    return renamed


def load_vectors(folder: Path, trait: str) -> dict[str, Vector]:
    """The vectors of an extract run by name, COMMON among them where they are centred."""
    vectors = {}
    for path in sorted(folder.glob("*.safetensors")):
        vectors[path.stem] = load_vector(path)
    if trait not in vectors:
        held = ", ".join(vectors) or "none"
        raise VectorError(
            f"{folder} holds no vector of {trait} (found: {held}); run: traitscope extract --traits"
            f" {trait} ..."
        )
    common = folder / f"{COMMON}.safetensors"
    if common.is_file():
        vectors[COMMON] = load_vector(common)
    return vectors
