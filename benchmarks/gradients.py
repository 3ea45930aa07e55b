"""What looking costs: steering gradients against the pass they need, EAS tracking against training
without it.

SmolLM2-135M, number rows of about 97 to 144 tokens; all contenders in one process a contender,
taking turns.

    needed     forward, loss, and backward through activations from the embedding on, no hook: what
               any such pass needs
    gradients  traitscope.backward.steering_gradients on the same rows, every layer
    double     the same on twice the rows: linear if it takes twice as long
    eas        one EAS measurement of a student: mean residuals on 16 prompts (the default of
               `train`)
    training   one optimizer step of traitscope.train on as many rows

`ratio` is gradients over needed (aim: at most 1.3), `linear` double over twice gradients (aim: 1),
`tracking` what one EAS measurement every 10 steps adds to steps of 32 rows (aim: under 0.05).
"""

import json
import sys

import common

BATCH, EVERY, PROMPTS = 8, 10, 16


def contender(name: str, n: int, dtype: str) -> None:
    import torch

    from traitscope.data.prompts import number_prompts
    from traitscope.inference import losses, residuals, steering_gradients
    from traitscope.inference.token_rows import Row, completion_hidden
    from traitscope.interventions.applied import applied
    from traitscope.models import bundled, chat, loading

    prompts, answers, _ = common.number_rows(2 * n)
    rows = [Row(tuple(p), tuple(a)) for p, a in zip(prompts, answers, strict=True)]
    rows = sorted(rows[: n if name != "double" else 2 * n], key=lambda r: len(r.ids))
    handle = loading.load_model(bundled.EMBEDDED, "cpu", dtype)
    asked = [chat.render(handle, p.text, None) for p in number_prompts(PROMPTS, seed=7)]

    def needed() -> None:
        embedding = handle.lm.get_input_embeddings()
        hook = embedding.register_forward_hook(
            lambda module, args, output: output.detach().requires_grad_(True)
        )
        with applied(handle, []) as active:
            for start in range(0, len(rows), BATCH):
                hidden_ND, targets_N = completion_hidden(
                    handle, active, rows[start : start + BATCH], share=False
                )
                losses.cross_entropy(handle, hidden_ND, targets_N).backward()
        hook.remove()

    def looked() -> None:
        with applied(handle, []) as active:
            steering_gradients.steering_gradients(handle, active, rows, "all", BATCH)

    def eas() -> None:
        with applied(handle, []) as active, torch.no_grad():
            residuals.mean_residuals(handle, active, asked)

    work = {"needed": needed, "gradients": looked, "double": looked, "eas": eas}[name]

    def run() -> common.Round:
        work()
        return {"tokens": sum(len(r.ids) for r in rows)}

    common.serve(run)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=32)
    args = parser.parse_args()
    dtype = common.dtype_of(args.dtype)
    n, rounds = (2, 1) if args.quick else (args.rows, args.rounds)
    if args.contender == "training":
        import training

        return training.ours(n, dtype, n)
    if args.contender:
        return contender(args.contender, n, dtype)
    names = ["needed", "gradients", "double", "eas", "training"]
    found = common.rivals(__file__, names, sys.argv[1:], rounds)
    seconds = {name: common.median(found[name], "seconds") for name in names}
    step = seconds["training"] * 32 / n
    print(
        json.dumps(
            {
                "benchmark": "gradients",
                "quick": args.quick,
                "dtype": dtype,
                "rows": n,
                "machine": common.machine(),
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
                "ratio": round(seconds["gradients"] / seconds["needed"], 3),
                "linear": round(seconds["double"] / seconds["gradients"] / 2, 3),
                "tracking": round(seconds["eas"] / (EVERY * step), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
