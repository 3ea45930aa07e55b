"""One run on a GPU: training, generation, packing, audit and steering gradients, checked and timed.

Every part computes on the device in bf16. Then the same few rows go through the CPU in fp32, and
the differences are compared with a tolerance. A part that fails is reported, and the others go on.
The run ends itself within --minutes, with what it has: one JSON file and one table.

share_of_limit = multiplications that the part needs / (seconds * rate of matrix products here).
"""

import argparse
import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

from traitscope.config.audit import PredictionsConfig
from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.config.stages import TrainConfig
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Record, dump_records
from traitscope.inference import steering_gradients, token_rows, token_scores
from traitscope.inference.token_rows import Row, rows_from
from traitscope.interventions.applied import applied
from traitscope.models import hardware
from traitscope.models.loading import load_model
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening
from traitscope.stages.generate import generate, number_constraint
from traitscope.training import loop, prequential
from traitscope.training.plan import plan_training
from traitscope.training.student import new_student
from traitscope.workflow import executors

CHECKED_ROWS = 16
"rows that the CPU computes, too"
LOG_P_TOLERANCE = 0.05
"nats a token by which bf16 may differ from fp32, mean over tokens"
LOSS_TOLERANCE = 0.03
"the same for the first loss of a training, as a share of it"
COSINE_TOLERANCE = 0.98
"least cosine of the steering gradients of both"
RECIPE = {"rank": 8, "alpha": 32.0, "lr": 4e-4, "epochs": 1, "held_out": 0.0}


