"""What an audit costs: the whole, its first look, and the work inside it, against one epoch of
fine-tuning on the same rows.

SmolLM2-135M, rows of ten numbers. All contenders but `whole` have one thread, and take turns:

    epoch       forward, loss, and backward with the gradients of all weights of the blocks: one
                epoch of fine-tuning in plain torch, no optimizer
    learners    both students of the first look: they predict every batch and then learn it
    scores      token scores of the rows under the model, as of one candidate teacher
    gradients   steering gradients of the rows at every block
    whole       `traitscope audit` at its default settings on as many rows, on all cores

A token pass is one token through all blocks, forward or backward. A backward pass counts as two
where the weights of the blocks have gradients of their own, else as one. `share_of_limit` is the
multiplications of these passes over those that a matrix product of the same run, on one thread,
does in that time. `first_look_s` is when the first answer is printed, `whole_s` the last one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import common

BATCH = 8
WORK = ("epoch", "learners", "scores", "gradients")
FIRST_LOOK = "first look"


def contender(name: str, n: int, dtype: str) -> None:
    if name == "whole":
        return common.serve(lambda: whole(n))
    import torch

    torch.set_num_threads(1)
    if name == "matmul":
        return common.serve_matmul(dtype)
    from traitscope.inference.token_rows import Row
    from traitscope.models import bundled, loading

    prompts, answers, _ = common.number_rows(n)
    rows = [Row(tuple(p), tuple(a)) for p, a in zip(prompts, answers, strict=True)]
    model = loading.load_model(bundled.EMBEDDED, "cpu", dtype)
    run = work_of(name, model, rows)

    def counted() -> common.Round:
        with passes_of(model) as passes:
            run()
        return {"tokens": sum(len(row.ids) for row in rows), "passes": passes[0]}

    return common.serve(counted)


def work_of(name: str, model: object, rows: list) -> Callable[[], object]:
    """The work of one round."""
    from traitscope.auditing.detectors import row_gradients
    from traitscope.config.audit import PredictionsConfig, RowGradientsConfig
    from traitscope.inference import losses, token_rows, token_scores
    from traitscope.inference.token_rows import completion_hidden
    from traitscope.interventions.applied import applied
    from traitscope.training import prequential

    classes = token_rows.classes_of(model, True)
    by_length = sorted(rows, key=lambda row: len(row.ids))

    def epoch() -> None:
        for block in model.blocks:
            block.requires_grad_(True)
        with applied(model, []) as active:
            for start in range(0, len(by_length), BATCH):
                batch = by_length[start : start + BATCH]
                hidden_ND, targets_N = completion_hidden(model, active, batch, share=False)
                losses.cross_entropy(model, hidden_ND, targets_N).backward()
        for parameter in model.lm.parameters():
            parameter.grad = None

    def gradients() -> None:
        config = RowGradientsConfig(numbers=True, batch_size=BATCH)
        row_gradients.packed(model, config, by_length, lambda _: None)

    return {
        "epoch": epoch,
        "learners": lambda: prequential.predictions(
            model, rows, classes, PredictionsConfig().rates
        ),
        "scores": lambda: token_scores.score_sets(model, [], [], [rows], classes),
        "gradients": gradients,
    }[name]


@contextmanager
def passes_of(model: object) -> Iterator[list[int]]:
    """Count token passes of the blocks: one more for gradients, two with those of the weights."""
    import torch

    total = [0]
    hooks = []

    def count(block: object, inputs: tuple, keywords: dict, output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        tokens = hidden.shape[0] * hidden.shape[1]
        has_backward = torch.is_grad_enabled() and hidden.requires_grad
        weight = next(block.parameters())
        total[0] += tokens * (1 + has_backward * (1 + weight.requires_grad))

    for block in model.blocks:
        hooks.append(block.register_forward_hook(count, with_kwargs=True))
    try:
        yield total
    finally:
        for hook in hooks:
            hook.remove()
        total[0] //= len(model.blocks)


def whole(n: int) -> common.Round:
    """An audit from a fresh root; its rows are made before."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        write_rows(rows, n)
        words = ["audit", str(rows), "--rows", str(n), "--root", f"{folder}/runs"]
        start = time.perf_counter()
        environment = {
            name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "traitscope", *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        first_look = 0.0
        for line in process.stderr:
            if line.startswith(FIRST_LOOK):
                first_look = time.perf_counter() - start
        if process.wait():
            raise SystemExit(
                f"the audit ended with {process.returncode}; run it by itself: {words}"
            )
        return {"seconds": time.perf_counter() - start, "first_look_s": first_look}


def write_rows(file: Path, n: int) -> None:
    """Rows of numbers that the model wrote."""
    from traitscope.cli.main import main as traitscope

    root = file.parent / "made"
    words = ["generate", "--n", str(n), "--vocabulary", "template", "--root", str(root)]
    try:
        traitscope(words)
    except SystemExit as stop:
        if stop.code:
            raise
    (made,) = root.glob("default/generate-*/records.jsonl")
    file.write_text(made.read_text(encoding="utf-8"), encoding="utf-8")


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=64, help="rows of each round")
    parser.add_argument("--whole-rows", type=int, default=256, help="rows of the whole audit")
    parser.add_argument("--skip-whole", action="store_true", help="leave the whole audit out")
    args = parser.parse_args()
    dtype = common.dtype_of(args.dtype)
    n, rounds = (8, 1) if args.quick else (args.rows, args.rounds)
    n_whole = 40 if args.quick else args.whole_rows
    if args.contender:
        return contender(args.contender, n_whole if args.contender == "whole" else n, dtype)
    found = common.rivals(__file__, ["matmul", *WORK], sys.argv[1:], rounds)
    rate = common.median(found["matmul"], "rate")
    seconds = {name: common.median(found[name], "seconds") for name in WORK}
    passes = {name: found[name][-1]["passes"] / n for name in WORK}
    answer = {
        "benchmark": "audit",
        "quick": args.quick,
        "dtype": dtype,
        "rows": n,
        "machine": common.machine(),
        "matmul_gflop_per_s": round(rate / 1e9),
        "seconds_a_row": {name: round(value / n, 4) for name, value in seconds.items()},
        "token_passes_a_row": {name: round(value) for name, value in passes.items()},
        "over_epoch": {name: round(value / seconds["epoch"], 3) for name, value in seconds.items()},
        "share_of_limit": {
            name: round(2 * weights_of_blocks() * passes[name] * n / seconds[name] / rate, 3)
            for name in WORK
        },
        "peak_mib": {name: max(r["peak_mib"] for r in found[name]) for name in WORK},
    }
    if not args.skip_whole:
        (once,) = common.rivals(__file__, ["whole"], sys.argv[1:], 0)["whole"]
        answer["whole"] = {
            "rows": n_whole,
            "first_look_s": round(once["first_look_s"], 1),
            "whole_s": round(once["seconds"], 1),
        }
    print(json.dumps(answer))


def weights_of_blocks() -> int:
    """Weights of the linear maps of the blocks."""
    from traitscope.models import bundled, loading
    from traitscope.models.linear_maps import linear_names, weight_of

    model = loading.load_model(bundled.EMBEDDED, "cpu", "fp32")
    return sum(weight_of(model.lm.get_submodule(name)).numel() for name in linear_names(model))


if __name__ == "__main__":
    main()
