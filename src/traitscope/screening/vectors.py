"""The vector from the model to the teacher, by layer, and how much of their difference it has.

    v[l] = mean over prompts of h_l(teacher, x) - h_l(model, x)

at the last token of the prompt, over number prompts and over questions with the answer's stem
(Blank et al. 2026, arXiv 2606.00995, section 3). The share of the mean is the part of the squared
differences that lies along it. The mean is that of the other half of the prompts, so it is no
larger for few prompts. The first component is the best direction for all prompts, an upper bound.

A single vector is then added to the model behind one block at every token. Its fraction of KL
explained is 1 - KL(teacher || model + vector) / KL(teacher || model). Block and strength are chosen
on one half of the rows, or of the questions, and tested on the other.

Shapes: N prompts, L layers, D d_model, X rows or questions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from traitscope.inference import residuals
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import Vector
from traitscope.models import chat
from traitscope.screening.sides import Side, Sides
from traitscope.stats import estimates
from traitscope.stats.measurement import Measurement

Divergence = Callable[[Sequence[Steer], Sequence[int]], np.ndarray]
"""KL(teacher || model under these) [X] of some rows or questions."""


@dataclass(frozen=True)
class Displacement:
    """The vector from the model to the teacher over one set of prompts."""

    vector: Vector
    """Mean difference of residuals."""
    prompts: int
    """Number of prompts."""
    norms_L: np.ndarray
    """Norm of the vector, in mean residual norms of the model."""
    share_L: np.ndarray
    """Share of the squared differences along the mean of the other half of the prompts."""
    first_L: np.ndarray
    """Share along the first component of all prompts."""
    cosine_L: np.ndarray
    """Cosine between the means of the two halves."""


def displacement(
    sides: Sides,
    prompts: Sequence[str],
    stems: Sequence[str],
    batch_size: int,
    done: Callable[[int], None],
) -> Displacement:
    """The vector over prompts, each with the beginning of its answer."""
    teacher_NLD = _residuals(sides.teacher, prompts, stems, batch_size, done)
    model_NLD = _residuals(sides.model, prompts, stems, batch_size, done)
    difference_NLD = teacher_NLD - model_NLD
    norms_L = np.linalg.norm(model_NLD, axis=2).mean(0)
    model = sides.model.model
    about = residuals.provenance(
        model, sides.model.context, "last", residuals.digest_of_prompts(prompts)
    )
    vector = residuals.difference(
        model, teacher_NLD.mean(0), model_NLD.mean(0), norms_L, about | {"of": "a given teacher"}
    )
    share_L, cosine_L = along_mean(difference_NLD)
    return Displacement(
        vector=vector,
        prompts=len(prompts),
        norms_L=np.linalg.norm(difference_NLD.mean(0), axis=1) / np.maximum(norms_L, 1e-12),
        share_L=share_L,
        first_L=along_first(difference_NLD),
        cosine_L=cosine_L,
    )


def _residuals(
    side: Side,
    prompts: Sequence[str],
    stems: Sequence[str],
    batch_size: int,
    done: Callable[[int], None],
) -> np.ndarray:
    rows = []
    for prompt, stem in zip(prompts, stems, strict=True):
        ending = chat.completion_ids(side.model, stem, end_token=False)
        rows += residuals.render_prompts(side.model, [prompt], side.context, ending)
    with applied(side.model, side.interventions) as active:
        return residuals.last_residuals(side.model, active, rows, batch_size, done)


def along_mean(difference_NLD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share [L] of the squared differences along the mean of the other half; 0 without any.

    Also the cosine [L] of both halves' means.
    """
    halves = (difference_NLD[0::2], difference_NLD[1::2])
    means_HLD = np.stack([half.mean(0) for half in halves])
    norms_HL1 = np.linalg.norm(means_HLD, axis=2, keepdims=True)
    units_HLD = means_HLD / np.maximum(norms_HL1, 1e-30)
    along_L = np.zeros(difference_NLD.shape[1])
    for half, unit_LD in zip(halves, units_HLD[::-1], strict=True):
        along_L += (np.einsum("nld,ld->nl", half, unit_LD) ** 2).sum(0)
    whole_L = (difference_NLD**2).sum((0, 2))
    share_L = np.divide(along_L, whole_L, out=np.zeros_like(along_L), where=whole_L > 0)
    return share_L, (units_HLD[0] * units_HLD[1]).sum(1)


def along_first(difference_NLD: np.ndarray) -> np.ndarray:
    """Share [L] of the squared differences along their best direction."""
    shares = []
    for layer in range(difference_NLD.shape[1]):
        sizes = np.linalg.svd(difference_NLD[:, layer], compute_uv=False)
        whole = float((sizes**2).sum())
        shares.append(float(sizes[0] ** 2) / whole if whole else 0.0)
    return np.array(shares)


ROUNDING = 1e-6
"nats that the same computation may differ by, where rows stand beside others"


@dataclass(frozen=True)
class OneVector:
    """How much of the teacher's divergence one vector takes away."""

    block: int
    """Block behind which it is added."""
    strength: float
    """Multiple of it."""
    kl: Measurement
    """KL of the teacher from the model on the tested half, nats."""
    left: Measurement
    """KL of the teacher from the model with the vector, nats."""
    explained: Measurement
    """Fraction of KL explained."""
    tried: int
    """Blocks and strengths that were tried on the other half."""


def one_vector(
    vector: Vector,
    blocks: Sequence[int],
    strengths: Sequence[float],
    n: int,
    divergence: Divergence,
    unit: str,
    of: str,
) -> OneVector | None:
    """The best place and strength of a vector on the even ones of `n`, tested on the odd ones.

    None where the teacher diverges from the model by no more than rounding.
    """
    chosen_on, tested_on = range(0, n, 2), range(1, n, 2)
    kl_X = divergence([], tested_on)
    if kl_X.mean() <= ROUNDING:
        return None
    block, strength, least = blocks[0], strengths[0], math.inf

    def steering(place: int, factor: float) -> list[Steer]:
        acts = vector.rows_LD[place].any()  # a steered teacher changes nothing below its block
        return [Steer(vector, (place,), factor, scale="raw")] if acts else []

    for place, factor in product(blocks, strengths):
        left = float(divergence(steering(place, factor), chosen_on).mean())
        if left < least:
            block, strength, least = place, factor, left
    left_X = divergence(steering(block, strength), tested_on)
    explained = estimates.ratio("of KL explained", (kl_X - left_X).tolist(), kl_X.tolist())
    return OneVector(
        block=block,
        strength=strength,
        kl=estimates.mean_over_units("KL from the model", kl_X.tolist(), unit, of),
        left=estimates.mean_over_units("KL with the vector", left_X.tolist(), unit, of),
        explained=explained,
        tried=len(blocks) * len(strengths),
    )