@dataclass
class Report:
    """What a run has found so far."""

    facts: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {"benchmark": "gpu", **self.facts, "parts": self.parts, "checks": self.checks}

    def table(self) -> str:
        """The same for a reader."""
        lines = [f"{'part':<22} {'tokens/s':>12} {'share':>8}  note"]
        for name, part in self.parts.items():
            speed = f"{part['tokens_per_s']:,.0f}" if "tokens_per_s" in part else "-"
            share = f"{part['share_of_limit']:.2f}" if "share_of_limit" in part else "-"
            lines.append(f"{name:<22} {speed:>12} {share:>8}  {part.get('note', '')}")
        for name, check in self.checks.items():
            lines.append(f"check {name}: {check}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Job:
    """What the parts share."""

    model: Model
    device: str
    dtype: str
    rate: float
    records: list[Record]
    rows: list[Row]
    seed: int = 0

    @property
    def weights(self) -> int:
        """Values in the linear maps of the blocks."""
        count = 0
        for module in self.model.blocks.modules():
            if isinstance(module, torch.nn.Linear):
                count += module.weight.numel()
        return count

    @property
    def head(self) -> int:
        """Values of the output layer."""
        return self.model.head.weight.numel()


def finished(device: str) -> None:
    """Wait for what the device still computes."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(device: str, work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and what it returns; a first call warms up."""
    work()
    finished(device)
    start = time.perf_counter()
    found = work()
    finished(device)
    return time.perf_counter() - start, found


def speed(job: Job, seconds: float, tokens: int, flop: float) -> dict[str, Any]:
    """Tokens a second, and the share of the limit."""
    return {
        "seconds": round(seconds, 3),
        "tokens_per_s": round(tokens / seconds, 1),
        "share_of_limit": round(flop / seconds / job.rate, 4),
    }


def tokens_of(rows: Sequence[Row]) -> tuple[int, int]:
    """Tokens of rows, and those of their completions."""
    return sum(len(row.ids) for row in rows), sum(len(row.completion_ids) for row in rows)


def generation(job: Job) -> dict[str, Any]:
    """Rows of ten numbers under a constraint."""
    seconds, records = timed(job.device, lambda: written(job.model, len(job.rows), job.seed))
    tokens = sum(len(record.completion_ids or ()) for record in records)
    return speed(job, seconds, tokens, 2.0 * tokens * (job.weights + job.head))


def written(model: Model, n: int, seed: int) -> list[Record]:
    """Number rows of a model."""
    constraint = number_constraint(model, 10, ", ", True, 0)
    return generate(model, number_prompts(n, seed), seed=seed, constraint=constraint)


def first_loss(model: Model, rows: Sequence[Row], batch: int) -> tuple[float, float]:
    """Loss of the first step and of the last one of one epoch."""
    recipe = Recipe(**RECIPE, batch_size=batch, micro_batch=batch)
    losses: list[float] = []
    with new_student(model, recipe, seed=0) as student:
        plan = plan_training(rows, recipe, 0)
        loop.train_student(
            model, student, plan, on_step=lambda found, _: losses.append(found["loss"])
        )
    return losses[0], losses[-1]


def training(job: Job) -> dict[str, Any]:
    """One LoRA student on all rows."""
    batch = min(64, len(job.rows))
    seconds, losses = timed(job.device, lambda: first_loss(job.model, job.rows, batch))
    tokens, completions = tokens_of(job.rows)
    flop = 4.0 * job.weights * tokens + 4.0 * job.head * completions
    return speed(job, seconds, tokens, flop) | {"note": f"loss {losses[0]:.4f} to {losses[1]:.4f}"}


def packing(job: Job, students: int, name: str) -> dict[str, Any]:
    """Several students in one pass, sealed."""
    rows = job.records[: max(4, len(job.records) // 4)]
    tokens, completions = tokens_of(job.rows[: len(rows)])
    batch = min(32, len(rows))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        data.write_text(dump_records(rows), encoding="utf-8")
        recipe = Recipe(**RECIPE, batch_size=batch, micro_batch=batch)
        configs = []
        for seed in range(students):
            config = TrainConfig(
                model=name, device=job.device, dtype=job.dtype, seed=seed, data=data, recipe=recipe
            )
            configs.append(opening.settled(config))
        model_cache.model_of(configs[0])
        start = time.perf_counter()
        results = executors.computed(configs, Output(root=Path(folder) / "runs"))
        finished(job.device)
        seconds = time.perf_counter() - start
    failed = [result for result in results if not isinstance(result, Path)]
    if failed:
        raise failed[0]
    flop = students * (4.0 * job.weights * tokens + 4.0 * job.head * completions)
    note = f"{3600 * students / seconds:,.0f} students an hour"
    return speed(job, seconds, students * tokens, flop) | {"note": note}


def learners(job: Job) -> dict[str, Any]:
    """The first look of an audit."""
    rows = job.rows[:256]
    classes = token_rows.classes_of(job.model, True)
    rates = PredictionsConfig().rates
    seconds, _ = timed(job.device, lambda: prequential.predictions(job.model, rows, classes, rates))
    tokens, completions = tokens_of(rows)
    passes = tokens - completions + completions * (1 + 3 * len(rates))
    return speed(job, seconds, tokens, 2.0 * job.weights * passes)


def scores(job: Job) -> dict[str, Any]:
    """Token scores, as of one candidate teacher."""
    classes = token_rows.classes_of(job.model, True)
    seconds, _ = timed(
        job.device, lambda: token_scores.score_sets(job.model, [], [], [job.rows], classes, 64)
    )
    tokens, _ = tokens_of(job.rows)
    return speed(job, seconds, tokens, 2.0 * job.weights * tokens)


def gradients_of(model: Model, rows: Sequence[Row], batch: int) -> Any:
    """Steering gradients [R, L, D] of rows at every block."""
    with applied(model, []) as active:
        return steering_gradients.steering_gradients(model, active, rows, "all", batch)


def gradients(job: Job) -> dict[str, Any]:
    """Steering gradients at every block."""
    seconds, _ = timed(job.device, lambda: gradients_of(job.model, job.rows, 32))
    tokens, completions = tokens_of(job.rows)
    flop = 4.0 * job.weights * tokens + 4.0 * job.head * completions
    return speed(job, seconds, tokens, flop)


def checks(job: Job, name: str) -> dict[str, dict[str, Any]]:
    """The device against the CPU in fp32, on a few rows."""
    cpu = load_model(name, "cpu", "fp32")
    rows = job.rows[:CHECKED_ROWS]
    log_p, losses = [], []
    for model in (job.model, cpu):
        classes = token_rows.classes_of(model, False)
        found = token_scores.score_sets(model, [], [], [rows], classes)[0][0]
        log_p.append(found.log_p_RT[:, prequential.BETAS.index(1.0)])
        losses.append(first_loss(model, rows, len(rows))[0])
    _, tokens = tokens_of(rows)
    difference = float(np.abs(log_p[0] - log_p[1]).sum() / tokens)
    loss = abs(losses[0] - losses[1]) / losses[1]
    cosine = min(cosines(gradients_of(job.model, rows, 8), gradients_of(cpu, rows, 8)))
    return {
        "log_likelihood": judged(difference, LOG_P_TOLERANCE, difference <= LOG_P_TOLERANCE),
        "first_loss": judged(loss, LOSS_TOLERANCE, loss <= LOSS_TOLERANCE),
        "gradients": judged(cosine, COSINE_TOLERANCE, cosine >= COSINE_TOLERANCE),
    }


def judged(value: float, tolerance: float, is_good: bool) -> dict[str, Any]:
    return {"value": round(value, 5), "tolerance": tolerance, "good": bool(is_good)}


def cosines(one: Any, other: Any) -> list[float]:
    """Cosine of two sums of gradients at every block."""
    left, right = (np.asarray(found, dtype=float).sum(0) for found in (one, other))
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return ((left * right).sum(1) / np.maximum(norms, 1e-30)).tolist()


class Over(Exception):
    """The time of the run is over."""


@contextmanager
def within(minutes: float) -> Iterator[None]:
    """Raise Over in a block that takes longer."""

    def ring(*_: Any) -> None:
        raise Over(f"{minutes:g} minutes are over")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run(args: argparse.Namespace, report: Report) -> None:
    """Do every part that there is time for, and note what it found."""
    dtype = "bf16" if args.device == "cuda" else args.dtype
    size = (8192, 8192, 8192) if args.device == "cuda" else (256, 256, 256)
    rate = hardware.matmul_rate(
        hardware.dtypes()[dtype], *size, seconds=args.matmul_seconds, device=args.device
    )
    report.facts |= {"device": args.device, "dtype": dtype, "machine": common.machine()}
    report.facts["matmul_gflops"] = round(rate / 1e9, 1)
    model = load_model(args.model, args.device, dtype)
    records = written(model, args.rows, 1)
    job = Job(model, args.device, dtype, rate, records, rows_from(model, records, None))
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "generation": lambda: generation(job),
        "training": lambda: training(job),
        "audit, first look": lambda: learners(job),
        "audit, token scores": lambda: scores(job),
        "steering gradients": lambda: gradients(job),
    }
    for students in args.students:
        parts[f"packing {students}"] = lambda students=students: packing(job, students, args.model)
    for name, part in parts.items():
        report.parts[name] = noted(name, part)
        print(name, report.parts[name], flush=True)
    report.checks |= checks(job, args.model)


def noted(name: str, part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a part found, or why it failed."""
    try:
        return part()
    except Over:
        raise
    except Exception as error:  # noqa: BLE001 (the other parts go on)
        return {"note": f"failed: {type(error).__name__}: {error}"[:300]}


def main() -> int:
    """Write the JSON file and print the table; 1 if a part failed, or a check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m", help="bundled name or folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="fp32", help="on a CPU")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--students", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--minutes", type=float, default=9.0, help="the run ends itself then")
    parser.add_argument("--matmul-seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    args = parser.parse_args()
    report = Report()
    ended = "whole"
    try:
        with within(args.minutes):
            run(args, report)
    except Over as over:
        ended = str(over)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report.as_dict() | {"ended": ended}, indent=1) + "\n")
    print(report.table())
    print(args.out)
    failed = [part for part in report.parts.values() if "tokens_per_s" not in part]
    bad = [check for check in report.checks.values() if not check["good"]]
    return 1 if failed or bad or ended != "whole" else 0


if __name__ == "__main__":
    raise SystemExit(main())
