"""Generated tokens a second: traitscope.decode against transformers' generate on the same prompts.

SmolLM2-135M, number prompts, temperature 1, no top-k, no top-p. A round decodes all prompts,
prefill included. Two tasks, both of the same number of new tokens a row:

    free      any token; the end of the turn is ignored on both sides, so every row has the full
              length
    template  ten numbers of three digits and separators; transformers gets a logits processor that
              leaves only the
              allowed ids of the step, the cheapest it can be told

Contenders: ours (batch 128), and transformers at batch 32 and 128 in our dtype, the faster counting
as its speed. Each runs with what its loader chooses for attention (transformers: sdpa). `default`
is transformers as its loader leaves it, which is the checkpoint's dtype, bf16: 32 rows only,
because it may be slow. With --engines, OpenVINO GenAI and vLLM too, for `free`: each in the
environment that engines.sh makes, all rows in one call, weights and cache in our dtype.

Limit at 2 FLOP a weight and token, with W weights in the linear maps of the blocks, D d_model, V
  vocabulary:
    FLOP(round) = 2 W (prompt tokens + new tokens - rows) + 2 D logits
where logits is V a new token for `free` and the number of allowed ids, summed over steps with a
  choice, for `template`.
The last new token of a row never enters the model.  Attention and norms are not counted.
share_of_limit = FLOP(round) / (seconds * matmul rate measured in the same run).  Ours runs the
  tokens that all prompts
begin with once, and does not run a step without a choice on its own, so what it saves shows up in
  the share.
Decoding multiplies 128 rows at a time by every weight, fewer than the matmul that sets the limit,
  so 1 is out of reach.
"""

import json
import sys
from pathlib import Path

import common

BATCHES = (32, 128)
FEW = 32
"rows of a round of transformers in its own dtype"


def ours(n: int, dtype: str, task: str, batch: int, length: int | None, device: str) -> None:
    from traitscope.inference import decode
    from traitscope.interventions.applied import applied
    from traitscope.models import bundled, loading, model

    class Endless(model.Model):
        """A model for which nothing ends an answer."""

        end_ids = ()

    prompts, _, steps = common.number_rows(n)
    steps = steps[:length]
    handle = loading.load_model(bundled.EMBEDDED, device, dtype)
    handle = Endless(handle.lm, handle.tokenizer, handle.digest, handle.name)
    keys = [str(i) for i in range(n)]
    sampling = decode.Sampling(1.0, len(steps), 0)
    constraint = steps if task == "template" else None

    def run() -> common.Round:
        with applied(handle, []) as active:
            answers = decode.decode(handle, active, prompts, keys, sampling, constraint, batch)
        return {"tokens": sum(map(len, answers))}

    common.serve(run)


