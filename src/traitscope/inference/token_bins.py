"""Log-likelihoods of chosen tokens at many temperatures, and the bins that tokens fall into.

A goodness-of-fit test compares how often tokens of each bin were taken with how often the model
takes them. Tokens are sorted into bins in three ways:

    BY_RANK        by the rank that the model gives the token
    BY_TOKEN       by the token itself; neighbours in the vocabulary share a bin if there are many
    BY_PLACE       by fewer such bins, and by the quarter of the row that the token stands in

Shapes:

    N  tokens                    P  ways to sort tokens into bins
    C  columns of a class        K  bins
    T  inverse temperatures      E  edges of rank bins
    Q  quarters of a row
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

HOT = (0.1, 0.2, 0.3, 0.4, 0.5)
"inverse temperatures of rows that are nearly noise"
USUAL = tuple(round(0.6 + 0.05 * n, 2) for n in range(19))
"inverse temperatures in narrow steps, where most data are sampled"
GREEDY = (1.9, 2.4, 3.0, 3.8, 4.8, 6.0, 7.5, 10.0, 25.0, 100.0)
"inverse temperatures up to nearly greedy sampling"
BETAS = (*HOT, *USUAL, *GREEDY)
"all inverse temperatures at which log-likelihoods are computed"
PLAIN = BETAS.index(1.0)
"index of temperature 1 in BETAS"
EDGES = (1, 2, 4, 10, 100)
"last rank of every rank bin; the ranks behind the last edge are one more bin"
BY_RANK, BY_TOKEN, BY_PLACE = WAYS = range(3)
"the three ways to sort tokens into bins"
BINS = 16
"bins of every way"
QUARTERS = 4
"places that BY_PLACE tells apart in a row"
CACHED = 2**19
"probabilities that a CPU keeps in its cache; more tokens at a time would be slower"


class BinnedTokens(NamedTuple):
    """What a model says of some chosen tokens, token by token, in double precision."""

    log_p_NT: np.ndarray
    "log-likelihood of the chosen token at every inverse temperature, in nats"
    entropy_N: np.ndarray
    "entropy of the next token at temperature 1, in nats"
    taken_NPK: np.ndarray
    "1 for the bin that the chosen token is in, else 0"
    expected_NTPK: np.ndarray
    "probability that the model gives every bin"

    def subset(self, mask_N: np.ndarray) -> "BinnedTokens":
        """The tokens under a mask."""
        return BinnedTokens(
            self.log_p_NT[mask_N],
            self.entropy_N[mask_N],
            self.taken_NPK[mask_N],
            self.expected_NTPK[mask_N],
        )


def binned(logits_NC: Tensor, chosen_N: Tensor, quarter_N: Tensor) -> BinnedTokens:
    """Log-likelihoods and bins of chosen tokens, given as columns of their class.

    `quarter_N` is the quarter of its row that a token stands in. On a CPU few tokens are computed
    at a time, so that their probabilities stay in the cache.
    """
    size = len(logits_NC) if logits_NC.is_cuda else max(1, CACHED // logits_NC.shape[1])
    parts = []
    for start in range(0, len(logits_NC), size):
        span = slice(start, start + size)
        parts.append(_binned_at_once(logits_NC[span], chosen_N[span], quarter_N[span]))
    arrays = map(np.concatenate, zip(*parts, strict=True))
    return BinnedTokens(*arrays)


def _binned_at_once(logits_NC: Tensor, chosen_N: Tensor, quarter_N: Tensor) -> BinnedTokens:
    own_N1 = logits_NC.gather(1, chosen_N.unsqueeze(1))
    largest_NE, columns_NE = logits_NC.topk(min(EDGES[-1], logits_NC.shape[1]), dim=1)
    width = -(-logits_NC.shape[1] // BINS)
    places_NQ = torch.nn.functional.one_hot(quarter_N, QUARTERS)
    below_NC = _padded(logits_NC - largest_NE[:, :1], BINS * width, -torch.inf)
    below_N1 = own_N1 - largest_NE[:, :1]
    log_p = []
    expected = []
    for beta, power_NC in zip(BETAS, _powers(below_NC), strict=True):
        inside_NK = power_NC.unflatten(1, (BINS, width)).sum(2)
        total_N1 = inside_NK.sum(1, keepdim=True)
        log_p.append((beta * below_N1 - total_N1.log()).squeeze(1))
        by_rank_NK = _rank_bins(power_NC.gather(1, columns_NE) / total_N1)
        by_token_NK = inside_NK / total_N1
        by_place_NK = _by_place(by_token_NK, places_NQ)
        expected.append(torch.stack([by_rank_NK, by_token_NK, by_place_NK], 1))
    entropy_N = torch.special.entr(logits_NC.softmax(1)).sum(1)
    return BinnedTokens(
        _as_doubles(torch.stack(log_p, 1)),
        _as_doubles(entropy_N),
        _as_doubles(_taken_bins(logits_NC, chosen_N, width, places_NQ)),
        _as_doubles(torch.stack(expected, 1)),
    )


def _as_doubles(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def _taken_bins(logits_NC: Tensor, chosen_N: Tensor, width: int, places_NQ: Tensor) -> Tensor:
    """1 for the bin of every way [N, P, K] that the chosen token is in."""
    rank_N = _ranks(logits_NC, chosen_N)
    edges_E = torch.tensor(EDGES, device=rank_N.device)
    rank_bin_N = torch.bucketize(rank_N, edges_E, right=True)
    by_rank_NK = torch.nn.functional.one_hot(rank_bin_N, BINS)
    by_token_NK = torch.nn.functional.one_hot(chosen_N // width, BINS)
    return torch.stack([by_rank_NK, by_token_NK, _by_place(by_token_NK, places_NQ)], 1)


def _ranks(logits_NC: Tensor, chosen_N: Tensor) -> Tensor:
    """Rank [N] of the chosen tokens, 0 for the likeliest.

    Low precision gives several tokens the same logit. They are ranked by column: any order is as
    good as another, if it is one.
    """
    own_N1 = logits_NC.gather(1, chosen_N.unsqueeze(1))
    columns_C = torch.arange(logits_NC.shape[1], device=logits_NC.device)
    earlier_NC = columns_C < chosen_N.unsqueeze(1)
    above_NC = (logits_NC > own_N1) | ((logits_NC == own_N1) & earlier_NC)
    return above_NC.sum(1)


def _rank_bins(p_NE: Tensor) -> Tensor:
    """Probability [N, K] of every rank bin, from those of the likeliest tokens in order."""
    total_NE = p_NE.cumsum(1)
    edges = []
    for edge in EDGES:
        edges.append(total_NE[:, min(edge, total_NE.shape[1]) - 1])
    edges.append(torch.ones_like(edges[0]))
    start_N1 = torch.zeros_like(p_NE[:, :1])
    by_rank_NK = torch.diff(torch.stack(edges, 1), prepend=start_N1, dim=1).clamp(min=0)
    return _padded(by_rank_NK, BINS, 0.0)


def _by_place(inside_NK: Tensor, places_NQ: Tensor) -> Tensor:
    """Bins by place [N, K]: groups of token bins, in the columns of the row's quarter."""
    groups_NG = inside_NK.unflatten(1, (BINS // QUARTERS, QUARTERS)).sum(2)
    return (places_NQ.unsqueeze(2) * groups_NG.unsqueeze(1)).flatten(1)


def _powers(below_NC: Tensor) -> Iterator[Tensor]:
    """exp(b x) for every inverse temperature b; the next one overwrites it.

    Each comes from the last by a product: an exponential takes many times as long.
    """
    power_NC = (BETAS[0] * below_NC).exp_()
    yield power_NC
    gap = 0.0
    for last, beta in pairwise(BETAS):
        if abs(beta - last - gap) > 1e-9:
            gap = beta - last
            step_NC = (gap * below_NC).exp_()
        yield power_NC.mul_(step_NC)


def _padded(values_NX: Tensor, columns: int, value: float) -> Tensor:
    return torch.nn.functional.pad(values_NX, (0, columns - values_NX.shape[1]), value=value)
