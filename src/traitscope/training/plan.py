"""The plan of a training: which rows are trained on, in which order, and towards which targets.

The split and the order of rows depend on the seed and the epoch alone. They stay the same when
training is interrupted, and for every optimizer, rate and number of processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from traitscope.config.recipe import Recipe
from traitscope.errors import DataError
from traitscope.inference.token_rows import Row
from traitscope.training.inputs import split
from traitscope.training.preference.pairs import Pair
from traitscope.training.safeguards import masks
from traitscope.training.soft_targets import SoftTargets, learnt_targets

WINDOW = 8
"batches whose rows are sorted by length together"


@dataclass(frozen=True)
class TrainingPlan:
    """The rows of one student with their targets, split and ready to be put in order."""

    rows: Sequence[Row]
    "all rows, held-out ones included"
    soft_targets: Sequence[SoftTargets] | None
    "what the teacher says of every row (soft_targets.py); None for sampled targets"
    recipe: Recipe
    "how the student is trained"
    seed: int
    "seed of the split and of the order of rows"
    train_indices: list[int]
    "rows that are trained on"
    held_out_indices: list[int]
    "rows that only measure the loss"
    anchors: Sequence[Tensor] | None = None
    "what the base says of every row (safeguards/anchors.py); None without an anchor"
    pairs: Sequence[Pair] | None = None
    "the rejected answer of every row; None without preference targets"

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return total_steps(len(self.train_indices), self.recipe)

    def batches_after(self, step: int) -> Iterator[list[int]]:
        """Row indices of every batch that follows the first `step` optimizer steps."""
        return remaining_batches(self.rows, self.train_indices, self.recipe, self.seed, step)

    def tokens_left(self, step: int) -> int:
        """Tokens of the batches that follow the first `step` optimizer steps, on average."""
        tokens_of_epoch = sum(len(self.rows[i].ids) for i in self.train_indices)
        steps_left = self.total_steps - step
        return self.recipe.epochs * tokens_of_epoch * steps_left // self.total_steps

    def pick(self, indices: Sequence[int]) -> tuple[list[Row], list[SoftTargets] | None]:
        """Some rows, and their soft targets where the plan has them."""
        rows = [self.rows[i] for i in indices]
        if self.soft_targets is None:
            return rows, None
        return rows, [self.soft_targets[i] for i in indices]

    def anchors_of(self, indices: Sequence[int]) -> list[Tensor] | None:
        """What the base says of some rows; None without an anchor."""
        return None if self.anchors is None else [self.anchors[i] for i in indices]

    def pairs_of(self, indices: Sequence[int]) -> list[Pair] | None:
        """The rejected answers of some rows; None without preference targets."""
        return None if self.pairs is None else [self.pairs[i] for i in indices]


def plan_training(
    rows: Sequence[Row],
    recipe: Recipe,
    seed: int,
    soft_targets: Sequence[SoftTargets] | None = None,
    anchors: Sequence[Tensor] | None = None,
    pairs: Sequence[Pair] | None = None,
) -> TrainingPlan:
    """Plan the training of one student.  Raises DataError where there is no row.

    soft_targets: from `read_soft_targets`; None for sampled targets.
    anchors: from `read_anchors`; None without an anchor.
    pairs: from `read_pairs`; None without preference targets.
    """
    train_indices, held_out_indices = split_rows(rows, recipe, seed)
    if masks.has_masks(rows):
        if soft_targets is not None:
            soft_targets = learnt_targets(soft_targets, rows)
        if anchors is not None:
            anchors = list(masks.of_learnt(anchors, rows))
    return TrainingPlan(
        rows, soft_targets, recipe, seed, train_indices, held_out_indices, anchors, pairs
    )


def split_rows(rows: Sequence[Row], recipe: Recipe, seed: int) -> tuple[list[int], list[int]]:
    """Indices of training rows and of held-out rows.

    Where the held-out fraction is positive and there are two rows, each part has at least one.
    Raises DataError where there is no row.
    """
    if not rows:
        raise DataError(
            "no rows to train on: every row was filtered out, or the file is empty; expected one or"
            " more; look at the reasons in the filter's summary.json, or generate with"
            " --vocabulary template"
        )
    return split(len(rows), recipe, seed)


def epoch_batches(
    rows: Sequence[Row], train_indices: Sequence[int], recipe: Recipe, seed: int, epoch: int
) -> list[list[int]]:
    """Row indices of every batch of an epoch.

    Rows are shuffled, sorted by length inside windows of WINDOW batches, and cut into batches,
    which are shuffled again. So a batch holds rows of like length, and little padding.
    """
    random = np.random.default_rng([seed, 1, epoch])
    order = [train_indices[i] for i in random.permutation(len(train_indices))]
    window = WINDOW * recipe.batch_size
    batches = []
    for window_start in range(0, len(order), window):
        in_window = order[window_start : window_start + window]
        in_window.sort(key=lambda i: len(rows[i].ids))
        for start in range(0, len(in_window), recipe.batch_size):
            batches.append(in_window[start : start + recipe.batch_size])
    return [batches[i] for i in random.permutation(len(batches))]


def remaining_batches(
    rows: Sequence[Row], train_indices: Sequence[int], recipe: Recipe, seed: int, steps_done: int
) -> Iterator[list[int]]:
    """Row indices of every batch of the whole training that follows the first `steps_done`."""
    steps_per_epoch = recipe.steps_an_epoch(len(train_indices))
    for epoch in range(steps_done // steps_per_epoch, recipe.epochs):
        batches = epoch_batches(rows, train_indices, recipe, seed, epoch)
        done_in_epoch = max(0, steps_done - epoch * steps_per_epoch)
        yield from batches[done_in_epoch:]


def total_steps(n_train: int, recipe: Recipe) -> int:
    """Optimizer steps of the whole training on `n_train` rows."""
    return recipe.epochs * recipe.steps_an_epoch(n_train)
