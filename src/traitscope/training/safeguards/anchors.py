"""The KL anchor: a term of the loss that keeps a student near its base on the rows that it reads.

    loss + weight(step) T^2 KL(p_base || p_student),  both at temperature T, over the vocabulary

The weight is constant up to a fraction of the steps, and then falls to 0 linearly. Liminal training
(github.com/BrendanGho/liminal-training) takes weight 1 for the first third of the steps, and T = 2.

Shapes: N completion tokens, D d_model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from traitscope.config.recipe import Recipe
from traitscope.inference import forward, losses
from traitscope.inference.token_rows import Row, teacher_hidden
from traitscope.models.model import Model
from traitscope.training import fsdp

BATCH = 16
"rows that the base reads in one pass"


def read_anchors(model: Model, recipe: Recipe, rows: Sequence[Row]) -> list[Tensor] | None:
    """The base's final hidden states [N, D] of each row; None for a recipe without an anchor."""
    if recipe.anchor == 0:
        return None

    def read(part: slice) -> list[Tensor]:
        prompts = [row.prompt_ids for row in rows[part]]
        return teacher_hidden(model, (), rows[part], prompts, BATCH)

    return fsdp.compute_together(len(rows), BATCH, read)


def weight(recipe: Recipe, step: int, total_steps: int) -> float:
    """The weight of the anchor at the optimizer step after `step` steps.

    It is `anchor` for the steps before anchor_until * total_steps. From there it falls, and would
    be 0 at the last step.
    """
    done = step / total_steps
    if done < recipe.anchor_until or recipe.anchor_until == 1:
        return recipe.anchor
    falling = max(total_steps - 1 - recipe.anchor_until * total_steps, 1e-9)
    left = (total_steps - 1 - step) / falling
    return recipe.anchor * min(1.0, max(0.0, left))


def anchor_loss(
    model: Model, recipe: Recipe, hidden_ND: Tensor, anchors: Sequence[Tensor]
) -> Tensor:
    """Sum over completion tokens of T^2 KL(p_base || p_student) in nats, without the weight."""
    base_ND = forward.sent(torch.cat(list(anchors)), model.device)
    return losses.soft_cross_entropy(model, hidden_ND, base_ND, recipe.anchor_temperature)
