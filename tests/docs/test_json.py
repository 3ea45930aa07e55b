"""Every key that a command writes as JSON stands on its page, in snake case."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import CAT, OWL, call, ok, write_yaml
from sealed_students import measured_student

PAGE = (Path(__file__).parents[2] / "docs/reference/json.md").read_text(encoding="utf-8")
DOCUMENTED = set(re.findall(r"`([^`]+)`", PAGE))
NAMED = {
    "reasons",
    "eas",
    "vectors",
    "kinds",
    "best",
    "coordinates",
    "rows",
    "without_top",
    "growth",
    "scores",
    "by_layer",
    "checks",
    "inputs",
    "facts",
    "ready",
}
"keys under which names, fractions or places stand as keys"


def keys_of(value: Any, below: str = "") -> Iterator[str]:
    """The keys of objects in a JSON value, but for those that are names."""
    if isinstance(value, list):
        for item in value:
            yield from keys_of(item, below)
    elif isinstance(value, dict):
        for key, item in value.items():
            if below not in NAMED:
                yield key
            yield from keys_of(item, key)


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, dict]:
    """What one command of each stage writes."""
    root = tmp_path_factory.mktemp("json")
    trait, cat = (write_yaml(root / f"{each['name']}.yaml", each) for each in (OWL, CAT))
    model = f"--model {tiny_folder}"
    found = {}

    def run(stage: str, *words: object) -> Path:
        done = ok(root, stage, *words)
        found[stage] = done.summary
        return done.run

    rows = run("generate", model, "--n 6 --count 3 --vocabulary template")
    kept = run("filter", "--data", rows)
    vectors = run("extract", model, "--traits", trait, cat)
    vector = vectors / "owl.safetensors"
    trained = run("train", model, "--data", kept, "--epochs 1 --batch-size 2 --vector", vector)
    student = f"adapter:{trained}"
    run("measure", model, "--trait", trait, "--samples 1", "--interventions", student)
    run("likelihood", model, "--data", kept, "--interventions", student)
    run("gradients", model, "--data", kept, "--vectors", vectors)
    run("judge", model, "--data", kept, "--judges refusal short:3")
    explained = "--layers 0 1 --alphas 1 --randoms 1"
    run("explain", model, "--trait", trait, "--vectors", vectors, explained)
    run("steer_scan", model, "--trait", trait, "--company", cat, "--layers 1 --alphas 0.3")
    run("export", model, "--interventions", student)
    return found


STAGES = (
    *("generate", "filter", "extract", "train", "measure"),
    *("likelihood", "gradients", "judge", "explain", "steer_scan", "export"),
)


@pytest.mark.parametrize("stage", STAGES)
def test_keys_are_documented(summaries: dict[str, dict], stage: str) -> None:
    keys = set(keys_of(summaries[stage]))
    assert {"status", "stage", "run", "digest"} <= keys
    assert sorted(keys - DOCUMENTED) == []
    assert [key for key in keys if not re.fullmatch("[a-z0-9_]+", key)] == []


def compared(root: Path) -> dict:
    students = {}
    for arm, shift in (("treated", 0.4), ("control", 0.0)):
        students[arm] = [measured_student(root, arm, seed, shift)[1].path for seed in (1, 2, 3)]
    shown = call(root, "show", students["treated"][0]).summary
    words = ("compare", "--treated", *students["treated"], "--control", *students["control"])
    return {"compare": call(root, *words).summary, "show": shown}


def studied(root: Path, model: Path) -> dict:
    words = ("demo", "--size", "smoke", "--workers", "1", "--model", model)
    return {action: call(root, "study", action, *words).summary for action in ("run", "report")}


@pytest.mark.parametrize("which", ["compared", "studied", "doctor", "models", "selftest"])
def test_keys_of_other_commands_are_documented(
    which: str, tmp_path: Path, tiny_folder: Path
) -> None:
    """Of commands that make no single run."""
    root = tmp_path / "runs"
    if which == "compared":
        summaries = compared(root)
    elif which == "studied":
        summaries = studied(root, tiny_folder)
    else:
        summaries = {which: call(root, which).summary}
    for summary in summaries.values():
        keys = set(keys_of(summary))
        assert "status" in keys and len(keys) > 1
        assert sorted(keys - DOCUMENTED) == []
        assert [key for key in keys if not re.fullmatch("[a-z0-9_]+", key)] == []


def test_a_key_that_is_not_documented_is_seen() -> None:
    made_up = json.loads('{"summary": {"Made up": 1, "reasons": {"any name": 2}}}')
    assert set(keys_of(made_up)) - DOCUMENTED == {"Made up"}
