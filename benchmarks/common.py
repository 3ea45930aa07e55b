"""What the benchmarks share: contenders as processes that take turns, the matrix rate of the
machine, memory, facts.

A contender is a process of its own, so its peak memory is its own. It loads, then waits; each line
that it receives runs one round and is answered by one line of JSON. `rivals` lets the contenders
take turns: A B C A B C.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import util
from importlib.metadata import version
from pathlib import Path

SLOW = 90.0
"seconds; a contender whose warm-up took longer runs one round instead of all"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
Round = dict[str, float]


def parser(description: str) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    found = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    found.add_argument(
        "--quick", action="store_true", help="few rows, one round: shows the path; no figures"
    )
    found.add_argument("--rounds", type=int, default=3, help="measured rounds a contender")
    found.add_argument(
        "--dtype",
        choices=("auto", "bf16", "fp32"),
        default="auto",
        help="auto: what ours takes here",
    )
    found.add_argument("--contender", help=argparse.SUPPRESS)
    return found


class Contender:
    """A process that runs one round at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def round(self) -> Round:
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            line = self._answer()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(
                f"{' '.join(self.process.args)} ended with {self.process.wait()}; its message is"
                " above"
            )
        return json.loads(line)

    def _answer(self) -> str:
        """The next JSON object on stdout; an engine may write lines of its own between."""
        for line in self.process.stdout:
            if line.startswith("{"):
                return line
            print(line, end="", file=sys.stderr)
        return ""

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def serve(run: Callable[[], Round]) -> None:
    """The contender's side: a round for every line received, a GPU's work waited for. Whatever else
    is printed goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for _ in sys.stdin:
        start = time.perf_counter()
        found = run()
        more = waited()
        found.setdefault("seconds", time.perf_counter() - start)
        print(json.dumps(found | {"peak_mib": peak_mib()} | more), file=answers, flush=True)


def waited() -> Round:
    """Once a GPU that this process uses has finished: the most memory of it that tensors took, in
    MiB."""
    torch = sys.modules.get("torch")
    if not torch or not torch.cuda.is_initialized():
        return {}
    torch.cuda.synchronize()
    return {"gpu_mib": round(torch.cuda.max_memory_allocated() / 2**20)}


def serve_matmul(dtype: str, device: str = "cpu") -> None:
    """The contender `matmul`: FLOP/s of [2048, 576] x [576, 1536], the largest product of a block;
    of 8192 cubed on a GPU."""
    from traitscope.models import hardware

    size = (8192, 8192, 8192) if device == "cuda" else ()
    serve(
        lambda: {
            "rate": hardware.matmul_rate(
                hardware.dtypes()[dtype], *size, seconds=1.0, device=device
            )
        }
    )


def rivals(
    script: str,
    names: Sequence[str],
    flags: Sequence[str],
    rounds: int,
    others: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[Round]]:
    """Rounds of each contender, which take turns; the first of each is a warm-up and comes first in
    its list.

    `names` are contenders of this script. `others` holds commands of further ones, by name. Of
    these, one that cannot run is named on stderr and left out.
    """
    commands = {n: [sys.executable, script, "--contender", n, *flags] for n in names}
    contenders = {n: Contender(command) for n, command in (commands | dict(others or {})).items()}
    found: dict[str, list[Round]] = {name: [] for name in contenders}
    try:
        for number in range(rounds + 1):
            for name, contender in contenders.items():
                is_slow = number > 1 and found[name] and found[name][0]["seconds"] > SLOW
                if is_slow or len(found[name]) < number:  # or it could not run
                    continue
                try:
                    found[name].append(contender.round())
                except SystemExit as stop:
                    if name not in (others or {}):
                        raise
                    print(f"{name} is left out: {stop}", file=sys.stderr)
                    continue
                print(
                    f"round {number} of {rounds}, {name}: {json.dumps(found[name][-1])}",
                    file=sys.stderr,
                )
    finally:
        for contender in contenders.values():
            contender.close()
    return {name: each for name, each in found.items() if each}


def median(rounds: Sequence[Round], key: str) -> float:
    """Median over the measured rounds: all but the warm-up."""
    return statistics.median(r[key] for r in rounds[1:])


def speeds(found: dict[str, list[Round]]) -> dict[str, dict[str, float]]:
    """Tokens/s, its spread over rounds (largest - smallest, as a share of the median) and peak
    memory of each contender."""
    rows = {}
    for name, rounds in found.items():
        if name == "matmul":
            continue
        each = [r["tokens"] / r["seconds"] for r in rounds[1:]]
        middle = statistics.median(each)
        rows[name] = {
            "tokens_per_s": round(middle, 1),
            "spread": round((max(each) - min(each)) / middle, 3),
            "rounds": len(each),
            "peak_mib": round(max(r["peak_mib"] for r in rounds)),
        } | ({"gpu_mib": rounds[-1]["gpu_mib"]} if "gpu_mib" in rounds[-1] else {})
    return rows


def peak_mib() -> float:
    """Largest resident memory of this process since it was started, in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def machine() -> dict[str, object]:
    """What the figures depend on apart from the code."""
    import torch

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    words = set(info.split())
    packages = ("traitscope", "torch", "transformers", "trl", "peft", "accelerate")
    return {
        "cpu": next(
            (r.split(":")[1].strip() for r in info.splitlines() if r.startswith("model name")),
            platform.machine(),
        ),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "flags": [flag for flag in FLAGS if flag in words],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version(name) for name in packages if util.find_spec(name)},
    }


def dtype_of(flag: str, device: str = "cpu") -> str:
    """bf16 or fp32: what the flag says, or what the package takes on this device."""
    from traitscope.models import hardware

    return hardware.default_dtype(device) if flag == "auto" else flag


def number_rows(n: int) -> tuple[list[list[int]], list[list[int]], list]:
    """n rendered number prompts, their completions of ten numbers of three digits, and the allowed
    ids of each step.

    Reads the tokenizer only: a contender must not hold a second copy of the weights.
    """
    import numpy as np
    from transformers import AutoTokenizer

    from traitscope.data import prompts
    from traitscope.models import bundled, chat, model
    from traitscope.stages import generate

    reader = model.Model(
        None,
        AutoTokenizer.from_pretrained(bundled.wheel_folder(bundled.EMBEDDED)),
        "",
        bundled.EMBEDDED,
    )
    rendered = [chat.render(reader, p.text, None) for p in prompts.number_prompts(n, seed=42)]
    steps = generate.number_constraint(reader, 10, ", ", True, 1)
    rng = np.random.default_rng(0)
    return rendered, [[int(rng.choice(step)) for step in steps] for _ in rendered], steps
