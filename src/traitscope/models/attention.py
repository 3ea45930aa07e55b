"""Attention as plain batched products, for every family that speaks transformers' attention
interface.

Two facts make it worth its lines on a CPU: grouped keys and values are never repeated in memory
(repeating them is most of a decoding step), and the backward pass of the fused CPU kernel is slow
for short rows. On CUDA the fused kernel of torch is used. Equal to transformers' `eager` up to
rounding (tested on three families).

Shapes: B batch, H query heads, K key-value heads, G = H/K, T queries, S keys, E head size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from traitscope.errors import ModelError

NAME = "traitscope"


def register() -> None:
    """Make the name known to transformers; harmless when repeated."""
    from transformers.masking_utils import AttentionMaskInterface, eager_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, eager_mask)


def grouped_attention(
    module: nn.Module,
    query_BHTE: Tensor,
    key_BKSE: Tensor,
    value_BKSE: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """softmax(q k / sqrt(E) + mask) v, softmax in fp32.  Returns ([B, T, H, E], None).

    Raises ModelError for a family that adds other terms to the scores.
    """
    if odd := [name for name in ("s_aux", "position_bias") if unused.get(name) is not None]:
        raise ModelError(
            f"{type(module).__name__} adds {odd[0]} to its attention scores, which is not supported"
        )
    B, H, T, E = query_BHTE.shape
    K, S = key_BKSE.shape[1:3]
    scale = E**-0.5 if scaling is None else scaling
    mask = None if attention_mask is None else attention_mask[..., :S]
    if query_BHTE.is_cuda and softcap is None:
        return _fused(query_BHTE, key_BKSE, value_BKSE, mask, scale).transpose(1, 2), None
    q = (query_BHTE * scale).reshape(B, K, H // K * T, E)
    scores = torch.matmul(q, key_BKSE.transpose(2, 3))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = (scores.view(B, K, H // K, T, S) + mask.unsqueeze(1)).view(B, K, H // K * T, S)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query_BHTE.dtype)
    out = torch.matmul(weights, value_BKSE).view(B, H, T, E)
    return out.transpose(1, 2), None


def _fused(
    query_BHTE: Tensor, key_BKSE: Tensor, value_BKSE: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """The same [B, H, T, E] by torch's fused kernels, which take a mask or grouped heads, not both:
    with both they write all scores out."""
    groups = query_BHTE.shape[1] // key_BKSE.shape[1]
    if mask is not None and groups > 1:
        key_BKSE, value_BKSE, groups = (
            key_BKSE.repeat_interleave(groups, 1),
            value_BKSE.repeat_interleave(groups, 1),
            1,
        )
    return nn.functional.scaled_dot_product_attention(
        query_BHTE, key_BKSE, value_BKSE, attn_mask=mask, scale=scale, enable_gqa=groups > 1
    )
