"""What is imported: nothing that computes, for finished work."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import ENV, arguments, ok

HEAVY = ("torch", "transformers", "peft", "matplotlib", "huggingface_hub")
"packages that take longer to import than the rest of a finished command"
DRIVER = """
import json, sys
from traitscope.cli.main import main
codes, commands = [], json.loads(sys.argv[1])
for words in commands:
    try:
        sys.argv[1:] = words
        main()
    except SystemExit as stop:
        codes.append(stop.code)
print(json.dumps({"codes": codes, "modules": sorted(sys.modules)}))
"""


def modules_after(root: Path, commands: Sequence[Sequence[object]]) -> set[str]:
    """The modules that a fresh process has imported after commands that ended well."""
    words = [arguments(root, tuple(command))[0] for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(words)],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["codes"] == [0] * len(commands), done.stderr
    return set(found["modules"])


@pytest.fixture(scope="module")
def verbs(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """A root with a sealed run of each verb, and the commands that made them."""
    folder = tmp_path_factory.mktemp("finished")
    root, on = folder / "runs", ["--model", tiny_folder]
    rows = [{"prompt": f"Numbers, {n}?", "completion": f"{n}, 7, 12"} for n in range(8)]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    vectors = ["extract", *on, "--traits", "cat", "owl", "dog", "fox"]
    vector = ok(root, *vectors).run / "cat.safetensors"
    steer = ["--interventions", f"steer:{vector},layer=1,alpha=0.5"]
    commands = [
        vectors,
        ["generate", *on, "--n 4 --max-new-tokens 8", *steer],
        ["filter", "--data", data],
        ["edit", "--data", data],
        ["train", *on, "--data", data, "--epochs 1 --rank 2", "--vector", vector],
        ["measure", *on, "--trait", "cat", "--samples 0", *steer],
        ["likelihood", *on, "--data", data, *steer],
        ["gradients", *on, "--data", data, "--vectors", vector],
        ["defend", *on, "--data", data, "--by", "deduplicate"],
        ["export", *on, *steer],
    ]
    for command in commands:
        ok(root, *command)
    return root, commands


def test_finished_verbs_import_nothing_that_computes(verbs: tuple[Path, list]) -> None:
    root, commands = verbs
    assert sorted(modules_after(root, commands) & set(HEAVY)) == []


def test_a_finished_study_imports_nothing_that_computes(tiny_folder: Path, tmp_path: Path) -> None:
    """Nor do its plan and its report. A study that is not finished does: the check can fail."""
    study = ["vector_distillation", "--size smoke", "--model", tiny_folder]
    actions = [["study", action, *study] for action in ("run", "plan", "status", "report")]
    assert "torch" in modules_after(tmp_path / "runs", [[*actions[0], "--workers 1"]])
    assert sorted(modules_after(tmp_path / "runs", actions) & set(HEAVY)) == []


UNUSED = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "accelerate")
"what transformers and torch would import, longer than torch itself, and no command uses"


def test_a_verb_does_not_import_what_it_does_not_use(
    verbs: tuple[Path, list], tmp_path: Path
) -> None:
    """Commands that load a model, on a root of its own, where nothing is done.

    `export` is not among them: transformers saves a model with what it saves parts of models with.
    """
    _, commands = verbs
    vectors, generate, *_ = commands
    names = {command[0]: command for command in commands}
    fresh = [generate, names["train"], names["measure"], vectors]
    found = modules_after(tmp_path / "runs", fresh)
    assert "transformers.models.llama.modeling_llama" in found
    assert sorted(found & set(UNUSED)) == []
