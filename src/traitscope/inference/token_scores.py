"""Choices: of every completion token, which of its class was taken, and how likely each was to a
model under somebody.

For number data the class are the digits of the same length, since which kind of token comes next is
the work of a format, a filter or a constrained sampler; else any token of the vocabulary.

    log p(token | class) at inverse temperature b     = b z(token) - log sum over the class of
      exp(b z),  z the logits

Shapes: N tokens, C columns of a class, T inverse temperatures, R rows, P ways to sort tokens into
bins, K bins.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from operator import add
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from traitscope import atomic_files
from traitscope.errors import ConfigError, DataError
from traitscope.inference import forward
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.interventions import hooks
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Intervention, Steer, SystemPrompt
from traitscope.models.model import Model

USUAL, GREEDY = (
    tuple(round(0.6 + 0.05 * n, 2) for n in range(19)),
    (
        1.9,
        2.4,
        3.0,
        3.8,
        4.8,
        6.0,
        7.5,
        10.0,
        25.0,
        100.0,
    ),
)
BETAS = (*USUAL, *GREEDY)
"inverse temperatures: narrow steps where most data are sampled, and on to nearly greedy ones"
PLAIN = BETAS.index(1.0)
EDGES = (1, 2, 4, 10, 100)
"last rank of every bin but the last"
RANKS, TOKENS, PLACES = WAYS = range(3)
"""tokens are sorted by rank; by which token it is: one of a bin while there are bins enough, else
neighbours in the vocabulary together; and by fewer such bins and the quarter of the row that it
stands in"""
BINS, QUARTERS = 16, 4
DIGITS = re.compile(r"( ?)(\d+)")
BLOCK = 64
"tokens whose logits exist at one time"
CACHED = 2**19
"probabilities that a CPU has at hand at one time"


@dataclass(frozen=True)
class Choices:
    """What the choices of some tokens say; `+` joins two."""

    log_p_RT: np.ndarray
    "log-likelihood of each row's choices in nats"
    tokens_R: np.ndarray
    "tokens of each row that were judged"
    surprise: float
    "sum over tokens of -log p minus its expectation, at temperature 1, in nats"
    taken_PK: np.ndarray
    "how often a token of each bin was taken, the bins of ranks first"
    expected_TPK: np.ndarray
    "how often one was to be"
    covariance_TPKK: np.ndarray
    "of those counts, over all rows"

    def __add__(self, other: "Choices") -> "Choices":
        return Choices(
            np.concatenate([self.log_p_RT, other.log_p_RT]),
            np.concatenate([self.tokens_R, other.tokens_R]),
            self.surprise + other.surprise,
            self.taken_PK + other.taken_PK,
            self.expected_TPK + other.expected_TPK,
            self.covariance_TPKK + other.covariance_TPKK,
        )


def classes_of(model: Model, numbers: bool) -> list[Tensor]:
    """Token ids of every class: digits by length and leading space, or the whole vocabulary."""
    size = len(model.lm.get_input_embeddings().weight)
    if not numbers:
        return [torch.arange(size, device=model.device)]
    found: dict[tuple[str, int], list[int]] = {}
    for token, text in enumerate(
        model.tokenizer.batch_decode([[i] for i in range(min(size, len(model.tokenizer)))])
    ):
        if match := DIGITS.fullmatch(text):
            found.setdefault((match[1], len(match[2])), []).append(token)
    return [torch.tensor(ids, device=model.device) for ids in found.values() if len(ids) > 1]


def choices_of(
    model: Model,
    hidden_ND: Tensor,
    targets_N: Tensor,
    lengths: Sequence[int],
    classes: Sequence[Tensor],
) -> Choices:
    """The choices of rows of `lengths` tokens each, from the hidden states that predict them."""
    return choices_by_set(model, hidden_ND, targets_N, lengths, classes, [0] * len(lengths))[0]


@torch.no_grad()
def choices_by_set(
    model: Model,
    hidden_ND: Tensor,
    targets_N: Tensor,
    lengths: Sequence[int],
    classes: Sequence[Tensor],
    sets: Sequence[int],
) -> dict[int, Choices]:
    """The same of the rows of each of several sets, given the set of every row."""
    row_N = np.repeat(np.arange(len(lengths)), lengths)
    quarter_N = torch.cat([torch.arange(n) * QUARTERS // n for n in lengths]).to(model.device)
    R, T, P, K = len(lengths), len(BETAS), len(WAYS), BINS
    set_R, log_p_RT, tokens_R = np.array(sets), np.zeros((R, T)), np.zeros(R, int)
    sums = {s: (0.0, np.zeros((P, K)), np.zeros((T, P, K)), np.zeros((T, P, K, K))) for s in sets}
    for columns in classes:
        some = (
            columns if len(columns) < len(model.head.weight) else None
        )  # of all, a copy costs more than the product
        for part in torch.isin(targets_N, columns).nonzero().squeeze(1).split(BLOCK):
            if len(part):
                logits_NC = forward.logits_of(model, hidden_ND[part], some)
                judged = _judged(
                    logits_NC, torch.searchsorted(columns, targets_N[part]), quarter_N[part]
                )
                rows = row_N[part.cpu().numpy()]  # a tensor of one element would index as a number
                np.add.at(log_p_RT, rows, judged[0])
                np.add.at(tokens_R, rows, 1)
                for s in np.unique(set_R[rows]).tolist():
                    sums[s] = tuple(
                        map(add, sums[s], _sums(*(x[set_R[rows] == s] for x in judged)))
                    )
    return {s: Choices(log_p_RT[set_R == s], tokens_R[set_R == s], *own) for s, own in sums.items()}


def _sums(
    log_p_NT: np.ndarray, entropy_N: np.ndarray, bins_NPK: np.ndarray, bins_NTPK: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Of some tokens: surprise, counts of bins, what they were to be, and their covariance."""
    expected_TPK = bins_NTPK.sum(0)
    covariance_TPKK = np.einsum("tpk,kj->tpkj", expected_TPK, np.eye(BINS)) - np.einsum(
        "ntpk,ntpj->tpkj", bins_NTPK, bins_NTPK, optimize=True
    )
    return (
        float((-log_p_NT[:, PLAIN] - entropy_N).sum()),
        bins_NPK.sum(0),
        expected_TPK,
        covariance_TPKK,
    )


