"""The settings of a peft adapter: which are understood, and which maps they name.

A setting that is not understood could change what the adapter does. So it is refused unless it is
empty. Source: `LoraConfig` and `check_target_module_exists` of peft 0.21.
"""

import math
import re
from collections.abc import Collection, Iterable
from typing import Any

from traitscope.errors import VectorError

FREE_OF_MEANING = (
    "peft_type",
    "task_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "lora_dropout",
    "fan_in_fan_out",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "traitscope_base_digest",
)
"settings that change nothing in a trained adapter, or that are checked elsewhere"
UNDERSTOOD = (
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "bias",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "init_lora_weights",
    "ensure_weight_tying",
)
"settings that are followed"
TYING = "ensure_weight_tying"
"setting by which an adapter on a tied weight acts in its twin as well"
KEEPING_THE_BASE = ("gaussian", "eva", "orthogonal", "mica", "true", "false")
"words of init_lora_weights that leave the weights of the base as they are"
CONVERTED = ("pissa", "olora", "corda", "lora_ga")
"begin the words of those that peft converts into a plain LoRA on the base as it was"
BIASES = ("none", "all", "lora_only")
LARGEST_ALPHA = 1e30
"largest strength whose additions float32 can hold"
LONGEST_PATTERN = 1000
"characters of a pattern for the names of maps"
INDEX = r".*?\.[^.]*\.(?P<index>\d+)\."


def check_kind(where: str, config: dict[str, Any]) -> None:
    """Raise VectorError for an adapter of another kind."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise VectorError(
            f"{where}: adapter of the kind {str(kind)[:40]}; expected LORA; train such an adapter,"
            " or merge this one into a model of its own where peft can"
        )


def check(where: str, config: dict[str, Any]) -> None:
    """Raise VectorError for an adapter of another kind, and for settings that are not followed."""
    check_kind(where, config)
    initialised = config.get("init_lora_weights", True)
    if not _keeps_the_base(initialised):
        raise VectorError(
            f"{where}: init_lora_weights is {str(initialised)[:40]!r}, which changes the weights of"
            " the base at the start, so the adapter alone is no addition to it; expected a plain"
            f" LoRA; {_way_to_a_plain_one(str(initialised))}"
        )
    further = []
    for name, value in config.items():
        if name not in (*FREE_OF_MEANING, *UNDERSTOOD) and value not in (None, False, [], {}, ""):
            further.append(name)
    if further:
        listed = " ".join(", ".join(further).split())[:200]
        raise VectorError(
            f"{where}: settings {listed} are not understood; expected LoRA with"
            f" {', '.join(UNDERSTOOD)}; train it without these settings, or merge it into a model"
            " of its own"
        )
    bias = config.get("bias", "none")
    if bias not in BIASES:
        raise VectorError(
            f"{where}: bias is {str(bias)[:40]!r}; expected one of {', '.join(BIASES)}; copy or"
            " train the adapter again"
        )


def _keeps_the_base(initialised: Any) -> bool:
    is_word = isinstance(initialised, str) and initialised.lower() in KEEPING_THE_BASE
    return initialised is None or isinstance(initialised, bool) or is_word


def _way_to_a_plain_one(initialised: str) -> str:
    """What to do about an adapter whose base was changed."""
    if initialised.lower().startswith(CONVERTED):
        return (
            "convert it where it was trained, by peft's"
            " save_pretrained(FOLDER, path_initial_model_for_weight_conversion=START)"
        )
    return (
        "merge it into the base that it was trained on, by peft's merge_and_unload(), and name that"
        " model"
    )


def rank_and_scale(config: dict[str, Any], name: str) -> tuple[int, float]:
    """Rank and scale of the addition to a map. Raises ValueError for a pattern that is none.

    The scale is alpha / rank, or alpha / sqrt(rank) with use_rslora.
    """
    rank = _by_pattern(config, "rank_pattern", name, config["r"])
    alpha = _by_pattern(config, "alpha_pattern", name, config["lora_alpha"])
    if type(rank) is not int or not 1 <= rank < 10**9:
        raise ValueError(
            f"r or rank_pattern has {rank!r:.40}, expected a whole number of 1 or more"
        )
    if type(alpha) not in (int, float) or not 0 < alpha <= LARGEST_ALPHA:
        raise ValueError(f"alpha_pattern has {alpha!r:.40}, expected a number above 0")
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(config: dict[str, Any], setting: str, name: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a map's name, as in peft."""
    patterns = config.get(setting) or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{setting} is {patterns!r:.40}, expected values by name")
    for pattern, value in patterns.items():
        if _matches(rf"(?:.*\.)?(?:{pattern})", name, setting):
            return value
    return default


