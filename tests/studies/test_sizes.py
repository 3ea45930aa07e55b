"""Layers of a study's size move with the depth of the model, and only fields marked as layers."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from command import CAT, OWL, ok, write_yaml

from traitscope.config.commands import StudyConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError
from traitscope.studies import runner, sizes
from traitscope.studies.claims import four_causal_tests, prompt_as_vector, steering_gradients


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


def test_usual_traits_give_way_to_those_that_are_named(tmp_path: Path) -> None:
    usual = steering_gradients.SIZES["laptop"]
    file = str(write_yaml(tmp_path / "drink.yaml", OWL | {"name": "tiger"}))
    size = replace(usual, traits=(file, "cat", "fox"))
    given = sizes.given_way(size, ["traits", "rows"])
    assert given.others == ("dolphin", "wolf", "eagle", "panda") and given.traits == size.traits
    assert sizes.given_way(usual, []) == usual == sizes.given_way(usual, ["traits", "others"])
    causal = replace(four_causal_tests.SIZES["laptop"], trait="fox")
    assert "fox" in causal.traits and "fox" not in sizes.given_way(causal, ["trait"]).traits
    message = "--set trait names owl, which is the usual other of this size; .* --set other=TRAIT"
    with pytest.raises(ConfigError, match=message):
        sizes.given_way(replace(causal, trait="owl"), ["trait"])


@pytest.mark.parametrize(
    ("study", "traits", "others"),
    [
        ("steering_gradients", "[{trait},cat,owl,dog,fox]", "others=[dolphin,tiger,wolf,eagle,pa"),
        ("prompted_transfer", "[happiness,chef,oak,poet,cat]", "others=[dog,owl,octopus,elephant]"),
    ],
)
def test_a_plan_whose_usual_traits_give_way(
    tmp_path: Path, tiny_folder: Path, study: str, traits: str, others: str
) -> None:
    trait = write_yaml(tmp_path / "tea.yaml", CAT | {"name": "tea"})
    change = f"traits={traits.format(trait=trait)}"
    words = ["study", "plan", study, "--model", tiny_folder, "--set", change]
    if study == "steering_gradients":
        words += ["layer=1", "blocks=[1]"]
    assert ok(tmp_path / "runs", *words).summary["missing"] > 0
    config = StudyConfig(name=study, model=str(tiny_folder), set=(change,))
    header = runner.request_of(config, Output(root=tmp_path / "runs")).header()
    assert others in header.changes


def test_a_layer_without_the_mark_is_refused() -> None:
    @dataclass(frozen=True)
    class Unmarked:
        layer: int

    with pytest.raises(ConfigError, match=r"field 'layer' of .*layer_field\(\)"):
        sizes.at_depth(Unmarked(3), 12)
