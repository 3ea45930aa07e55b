"""Settings from plain values: types, nesting, and what cannot work."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from traitscope.config.analysis import ExtractConfig
from traitscope.config.entries import COMMANDS
from traitscope.config.parsing import from_dict
from traitscope.config.recipe import Recipe
from traitscope.config.stages import (
    FilterConfig,
    FilterRules,
    GenerateConfig,
    MeasureConfig,
    TrainConfig,
)
from traitscope.errors import ConfigError


@pytest.mark.parametrize("verb", COMMANDS)
def test_defaults_survive_a_round_trip(verb: str):
    config = COMMANDS[verb].config
    plain = json.loads(json.dumps(dataclasses.asdict(config()), default=str))
    assert from_dict(config, plain) == config()
    assert from_dict(config, {}) == config()


def test_values_get_their_types():
    text = (
        "{data: rows.jsonl, max_rows: 5, teacher: ['prompt:Hi'], context: '', recipe: {lr: 1e-3,"
        " alpha: 8, method: full}}"
    )
    config = from_dict(TrainConfig, yaml.safe_load(text))
    recipe = Recipe(lr=0.001, alpha=8.0, method="full")
    assert config == TrainConfig(
        data=Path("rows.jsonl"), max_rows=5, teacher=("prompt:Hi",), context="", recipe=recipe
    )
    assert type(config.recipe.alpha) is float
    assert from_dict(FilterConfig, {"rules": {"banned_numbers": [1, 2]}}).rules == FilterRules(
        banned_numbers=(1, 2)
    )


@pytest.mark.parametrize(
    ("config", "plain", "words"),
    [
        (TrainConfig, {"recpe": {}}, "unknown key 'recpe'; did you mean 'recipe'?"),
        (TrainConfig, {"seed": "1"}, "seed is '1'; expected a whole number"),
        (TrainConfig, {"seed": 1.0}, "seed is 1.0; expected a whole number"),
        (TrainConfig, {"seed": True}, "seed is True; expected a whole number"),
        (TrainConfig, {"seed": None}, "seed is None; expected a whole number"),
        (TrainConfig, {"data": 3}, "data is 3; expected"),
        (TrainConfig, {"recipe": 3}, "recipe: expected keys and values, found int"),
        (TrainConfig, {"recipe": {"lr": [1]}}, "lr is \\[1\\]; expected a number"),
        (TrainConfig, {"recipe": {"targets": "hard"}}, "targets is 'hard'; expected sampled, soft"),
        (TrainConfig, {"teacher": ["prompt:Hi", 3]}, "teacher is 3; expected a text"),
        (FilterConfig, {"rules": {"numbers": "yes"}}, "numbers is 'yes'; expected true or false"),
        (FilterConfig, [], "expected keys and values, found list"),
        (MeasureConfig, {"capability": 1}, "capability is 1; expected true or false"),
    ],
)
def test_what_does_not_fit_is_named(config: type, plain: object, words: str):
    with pytest.raises(ConfigError, match=words):
        from_dict(config, plain)


@pytest.mark.parametrize(
    ("make", "name", "least"),
    [(GenerateConfig, name, 1) for name in ("n", "count", "max_new_tokens", "batch_size")]
    + [(GenerateConfig, name, 0) for name in ("seed", "prompt_seed", "temperature")]
    + [(TrainConfig, name, 1) for name in ("max_rows", "resume_every", "eas_prompts")]
    + [(TrainConfig, name, 0) for name in ("seed", "checkpoint_every", "eas_every")]
    + [(MeasureConfig, name, 1) for name in ("max_new_tokens", "batch_size")]
    + [(MeasureConfig, name, 0) for name in ("samples", "temperature")]
    + [(ExtractConfig, name, 1) for name in ("n", "batch_size")]
    + [
        (FilterConfig, "limit", 1),
        (Recipe, "rank", 1),
        (Recipe, "epochs", 1),
        (Recipe, "clip", 0),
        (Recipe, "momentum", 0),
    ],
)
def test_numbers_have_a_least_value(make: type, name: str, least: int):
    make(**{name: least})
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} {least - 1}"):
        make(**{name: least - 1})


@pytest.mark.parametrize(
    "name", ["lr", "alpha", "clip", "momentum", "weight_decay", "warmup", "held_out"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_recipe_is_finite(name: str, value: float):
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}"):
        Recipe(**{name: value})