def transformers(
    n: int, dtype: str | None, task: str, batch: int, length: int | None, device: str
) -> None:
    import torch
    from transformers import (
        AutoModelForCausalLM,
        GenerationConfig,
        LogitsProcessor,
        LogitsProcessorList,
    )

    from traitscope.models import bundled, hardware

    prompts, _, steps = common.number_rows(n)
    steps, pad = steps[:length], 0
    chosen = {} if dtype is None else {"dtype": hardware.dtypes()[dtype]}
    lm = (
        AutoModelForCausalLM.from_pretrained(bundled.wheel_folder(bundled.EMBEDDED), **chosen)
        .eval()
        .to(device)
    )
    lm.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=len(steps),
        eos_token_id=None,
        pad_token_id=pad,
    )
    allowed = [torch.tensor(ids, device=device) for ids in steps]

    class OnlyAllowed(LogitsProcessor):
        def __init__(self, start: int) -> None:
            self.start = start

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            ids = allowed[input_ids.shape[1] - self.start]
            return torch.full_like(scores, -torch.inf).index_copy_(1, ids, scores[:, ids])

    def answer(rows: list) -> int:
        width = max(map(len, rows))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        mask = torch.tensor(
            [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device
        )
        processors = LogitsProcessorList([OnlyAllowed(width)] if task == "template" else [])
        return lm.generate(ids, attention_mask=mask, logits_processor=processors)[:, width:].numel()

    order = sorted(prompts, key=len)

    def run() -> common.Round:
        return {"tokens": sum(answer(order[start : start + batch]) for start in range(0, n, batch))}

    common.serve(run)


def work(n: int, length: int | None) -> dict[str, float]:
    """FLOP of a round of each task, as the limit counts them."""
    from traitscope.models import bundled, loading
    from traitscope.models.linear_maps import linear_names, weight_of

    prompts, _, steps = common.number_rows(n)
    steps, handle = steps[:length], loading.load_model(bundled.EMBEDDED, "cpu", "fp32")
    weights = sum(weight_of(handle.lm.get_submodule(name)).numel() for name in linear_names(handle))
    size, width = handle.head.weight.shape
    blocks = 2 * weights * (sum(map(len, prompts)) + n * (len(steps) - 1))
    choices = sum(len(ids) for ids in steps if len(ids) > 1)
    return {
        "free": blocks + 2 * width * size * n * len(steps),
        "template": blocks + 2 * width * choices * n,
    }


def engines(folder: Path, n: int, length: int | None, dtype: str) -> dict[str, list[str]]:
    """Commands of the other engines in a folder, by name; their task is written beside them.

    Ends with a message where the folder holds no engine.
    """
    from traitscope.models import bundled

    prompts, _, steps = common.number_rows(n)
    models = {
        "openvino": folder / "openvino" / "fp32",
        "vllm": bundled.wheel_folder(bundled.EMBEDDED),
    }
    commands = {}
    for name, model in models.items():
        if not (folder / name / "ready").exists():
            continue
        task = folder / f"{name}.json"
        about = {
            "model": str(model),
            "prompts": prompts,
            "tokens": len(steps[:length]),
            "dtype": dtype,
        }
        task.write_text(json.dumps(about))
        python = folder / name / "bin" / "python"
        script = Path(__file__).with_name("engines.py")
        commands[name] = [str(python), str(script), name, str(task)]
    if not commands:
        raise SystemExit(
            f"{folder} holds no engine that is ready; run: bash benchmarks/engines.sh {folder}"
        )
    return commands


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument(
        "--skip-default", action="store_true", help="leave out transformers in its own dtype"
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=("free", "template"), default=("free", "template")
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--engines",
        type=Path,
        metavar="FOLDER",
        help="compare with the engines of this folder, see engines.sh",
    )
    parser.add_argument(
        "--batches",
        nargs="+",
        type=int,
        default=BATCHES,
        help="of transformers; ours takes the largest",
    )
    args = parser.parse_args()
    dtype = common.dtype_of(args.dtype, args.device)
    n, rounds, length = (4, 1, 8) if args.quick else (args.rows, args.rounds, None)
    if args.contender == "matmul":
        return common.serve_matmul(dtype, args.device)
    if args.contender:
        who, task, batch = args.contender.split("-")
        if who == "default":
            return transformers(min(n, FEW), None, task, int(batch), length, args.device)
        return (ours if who == "ours" else transformers)(
            n, dtype, task, int(batch), length, args.device
        )
    batches = sorted({min(b, n) for b in args.batches})
    result = {
        "benchmark": "generation",
        "quick": args.quick,
        "dtype": dtype,
        "device": args.device,
        "rows": n,
        "machine": common.machine(),
        "tasks": {},
    }
    flop = work(n, length)
    for task in args.tasks:
        mine = f"ours-{task}-{batches[-1]}"
        theirs = [f"transformers-{task}-{b}" for b in batches]
        usual = [] if args.skip_default else [f"default-{task}-{FEW}"]
        others = engines(args.engines, n, length, dtype) if args.engines and task == "free" else {}
        names = ["matmul", mine, *theirs, *usual]
        found = common.rivals(__file__, names, sys.argv[1:], rounds, others)
        rate, rows = common.median(found["matmul"], "rate"), common.speeds(found)
        best = max(theirs, key=lambda name: rows[name]["tokens_per_s"])
        limit = flop[task] / rate
        result["tasks"][task] = {
            "matmul_gflops": round(rate / 1e9, 1),
            "contenders": rows,
            "best_of_transformers": best,
            "ratio": round(rows[mine]["tokens_per_s"] / rows[best]["tokens_per_s"], 3),
            "ratio_to_default": (
                round(rows[mine]["tokens_per_s"] / rows[usual[0]]["tokens_per_s"], 3)
                if usual
                else None
            ),
            "share_of_limit": round(limit / common.median(found[mine], "seconds"), 3),
            "transformers_share_of_limit": round(limit / common.median(found[best], "seconds"), 3),
        }
        for name in sorted(others.keys() & rows.keys()):
            ratio = rows[mine]["tokens_per_s"] / rows[name]["tokens_per_s"]
            result["tasks"][task][f"ratio_to_{name}"] = round(ratio, 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
