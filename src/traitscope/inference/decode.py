"""Batched decoding: preallocated cache, one random stream per row, constrained vocabularies, early
exit.

Each row draws from its own counter-based stream, keyed by (seed, row key), by inversion of the
cumulative distribution: what a row says does not depend on the batch it stands in, and two
conditions that share keys share their random numbers, so their difference is less noisy.

A constraint names the token ids allowed at each step. Steps with one allowed token are not computed
on their own: the token is written down and enters the model together with the next one, so
punctuation between digits is free.

Shapes: B rows still running, T tokens, V vocabulary (or allowed ids).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from traitscope.errors import ConfigError
from traitscope.inference import forward
from traitscope.interventions import hooks
from traitscope.interventions.intervention import Active
from traitscope.models.model import Model

CHUNK = 256
"vocabulary entries whose probabilities are summed together before the inversion looks inside"

LOOK = 1, 8
"""tokens between two looks at which rows have ended, on a CPU and on a GPU, which each look makes
wait"""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen."""

    temperature: float = 1.0
    "0 means greedy"
    max_new_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.max_new_tokens < 1:
            raise ConfigError(
                f"temperature {self.temperature} must be 0 or more, max_new_tokens"
                f" {self.max_new_tokens} at least 1"
            )


Constraint = Sequence[Sequence[int]]
"the allowed token ids of each step; the completion ends after the last step"


def uniforms(seed: int, key: str, n: int) -> np.ndarray:
    """The row's n random numbers in [0, 1): Philox keyed by the seed and the digest of the row's
    key."""
    import hashlib

    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little"))).random(
        n
    )


def decode(
    model: Model,
    active: Active,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[str],
    sampling: Sampling,
    constraint: Constraint | None = None,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Completions as sampled token ids, in the order of `prompts`, the end-of-turn token included
    where it was sampled.

    keys: one string a row, naming its random stream. `done` is called with the number of finished
    rows of each batch.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    found: dict[int, list[int]] = {}
    rows = iter(order)
    while chunk := list(islice(rows, batch_size)):
        steps = len(constraint) if constraint is not None else sampling.max_new_tokens
        random = torch.from_numpy(
            np.stack([uniforms(sampling.seed, keys[i], steps) for i in chunk])
        )
        picked = [prompts[i] for i in chunk]
        run = _constrained if constraint is not None else _free
        answers = run(model, active, picked, random.to(model.device), sampling, constraint)
        found.update(zip(chunk, answers, strict=True))
        if done:
            done(len(chunk))
    return [found[i] for i in range(len(prompts))]


def extend(
    model: Model,
    active: Active,
    state: forward.State,
    ids_BT: Tensor,
    mask_BT: Tensor | None = None,
) -> Tensor:
    """Feed completion tokens; final hidden states [B, T, D]."""
    mask_BT = torch.ones_like(ids_BT, dtype=torch.bool) if mask_BT is None else mask_BT
    roles = torch.where(mask_BT, hooks.COMPLETION, hooks.PAD)
    return forward.hidden_states(model, active, forward.Batch(ids_BT, mask_BT, roles), state)


@torch.inference_mode()
def _free(
    model: Model, active: Active, prompts: list, random_BN: Tensor, sampling: Sampling, _: None
) -> list[list[int]]:
    state, hidden_BD = forward.prefill(model, active, prompts, sampling.max_new_tokens)
    return _continue(model, active, state, hidden_BD, random_BN, sampling)


@torch.inference_mode()
def continue_rows(
    model: Model,
    active: Active,
    state: forward.State,
    hidden_BD: Tensor,
    keys: Sequence[str],
    sampling: Sampling,
) -> list[list[int]]:
    """Free completions from a state that `prefill` made; uses the state up."""
    random = np.stack([uniforms(sampling.seed, key, sampling.max_new_tokens) for key in keys])
    return _continue(
        model, active, state, hidden_BD, torch.from_numpy(random).to(model.device), sampling
    )


def _continue(
    model: Model,
    active: Active,
    state: forward.State,
    hidden_BD: Tensor,
    random_BN: Tensor,
    sampling: Sampling,
) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in range(len(hidden_BD))]
    alive, unread, ends = list(range(len(hidden_BD))), [], frozenset(model.end_ids)
    for step in range(sampling.max_new_tokens):
        ids_B = choose(
            forward.logits_of(model, hidden_BD), random_BN[:, step], sampling.temperature
        )
        unread.append(ids_B)
        last = step + 1 == sampling.max_new_tokens
        if last or len(unread) == LOOK[model.device.type == "cuda"]:
            for row, tokens in zip(alive, torch.stack(unread, 1).tolist(), strict=True):
                answers[row] += _to_the_end(tokens, ends)
            keep, unread = [i for i, row in enumerate(alive) if answers[row][-1] not in ends], []
            if last or not keep:
                break
            if len(keep) < len(alive):
                index = forward.sent(torch.tensor(keep), model.device)
                alive, ids_B, random_BN = [alive[i] for i in keep], ids_B[index], random_BN[index]
                state.take(index)
        hidden_BD = extend(model, active, state, ids_B.unsqueeze(1))[:, -1]
    return answers


