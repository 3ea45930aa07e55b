"""Token scores: how likely a model, under interventions, finds the completion tokens of given rows.

Every token is compared with the other tokens of its class. In number data a class holds the digit
tokens of one length. There a format, a filter or a constrained sampler decides which kind of token
comes next. In other data the class is the whole vocabulary.

    log p(token | class) = b z(token) - log sum over the class of exp(b z)

where b is an inverse temperature and z are the logits.

Shapes: N tokens, D d_model, R rows, C columns of a class, S samplers (samplers.py). T inverse
temperatures, P ways to sort tokens into bins, K bins (token_bins.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from traitscope.errors import ConfigError, DataError
from traitscope.inference import forward, samplers
from traitscope.inference.row_batches import batches
from traitscope.inference.samplers import SAMPLERS
from traitscope.inference.token_bins import (
    BETAS,
    QUARTERS,
    Bins,
    BinSums,
    ClassTokens,
    KeptTokens,
    RowBins,
    binned,
    joined,
)
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.interventions import hooks
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Intervention, Steer, SystemPrompt
from traitscope.models.model import Model

LOGITS = 3 * 2**20
"logits that exist at one time"
FEWEST_TOKENS, MOST_TOKENS = 16, 512
"tokens whose logits exist at one time, at least and at most"
SUMS = ("excess_surprisal", "taken_PK", "expected_TPK", "covariance_TPKK")
"fields of TokenScores that are sums over rows"
ARRAYS = ("log_p_RT", "tokens_R", *SUMS)
"fields of TokenScores that all scores have"


@dataclass(frozen=True)
class TokenScores:
    """Token scores of some rows under one model; `+` joins the scores of two sets of rows."""

    log_p_RT: np.ndarray
    "log-likelihood of every row's tokens at every inverse temperature, in nats"
    tokens_R: np.ndarray
    "number of scored tokens of every row"
    excess_surprisal: float
    "sum over tokens of -log p minus its expectation under the model, at temperature 1, in nats"
    taken_PK: np.ndarray
    "number of tokens taken from every bin"
    expected_TPK: np.ndarray
    "expected number of tokens taken from every bin"
    covariance_TPKK: np.ndarray
    "covariance of the numbers of tokens taken from every bin"
    log_p_RS: np.ndarray | None = None
    "log-likelihood of every row's tokens under SAMPLERS, where these were asked for, in nats"
    kept: KeptTokens | None = None
    "the tokens with the logits of their classes, where these were asked for"

    def __add__(self, other: "TokenScores") -> "TokenScores":
        log_p_RS = None
        if self.log_p_RS is not None and other.log_p_RS is not None:
            log_p_RS = np.concatenate([self.log_p_RS, other.log_p_RS])
        return TokenScores(
            np.concatenate([self.log_p_RT, other.log_p_RT]),
            np.concatenate([self.tokens_R, other.tokens_R]),
            self.excess_surprisal + other.excess_surprisal,
            self.taken_PK + other.taken_PK,
            self.expected_TPK + other.expected_TPK,
            self.covariance_TPKK + other.covariance_TPKK,
            log_p_RS,
            self.kept + other.kept if self.kept and other.kept else None,
        )

    def scaled(self, fraction: float) -> "TokenScores":
        """All values times a fraction: what to expect of that fraction of the tokens."""
        values = {}
        for name in ARRAYS:
            values[name] = fraction * getattr(self, name)
        return TokenScores(**values)

    def in_order(self, order: Sequence[int] | np.ndarray) -> "TokenScores":
        """The scores of rows that were read in `order`, put back into their own order."""
        back = np.argsort(order)
        return replace(
            self,
            log_p_RT=self.log_p_RT[back],
            tokens_R=self.tokens_R[back],
            log_p_RS=None if self.log_p_RS is None else self.log_p_RS[back],
            kept=self.kept.in_memory(back) if self.kept else None,
        )

    def bins(self, way: int, temperature: int) -> Bins:
        """Counts by bin of one way, at an inverse temperature given by its index in BETAS."""
        place = temperature, way
        return Bins(self.taken_PK[way], self.expected_TPK[place], self.covariance_TPKK[place])

    def of_rows(self, rows: Sequence[int] | np.ndarray) -> "Scores":
        """The scores of some rows, whose bins are counted anew; a row may be named twice.

        Raises DataError for a part of the rows if their tokens were not kept.
        """
        rows = np.asarray(rows, int)
        if self.kept:
            return RowBins(self.log_p_RT[rows], self.tokens_R[rows], self.kept.of_rows(rows))
        if not np.array_equal(np.sort(rows), np.arange(len(self.tokens_R))):
            raise DataError(
                f"bins of {len(rows)} of {len(self.tokens_R)} rows were asked for, and their tokens"
                " were not kept; expected tokens.npz; score the rows again with --keep-tokens"
            )
        return self


Scores = TokenScores | RowBins
"what is known of rows under one model: sums over all of them, or tokens that are counted anew"


def score_tokens(
    model: Model,
    hidden_ND: Tensor,
    targets_N: Tensor,
    lengths: Sequence[int],
    classes: Sequence[Tensor],
    with_samplers: bool = False,
) -> TokenScores:
    """Token scores of rows of `lengths` tokens each, from the hidden states that predict them.

    with_samplers: also score the rows under SAMPLERS.
    """
    sets = [0] * len(lengths)
    scores = score_tokens_by_set(model, hidden_ND, targets_N, lengths, classes, sets, with_samplers)
    return scores[0]


@torch.no_grad()
def score_tokens_by_set(
    model: Model,
    hidden_ND: Tensor,
    targets_N: Tensor,
    lengths: Sequence[int],
    classes: Sequence[Tensor],
    sets: Sequence[int],
    with_samplers: bool = False,
    keep: bool = False,
) -> dict[int, TokenScores]:
    """Token scores of the rows of each of several sets, given the set of every row.

    with_samplers: also score the rows under SAMPLERS.
    keep: also keep the tokens with the logits of their classes.
    """
    row_N = np.repeat(np.arange(len(lengths)), lengths)
    quarters = []
    for length in lengths:
        quarters.append(torch.arange(length) * QUARTERS // length)
    quarter_N = torch.cat(quarters).to(model.device)
    set_R = np.array(sets)
    log_p_RT = np.zeros((len(lengths), len(BETAS)))
    tokens_R = np.zeros(len(lengths), int)
    sums = {key: BinSums() for key in sets}
    log_p_RS = np.zeros((len(lengths), len(SAMPLERS))) if with_samplers else None
    completions = samplers.Completions(targets_N.tolist(), lengths)
    kept = []
    for columns in classes:
        kept.append([ClassTokens.none(len(columns))])
        for block, logits_NC, chosen_N in _blocks(model, hidden_ND, targets_N, columns):
            tokens = binned(logits_NC, chosen_N, quarter_N[block])
            rows = row_N[block.cpu().numpy()]  # a tensor of one element would index as a number
            np.add.at(log_p_RT, rows, tokens.log_p_NT)
            np.add.at(tokens_R, rows, 1)
            for key in np.unique(set_R[rows]).tolist():
                sums[key].add(tokens.subset(set_R[rows] == key))
            if log_p_RS is not None:
                digits_C = samplers.digits_of(model, columns)
                drawn = samplers.tokens_of(
                    logits_NC, chosen_N, columns, digits_C, completions, block.tolist()
                )
                np.add.at(log_p_RS, rows, samplers.log_likelihoods(drawn))
            if keep:
                kept[-1].append(
                    ClassTokens.from_tensors(logits_NC, chosen_N, quarter_N[block], rows)
                )
    whole = KeptTokens(((len(lengths), tuple(map(joined, kept))),))
    scores = {}
    for key, totals in sums.items():
        rows = np.flatnonzero(set_R == key)
        scores[key] = TokenScores(
            log_p_RT[rows],
            tokens_R[rows],
            **vars(totals),
            log_p_RS=None if log_p_RS is None else log_p_RS[rows],
            kept=whole.in_memory(rows) if keep else None,
        )
    return scores


def _blocks(
    model: Model, hidden_ND: Tensor, targets_N: Tensor, columns: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield places, logits [N, C] and chosen columns of the tokens of a class, a few at a time."""
    # A copy of the head's rows for the whole vocabulary would cost more than the product.
    is_part = len(columns) < len(model.head.weight)
    n_tokens = min(MOST_TOKENS, max(FEWEST_TOKENS, LOGITS // len(columns)))
    for block in torch.isin(targets_N, columns).nonzero().squeeze(1).split(n_tokens):
        if len(block):
            logits_NC = forward.logits_of(model, hidden_ND[block], columns if is_part else None)
            yield block, logits_NC, torch.searchsorted(columns, targets_N[block])


def score_sets(
    model: Model,
    interventions: Sequence[Intervention],
    steered: Sequence[Steer],
    sets: Sequence[Sequence[Row]],
    classes: Sequence[Tensor],
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
    keep: bool = False,
) -> list[list[TokenScores]]:
    """Token scores of the rows of every set: under `interventions`, then under each of `steered`
    in addition.

    Rows of one prompt are read together, whatever their set, so that the prompt is read once. A
    steered model is computed from the block on where it is steered: what comes before is the same.
    `keep` is that of `score_tokens_by_set`. Raises ConfigError for steering at several blocks, and
    for steering beside anything but a system prompt.
    """
    _check_steered(interventions, steered)
    rows = list(chain.from_iterable(sets))
    set_sizes = list(map(len, sets))
    owners = np.repeat(np.arange(len(sets)), set_sizes)
    layers = sorted({item.layers[0] for item in steered})
    order: list[int] = []
    scores: list[dict[int, TokenScores]] = [{} for _ in range(1 + len(steered))]
    for index in batches(rows, batch_size):
        order += index
        batch = [rows[i] for i in index]
        batch_sets = owners[index].tolist()
        with (
            torch.no_grad(),
            applied(model, interventions) as active,
            hooks.recorded(model.blocks, layers) as outputs,
        ):
            _add_batch(
                scores[0], model, active, batch, classes, batch_sets, not interventions, keep
            )
        for number, item in enumerate(steered, 1):
            layer = item.layers[0]
            with (
                torch.no_grad(),
                applied(model, [*interventions, item]) as active,
                hooks.resumed(model, layer, outputs[layer]),
            ):
                _add_batch(scores[number], model, active, batch, classes, batch_sets, keep=keep)
        if done:
            done(len(batch))
    return _by_set(scores, order, owners, len(sets))


def _by_set(
    scores: Sequence[dict[int, TokenScores]], order: Sequence[int], owners: np.ndarray, n_sets: int
) -> list[list[TokenScores]]:
    """Scores by set and teacher, every set's rows in their own order."""
    order_R = np.array(order, dtype=int)
    owner_R = owners[order_R]
    by_set = []
    for key in range(n_sets):
        places = order_R[owner_R == key]
        by_teacher = []
        for scores_of_sets in scores:
            by_teacher.append(scores_of_sets[key].in_order(places))
        by_set.append(by_teacher)
    return by_set


def _check_steered(interventions: Sequence[Intervention], steered: Sequence[Steer]) -> None:
    only_prompts = all(isinstance(item, SystemPrompt) for item in interventions)
    if steered and not only_prompts:
        raise ConfigError(
            f"{len(interventions)} interventions beside the steered teachers; expected a system"
            " prompt, or none; leave the others out"
        )
    for item in steered:
        if not isinstance(item, Steer) or len(item.layers) != 1:
            raise ConfigError(
                f"{item} is no steering at one block; expected a vector, a block and a strength;"
                " write steer:VECTOR,layers=N,alpha=A"
            )


def _add_batch(
    scores: dict[int, TokenScores],
    model: Model,
    active: object,
    batch: Sequence[Row],
    classes: Sequence[Tensor],
    batch_sets: Sequence[int],
    with_samplers: bool = False,
    keep: bool = False,
) -> None:
    """Add a batch's scores at once: its covariances take as much memory as those of all rows."""
    hidden_ND, targets_N = completion_hidden(model, active, batch)
    lengths = [len(row.completion_ids) for row in batch]
    by_set = score_tokens_by_set(
        model, hidden_ND, targets_N, lengths, classes, batch_sets, with_samplers, keep
    )
    for key, part in by_set.items():
        scores[key] = scores[key] + part if key in scores else part


def under_samplers(scores: TokenScores) -> np.ndarray:
    """Log-likelihoods [R, S] of the rows under SAMPLERS. Raises DataError for scores without."""
    if scores.log_p_RS is None or scores.log_p_RS.shape[1] != len(SAMPLERS):
        raise DataError(
            "these token scores were written by an earlier version, or under an intervention:"
            f" expected {len(SAMPLERS)} samplers for every row; remove that run and start again"
        )
    return scores.log_p_RS
