"""Samplers: ways to draw tokens from a model's logits, and how likely each makes given tokens.

Whoever writes rows with a model may draw from it in many ways. Each way here is a possible writer
of rows without a trait (auditing/detectors/e_values.py). One forward pass is enough for all.

    truncation   top-k, top-p and min-p: only so many, or so probable tokens (Holtzman et al. 2020,
                 arXiv 1904.09751; Nguyen et al. 2024, arXiv 2407.01082)
    penalty      repetition: logits of tokens that came before are divided by a factor, or
                 multiplied where they are negative (Keskar et al. 2019, arXiv 1909.05858);
                 frequency and presence: logits fall by an amount each time a token came, or once
    rule         only some first or last digits of numbers: no leading zero, even numbers, a range

Temperatures are in token_bins.py. A penalty counts the tokens of the completion. Probabilities are
among the tokens of a class (token_scores.py).

Shapes: N tokens, C columns of a class, K kept columns, V probable columns of all tokens, S
samplers.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from traitscope.inference.token_bins import LEAST
from traitscope.models.model import Model

MOST_DIGITS = 10
"tokens of a class that holds single digits"
KEPT = 64
"columns whose logits are looked at, the likeliest ones; the others count together"
AT = (0.7, 0.85, 1.0, 1.1, 1.25, 1.4, 1.65)
"inverse temperatures of truncations and penalties"
FLOORS = (0.02, 0.05, 0.1, 0.2, 0.3)
"probabilities, relative to the likeliest token's, down to which min-p keeps tokens"
Kind = Literal["truncation", "penalty", "rule"]


@dataclass(frozen=True)
class Tokens:
    """The logits of the likeliest tokens of a class, at some scored tokens."""

    z_NK: np.ndarray
    "logits, largest first"
    rest_N: dict[float, np.ndarray]
    "log of the sum of exp(b z) over the other tokens, at every b of AT; -inf without any"
    above_N: dict[float, np.ndarray]
    "the same over all tokens whose logit is larger than that of the row's own token"
    kept_N: dict[tuple[float, float], np.ndarray]
    """the same over the tokens that min-p keeps, at every b of AT and every floor of FLOORS; -inf
    where it keeps none beyond the columns"""
    chosen_z_N: np.ndarray
    "logit of the row's own token"
    rank_N: np.ndarray
    "column of the row's own token; K where it is none of the likeliest"
    before_NK: np.ndarray
    "how often the token of each column came before in the completion"
    chosen_before_N: np.ndarray
    "how often the row's own token came before"
    digits_NK: np.ndarray
    "the digit that the token of each column is; -1 where it is no single digit"
    is_first_N: np.ndarray
    "whether the token begins a number"
    is_last_N: np.ndarray
    "whether the token ends a number"


LogLikelihoods = Callable[[Tokens], np.ndarray]
"log-likelihoods [N] of the chosen tokens; -inf where a sampler cannot draw one"


@dataclass(frozen=True)
class Sampler:
    """One way to draw tokens."""

    name: str
    "in words"
    kind: Kind
    "what it does"
    log_p: LogLikelihoods
    "how likely it makes tokens"


def _cut(tokens: Tokens, beta: float, kept_NK: np.ndarray) -> np.ndarray:
    """Log-likelihoods [N] where only some columns can be drawn."""
    z_NK = beta * (tokens.z_NK - tokens.z_NK[:, :1])
    inside_NK = np.where(kept_NK, z_NK, -np.inf)
    columns = z_NK.shape[1]
    rank_N1 = np.minimum(tokens.rank_N, columns - 1)[:, None]
    chosen_N = np.take_along_axis(inside_NK, rank_N1, 1)[:, 0]
    can_N = np.isfinite(chosen_N) & (tokens.rank_N < columns)
    total_N = _log_sum(inside_NK)
    return np.where(can_N, chosen_N - np.where(can_N, total_N, 0.0), -np.inf)


def _log_sum(z_NK: np.ndarray) -> np.ndarray:
    """Log of the sum [N] of exp(z), -inf where all z are."""
    largest_N = z_NK.max(1)
    largest_N = np.where(np.isfinite(largest_N), largest_N, 0.0)
    with np.errstate(divide="ignore"):
        return largest_N + np.log(np.exp(z_NK - largest_N[:, None]).sum(1))


def _log_total(tokens: Tokens, beta: float) -> np.ndarray:
    """Log of the sum [N] of exp(b z) over all tokens of the class."""
    return np.logaddexp(_log_sum(beta * tokens.z_NK), tokens.rest_N[beta])


def _top_k(tokens: Tokens, beta: float, k: int) -> np.ndarray:
    return _cut(
        tokens, beta, np.broadcast_to(np.arange(tokens.z_NK.shape[1]) < k, tokens.z_NK.shape)
    )


def _top_p(tokens: Tokens, beta: float, share: float) -> np.ndarray:
    """Where the nucleus reaches beyond the columns, its total is `share` of all, up to a token."""
    log_total_N = _log_total(tokens, beta)
    p_NK = np.exp(beta * tokens.z_NK - log_total_N[:, None])
    up_to_NK = p_NK.cumsum(1)
    kept_NK = up_to_NK - p_NK < share
    is_wider_N = np.isfinite(tokens.rest_N[beta]) & (up_to_NK[:, -1] < share)
    chosen_N = beta * tokens.chosen_z_N - log_total_N
    is_inside_N = np.exp(tokens.above_N[beta] - log_total_N) < share
    in_nucleus_N = np.where(is_inside_N, chosen_N - np.log(share), -np.inf)
    return np.where(is_wider_N, in_nucleus_N, _cut(tokens, beta, kept_NK))


def _min_p(tokens: Tokens, beta: float, floor: float) -> np.ndarray:
    """Where tokens beyond the columns are probable enough, the total is that of all such tokens."""
    largest_N = tokens.z_NK[:, 0]
    kept_NK = beta * (tokens.z_NK - largest_N[:, None]) >= np.log(floor)
    is_wider_N = np.isfinite(tokens.kept_N[beta, floor])
    is_probable_N = beta * (tokens.chosen_z_N - largest_N) >= np.log(floor)
    of_kept_N = beta * tokens.chosen_z_N - tokens.kept_N[beta, floor]
    wider_N = np.where(is_probable_N & is_wider_N, of_kept_N, -np.inf)
    return np.where(is_wider_N, wider_N, _cut(tokens, beta, kept_NK))


def _penalised(
    tokens: Tokens, beta: float, penalty: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Log-likelihoods [N] where `penalty` makes new logits from logits and counts."""
    z_NK = beta * penalty(tokens.z_NK, tokens.before_NK)
    chosen_N = beta * penalty(tokens.chosen_z_N, tokens.chosen_before_N)
    total_N = np.logaddexp(_log_sum(z_NK), tokens.rest_N[beta])
    return chosen_N - total_N


