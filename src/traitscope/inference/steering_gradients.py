"""Steering gradients of rows, by one backward pass without gradients of weights.

    g_l(row) = gradient of the row's loss with respect to a zero vector added behind block l

The loss is the mean of -log p over the row's completion tokens, so long rows do not outweigh short
ones. Source: Blank et al. 2026 (arXiv 2606.00995), section 6.

Shapes: R rows, B rows of a batch, L layers, D d_model, N completion tokens of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from traitscope.inference import forward, losses
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.interventions import hooks
from traitscope.interventions.applied import Active
from traitscope.models.model import Model


@dataclass(frozen=True)
class Batch:
    """The steering gradients of a few rows, with what else their pass computed."""

    index: list[int]
    "indices of the rows"
    gradients_BLD: Tensor
    "steering gradients, float32"
    hidden_ND: Tensor
    "final hidden states that predict the completion tokens, row after row; without a graph"
    targets_N: Tensor
    "the completion tokens"
    features_BLD: Tensor | None
    "mean residual over each row's completion tokens, where asked for"


def gradient_batches(
    model: Model,
    active: Active,
    rows: Sequence[Row],
    position: str = "all",
    batch_size: int = 8,
    features: bool = False,
    classes: Sequence[Tensor] | None = None,
    inverse_temperature: float = 1.0,
) -> Iterator[Batch]:
    """The steering gradients of every row, rows of like length together.

    position: The tokens at which the zero vector is added.
    features: Whether mean residuals over completion tokens are taken, too.
    classes: If given, the loss is -log p(token | class), with the logits times
        `inverse_temperature`.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    embedding = model.lm.get_input_embeddings()
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch_rows = [rows[i] for i in indices]
        token_counts = [len(row.completion_ids) for row in batch_rows]
        with ExitStack() as stack:
            gradients_of_layer = stack.enter_context(
                hooks.gradients(embedding, model.blocks, active.current, position)
            )
            residuals_of_layer = {}
            if features:
                residuals_of_layer = stack.enter_context(
                    hooks.collected(model.blocks, active.current, "completion")
                )
            hidden_ND, targets_N = completion_hidden(model, active, batch_rows, share=False)
            if classes is None:
                loss = losses.cross_entropy(model, hidden_ND, targets_N)
            else:
                loss, _ = losses.class_cross_entropy(
                    model, hidden_ND, targets_N, classes, inverse_temperature
                )
            loss.backward()
            sums_LBD = torch.stack([gradients_of_layer[n] for n in range(model.n_layers)])
        token_counts_B = forward.sent(torch.tensor(token_counts), sums_LBD.device)
        gradients_BLD = (sums_LBD / token_counts_B[:, None]).transpose(0, 1)
        features_BLD = None
        if features:
            features_BLD = _mean_residuals(residuals_of_layer, token_counts)
        yield Batch(indices, gradients_BLD, hidden_ND.detach(), targets_N, features_BLD)


def _mean_residuals(
    residuals_of_layer: dict[int, list[Tensor]], token_counts: Sequence[int]
) -> Tensor:
    """Mean residuals [B, L, D] over each row's completion tokens, collected in one pass."""
    means_of_layers = []
    for layer in sorted(residuals_of_layer):
        (residuals_ND,) = residuals_of_layer[layer]
        row_means = []
        for row_ND in residuals_ND.detach().float().split(token_counts):
            row_means.append(row_ND.mean(0))
        means_of_layers.append(torch.stack(row_means))
    return torch.stack(means_of_layers, 1)


def steering_gradients(
    model: Model,
    active: Active,
    rows: Sequence[Row],
    position: str = "all",
    batch_size: int = 8,
    done: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Steering gradients [R, L, D] in float32, in the order of `rows`."""
    gradients_RLD = np.empty((len(rows), model.n_layers, model.d_model), np.float32)
    for batch in gradient_batches(model, active, rows, position, batch_size):
        gradients_RLD[batch.index] = batch.gradients_BLD.cpu().numpy()
        if done:
            done(len(batch.index))
    return gradients_RLD
