"""Linear maps of the blocks: what a selection chooses, and which side of the stream a map is on."""

import pytest

from traitscope.errors import ConfigError
from traitscope.models import linear_maps
from traitscope.models.model import Model

SELECTIONS = [("attention", "mlp"), ("first", "second"), ("attention+first", "attention+second")]


@pytest.mark.parametrize("pair", SELECTIONS)
def test_cells_split_the_maps(family: Model, pair: tuple[str, str]) -> None:
    one, two = (set(linear_maps.selected_linear_names(family, cells)) for cells in pair)
    whole = (
        set(linear_maps.selected_linear_names(family, pair[0].split("+")[0]))
        if "+" in pair[0]
        else set(linear_maps.linear_names(family))
    )
    assert one and two and not one & two and one | two == whole


def test_an_unknown_selection_is_refused(tiny: Model) -> None:
    with pytest.raises(ConfigError, match="cells='head': expected all, or some of attention"):
        linear_maps.selected_linear_names(tiny, "head")


def test_side_of_the_residual_stream() -> None:
    assert linear_maps.residual_side((64, 32), 32) == "read"
    assert linear_maps.residual_side((32, 64), 32) == "write"
    assert linear_maps.residual_side((32, 32), 32) is None
    assert linear_maps.residual_side((64, 64), 32) is None
