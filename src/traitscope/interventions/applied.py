"""A model under interventions: `with applied(model, interventions) as active`.

Interventions enter the model in the order of the list, and leave it however the block ends. No edit
of the residual stream acts in the base's own pass, which inference runs first where ReplaceBase
acts.

Shapes: B batch, T tokens of the pass, L layers, D d_model.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from traitscope.config.common import check_strengths
from traitscope.distributed import say
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions import full_weights, hooks, multi_lora, partial_lora, peft_folder
from traitscope.interventions.adapters import changed_weights
from traitscope.interventions.checks.vectors import check_direction, check_held, check_vector
from traitscope.interventions.intervention import (
    TRAINED,
    TRAINED_AT,
    Ablate,
    Adapter,
    DataDirection,
    Intervention,
    Interventions,
    ReplaceBase,
    Steer,
    SystemPrompt,
    WeightNoise,
    as_intervention,
    context_of,
)
from traitscope.interventions.lora import LoraLinear, LoraShape
from traitscope.interventions.partial_lora import TokenSwitch
from traitscope.interventions.pass_state import CurrentPass
from traitscope.interventions.vector import Vector, load_vector
from traitscope.models import token_regions
from traitscope.models.model import Model
from traitscope.models.weight_noise import noised_weights


@dataclass
class Active:
    """A model under interventions; every forward pass of inference takes one.

    `applied` fills it. Only `current` changes with every pass, see pass_state.py.
    """

    model: Model
    "the model that the interventions act on"
    current: CurrentPass = field(default_factory=CurrentPass)
    "what hooks and layers know about the pass that is running"
    replaced: tuple[int, ...] = ()
    "layers at which ReplaceBase needs the base's residuals"
    base_weights: dict[str, Tensor] = field(default_factory=dict)
    "the base's values of the parameters that a full student replaced"
    switch: TokenSwitch | None = None
    "at which tokens a LoRA student acts; None without a student that acts at some tokens only"
    pack: multi_lora.Pack | None = None
    "which rows belong to which packed student; None where none are packed"

    @contextmanager
    def packed(self, folders: Sequence[Path]) -> Iterator[multi_lora.Pack]:
        """Pack the LoRA students of some peft folders on the model until the context ends."""
        with multi_lora.mounted(self.model, folders, self.current) as pack:
            with self._with_pack(pack):
                yield pack

    @contextmanager
    def packed_students(self, shapes: Sequence[LoraShape]) -> Iterator[list[dict[str, LoraLinear]]]:
        """Pack new LoRA students on the model until the context ends.

        Yields each student's layers by linear map. They change no value yet.
        """
        with multi_lora.packed(self.model, shapes, self.current) as (pack, students):
            with self._with_pack(pack):
                yield students

    @contextmanager
    def _with_pack(self, pack: multi_lora.Pack) -> Iterator[None]:
        before = self.pack
        self.pack = pack
        try:
            yield
        finally:
            self.pack = before


@contextmanager
def applied(model: Model, interventions: Interventions) -> Iterator[Active]:
    """The model under interventions; restored when the block ends, also by an exception.

    Several plain LoRA adapters add up. Raises ConfigError for other students beside one another,
    for more than one WeightNoise or SystemPrompt, and for a layer that the model lacks. Raises
    VectorError for a vector or student of another model.
    """
    plain = list(map(as_intervention, interventions))
    context_of(plain, None)  # raises what is wrong
    active = Active(model)
    adapters, noise = _adapters(plain), _only_noise(plain)
    replaced: set[int] = set()
    edits: list[tuple[int, str, hooks.Edit]] = []
    with ExitStack() as stack:
        if noise is not None:
            noisy_weights = noised_weights(model.lm, noise)
            stack.enter_context(full_weights.swapped(model, noisy_weights))
        if len(adapters) == 1:
            _mount(active, adapters[0], noise, stack)
        elif adapters:
            folders = [Path(adapter.folder) for adapter in adapters]
            stack.enter_context(partial_lora.joined(model, folders))
        for item in plain:
            edits += _edits(item, active)
            if isinstance(item, ReplaceBase):
                replaced.update(item.layers)
        active.replaced = tuple(sorted(replaced))
        stack.enter_context(hooks.edited(model.blocks, edits, active.current))
        yield active


def _adapters(interventions: Sequence[Intervention]) -> list[Adapter]:
    """The students among interventions. Raises ConfigError for several that cannot be added up."""
    adapters = [item for item in interventions if isinstance(item, Adapter)]
    folders = [item.folder for item in adapters]
    can_be_added = len(set(folders)) == len(folders) and all(map(_is_whole_lora, adapters))
    if len(adapters) > 1 and not can_be_added:
        raise ConfigError(
            f"{len(folders)} adapters on one model ({', '.join(folders)}); expected one, or plain"
            " LoRA adapters of different folders, each as a whole; leave out all but one"
        )
    return adapters


def _is_whole_lora(adapter: Adapter) -> bool:
    folder = Path(adapter.folder)
    is_adapter = (folder / peft_folder.CONFIG).exists()
    return adapter.whole and is_adapter and peft_folder.is_low_rank(folder)


def _only_noise(interventions: Sequence[Intervention]) -> WeightNoise | None:
    """The weight noise among interventions, if any. Raises ConfigError for more than one."""
    noises = [item for item in interventions if isinstance(item, WeightNoise)]
    if len(noises) > 1:
        raise ConfigError(
            f"noise on the weights {len(noises)} times; expected once at most: name the model as"
            " NAME+noise:..."
        )
    return noises[0] if noises else None


def _mount(active: Active, adapter: Adapter, noise: WeightNoise | None, stack: ExitStack) -> None:
    """Put a LoRA student or a full student on the model until the stack is closed.

    An adapter that is more than low-rank additions is put on as changed weights. A student that is
    one vector is an edit, see `_edits`.
    """
    model, folder = active.model, Path(adapter.folder)
    is_adapter = (folder / peft_folder.CONFIG).exists()
    if is_adapter and peft_folder.is_low_rank(folder):
        current = None
        if adapter.where != "all":
            gate = token_regions.token_gate(model, adapter.where)
            active.switch = TokenSwitch(gate, adapter.outside)
            current = active.current
        stack.enter_context(partial_lora.mounted(model, folder, adapter.part, current))
    elif not adapter.whole:
        raise ConfigError(
            f"{folder} is no plain LoRA student, and only one can act in part; leave out where,"
            " cells, outside, top and drop"
        )
    elif is_adapter:
        contents = peft_folder.read(folder, model)
        active.base_weights = stack.enter_context(changed_weights.mounted(model, contents))
    elif (folder / TRAINED).exists():
        return
    elif noise is not None:
        raise ConfigError(
            f"{folder} holds all weights, so noise below it would not be seen; drop one of the two"
        )
    else:
        active.base_weights = stack.enter_context(full_weights.mounted(model, folder))


def _edits(item: Intervention, active: Active) -> list[tuple[int, str, hooks.Edit]]:
    """The edits of the residual stream that an intervention stands for: (layer, position, edit)."""
    model, current = active.model, active.current
    edits: list[tuple[int, str, hooks.Edit]] = []
    if isinstance(item, Adapter):
        file = Path(item.folder) / TRAINED
        return _edits(_trained(file), active) if file.exists() else []
    if isinstance(item, Steer):
        for layer, row_D in steering(item, model):
            edits.append((layer, item.position, adding(row_D, current)))
    elif isinstance(item, Ablate | ReplaceBase):
        units_LD = torch.from_numpy(checked_vector(item, model).unit().rows_LD).to(model.device)
        for layer in item.layers:
            if isinstance(item, Ablate):
                edit = _removing(units_LD[layer], current)
            else:
                edit = _replacing(units_LD[layer], layer, current)
            edits.append((layer, item.position, edit))
    elif isinstance(item, DataDirection):
        raise ConfigError(
            "data:... is a direction of the rows that a student trains on, which only gradients of"
            " a training lose; expected it in --project-out of train; name a vector here"
        )
    elif not isinstance(item, SystemPrompt | WeightNoise):  # of context_of, and of `applied`
        raise TypeError(f"{type(item).__name__} is no intervention that `applied` knows")
    return edits


def checked_vector(item: Steer | Ablate | ReplaceBase, model: Model) -> Vector:
    """The vector of an edit.

    Raises VectorError for another model's vector, for one that is zero, and for a file's whose row
    is zero at a layer of the edit. A vector in memory may have such rows: those of a teacher that
    is steered are zero below its block. A student that is one vector may be zero as a whole.
    Raises ConfigError for a layer that the model lacks.
    """
    in_memory = isinstance(item.vector, Vector)
    vector = item.vector if isinstance(item.vector, Vector) else load_vector(Path(item.vector))
    vector = check_vector(vector, model, may_be_zero=True)
    check_layers(item.layers, model)
    is_student = in_memory and item.layers == (vector.about.get(TRAINED_AT),)
    if not in_memory:
        check_direction(vector, str(item.vector), item.layers)
    elif not is_student:
        check_held(vector, item.layers)
        check_direction(vector)
    return vector


def steering(item: Steer | Adapter, model: Model) -> list[tuple[int, Tensor]]:
    """What an intervention adds to the residual stream: (layer, row [D] in float32) pairs.

    The intervention steers, or is a student that is one vector. The rows are on the model's device.
    """
    is_student = isinstance(item, Adapter)
    if isinstance(item, Adapter):
        item = _trained(Path(item.folder) / TRAINED)
    vector = checked_vector(item, model)
    factors_L1 = _row_factors(vector, item.alpha, item.scale)[:, None]
    scaled_LD = vector.rows_LD * factors_L1
    if not is_student:
        _check_added(item, vector, scaled_LD)
    rows_LD = torch.from_numpy(scaled_LD).to(model.device)
    return [(layer, rows_LD[layer]) for layer in item.layers]


def _check_added(item: Steer, vector: Vector, rows_LD: np.ndarray) -> None:
    """Raise ConfigError for a row that is too long to be meant, where the vector says how long
    residuals are."""
    if "residual_norms" not in vector.about:
        return
    for layer in item.layers:
        norm = float(vector.residual_norms_L[layer])
        if norm > 0:
            added = float(np.linalg.norm(rows_LD[layer].astype(np.float64))) / norm
            what = f"alpha {item.alpha:g} at layer {layer} adds, in mean residual norms,"
            check_strengths(what, added)


def _trained(file: Path) -> Steer:
    """The steering that a student of one vector does."""
    vector = load_vector(file)
    layer = vector.about.get(TRAINED_AT)
    if type(layer) is not int:
        raise VectorError(
            f"{file} was not trained as a student: {TRAINED_AT} is {layer!r}, expected a layer; use"
            f" it as steer:{file},layers=...,alpha=... instead"
        )
    if not vector.rows_LD.any():
        say(
            f"{file} changes nothing: the trained vector is zero; expected a trained student; train"
            " it, or name another one, unless it is meant as a control"
        )
    return Steer(vector, layer=layer, alpha=1.0, scale="raw")


def check_layers(layers: tuple[int, ...], model: Model) -> None:
    """Raise ConfigError for a layer that the model lacks, and for no layer."""
    wrong = [layer for layer in layers if not 0 <= layer < model.n_layers]
    if wrong or not layers:
        raise ConfigError(
            f"layer {wrong or 'none'} of an intervention: {model.name} has layers 0 to"
            f" {model.n_layers - 1}; name one of these"
        )


def _row_factors(vector: Vector, alpha: float, scale: str) -> np.ndarray:
    """The factor [L] of each row of a vector that makes `alpha` mean what `scale` says.

        raw        `alpha` times the row
        unit       a row of norm `alpha`
        residual   a row with `alpha` times the mean norm of the residual stream at that layer

    Raises VectorError for the scale residual where the vector records no such norms.
    """
    if scale == "raw":
        return np.full(len(vector.norms_L), alpha)
    target_L = np.ones_like(vector.norms_L)
    if scale == "residual":
        target_L = vector.residual_norms_L
    return alpha * target_L / np.maximum(vector.norms_L, 1e-12)


def adding(row_D: Tensor, current: CurrentPass) -> hooks.Edit:
    """The edit h <- h + row."""

    def edit(hidden_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
        if current.state.is_base:
            return hidden_BTD
        return hidden_BTD + row_D.to(hidden_BTD.dtype) * mask_BT1

    return edit


def _removing(unit_D: Tensor, current: CurrentPass) -> hooks.Edit:
    """The edit h <- h - (h . unit) unit."""

    def edit(hidden_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
        if current.state.is_base:
            return hidden_BTD
        return _moved(hidden_BTD, -hidden_BTD.float(), unit_D, mask_BT1)

    return edit


def _replacing(unit_D: Tensor, layer: int, current: CurrentPass) -> hooks.Edit:
    """The edit h <- h + ((h_base - h) . unit) unit, with the base's h of the same pass."""

    def edit(hidden_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
        if current.state.is_base:
            return hidden_BTD
        difference_BTD = current.state.base_hidden[layer].float() - hidden_BTD.float()
        return _moved(hidden_BTD, difference_BTD, unit_D, mask_BT1)

    return edit


def _moved(hidden_BTD: Tensor, difference_BTD: Tensor, unit_D: Tensor, mask_BT1: Tensor) -> Tensor:
    """Hidden states, moved along `unit` by the component of a difference, at the masked tokens."""
    change_BTD = (difference_BTD @ unit_D).unsqueeze(-1) * unit_D
    moved_BTD = (hidden_BTD.float() + change_BTD).to(hidden_BTD.dtype)
    return torch.where(mask_BT1, moved_BTD, hidden_BTD)
