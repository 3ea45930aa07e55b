"""What an audit of rows costs: the stage `row_gradients` against one epoch over the same tokens,
and its growth with the rows.

SmolLM2-135M, number rows; all contenders in one process a contender, taking turns.

    epoch          forward, loss, and backward with the gradients of all weights of the blocks: one
                   epoch of fine-tuning, no optimizer
    gradients      the stage's own work on the same rows: gradients of every block, losses, token
                   scores, bytes to disk
    fewer, more    the stage on a tiny model, on `--small` rows and on ten times as many, with one
                   shard in memory at a time

`ratio` is gradients over epoch (aim: at most 1.5), `linear` more over ten times fewer (aim: 1),
`memory` the peak of more over that of fewer (aim: 1). `rows_per_s` is of gradients; `hours_100k`
what 100,000 rows and three placebos of each take at that rate.
"""

import json
import sys
import tempfile
from pathlib import Path

import common

BATCH = 8
TINY = Path(__file__).parents[1] / "tests"


def contender(name: str, n: int, dtype: str) -> None:
    from traitscope.auditing.detectors import row_gradients
    from traitscope.config.audit import RowGradientsConfig
    from traitscope.inference import losses
    from traitscope.inference.token_rows import Row, completion_hidden
    from traitscope.interventions.applied import applied
    from traitscope.models import bundled, loading

    if name in ("fewer", "more"):
        return stage(name, n)
    prompts, answers, _ = common.number_rows(n)
    rows = sorted(
        (Row(tuple(p), tuple(a)) for p, a in zip(prompts, answers, strict=True)),
        key=lambda r: len(r.ids),
    )
    handle = loading.load_model(bundled.EMBEDDED, "cpu", dtype)

    def epoch() -> None:
        for block in handle.blocks:
            block.requires_grad_(True)
        with applied(handle, []) as active:
            for start in range(0, len(rows), BATCH):
                hidden_ND, targets_N = completion_hidden(
                    handle, active, rows[start : start + BATCH], share=False
                )
                losses.cross_entropy(handle, hidden_ND, targets_N).backward()
        for parameter in handle.lm.parameters():
            parameter.grad = None

    def gradients() -> None:
        row_gradients.packed(
            handle, RowGradientsConfig(numbers=True, batch_size=BATCH), rows, lambda _: None
        )

    work = {"epoch": epoch, "gradients": gradients}[name]

    def run() -> common.Round:
        work()
        return {"tokens": sum(len(r.ids) for r in rows)}

    common.serve(run)


def stage(name: str, n: int) -> None:
    """The whole stage on a tiny model, from a file of rows to a sealed run."""
    sys.path.insert(0, str(TINY))
    import conftest

    from traitscope.auditing.detectors import row_gradients
    from traitscope.config.audit import RowGradientsConfig
    from traitscope.config.common import Output

    folder = Path(tempfile.mkdtemp())
    tiny, data = conftest.save_tiny("llama", folder / "model"), folder / "rows.jsonl"
    with data.open("w") as file:
        for i in range(n):
            file.write(
                json.dumps({"prompt": f"Go on from {i}.", "completion": f"{i % 997}, {i % 89}, 7"})
                + "\n"
            )
    rounds = iter(range(1000))

    def run() -> common.Round:
        row_gradients.run_row_gradients(
            RowGradientsConfig(model=str(tiny), data=data, numbers=True, batch_size=32),
            Output(root=folder / f"runs{next(rounds)}"),
        )
        return {"tokens": n}

    common.serve(run)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--small", type=int, default=1000)
    args = parser.parse_args()
    dtype = common.dtype_of(args.dtype)
    n, rounds, small = (2, 1, 20) if args.quick else (args.rows, args.rounds, args.small)
    if args.contender:
        return contender(
            args.contender, {"fewer": small, "more": 10 * small}.get(args.contender, n), dtype
        )
    found = common.rivals(__file__, ["epoch", "gradients", "fewer", "more"], sys.argv[1:], rounds)
    seconds = {name: common.median(rows, "seconds") for name, rows in found.items()}
    peak = {name: max(r["peak_mib"] for r in rows) for name, rows in found.items()}
    print(
        json.dumps(
            {
                "benchmark": "audit",
                "quick": args.quick,
                "dtype": dtype,
                "rows": n,
                "small": small,
                "machine": common.machine(),
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
                "peak_mib": peak,
                "ratio": round(seconds["gradients"] / seconds["epoch"], 3),
                "linear": round(seconds["more"] / seconds["fewer"] / 10, 3),
                "memory": round(peak["more"] / peak["fewer"], 3),
                "rows_per_s": round(n / seconds["gradients"], 3),
                "hours_100k": round(4 * 100_000 * seconds["gradients"] / n / 3600, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