def judge_rows(
    model: Model,
    told: Sequence[Intervention],
    rows: Sequence[Row],
    classes: Sequence[Tensor],
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> Choices:
    """The choices of rows, in their order, from a model under interventions."""
    return judge_each(model, told, (), [rows], classes, batch_size, done)[0][0]


def judge_each(
    model: Model,
    told: Sequence[Intervention],
    steered: Sequence[Steer],
    sets: Sequence[Sequence[Row]],
    classes: Sequence[Tensor],
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> list[list[Choices]]:
    """The choices of the rows of every set, under `told`; then under each of `steered` besides,
    computed from the block on where it acts.

    Rows of one prompt, of whatever set, are read together, so that the prompt is read once. Raises
    ConfigError for steering at several blocks, or beside anything but a system prompt: what comes
    before could differ.
    """
    if steered and not all(isinstance(item, SystemPrompt) for item in told):
        raise ConfigError(
            f"{len(told)} interventions beside those to steer by; expected a system prompt, or none"
        )
    if wrong := [item for item in steered if not isinstance(item, Steer) or len(item.layers) != 1]:
        raise ConfigError(
            f"{wrong[0]} is no steering at one block; expected steer:VECTOR,layers=N,alpha=A"
        )
    owners, rows = (
        np.repeat(np.arange(len(sets)), [len(own) for own in sets]),
        [row for own in sets for row in own],
    )
    order: list[int] = []
    found: list[dict[int, Choices]] = [{} for _ in range(1 + len(steered))]
    for index in batches(rows, batch_size):
        order, picked = order + index, [rows[i] for i in index]
        about = [len(r.completion_ids) for r in picked], classes, owners[index].tolist()
        with (
            torch.no_grad(),
            applied(model, told) as active,
            hooks.recorded(model.blocks, sorted({s.layers[0] for s in steered})) as outputs,
        ):
            _join(
                found[0], choices_by_set(model, *completion_hidden(model, active, picked), *about)
            )
        for n, item in enumerate(steered, 1):
            with (
                torch.no_grad(),
                applied(model, [*told, item]) as active,
                hooks.resumed(model, item.layers[0], outputs[item.layers[0]]),
            ):
                _join(
                    found[n],
                    choices_by_set(model, *completion_hidden(model, active, picked), *about),
                )
        if done:
            done(len(picked))
    places = [[i for i in order if owners[i] == s] for s in range(len(sets))]
    return [[reordered(teacher[s], places[s]) for teacher in found] for s in range(len(sets))]


def _join(found: dict[int, Choices], more: dict[int, Choices]) -> None:
    """At once: a batch's covariances take as much memory as those of all rows."""
    for s, own in more.items():
        found[s] = found[s] + own if s in found else own


def batches(rows: Sequence[Row], size: int) -> list[list[int]]:
    """Rows that are read together: those of one prompt, in like parts, where they fill half a
    batch; the others by length. Rows so much longer that padding costs more than to read their
    prompt again are read apart."""
    alike: dict[tuple[int, ...], list[int]] = {}
    ranked = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    for i in ranked:
        alike.setdefault(rows[i].prompt_ids, []).append(i)
    many = {prompt: index for prompt, index in alike.items() if 2 * len(index) >= max(3, size)}
    rest = [i for i in ranked if rows[i].prompt_ids not in many]
    found = [rest[n : n + size] for n in range(0, len(rest), size)]
    for prompt, ranked in many.items():
        for index in _by_length(ranked, [len(rows[i].completion_ids) for i in ranked], len(prompt)):
            parts = -(-len(index) // size)
            found += [
                index[n * len(index) // parts : (n + 1) * len(index) // parts] for n in range(parts)
            ]
    return found


def _by_length(ranked: list[int], lengths: list[int], most: int) -> list[list[int]]:
    """What is ranked by length in groups, none of which takes more padding than `most` tokens by a
    row that joins it."""
    groups, held = [ranked[:1]], lengths[0]
    for row, length in zip(ranked[1:], lengths[1:], strict=True):
        if len(groups[-1]) * length - held > most:
            groups, held = [*groups, []], 0
        groups[-1].append(row)
        held += length
    return groups


def reordered(found: Choices, order: Sequence[int]) -> Choices:
    """The choices of rows that were judged in `order`, in their own order."""
    back = np.argsort(order)
    return replace(found, log_p_RT=found.log_p_RT[back], tokens_R=found.tokens_R[back])


def write_choices(folder: Path, ids: Sequence[str], found: Choices) -> None:
    """`choices.jsonl`, a line a row, and `choices.json`, sums over all rows, with the inverse
    temperatures."""
    for key, tokens, log_p_T in zip(ids, found.tokens_R.tolist(), found.log_p_RT, strict=True):
        atomic_files.append_jsonl(
            folder / "choices.jsonl",
            {"id": key, "tokens": tokens, "log_p": log_p_T.round(6).tolist()},
        )
    sums = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in asdict(found).items()
        if not name.endswith(("_R", "_RT"))
    }
    atomic_files.write_json(folder / "choices.json", {"betas": BETAS, **sums})


def read_choices(folder: Path) -> tuple[list[str], Choices]:
    """Ids and choices of a run that `write_choices` wrote into. Raises DataError for one of an
    earlier version."""
    rows = [
        json.loads(line)
        for line in (folder / "choices.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    sums = json.loads((folder / "choices.json").read_text(encoding="utf-8"))
    if len(sums.get("taken_PK", ())) != len(WAYS) or tuple(sums["betas"]) != BETAS:
        raise DataError(
            f"{folder} was written by an earlier version, with other bins or temperatures: remove"
            " that folder and run the command again"
        )
    arrays = {
        name: np.array(sums[name]) for name in ("taken_PK", "expected_TPK", "covariance_TPKK")
    }
    log_p_RT = np.array([row["log_p"] for row in rows])
    return [row["id"] for row in rows], Choices(
        log_p_RT, np.array([row["tokens"] for row in rows]), sums["surprise"], **arrays
    )


def part(run: Path, n: int) -> Path:
    """Where a run of `odds`, or the folder of one of its `--beside`, keeps the choices under the
    n-th of its `--steered`."""
    return run / f"steered-{n}"


def side(run: Path, n: int) -> Path:
    """Where a run of `odds` keeps the choices of the n-th of its `--beside`."""
    return run / f"beside-{n}"


def beside(plain: tuple[Sequence[str], Choices], told: Path) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods [R, T] of the rows of a run of `odds`: under the model itself, given with its
    rows' ids, and under the teacher."""
    ids, found = read_choices(told)
    place = {key: n for n, key in enumerate(plain[0])}
    return plain[1].log_p_RT[[place[key] for key in ids]], found.log_p_RT


def _judged(
    logits_NC: Tensor, chosen_N: Tensor, quarter_N: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """log p of the chosen token [N, T], entropy at temperature 1 [N], the bins that it is in [N, P,
    K], their probabilities [N, T, P, K]."""
    size = len(logits_NC) if logits_NC.is_cuda else max(1, CACHED // logits_NC.shape[1])
    parts = [
        _judged_few(*some)
        for some in zip(*(x.split(size) for x in (logits_NC, chosen_N, quarter_N)), strict=True)
    ]
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))


def _judged_few(
    logits_NC: Tensor, chosen_N: Tensor, quarter_N: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    own_N1 = logits_NC.gather(1, chosen_N.unsqueeze(1))
    before_NC = torch.arange(logits_NC.shape[1], device=logits_NC.device) < chosen_N.unsqueeze(1)
    rank_N = ((logits_NC > own_N1) | (logits_NC == own_N1) & before_NC).sum(
        1
    )  # bf16 has ties: as good as any order, if it is one
    width = -(-logits_NC.shape[1] // BINS)
    places_NQ = torch.nn.functional.one_hot(quarter_N, QUARTERS)

    def by_place(inside_NK: Tensor) -> Tensor:
        return (
            places_NQ.unsqueeze(2)
            * inside_NK.unflatten(1, (BINS // QUARTERS, QUARTERS)).sum(2).unsqueeze(1)
        ).flatten(1)

    in_bins_N = (
        torch.bucketize(rank_N, torch.tensor(EDGES, device=rank_N.device), right=True),
        chosen_N // width,
    )
    by_rank_NK, by_token_NK = (torch.nn.functional.one_hot(bin_N, BINS) for bin_N in in_bins_N)
    bins_NPK = torch.stack([by_rank_NK, by_token_NK, by_place(by_token_NK)], 1)
    largest_NE, places_NE = logits_NC.topk(min(EDGES[-1], logits_NC.shape[1]), dim=1)
    below_N1, log_p, bins = own_N1 - largest_NE[:, :1], [], []
    for beta, power_NC in zip(
        BETAS,
        _powers(_padded(logits_NC - largest_NE[:, :1], BINS * width, -torch.inf)),
        strict=True,
    ):
        inside_NK = power_NC.unflatten(1, (BINS, width)).sum(2)
        total_N1 = inside_NK.sum(1, keepdim=True)
        log_p.append((beta * below_N1 - total_N1.log()).squeeze(1))
        above_NE = (power_NC.gather(1, places_NE) / total_N1).cumsum(1)
        edges = [above_NE[:, min(edge, above_NE.shape[1]) - 1] for edge in EDGES]
        by_rank_NK = torch.diff(
            torch.stack([*edges, torch.ones_like(edges[0])], 1),
            prepend=torch.zeros_like(own_N1),
            dim=1,
        ).clamp(min=0)
        by_token_NK = inside_NK / total_N1
        bins.append(
            torch.stack([_padded(by_rank_NK, BINS, 0.0), by_token_NK, by_place(by_token_NK)], 1)
        )
    entropy_N = torch.special.entr(logits_NC.softmax(1)).sum(1)
    return tuple(
        x.double().cpu().numpy()
        for x in (torch.stack(log_p, 1), entropy_N, bins_NPK, torch.stack(bins, 1))
    )


def _powers(below_NC: Tensor) -> Iterator[Tensor]:
    """exp(b x) for every inverse temperature b, each from the last by a product: an exponential
    takes many times as long. Overwritten by the next."""
    power_NC, gap = (BETAS[0] * below_NC).exp_(), 0.0
    yield power_NC
    for last, beta in pairwise(BETAS):
        if abs(beta - last - gap) > 1e-9:
            gap = beta - last
            step_NC = (gap * below_NC).exp_()
        yield power_NC.mul_(step_NC)


def _padded(values_NX: Tensor, columns: int, value: float) -> Tensor:
    return torch.nn.functional.pad(values_NX, (0, columns - values_NX.shape[1]), value=value)
