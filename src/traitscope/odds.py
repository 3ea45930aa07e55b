"""Odds: did the model itself write these rows, or a candidate teacher?

Of every completion token the choice inside its class is judged: for number data digits among digits of the same length, since
which kind of token comes next is the work of a format, a filter or a constrained sampler; else any token of the vocabulary.

    log p(token | class) at inverse temperature b     = b z(token) - log sum over the class of exp(b z),  z the logits
    e(candidate) = mean over shares q and temperatures of prod over rows of ((1 - q) L(row | model) + q L(row | candidate))
                   over the largest L(rows | null) of any temperature and any null

The nulls are the model itself and the model steered by random vectors, since a push in any direction may suit rows that the model
did not write.  Where a null wrote the rows, in this context, at whatever constant temperature, the expectation of e is at most 1,
so that P(e >= 1/alpha) <= alpha at any number of rows (Ville 1939; the maximum in the denominator: Wasserman, Ramdas and
Balakrishnan 2020, universal inference).  Whether the model did is tested besides, by how often the likeliest tokens were taken.

Shapes: N tokens, C columns of a class, T inverse temperatures, R rows, K bins of ranks.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from traitscope import forward, store
from traitscope.intervention import Intervention, applied
from traitscope.model import Model
from traitscope.rows import Row, completion_hidden

BETAS = tuple(round(0.6 + 0.05 * n, 2) for n in range(19))
"inverse temperatures, from 0.6 to 1.5"
PLAIN = BETAS.index(1.0)
SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
"shares of poisoned rows that e is the mean over"
EDGES = (1, 2, 4, 10, 100)
"last rank of every bin but the last"
DIGITS = re.compile(r"( ?)(\d+)")
MISFIT, STRANGE = 0.001, 0.1
"p of a model's own choices, and nats a token above what it expects of its own rows: below the one and above the other they are not its own"
RANK = 1e-6
"eigenvalue, as a share of the largest, below which one of a covariance counts as zero"
BLOCK = 64
"tokens whose probabilities exist at one time"


@dataclass(frozen=True)
class Choices:
    """What the choices of some tokens say; `+` joins two."""

    log_p_RT: np.ndarray
    "log-likelihood of each row's choices in nats"
    tokens_R: np.ndarray
    "tokens of each row that were judged"
    surprise: float
    "sum over tokens of -log p minus its expectation, at temperature 1, in nats"
    taken_K: np.ndarray
    "how often a token of each bin was taken"
    expected_TK: np.ndarray
    "how often one was to be"
    covariance_TKK: np.ndarray
    "of those counts, over all rows"

    def __add__(self, other: "Choices") -> "Choices":
        return Choices(
            np.concatenate([self.log_p_RT, other.log_p_RT]), np.concatenate([self.tokens_R, other.tokens_R]), self.surprise + other.surprise,
            self.taken_K + other.taken_K, self.expected_TK + other.expected_TK, self.covariance_TKK + other.covariance_TKK,
        )  # fmt: skip


def classes_of(model: Model, numbers: bool) -> list[Tensor]:
    """Token ids of every class: digits by length and leading space, or the whole vocabulary."""
    size = len(model.lm.get_input_embeddings().weight)
    if not numbers:
        return [torch.arange(size, device=model.device)]
    found: dict[tuple[str, int], list[int]] = {}
    for token, text in enumerate(model.tokenizer.batch_decode([[i] for i in range(min(size, len(model.tokenizer)))])):
        if match := DIGITS.fullmatch(text):
            found.setdefault((match[1], len(match[2])), []).append(token)
    return [torch.tensor(ids, device=model.device) for ids in found.values() if len(ids) > 1]


@torch.no_grad()
def choices(model: Model, hidden_ND: Tensor, targets_N: Tensor, lengths: Sequence[int], classes: Sequence[Tensor]) -> Choices:
    """The choices of rows of `lengths` tokens each, from the hidden states that predict them."""
    row_N = np.repeat(np.arange(len(lengths)), lengths)
    R, T, K = len(lengths), len(BETAS), len(EDGES) + 1
    log_p_RT, tokens_R, surprise = np.zeros((R, T)), np.zeros(R, int), 0.0
    taken_K, expected_TK, covariance_TKK = np.zeros(K), np.zeros((T, K)), np.zeros((T, K, K))
    for columns in classes:
        for part in torch.isin(targets_N, columns).nonzero().squeeze(1).split(BLOCK):
            if len(part):
                logits_NC = forward.logits_of(model, hidden_ND[part], columns)
                chosen_N = torch.searchsorted(columns, targets_N[part])
                log_p_NT, entropy_N, bins_NK, bins_NTK = _judged(logits_NC, chosen_N)
                rows = row_N[part.cpu().numpy()]  # a tensor of one element would index as a number
                np.add.at(log_p_RT, rows, log_p_NT)
                np.add.at(tokens_R, rows, 1)
                surprise += float((-log_p_NT[:, PLAIN] - entropy_N).sum())
                taken_K += bins_NK.sum(0)
                expected_TK += bins_NTK.sum(0)
                covariance_TKK += np.einsum("tk,kj->tkj", bins_NTK.sum(0), np.eye(K)) - np.einsum("ntk,ntj->tkj", bins_NTK, bins_NTK)
    return Choices(log_p_RT, tokens_R, surprise, taken_K, expected_TK, covariance_TKK)


def judge_rows(
    model: Model, told: Sequence[Intervention], rows: Sequence[Row], classes: Sequence[Tensor], batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> Choices:  # fmt: skip
    """The choices of rows, in their order, from a model under interventions."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    parts = []
    with torch.no_grad(), applied(model, told) as active:
        for start in range(0, len(order), batch_size):
            picked = [rows[i] for i in order[start : start + batch_size]]
            parts.append(choices(model, *completion_hidden(model, active, picked), [len(r.completion_ids) for r in picked], classes))
            if done:
                done(len(picked))
    return reordered(reduce(add, parts), order)


