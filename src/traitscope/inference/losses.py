"""Losses on completion tokens, from final hidden states, without keeping a logit.

The gradient with respect to the hidden states is computed in the forward pass, block of tokens by
block of tokens, so memory does not grow with the vocabulary times the batch. Both losses are sums;
divide by the number of tokens.

Shapes: N completion tokens, D d_model, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from traitscope.inference import forward
from traitscope.models.model import Model

BLOCK = 512
"tokens whose logits exist at one time"


def cross_entropy(model: Model, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """Sum over tokens of -log p(target). Needs the head to be frozen or tied to a frozen
    embedding."""

    def grad_logits(logits_NV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        log_p = torch.log_softmax(logits_NV, -1)
        index = targets_N[rows].unsqueeze(1)
        loss = -log_p.gather(1, index).sum()
        return loss, log_p.exp_().scatter_add_(
            1, index, torch.full_like(index, -1.0, dtype=log_p.dtype)
        )

    return _HeadLoss.apply(hidden_ND, model, grad_logits)


def soft_cross_entropy(model: Model, hidden_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Sum over tokens of KL(p_teacher || p_student); the teacher given by its own final hidden
    states."""

    def grad_logits(logits_NV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        log_t = torch.log_softmax(forward.logits_of(model, teacher_ND[rows]), -1)
        log_s = torch.log_softmax(logits_NV, -1)
        t = log_t.exp()
        loss = (t * log_t.sub_(log_s)).sum()
        return loss, log_s.exp_().sub_(t)

    return _HeadLoss.apply(hidden_ND, model, grad_logits)


@torch.no_grad()
def divergence(model: Model, p_ND: Tensor, q_ND: Tensor) -> Tensor:
    """KL(p || q) of each token [N] in nats, p and q given by final hidden states."""
    found = []
    for start in range(0, len(p_ND), BLOCK):
        log_p, log_q = (
            torch.log_softmax(forward.logits_of(model, h[start : start + BLOCK]), -1)
            for h in (p_ND, q_ND)
        )
        found.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(found)


@torch.no_grad()
def log_likelihood(model: Model, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """log p of each target token [N] in nats."""
    found = []
    for start in range(0, len(hidden_ND), BLOCK):
        log_p_NV = torch.log_softmax(forward.logits_of(model, hidden_ND[start : start + BLOCK]), -1)
        found.append(log_p_NV.gather(1, targets_N[start : start + BLOCK].unsqueeze(1)).squeeze(1))
    return torch.cat(found)


class _HeadLoss(torch.autograd.Function):
    """A loss of the logits, reduced to a scalar and a gradient [N, D] at once."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, model: Model, grad_logits: Callable) -> Tensor:
        weight_VD = model.head.weight
        grad_ND = torch.empty_like(hidden_ND)
        total = torch.zeros((), device=hidden_ND.device)
        for start in range(0, len(hidden_ND), BLOCK):
            rows = slice(start, start + BLOCK)
            logits = forward.logits_of(model, hidden_ND[rows])
            slope = None if model.softcap is None else 1 - (logits / model.softcap).square()
            loss, grad_NV = grad_logits(logits, rows)
            total += loss
            grad_NV = grad_NV if slope is None else grad_NV * slope
            grad_ND[rows] = grad_NV.to(weight_VD.dtype) @ weight_VD
        ctx.save_for_backward(grad_ND)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * grad.to(ctx.saved_tensors[0].dtype), None, None
