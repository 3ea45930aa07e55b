"""The types of interventions, which make a teacher or a student out of a base model.

They are values, not scripts. A condition of an experiment is a list of them.

    SystemPrompt  another context                     (rendered, see chat.py)
    Steer         h <- h + a v
    Ablate        h <- h - (h . v^) v^
    ReplaceBase   h <- h + ((h_base - h) . v^) v^     h_base: the base's h at the same token
    Adapter       a student: low-rank, full weights, or one trained vector
    WeightNoise   W <- W + sd std(W) e                noise below everything else
    DataDirection g <- g - (g . d^) d^                of gradients; d: from a training's rows

The base of ReplaceBase is the model without adapters and edits, but with WeightNoise. Interventions
enter a model through `with applied(model, interventions)`, see applied.py. Modes and names follow
Blank et al. (arXiv 2606.00995), section 3 and its reference code.
"""

import inspect
import json
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from traitscope.config import common
from traitscope.config.common import check_position
from traitscope.errors import ConfigError
from traitscope.interventions.checks.prompts import check_one_prompt
from traitscope.interventions.vector import Vector
from traitscope.models import chat, token_regions
from traitscope.models.weight_noise import Noise

Scale = Literal["raw", "unit", "residual"]


@dataclass(frozen=True)
class SystemPrompt:
    """The system turn of a prompted teacher."""

    text: str
    "stands where the neutral context would stand; empty means an explicitly empty system turn"

    def __post_init__(self) -> None:
        _check_type("SystemPrompt", "text", self.text, str)


