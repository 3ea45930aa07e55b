"""Steering gradients of rows: one backward pass, no weight gradient; and reading what the stage
`pushes` keeps of them.

    g_l(row) = gradient of the row's loss with respect to a zero vector added behind block l
      (hooks.gradients); the loss is the
               mean of -log p over the row's completion tokens, so long rows do not outweigh short
                 ones

(Blank et al., arXiv 2606.00995, section 6.)

Shapes: R rows, B rows of a batch, L layers, D d_model, N completion tokens of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from traitscope.inference import forward, losses, token_scores
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.inference.token_scores import Choices
from traitscope.interventions import hooks
from traitscope.interventions.intervention import Active
from traitscope.models.model import Model


@dataclass(frozen=True)
class Batch:
    """What one pass over a few rows gives."""

    index: list[int]
    "of the rows"
    gradients_BLD: Tensor
    "float32"
    hidden_ND: Tensor
    "final hidden states that predict the completion tokens, row after row; without a graph"
    targets_N: Tensor
    "those tokens"
    features_BLD: Tensor | None
    "mean residual over each row's completion tokens, where asked for"


def gradient_batches(
    model: Model,
    active: Active,
    rows: Sequence[Row],
    position: str = "all",
    batch_size: int = 8,
    features: bool = False,
) -> Iterator[Batch]:
    """Every row once, rows of like length together; with `features`, what they do to the residual
    stream as well."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    embedding = model.lm.get_input_embeddings()
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        picked = [rows[i] for i in part]
        with ExitStack() as stack:
            store_L = stack.enter_context(
                hooks.gradients(embedding, model.blocks, active.roles, position)
            )
            seen = (
                stack.enter_context(hooks.collected(model.blocks, active.roles, "completion"))
                if features
                else {}
            )
            hidden_ND, targets_N = completion_hidden(model, active, picked, share=False)
            losses.cross_entropy(model, hidden_ND, targets_N).backward()
            grads_LBD = torch.stack([store_L[layer] for layer in range(model.n_layers)])
        lengths = [len(r.completion_ids) for r in picked]
        means = [
            torch.stack([x.mean(0) for x in seen[layer][0].detach().float().split(lengths)])
            for layer in sorted(seen)
        ]
        gradients_BLD = (
            grads_LBD / forward.sent(torch.tensor(lengths), grads_LBD.device)[:, None]
        ).transpose(0, 1)
        yield Batch(
            part,
            gradients_BLD,
            hidden_ND.detach(),
            targets_N,
            torch.stack(means, 1) if features else None,
        )


def steering_gradients(
    model: Model,
    active: Active,
    rows: Sequence[Row],
    position: str = "all",
    batch_size: int = 8,
    done: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Steering gradients [R, L, D] in float32, in the order of `rows`."""
    found = np.empty((len(rows), model.n_layers, model.d_model), np.float32)
    for batch in gradient_batches(model, active, rows, position, batch_size):
        found[batch.index] = batch.gradients_BLD.cpu().numpy()
        if done:
            done(len(batch.index))
    return found


@dataclass(frozen=True)
class Stored:
    """The pushes of a run, read a few rows at a time."""

    folder: Path
    ids: list[str]
    norms_RL: np.ndarray
    loss_R: np.ndarray
    choices: Choices

    def rows(self, index: Sequence[int]) -> np.ndarray:
        """Pushes [len(index), L, D] in float32."""
        whole = np.load(self.folder / "pushes.npy", mmap_mode="r")
        return whole[list(index)].astype(np.float32) * self.norms_RL[list(index)][..., None]

    def features(self, index: Sequence[int]) -> np.ndarray:
        """Mean residuals [len(index), L, D] over completion tokens, of a run with --features."""
        return np.load(self.folder / "features.npy", mmap_mode="r")[list(index)].astype(np.float32)


def read_pushes(folder: Path) -> Stored:
    """What a run of `pushes` left."""
    ids, found = token_scores.read_choices(folder)
    return Stored(folder, ids, np.load(folder / "norms.npy"), np.load(folder / "loss.npy"), found)
