"""Interventions as values: what they take, their JSON, and clear refusals."""

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_models import random_vector

from traitscope.errors import ConfigError, TraitscopeError, VectorError
from traitscope.interventions import intervention
from traitscope.interventions.intervention import (
    Ablate,
    Adapter,
    DataDirection,
    ReplaceBase,
    Steer,
    SystemPrompt,
    WeightNoise,
    from_json,
    to_json,
)
from traitscope.interventions.short_form import parse, to_short
from traitscope.models.model import Model

PROMPTS = [3, 5, 2]
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def test_every_kind_survives_json_and_has_a_short_form(tmp_path: Path) -> None:
    items = [
        SystemPrompt(""),
        SystemPrompt("You love owls."),
        Adapter("runs/a/student"),
        Steer("v.safetensors", (0, 2), -1.5, "last", "unit"),
        Ablate("v.safetensors", (1,), "completion"),
        ReplaceBase("v.safetensors", (1, 2)),
        WeightNoise(0.1, 3, ("mlp",), keep_norm=True),
        DataDirection((1, 2), "completion", 7),
    ]
    assert {type(i).__name__ for i in items} == set(intervention.KINDS)
    for item in items:
        back = from_json(json.loads(json.dumps(to_json(item))))
        assert back == item and hash(back) == hash(item)
        assert parse(to_short(item)) == item


def test_a_prompt_is_the_context_wherever_it_stands() -> None:
    items = [
        Steer("v", (0,), 1.0),
        Adapter("s"),
        Ablate("w", (0,)),
        SystemPrompt(""),
    ]
    assert intervention.context_of(items, "neutral") == ""
    assert intervention.context_of(items[::-1], "neutral") == ""
    assert intervention.context_of(items[:3], None) is None
    with pytest.raises(ConfigError, match="2 prompts on one model"):
        intervention.context_of([SystemPrompt("a"), *items], "neutral")


@pytest.mark.parametrize(
    "data, message",
    [
        ({"kind": "Steeer"}, "'Steeer' is unknown; expected one of SystemPrompt, Steer"),
        ({}, "intervention None is unknown"),
        ({"kind": "Adapter", "path": "x"}, "unexpected keyword argument 'path'"),
        (
            {"kind": "Steer", "vector": "v", "layers": [0]},
            "Steer needs a strength, found none",
        ),
        (
            {"kind": "Steer", "vector": "v", "layers": [0], "alpha": float("nan")},
            "--alpha nan; expected a finite strength",
        ),
        ({"kind": "Steer", "vector": "v", "layers": [0], "alpha": float("inf")}, "--alpha inf"),
        (
            {"kind": "Steer", "vector": "v", "layers": [0], "alpha": 1, "position": "first"},
            "position 'first' is unknown",
        ),
        (
            {"kind": "Steer", "vector": "v", "layers": [0], "alpha": 1, "scale": "norm"},
            "scale 'norm' is unknown",
        ),
        (
            {"kind": "Ablate", "vector": "v", "layers": [0], "position": "x"},
            "position 'x' is unknown",
        ),
        (
            {"kind": "ReplaceBase", "vector": "v", "layers": 3},
            r"layers 3 is no sequence; write layers=\(14,\)",
        ),
        ({"kind": "Ablate", "vector": "v"}, "takes one of layer=14 and layers=.*, found neither"),
    ],
)
def test_what_json_cannot_mean(data: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(data)


def test_one_layer_or_several() -> None:
    assert Steer("v", layer=2, alpha=0.6) == Steer("v", (2,), 0.6) == Steer("v", [2], alpha=0.6)
    assert Ablate("v", layer=1, position="last") == Ablate("v", (1,), "last")
    assert ReplaceBase("v", layer=1) == ReplaceBase("v", layers=(1,))
    with pytest.raises(ConfigError, match="Steer takes one of layer=14 and layers=.*, found both"):
        Steer("v", (1,), 0.6, layer=1)


def test_one_layer_is_written_as_several() -> None:
    """Files and addresses of runs hold `layers`, whatever the Python call looked like."""
    assert to_json(Steer(Path("v.safetensors"), layer=2, alpha=0.6)) == {
        "kind": "Steer",
        "vector": "v.safetensors",
        "layers": [2],
        "alpha": 0.6,
        "position": "all",
        "scale": "residual",
    }


def test_replaced_fields_are_checked() -> None:
    steer = Steer("v", layer=2, alpha=0.6)
    assert dataclasses.replace(steer, layers=(1, 2), scale="unit") == Steer(
        "v", (1, 2), 0.6, scale="unit"
    )
    with pytest.raises(ConfigError, match="scale 'norm' is unknown"):
        dataclasses.replace(steer, scale="norm")


def test_a_vector_in_memory_has_no_json(tiny: Model) -> None:
    with pytest.raises(ConfigError, match=r"save it with vector.save\(path\)"):
        to_json(Steer(random_vector(tiny), (0,), 1.0))


def test_all_errors_are_for_users() -> None:
    assert issubclass(ConfigError, TraitscopeError) and issubclass(VectorError, ValueError)