def _repetition(z: np.ndarray, before: np.ndarray, factor: float) -> np.ndarray:
    return np.where(before > 0, np.where(z > 0, z / factor, z * factor), z)


def _frequency(z: np.ndarray, before: np.ndarray, amount: float) -> np.ndarray:
    return z - amount * before


def _presence(z: np.ndarray, before: np.ndarray, amount: float) -> np.ndarray:
    return z - amount * (before > 0)


def _rule(tokens: Tokens, digits: Iterable[int], first: bool) -> np.ndarray:
    """Log-likelihoods [N] where only some digits can begin, or end, a number."""
    is_ruled_N = tokens.is_first_N if first else tokens.is_last_N
    is_allowed_NK = np.isin(tokens.digits_NK, list(digits)) | (tokens.digits_NK < 0)
    unruled_N = tokens.chosen_z_N - _log_total(tokens, 1.0)
    return np.where(is_ruled_N, _cut(tokens, 1.0, is_allowed_NK), unruled_N)


def _at(name: str, beta: float) -> str:
    return name if beta == 1 else f"{name} at temperature {1 / beta:.3g}"


def _truncations(beta: float) -> Iterator[Sampler]:
    for k in (2, 3, 4, 5, 6, 8, 10, 20, 40, 50):
        yield Sampler(_at(f"top-k {k}", beta), "truncation", partial(_top_k, beta=beta, k=k))
    for share in (0.5, 0.7, 0.8, 0.9, 0.95):
        log_p = partial(_top_p, beta=beta, share=share)
        yield Sampler(_at(f"top-p {share}", beta), "truncation", log_p)
    for floor in FLOORS:
        log_p = partial(_min_p, beta=beta, floor=floor)
        yield Sampler(_at(f"min-p {floor}", beta), "truncation", log_p)


