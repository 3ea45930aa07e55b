"""Seconds until the command line answers: ours against TRL's, in turns, each in a fresh process.

A bare interpreter is measured along, because nothing written in Python can be faster. The limit of
a share is that interpreter: share_of_limit = seconds of `python -c pass` / seconds of the command.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common


def commands() -> dict[str, list[str]]:
    here = Path(sys.executable).parent
    return {
        "python": [sys.executable, "-c", "pass"],
        "traitscope --help": [str(here / "traitscope"), "--help"],
        "traitscope train --help": [str(here / "traitscope"), "train", "--help"],
        "import traitscope.cli": [sys.executable, "-c", "import traitscope.cli"],
        "trl --help": [str(here / "trl"), "--help"],
        "trl sft --help": [str(here / "trl"), "sft", "--help"],
    }


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in MiB (at least that of this process, some 17) of a command that
    must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = common.parser(__doc__)
    parser.set_defaults(rounds=5)
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands()}
    for number in range(rounds + 1):
        for name, command in commands().items():
            found[name].append(timed(command))
            print(
                f"round {number} of {rounds}, {name}: {found[name][-1][0]:.2f} s", file=sys.stderr
            )
    seconds = {name: statistics.median(s for s, _ in each[1:]) for name, each in found.items()}
    memory = {name: round(max(m for _, m in each)) for name, each in found.items()}
    result = {
        "benchmark": "startup",
        "quick": args.quick,
        "rounds": rounds,
        "machine": common.machine(),
        "seconds": {name: round(s, 3) for name, s in seconds.items()},
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
