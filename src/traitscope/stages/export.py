"""The stage `export`: a model under interventions as an ordinary checkpoint.

vLLM, SGLang, Ollama and other servers can load the checkpoint.

    Steer at every token     a bias on the map that leaves the block's MLP: h_l + a v, exactly
    a LoRA student           W + s B A
    a full student, noise    its weights

Which maps these are, and how a family without biases on its MLPs is written, is known to
models/checkpoints.py. Where something stands between the MLP and the residual stream, such as
Gemma's norms, no bias is the vector. The written model is compared with the hooked one before the
run is sealed.

Shapes: B rows, T tokens, N tokens of all rows, V vocabulary, D d_model.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.stages import ExportConfig
from traitscope.data.prompts import number_prompts
from traitscope.errors import ConfigError
from traitscope.inference import forward
from traitscope.interventions import full_weights, intervention, peft_folder, short_form
from traitscope.interventions.adapters import changed_weights
from traitscope.interventions.applied import applied, steering
from traitscope.interventions.intervention import (
    Adapter,
    Intervention,
    Steer,
    SystemPrompt,
    WeightNoise,
)
from traitscope.models import chat, checkpoints, nf4
from traitscope.models.model import Model
from traitscope.models.weight_noise import noised_weights
from traitscope.runs import model_cache, opening, store
from traitscope.stages import registry

CLOSE = {torch.float32: 0.01, torch.bfloat16: 0.3}
"Largest difference of a log-probability from the hooked model that is allowed, nats."


@dataclass(frozen=True)
class Exported:
    """A plain model that does what another one does under interventions."""

    lm: Any
    """The transformers model, without hooks."""
    difference: float
    """Largest difference of a log-probability from the hooked model, nats."""


def export(model: Model, interventions: Sequence[Intervention]) -> Exported:
    """A transformers model that does without hooks what this one does under the interventions.

    Raises ConfigError for what no weights can be: a system prompt, an ablation, a replacement, or
    steering at some tokens only. Also where the written model does something else.
    """
    lm = plain_model(model, interventions)
    apart = difference(model, interventions, lm)
    if not apart <= CLOSE.get(model.dtype, CLOSE[torch.bfloat16]):
        raise ConfigError(
            f"the written {model.name} differs from the hooked one by {apart:.3g} nats:"
            " something stands between its MLPs and the residual stream, so a vector"
            " cannot be a bias there; use the hooks (generate --interventions)"
        )
    return Exported(lm, apart)


def plain_model(model: Model, interventions: Sequence[Intervention]) -> Any:
    """A fresh transformers model with the interventions in its weights, not yet compared.

    Raises ConfigError where there can be none.
    """
    state, added = state_of(model, interventions)
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
    model: Model, interventions: Sequence[Intervention]
) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
    """The weights of a model under interventions, by name, and what steering adds behind each block
    [D].

    Raises ConfigError for what no weights can be.
    """
    nf4.refuse_packed(model.lm, "export")
    added: dict[int, Tensor] = {}
    with ExitStack() as stack:
        # noise lies below everything else, wherever it is named
        for item in sorted(interventions, key=lambda item: not isinstance(item, WeightNoise)):
            if isinstance(item, WeightNoise):
                stack.enter_context(full_weights.swapped(model, noised_weights(model.lm, item)))
            elif _is_lora_student(item):
                contents = peft_folder.read(Path(item.folder), model)
                stack.enter_context(changed_weights.mounted(model, contents))
            elif _is_full_student(item):
                stack.enter_context(full_weights.mounted(model, Path(item.folder)))
            elif _steers_everywhere(item):
                for layer, row_D in steering(item, model):
                    added[layer] = added.get(layer, 0) + row_D
            else:
                _refuse(item)
        state = {name: value.detach().clone() for name, value in model.lm.state_dict().items()}
    return state, added


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


@torch.no_grad()
def difference(model: Model, interventions: Sequence[Intervention], lm: Any) -> float:
    """The largest difference of a log-probability between hooked and written model, over two
    number prompts, nats."""
    rows = [chat.render(model, prompt.text, None) for prompt in number_prompts(2, seed=11)]
    lengths = list(map(len, rows))
    with applied(model, interventions) as active:
        hidden_BTD, batch = forward.rows_hidden(model, active, rows, lengths, share=False)
        hooked_NV = torch.log_softmax(forward.logits_of(model, hidden_BTD[batch.mask_BT]), -1)
    output = lm(input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long())
    written_NV = torch.log_softmax(output.logits[batch.mask_BT].float(), -1)
    return float((written_NV - hooked_NV).abs().max())


def run_export(config: ExportConfig, out: Output) -> store.Run:
    """Return the sealed run with `model/`, which transformers and servers load by its folder, and
    `summary.json`."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            model = model_cache.model_of(config)
            exported = export(model, short_form.parse_all(config.interventions))
            _write(run, model, exported)
    return run


def _write(run: store.Run, model: Model, exported: Exported) -> None:
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
    atomic_files.write_json(run.file("summary.json"), summary)
