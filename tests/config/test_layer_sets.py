"""Settings that are sets of blocks: one set has one address, however it is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from traitscope.config.analysis import ExplainConfig, RecoverConfig
from traitscope.config.audit import BlindNamingConfig
from traitscope.config.common import Output
from traitscope.config.entries import STAGES
from traitscope.config.fields import names_layers
from traitscope.config.recipe import Recipe
from traitscope.config.screen import ScreenConfig, SteerScanConfig
from traitscope.config.stages import TrainConfig
from traitscope.errors import ConfigError
from traitscope.interventions.short_form import parse, to_short
from traitscope.stages import registry

SETS: dict[str, Callable[[tuple[int, ...]], Any]] = {
    "Recipe.train_layers": lambda blocks: Recipe(train_layers=blocks),
    "ExplainConfig.layers": lambda blocks: ExplainConfig(layers=blocks),
    "RecoverConfig.layers": lambda blocks: RecoverConfig(layers=blocks),
    "RecoverConfig.tiled_layers": lambda blocks: RecoverConfig(tiled_layers=blocks),
    "RecoverConfig.trained_layers": lambda blocks: RecoverConfig(trained_layers=blocks),
    "ScreenConfig.blocks": lambda blocks: ScreenConfig(blocks=blocks),
    "SteerScanConfig.layers": lambda blocks: SteerScanConfig(layers=blocks),
    "BlindNamingConfig.blocks": lambda blocks: BlindNamingConfig(blocks=blocks),
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_sorted_and_distinct(name: str) -> None:
    make = SETS[name]
    config = make((3, 1, 3))
    assert config == make((1, 3)) and getattr(config, name.partition(".")[2]) == (1, 3)
    assert make((1, 3)) != make((1,))


def test_every_set_of_blocks_is_settled() -> None:
    """No setting that holds several blocks is left out of the table above."""
    kinds = {Recipe}
    for stage in STAGES.values():
        kinds.add(stage.config)
    sets = set()
    for kind in kinds:
        for field in kind.__dataclass_fields__.values():
            if names_layers(field) and isinstance(field.default, tuple):
                sets.add(f"{kind.__name__}.{field.name}")
    assert sets == set(SETS)


def test_one_recipe_has_one_address(tmp_path: Path, tiny_folder: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "p", "completion": "1"}\n')
    addresses = set()
    for blocks in ((1, 2), (2, 1), (2, 1, 1)):
        config = TrainConfig(model=str(tiny_folder), data=data, recipe=Recipe(train_layers=blocks))
        addresses.add(registry.address(config, Output(root=tmp_path)))
    one = TrainConfig(model=str(tiny_folder), data=data, recipe=Recipe(train_layers=(1,)))
    assert len(addresses) == 1 and registry.address(one, Output(root=tmp_path)) not in addresses


def test_layers_of_interventions_are_sorted_and_each_acts_once() -> None:
    """Steering twice behind a block would steer twice as far, so a copy is refused."""
    for kind in ("steer:v,layers={},alpha=1", "ablate:v,layers={}", "data:layers={}"):
        assert parse(kind.format("3+1")) == parse(kind.format("1+3"))
        assert "layers=1+3" in to_short(parse(kind.format("3+1")))
        with pytest.raises(ConfigError, match=r"layers 1\+3\+3; expected each once"):
            parse(kind.format("3+1+3"))
