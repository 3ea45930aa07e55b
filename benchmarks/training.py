"""Training tokens a second: traitscope.train against TRL's SFTTrainer on the same rows.

Rows: number prompts with stored completion ids, SmolLM2-135M, LoRA rank 8 and alpha 32 on every
linear map of the blocks, AdamW, 32 rows an optimizer step in micro-batches of 8 (TRL's default
too), loss on completion tokens. A round is one pass over all rows. Tokens are those of the rows,
padding excluded, the same count for all contenders.

    ours         traitscope.train.train
    trl-default  TRL's own choices: fp32 weights, bf16 autocast, gradient checkpointing; 8 rows,
                 because it may be slow
    trl-sdpa     our dtype, no gradient checkpointing, rows grouped by length, torch's fused
                 attention
    trl-eager    the same with plain attention; the faster of these two is `tuned`

Limit: with W weights in the linear maps of the blocks, D d_model, V vocabulary,
    FLOP(round) = 4 W tokens + 4 V D completion tokens
which is forward 2 and backward 2 (frozen weights need no gradient of their own); attention, norms
  and the adapters are
not counted.  share_of_limit = FLOP(round) / (seconds * matmul rate measured in the same run).
Ours runs the tokens that all rows of a micro-batch begin with once, so less is computed than the
  limit counts;
share_computed counts the block tokens that were really run, padding still excluded.
"""

import json
import sys

import common

FEW = 8
"rows of a round of trl-default"
RECIPE = {
    "rank": 8,
    "alpha": 32.0,
    "lr": 4e-4,
    "batch_size": 32,
    "micro_batch": 8,
    "epochs": 1,
    "held_out": 0.0,
}


def rows_of(n: int) -> list:
    from traitscope.inference.token_rows import Row

    prompts, answers, _ = common.number_rows(n)
    return [Row(tuple(p), tuple(a)) for p, a in zip(prompts, answers, strict=True)]


def ours(n: int, dtype: str, batch: int, micro_batch: int, device: str) -> None:
    from traitscope.config.recipe import Recipe
    from traitscope.models import bundled, loading
    from traitscope.training import loop
    from traitscope.training.plan import plan_training
    from traitscope.training.student import new_student

    recipe = Recipe(**RECIPE | {"batch_size": batch, "micro_batch": micro_batch})
    rows, handle = rows_of(n), loading.load_model(bundled.EMBEDDED, device, dtype)
    plan = plan_training(rows, recipe, 0)
    with new_student(handle, recipe, seed=0) as student:

        def run() -> common.Round:
            student.step, seen = 0, []
            loop.train_student(
                handle, student, plan, on_step=lambda metrics, _: seen.append(metrics["loss"])
            )
            return {"tokens": sum(len(r.ids) for r in rows), "loss": sum(seen) / len(seen)}

        common.serve(run)


