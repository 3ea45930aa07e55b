"""Attention for every family that uses transformers' attention interface.

On a CPU it is batched products and one compiled pass where a gradient is taken, and in half
precision while the scores are few. There torch's fused kernel takes two to four times as long, and
its backward pass is slow for short rows. It serves for the rest. Grouped keys and values are never
repeated in memory on a CPU, and repeating them takes most of a decoding step. On CUDA the fused
kernel is used throughout. The results equal those of transformers' `eager` up to rounding, which is
tested on three families.

Shapes: B batch, H query heads, K key-value heads, G = H/K, T queries, S keys, E head size.
W is the head size of values. It is E in most families.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.errors import ModelError
from traitscope.models.kernels import compiled, passes

NAME = "traitscope"
"name of this attention for transformers' `attn_implementation`"
UNSUPPORTED = ("s_aux", "position_bias")
"further terms of attention scores, which a few families pass"

MOST_SCORES = 2**26
"scores of one layer up to which they are written to memory, 128 MiB in half precision"

_as_in_training: ContextVar[bool] = ContextVar("_as_in_training", default=False)


@contextmanager
def as_in_training() -> Iterator[None]:
    """Compute attention here as where gradients are taken, to the last bit.

    A student that equals its teacher then has a gradient of zero. With another rounding it has a
    small one, which an adaptive optimizer makes large.
    """
    token = _as_in_training.set(True)
    try:
        yield
    finally:
        _as_in_training.reset(token)


def register() -> None:
    """Make this attention known to transformers under NAME; harmless when repeated."""
    from transformers.masking_utils import AttentionMaskInterface, eager_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, eager_mask)


def grouped_attention(
    module: nn.Module,
    query_BHTE: Tensor,
    key_BKSE: Tensor,
    value_BKSW: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """softmax(q k / sqrt(E) + mask) v, with the softmax in fp32. Returns ([B, T, H, W], None).

    Raises ModelError for a family that adds other terms to the scores.
    """
    for name in UNSUPPORTED:
        if unused.get(name) is not None:
            raise ModelError(
                f"{type(module).__name__} adds {name} to its attention scores, which is not"
                " supported; use another family"
            )
    B, H, T, E = query_BHTE.shape
    K, S = key_BKSE.shape[1:3]
    scale = E**-0.5 if scaling is None else scaling
    mask = None if attention_mask is None else attention_mask[..., :S]
    if query_BHTE.is_cuda and softcap is None:
        return _fused(query_BHTE, key_BKSE, value_BKSW, mask, scale).transpose(1, 2), None
    if not (torch.is_grad_enabled() or _as_in_training.get() or softcap is not None):
        out = _without_gradient(query_BHTE, key_BKSE, value_BKSW, mask, scale)
        return out.transpose(1, 2), None
    fits = _of_one_size(key_BKSE, value_BKSW) and compiled.usable(query_BHTE, key_BKSE, value_BKSW)
    if softcap is None and fits and passes.takes_mask(query_BHTE, key_BKSE, mask):
        out = passes.attention(query_BHTE, key_BKSE, value_BKSW, mask, scale)
        return out.transpose(1, 2), None
    q = (query_BHTE * scale).reshape(B, K, H // K * T, E)
    scores = torch.matmul(q, key_BKSE.transpose(2, 3))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = (scores.view(B, K, H // K, T, S) + mask.unsqueeze(1)).view(B, K, H // K * T, S)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query_BHTE.dtype)
    out = torch.matmul(weights, value_BKSW).view(B, H, T, -1)
    return out.transpose(1, 2), None


def _without_gradient(
    query_BHTE: Tensor, key_BKSE: Tensor, value_BKSW: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Attention [B, H, T, W] without a gradient, all queries of a key-value head at once."""
    takes_mask = passes.takes_mask(query_BHTE, key_BKSE, mask)
    takes_mask = takes_mask and _of_one_size(key_BKSE, value_BKSW)
    if takes_mask and passes.attends_one(query_BHTE, key_BKSE, value_BKSW):
        return passes.attention_of_one(query_BHTE, key_BKSE, value_BKSW, mask, scale)
    B, H, T, E = query_BHTE.shape
    K, S = key_BKSE.shape[1:3]
    is_faster = query_BHTE.dtype == torch.bfloat16 and B * H * T * S <= MOST_SCORES
    if is_faster and takes_mask and compiled.usable(query_BHTE, key_BKSE, value_BKSW):
        return passes.attention(query_BHTE, key_BKSE, value_BKSW, mask, scale)
    q = query_BHTE.reshape(B, K, H // K * T, E)
    if mask is not None:
        mask = mask.expand(-1, -1, T, -1).repeat(1, 1, H // K, 1)
    out = nn.functional.scaled_dot_product_attention(
        q, key_BKSE, value_BKSW, attn_mask=mask, scale=scale
    )
    return out.reshape(B, H, T, -1)


def _of_one_size(key_BKSE: Tensor, value_BKSW: Tensor) -> bool:
    """Whether keys and values are equally wide, which the compiled passes expect."""
    return key_BKSE.shape[-1] == value_BKSW.shape[-1]


def _fused(
    query_BHTE: Tensor, key_BKSE: Tensor, value_BKSW: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Attention [B, H, T, W] by torch's fused kernels.

    They take a mask or grouped heads. Given both, torch writes all scores to memory, so here keys
    and values are repeated then.
    """
    groups = query_BHTE.shape[1] // key_BKSE.shape[1]
    if mask is not None and groups > 1:
        key_BKSE = key_BKSE.repeat_interleave(groups, 1)
        value_BKSW = value_BKSW.repeat_interleave(groups, 1)
        groups = 1
    return nn.functional.scaled_dot_product_attention(
        query_BHTE, key_BKSE, value_BKSW, attn_mask=mask, scale=scale, enable_gqa=groups > 1
    )
