"""Split and order of rows depend on the seed and the epoch alone."""

import dataclasses

import numpy as np
import pytest
import torch
from train_runs import PLAIN, make_rows

from traitscope.errors import DataError
from traitscope.models.model import Model
from traitscope.training import plan


def test_batches_depend_on_seed_and_epoch_alone(tiny: Model) -> None:
    rows = make_rows(tiny, 50)
    keep, held = plan.split_rows(rows, PLAIN, 0)
    first = plan.epoch_batches(rows, keep, PLAIN, 0, 0)
    torch.manual_seed(99)
    np.random.seed(99)
    assert (
        plan.epoch_batches(
            rows, keep, dataclasses.replace(PLAIN, lr=1.0, targets="soft", micro_batch=2), 0, 0
        )
        == first
    )
    assert (
        plan.epoch_batches(rows, keep, PLAIN, 0, 1)
        != first
        != plan.epoch_batches(rows, keep, PLAIN, 1, 0)
    )
    for epoch in range(3):
        found = plan.epoch_batches(rows, keep, PLAIN, 0, epoch)
        assert sorted(i for batch in found for i in batch) == keep == list(range(50))
        assert len(found) == plan.total_steps(50, PLAIN) == 7 and max(map(len, found)) == 8
    assert held == []


@pytest.mark.parametrize(
    "n, fraction, expected", [(100, 0.05, 5), (3, 0.05, 1), (1, 0.05, 0), (2, 0.9, 1), (10, 0.0, 0)]
)
def test_split(tiny: Model, n: int, fraction: float, expected: int) -> None:
    rows, recipe = make_rows(tiny, n), dataclasses.replace(PLAIN, held_out=fraction)
    keep, held = plan.split_rows(rows, recipe, 0)
    assert len(held) == expected and sorted(keep + held) == list(range(n)) and keep
    assert (keep, held) == plan.split_rows(rows, recipe, 0)
    if expected > 1:
        assert held != plan.split_rows(rows, recipe, 1)[1]


def test_no_rows() -> None:
    with pytest.raises(DataError, match="no rows to train on"):
        plan.split_rows([], PLAIN, 0)