@dataclass(frozen=True, init=False)
class _AlongVector:
    """An edit of the residual stream along a vector, at some layers."""

    vector: str | Vector
    "path of a vector file, or the vector itself"
    layers: tuple[int, ...]
    "blocks whose outputs are changed"

    def __init__(
        self, vector: str | Path | Vector, layers: Sequence[int] | None, layer: int | None
    ) -> None:
        kind = type(self).__name__
        path_or_vector = str(vector) if isinstance(vector, Path) else vector
        _check_type(kind, "vector", path_or_vector, str, Vector)
        self._set(vector=path_or_vector, layers=_layers_of(kind, layers, layer))

    def _set(self, **values: Any) -> None:
        """Set fields, which only the constructor of a frozen dataclass may do."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _layers_of(kind: str, layers: Sequence[int] | None, layer: int | None) -> tuple[int, ...]:
    """Layers in ascending order, from the arguments `layers` and `layer`, of which one must be
    given.

    Raises ConfigError for a layer that stands there twice: it would be steered twice as far.
    """
    if (layers is None) == (layer is None):
        given = "neither" if layers is None else "both"
        raise ConfigError(
            f"{kind} takes one of layer=14 and layers=(14, 15), found {given}; give one of them"
        )
    if layer is not None:
        layers = (layer,)
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise ConfigError(f"{kind}: layers {layers!r} is no sequence; write layers=(14,)")
    try:
        several = tuple(sorted(map(operator.index, layers)))
    except TypeError:
        raise ConfigError(
            f"{kind}: layers {layers!r}: whole numbers were expected; write layers=(14,)"
        ) from None
    if len(set(several)) < len(several):
        raise ConfigError(
            f"{kind}: layers {'+'.join(map(str, several))}; expected each once, because an edit"
            " acts once behind a block; drop the copies"
        )
    return several


def _check_type(kind: str, field: str, value: object, *expected: type) -> None:
    """Raise ConfigError for a value that has none of the expected types."""
    if type(value) not in expected:
        names = " or ".join(wanted.__name__ for wanted in expected)
        raise ConfigError(f"{kind}: {field} is {value!r}; expected {names}; give one")


@dataclass(frozen=True, init=False)
class Steer(_AlongVector):
    """Add a vector to the residual stream; with several layers the additions accumulate.

        h <- h + a v        at the tokens of `position`, behind each of the layers

    v is the vector's row of that layer; `scale` says what a = alpha means. Steer(vector, layer=14,
    alpha=0.6) and Steer(vector, layers=(14,), alpha=0.6) are equal.

    Raises ConfigError for neither or both of `layer` and `layers`, and for an unknown position or
    scale. Also for a strength that is not finite or over 1000 mean residual norms. Where it is
    applied, raises VectorError for another model's vector, ConfigError for a layer that is none.
    """

    alpha: float
    "strength, in units of `scale`"
    position: str = "all"
    "prompt, last, completion or all"
    scale: Scale = "residual"
    """what alpha = 1 means: raw (the row as it is), unit (norm 1), residual (the mean residual norm
    at that layer)"""

    def __init__(
        self,
        vector: str | Path | Vector,
        layers: Sequence[int] | None = None,
        alpha: float | None = None,
        position: str = "all",
        scale: Scale = "residual",
        *,
        layer: int | None = None,
    ) -> None:
        super().__init__(vector, layers, layer)
        check_position(position)
        if scale not in get_args(Scale):
            raise ConfigError(
                f"scale {scale!r} is unknown; expected one of {', '.join(get_args(Scale))}; name"
                " one, or leave it out for residual"
            )
        if alpha is None:
            raise ConfigError("Steer needs a strength, found none; add one, such as alpha=0.6")
        in_norms = scale == "residual"
        largest = common.LARGEST_STRENGTH if in_norms else common.LARGEST_FACTOR
        common.check_strengths("--alpha", alpha, largest=largest)
        self._set(alpha=alpha, position=position, scale=scale)


@dataclass(frozen=True, init=False)
class Ablate(_AlongVector):
    """Project a direction out of the residual stream.

        h <- h - (h . u) u        at the tokens of `position`, behind each of the layers

    u is the vector's row of that layer at norm 1 (Arditi et al. 2024, arXiv 2406.11717).

    Raises ConfigError for neither or both of `layer` and `layers`, and for an unknown position.
    Where it is applied, raises VectorError for a vector of another model, ConfigError for a layer
    that the model lacks.
    """

    position: str = "all"
    "prompt, last, completion or all"

    def __init__(
        self,
        vector: str | Path | Vector,
        layers: Sequence[int] | None = None,
        position: str = "all",
        *,
        layer: int | None = None,
    ) -> None:
        super().__init__(vector, layers, layer)
        check_position(position)
        self._set(position=position)


@dataclass(frozen=True, init=False)
class ReplaceBase(_AlongVector):
    """Give a student the base's component along a direction; changes nothing on the base itself.

        h <- h + ((h_base - h) . u) u        at the tokens of `position`, behind each of the layers

    u is the vector's row of that layer at norm 1. h_base is the base's residual at the same token.
    The base is the model without adapters and edits, but with weight noise (Blank et al. 2026,
    arXiv 2606.00995, section 3).

    Raises ConfigError for neither or both of `layer` and `layers`, and for an unknown position.
    Where it is applied, raises VectorError for a vector of another model, ConfigError for a layer
    that the model lacks.
    """

    position: str = "all"
    "prompt, last, completion or all"

    def __init__(
        self,
        vector: str | Path | Vector,
        layers: Sequence[int] | None = None,
        position: str = "all",
        *,
        layer: int | None = None,
    ) -> None:
        super().__init__(vector, layers, layer)
        check_position(position)
        self._set(position=position)


@dataclass(frozen=True)
class AdapterPart:
    """A part of a LoRA student; by default the whole."""

    maps: str = "all"
    "chosen linear maps, see linear_maps.selected_linear_names"
    outside: bool = False
    "act in all but the chosen maps; for a student at some tokens: in all maps but at those tokens"
    top: int | None = None
    "number of the largest singular directions of each map's change to keep; None keeps all"
    drop: int = 0
    "number of the largest singular directions to leave out, counted among those of `top`"

    def __post_init__(self) -> None:
        keeps_none = self.top is not None and self.top <= self.drop
        if self.drop < 0 or keeps_none:
            raise ConfigError(
                f"top={self.top} and drop={self.drop} leave no singular direction; expected 0 <="
                " drop < top; raise top or lower drop"
            )


@dataclass(frozen=True)
class Adapter:
    """A trained student of the same base.

    The folder is a peft LoRA folder, that of a fully fine-tuned student, or that of a trained
    vector. A LoRA student can act in part: at some tokens of the prompt, in some linear maps, by
    some singular directions. Keys and values of a token are then computed in the token's own state,
    as if the prompt were prefilled in pieces. Completions are decoded in the state of the tokens
    that are not chosen (Nief et al., arXiv 2606.00831, dynamic weight grafting).
    """

    folder: str
    "folder of the student"
    where: str = "all"
    "tokens: all, system, user, template, prompt, or text:SUBSTRING (token_regions.py)"
    cells: str = "all"
    "linear maps: all, or some of attention, mlp, first, second (halves of the blocks), joined by +"
    outside: bool = False
    "act everywhere but at those tokens in those maps"
    top: int | None = None
    "number of the largest singular directions of each map's change to keep; None keeps all"
    drop: int = 0
    "number of the largest singular directions to leave out"

    def __post_init__(self) -> None:
        if isinstance(self.folder, Path):
            object.__setattr__(self, "folder", str(self.folder))
        for field in ("folder", "where", "cells"):
            _check_type("Adapter", field, getattr(self, field), str)
        token_regions.check(self.where)
        AdapterPart(self.cells, self.outside, self.top, self.drop)  # raises what is wrong

    @property
    def part(self) -> AdapterPart:
        """The part of the student that acts, apart from the tokens."""
        return AdapterPart(self.cells, self.outside, self.top, self.drop)

    @property
    def whole(self) -> bool:
        """Whether the student acts with all that it has, at all tokens."""
        return self.where == "all" and self.part == AdapterPart()


@dataclass(frozen=True)
class WeightNoise(Noise):
    """Noise on the weights of the model that everything else acts on.

        W <- W + sd std(W) e        e standard normal, for every weight matrix in the scope

    Norms and biases stay. The seed and the name of a matrix determine its noise, on every device.
    Source: Hadley and Gultepe, arXiv 2608.05734.

    Raises ConfigError for an sd below 0 or above 1e6, a seed below 0, and an unknown scope or none.
    A model takes one WeightNoise, and none below a student that holds all weights.
    """


@dataclass(frozen=True, init=False)
class DataDirection:
    """The direction in which the rows of a training move the base, which gradients are to lose.

        d_l = mean over rows of (g_l(control row) - g_l(row))

    g_l is the steering gradient behind block l (inference/steering_gradients.py), at the base. The
    control rows are the base's own answers to the same prompts. `--project-out` of `train` alone
    takes this: it computes d from its rows, and then acts as Ablate does on gradients.

    Raises ConfigError for neither or both of `layer` and `layers`, for an unknown position, and for
    a seed below 0.
    """

    layers: tuple[int, ...]
    "blocks behind which gradients lose the direction"
    position: str = "all"
    "tokens that steering gradients are summed over, and whose gradients lose the direction"
    random: int | None = None
    "seed of a random direction with the norms of d, as the control; None takes d itself"

    def __init__(
        self,
        layers: Sequence[int] | None = None,
        position: str = "all",
        random: int | None = None,
        *,
        layer: int | None = None,
    ) -> None:
        check_position(position)
        is_seed = random is None or (type(random) is int and random >= 0)
        if not is_seed:
            raise ConfigError(
                f"DataDirection: random is {random!r}; expected a seed, a whole number of 0 or"
                " more; give one"
            )
        values = {"layers": _layers_of("DataDirection", layers, layer), "position": position}
        for name, value in (values | {"random": random}).items():
            object.__setattr__(self, name, value)


FULL_WEIGHTS = "weights.safetensors"
"file with the weights of a fully fine-tuned student"
TRAINED = "vector.safetensors"
"file of a student that is one vector"
TRAINED_AT = "trained_at"
"key of such a vector's provenance: the block"
Intervention = SystemPrompt | Steer | Ablate | ReplaceBase | Adapter | WeightNoise | DataDirection
KINDS: dict[str, type] = {kind.__name__: kind for kind in get_args(Intervention)}
"every kind of intervention, by the name that it has in JSON"


def to_json(intervention: Intervention) -> dict[str, Any]:
    """A JSON object with the kind and the fields.

    Raises ConfigError for a vector in memory, which no file can name.
    """
    kind = type(intervention).__name__
    if isinstance(intervention, _AlongVector) and isinstance(intervention.vector, Vector):
        raise ConfigError(
            f"{kind} holds a vector in memory, which a config file cannot name; save it with"
            f" vector.save(path), and name the file: {kind}(path, ...)"
        )
    fields = json.loads(json.dumps(asdict(intervention)))
    return {"kind": kind, **fields}


def from_json(data: dict[str, Any]) -> Intervention:
    """The inverse of `to_json`. Raises ConfigError for an unknown kind or field."""
    fields = dict(data)
    kind = KINDS.get(str(fields.pop("kind", None)))
    if kind is None:
        raise ConfigError(
            f"intervention {data.get('kind')!r} is unknown; expected one of {', '.join(KINDS)};"
            " name one as its kind"
        )
    try:
        return kind(**fields)
    except TypeError as error:
        fields_of_kind = ", ".join(inspect.signature(kind).parameters)
        raise ConfigError(
            f"intervention {data}: {error}; expected values for {fields_of_kind}; correct it"
        ) from error


def context_of(interventions: Sequence[Intervention], neutral: str | None) -> str | None:
    """The context that the teacher reads: its prompt's or the neutral one. ConfigError for two."""
    texts = [item.text for item in interventions if isinstance(item, SystemPrompt)]
    check_one_prompt(texts)
    return chat.taught(neutral, texts[0]) if texts else neutral


class HasIntervention(Protocol):
    """What stands for an intervention in a list of them, such as a student in memory."""

    def intervention(self) -> Intervention:
        """The intervention that it stands for."""


Interventions = Sequence[Intervention | HasIntervention]
"what a function that takes interventions accepts"


def as_intervention(item: Intervention | HasIntervention) -> Intervention:
    """An intervention itself, or the one that an object stands for."""
    return item.intervention() if hasattr(item, "intervention") else item
