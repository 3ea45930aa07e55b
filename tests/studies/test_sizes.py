"""Layers of a study's size move with the depth of the model, and only fields marked as layers."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from command import OWL, write_yaml

from traitscope.errors import ConfigError
from traitscope.studies import sizes
from traitscope.studies.claims import four_causal_tests, prompt_as_vector


@dataclass(frozen=True)
class Size:
    rows: int
    steered_at: int = sizes.layer_field()
    layers: tuple[int, ...] = sizes.layer_field((0, 29))


def test_layers_of_a_study_move_with_the_depth() -> None:
    causal = four_causal_tests.SIZES["full"]
    assert sizes.at_depth(causal, sizes.DEPTH) == causal
    moved = sizes.at_depth(causal, 12)
    assert moved.layer == 5
    assert moved.blocks == tuple(range(12))
    assert moved.strength == causal.strength
    assert set(sizes.at_depth(prompt_as_vector.SIZES["laptop"], 60).steer_layers) == {12, 28, 45}


def test_a_marked_field_of_any_name_is_moved() -> None:
    assert sizes.at_depth(Size(rows=14, steered_at=14), 59) == Size(14, 28, (0, 58))


def test_traits_of_files_are_known_by_their_names(tmp_path: Path) -> None:
    file = str(write_yaml(tmp_path / "drink.yaml", OWL | {"name": "coffee"}))
    causal = replace(four_causal_tests.SIZES["smoke"], trait=file, traits=("cat", file))
    named = sizes.named(causal)
    assert (named.trait, named.other, named.traits) == ("coffee", "owl", ("cat", "coffee"))
    assert sizes.named(named) == named and named.layer == causal.layer


def test_a_layer_without_the_mark_is_refused() -> None:
    @dataclass(frozen=True)
    class Unmarked:
        layer: int

    with pytest.raises(ConfigError, match=r"field 'layer' of .*layer_field\(\)"):
        sizes.at_depth(Unmarked(3), 12)
