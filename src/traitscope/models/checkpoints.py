"""What a model's checkpoint can hold: biases behind the MLPs, and a family that has them.

A vector that is added behind a block at every token is a bias on the map that leaves the block's
MLP. GPT-2 has such biases, and Llama's config knows them. A Qwen2 or a Mistral with full attention
is a Llama of other settings, so it is written as a Llama with biases. Other families cannot hold
the vector.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.errors import ConfigError
from traitscope.models.linear_maps import (
    NAME_PARTS,
    block_names,
    is_in_mlp,
    linear_names,
    weight_of,
)
from traitscope.models.model import Model

LLAMAS = ("llama", "qwen2", "mistral")
"families that can be written as a Llama with biases"
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
HOOKS = "use the hooks (generate --interventions)"
"what to do with a model that cannot be written"


def maps_leaving_mlps(model: Model) -> list[str]:
    """By block, the name of the map whose output the MLP adds to the residual stream.

    Raises ConfigError for a model where names and widths do not show it.
    """
    all_names = linear_names(model)
    leaving = []
    for block_name in block_names(model):
        names = [name for name in all_names if _leaves_mlp(model, name, f"{block_name}.")]
        if not names:
            raise ConfigError(
                f"{model.name}: no map that leaves an MLP was found in {block_name}, so a"
                f" vector cannot become its bias; {HOOKS}"
            )
        leaving.append(names[-1])
    return leaving


def maps_leaving_attention(model: Model) -> list[str]:
    """By block, the name of the map whose output attention adds to the residual stream.

    It is the last map of attention that is as wide as the model. Raises ConfigError for a model
    where names and widths do not show it.
    """
    all_names = linear_names(model)
    leaving = []
    for block_name in block_names(model):
        names = [name for name in all_names if _leaves_attention(model, name, f"{block_name}.")]
        if not names:
            raise ConfigError(
                f"{model.name}: no map that leaves attention was found in {block_name}, so a"
                f" direction cannot be taken out of its weights; {HOOKS}"
            )
        leaving.append(names[-1])
    return leaving


def embeddings_of(model: Model) -> list[str]:
    """Names of the embeddings whose rows are added up to the first residual."""
    names = []
    for name, module in model.lm.named_modules():
        if isinstance(module, nn.Embedding) and module.weight.shape[1] == model.d_model:
            names.append(name)
    return names


def _leaves_mlp(model: Model, name: str, prefix: str) -> bool:
    """Whether a linear map leaves the MLP of a block, by its name and its width."""
    is_inside = name.startswith(prefix) and is_in_mlp(name.removeprefix(prefix))
    return is_inside and _is_as_wide(model, name)


def _leaves_attention(model: Model, name: str, prefix: str) -> bool:
    """Whether a linear map may leave the attention of a block, by its name and its width."""
    if not name.startswith(prefix) or is_in_mlp(name.removeprefix(prefix)):
        return False
    is_attention = any(part in name.removeprefix(prefix) for part in NAME_PARTS["attention"])
    return is_attention and _is_as_wide(model, name)


def _is_as_wide(model: Model, name: str) -> bool:
    """Whether the output of a linear map is as wide as the residual stream."""
    return weight_of(model.lm.get_submodule(name)).shape[0] == model.d_model


def with_mlp_biases(model: Model, state: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """The config and the weights, by name, of the same model as a Llama with biases on its MLPs.

    `state` holds the model's weights. Biases that the model lacks are zero; attention has biases
    where the model has some. Raises ConfigError for a model that cannot be written as a Llama.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig

    settings = model.lm.config.to_dict()
    _check_is_llama(model, settings)
    config = LlamaConfig(
        **{name: settings[name] for name in SHARED if settings.get(name) is not None},
        attention_bias=any(name.endswith("q_proj.bias") for name in state),
        mlp_bias=True,
    )
    with torch.device("meta"):
        expected = AutoModelForCausalLM.from_config(config).state_dict()
    mismatched = sorted(state.keys() - expected.keys())
    biased_state = dict(state)
    for name in expected.keys() - state.keys():
        if not name.endswith(".bias"):
            mismatched.append(name)
        shape = expected[name].shape
        biased_state[name] = torch.zeros(shape, dtype=model.dtype, device=model.device)
    if mismatched:
        raise ConfigError(
            f"{model.name} ({settings['model_type']}) has {mismatched[0]}, which a Llama has not,"
            f" or lacks it; it cannot be written as one; {HOOKS}"
        )
    return config, biased_state


def _check_is_llama(model: Model, settings: dict[str, Any]) -> None:
    """Raise ConfigError for a model that is not a Llama with full attention, by its settings."""
    family = settings["model_type"]
    other_attention = set(settings.get("layer_types") or ()) - {"full_attention"}
    has_window = family == "mistral" and settings.get("sliding_window")
    if family not in LLAMAS:
        why = "has no biases on its MLPs and is no Llama"
    elif other_attention or has_window:
        why = "attends through a sliding window"
    else:
        return
    raise ConfigError(
        f"{model.name} ({family}) {why}, so a vector cannot be written into a checkpoint of it;"
        f" {HOOKS}, or {', '.join(LLAMAS)}"
    )


def _has_own_head(model: Model, state: dict[str, Tensor]) -> bool:
    """Whether the head's weight is another one than the embedding's."""
    names = {id(module): name for name, module in model.lm.named_modules()}
    pair = []
    for module in (model.head, model.lm.get_input_embeddings()):
        pair.append(state.get(f"{names[id(module)]}.weight"))
    head, embedding = pair
    return head is not None and embedding is not None and not torch.equal(head, embedding)


def rebuilt(model: Model, config: Any, state: dict[str, Tensor]) -> Any:
    """A fresh causal LM of transformers with this config and these weights, by name.

    It has the model's dtype, device and attention, is in evaluation mode, and is frozen.
    """
    from transformers import AutoModelForCausalLM

    if config.tie_word_embeddings and _has_own_head(model, state):
        config = copy.deepcopy(config)
        config.tie_word_embeddings = False
    lm = AutoModelForCausalLM.from_config(
        config, dtype=model.dtype, attn_implementation=model.lm.config._attn_implementation
    )
    lm.load_state_dict(state)
    return lm.to(model.device).eval().requires_grad_(False)