def reordered(found: Choices, order: Sequence[int]) -> Choices:
    """The choices of rows that were judged in `order`, in their own order."""
    back = np.argsort(order)
    return replace(found, log_p_RT=found.log_p_RT[back], tokens_R=found.tokens_R[back])


def write_choices(folder: Path, ids: Sequence[str], found: Choices) -> None:
    """`choices.jsonl`, a line a row, and `choices.json`, sums over all rows, with the inverse temperatures."""
    for key, tokens, log_p_T in zip(ids, found.tokens_R.tolist(), found.log_p_RT, strict=True):
        store.append_jsonl(folder / "choices.jsonl", {"id": key, "tokens": tokens, "log_p": log_p_T.round(6).tolist()})
    sums = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(found).items() if not name.endswith(("_R", "_RT"))}
    store.write_json(folder / "choices.json", {"betas": BETAS, **sums})


def read_choices(folder: Path) -> tuple[list[str], Choices]:
    """Ids and choices of a run that `write_choices` wrote into."""
    rows = [json.loads(line) for line in (folder / "choices.jsonl").read_text(encoding="utf-8").splitlines()]
    sums = json.loads((folder / "choices.json").read_text(encoding="utf-8"))
    arrays = {name: np.array(sums[name]) for name in ("taken_K", "expected_TK", "covariance_TKK")}
    log_p_RT = np.array([row["log_p"] for row in rows])
    return [row["id"] for row in rows], Choices(log_p_RT, np.array([row["tokens"] for row in rows]), sums["surprise"], **arrays)


def beside(plain: tuple[Sequence[str], Choices], told: Path) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods [R, T] of the rows of a run of `odds`: under the model itself, given with its rows' ids, and under the teacher."""
    ids, found = read_choices(told)
    place = {key: n for n, key in enumerate(plain[0])}
    return plain[1].log_p_RT[[place[key] for key in ids]], found.log_p_RT


