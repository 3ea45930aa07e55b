"""Batched decoding, with one random stream per row and, if wanted, allowed tokens per step.

Each row draws from a counter-based stream of its own, keyed by (seed, row key). A draw inverts the
cumulative distribution. So what a row says does not depend on the batch it stands in. Two
conditions that share keys share their random numbers, which makes their difference less noisy.

A constraint names the token ids allowed at each step. A step with one allowed token is not computed
on its own. The token enters the model together with the next one, so punctuation between digits is
free.

Samplers work among the allowed tokens, in the order of transformers and vLLM: penalties, then the
temperature, then top-k, top-p and min-p.

Shapes: B rows still running, T tokens, N steps, V vocabulary (or allowed ids), C chunks of K ids.
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
from traitscope.models.kernels import compiled, packing, passes
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
    top_k: int = 0
    "number of likeliest tokens that can be drawn; 0 is all"
    top_p: float = 1.0
    "probability that the fewest likeliest tokens that can be drawn have together (the nucleus)"
    min_p: float = 0.0
    "least probability of a token that can be drawn, as a fraction of the likeliest token's"
    repetition_penalty: float = 1.0
    """factor by which logits of tokens that stand in the prompt or the answer are divided, where
    they are positive, or multiplied, where they are negative"""
    frequency_penalty: float = 0.0
    "what a logit falls by each time that its token came in the answer"

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.max_new_tokens < 1:
            raise ConfigError(
                f"temperature {self.temperature} must be 0 or more, max_new_tokens"
                f" {self.max_new_tokens} at least 1; correct them"
            )

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the temperature changes how likely a token is."""
        return not self.has_penalty and self.top_k == 0 and self.top_p == 1 and self.min_p == 0

    @property
    def has_penalty(self) -> bool:
        """Whether earlier tokens change how likely a token is."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0


Constraint = Sequence[Sequence[int]]
"the allowed token ids of each step; the completion ends after the last step"


@dataclass(frozen=True)
class DrawnFrom:
    """The distribution that each token of a row was drawn from, beside the model."""

    allowed: Constraint | None = None
    "token ids that were allowed at each step; None allows the whole vocabulary"
    temperature: float = 1.0
    "0 means greedy"
    is_plain: bool = True
    "whether there was no other sampler than the temperature"


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
    with packing.packed_weights(model.lm, n_steps * -(-len(order) // batch_size)):
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = [prompts[i] for i in indices]
            batch_keys = [keys[i] for i in indices]
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
    tokens = _Tokens(sampling, prompts, model.device)
    return _continue(model, active, state, hidden_BD, random_BN, sampling, tokens)


@torch.inference_mode()
def continue_rows(
    model: Model,
    active: Active,
    state: forward.BatchState,
    hidden_BD: Tensor,
    keys: Sequence[str],
    sampling: Sampling,
) -> list[list[int]]:
    """Free completions from a state that `prefill` made; uses the state up.

    Penalties count the tokens of the completions alone: a state does not know its prompt's.
    """
    random_BN = _random_numbers(model, sampling.seed, keys, sampling.max_new_tokens)
    tokens = _Tokens(sampling, [()] * len(keys), model.device)
    return _continue(model, active, state, hidden_BD, random_BN, sampling, tokens)


def _continue(
    model: Model,
    active: Active,
    state: forward.BatchState,
    hidden_BD: Tensor,
    random_BN: Tensor,
    sampling: Sampling,
    tokens: "_Tokens",
) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in range(len(hidden_BD))]
    running = list(range(len(hidden_BD)))  # answers that have not ended; the rows of the state
    unread: list[Tensor] = []
    end_ids = frozenset(model.end_ids)
    check_every = CHECK_EVERY[model.device.type]
    for step in range(sampling.max_new_tokens):
        ids_B = _next_tokens(model, hidden_BD, random_BN[:, step], sampling, tokens)
        tokens.add(ids_B)
        unread.append(ids_B)
        is_last = step + 1 == sampling.max_new_tokens
        if is_last or len(unread) == check_every:
            for answer, written in zip(running, torch.stack(unread, 1).tolist(), strict=True):
                answers[answer] += _up_to_end(written, end_ids)
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
                tokens.take(index)
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
    tokens = _Tokens(sampling, prompts, model.device)
    for step, allowed_V in enumerate(allowed_ids):
        if len(allowed_V) == 1:
            ids_B = allowed_V.expand(len(prompts))
        else:
            if n_fed < step:
                hidden_BD = extend(model, active, state, written_BT[:, n_fed:])[:, -1]
                n_fed = step
            ids_B = _next_tokens(model, hidden_BD, random_BN[:, step], sampling, tokens, allowed_V)
        tokens.add(ids_B)
        written_BT = torch.cat([written_BT, ids_B.unsqueeze(1)], dim=1)
    return written_BT.tolist()


def _next_tokens(
    model: Model,
    hidden_BD: Tensor,
    random_B: Tensor,
    sampling: Sampling,
    tokens: "_Tokens",
    allowed_V: Tensor | None = None,
) -> Tensor:
    """The next token [B] of every row, among the allowed ones."""
    is_compiled = model.softcap is None and compiled.usable(hidden_BD, model.head.weight)
    if is_compiled and sampling.is_plain and sampling.temperature > 0:
        raw_BV = forward.raw_logits(model, hidden_BD, allowed_V)
        index_B = passes.draw(raw_BV, random_B, sampling.temperature)
    else:
        logits_BV = forward.logits_of(model, hidden_BD, allowed_V)
        logits_BV = cut(tokens.penalised(logits_BV, allowed_V), sampling)
        index_B = choose(logits_BV, random_B, sampling.temperature)
    return index_B if allowed_V is None else allowed_V[index_B]


def _check_finite(model: Model, hidden_BD: Tensor) -> None:
    """Raise ModelError for hidden states from which nothing can be sampled."""
    if not torch.isfinite(hidden_BD).all():
        raise ModelError(
            f"{model.name} under its interventions computes values that are not finite; expected"
            " finite ones; lower the strength of the steering or the noise, or check the weights"
        )


class _Tokens:
    """Which tokens rows hold, for penalties; without a penalty, nothing is kept."""

    def __init__(
        self, sampling: Sampling, prompts: Sequence[Sequence[int]], device: torch.device
    ) -> None:
        self.sampling = sampling
        self.prompts: list[Tensor] = []
        for prompt in prompts:
            self.prompts.append(torch.tensor(sorted(set(prompt)), dtype=torch.long, device=device))
        self.written_BT = torch.empty(len(prompts), 0, dtype=torch.long, device=device)

    def add(self, ids_B: Tensor) -> None:
        """Append the next token of every row."""
        if self.sampling.has_penalty:
            self.written_BT = torch.cat([self.written_BT, ids_B.unsqueeze(1)], dim=1)

    def take(self, index: Tensor) -> None:
        """Keep some rows."""
        if self.sampling.has_penalty:
            self.prompts = [self.prompts[row] for row in index.tolist()]
            self.written_BT = self.written_BT[index]

    def penalised(self, logits_BV: Tensor, columns_V: Tensor | None = None) -> Tensor:
        """Logits under the penalties; the columns are token ids, all of them without `columns_V`.

        Source of the repetition penalty: Keskar et al. 2019, arXiv 1909.05858.
        """
        if not self.sampling.has_penalty:
            return logits_BV
        counts_BV = logits_BV.new_zeros(len(logits_BV), self._size(logits_BV, columns_V))
        once_BT = torch.ones_like(self.written_BT, dtype=counts_BV.dtype)
        counts_BV.scatter_add_(1, self.written_BT, once_BT)
        held_BV = counts_BV > 0
        for row, prompt in enumerate(self.prompts):
            held_BV[row, prompt] = True
        if columns_V is not None:
            counts_BV, held_BV = counts_BV[:, columns_V], held_BV[:, columns_V]
        factor = self.sampling.repetition_penalty
        lower_BV = torch.where(logits_BV > 0, logits_BV / factor, logits_BV * factor)
        logits_BV = torch.where(held_BV, lower_BV, logits_BV)
        return logits_BV - self.sampling.frequency_penalty * counts_BV

    def _size(self, logits_BV: Tensor, columns_V: Tensor | None) -> int:
        """Number of ids that must be told apart."""
        if columns_V is None:
            return logits_BV.shape[1]
        largest = [int(columns_V.max())]
        for ids in (self.written_BT, *self.prompts):
            if ids.numel():
                largest.append(int(ids.max()))
        return 1 + max(largest)


def cut(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Logits with -inf where top-k, top-p or min-p lets no token be drawn.

    Tokens that tie with the last one of top-k can be drawn. Sources: Holtzman et al. 2020 (arXiv
    1904.09751); Nguyen et al. 2024 (arXiv 2407.01082).
    """
    if sampling.temperature == 0:
        return logits_BV
    if 0 < sampling.top_k < logits_BV.shape[1]:
        least_B1 = logits_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if sampling.top_p < 1:
        p_BV = torch.softmax(logits_BV / sampling.temperature, -1)
        sorted_BV, order_BV = p_BV.sort(dim=-1, descending=True)
        is_outside_BV = sorted_BV.cumsum(-1) - sorted_BV >= sampling.top_p
        is_outside_BV = torch.zeros_like(is_outside_BV).scatter(1, order_BV, is_outside_BV)
        logits_BV = logits_BV.masked_fill(is_outside_BV, -torch.inf)
    if sampling.min_p > 0:
        p_BV = torch.softmax(logits_BV / sampling.temperature, -1)
        is_rare_BV = p_BV < sampling.min_p * p_BV.amax(-1, keepdim=True)
        logits_BV = logits_BV.masked_fill(is_rare_BV, -torch.inf)
    return logits_BV


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
