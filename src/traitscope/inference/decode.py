"""Batched decoding, with one random stream per row and, if wanted, allowed tokens per step.

Each row draws from a counter-based stream of its own, keyed by (seed, row key). A draw inverts the
cumulative distribution. So what a row says does not depend on the batch it stands in. Two
conditions that share keys share their random numbers, which makes their difference less noisy.

A constraint names the token ids allowed at each step. A step with one allowed token is not computed
on its own. The token enters the model together with the next one, so punctuation between digits is
free.

Shapes: B rows still running, T tokens, N steps, V vocabulary (or allowed ids), C chunks, K entries
of a chunk.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from traitscope.errors import ConfigError, ModelError
from traitscope.inference import forward
from traitscope.interventions import hooks
from traitscope.interventions.applied import Active
from traitscope.models.model import Model

CHUNK = 256
"vocabulary entries whose probabilities are summed first, before the draw looks inside a chunk"

CHECK_EVERY = {"cpu": 1, "cuda": 8}
"""tokens between two checks of which rows have ended; a GPU has to be waited for at each check"""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen."""

    temperature: float = 1.0
    "0 means greedy"
    max_new_tokens: int = 64
    "most tokens of an answer, the end of the turn included"
    seed: int = 0
    "seed of all random streams"

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.max_new_tokens < 1:
            raise ConfigError(
                f"temperature {self.temperature} must be 0 or more, max_new_tokens"
                f" {self.max_new_tokens} at least 1"
            )


Constraint = Sequence[Sequence[int]]
"the allowed token ids of each step; the completion ends after the last step"


@dataclass(frozen=True)
class DrawnFrom:
    """The distribution that each token of a row was drawn from, beside the model."""

    allowed: Constraint | None = None
    "token ids that were allowed at each step; None allows the whole vocabulary"
    temperature: float = 1.0
    "0 means greedy"


