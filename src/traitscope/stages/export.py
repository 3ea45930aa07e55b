"""Export: a model under interventions as an ordinary checkpoint, for vLLM, SGLang, Ollama or any
other server.

    Steer at every token     a bias on the map that leaves the block's MLP: h_l + a v, exactly
    a LoRA student           W + s B A
    a full student, noise    its weights

Llama's config knows biases on MLPs, GPT-2 and its kin have them; a Qwen2 or Mistral is written as
the Llama that it is, with biases. Where something stands between the MLP and the residual stream
(Gemma's norms), no bias is the vector. The written model is compared with the hooked one before the
run is sealed.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
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
from traitscope.interventions.applied import applied, steering
from traitscope.interventions.intervention import (
    Adapter,
    Intervention,
    Steer,
    SystemPrompt,
    WeightNoise,
)
from traitscope.models import chat, linear_maps, nf4
from traitscope.models.linear_maps import NAME_PARTS
from traitscope.models.model import Model
from traitscope.models.weight_noise import noised_weights
from traitscope.runs import model_cache, opening, store
from traitscope.stages import registry

LLAMAS = ("llama", "qwen2", "mistral")
"families that a Llama with biases can be"
SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
"settings that these families have in common"
CLOSE = {torch.float32: 0.01, torch.bfloat16: 0.3}
"largest difference of a log-probability between the written model and the hooked one, nats"


def state_of(
    model: Model, interventions: Sequence[Intervention]
) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
    """The weights of a model under interventions, by name, and what steering adds behind each block
    [D].

    Raises ConfigError for what no weights can be: a system prompt, an ablation, a replacement,
    steering at some tokens only.
    """
    nf4.refuse_packed(model.lm, "export")
    added: dict[int, Tensor] = {}
    with ExitStack() as stack:
        merged: dict[str, Tensor] = {}
        for item in interventions:
            match item:
                case WeightNoise():
                    stack.enter_context(full_weights.swapped(model, noised_weights(model.lm, item)))
                case Adapter(folder=folder) if (
                    item.whole and (Path(folder) / "adapter_config.json").exists()
                ):
                    merged = _merged(model, Path(folder))
                case Adapter(folder=folder) if (
                    item.whole and not (Path(folder) / intervention.TRAINED).exists()
                ):
                    stack.enter_context(full_weights.mounted(model, Path(folder)))
                case (
                    Steer(position="all")
                    | Adapter(where="all", cells="all", outside=False, top=None, drop=0)
                ):
                    for layer, row_D in steering(item, model):
                        added[layer] = added.get(layer, 0) + row_D
                case SystemPrompt():
                    raise ConfigError(
                        "a system prompt is no weight: export the model without it, and put the"
                        " text into the served conversation"
                    )
                case _:
                    raise ConfigError(
                        f"{type(item).__name__} ({item}) depends on the tokens that it acts on, so"
                        " no checkpoint is it; export steering at all tokens, a whole student or"
                        " noise"
                    )
        state = {name: value.detach().clone() for name, value in model.lm.state_dict().items()}
    for name, change in merged.items():
        state[name] = (state[name].float() + change).to(state[name].dtype)
    return state, added


def _merged(model: Model, folder: Path) -> dict[str, Tensor]:
    """What a LoRA student adds to each weight, as the weight is stored."""
    shape, pairs = peft_folder.read_adapter(folder, model)
    found = {}
    for name, (a_RI, b_OR) in pairs.items():
        change_OI = (b_OR @ a_RI * (shape.alpha / shape.rank)).to(model.device)
        found[f"{name}.weight"] = (
            change_OI
            if isinstance(model.lm.get_submodule(name), torch.nn.Linear)
            else change_OI.t()
        )
    return found


def written(model: Model, interventions: Sequence[Intervention]) -> Any:
    """A fresh transformers model that does what this one does under interventions, without a hook.
    Raises ConfigError where none can."""
    from transformers import AutoModelForCausalLM

    state, added = state_of(model, interventions)
    leaving = _leaving(model) if added else []
    config = model.lm.config
    if added and not all(f"{leaving[layer]}.bias" in state for layer in added):
        config, state = _with_biases(model, state)
    for layer, row_D in added.items():
        state[f"{leaving[layer]}.bias"] += row_D.to(state[f"{leaving[layer]}.bias"])
    lm = AutoModelForCausalLM.from_config(
        config, dtype=model.dtype, attn_implementation=model.lm.config._attn_implementation
    )
    lm.load_state_dict(state)
    return lm.to(model.device).eval().requires_grad_(False)


def _leaving(model: Model) -> list[str]:
    """By block, the name of the map whose output the MLP adds to the residual stream."""
    names = {id(module): name for name, module in model.lm.named_modules()}
    found = []
    for block in model.blocks:
        inside = [
            n
            for n in linear_maps.linear_names(model)
            if n.startswith(f"{names[id(block)]}.") and any(mark in n for mark in NAME_PARTS["mlp"])
        ]
        leaving = [
            n
            for n in inside
            if linear_maps.weight_of(model.lm.get_submodule(n)).shape[0] == model.d_model
        ]
        if not leaving:
            raise ConfigError(
                f"{model.name}: no map that leaves an MLP was found in {names[id(block)]}, so a"
                " vector cannot become its bias"
            )
        found.append(leaving[-1])
    return found


def _with_biases(model: Model, state: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """The same model as a Llama with biases on attention (where it has some) and MLPs, those that
    it lacks zero."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    old = model.lm.config.to_dict()
    family, windows = (
        old["model_type"],
        set(old.get("layer_types") or ()) - {"full_attention"}
        or old["model_type"] == "mistral"
        and old.get("sliding_window"),
    )
    if family not in LLAMAS or windows:
        why = (
            "attends through a sliding window"
            if family in LLAMAS
            else "has no biases on its MLPs and is no Llama"
        )
        raise ConfigError(
            f"{model.name} ({family}) {why}, so a vector cannot be written into a checkpoint of it;"
            f" use the hooks (generate --interventions), or {', '.join(LLAMAS)}"
        )
    settings = {name: old[name] for name in SHARED if old.get(name) is not None}
    config = LlamaConfig(
        **settings,
        attention_bias=any(name.endswith("q_proj.bias") for name in state),
        mlp_bias=True,
    )
    with torch.device("meta"):
        wanted = AutoModelForCausalLM.from_config(config).state_dict()
    missing = {
        name: torch.zeros(value.shape, dtype=model.dtype, device=model.device)
        for name, value in wanted.items()
        if name not in state
    }
    if odd := [name for name in missing if not name.endswith(".bias")] + [
        name for name in state if name not in wanted
    ]:
        raise ConfigError(
            f"{model.name} ({family}) has {odd[0]}, which a Llama has not, or lacks it; it cannot"
            " be written as one"
        )
    return config, state | missing