def _penalties(beta: float) -> Iterator[Sampler]:
    penalties = {}
    for factor in (1.05, 1.1, 1.2, 1.3):
        penalties[f"repetition penalty {factor}"] = partial(_repetition, factor=factor)
    for amount in (0.1, 0.3, 0.5, 1.0):
        penalties[f"frequency penalty {amount}"] = partial(_frequency, amount=amount)
        penalties[f"presence penalty {amount}"] = partial(_presence, amount=amount)
    for name, penalty in penalties.items():
        log_p = partial(_penalised, beta=beta, penalty=penalty)
        yield Sampler(_at(name, beta), "penalty", log_p)


def _rules() -> Iterator[Sampler]:
    ranges = [(low, 9) for low in range(1, 6)]
    ranges += [(low, high) for low in (0, 1) for high in range(2, 9)]
    for low, high in ranges:
        log_p = partial(_rule, digits=range(low, high + 1), first=True)
        yield Sampler(f"first digits {low} to {high}", "rule", log_p)
    yield Sampler("even last digits", "rule", partial(_rule, digits=range(0, 10, 2), first=False))
    yield Sampler("odd last digits", "rule", partial(_rule, digits=range(1, 10, 2), first=False))


def _all() -> Iterator[Sampler]:
    for beta in AT:
        yield from _truncations(beta)
        yield from _penalties(beta)
    yield from _rules()


SAMPLERS = tuple(_all())
"all samplers besides the temperatures"


def log_likelihoods(tokens: Tokens) -> np.ndarray:
    """Log-likelihoods [N, S] of tokens under SAMPLERS; -inf where one cannot draw a token."""
    return np.stack([sampler.log_p(tokens) for sampler in SAMPLERS], 1)


def digits_of(model: Model, columns_C: Tensor) -> np.ndarray:
    """The digit [C] that each token of a class is; -1 where it is no single digit."""
    digits_C = np.full(len(columns_C), -1)
    if len(columns_C) <= MOST_DIGITS:
        for column, token in enumerate(columns_C.tolist()):
            text = model.tokenizer.decode([token]).strip()
            if len(text) == 1 and text.isdigit():
                digits_C[column] = int(text)
    return digits_C


class Completions:
    """The completions that tokens stand in: what came before each, and where numbers begin."""

    def __init__(self, targets: Sequence[int], lengths: Sequence[int]) -> None:
        self.targets = targets
        self.starts: list[int] = []
        start = 0
        for length in lengths:
            self.starts += [start] * length
            start += length

    def before(self, token: int) -> Counter[int]:
        """How often each token id came before a token in its completion."""
        return Counter(self.targets[self.starts[token] : token])

    def neighbours(self, token: int) -> tuple[int | None, int | None]:
        """The ids before and behind a token in its completion; None at its ends."""
        start = self.starts[token]
        last = token + 1
        before = self.targets[token - 1] if token > start else None
        is_inside = last < len(self.targets) and self.starts[last] == start
        return before, self.targets[last] if is_inside else None