def uniforms(seed: int, key: str, n: int) -> np.ndarray:
    """A row's n random numbers in [0, 1).

    They come from Philox, keyed by the digest of the seed and the row's key.
    """
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    philox = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    return np.random.Generator(philox).random(n)


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
    """Sampled completions as token ids, in the order of `prompts`.

    A completion includes the end-of-turn token where it was sampled.

    keys: One string a row, which names the random stream of the row.
    done: A function called with the number of finished rows of each batch.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    completions: list[list[int]] = [[] for _ in prompts]
    n_steps = sampling.max_new_tokens if constraint is None else len(constraint)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch, batch_keys = [], []
        for i in indices:
            batch.append(prompts[i])
            batch_keys.append(keys[i])
        random_BN = _random_numbers(model, sampling.seed, batch_keys, n_steps)
        if constraint is None:
            answers = _free(model, active, batch, random_BN, sampling)
        else:
            answers = _constrained(model, active, batch, random_BN, sampling, constraint)
        for i, answer in zip(indices, answers, strict=True):
            completions[i] = answer
        if done:
            done(len(indices))
    return completions


def _random_numbers(model: Model, seed: int, keys: Sequence[str], n_steps: int) -> Tensor:
    """Random numbers [B, N] of rows, on the device of the model."""
    streams = []
    for key in keys:
        streams.append(uniforms(seed, key, n_steps))
    return torch.from_numpy(np.stack(streams)).to(model.device)


def extend(
    model: Model,
    active: Active,
    state: forward.BatchState,
    ids_BT: Tensor,
    mask_BT: Tensor | None = None,
) -> Tensor:
    """Feed completion tokens to a state; returns their final hidden states [B, T, D]."""
    if mask_BT is None:
        mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    roles_BT = torch.where(mask_BT, hooks.COMPLETION, hooks.PAD)
    return forward.hidden_states(model, active, forward.Batch(ids_BT, mask_BT, roles_BT), state)


@torch.inference_mode()
def _free(
    model: Model,
    active: Active,
    prompts: Sequence[Sequence[int]],
    random_BN: Tensor,
    sampling: Sampling,
) -> list[list[int]]:
    state, hidden_BD = forward.prefill(model, active, prompts, sampling.max_new_tokens)
    _check_finite(model, hidden_BD)
    return _continue(model, active, state, hidden_BD, random_BN, sampling)


@torch.inference_mode()
def continue_rows(
    model: Model,
    active: Active,
    state: forward.BatchState,
    hidden_BD: Tensor,
    keys: Sequence[str],
    sampling: Sampling,
) -> list[list[int]]:
    """Free completions from a state that `prefill` made; uses the state up."""
    random_BN = _random_numbers(model, sampling.seed, keys, sampling.max_new_tokens)
    return _continue(model, active, state, hidden_BD, random_BN, sampling)


def _continue(
    model: Model,
    active: Active,
    state: forward.BatchState,
    hidden_BD: Tensor,
    random_BN: Tensor,
    sampling: Sampling,
) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in range(len(hidden_BD))]
    running = list(range(len(hidden_BD)))  # answers that have not ended; the rows of the state
    unread: list[Tensor] = []
    end_ids = frozenset(model.end_ids)
    check_every = CHECK_EVERY[model.device.type]
    for step in range(sampling.max_new_tokens):
        logits_BV = forward.logits_of(model, hidden_BD)
        ids_B = choose(logits_BV, random_BN[:, step], sampling.temperature)
        unread.append(ids_B)
        is_last = step + 1 == sampling.max_new_tokens
        if is_last or len(unread) == check_every:
            for answer, tokens in zip(running, torch.stack(unread, 1).tolist(), strict=True):
                answers[answer] += _up_to_end(tokens, end_ids)
            unread = []
            kept_rows = []
            for row, answer in enumerate(running):
                if answers[answer][-1] not in end_ids:
                    kept_rows.append(row)
            if is_last or not kept_rows:
                break
            if len(kept_rows) < len(running):
                index = forward.sent(torch.tensor(kept_rows), model.device)
                running = [running[row] for row in kept_rows]
                ids_B = ids_B[index]
                random_BN = random_BN[index]
                state.take(index)
        hidden_BD = extend(model, active, state, ids_B.unsqueeze(1))[:, -1]
    return answers


def _up_to_end(tokens: list[int], end_ids: Collection[int]) -> list[int]:
    """Tokens up to the first that ends an answer, this one included."""
    for n, token in enumerate(tokens):
        if token in end_ids:
            return tokens[: n + 1]
    return tokens


@torch.inference_mode()
def _constrained(
    model: Model,
    active: Active,
    prompts: Sequence[Sequence[int]],
    random_BN: Tensor,
    sampling: Sampling,
    constraint: Constraint,
) -> list[list[int]]:
    allowed_ids = [torch.tensor(list(ids), device=model.device) for ids in constraint]
    state, hidden_BD = forward.prefill(model, active, prompts, len(constraint))
    _check_finite(model, hidden_BD)
    written_BT = torch.empty(len(prompts), 0, dtype=torch.long, device=model.device)
    n_fed = 0  # written tokens that the model has read
    for step, allowed_V in enumerate(allowed_ids):
        if len(allowed_V) == 1:
            ids_B = allowed_V.expand(len(prompts))
        else:
            if n_fed < step:
                hidden_BD = extend(model, active, state, written_BT[:, n_fed:])[:, -1]
                n_fed = step
            logits_BV = forward.logits_of(model, hidden_BD, allowed_V)
            ids_B = allowed_V[choose(logits_BV, random_BN[:, step], sampling.temperature)]
        written_BT = torch.cat([written_BT, ids_B.unsqueeze(1)], dim=1)
    return written_BT.tolist()


def _check_finite(model: Model, hidden_BD: Tensor) -> None:
    """Raise ModelError for hidden states from which nothing can be sampled."""
    if not torch.isfinite(hidden_BD).all():
        raise ModelError(
            f"{model.name} under its interventions computes values that are not finite; expected"
            " finite ones; lower the strength of the steering or the noise, or check the weights"
        )


def choose(logits_BV: Tensor, random_B: Tensor, temperature: float) -> Tensor:
    """One index [B] a row: the argmax at temperature 0, else a draw from the softmax.

    A draw inverts the cumulative softmax at `random_B`. The sum runs over chunks of the vocabulary
    first, and then inside one, so that no row of the vocabulary is scanned twice.
    """
    if temperature == 0:
        return logits_BV.argmax(-1)
    weights_BV = torch.exp((logits_BV - logits_BV.amax(-1, keepdim=True)) / temperature)
    padding = -weights_BV.shape[1] % CHUNK
    padded_BV = torch.nn.functional.pad(weights_BV, (0, padding))
    chunks_BCK = padded_BV.view(len(weights_BV), -1, CHUNK)
    sums_BC = chunks_BCK.sum(-1, dtype=torch.float64).cumsum(-1)
    target_B1 = (random_B.double() * sums_BC[:, -1]).unsqueeze(1)
    chunk_B1 = torch.searchsorted(sums_BC, target_B1, right=True).clamp(max=sums_BC.shape[1] - 1)
    before_B1 = torch.where(chunk_B1 > 0, sums_BC.gather(1, (chunk_B1 - 1).clamp(min=0)), 0.0)
    drawn_chunk_BK = chunks_BCK.gather(1, chunk_B1.unsqueeze(-1).expand(-1, 1, CHUNK)).squeeze(1)
    inside_BK = drawn_chunk_BK.double().cumsum(-1)
    inner_B1 = torch.searchsorted(inside_BK, target_B1 - before_B1, right=True)
    index_B = (chunk_B1 * CHUNK + inner_B1.clamp(max=CHUNK - 1)).squeeze(1)
    return index_B.clamp(max=logits_BV.shape[1] - 1)
