"""The state of a pass: seen while the pass runs, gone afterwards, and set anew for every pass."""

import pytest
import torch
from tiny_models import random_rows, random_vector

from traitscope.inference import forward
from traitscope.interventions import hooks
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import ReplaceBase
from traitscope.interventions.pass_state import CurrentPass, PassState
from traitscope.models.model import Model


def test_the_state_before_comes_back_also_after_an_exception() -> None:
    outer, inner = PassState(torch.zeros(1, 2)), PassState(torch.ones(1, 3))
    current = CurrentPass()
    with current.running(outer):
        with pytest.raises(KeyError), current.running(inner):
            assert current.state is inner
            raise KeyError("planned")
        assert current.state is outer
    assert current.state is None


def test_the_bases_pass_comes_first_and_its_residuals_are_in_the_state(tiny: Model) -> None:
    """Where ReplaceBase acts, hooks see the base's own pass, and then the pass with its result."""
    seen: list[PassState] = []

    def look(hidden_BTD: torch.Tensor, mask_BT1: torch.Tensor) -> torch.Tensor:
        seen.append(active.current.state)
        return hidden_BTD

    batch = forward.batch_of(random_rows(tiny, [4, 3]), [2, 2], tiny.pad_id)
    with (
        torch.inference_mode(),
        applied(tiny, [ReplaceBase(random_vector(tiny), layer=1)]) as active,
        hooks.edited(tiny.blocks, [(0, "all", look)], active.current),
    ):
        forward.hidden_states(tiny, active, batch)
    assert [state.is_base for state in seen] == [True, False]
    assert [list(state.base_hidden) for state in seen] == [[], [1]]
    assert seen[1].base_hidden[1].shape == (2, 4, tiny.d_model)
    assert active.current.state is None


def test_a_students_pack_ends_with_its_block(tiny: Model) -> None:
    with applied(tiny, []) as active:
        with active.packed_students([]) as students:
            assert students == [] and active.pack.size == 0
        assert active.pack is None
