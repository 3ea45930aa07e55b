"""The benchmark for a GPU, at tiny size on the CPU: every part computes, and the checks judge."""

import json
import os
import subprocess
import sys
from pathlib import Path

from command import ENV

HERE = Path(__file__).parents[2]
PARTS = {
    "generation",
    "training",
    "audit, first look",
    "audit, token scores",
    "steering gradients",
    "packing 1",
    "packing 2",
}


def ran(folder: Path, model: Path, *words: str) -> tuple[int, dict, str]:
    """Exit code, JSON object and output of the benchmark."""
    path = os.pathsep.join([str(HERE / "src"), str(HERE / "benchmarks")])
    command = [sys.executable, HERE / "benchmarks" / "gpu.py", "--device", "cpu"]
    small = ["--rows", "16", "--students", "1", "2", "--matmul-seconds", "0.05"]
    out = folder / "gpu.json"
    done = subprocess.run(
        [*command, "--model", str(model), *small, "--out", str(out), *words],
        env=ENV | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert out.exists(), done.stderr
    return done.returncode, json.loads(out.read_text()), done.stdout


def test_every_part_is_measured_and_checked(tmp_path: Path, tiny_folder: Path) -> None:
    code, found, out = ran(tmp_path, tiny_folder)
    assert set(found["parts"]) == PARTS
    assert all(part.get("tokens_per_s", 0) > 0 for part in found["parts"].values()), found
    assert all(check["good"] for check in found["checks"].values()) and len(found["checks"]) == 3
    assert code == 0 and found["ended"] == "whole" and "steering gradients" in out


def test_it_ends_itself_with_what_it_has(tmp_path: Path, tiny_folder: Path) -> None:
    code, found, _ = ran(tmp_path, tiny_folder, "--minutes", "0.001")
    assert code == 1 and "minutes are over" in found["ended"] and found["checks"] == {}