def trl(
    n: int, dtype: str, batch: int, micro_batch: int, device: str, attention: str | None
) -> None:
    """attention None: TRL as it is when nothing is chosen."""
    import tempfile
    import time

    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from traitscope.models.bundled import EMBEDDED, wheel_folder

    rows = rows_of(n)
    if attention is None:
        chosen = {}
    else:
        chosen = {
            "bf16": dtype == "bf16",
            "gradient_checkpointing": False,
            "train_sampling_strategy": "group_by_length",
            "model_init_kwargs": {
                "dtype": {"bf16": "bfloat16", "fp32": "float32"}[dtype],
                "attn_implementation": attention,
            },
        }
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=device == "cpu",
        num_train_epochs=1,
        learning_rate=RECIPE["lr"],
        warmup_steps=0.05,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=batch // micro_batch,
        lr_scheduler_type="cosine",
        weight_decay=0.0,
        completion_only_loss=True,
        packing=False,
        max_length=None,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **chosen,
    )
    data = Dataset.from_list(
        [
            {
                "input_ids": list(r.ids),
                "completion_mask": [0] * len(r.prompt_ids) + [1] * len(r.completion_ids),
            }
            for r in rows
        ]
    )
    lora = LoraConfig(
        r=RECIPE["rank"],
        lora_alpha=RECIPE["alpha"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    clock = {}

    class Clock(TrainerCallback):
        def on_epoch_begin(self, *_: object, **__: object) -> None:
            clock["start"] = time.perf_counter()

        def on_epoch_end(self, *_: object, **__: object) -> None:
            clock["seconds"] = time.perf_counter() - clock["start"]

    trainer = SFTTrainer(
        str(wheel_folder(EMBEDDED)),
        args=config,
        train_dataset=data,
        peft_config=lora,
        callbacks=[Clock()],
    )

    def run() -> common.Round:
        loss = trainer.train().training_loss
        return {"tokens": sum(len(r.ids) for r in rows), "loss": loss, "seconds": clock["seconds"]}

    common.serve(run)


def work(n: int, batch: int, micro_batch: int = RECIPE["micro_batch"]) -> dict[str, float]:
    """FLOP of a round as the limit counts them, and as ours computes them."""
    from traitscope.config.recipe import Recipe
    from traitscope.inference import forward
    from traitscope.models import bundled, loading
    from traitscope.models.linear_maps import linear_names, weight_of
    from traitscope.training.plan import epoch_batches

    recipe = Recipe(**RECIPE | {"batch_size": batch, "micro_batch": micro_batch})
    rows, handle = rows_of(n), loading.load_model(bundled.EMBEDDED, "cpu", "fp32")
    weights = sum(weight_of(handle.lm.get_submodule(name)).numel() for name in linear_names(handle))
    head = handle.head.weight.numel() * sum(len(r.completion_ids) for r in rows)
    tokens = run = sum(len(r.ids) for r in rows)
    for part in epoch_batches(rows, range(len(rows)), recipe, 0, 0):
        for start in range(0, len(part), recipe.micro_batch):
            prompts = [rows[i].prompt_ids for i in part[start : start + recipe.micro_batch]]
            run -= (len(prompts) - 1) * forward.shared_length(prompts)
    return {"limit": 4 * (weights * tokens + head), "computed": 4 * (weights * run + head)}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument(
        "--skip-default",
        action="store_true",
        help="leave trl-default out (minutes where bf16 is emulated)",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="a GPU wants large passes: --rows 4096 --batch 256 --micro-batch 256",
    )
    parser.add_argument(
        "--batch", type=int, default=RECIPE["batch_size"], help="rows an optimizer step"
    )
    parser.add_argument("--micro-batch", type=int, default=RECIPE["micro_batch"])
    parser.add_argument(
        "--skip-peers", action="store_true", help="ours alone, where TRL is not installed"
    )
    args = parser.parse_args()
    dtype = common.dtype_of(args.dtype, args.device)
    n, batch, rounds = (8, 8, 1) if args.quick else (args.rows, args.batch, args.rounds)
    micro = min(args.micro_batch, batch)
    match args.contender:
        case "matmul":
            return common.serve_matmul(dtype, args.device)
        case "ours":
            return ours(n, dtype, batch, micro, args.device)
        case "trl-default":
            return trl(min(n, FEW), dtype, min(batch, FEW), min(micro, FEW), args.device, None)
        case "trl-sdpa" | "trl-eager":
            return trl(n, dtype, batch, micro, args.device, args.contender.removeprefix("trl-"))
    names = ["matmul", "ours"]
    names += (
        []
        if args.skip_peers
        else ["trl-sdpa", "trl-eager", *([] if args.skip_default else ["trl-default"])]
    )
    facts = common.machine()
    found = common.rivals(__file__, names, sys.argv[1:], rounds)
    rate, flop = common.median(found["matmul"], "rate"), work(n, batch, micro)
    rows, seconds = common.speeds(found), common.median(found["ours"], "seconds")
    for name, row in rows.items():
        row["first_loss"] = round(found[name][0]["loss"], 4)
    speed = {name: row["tokens_per_s"] for name, row in rows.items()}
    result = {
        "benchmark": "training",
        "quick": args.quick,
        "dtype": dtype,
        "device": args.device,
        "rows": n,
        "batch": batch,
        "micro_batch": micro,
        "machine": facts,
        "matmul_gflops": round(rate / 1e9, 1),
        "contenders": rows,
        "share_of_limit": round(flop["limit"] / seconds / rate, 3),
        "share_computed": round(flop["computed"] / seconds / rate, 3),
    }
    if not args.skip_peers:
        tuned = max(("trl-sdpa", "trl-eager"), key=speed.get)
        result |= {
            "tuned": tuned,
            "ratio_to_tuned": round(speed["ours"] / speed[tuned], 3),
            "ratio_to_default": (
                None if args.skip_default else round(speed["ours"] / speed["trl-default"], 3)
            ),
            "tuned_share_of_limit": round(
                flop["limit"] / common.median(found[tuned], "seconds") / rate, 3
            ),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
