"""Interventions: what makes a teacher out of a base model. Values, not scripts; a condition is a
list of them.

    SystemPrompt  another context                     (rendered, see chat.py)
    Steer         h <- h + a v
    Ablate        h <- h - (h . v^) v^
    ReplaceBase   h <- h + ((h_base - h) . v^) v^     h_base: the model without adapters and edits,
                  in lock-step
    Adapter       a student: low-rank, full weights, or one trained vector
    WeightNoise   W <- W + sd std(W) e                (below students; the base of ReplaceBase has
                  it, too)

They enter a model only through `with applied(model, interventions)`, in list order, and leave it
however the block ends. Modes and names follow Blank et al. (arXiv 2606.00995), section 3 and its
reference code.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from traitscope.errors import ConfigError, VectorError
from traitscope.interventions import full_weights, hooks, lora, multi_lora
from traitscope.interventions.vector import Vector, check_vector, load_vector
from traitscope.models import token_regions
from traitscope.models.model import Model
from traitscope.models.weight_noise import Noise, noised_weights

Scale = Literal["raw", "unit", "residual"]


@dataclass(frozen=True)
class SystemPrompt:
    """The system turn of a prompted teacher."""

    text: str
    "put where the neutral context would stand; empty means an explicitly empty system turn"


@dataclass(frozen=True)
class Steer:
    """Add a vector to the residual stream."""

    vector: str | Vector
    "vector file, or the vector itself"
    layers: tuple[int, ...]
    "blocks whose output is changed; several layers accumulate along the stream"
    alpha: float
    "strength, in units of `scale`"
    position: str = "all"
    "prompt, last, completion or all"
    scale: Scale = "residual"
    """what alpha = 1 means: raw (the row as it is), unit (norm 1), residual (the mean residual norm
    at that layer)"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        hooks.check_position(self.position)
        if self.scale not in get_args(Scale):
            raise ConfigError(
                f"scale {self.scale!r} is unknown; expected one of {', '.join(get_args(Scale))}"
            )
        if not math.isfinite(self.alpha):
            raise ConfigError(f"--alpha {self.alpha}: a finite strength was expected")


@dataclass(frozen=True)
class Ablate:
    """Project a direction out of the residual stream."""

    vector: str | Vector
    layers: tuple[int, ...]
    "blocks whose output is changed"
    position: str = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        hooks.check_position(self.position)


@dataclass(frozen=True)
class ReplaceBase:
    """Give a student the base's component along a direction; the identity on the base itself."""

    vector: str | Vector
    layers: tuple[int, ...]
    position: str = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        hooks.check_position(self.position)


@dataclass(frozen=True)
class Adapter:
    """A trained student of the same base: a peft LoRA folder, or the folder of a fully fine-tuned
    one or of a trained vector.

    A LoRA student can act in part: at some tokens of the prompt, in some linear maps, by some
    singular directions. Keys and values of a token are then made under its own state, as by
    prefilling the prompt in pieces; completions are decoded in the state of the tokens that are not
    chosen (Nief et al., arXiv 2606.00831, dynamic weight grafting).
    """

    folder: str
    where: str = "all"
    "tokens: all, system, user, template, prompt, or text:SUBSTRING (locate.py)"
    cells: str = "all"
    "linear maps: all, or some of attention, mlp, first, second (halves of the blocks), joined by +"
    outside: bool = False
    "everywhere but at those tokens in those maps"
    top: int | None = None
    "singular directions of each map's change that are kept"
    drop: int = 0
    "of the largest, how many are left out"

    def __post_init__(self) -> None:
        token_regions.check(self.where)
        self.share  # noqa: B018 (raises what is wrong)

    @property
    def share(self) -> lora.Share:
        return lora.Share(self.cells, self.outside, self.top, self.drop)

    @property
    def whole(self) -> bool:
        return (self.where, self.share) == ("all", lora.Share())


@dataclass(frozen=True)
class WeightNoise(Noise):
    """Noise on the weights of the model that everything else acts on."""


TRAINED = "vector.safetensors"
"file of a student that is one vector; `trained at` in it is the block"
Intervention = SystemPrompt | Steer | Ablate | ReplaceBase | Adapter | WeightNoise
KINDS = {
    kind.__name__: kind for kind in (SystemPrompt, Steer, Ablate, ReplaceBase, Adapter, WeightNoise)
}


