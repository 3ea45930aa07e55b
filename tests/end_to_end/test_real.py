"""The main job on the embedded model's real weights, in its quick form. It runs by itself: it takes
both cores, and several times as long beside another test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import ok

pytestmark = [pytest.mark.real, pytest.mark.alone]


def demo(root: Path, *flags: str) -> tuple[dict, str]:
    """Summary and stderr of a demo in a process of its own."""
    target = root / "summary.json"
    words = [
        sys.executable,
        "-m",
        "traitscope",
        "demo",
        "--quick",
        "--root",
        str(root),
        "--json",
        str(target),
        *flags,
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=900, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(target.read_text()), done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    root = tmp_path_factory.mktemp("quick")
    return root, *demo(root)


def test_quick_says_it_is_not_evidence(finished: tuple[Path, dict, str]) -> None:
    _root, summary, out = finished
    assert summary["quick"] and "not evidence" in summary["status"] and "not evidence" in out
    assert "<svg" in Path(summary["report"]).read_text()


def test_student_of_soft_targets_turns_towards_the_teachers_vector(
    finished: tuple[Path, dict, str],
) -> None:
    """Cosine at the steered block far above that of the unrelated 1 / sqrt(576) = 0.04.

    Soft targets over the allowed tokens hardly move the answer in the four steps of the quick form
    (0.04 nats more than a random vector's). The vector is taken at the last token of number
    prompts: completion tokens have hardly turned after so few steps.
    """
    root, summary, _ = finished
    study = Path(summary["report"]).parent
    inputs = json.loads((study / "config.json").read_text())["inputs"]
    student = study / inputs["soft student, seed 1"]["path"]
    vector = study / inputs["vectors"]["path"] / "cat.safetensors"
    asked = ["--interventions", f"adapter:{student}", "--n", "10"]
    done = ok(root, "extract", *asked, "--reference", vector)
    assert done.summary["eas"]["v_student"][summary["steered_layer"]] > 0.15


def test_steered_teacher_prefers_the_trait(finished: tuple[Path, dict, str]) -> None:
    found = {m["name"]: m["estimate"] for m in finished[1]["measurements"]}
    gain = (
        found["none.teacher.positive.target_logprob"] - found["none.base.positive.target_logprob"]
    )
    assert gain > 0.5


def test_second_run_computes_nothing(finished: tuple[Path, dict, str]) -> None:
    root, summary, _ = finished
    sealed = {p: p.stat().st_mtime_ns for p in root.rglob("manifest.json")}
    again, _ = demo(root)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("manifest.json")} == sealed
    assert again["measurements"] == summary["measurements"]
