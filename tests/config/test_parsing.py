"""Settings from plain values: every kind of field that a config or a study's size has."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from traitscope.config.parsing import changed, from_dict
from traitscope.config.stages import GenerateConfig
from traitscope.errors import ConfigError
from traitscope.models.templates.facts import switches_of
from traitscope.studies.claims import intervention_type, where_adapter_acts


@dataclass(frozen=True)
class Settings:
    """A field of every kind that holds other values."""

    strengths: dict[str, float] = field(default_factory=dict)
    rates: dict[str, tuple[float, ...]] = field(default_factory=dict)
    files: dict[str, Path] | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    layer: int | None = None


@pytest.mark.parametrize(
    "plain, typed",
    [
        ({"strengths": {"gemma": 1, "smol": "1e-1"}}, {"gemma": 1.0, "smol": 0.1}),
        ({"strengths": {}}, {}),
        ({"rates": {"lora": [1, 2.5], "vector": []}}, {"lora": (1.0, 2.5), "vector": ()}),
        ({"files": {"rows": "a.jsonl"}}, {"rows": Path("a.jsonl")}),
        ({"files": None}, None),
        ({"pairs": [[4, 8], [32, 1]]}, ((4, 8), (32, 1))),
        ({"layer": None}, None),
        ({"layer": 3}, 3),
    ],
)
def test_values_have_the_types_of_their_fields(plain: dict[str, Any], typed: Any) -> None:
    (name,) = plain
    value = getattr(from_dict(Settings, plain), name)
    assert value == typed
    if isinstance(value, dict):
        assert list(map(type, value.values())) == list(map(type, typed.values()))


@pytest.mark.parametrize(
    "plain, message",
    [
        ({"strengths": 3}, "strengths is 3; expected keys and values"),
        ({"strengths": None}, "strengths is None; expected keys and values"),
        ({"strengths": {"gemma": "much"}}, "strengths.gemma is 'much'; expected a number"),
        ({"strengths": {3: 1.0}}, "strengths: a key is 3; expected a text"),
        ({"rates": {"lora": 1.0}}, "rates.lora is 1.0; expected a list"),
        ({"pairs": [[4]]}, "expected 2 values"),
        ({"layer": "3"}, "layer is '3'; expected a whole number"),
    ],
)
def test_values_that_do_not_fit_are_named(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(Settings, plain)


def test_the_dictionaries_of_a_study_can_be_set() -> None:
    size = where_adapter_acts.SIZES["smoke"]
    parts = changed(size, ["parts={top direction: top=1}"], "size smoke").parts
    assert parts == {"top direction": "top=1"}
    size = intervention_type.SIZES["smoke"]
    assert changed(size, ["rates={lora: [1e-3]}"], "size smoke").rates == {"lora": (0.001,)}


VARIABLES = {
    "thinking": False,
    "depth": 0.5,
    "day": "2024-07-26",
    "mode": "off",
    "word": "false",
    "digits": "7",
    "quoted": '"a"',
    "owl": "ü=1",
    "none": None,
    "empty": "",
}


def test_variables_of_a_template_may_be_names_with_values() -> None:
    """They are the texts of a list, and a template is given the values that the file has."""
    template = from_dict(GenerateConfig, {"template": VARIABLES}).template
    assert dict(switches_of(template)) == VARIABLES
    assert template[:4] == ("thinking=false", "depth=0.5", "day=2024-07-26", "mode=off")
    assert from_dict(GenerateConfig, {"template": list(template)}).template == template
    assert from_dict(GenerateConfig, {"template": {}}).template == ()


@pytest.mark.parametrize("value", [3, "thinking=false", [{"thinking": False}], [False]])
def test_what_is_no_variable_of_a_template_is_named(value: object) -> None:
    says = r"template is .*; expected names with values, such as {enable_thinking: false}, or a l"
    with pytest.raises(ConfigError, match=says):
        from_dict(GenerateConfig, {"template": value})
