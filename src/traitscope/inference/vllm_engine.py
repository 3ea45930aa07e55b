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

from traitscope.errors import ConfigError, ModelError
from traitscope.inference.decode import Constraint, Sampling
from traitscope.interventions.intervention import Intervention, SystemPrompt
from traitscope.models import nf4, weight_noise
from traitscope.models.loading import find_model
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
    if weight_noise.split_name(name)[1] or dtype == nf4.NAME:
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
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": length,
        "allowed_token_ids": allowed,
        "detokenize": False,
        "stop_token_ids": list(model.end_ids),
    }
    params = [SamplingParams(seed=_seed(sampling.seed, key), **common) for key in keys]
    answers = _answers(model, dtype, prompts, params, length)
    if done:
        done(len(prompts))
    return [list(answer.outputs[0].token_ids) for answer in answers]


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
