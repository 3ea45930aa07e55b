"""Adapters of peft of all kinds, written by peft: for tests and for the page on models."""

import json
from pathlib import Path
from typing import Any

import torch
from lora_students import logits_of
from tiny_models import eager_lm
from torch import Tensor

from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Adapter
from traitscope.models.model import Model

LLAMA = {"target_modules": ["q_proj", "down_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "rslora": LLAMA | {"use_rslora": True, "r": 9},
    "rank_pattern": LLAMA | {"rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 7}},
    "alpha_pattern": LLAMA | {"alpha_pattern": {"q_proj": 32}},
    "both_patterns": LLAMA
    | {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 9}, "use_rslora": True},
    "dora": LLAMA | {"use_dora": True},
    "dora_and_patterns": LLAMA | {"use_dora": True, "rank_pattern": {"down_proj": 6}},
    "saved_head": LLAMA | {"modules_to_save": ["lm_head"]},
    "saved_embedding": LLAMA | {"modules_to_save": ["embed_tokens"]},
    "saved_norms": LLAMA | {"modules_to_save": ["norm"]},
    "saved_map": LLAMA | {"modules_to_save": ["k_proj"]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "regex": {"target_modules": r".*\.layers\.[01]\.self_attn\.(q|v)_proj"},
    "some_layers": LLAMA | {"layers_to_transform": [1]},
    "one_layer_by_pattern": LLAMA | {"layers_to_transform": 0, "layers_pattern": "layers"},
    "excluded": LLAMA | {"exclude_modules": r".*\.1\.self_attn\.q_proj"},
    "all_linear": {"target_modules": "all-linear"},
    "gaussian": LLAMA | {"init_lora_weights": "gaussian"},
    "orthogonal": LLAMA | {"init_lora_weights": "orthogonal"},
    "mica": LLAMA | {"init_lora_weights": "mica"},
    "rank_above_the_width": LLAMA | {"r": 40},
    "saved_attention": LLAMA | {"modules_to_save": ["self_attn"]},
    "saved_block": LLAMA | {"modules_to_save": ["layers.1"]},
    "dora_on_the_embedding": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "tied_embedding": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "tied_head": {"target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True},
    "tied_saved_head": LLAMA | {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
}
"settings that are read, by name"
REFUSED: dict[str, dict[str, Any]] = {
    "lora_bias": {"lora_bias": True},
    "trainable_token_indices": {"trainable_token_indices": [5, 6]},
    "alora_invocation_tokens": {"alora_invocation_tokens": [1, 33]},
    "layer_replication": {"layer_replication": [[0, 2], [1, 3]]},
    "pissa_as_trained": {"init_lora_weights": "pissa"},
    "olora_as_trained": {"init_lora_weights": "olora"},
    "loftq_as_trained": {"init_lora_weights": "loftq"},
    "corda_as_trained": {"init_lora_weights": "corda"},
    "a_setting_that_is_not_known": {"turns_the_base": True},
}
"settings that no adapter is read with, put into the file of a plain one"


def adapter_of_peft(model: Model, folder: Path, **settings: Any) -> Tensor:
    """Write a random adapter as peft writes it; returns the logits of peft's model with it.

    Every trained weight is moved, so that nothing that is saved is as it was in the base.
    """
    import peft

    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 6, "init_lora_weights": False} | settings
    theirs = peft.get_peft_model(
        eager_lm(model), peft.LoraConfig(task_type="CAUSAL_LM", **settings)
    )
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    theirs.save_pretrained(folder)
    return loaded_by_peft(model, folder)


def loaded_by_peft(model: Model, folder: Path) -> Tensor:
    """The logits of peft's model with the adapter in a folder."""
    import peft

    return logits_of(peft.PeftModel.from_pretrained(eager_lm(model), str(folder)).eval())


def with_settings(model: Model, folder: Path, settings: dict[str, Any]) -> Path:
    """A plain adapter whose file has further settings."""
    adapter_of_peft(model, folder, target_modules=["q_proj"])
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def outcome(model: Model, folder: Path, settings: dict[str, Any]) -> tuple[str, str, str]:
    """Whether an adapter is read, how its logits compare with peft's, and if it acts in part."""
    if settings in REFUSED.values():
        try:
            with applied(model, [Adapter(str(with_settings(model, folder, settings)))]):
                return "yes", "", ""
        except VectorError:
            return "no", "", ""
    expected = adapter_of_peft(model, folder, **settings)
    with applied(model, [Adapter(str(folder))]):
        difference = (logits_of(model.lm) - expected).abs().max()
    agree = "peft's to 2e-5" if difference < 2e-5 * max(1, expected.abs().max()) else "others"
    try:
        with applied(model, [Adapter(str(folder), cells="attention")]):
            return "yes", agree, "yes"
    except ConfigError:
        return "yes", agree, "no: whole and alone"