def to_json(intervention: Intervention) -> dict:
    """A JSON object with the kind and the fields; the vector must be a file."""
    if isinstance(getattr(intervention, "vector", None), Vector):
        raise ConfigError(
            f"{type(intervention).__name__} holds a vector in memory; save it and name the file"
            " instead"
        )
    return {"kind": type(intervention).__name__, **json.loads(json.dumps(asdict(intervention)))}


def from_json(data: dict) -> Intervention:
    """The inverse of `to_json`.  Raises ConfigError for an unknown kind or field."""
    fields = dict(data)
    kind = KINDS.get(str(fields.pop("kind", None)))
    if kind is None:
        raise ConfigError(
            f"intervention {data.get('kind')!r} is unknown; expected one of {', '.join(KINDS)}"
        )
    try:
        return kind(**fields)
    except TypeError as error:
        raise ConfigError(f"intervention {data}: {error}") from error


def files_of(interventions: Sequence[Intervention]) -> dict[str, Path]:
    """The files and folders that a list of interventions reads, named, for a run's inputs."""
    found = {}
    for i, item in enumerate(interventions):
        match item:
            case Adapter(folder):
                found[f"intervention{i}"] = Path(folder)
            case Steer(vector=str(path)) | Ablate(vector=str(path)) | ReplaceBase(vector=str(path)):
                found[f"intervention{i}"] = Path(path)
    return found


def context_of(interventions: Sequence[Intervention], neutral: str | None) -> str | None:
    """The context that the teacher reads: the last SystemPrompt, else the neutral one."""
    prompts = [item.text for item in interventions if isinstance(item, SystemPrompt)]
    return prompts[-1] if prompts else neutral


@dataclass
class Active:
    """A model under interventions: passed to every forward pass (traitscope.inference.forward)."""

    roles: hooks.Roles = field(default_factory=hooks.Roles)
    replaced: tuple[int, ...] = ()
    "layers whose base residual is needed in lock-step"
    base: dict[int, Tensor] = field(default_factory=dict)
    "their residuals [B, T, D] in the pass that runs now"
    base_weights: dict[str, Tensor] = field(default_factory=dict)
    "the base's own values of the parameters that a full student replaced"
    switch: lora.Switch | None = None
    "of an adapter that acts at some tokens only"
    pack: multi_lora.Pack | None = None
    "whose rows are whose, where students are packed"
    editing: bool = True
    "false during the base's own pass"


@contextmanager
def applied(model: Model, interventions: Sequence[Intervention]) -> Iterator[Active]:
    """The model under `interventions`; restored at the end of the block, also after an exception.

    Raises ConfigError for more than one Adapter and for a layer the model lacks, VectorError for
    what another model made.
    """
    active = Active()
    adapters = [item for item in interventions if isinstance(item, Adapter)]
    if len(adapters) > 1:
        raise ConfigError(
            f"{len(adapters)} adapters on one model ({', '.join(a.folder for a in adapters)}); one"
            " student at a time"
        )
    noises = [item for item in interventions if isinstance(item, WeightNoise)]
    if len(noises) > 1:
        raise ConfigError(
            f"noise on the weights {len(noises)} times; expected once at most: name the model as"
            " NAME+noise:..."
        )
    with ExitStack() as stack:
        for noise in noises:
            stack.enter_context(full_weights.swapped(model, noised_weights(model.lm, noise)))
        for item in adapters:
            folder = Path(item.folder)
            if (folder / "adapter_config.json").exists():
                active.switch = (
                    None
                    if item.where == "all"
                    else lora.Switch(token_regions.token_gate(model, item.where), item.outside)
                )
                stack.enter_context(lora.mounted(model, folder, item.share, active.switch))
            elif not item.whole:
                raise ConfigError(
                    f"{folder} is no LoRA student, and only one can act in part; leave out where,"
                    " cells, outside, top and drop"
                )
            elif (folder / TRAINED).exists():
                continue  # an edit, see _edits
            elif noises:
                raise ConfigError(
                    f"{folder} holds all weights, so noise below it would not be seen; drop one of"
                    " the two"
                )
            else:
                active.base_weights = stack.enter_context(full_weights.mounted(model, folder))
        edits = [edit for item in interventions for edit in _edits(item, model, active)]
        active.replaced = tuple(
            sorted({n for i in interventions if isinstance(i, ReplaceBase) for n in i.layers})
        )
        stack.enter_context(hooks.edited(model.blocks, edits, active.roles))
        yield active