def _to_the_end(tokens: list[int], ends: Collection[int]) -> list[int]:
    """Tokens up to the first that ends an answer, that one included."""
    return tokens[: next((n + 1 for n, token in enumerate(tokens) if token in ends), len(tokens))]


@torch.inference_mode()
def _constrained(
    model: Model,
    active: Active,
    prompts: list,
    random_BN: Tensor,
    sampling: Sampling,
    constraint: Constraint,
) -> list[list[int]]:
    allowed = [torch.tensor(list(ids), device=model.device) for ids in constraint]
    state, hidden_BD = forward.prefill(model, active, prompts, len(constraint))
    written = torch.empty(len(prompts), 0, dtype=torch.long, device=model.device)
    fed = 0  # how many written tokens the model has seen
    for step, columns in enumerate(allowed):
        if len(columns) == 1:
            ids_B = columns.expand(len(prompts))
        else:
            if fed < step:
                hidden_BD = extend(model, active, state, written[:, fed:])[:, -1]
                fed = step
            logits = forward.logits_of(model, hidden_BD, columns)
            ids_B = columns[choose(logits, random_BN[:, step], sampling.temperature)]
        written = torch.cat([written, ids_B.unsqueeze(1)], dim=1)
    return written.tolist()


def choose(logits_BV: Tensor, random_B: Tensor, temperature: float) -> Tensor:
    """One index a row: the argmax at temperature 0, else the inverse of the cumulative softmax at
    `random_B`.

    The sum runs in two levels, over chunks and then inside one, so that no row of the vocabulary is
    scanned twice.
    """
    if temperature == 0:
        return logits_BV.argmax(-1)
    weights = torch.exp((logits_BV - logits_BV.amax(-1, keepdim=True)) / temperature)
    pad = -weights.shape[1] % CHUNK
    chunks_BCK = torch.nn.functional.pad(weights, (0, pad)).view(len(weights), -1, CHUNK)
    sums_BC = chunks_BCK.sum(-1, dtype=torch.float64).cumsum(-1)
    target_B1 = (random_B.double() * sums_BC[:, -1]).unsqueeze(1)
    chunk_B1 = torch.searchsorted(sums_BC, target_B1, right=True).clamp(max=sums_BC.shape[1] - 1)
    before_B1 = torch.where(chunk_B1 > 0, sums_BC.gather(1, (chunk_B1 - 1).clamp(min=0)), 0.0)
    inside_BK = (
        chunks_BCK.gather(1, chunk_B1.unsqueeze(-1).expand(-1, 1, CHUNK))
        .squeeze(1)
        .double()
        .cumsum(-1)
    )
    inner_B1 = torch.searchsorted(inside_BK, target_B1 - before_B1, right=True)
    return (
        (chunk_B1 * CHUNK + inner_B1.clamp(max=CHUNK - 1))
        .squeeze(1)
        .clamp(max=logits_BV.shape[1] - 1)
    )