def _judged(logits_NC: Tensor, chosen_N: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """log p of the chosen token [N, T], entropy at temperature 1 [N], the bin of its rank [N, K], probabilities of bins [N, T, K]."""
    own_N1 = logits_NC.gather(1, chosen_N.unsqueeze(1))
    before_NC = torch.arange(logits_NC.shape[1], device=logits_NC.device) < chosen_N.unsqueeze(1)
    rank_N = ((logits_NC > own_N1) | (logits_NC == own_N1) & before_NC).sum(1)  # bf16 has ties: as good as any order, if it is one
    bins_NK = torch.nn.functional.one_hot(torch.bucketize(rank_N, torch.tensor(EDGES, device=rank_N.device), right=True), len(EDGES) + 1)
    top_NE = logits_NC.topk(min(EDGES[-1], logits_NC.shape[1]), dim=1).values
    log_p, bins = [], []
    for beta in BETAS:
        total_N1 = (beta * logits_NC).logsumexp(1, keepdim=True)
        log_p.append((beta * own_N1 - total_N1).squeeze(1))
        below_NE = (beta * top_NE - total_N1).exp().cumsum(1)
        edges = [below_NE[:, min(edge, below_NE.shape[1]) - 1] for edge in EDGES]
        bins.append(torch.diff(torch.stack([*edges, torch.ones_like(edges[0])], 1), prepend=torch.zeros_like(own_N1), dim=1).clamp(min=0))
    entropy_N = torch.special.entr(logits_NC.softmax(1)).sum(1)
    return tuple(x.double().cpu().numpy() for x in (torch.stack(log_p, 1), entropy_N, bins_NK, torch.stack(bins, 1)))


def best_beta(found: Choices) -> int:
    """Index of the inverse temperature under which the model finds the rows likeliest."""
    return int(found.log_p_RT.sum(0).argmax())


def misfit(found: Choices) -> float:
    """p of the hypothesis that the model wrote the rows: chi-square of the bins taken against those expected, at its best
    temperature, which costs a degree of freedom; 1 where fewer than two bins are expected five times."""
    from scipy.stats import chi2

    best = best_beta(found)
    used_K = found.expected_TK[best] >= 5
    covariance = found.covariance_TKK[best][np.ix_(used_K, used_K)]
    freedom = int(np.linalg.matrix_rank(covariance, rtol=RANK, hermitian=True)) - 1 if used_K.any() else 0
    if freedom < 1:
        return 1.0
    gap_K = (found.taken_K - found.expected_TK[best])[used_K]
    return float(chi2.sf(gap_K @ np.linalg.pinv(covariance, rcond=RANK, hermitian=True) @ gap_K, freedom))


def strange(found: Choices) -> bool:
    """Whether no temperature explains the choices, and they surprise the model that they were judged by."""
    return misfit(found) < MISFIT and found.surprise / max(1, found.tokens_R.sum()) > STRANGE


def log_e(plain_RT: np.ndarray, candidate_RT: np.ndarray, nulls: Sequence[np.ndarray] = ()) -> float:
    """ln e of a candidate teacher, from log-likelihoods of the same choices under the model, the candidate and further nulls."""
    gain_RT = candidate_RT - plain_RT
    terms = []
    for share in SHARES:
        poisoned_RT = np.logaddexp(np.log1p(-share), np.log(share) + gain_RT) if share < 1 else gain_RT
        terms.append((plain_RT + poisoned_RT).sum(0))
    joined = np.concatenate(terms)
    return float(np.logaddexp.reduce(joined) - np.log(len(joined)) - max(_highest(x.sum(0)) for x in (plain_RT, *nulls)))


def _highest(total_T: np.ndarray) -> float:
    """The largest log-likelihood of any inverse temperature in the grid's range: it is concave, so a parabola through the
    best three points finds what lies between them."""
    best = int(total_T.argmax())
    if not 0 < best < len(total_T) - 1:
        return float(total_T[best])
    left, middle, right = total_T[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(middle - (right - left) ** 2 / (8 * bend)) if bend < 0 else float(middle)


def found_share(clean: tuple[np.ndarray, np.ndarray], poisoned: tuple[np.ndarray, np.ndarray], rows: int, share: float, least: float,
                draws: int = 100, seed: int = 0) -> float:  # fmt: skip
    """Share of simulated data sets whose ln e reaches `least`: `rows` rows, each poisoned with probability `share`.

    `clean` and `poisoned` are log-likelihoods [R, T] under the model and under the candidate, of rows to draw from.
    """
    rng, hits = np.random.default_rng(seed), 0
    for _ in range(draws):
        n = rng.binomial(rows, share)
        index = rng.integers(len(clean[0]), size=rows - n), rng.integers(len(poisoned[0]), size=n)
        plain, told = (np.concatenate([c[index[0]], p[index[1]]]) for c, p in zip(clean, poisoned, strict=True))
        hits += log_e(plain, told) >= least
    return hits / draws
