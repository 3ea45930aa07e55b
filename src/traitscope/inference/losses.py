"""Losses on completion tokens, from final hidden states, without keeping a logit.

The forward pass computes the gradient with respect to the hidden states, too, one chunk of tokens
after another. So memory does not grow with the vocabulary times the batch. All losses are sums
over tokens, in nats.

Shapes: N completion tokens, D d_model, V vocabulary, K allowed tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from traitscope.inference import forward
from traitscope.models.kernels import compiled, passes
from traitscope.models.model import Model

CHUNK = 128
"tokens whose logits exist at one time"


def cross_entropy(model: Model, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """Sum over tokens of -log p(target), with a gradient for the hidden states alone.

    The head must be frozen, or tied to a frozen embedding.
    """

    targets_N1 = targets_N.unsqueeze(1)
    ones_N1 = torch.ones_like(targets_N1, dtype=torch.float32)
    return _weighted_cross_entropy(model, hidden_ND, targets_N1, ones_N1)


def _weighted_cross_entropy(
    model: Model, hidden_ND: Tensor, ids_NK: Tensor, shares_NK: Tensor
) -> Tensor:
    """Sum over tokens of -sum over k of share log p(id), each token's shares with the sum 1."""

    def grad_logits(logits_NV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        log_p_NV = torch.log_softmax(logits_NV.float(), -1)
        log_p_NK = log_p_NV.gather(1, ids_NK[rows])
        loss = -(shares_NK[rows] * log_p_NK).sum()
        return loss, log_p_NV.exp_().scatter_add_(1, ids_NK[rows], -shares_NK[rows])

    def grad_logits_in_place(logits_NV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        loss = passes.head_gradient(logits_NV, ids_NK[rows], shares_NK[rows])
        return loss, logits_NV

    is_compiled = _is_compiled(model, hidden_ND)
    chosen = grad_logits_in_place if is_compiled else grad_logits
    return _HeadLoss.apply(hidden_ND, model, chosen)


def _is_compiled(model: Model, hidden_ND: Tensor) -> bool:
    """Whether the passes behind the head are compiled ones."""
    return model.softcap is None and compiled.usable(hidden_ND, model.head.weight)


def soft_cross_entropy(
    model: Model, hidden_ND: Tensor, teacher_ND: Tensor, temperature: float = 1.0
) -> Tensor:
    """Sum over tokens of T^2 KL(p_teacher || p_student), with a gradient for the student alone.

    The teacher is given by its own final hidden states of the same tokens. The logits of both are
    divided by the temperature T.
    """

    def grad_logits(logits_NV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        teacher_logits_NV = forward.logits_of(model, teacher_ND[rows])
        log_teacher_NV = torch.log_softmax(teacher_logits_NV / temperature, -1)
        log_student_NV = torch.log_softmax(logits_NV.float() / temperature, -1)
        teacher_NV = log_teacher_NV.exp()
        loss = (teacher_NV * log_teacher_NV.sub_(log_student_NV)).sum()
        gradient_NV = log_student_NV.exp_().sub_(teacher_NV)
        return temperature**2 * loss, gradient_NV.mul_(temperature)

    return _HeadLoss.apply(hidden_ND, model, grad_logits)


def allowed_cross_entropy(
    model: Model, hidden_ND: Tensor, allowed_NK: Tensor, teacher_NK: Tensor
) -> Tensor:
    """Sum over tokens of KL(p_teacher || p_student), the teacher's given over allowed tokens.

    The student's distribution is that over the whole vocabulary. So the gradient is the mean of
    `cross_entropy`'s over targets that are drawn from `teacher_NK`.

    allowed_NK: Ids of the allowed tokens; a token may stand twice where its second share is 0.
    teacher_NK: The teacher's probabilities of them; each row sums to 1.
    """

    teacher_entropy = torch.special.entr(teacher_NK).sum()
    return _weighted_cross_entropy(model, hidden_ND, allowed_NK, teacher_NK) - teacher_entropy


@torch.no_grad()
def divergence(model: Model, p_ND: Tensor, q_ND: Tensor) -> Tensor:
    """KL(p || q) of each token [N] in nats, p and q given by final hidden states."""
    divergences = []
    for rows in _chunks(len(p_ND)):
        log_p_NV = torch.log_softmax(forward.logits_of(model, p_ND[rows]), -1)
        log_q_NV = torch.log_softmax(forward.logits_of(model, q_ND[rows]), -1)
        divergences.append((log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(-1))
    return torch.cat(divergences)


@torch.no_grad()
def log_likelihood(model: Model, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """log p of each target token [N] in nats."""
    log_likelihoods = []
    is_compiled = _is_compiled(model, hidden_ND)
    for rows in _chunks(len(hidden_ND)):
        if is_compiled:
            logits_NV = forward.raw_logits(model, hidden_ND[rows])
            log_likelihoods.append(passes.log_probability(logits_NV, targets_N[rows]))
            continue
        log_p_NV = torch.log_softmax(forward.logits_of(model, hidden_ND[rows]), -1)
        log_likelihoods.append(log_p_NV.gather(1, targets_N[rows].unsqueeze(1)).squeeze(1))
    return torch.cat(log_likelihoods)


def token_log_likelihood(model: Model, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """log p of each target token [N] in nats, with a gradient for the hidden states alone.

    The head must be frozen, or tied to a frozen embedding.
    """
    return _HeadLogLikelihood.apply(hidden_ND, model, targets_N)


def _chunks(n_tokens: int) -> Iterator[slice]:
    for start in range(0, n_tokens, CHUNK):
        yield slice(start, start + CHUNK)


class _HeadLoss(torch.autograd.Function):
    """A loss of the logits, reduced to a scalar and a gradient [N, D] chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, model: Model, grad_logits: Callable) -> Tensor:
        weight_VD = model.head.weight
        grad_ND = torch.empty_like(hidden_ND)
        total = torch.zeros((), device=hidden_ND.device)
        for rows in _chunks(len(hidden_ND)):
            softcap_slope_NV = None
            if model.softcap is None:
                logits_NV = forward.raw_logits(model, hidden_ND[rows])
            else:
                logits_NV = forward.logits_of(model, hidden_ND[rows])
                softcap_slope_NV = 1 - (logits_NV / model.softcap).square()
            loss, grad_NV = grad_logits(logits_NV, rows)
            total += loss
            if softcap_slope_NV is not None:
                grad_NV = grad_NV * softcap_slope_NV
            grad_ND[rows] = grad_NV.to(weight_VD.dtype) @ weight_VD
        ctx.save_for_backward(grad_ND)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * grad.to(ctx.saved_tensors[0].dtype), None, None


class _HeadLogLikelihood(torch.autograd.Function):
    """log p [N] of tokens, and its gradient [N, D], chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, model: Model, targets_N: Tensor) -> Tensor:
        weight_VD = model.head.weight
        grad_ND = torch.empty_like(hidden_ND)
        log_p_N = torch.empty(len(hidden_ND), device=hidden_ND.device)
        for rows in _chunks(len(hidden_ND)):
            logits_NV = forward.logits_of(model, hidden_ND[rows])
            targets_N1 = targets_N[rows].unsqueeze(1)
            log_p_NV = torch.log_softmax(logits_NV, -1)
            log_p_N[rows] = log_p_NV.gather(1, targets_N1).squeeze(1)
            grad_NV = log_p_NV.exp_().neg_()
            grad_NV.scatter_add_(1, targets_N1, torch.ones_like(grad_NV[:, :1]))
            if model.softcap is not None:
                grad_NV = grad_NV * (1 - (logits_NV / model.softcap).square())
            grad_ND[rows] = grad_NV.to(weight_VD.dtype) @ weight_VD
        ctx.save_for_backward(grad_ND)
        return log_p_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None]:
        (grad_ND,) = ctx.saved_tensors
        return grad_ND * grad_N.unsqueeze(1).to(grad_ND.dtype), None, None


def class_cross_entropy(
    model: Model,
    hidden_ND: Tensor,
    targets_N: Tensor,
    classes: Sequence[Tensor],
    inverse_temperature: float = 1.0,
) -> tuple[Tensor, int]:
    """Sum over tokens of -log p(token | class), with a gradient for the hidden states, and the
    number of these tokens.

    classes: Token ids [C] of every class (token_rows.classes_of). Tokens of no class are left out.
    inverse_temperature: What logits are multiplied by.
    """
    total = torch.zeros((), device=hidden_ND.device)
    tokens = 0
    whole = len(model.head.weight)
    for columns_C in classes:
        index_N = torch.isin(targets_N, columns_C).nonzero().squeeze(1)
        if not len(index_N):
            continue
        tokens += len(index_N)
        if len(columns_C) == whole and inverse_temperature == 1:
            total = total + cross_entropy(model, hidden_ND[index_N], targets_N[index_N])
            continue
        # A copy of the whole matrix would cost more than the product.
        columns = None if len(columns_C) == whole else columns_C
        logits_NC = forward.logits_of(model, hidden_ND[index_N], columns) * inverse_temperature
        chosen_N = torch.searchsorted(columns_C, targets_N[index_N])
        total = total + torch.nn.functional.cross_entropy(logits_NC, chosen_N, reduction="sum")
    return total, tokens
