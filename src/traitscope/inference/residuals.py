"""Mean residuals at a position, per layer: what every vector of this package is made of.

Shapes: B batch, T tokens, L layers, D d_model, N selected tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from traitscope.errors import ConfigError
from traitscope.inference import forward
from traitscope.interventions import hooks
from traitscope.interventions.intervention import Active
from traitscope.interventions.vector import Vector
from traitscope.models.model import Model


# not inference mode: what a layer makes once and keeps must serve a later training step
@torch.no_grad()
def mean_residuals(
    model: Model,
    active: Active,
    prompts: Sequence[Sequence[int]],
    position: str = "last",
    batch_size: int = 32,
    done: Callable[[int], None] | None = None,
    prompt_lengths: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean residual [L, D] and mean residual norm [L] over the tokens at `position` of rendered
    prompts.

    With prompt_lengths, what follows that many tokens of a row is its completion. Token-weighted
    for `prompt`, `completion` and `all`; one token a row for `last` (Blank et al., arXiv
    2606.00995, §3). Sums run in float64, so the order of the batches does not show. Edits of
    `active` are in the residuals.
    """
    found_SLD, norms_SL = _means(model, active, prompts, position, batch_size, done, prompt_lengths)
    return found_SLD[0], norms_SL[0]


@torch.no_grad()
def mean_residuals_each(
    model: Model,
    active: Active,
    prompts: Sequence[Sequence[int]],
    position: str = "last",
    batch_size: int = 32,
) -> np.ndarray:
    """Mean residuals [S, L, D] of every one of packed students over the same prompts."""
    return _means(model, active, prompts, position, batch_size)[0]


def _means(
    model: Model,
    active: Active,
    prompts: Sequence[Sequence[int]],
    position: str,
    batch_size: int,
    done: Callable[[int], None] | None = None,
    prompt_lengths: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean residuals [S, L, D] and norms [S, L] of S packed students; S is 1 where none are, or all
    rows are one's."""
    hooks.check_position(position)
    students = 1 if active.pack is None or active.pack.alone is not None else active.pack.size
    total_SLD = torch.zeros(students, model.n_layers, model.d_model, dtype=torch.float64)
    norms_SL, count = torch.zeros(students, model.n_layers, dtype=torch.float64), 0
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        rows = [prompts[i] for i in picked]
        lengths = (
            [len(r) for r in rows]
            if prompt_lengths is None
            else [prompt_lengths[i] for i in picked]
        )
        for layer, picked_ND in _picked(
            model, active, rows * students, position, lengths * students
        ).items():
            for student, own_ND in enumerate(picked_ND.chunk(students)):
                total_SLD[student, layer] += own_ND.sum(0)
                norms_SL[student, layer] += own_ND.norm(dim=1).sum()
        count += len(own_ND)
        if done:
            done(len(rows))
    return (total_SLD / count).numpy(), (norms_SL / count).numpy()


@torch.no_grad()
def components(
    model: Model,
    active: Active,
    prompts: Sequence[Sequence[int]],
    n: int,
    position: str = "last",
    batch_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """The n leading principal components [n, L, D] of the residuals at `position`, as long as their
    standard deviation, and the share of the variance that each explains [n, L].

    Of the two signs, that with the largest coordinate positive. Raises ConfigError for fewer than n
    + 1 tokens.
    """
    hooks.check_position(position)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    parts: list[list[Tensor]] = [[] for _ in range(model.n_layers)]
    for start in range(0, len(order), batch_size):
        rows = [prompts[i] for i in order[start : start + batch_size]]
        for layer, picked_ND in _picked(
            model, active, rows, position, [len(r) for r in rows]
        ).items():
            parts[layer].append(picked_ND)
    tokens = sum(map(len, parts[0]))
    if tokens <= n:
        raise ConfigError(
            f"{n} components of {tokens} tokens; expected at least {n + 1}: average over more"
            " prompts"
        )
    found_NLD, share_NL = (
        np.empty((n, model.n_layers, model.d_model)),
        np.empty((n, model.n_layers)),
    )
    for layer, residuals in enumerate(parts):
        all_ND = torch.cat(residuals).numpy()
        _, sizes, rows = np.linalg.svd(all_ND - all_ND.mean(0), full_matrices=False)
        top = rows[np.arange(n), np.abs(rows[:n]).argmax(1)]
        found_NLD[:, layer] = rows[:n] * (np.sign(top) * sizes[:n] / np.sqrt(tokens - 1))[:, None]
        share_NL[:, layer] = sizes[:n] ** 2 / (sizes**2).sum()
    return found_NLD, share_NL


def _picked(
    model: Model, active: Active, rows: list, position: str, lengths: list[int]
) -> dict[int, Tensor]:
    """Residuals [N, D] in float64 of the tokens at `position`, by layer; what all rows share runs
    once if it is not asked for.

    A prefill takes as many passes as it likes; every one adds its tokens.
    """
    with hooks.collected(model.blocks, active.roles, position) as store:
        if position == "last":
            forward.prefill(
                model, active, [row[:n] for row, n in zip(rows, lengths, strict=True)], 0
            )
        else:
            forward.rows_hidden(model, active, rows, lengths, share=position == "completion")
    return {layer: torch.cat(parts).double().cpu() for layer, parts in store.items()}


def difference(
    model: Model, with_: np.ndarray, without: np.ndarray, norms_L: np.ndarray, about: dict
) -> Vector:
    """The vector with_ - without [L, D], remembering the residual norms that a relative strength
    refers to."""
    return Vector(
        with_ - without, model.digest, {**about, "residual_norms": [float(n) for n in norms_L]}
    )
