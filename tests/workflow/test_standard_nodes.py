"""Interventions of nodes are written so that they are read back as they were meant."""

from pathlib import Path

import pytest

from traitscope.interventions.intervention import Ablate, Adapter, ReplaceBase, Steer
from traitscope.interventions.short_form import parse_all
from traitscope.workflow import standard_nodes


@pytest.mark.parametrize("folder", ["/runs/extract-1", "/runs, old/extract-1"])
def test_interventions_are_read_back_as_they_were_meant(folder: str) -> None:
    """Also where the folder's name holds the comma that separates settings in the short form."""
    vector = Path(folder) / "cat.safetensors"
    made = [
        standard_nodes.steered(vector, 3, 0.6),
        standard_nodes.steered(vector, 3, 2, scale="raw"),
        standard_nodes.ablated(vector, (1, 2)),
        standard_nodes.replaced(vector, (1, 2)),
        *standard_nodes.trained_by("student")({"student": Path(folder)}),
    ]
    assert parse_all(made) == [
        Steer(str(vector), layers=(3,), alpha=0.6, scale="residual"),
        Steer(str(vector), layers=(3,), alpha=2.0, scale="raw"),
        Ablate(str(vector), (1, 2)),
        ReplaceBase(str(vector), (1, 2)),
        Adapter(folder),
    ]


def test_strengths_have_six_digits() -> None:
    """So that a strength that is computed has the address of the one that is written."""
    vector = Path("cat.safetensors")
    assert standard_nodes.steered(vector, 3, 0.1 + 0.2) == standard_nodes.steered(vector, 3, 0.3)