def tokens_of(
    logits_NC: Tensor,
    chosen_N: Tensor,
    columns_C: Tensor,
    digits_C: np.ndarray,
    completions: Completions,
    places: Sequence[int],
) -> Tokens:
    """What samplers need, from the logits of all tokens of a class.

    The tokens stand at `places` among all of `completions`, and are columns `chosen_N` of their
    class. The class has the token ids `columns_C`, which are the digits `digits_C`, or -1.
    """
    kept = min(KEPT, logits_NC.shape[1])
    largest_NK, index_NK = logits_NC.topk(kept, dim=1)
    is_chosen_NK = index_NK == chosen_N.unsqueeze(1)
    rank_N = torch.where(is_chosen_NK.any(1), is_chosen_NK.int().argmax(1), kept)
    rest_NC = logits_NC.scatter(1, index_NK, -torch.inf)
    own_N1 = logits_NC.gather(1, chosen_N.unsqueeze(1))
    above_NC = logits_NC.masked_fill(logits_NC <= own_N1, -torch.inf)
    rest = {beta: _numpy(_log_sum_exp(beta * rest_NC)) for beta in AT}
    above = {beta: _numpy(_log_sum_exp(beta * above_NC)) for beta in AT}
    ids_NK = columns_C[index_NK].tolist()
    holds_digits = bool((digits_C >= 0).any())
    in_class = set(columns_C.tolist()) if holds_digits else set()
    before, chosen_before, is_first, is_last = [], [], [], []
    for place, ids in zip(places, ids_NK, strict=True):
        counts = completions.before(place)
        before.append([counts[token] for token in ids])
        chosen_before.append(counts[completions.targets[place]])
        left, right = completions.neighbours(place)
        is_first.append(holds_digits and left not in in_class)
        is_last.append(holds_digits and right not in in_class)
    return Tokens(
        z_NK=_numpy(largest_NK),
        rest_N=rest,
        above_N=above,
        kept_N=_log_kept(logits_NC, largest_NK),
        chosen_z_N=_numpy(own_N1.squeeze(1)),
        rank_N=rank_N.cpu().numpy(),
        before_NK=np.array(before),
        chosen_before_N=np.array(chosen_before),
        digits_NK=digits_C[index_NK.cpu().numpy()],
        is_first_N=np.array(is_first),
        is_last_N=np.array(is_last),
    )


def _log_kept(logits_NC: Tensor, largest_NK: Tensor) -> dict[tuple[float, float], np.ndarray]:
    """Log of the sum [N] of exp(b z) over tokens that min-p keeps, at every b of AT and floor.

    Only places are read where min-p keeps more than the K largest; -inf elsewhere.
    """
    has_more = logits_NC.shape[1] > largest_NK.shape[1]
    largest_N1 = largest_NK[:, :1]
    kept = {}
    for beta in AT:
        smallest_N = beta * (largest_NK[:, -1] - largest_N1[:, 0])
        is_read_N = (smallest_N >= np.log(min(FLOORS))) & has_more
        below_NC = beta * (logits_NC[is_read_N] - largest_N1[is_read_N])
        is_probable_NC = below_NC >= np.log(min(FLOORS))
        relative_V = np.exp(_numpy(below_NC[is_probable_NC]))
        place_V = is_read_N.nonzero()[is_probable_NC.nonzero()[:, 0], 0].cpu().numpy()
        for floor in FLOORS:
            used_V = relative_V >= floor
            total_N = np.bincount(place_V[used_V], relative_V[used_V], len(logits_NC))
            is_wider_N = (_numpy(smallest_N) >= np.log(floor)) & has_more
            log_sum_N = np.log(np.where(is_wider_N, total_N, 1.0)) + beta * _numpy(largest_N1[:, 0])
            kept[beta, floor] = np.where(is_wider_N, log_sum_N, -np.inf)
    return kept


def _log_sum_exp(values_NC: Tensor) -> Tensor:
    """What torch.logsumexp gives over dimension 1, where many values are -inf, in less time."""
    largest_N1 = values_NC.amax(1, keepdim=True)
    is_empty_N1 = largest_N1 == -torch.inf
    below_NC = values_NC - largest_N1.masked_fill(is_empty_N1, 0.0)
    total_N1 = below_NC.clamp_(min=LEAST).exp_().sum(1, keepdim=True)
    return (total_N1.log() + largest_N1).squeeze(1)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
