"""The compiled passes as differentiable functions of tensors.

All of them take tensors for which `compiled.usable` holds.

Shapes: N tokens, D d_model, V vocabulary, R rank, C columns. In attention B rows, H query heads, K
key-value heads, T queries, S keys, E head size.
"""

from typing import Any

import torch
from torch import Tensor

from traitscope.models.kernels import compiled

LANES = 16
"what the compiled softmax fills keys up to a multiple of"


def _check(is_right: bool, what: str) -> None:
    """Raise ValueError for shapes that a pass would read or write beyond the end of."""
    if not is_right:
        raise ValueError(f"{what}; a pass over memory needs shapes that fit; correct the caller")


def norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """weight x / sqrt(mean x^2 + eps) over the last dimension."""
    _check(x.shape[-1:] == weight_D.shape, f"{tuple(x.shape)} and a weight {tuple(weight_D.shape)}")
    if torch.is_grad_enabled():
        return _Norm.apply(x, weight_D, eps)
    return _normed(x.contiguous(), weight_D.contiguous(), eps)[0]


def _normed(x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of contiguous x, and 1 / sqrt(mean x^2 + eps) of every row."""
    y = torch.empty_like(x)
    width = x.shape[-1]
    inverse_N = x.new_empty(x.numel() // width, dtype=torch.float32)
    compiled.call("norm", x.dtype, x, weight_D, y, inverse_N, len(inverse_N), width, eps)
    return y, inverse_N


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        x, weight_D = x.contiguous(), weight_D.contiguous()
        y, inverse_N = _normed(x, weight_D, eps)
        ctx.save_for_backward(x, weight_D, inverse_N)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight_D, inverse_N = ctx.saved_tensors
        grad, grad_x = grad.contiguous(), torch.empty_like(x)
        width = x.shape[-1]
        compiled.call(
            "norm_back", x.dtype, grad, x, weight_D, inverse_N, grad_x, len(inverse_N), width
        )
        grad_weight_D = None
        if ctx.needs_input_grad[1]:
            unit_ND = x.reshape(-1, width).float() * inverse_N.unsqueeze(1)
            grad_weight_D = (grad.reshape(-1, width) * unit_ND).sum(0).to(weight_D.dtype)
        return grad_x, grad_weight_D, None


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up, entry by entry."""
    _check(gate.shape == up.shape, f"a gate {tuple(gate.shape)} for {tuple(up.shape)}")
    if torch.is_grad_enabled():
        return _Gated.apply(gate, up)
    return _gated(gate.contiguous(), up.contiguous())


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up of contiguous tensors."""
    y = torch.empty_like(gate)
    compiled.call("gate", gate.dtype, gate, up, y, *_rows_and_width(gate))
    return y


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        return _gated(gate, up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad = grad.contiguous()
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        tensors = (grad, gate, up, grad_gate, grad_up)
        compiled.call("gate_back", gate.dtype, *tensors, *_rows_and_width(gate))
        return grad_gate, grad_up


def _rows_and_width(x: Tensor) -> tuple[int, int]:
    return x.numel() // x.shape[-1], x.shape[-1]


def takes_angles(x_BHTE: Tensor, cos_BTE: Tensor, sin_BTE: Tensor) -> bool:
    """Whether `rotary` takes these tensors: all entries of a head are turned, for 1 row or B."""
    if x_BHTE.dim() != 4 or x_BHTE.stride(-1) != 1 or x_BHTE.shape[-1] % 2:
        return False
    B, _, T, E = x_BHTE.shape
    shapes = ((1, T, E), (B, T, E))
    is_right = cos_BTE.shape in shapes and sin_BTE.shape == cos_BTE.shape
    is_constant = not (cos_BTE.requires_grad or sin_BTE.requires_grad)
    return is_right and is_constant and compiled.usable(x_BHTE, cos_BTE, sin_BTE)


def rotary(x_BHTE: Tensor, cos_BTE: Tensor, sin_BTE: Tensor) -> Tensor:
    """Rotary position embedding of queries or keys, as contiguous [B, H, T, E].

    Source: Su et al. 2021 (arXiv 2104.09864), halves in the place of pairs, as transformers does.
    """
    _check(takes_angles(x_BHTE, cos_BTE, sin_BTE), "queries or keys whose angles do not fit")
    cos_BTE, sin_BTE = cos_BTE.contiguous(), sin_BTE.contiguous()
    if torch.is_grad_enabled():
        return _Rotary.apply(x_BHTE, cos_BTE, sin_BTE)
    return _turned("rotary", x_BHTE, cos_BTE, sin_BTE, x_BHTE.new_empty(x_BHTE.shape))


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BHTE: Tensor, cos_BTE: Tensor, sin_BTE: Tensor) -> Tensor:
        ctx.save_for_backward(cos_BTE, sin_BTE)
        return _turned("rotary", x_BHTE, cos_BTE, sin_BTE, x_BHTE.new_empty(x_BHTE.shape))

    @staticmethod
    def backward(ctx: Any, grad_BHTE: Tensor) -> tuple[Tensor, None, None]:
        if grad_BHTE.stride(-1) != 1:
            grad_BHTE = grad_BHTE.contiguous()
        B, H, T, E = grad_BHTE.shape
        grad_x_BTHE = grad_BHTE.new_empty(B, T, H, E)  # as the linear map before wants it
        cos_BTE, sin_BTE = ctx.saved_tensors
        into_BHTE = grad_x_BTHE.transpose(1, 2)
        return _turned("rotary_back", grad_BHTE, cos_BTE, sin_BTE, into_BHTE), None, None


def _turned(name: str, x_BHTE: Tensor, cos_BTE: Tensor, sin_BTE: Tensor, y_BHTE: Tensor) -> Tensor:
    """y, into which a pass has written."""
    angle_rows = 0 if len(cos_BTE) == 1 else x_BHTE.shape[2]
    strides = (x_BHTE.stride()[:3], y_BHTE.stride()[:3])
    tensors = (x_BHTE, cos_BTE, sin_BTE, y_BHTE)
    compiled.call(name, x_BHTE.dtype, *tensors, *x_BHTE.shape, angle_rows, *strides)
    return y_BHTE


def attention(
    query_BHTE: Tensor, key_BKSE: Tensor, value_BKSE: Tensor, mask_B1TS: Tensor | None, scale: float
) -> Tensor:
    """softmax(scale q k + mask) v as [B, H, T, E], the softmax in float32.

    The mask has one row or B. It is of the dtype of the queries.
    """
    return _Attention.apply(query_BHTE, key_BKSE, value_BKSE, mask_B1TS, scale)


class _Attention(torch.autograd.Function):
    """Queries of one key-value head stand in one product; only the weights are kept."""

    @staticmethod
    def forward(
        ctx: Any,
        query_BHTE: Tensor,
        key_BKSE: Tensor,
        value_BKSE: Tensor,
        mask_B1TS: Tensor | None,
        scale: float,
    ) -> Tensor:
        B, H, T, E = query_BHTE.shape
        K, S = key_BKSE.shape[1:3]
        query = query_BHTE.reshape(B, K, H // K * T, E)
        weights = torch.matmul(query, key_BKSE.transpose(2, 3))
        room = weights.new_empty(B * H, S + LANES, dtype=torch.float32)
        mask_rows = 0
        if mask_B1TS is not None:
            mask_B1TS = mask_B1TS.expand(-1, -1, T, -1).contiguous()
            mask_rows = 0 if len(mask_B1TS) == 1 else T
        sizes = (B, H, T, S, mask_rows, scale)
        compiled.call("softmax", weights.dtype, weights, mask_B1TS, room, *sizes)
        ctx.save_for_backward(query, key_BKSE, value_BKSE, weights)
        ctx.scale = scale
        return torch.matmul(weights, value_BKSE).view(B, H, T, E)

    @staticmethod
    def backward(ctx: Any, grad_BHTE: Tensor) -> tuple[Tensor | None, ...]:
        query, key_BKSE, value_BKSE, weights = ctx.saved_tensors
        grad = grad_BHTE.reshape(query.shape)
        grad_value = torch.matmul(weights.transpose(2, 3), grad)
        grad_scores = torch.matmul(grad, value_BKSE.transpose(2, 3))
        sizes = _rows_and_width(weights)
        compiled.call("softmax_back", weights.dtype, grad_scores, weights, *sizes, ctx.scale)
        grad_query = torch.matmul(grad_scores, key_BKSE).view(grad_BHTE.shape)
        grad_key = torch.matmul(grad_scores.transpose(2, 3), query)
        return grad_query, grad_key, grad_value, None, None


def head_gradient(logits_NV: Tensor, ids_NK: Tensor, shares_NK: Tensor) -> Tensor:
    """Sum over tokens of -sum over k of share log p(id), in nats; logits become its gradient.

    An id may stand twice in a row where all but one of its shares are 0. The loss is not a number
    where an id is none of the vocabulary.
    """
    _check(ids_NK.dtype == torch.long, f"token ids as {ids_NK.dtype}")
    _check(len(ids_NK) == len(logits_NV) and ids_NK.shape == shares_NK.shape, "ids, shares, logits")
    ids_NK, shares_NK = ids_NK.contiguous(), shares_NK.float().contiguous()
    loss_N = logits_NV.new_empty(len(logits_NV), dtype=torch.float32)
    sizes = (*logits_NV.shape, ids_NK.shape[1])
    compiled.call("head", logits_NV.dtype, logits_NV, ids_NK, shares_NK, loss_N, *sizes)
    return loss_N.sum()


def log_probability(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """log p of each target [N] in nats, in float32; not a number for an id that there is not."""
    _check(targets_N.dtype == torch.long, f"token ids as {targets_N.dtype}")
    _check(len(targets_N) == len(logits_NV), "another number of targets than of logits")
    log_p_N = logits_NV.new_empty(len(logits_NV), dtype=torch.float32)
    tensors = (logits_NV, targets_N.contiguous(), log_p_N)
    compiled.call("log_p", logits_NV.dtype, *tensors, *logits_NV.shape)
    return log_p_N


def draw(logits_NV: Tensor, random_N: Tensor, temperature: float) -> Tensor:
    """One index [N] a row, drawn from the softmax of logits / temperature.

    A draw inverts the cumulative softmax at random numbers in [0, 1), given in float64.
    """
    _check(len(random_N) == len(logits_NV), "another number of random numbers than of rows")
    drawn_N = torch.empty(len(logits_NV), dtype=torch.long)
    tensors = (logits_NV, random_N.double().contiguous(), drawn_N)
    compiled.call("draw", logits_NV.dtype, *tensors, *logits_NV.shape, 1 / temperature)
    return drawn_N


def takes_mask(query_BHTE: Tensor, key_BKSE: Tensor, mask: Tensor | None) -> bool:
    """Whether a mask is one that all heads share, of the queries' dtype, or none."""
    if mask is None:
        return True
    B, S = len(query_BHTE), key_BKSE.shape[2]
    shapes = [(rows, 1, T, S) for rows in (1, B) for T in (1, query_BHTE.shape[2])]
    return mask.dtype == query_BHTE.dtype and tuple(mask.shape) in shapes


def attends_one(query_BHTE: Tensor, key_BKSE: Tensor, value_BKSE: Tensor) -> bool:
    """Whether `attention_of_one` takes these tensors: one query, keys as a cache holds them."""
    if query_BHTE.shape[2] != 1:
        return False
    n_heads, _, width = key_BKSE.shape[1:]
    for tensor in (key_BKSE, value_BKSE):
        row, head, token, entry = tensor.stride()
        if (row, token, entry) != (n_heads * head, width, 1) or head != key_BKSE.stride(1):
            return False
    return compiled.usable(query_BHTE, key_BKSE, value_BKSE)


def attention_of_one(
    query_BH1E: Tensor, key_BKSE: Tensor, value_BKSE: Tensor, mask_B11S: Tensor | None, scale: float
) -> Tensor:
    """Attention [B, H, 1, E] of the newest token, as in `attention`, without a gradient."""
    B, H, _, E = query_BH1E.shape
    K, S = key_BKSE.shape[1:3]
    query, out = query_BH1E.contiguous(), torch.empty_like(query_BH1E.contiguous())
    mask_rows = 0
    if mask_B11S is not None:
        mask_B11S = mask_B11S.contiguous()
        mask_rows = 0 if len(mask_B11S) == 1 else 1
    sizes = (B * K, K, H // K, S, E, key_BKSE.stride(1), mask_rows, scale)
    compiled.call("attend", query.dtype, query, key_BKSE, value_BKSE, mask_B11S, out, *sizes)
    return out


def factor_gradient(thin_NR: Tensor, wide_NC: Tensor, scale: float = 1.0) -> Tensor:
    """scale thin' wide as [R, C] in float32: the gradient of a low-rank factor."""
    if not compiled.usable(thin_NR, wide_NC):
        return (thin_NR.t() @ wide_NC).float() * scale
    _check(len(thin_NR) == len(wide_NC), "factors of different numbers of tokens")
    thin_NR, wide_NC = thin_NR.contiguous(), wide_NC.contiguous()
    rank, columns = thin_NR.shape[1], wide_NC.shape[1]
    out_RC = thin_NR.new_empty(rank, columns, dtype=torch.float32)
    sizes = (len(thin_NR), rank, columns, scale)
    compiled.call("factor", thin_NR.dtype, thin_NR, wide_NC, out_RC, *sizes)
    return out_RC
