"""The stage `export`: a model under interventions as an ordinary checkpoint.

vLLM, SGLang, Ollama and other servers can load the checkpoint.

    Steer at every token     a bias on the map that leaves the block's MLP: h_l + a v, exactly
    a LoRA student           W + s B A
    a full student, noise    its weights
    an ablation              maps that write nothing along a direction (weights/undo.py)

Which maps these are, and how a family without biases on its MLPs is written, is known to
models/checkpoints.py. Where something stands between the MLP and the residual stream, such as
Gemma's norms, no bias is the vector. The written model is compared with the hooked one before the
run is sealed.

Shapes: B rows, T tokens, N tokens of all rows, V vocabulary, D d_model.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.stages import ExportConfig
from traitscope.data.prompts import number_prompts
from traitscope.errors import ConfigError, ModelError
from traitscope.inference import forward, residuals
from traitscope.interventions import full_weights, intervention, peft_folder, short_form
from traitscope.interventions.adapters import changed_weights
from traitscope.interventions.applied import applied, steering
from traitscope.interventions.intervention import (
    Ablate,
    Adapter,
    Intervention,
    Steer,
    SystemPrompt,
    WeightNoise,
)
from traitscope.interventions.vector import Vector
from traitscope.interventions.weights import undo
from traitscope.interventions.weights.undo import Ablation
from traitscope.models import chat, checkpoints, nf4
from traitscope.models.model import Model
from traitscope.models.weight_noise import noised_weights
from traitscope.runs import model_cache, opening, store
from traitscope.stages import registry

CLOSE = {torch.float32: 0.01, torch.bfloat16: 0.3}
"Largest difference of a log-probability from the hooked model that is allowed, nats."
ALONG = {torch.float32: 1e-4, torch.bfloat16: 0.02}
"Largest part of a residual that a block may write along a direction taken out of it."


@dataclass(frozen=True)
class Exported:
    """A plain model that does what another one does under interventions."""

    lm: Any
    """The transformers model, without hooks."""
    difference: float
    """Largest difference of a log-probability from the hooked model, nats."""


NO_ABLATION = Ablation()
"nothing that is taken out of the weights"


def export(
    model: Model,
    interventions: Sequence[Intervention],
    ablation: Ablation = NO_ABLATION,
    scale: float = 1.0,
) -> Exported:
    """A transformers model that does without hooks what this one does under the interventions.

    ablation: Directions that are taken out of the weights besides.
    scale: Strength of the student among the interventions, from 0 to 1.

    Raises ConfigError for what no weights can be: a system prompt, an ablation, a replacement, or
    steering at some tokens only. Also where the written model does something else, or still writes
    along a direction that was taken out.
    """
    state, added = state_of(model, interventions, ablation, scale)
    lm = _rebuilt(model, state, added)
    if ablation.acts or scale != 1:
        apart = _apart_from_hooks(model, interventions, state, lm, scale)
    else:
        apart = difference(model, interventions, lm)
    if ablation.acts:
        _check_ablated(model, state, ablation)
    if not apart <= CLOSE.get(model.dtype, CLOSE[torch.bfloat16]):
        raise ConfigError(
            f"the written {model.name} differs from the hooked one by {apart:.3g} nats:"
            f" {_why_apart(model)}, or use the hooks (generate --interventions)"
        )
    return Exported(lm, apart)


def _why_apart(model: Model) -> str:
    """Why written weights may do something else, and what to do, as the end of a sentence."""
    if model.dtype == torch.bfloat16:
        return "weights of bf16 round what is added to them; write it with --dtype fp32"
    return (
        "something stands between its MLPs and the residual stream, so a vector cannot be a bias"
        " there; leave the vector out"
    )


def plain_model(
    model: Model,
    interventions: Sequence[Intervention],
    ablation: Ablation = NO_ABLATION,
    scale: float = 1.0,
) -> Any:
    """A fresh transformers model with the interventions in its weights, not yet compared.

    Raises ConfigError where there can be none.
    """
    return _rebuilt(model, *state_of(model, interventions, ablation, scale))


def _rebuilt(model: Model, state: dict[str, Tensor], added: dict[int, Tensor]) -> Any:
    """A fresh transformers model with these weights and these vectors as biases."""
    config = model.lm.config
    if added:
        leaving = checkpoints.maps_leaving_mlps(model)
        biases = {layer: f"{leaving[layer]}.bias" for layer in added}
        if not state.keys() >= set(biases.values()):
            config, state = checkpoints.with_mlp_biases(model, state)
        for layer, row_D in added.items():
            bias_D = state[biases[layer]]
            bias_D += row_D.to(bias_D)
    return checkpoints.rebuilt(model, config, state)


def state_of(
    model: Model,
    interventions: Sequence[Intervention],
    ablation: Ablation = NO_ABLATION,
    scale: float = 1.0,
) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
    """The weights of a model under interventions, by name, and what steering adds behind each block
    [D].

    Raises ConfigError for what no weights can be, and for a scale without a student.
    """
    nf4.refuse_packed(model.lm, "export")
    _check_scale(interventions, scale)
    added: dict[int, Tensor] = {}
    base_weights: dict[str, Tensor] = {}
    with ExitStack() as stack:
        # noise lies below everything else, wherever it is named
        for item in sorted(interventions, key=lambda item: not isinstance(item, WeightNoise)):
            if isinstance(item, WeightNoise):
                stack.enter_context(full_weights.swapped(model, noised_weights(model.lm, item)))
            elif _is_lora_student(item):
                contents = peft_folder.read(Path(item.folder), model)
                base_weights = stack.enter_context(changed_weights.mounted(model, contents))
            elif _is_full_student(item):
                base_weights = stack.enter_context(full_weights.mounted(model, Path(item.folder)))
            elif _steers_everywhere(item):
                factor = scale if isinstance(item, Adapter) else 1.0
                for layer, row_D in steering(item, model):
                    added[layer] = added.get(layer, 0) + factor * row_D
            else:
                _refuse(item)
        state = {name: value.detach().clone() for name, value in model.lm.state_dict().items()}
    undo.scaled(state, base_weights, scale)
    state.update(undo.ablated(model, state, ablation))
    return state, added


def _check_scale(interventions: Sequence[Intervention], scale: float) -> None:
    """Raise ConfigError for a scale that nothing has, or several students."""
    students = [item for item in interventions if isinstance(item, Adapter)]
    if scale != 1 and len(students) > 1:
        raise ConfigError(
            f"--scale {scale:g} with {len(students)} students: expected one, whose strength is"
            " scaled; export one alone"
        )
    if scale != 1 and not students:
        raise ConfigError(
            f"--scale {scale:g} without a student: expected one among the interventions, such as"
            " --interventions adapter:RUN; name it, or leave the scale out"
        )


def _apart_from_hooks(
    model: Model,
    interventions: Sequence[Intervention],
    state: dict[str, Tensor],
    lm: Any,
    scale: float,
) -> float:
    """The difference of the written model from these weights with steering by hooks."""
    edits: list[Intervention] = []
    for item in interventions:
        if isinstance(item, Steer):
            edits.append(item)
        elif isinstance(item, Adapter) and not (_is_lora_student(item) or _is_full_student(item)):
            edits += _scaled_steering(item, model, scale)
    weights = []
    for name, parameter in model.lm.named_parameters(remove_duplicate=False):
        if not torch.equal(state[name].to(parameter.device), parameter):
            weights.append((name, state[name]))
    with changed_weights.replaced(model, weights):
        return difference(model, edits, lm)


def _scaled_steering(item: Adapter, model: Model, scale: float) -> list[Steer]:
    """The steering of a student that is one vector, at this strength."""
    ((layer, row_D),) = steering(item, model)
    rows_LD = np.zeros((model.n_layers, model.d_model), np.float32)
    rows_LD[layer] = scale * row_D.cpu().numpy()
    return [Steer(Vector(rows_LD, model.digest), layer=layer, alpha=1.0, scale="raw")]


def _check_ablated(model: Model, state: dict[str, Tensor], ablation: Ablation) -> None:
    """Raise ConfigError where blocks still write along a direction that was taken out whole."""
    whole = replace(ablation, strength=1.0)
    weights = undo.ablated(model, state, whole)
    rows = _tried_rows(model)
    with changed_weights.replaced(model, weights.items()), applied(model, []) as active:
        residuals_NLD = residuals.last_residuals(model, active, rows)
    along = undo.written_along(residuals_NLD, whole.units(model), ablation.embedding)
    if along > ALONG.get(model.dtype, ALONG[torch.bfloat16]):
        raise ConfigError(
            f"{model.name} still writes along the direction, {along:.2g} of its residual:"
            " something stands between its maps and the residual stream, such as a norm; use the"
            " hooks (generate --interventions ablate:...)"
        )


def _is_lora_student(item: Intervention) -> bool:
    """Whether an intervention is a LoRA student that acts as a whole."""
    if not isinstance(item, Adapter) or not item.whole:
        return False
    return (Path(item.folder) / "adapter_config.json").exists()


def _is_full_student(item: Intervention) -> bool:
    """Whether an intervention is a student all of whose weights were trained."""
    if not isinstance(item, Adapter) or not item.whole or _is_lora_student(item):
        return False
    return not (Path(item.folder) / intervention.TRAINED).exists()


def _steers_everywhere(item: Intervention) -> bool:
    """Whether an intervention adds a vector at every token: Steer, or a trained vector."""
    if isinstance(item, Steer):
        return item.position == "all"
    return isinstance(item, Adapter) and item.whole


def _refuse(item: Intervention) -> None:
    if isinstance(item, SystemPrompt):
        raise ConfigError(
            "a system prompt is no weight: export the model without it, and put the text into the"
            " served conversation"
        )
    raise ConfigError(
        f"{type(item).__name__} ({item}) depends on the tokens that it acts on, so no checkpoint is"
        " it; export steering at all tokens, a whole student or noise"
    )


def _tried_rows(model: Model) -> list[list[int]]:
    """Two number prompts as tokens; without a template where none can be rendered."""
    texts = [prompt.text for prompt in number_prompts(2, seed=11)]
    try:
        return [chat.render(model, text, None) for text in texts]
    except ModelError:
        return [chat.render(model, text, chat.BARE) for text in texts]


@torch.no_grad()
def difference(model: Model, interventions: Sequence[Intervention], lm: Any) -> float:
    """The largest difference of a log-probability between hooked and written model, over two
    number prompts, nats."""
    rows = _tried_rows(model)
    lengths = list(map(len, rows))
    with applied(model, interventions) as active:
        hidden_BTD, batch = forward.rows_hidden(model, active, rows, lengths, share=False)
        hooked_NV = torch.log_softmax(forward.logits_of(model, hidden_BTD[batch.mask_BT]), -1)
    output = lm(input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long())
    written_NV = torch.log_softmax(output.logits[batch.mask_BT].float(), -1)
    return float((written_NV - hooked_NV).abs().max())


def run_export(config: ExportConfig, out: Output) -> store.Run:
    """Return the sealed run with `model/`, which transformers and servers load by its folder, and
    `summary.json`.

    A scaled LoRA student also lies in `student/`, as a peft folder.
    """
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, model_cache.model_of(config))
    return run


def _write(run: store.Run, config: ExportConfig, model: Model) -> None:
    interventions = short_form.parse_all(config.interventions)
    _check_scale(interventions, config.scale)
    student = _scaled_student(interventions, config.scale, model)
    if not config.checkpoint and not student:
        raise ConfigError(
            "--no-checkpoint without a plain LoRA student: nothing would be written; leave it out"
        )
    summary: dict[str, Any] = {"base": model.name}
    if config.checkpoint:
        ablation = ablation_of(config)
        exported = export(model, interventions, ablation, config.scale)
        folder = run.file("model")
        with atomic_files.writing(folder):
            exported.lm.save_pretrained(folder)
            model.tokenizer.save_pretrained(folder)
        summary = {
            "family": exported.lm.config.model_type,
            "difference": exported.difference,
            "unit": "nats",
            "base": model.name,
        }
    for name, content in student.items():
        atomic_files.write_bytes(run.file(f"student/{name}"), content)
    atomic_files.write_json(run.file("summary.json"), summary)


def ablation_of(config: ExportConfig) -> Ablation:
    """What a config takes out of the weights. Raises ConfigError for anything but an ablation."""
    items = []
    for item in short_form.parse_all(config.ablate):
        if not isinstance(item, Ablate):
            raise ConfigError(
                f"--ablate {short_form.to_short(item)}: expected VECTOR,layers=12+13; name a"
                " direction so"
            )
        items.append(item)
    return Ablation(
        tuple(items), config.ablate_strength, config.ablate_row, config.ablate_embedding
    )


def _scaled_student(
    interventions: Sequence[Intervention], scale: float, model: Model
) -> dict[str, bytes]:
    """The files of a scaled LoRA student; none where none is scaled, or more than factors are."""
    for item in interventions:
        if scale == 1 or not isinstance(item, Adapter) or not _is_lora_student(item):
            continue
        folder = Path(item.folder)
        peft_folder.read(folder, model)  # raises for the student of another model
        if peft_folder.is_low_rank(folder):
            return undo.scaled_folder(folder, scale)
    return {}
