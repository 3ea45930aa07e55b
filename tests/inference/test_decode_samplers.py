"""Samplers of decoding against transformers' own processors of logits."""

import pytest
import torch
from tiny_models import random_rows
from transformers.generation import logits_process as hf

from traitscope.config.stages import GenerateConfig
from traitscope.errors import ConfigError
from traitscope.inference import decode, forward
from traitscope.inference.decode import Sampling, cut, uniforms
from traitscope.interventions.applied import Active, applied
from traitscope.models.model import Model

KEYS = ["a", "b", "c", "d"]
LENGTHS = [5, 9, 3, 5]
ALL = Sampling(0.8, 9, 3, 40, 0.9, 0.02, 1.3, 0.4)
CASES = {
    "top-k": Sampling(1.3, 8, 1, top_k=7),
    "top-p": Sampling(1.3, 8, 1, top_p=0.7),
    "min-p": Sampling(0.7, 8, 1, min_p=0.1),
    "repetition": Sampling(1.0, 8, 1, repetition_penalty=1.5),
    "frequency": Sampling(1.0, 8, 1, frequency_penalty=2.0),
    "greedy": Sampling(0.0, 8, 1, top_k=3, repetition_penalty=1.5),
    "all": ALL,
}


def processed(logits_V: torch.Tensor, ids: list[int], start: int, s: Sampling) -> torch.Tensor:
    """Scores by transformers; the frequency penalty, which it lacks, by its definition in vLLM."""
    scores = logits_V.clone().unsqueeze(0)
    if s.repetition_penalty != 1:
        penalty = hf.RepetitionPenaltyLogitsProcessor(s.repetition_penalty)
        scores = penalty(torch.tensor([ids]), scores)
    for token in ids[start:]:
        scores[0, token] -= s.frequency_penalty
    if s.temperature == 0:
        return scores[0]
    scores = hf.TemperatureLogitsWarper(s.temperature)(None, scores)
    if s.top_k:
        scores = hf.TopKLogitsWarper(s.top_k)(None, scores)
    if s.top_p < 1:
        scores = hf.TopPLogitsWarper(s.top_p)(None, scores)
    if s.min_p:
        scores = hf.MinPLogitsWarper(s.min_p)(None, scores)
    return scores[0]


def drawn(scores_V: torch.Tensor, u: float, temperature: float) -> int:
    if temperature == 0:
        return int(scores_V.argmax())
    cumulative = torch.softmax(scores_V.double(), -1).cumsum(-1)
    return int((cumulative > u * cumulative[-1]).nonzero()[0])


def logits_after(model: Model, active: Active, ids: list[int], start: int) -> torch.Tensor:
    with torch.inference_mode():
        hidden = forward.hidden_states(model, active, forward.batch_of([ids], [start], 0))
        return forward.logits_of(model, hidden[0, -1:])[0]


@pytest.mark.parametrize("name", CASES)
def test_every_draw_is_that_of_transformers(family: Model, name: str) -> None:
    sampling, prompts = CASES[name], random_rows(family, LENGTHS)
    with applied(family, []) as active:
        answers = decode.decode(family, active, prompts, KEYS, sampling, batch_size=3)
        for prompt, key, answer in zip(prompts, KEYS, answers, strict=True):
            random = uniforms(sampling.seed, key, sampling.max_new_tokens)
            for n, token in enumerate(answer):
                ids = [*prompt, *answer[:n]]
                logits = logits_after(family, active, ids, len(prompt))
                scores = processed(logits, ids, len(prompt), sampling)
                assert drawn(scores, float(random[n]), sampling.temperature) == token


def test_constrained_draws_are_cut_among_the_allowed_tokens(tiny: Model) -> None:
    """Penalties count forced tokens and the prompt's, too."""
    prompts = [[9, 30, 31], [33, 40, 41, 42], [7, 9], [35, 36]]
    constraint = [list(range(30, 42)), [9], list(range(32, 44)), list(range(30, 42)), [2]]
    sampling = Sampling(0.9, 5, 2, top_k=8, top_p=0.9, repetition_penalty=1.4, frequency_penalty=1)
    with applied(tiny, []) as active:
        answers = decode.decode(tiny, active, prompts, KEYS, sampling, constraint)
        for prompt, key, answer in zip(prompts, KEYS, answers, strict=True):
            random = uniforms(sampling.seed, key, 5)
            for n, allowed in enumerate(constraint):
                ids = [*prompt, *answer[:n]]
                logits = logits_after(tiny, active, ids, len(prompt))
                masked = torch.full_like(logits, -torch.inf)
                masked[allowed] = logits[allowed]
                scores = processed(masked, ids, len(prompt), sampling)
                assert drawn(scores, float(random[n]), 0.9) == answer[n]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cuts_are_those_of_transformers(share: float) -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(50, 300)
    for sampling in (Sampling(top_p=share), Sampling(min_p=share / 2), Sampling(top_k=5)):
        kept = cut(logits, sampling).isfinite()
        scores = [processed(row, [], 0, sampling) for row in logits]
        assert torch.equal(kept, torch.stack(scores).isfinite())
        assert kept.any(-1).all()


def test_plain_sampling_changes_no_logit() -> None:
    logits = torch.randn(3, 20)
    assert cut(logits, Sampling(0.7)) is logits
    assert Sampling(0.7).is_plain and not ALL.is_plain


@pytest.mark.parametrize(
    "wrong", [{"top_p": 0.0}, {"top_p": 1.1}, {"min_p": 1.5}, {"repetition_penalty": 0.0}]
)
def test_samplers_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="give such"):
        GenerateConfig(**wrong)
