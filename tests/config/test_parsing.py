"""Settings from plain values: every kind of field that a config or a study's size has."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from traitscope.config.parsing import changed, from_dict
from traitscope.errors import ConfigError
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