def _matches(pattern: Any, name: str, setting: str) -> bool:
    """Whether a pattern matches a whole name. Raises ValueError for what is no pattern."""
    if not isinstance(pattern, str) or len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"{setting} holds {pattern!r:.40}, expected a pattern for names of maps")
    try:
        return re.fullmatch(pattern, name) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{setting} holds {pattern[:40]!r}, which is no pattern: {error}"
        ) from None


def targeted(config: dict[str, Any], names: Iterable[str], linear: Collection[str]) -> set[str]:
    """The names that target_modules means: none of them where it is empty.

    linear: Names of the linear maps but the head, which "all-linear" means.

    Raises ValueError for settings that are none.
    """
    targets = config.get("target_modules") or []
    chosen = set()
    for name in names:
        is_left_out = _excluded(config, name) or _is_saved(config, name)
        if not is_left_out and _is_target(config, targets, name, linear):
            chosen.add(name)
    return chosen


def _is_target(config: dict[str, Any], targets: Any, name: str, linear: Collection[str]) -> bool:
    if targets == "all-linear":
        return name in linear
    if isinstance(targets, str):
        return _matches(targets, name, "target_modules")
    listed = _texts(targets, "target_modules")
    if name in listed:
        return True
    return _ends_with(name, listed) and _in_layers(config, name)


def _excluded(config: dict[str, Any], name: str) -> bool:
    excluded = config.get("exclude_modules")
    if isinstance(excluded, str) and excluded:
        return _matches(excluded, name, "exclude_modules")
    return bool(excluded) and _ends_with(name, _texts(excluded, "exclude_modules"))


def _is_saved(config: dict[str, Any], name: str) -> bool:
    """Whether modules_to_save names a module, or one that it is part of: peft adapts none."""
    for word in _texts(config.get("modules_to_save") or [], "modules_to_save"):
        if f".{word}." in f".{name}.":
            return True
    return False


def _in_layers(config: dict[str, Any], name: str) -> bool:
    """Whether a map stands in the layers of layers_to_transform."""
    layers = config.get("layers_to_transform")
    if layers in (None, []):
        return True
    listed = [layers] if type(layers) is int else layers
    if not isinstance(listed, list) or any(type(layer) is not int for layer in listed):
        raise ValueError(f"layers_to_transform is {layers!r:.40}, expected numbers of layers")
    patterns = config.get("layers_pattern") or []
    match = None if patterns else re.match(INDEX, name)
    for pattern in _texts([patterns] if isinstance(patterns, str) else patterns, "layers_pattern"):
        match = match or re.match(rf"(?:^|.*?\.){re.escape(pattern)}\.(?P<index>\d+)\.", name)
    return match is not None and int(match["index"]) in listed


def saves(config: dict[str, Any], name: str) -> bool:
    """Whether modules_to_save names a module, which then has weights of its own.

    Raises ValueError for a setting that is none.
    """
    return any(
        name.endswith(word)
        for word in _texts(config.get("modules_to_save") or [], "modules_to_save")
    )


def _texts(values: Any, setting: str) -> list[str]:
    if not isinstance(values, list) or any(not isinstance(value, str) for value in values):
        raise ValueError(f"{setting} is {values!r:.40}, expected names of modules")
    return values


def _ends_with(name: str, endings: list[str]) -> bool:
    return name in endings or name.endswith(tuple(f".{ending}" for ending in endings))
