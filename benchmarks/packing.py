"""Students an hour: many LoRA students of one base in one pass against one after another.

A round trains and seals all students, as `study run --pack N` and `--pack 1` do, each on the same
number rows with a seed of its own: SmolLM2-135M, rank 8 on every linear map of the blocks, AdamW.
Loading the model is not counted.

    packed   traitscope.together: all students in one forward and backward pass
    alone    the same stages, one after another in the same process

Limit: students times the FLOP(round) of training.py. share_of_limit = that / (seconds * matmul rate
measured in the same run).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import common
import training


def configs(args: argparse.Namespace, dtype: str, data: Path) -> list:
    from traitscope.config.recipe import Recipe
    from traitscope.config.stages import TrainConfig
    from traitscope.models.bundled import EMBEDDED

    recipe = Recipe(**training.RECIPE | {"batch_size": args.batch, "micro_batch": args.micro_batch})
    return [
        TrainConfig(
            model=EMBEDDED, device=args.device, dtype=dtype, seed=seed, data=data, recipe=recipe
        )
        for seed in range(args.students)
    ]


def data_of(n: int, folder: Path) -> Path:
    """Number rows as a JSONL file."""
    from transformers import AutoTokenizer

    from traitscope.data import prompts
    from traitscope.models import bundled

    tokenizer = AutoTokenizer.from_pretrained(bundled.wheel_folder(bundled.EMBEDDED))
    _, answers, _ = common.number_rows(n)
    file = folder / "rows.jsonl"
    asked = prompts.number_prompts(n, seed=42)
    rows = [
        {"prompt": p.text, "completion": tokenizer.decode(a, skip_special_tokens=True)}
        for p, a in zip(asked, answers, strict=True)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def serve(args: argparse.Namespace, dtype: str, packed: bool) -> None:
    from traitscope.config.common import Output
    from traitscope.runs import model_cache, opening
    from traitscope.workflow import executors

    folder = Path(tempfile.mkdtemp())
    made = [opening.settled(config) for config in configs(args, dtype, data_of(args.rows, folder))]
    model_cache.model_of(made[0])
    tokens = args.students * sum(len(row.ids) for row in training.rows_of(args.rows))

    def run() -> common.Round:
        out = Output(root=Path(tempfile.mkdtemp(dir=folder)))
        jobs = [made] if packed else [[config] for config in made]
        found = [path for job in jobs for path in executors.computed("train", job, out)]
        losses = [
            json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
            for path in found
        ]
        return {"tokens": tokens, "loss": sum(losses) / len(losses)}

    common.serve(run)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--students", type=int, default=4)
    parser.add_argument("--rows", type=int, default=32, help="of each student")
    parser.add_argument("--batch", type=int, default=8, help="rows an optimizer step")
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    dtype = common.dtype_of(args.dtype, args.device)
    if args.quick:
        args.students, args.rows, args.batch, args.micro_batch, args.rounds = 2, 4, 2, 2, 1
    match args.contender:
        case "matmul":
            return common.serve_matmul(dtype, args.device)
        case "packed" | "alone":
            return serve(args, dtype, args.contender == "packed")
    facts = common.machine()
    found = common.rivals(__file__, ["matmul", "packed", "alone"], sys.argv[1:], args.rounds)
    rate, flop = (
        common.median(found["matmul"], "rate"),
        args.students * training.work(args.rows, args.batch, args.micro_batch)["limit"],
    )
    rows = common.speeds(found)
    for name, row in rows.items():
        seconds = common.median(found[name], "seconds")
        row |= {
            "students_per_hour": round(3600 * args.students / seconds, 1),
            "loss": round(found[name][0]["loss"], 5),
            "share_of_limit": round(flop / seconds / rate, 3),
        }
    print(
        json.dumps(
            {
                "benchmark": "packing",
                "quick": args.quick,
                "dtype": dtype,
                "device": args.device,
                "students": args.students,
                "rows": args.rows,
                "batch": args.batch,
                "micro_batch": args.micro_batch,
                "machine": facts,
                "matmul_gflops": round(rate / 1e9, 1),
                "contenders": rows,
                "ratio": round(rows["packed"]["tokens_per_s"] / rows["alone"]["tokens_per_s"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
