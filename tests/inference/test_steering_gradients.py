"""Steering gradients against autograd on an added zero vector."""

import numpy as np
import pytest
import torch
from tiny_models import eager_lm, hooks_left, random_rows

from traitscope.inference.steering_gradients import steering_gradients
from traitscope.inference.token_rows import Row
from traitscope.interventions import hooks
from traitscope.interventions.applied import applied
from traitscope.models.model import Model


def some_rows(model: Model, shared: int = 0) -> list[Row]:
    """Rows of different lengths whose first tokens are the same."""
    ids = random_rows(model, [6, 9, 7, 8, 6])
    return [Row(tuple(ids[0][:shared] + row[shared:4]), tuple(row[4:])) for row in ids]


def naive(model: Model, row: Row, layer: int, places: slice) -> np.ndarray:
    """One row, transformers' own attention and loss, a bare hook that adds a zero vector with a
    gradient."""
    lm = eager_lm(model)
    added = torch.zeros(model.d_model, requires_grad=True)
    block = [m for m in lm.modules() if type(m) is type(model.blocks[0])][layer]

    def add(module: torch.nn.Module, args: tuple, output: object) -> object:
        hidden = output[0] if isinstance(output, tuple) else output
        mask = torch.zeros(hidden.shape[1], 1)
        mask[places] = 1
        return (
            (hidden + mask * added, *output[1:])
            if isinstance(output, tuple)
            else hidden + mask * added
        )

    handle = block.register_forward_hook(add)
    logits = lm(torch.tensor([row.ids])).logits[0]
    handle.remove()
    start = len(row.prompt_ids)
    loss = torch.nn.functional.cross_entropy(
        logits[start - 1 : -1], torch.tensor(row.completion_ids)
    )
    return torch.autograd.grad(loss, added)[0].numpy()


@pytest.mark.parametrize(
    ("position", "places"),
    [("all", slice(0, None)), ("prompt", slice(0, 4)), ("last", slice(3, 4))],
)
def test_equals_the_gradient_of_an_added_vector(
    family: Model, position: str, places: slice
) -> None:
    rows = some_rows(family, shared=2)
    with applied(family, []) as active:
        found = steering_gradients(family, active, rows, position, batch_size=3)
    for i, row in enumerate(rows):
        for layer in range(family.n_layers):
            np.testing.assert_allclose(
                found[i, layer], naive(family, row, layer, places), rtol=2e-3, atol=2e-6
            )


def test_does_not_depend_on_the_batch_and_leaves_nothing_behind(tiny: Model) -> None:
    before = hooks_left(tiny)
    with applied(tiny, []) as active:
        one, all_ = (
            steering_gradients(tiny, active, some_rows(tiny), "all", size) for size in (1, 5)
        )
    np.testing.assert_allclose(one, all_, rtol=1e-3, atol=1e-6)
    assert hooks_left(tiny) == before and all(p.grad is None for p in tiny.lm.parameters())


def test_hooks_go_after_an_exception(tiny: Model) -> None:
    before = hooks_left(tiny)
    embedding = tiny.lm.get_input_embeddings()
    with (
        pytest.raises(ZeroDivisionError),
        applied(tiny, []) as a,
        hooks.gradients(embedding, tiny.blocks, a.current),
    ):
        raise ZeroDivisionError
    assert hooks_left(tiny) == before
