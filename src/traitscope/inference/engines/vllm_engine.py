"""Decoding and scoring of ordinary checkpoints by vLLM, an extra that is fast for many rows.

Token ids go in and come out. A row's draw is seeded by (seed, row key), so it does not depend on
the rows around it. It differs from the draw of decode.py. vLLM runs no hooks, so a steered teacher
or a student becomes a checkpoint first (`traitscope export`).
"""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from traitscope.data.traits import Trait
from traitscope.errors import ConfigError, ModelError
from traitscope.inference.decode import Constraint, Sampling
from traitscope.inference.question_scores import (
    Question,
    QuestionScores,
    answer_text,
    candidate_ids,
    form_ids,
    question_scores,
    questions_of,
    rendered_questions,
    stream_keys,
)
from traitscope.interventions.intervention import Intervention, SystemPrompt, context_of
from traitscope.models import hardware, weight_noise
from traitscope.models.identity.finding import find_model
from traitscope.models.model import Model

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
SHARD = 8192
"rows that a stage hands over together"
LENGTH_STEP = 1024
"""multiple to which the longest sequence of an engine is rounded up, so that one engine serves what
comes next, too"""


def check(name: str, dtype: str, interventions: Sequence[Intervention]) -> None:
    """Raise ModelError where vLLM is missing, ConfigError for what it cannot run."""
    if util.find_spec("vllm") is None:
        raise ModelError(
            "--engine vllm needs vLLM, which is not here: pip install 'traitscope[vllm]', in an"
            " environment of its own, since it brings its own torch; or leave --engine out"
        )
    for item in interventions:
        if not isinstance(item, SystemPrompt):
            raise ConfigError(
                f"--engine vllm with {type(item).__name__}: vLLM runs no hooks; make a checkpoint"
                " first (traitscope export --interventions ...), and name its folder as --model"
            )
    if weight_noise.split_name(name)[1] or dtype == hardware.NF4:
        raise ConfigError(
            f"--engine vllm with --model {name} --dtype {dtype}: it takes plain checkpoints in fp32"
            " or bf16; export the model first"
        )


def decode(
    model: Model,
    dtype: str,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[str],
    sampling: Sampling,
    constraint: Constraint | None = None,
    done: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Sampled completions as token ids, in the order of `prompts`.

    They include the end-of-turn token, where it was sampled.
    model: its outline is enough.
    constraint: the same allowed ids at every step.
    """
    from vllm import SamplingParams

    allowed, length = None, sampling.max_new_tokens
    if constraint is not None:
        allowed, length = list(constraint[0]), len(constraint)
    common = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "max_tokens": length,
        "allowed_token_ids": allowed,
        "detokenize": False,
        "stop_token_ids": list(model.end_ids),
    }
    params = [SamplingParams(seed=_seed(sampling.seed, key), **common) for key in keys]
    completions = []
    for answer in _answers(model, dtype, prompts, params, length):
        completions.append(list(answer.outputs[0].token_ids))
    if done:
        done(len(prompts))
    return completions


def log_likelihoods(
    model: Model, dtype: str, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[float]:
    """log p(completion | prompt) of each row, nats."""
    from vllm import SamplingParams

    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        rows.append([*prompt, *completion])
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
    log_likelihoods_of_rows = []
    answers = _answers(model, dtype, rows, params, 1)
    for answer, row, prompt in zip(answers, rows, prompts, strict=True):
        log_likelihood = 0.0
        for position in range(len(prompt), len(row)):
            log_likelihood += answer.prompt_logprobs[position][row[position]].logprob
        log_likelihoods_of_rows.append(log_likelihood)
    return log_likelihoods_of_rows


def _answers(
    model: Model, dtype: str, rows: Sequence[Sequence[int]], params: Any, extra: int
) -> list[Any]:
    """vLLM's answers to rows of token ids that leave room for `extra` tokens."""
    from vllm.inputs import TokensPrompt

    longest = max(map(len, rows)) + extra
    length = math.ceil(longest / LENGTH_STEP) * LENGTH_STEP
    engine = _engine(find_model(model.name), DTYPES[dtype], min(length, model.max_length))
    prompts = [TokensPrompt(prompt_token_ids=list(ids)) for ids in rows]
    return engine.generate(prompts, params, use_tqdm=False)


@lru_cache(maxsize=1)
def _engine(folder: Path, dtype: str, length: int) -> Any:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM

    return LLM(
        model=str(folder), dtype=dtype, max_model_len=length, generation_config="vllm", seed=0
    )


def _seed(seed: int, key: str) -> int:
    """The seed of a row's draw, below 2^31."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4], "little") >> 1


def score_questions(
    model: Model,
    dtype: str,
    trait: Trait,
    interventions: Sequence[Intervention],
    context: str | None,
    samples: int,
    sampling: Sampling,
) -> list[QuestionScores]:
    """The scores of every question of a trait, as `question_scores.score_questions` gives them.

    An outline of the model is enough. total_variation is absent, because it needs the probability
    of every token.
    """
    questions = questions_of(trait)
    prompts = rendered_questions(model, trait, context_of(interventions, context), sampling)
    forced = _forced_scores(model, dtype, trait, prompts)
    answers: dict[str, list[str]] = {}
    if samples:
        answers = _sampled_answers(model, dtype, questions, prompts, samples, sampling)
    scored = []
    for question in questions:
        texts = answers.get(question.id, [])
        scored.append(question_scores(trait, question, forced[question.id], texts))
    return scored


def _sampled_answers(
    model: Model,
    dtype: str,
    questions: Sequence[Question],
    prompts: dict[str, list[int]],
    samples: int,
    sampling: Sampling,
) -> dict[str, list[str]]:
    """The sampled answers of each question, by its id."""
    owners, rows = [], []
    for question in questions:
        owners += [question.id] * samples
        rows += [prompts[question.id]] * samples
    keys = stream_keys(questions, samples)
    decoded = decode(model, dtype, rows, keys, sampling)
    answers: dict[str, list[str]] = {}
    for name, ids in zip(owners, decoded, strict=True):
        answers.setdefault(name, []).append(answer_text(model, ids))
    return answers


def _forced_scores(
    model: Model, dtype: str, trait: Trait, prompts: dict[str, list[int]]
) -> dict[str, dict[str, float]]:
    """target_logprob and candidate_share of each question, by its id."""
    owners: list[tuple[str, str]] = []
    rows: list[list[int]] = []
    completions: list[list[int]] = []
    for question in questions_of(trait):
        forms = form_ids(model, trait.word_forms, question.stem)
        candidates = candidate_ids(model, trait, question.stem)
        owners += [(question.id, "target")] * len(forms)
        owners += [(question.id, "candidate")] * len(candidates)
        rows += [prompts[question.id]] * (len(forms) + len(candidates))
        completions += forms
        for token in candidates:
            completions.append([token])
    values = log_likelihoods(model, dtype, rows, completions)
    log_p: dict[tuple[str, str], list[float]] = {}
    for owner, value in zip(owners, values, strict=True):
        log_p.setdefault(owner, []).append(value)
    forced = {}
    for name in prompts:
        target = np.logaddexp.reduce(log_p[name, "target"])
        share = math.nan
        if (name, "candidate") in log_p:
            others = np.logaddexp.reduce(log_p[name, "candidate"])
            share = float(np.exp(target - np.logaddexp(target, others)))
        forced[name] = {"target_logprob": float(target), "candidate_share": share}
    return forced
