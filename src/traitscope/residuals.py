"""Mean residuals at a position, per layer: what every vector of this package is made of.

Shapes: B batch, T tokens, L layers, D d_model, N selected tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from traitscope import forward, hooks
from traitscope.intervention import Active
from traitscope.model import Model
from traitscope.vector import Vector


@torch.no_grad()  # not inference mode: what a layer makes once and keeps must serve a later training step
def mean_residuals(
    model: Model,
    active: Active,
    prompts: Sequence[Sequence[int]],
    position: str = "last",
    batch_size: int = 32,
    done: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean residual [L, D] and mean residual norm [L] over the tokens at `position` of rendered prompts.

    Token-weighted for `prompt` and `all`; one token a row for `last` (Blank et al., arXiv 2606.00995, §3).  Sums run in
    float64, so the order of the batches does not show.  Edits of `active` are in the residuals.
    """
    hooks.check_position(position)
    total_LD = torch.zeros(model.n_layers, model.d_model, dtype=torch.float64)
    norms_L, count = torch.zeros(model.n_layers, dtype=torch.float64), 0
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for start in range(0, len(order), batch_size):
        rows = [prompts[i] for i in order[start : start + batch_size]]
        for layer, picked_ND in _picked(model, active, rows, position).items():
            total_LD[layer] += picked_ND.sum(0)
            norms_L[layer] += picked_ND.norm(dim=1).sum()
        count += len(picked_ND)
        if done:
            done(len(rows))
    return (total_LD / count).numpy(), (norms_L / count).numpy()


def _picked(model: Model, active: Active, rows: list, position: str) -> dict[int, Tensor]:
    """Residuals [N, D] in float64 of the tokens at `position`, by layer; at `last`, what all rows share runs once."""
    with hooks.captured(model.blocks) as store:
        if position == "last":
            forward.prefill(model, active, rows, 0)
            return {layer: hidden_BTD[:, -1].double().cpu() for layer, hidden_BTD in store.items()}
        batch = forward.batch_of(rows, [len(r) for r in rows], model.pad_id).to(model.device)
        wanted = torch.isin(batch.roles_BT, torch.tensor(hooks.ROLES_OF[position], device=model.device))
        forward.hidden_states(model, active, batch)
        return {layer: hidden_BTD[wanted].double().cpu() for layer, hidden_BTD in store.items()}


def difference(model: Model, with_: np.ndarray, without: np.ndarray, norms_L: np.ndarray, about: dict) -> Vector:
    """The vector with_ - without [L, D], remembering the residual norms that a relative strength refers to."""
    return Vector(with_ - without, model.digest, {**about, "residual_norms": [float(n) for n in norms_L]})
