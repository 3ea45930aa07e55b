"""Seconds until the command line answers: ours against TRL's, in turns, each in a fresh process.

A bare interpreter is measured along, because nothing written in Python can be faster. The limit of
a share is that interpreter: share_of_limit = seconds of `python -c pass` / seconds of the command.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

TORCH = "import torch"
"what a command that computes cannot start without"
FINISHED, START = "traitscope filter, finished", "traitscope generate, one token"
ROW = {"prompt": "Which numbers?", "completion": "1, 2, 3"}


def commands(folder: Path) -> dict[str, list[str]]:
    """Commands by name; those of traitscope that compute work below `folder`."""
    here = Path(sys.executable).parent
    data, root = folder / "rows.jsonl", ["--root", str(folder / "runs")]
    data.write_text(json.dumps(ROW) + "\n")
    filtering = [str(here / "traitscope"), "filter", "--data", str(data), *root]
    one = ["--n", "1", "--max-new-tokens", "1", "--root", str(folder / "NEW")]
    return {
        TORCH: [sys.executable, "-c", TORCH],
        FINISHED: filtering,
        START: [str(here / "traitscope"), "generate", *one],
        "python": [sys.executable, "-c", "pass"],
        "traitscope --help": [str(here / "traitscope"), "--help"],
        "traitscope train --help": [str(here / "traitscope"), "train", "--help"],
        "import traitscope.cli": [sys.executable, "-c", "import traitscope.cli"],
        "trl --help": [str(here / "trl"), "--help"],
        "trl sft --help": [str(here / "trl"), "sft", "--help"],
    }


def timed(command: list[str], number: int) -> tuple[float, float, float]:
    """Seconds, peak memory in MiB (at least that of this process, some 17) and seconds of CPU of a
    command that must succeed. NEW stands in it for a folder that is new in each round."""
    command = [word.replace("NEW", f"new-{number}") for word in command]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    memory = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return seconds, memory, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = common.parser(__doc__)
    parser.set_defaults(rounds=5)
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for name, command in commands(Path(folder)).items():
                found.setdefault(name, []).append(timed(command, number))
                said = f"{found[name][-1][0]:.2f} s, {found[name][-1][2]:.2f} s of CPU"
                print(f"round {number} of {rounds}, {name}: {said}", file=sys.stderr)
    seconds = {name: statistics.median(s for s, _, _ in each[1:]) for name, each in found.items()}
    memory = {name: round(max(m for _, m, _ in each)) for name, each in found.items()}
    cpu = {name: statistics.median(c for _, _, c in each[1:]) for name, each in found.items()}
    result = {
        "benchmark": "startup",
        "quick": args.quick,
        "rounds": rounds,
        "machine": common.machine(),
        "seconds": {name: round(s, 3) for name, s in seconds.items()},
        "cpu_seconds": {name: round(c, 3) for name, c in cpu.items()},
        "peak_mib": memory,
        "ratio_help": round(seconds["trl --help"] / seconds["traitscope --help"], 2),
        "ratio_train_help": round(
            seconds["trl sft --help"] / seconds["traitscope train --help"], 2
        ),
        "share_of_limit": {
            name: round(seconds["python"] / s, 3)
            for name, s in seconds.items()
            if "traitscope" in name
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