def _edits(item: Intervention, model: Model, active: Active) -> list[tuple[int, str, hooks.Edit]]:
    if isinstance(item, Adapter):
        file = Path(item.folder) / TRAINED
        return _edits(_trained(file), model, active) if file.exists() else []
    if isinstance(item, SystemPrompt | WeightNoise):
        return []
    if isinstance(item, Steer):
        return [(n, item.position, adding(row_D, active)) for n, row_D in steering(item, model)]
    vector = _checked(item, model)
    unit = torch.from_numpy(vector.unit().rows_LD).to(model.device)
    match item:
        case Ablate():
            return [(n, item.position, _moving(unit[n], None, n, active)) for n in item.layers]
        case ReplaceBase():
            return [
                (n, item.position, _moving(unit[n], active.base, n, active)) for n in item.layers
            ]


def _checked(item: Steer | Ablate | ReplaceBase, model: Model) -> Vector:
    """The vector of an edit. Raises VectorError for another model's, ConfigError for a layer that
    is not there."""
    vector = item.vector if isinstance(item.vector, Vector) else load_vector(Path(item.vector))
    check_vector(vector, model)
    check_layers(item.layers, model)
    return vector


def steering(item: Steer | Adapter, model: Model) -> list[tuple[int, Tensor]]:
    """What steering, or a student that is one vector, adds behind which blocks [D], in float32 on
    the model's device."""
    item = _trained(Path(item.folder) / TRAINED) if isinstance(item, Adapter) else item
    vector = _checked(item, model)
    rows_LD = torch.from_numpy(vector.rows_LD * _strength(item, vector)[:, None]).to(model.device)
    return [(n, rows_LD[n]) for n in item.layers]


def _trained(file: Path) -> Steer:
    """The edit that a student of one vector is."""
    vector = load_vector(file)
    if "trained at" not in vector.about:
        raise VectorError(
            f"{file} was not trained as a student; use it as steer:{file},layers=...,alpha=..."
            " instead"
        )
    return Steer(vector, (vector.about["trained at"],), 1.0, scale="raw")


def _strength(item: Steer, vector: Vector) -> np.ndarray:
    """The factor of each row [L] that makes `alpha` mean what `scale` says."""
    if item.scale == "raw":
        return np.full(len(vector.norms_L), item.alpha)
    target = np.ones_like(vector.norms_L)
    if item.scale == "residual":
        if "residual_norms" not in vector.about:
            raise VectorError(
                "this vector records no residual norms, so scale 'residual' has no meaning; use raw"
                " or unit"
            )
        target = np.asarray(vector.about["residual_norms"])
    return item.alpha * target / np.maximum(vector.norms_L, 1e-12)


def check_layers(layers: tuple[int, ...], model: Model) -> None:
    """Raise ConfigError for a layer that the model lacks, or for none."""
    wrong = [n for n in layers if not 0 <= n < model.n_layers]
    if wrong or not layers:
        raise ConfigError(
            f"--layer {wrong or 'none'}: {model.name} has layers 0 to {model.n_layers - 1}"
        )


def adding(row_D: Tensor, active: Active) -> hooks.Edit:
    """The edit h <- h + row, except in the base's own pass."""

    def edit(hidden_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
        return hidden_BTD + row_D.to(hidden_BTD.dtype) * mask_BT1 if active.editing else hidden_BTD

    return edit


def _moving(
    unit_D: Tensor, base: dict[int, Tensor] | None, layer: int, active: Active
) -> hooks.Edit:
    """Set the component along `unit_D` to that of the base, or to zero where there is no base."""

    def edit(hidden_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
        if not active.editing:
            return hidden_BTD
        target = -hidden_BTD.float() if base is None else base[layer].float() - hidden_BTD.float()
        change = (target @ unit_D).unsqueeze(-1) * unit_D
        return torch.where(mask_BT1, (hidden_BTD.float() + change).to(hidden_BTD.dtype), hidden_BTD)

    return edit
