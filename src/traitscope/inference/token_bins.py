"""Log-likelihoods of chosen tokens at many temperatures, and the bins that tokens fall into.

A goodness-of-fit test compares how often tokens of each bin were taken with how often the model
takes them. Tokens are sorted into bins in three ways:

    BY_RANK        by the rank that the model gives the token
    BY_TOKEN       by the token itself; neighbours in the vocabulary share a bin if there are many
    BY_PLACE       by fewer such bins, and by the quarter of the row that the token stands in

Sums say nothing of some of the rows. So tokens can be kept, to count bins anew (RowBins).

Shapes:

    N  tokens                    P  ways to sort tokens into bins
    C  columns of a class        K  bins
    T  inverse temperatures      E  edges of rank bins
    Q  quarters of a row         R  rows
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from traitscope import array_files

HOT = tuple(round(0.1 + 0.05 * n, 2) for n in range(10))
"inverse temperatures of rows that are nearly noise"
USUAL = tuple(round(0.6 + 0.05 * n, 2) for n in range(19))
"inverse temperatures in narrow steps, where most data are sampled"
GREEDY = (
    *(1.6, 1.7, 1.8, 1.9, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.4, 3.8, 4.2, 4.6, 5.0, 5.8, 6.6, 7.4),
    *(8.2, 9.8, 11.4, 13.0, 16.2, 19.4, 22.6, 29.0, 35.4, 41.8, 54.6, 67.4, 80.2, 100.0),
)
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
LEAST = -80.0
"exponent from which down exp is as good as 0 beside 1; of less it takes a CPU 60 times as long"
TOKENS_FILE = "tokens.npz"
"file of the tokens of a folder with token scores, if they were kept"
CACHED = 2**18
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


def binned(
    logits_NC: Tensor, chosen_N: Tensor, quarter_N: Tensor, betas: Sequence[float] = BETAS
) -> BinnedTokens:
    """Log-likelihoods and bins of chosen tokens, given as columns of their class.

    `quarter_N` is the quarter of its row that a token stands in. `betas` are inverse temperatures,
    rising. On a CPU few tokens are computed at a time, so that their probabilities stay in the
    cache.
    """
    size = len(logits_NC) if logits_NC.is_cuda else max(1, CACHED // logits_NC.shape[1])
    parts = []
    for start in range(0, len(logits_NC), size):
        span = slice(start, start + size)
        parts.append(_binned_at_once(logits_NC[span], chosen_N[span], quarter_N[span], betas))
    arrays = map(np.concatenate, zip(*parts, strict=True))
    return BinnedTokens(*arrays)


def _binned_at_once(
    logits_NC: Tensor, chosen_N: Tensor, quarter_N: Tensor, betas: Sequence[float]
) -> BinnedTokens:
    own_N1 = logits_NC.gather(1, chosen_N.unsqueeze(1))
    largest_NE, columns_NE = logits_NC.topk(min(EDGES[-1], logits_NC.shape[1]), dim=1)
    width = -(-logits_NC.shape[1] // BINS)
    places_NQ = torch.nn.functional.one_hot(quarter_N, QUARTERS)
    below_NC = _padded(logits_NC - largest_NE[:, :1], BINS * width, -torch.inf)
    below_N1 = own_N1 - largest_NE[:, :1]
    inside, likeliest = [], []
    with _without_denormals():
        for power_NC in _powers(below_NC, betas):
            inside.append(power_NC.unflatten(1, (BINS, width)).sum(2))
            likeliest.append(power_NC.gather(1, columns_NE))
    inside_NTK = torch.stack(inside, 1)
    total_NT1 = inside_NTK.sum(2, keepdim=True)
    betas_T = torch.tensor(betas, dtype=logits_NC.dtype, device=logits_NC.device)
    log_p_NT = betas_T * below_N1 - total_NT1.squeeze(2).log()
    by_rank_NTK = _rank_bins(torch.stack(likeliest, 1) / total_NT1)
    by_token_NTK = inside_NTK / total_NT1
    by_place_NTK = _by_place(by_token_NTK, places_NQ.unsqueeze(1))
    every_log_p_NC = logits_NC.log_softmax(1)
    entropy_N = -(every_log_p_NC.exp() * every_log_p_NC).sum(1)
    return BinnedTokens(
        _as_doubles(log_p_NT),
        _as_doubles(entropy_N),
        _as_doubles(_taken_bins(columns_NE, chosen_N, width, places_NQ)),
        _as_doubles(torch.stack([by_rank_NTK, by_token_NTK, by_place_NTK], 2)),
    )


def _as_doubles(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def _taken_bins(columns_NE: Tensor, chosen_N: Tensor, width: int, places_NQ: Tensor) -> Tensor:
    """1 for the bin of every way [N, P, K] that the chosen token is in."""
    rank_N = _ranks(columns_NE, chosen_N)
    edges_E = torch.tensor(EDGES, device=rank_N.device)
    rank_bin_N = torch.bucketize(rank_N, edges_E, right=True)
    by_rank_NK = torch.nn.functional.one_hot(rank_bin_N, BINS)
    by_token_NK = torch.nn.functional.one_hot(chosen_N // width, BINS)
    return torch.stack([by_rank_NK, by_token_NK, _by_place(by_token_NK, places_NQ)], 1)


def _ranks(columns_NE: Tensor, chosen_N: Tensor) -> Tensor:
    """Rank [N] of the chosen tokens among the columns of the likeliest; E where it is not there.

    Tokens of the same logit have any order that does not depend on the chosen one.
    """
    is_chosen_NE = columns_NE == chosen_N.unsqueeze(1)
    behind = torch.full_like(chosen_N, columns_NE.shape[1])
    return torch.where(is_chosen_NE.any(1), is_chosen_NE.int().argmax(1), behind)


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Numbers below the smallest normal one become 0: a CPU takes far longer for them."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _rank_bins(p_NTE: Tensor) -> Tensor:
    """Probability [N, T, K] of every rank bin, from those of the likeliest tokens in order."""
    last_E = torch.tensor(EDGES, device=p_NTE.device).clamp(max=p_NTE.shape[2]) - 1
    inside_NTE = p_NTE.cumsum(2)[:, :, last_E]
    zero_NT1 = torch.zeros_like(p_NTE[:, :, :1])
    edges_NTE = torch.cat([zero_NT1, inside_NTE, zero_NT1 + 1], 2)
    return _padded(edges_NTE.diff(dim=2).clamp(min=0), BINS, 0.0)


def _by_place(inside_XK: Tensor, places_XQ: Tensor) -> Tensor:
    """Bins by place [X, K]: groups of token bins, in the columns of the row's quarter."""
    groups_XG = inside_XK.unflatten(-1, (BINS // QUARTERS, QUARTERS)).sum(-1)
    return (places_XQ.unsqueeze(-1) * groups_XG.unsqueeze(-2)).flatten(-2)


def _powers(below_NC: Tensor, betas: Sequence[float]) -> Iterator[Tensor]:
    """exp(b x) for every inverse temperature b; the next one overwrites it.

    Each comes from the last by a product: an exponential takes many times as long.
    """
    power_NC = _exp(betas[0] * below_NC)
    yield power_NC
    gap = 0.0
    for last, beta in pairwise(betas):
        if abs(beta - last - gap) > 1e-9:
            gap = beta - last
            step_NC = _exp(gap * below_NC)
        yield power_NC.mul_(step_NC)


def _exp(values_NC: Tensor) -> Tensor:
    """exp of values of at most 0, in their place."""
    return values_NC.clamp_(min=LEAST).exp_()


def _padded(values_X: Tensor, columns: int, value: float) -> Tensor:
    return torch.nn.functional.pad(values_X, (0, columns - values_X.shape[-1]), value=value)


class BinSums:
    """Sums over the tokens of one set of rows."""

    def __init__(self) -> None:
        ways, temperatures = len(WAYS), len(BETAS)
        self.excess_surprisal = 0.0
        self.taken_PK = np.zeros((ways, BINS))
        self.expected_TPK = np.zeros((temperatures, ways, BINS))
        self.covariance_TPKK = np.zeros((temperatures, ways, BINS, BINS))

    def add(self, tokens: BinnedTokens) -> None:
        """Add some tokens of the set."""
        expected_TPK = tokens.expected_NTPK.sum(0)
        self.excess_surprisal += float((-tokens.log_p_NT[:, PLAIN] - tokens.entropy_N).sum())
        self.taken_PK = self.taken_PK + tokens.taken_NPK.sum(0)
        self.expected_TPK = self.expected_TPK + expected_TPK
        diagonal_TPKK = np.einsum("tpk,kj->tpkj", expected_TPK, np.eye(BINS))
        products_TPKK = np.einsum(
            "ntpk,ntpj->tpkj", tokens.expected_NTPK, tokens.expected_NTPK, optimize=True
        )
        self.covariance_TPKK = self.covariance_TPKK + (diagonal_TPKK - products_TPKK)


@dataclass(frozen=True)
class ClassTokens:
    """Chosen tokens of one class, with the logits of the whole class."""

    logits_NC: np.ndarray
    "logits of the class, float32"
    chosen_N: np.ndarray
    "column of the chosen token"
    quarter_N: np.ndarray
    "quarter of the row that the token stands in"
    row_N: np.ndarray
    "the token's row"

    @classmethod
    def from_tensors(
        cls, logits_NC: Tensor, chosen_N: Tensor, quarter_N: Tensor, row_N: np.ndarray
    ) -> "ClassTokens":
        """Tokens of the device, in single precision."""
        logits, chosen = logits_NC.float().cpu().numpy(), chosen_N.cpu().numpy()
        return cls(logits, chosen, quarter_N.cpu().numpy(), row_N)

    @classmethod
    def none(cls, columns: int) -> "ClassTokens":
        """No token of a class of so many columns."""
        no_N = np.zeros(0, int)
        return cls(np.zeros((0, columns), np.float32), no_N, no_N, no_N)

    def of_rows(self, rows_R: np.ndarray) -> "ClassTokens":
        """The tokens of some rows, numbered anew; a row counts as often as it is named."""
        order_N = np.argsort(self.row_N, kind="stable")
        sorted_N = self.row_N[order_N]
        first_R = np.searchsorted(sorted_N, rows_R, "left")
        counts_R = np.searchsorted(sorted_N, rows_R, "right") - first_R
        new_N = np.repeat(np.arange(len(rows_R)), counts_R)
        within_N = np.arange(len(new_N)) - np.repeat(np.cumsum(counts_R) - counts_R, counts_R)
        picked_N = order_N[np.repeat(first_R, counts_R) + within_N]
        return ClassTokens(
            self.logits_NC[picked_N], self.chosen_N[picked_N], self.quarter_N[picked_N], new_N
        )

    def from_row(self, first: int) -> "ClassTokens":
        """The same tokens, of rows that are numbered from `first` on."""
        return ClassTokens(self.logits_NC, self.chosen_N, self.quarter_N, self.row_N + first)

    def binned(self, betas: Sequence[float]) -> BinnedTokens:
        """What the model says of the tokens at some inverse temperatures."""
        tensors = map(torch.from_numpy, (self.logits_NC, self.chosen_N, self.quarter_N))
        return binned(*tensors, betas)


def joined(parts: Sequence[ClassTokens]) -> ClassTokens:
    """The tokens of several parts of one class; rows keep the numbers that the parts gave."""
    arrays = {}
    for field in fields(ClassTokens):
        arrays[field.name] = np.concatenate([getattr(part, field.name) for part in parts])
    return ClassTokens(**arrays)


def joined_classes(parts: Sequence[Sequence[ClassTokens]]) -> tuple[ClassTokens, ...]:
    """The tokens of several parts, class by class."""
    return tuple(joined(of_class) for of_class in zip(*parts, strict=True))


@dataclass(frozen=True)
class KeptTokens:
    """Tokens of rows in parts, each in memory or in a folder, from which it is read when needed."""

    parts: tuple[tuple[int, tuple[ClassTokens, ...] | Path], ...]
    "number of rows and tokens of every part"

    def __add__(self, other: "KeptTokens") -> "KeptTokens":
        return KeptTokens(self.parts + other.parts)

    def in_memory(self, rows: Sequence[int] | np.ndarray) -> "KeptTokens":
        """The tokens of some rows as one part."""
        return KeptTokens(((len(rows), self.of_rows(rows)),))

    def of_rows(self, rows: Sequence[int] | np.ndarray) -> tuple[ClassTokens, ...]:
        """The tokens of some rows, numbered in the order in which the rows are named."""
        rows_R = np.asarray(rows, int)
        picked, start = [], 0
        for n_rows, source in self.parts:
            places_R = np.flatnonzero((start <= rows_R) & (rows_R < start + n_rows))
            if len(places_R) or not picked:
                classes = _read_tokens(source) if isinstance(source, Path) else source
                part = [tokens.of_rows(rows_R[places_R] - start) for tokens in classes]
                picked.append([_renumbered(tokens, places_R) for tokens in part])
            start += n_rows
        return joined_classes(picked)


def _renumbered(tokens: ClassTokens, numbers_R: np.ndarray) -> ClassTokens:
    return ClassTokens(tokens.logits_NC, tokens.chosen_N, tokens.quarter_N, numbers_R[tokens.row_N])


def write_tokens(folder: Path, classes: Sequence[ClassTokens]) -> None:
    """Write tokens with the logits of their classes."""
    arrays = {}
    for number, tokens in enumerate(classes):
        for field in fields(ClassTokens):
            arrays[f"{number}.{field.name}"] = getattr(tokens, field.name)
    array_files.write_arrays(folder / TOKENS_FILE, arrays)


def _read_tokens(folder: Path) -> tuple[ClassTokens, ...]:
    arrays = array_files.read_arrays(folder / TOKENS_FILE)
    n_classes = len(arrays) // len(fields(ClassTokens))
    classes = []
    for number in range(n_classes):
        values = {}
        for field in fields(ClassTokens):
            values[field.name] = arrays[f"{number}.{field.name}"]
        classes.append(ClassTokens(**values))
    return tuple(classes)


class Bins(NamedTuple):
    """Tokens by bin, of one way to sort them and at one inverse temperature."""

    taken_K: np.ndarray
    "number of tokens taken from every bin"
    expected_K: np.ndarray
    "expected number"
    covariance_KK: np.ndarray
    "covariance of the numbers"


@dataclass(frozen=True)
class RowBins:
    """Token scores of some rows, counted anew from their tokens; `+` joins two sets of rows."""

    log_p_RT: np.ndarray
    "log-likelihood of every row's tokens at every inverse temperature, in nats"
    tokens_R: np.ndarray
    "number of scored tokens of every row"
    classes: tuple[ClassTokens, ...]
    "the tokens, class by class"

    def __add__(self, other: "RowBins") -> "RowBins":
        moved = [tokens.from_row(len(self.tokens_R)) for tokens in other.classes]
        return RowBins(
            np.concatenate([self.log_p_RT, other.log_p_RT]),
            np.concatenate([self.tokens_R, other.tokens_R]),
            joined_classes([self.classes, moved]),
        )

    @property
    def _taken_classes(self) -> list[ClassTokens]:
        """The classes of which a token was taken."""
        return [tokens for tokens in self.classes if len(tokens.chosen_N)]

    @cached_property
    def excess_surprisal(self) -> float:
        """Sum over tokens of -log p minus its expectation, at temperature 1, in nats."""
        excess = 0.0
        for tokens in self._taken_classes:
            at_plain = tokens.binned((BETAS[PLAIN],))
            excess += float((-at_plain.log_p_NT[:, 0] - at_plain.entropy_N).sum())
        return excess

    def bins(self, way: int, temperature: int) -> Bins:
        """Counts by bin of one way, at an inverse temperature given by its index in BETAS."""
        taken_K, expected_K = np.zeros(BINS), np.zeros(BINS)
        covariance_KK = np.zeros((BINS, BINS))
        for tokens in self._taken_classes:
            at_one = tokens.binned((BETAS[temperature],))
            p_NK = at_one.expected_NTPK[:, 0, way]
            taken_K = taken_K + at_one.taken_NPK[:, way].sum(0)
            expected_K = expected_K + p_NK.sum(0)
            covariance_KK = covariance_KK + np.diag(p_NK.sum(0)) - p_NK.T @ p_NK
        return Bins(taken_K, expected_K, covariance_KK)