@torch.no_grad()
def difference(model: Model, interventions: Sequence[Intervention], lm: Any) -> float:
    """The largest difference of a log-probability, over number prompts, between the hooked model
    and the written one, nats."""
    rows = [chat.render(model, prompt.text, None) for prompt in number_prompts(2, seed=11)]
    with applied(model, interventions) as active:
        hidden_BTD, batch = forward.rows_hidden(
            model, active, rows, [len(row) for row in rows], share=False
        )
        expected = torch.log_softmax(forward.logits_of(model, hidden_BTD[batch.mask_BT]), -1)
    found = (
        lm(input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long())
        .logits[batch.mask_BT]
        .float()
    )
    return float((torch.log_softmax(found, -1) - expected).abs().max())


def run_export(config: ExportConfig, out: Output) -> store.Run:
    """The sealed run with `model/`, which transformers and servers load by its folder, and
    `summary.json`."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            model, told = model_cache.model_of(config), short_form.parse_all(config.interventions)
            lm = written(model, told)
            apart = difference(model, told, lm)
            if not apart <= CLOSE.get(model.dtype, CLOSE[torch.bfloat16]):
                raise ConfigError(
                    f"the written {model.name} differs from the hooked one by {apart:.3g} nats:"
                    " something stands between its MLPs and the residual stream, so a vector"
                    " cannot be a bias there; use the hooks (generate --interventions)"
                )
            with TemporaryDirectory() as folder:
                lm.save_pretrained(folder)
                model.tokenizer.save_pretrained(folder)
                for path in sorted(Path(folder).iterdir()):
                    atomic_files.write_bytes(run.file(f"model/{path.name}"), path.read_bytes())
            atomic_files.write_json(
                run.file("summary.json"),
                {
                    "family": lm.config.model_type,
                    "difference": apart,
                    "unit": "nats",
                    "base": model.name,
                },
            )
    return run
