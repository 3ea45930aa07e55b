"""What the layout promises: stages know the core only, functions and files stay small, help answers
at once."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import ENV

import traitscope

SOURCE = Path(traitscope.__file__).parent
STAGES = {
    "generate",
    "filtering",
    "train",
    "measure",
    "extract",
    "explain",
    "gradients",
    "likelihood",
    "judging",
    "report",
}
STAGES |= {"editing", "exporting", "intake", "matching", "pushes", "candidates", "naming", "weigh"}
EDGES = {
    "audit_chain",
    "audit",
    "audit_graph",
    "callback",
    "cli",
    "demo",
    "execute",
    "inspection",
    "selftest",
    "graph",
    "chain",
    "research",
    "schedule",
    "sweeps",
    "together",
    "on_ray",
    "on_slurm",
}
FILES = {path.stem: path for path in sorted(SOURCE.glob("*.py"))}
FILES |= {f"studies.{path.stem}": path for path in sorted((SOURCE / "studies").glob("*.py"))}
STUDIES = {name for name in FILES if name.startswith("studies.")}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
CORE_OF_STUDIES = {
    "aiming",
    "association",
    "audit_chain",
    "audit_config",
    "audit_result",
    "backward",
    "calibration",
    "chain",
    "choices",
    "configs",
    "errors",
    "evidence",
    "graph",
    "judge_config",
    "odds",
    "stats",
    "surface",
    "traits",
    "transfer",
    "verdict",
    "vector",
}
"what a study may import"
GETATTR = {
    "cli": "the function behind a verb, by its name in a table",
    "configs": "a setting by its name, to check it",
    "intervention": "a field that only some kinds have",
    "measure": "a question set by its name",
    "model": "the one place that looks inside a transformers model",
    "recipe": "a setting by its name, to check it",
    "stage": "every setting of a config, by its name",
    "tables": "a column of a table by its name",
}
"files that may call getattr or hasattr, with the reason; on models only model.py"


def imported(tree: ast.AST) -> set[str]:
    """Modules of this package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("traitscope.")
            }
        if isinstance(node, ast.ImportFrom) and node.module == "traitscope":
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("traitscope."):
            found.add(node.module.split(".")[1])
    return found & FILES.keys()


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_the_lists_above_name_files_that_exist():
    assert FILES.keys() >= STAGES | EDGES | GETATTR.keys()


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_imports_no_other_stage_and_no_edge(name: str):
    assert imported(TREES[name]) & (STAGES | EDGES) == set()


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_a_study_calls_stages_through_their_configs_alone(name: str):
    assert imported(TREES[name]) <= CORE_OF_STUDIES


@pytest.mark.parametrize("name", sorted(FILES.keys() - STAGES - EDGES - STUDIES))
def test_the_core_imports_no_stage_and_no_edge(name: str):
    assert imported(TREES[name]) & (STAGES | EDGES) == set()


def test_getattr_stays_where_it_has_a_reason():
    calls = [
        (name, node.func.id)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr")
    ]
    assert {name for name, _ in calls} <= GETATTR.keys()


def test_nothing_but_model_looks_into_the_modules_of_a_model():
    attributes = {
        "model",
        "layers",
        "transformer",
        "h",
        "gpt_neox",
        "decoder",
    }  # lm.model.layers, lm.transformer.h, ...
    found = [
        (name, node.lineno)
        for name, tree in TREES.items()
        if name != "model"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in attributes
        if isinstance(node.value, ast.Attribute) and node.value.attr == "lm"
    ]
    assert found == []


def test_budgets():
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()
    }
    sizes = sorted(
        (f.end_lineno - f.lineno + 1, f"{name}.{f.name}")
        for name, tree in TREES.items()
        for f in functions(tree)
    )
    counts = [
        (len(f.args.posonlyargs + f.args.args + f.args.kwonlyargs), f.name)
        for t in TREES.values()
        for f in functions(t)
    ]
    median, high = np.percentile([size for size, _ in sizes], [50, 95])
    print(
        f"\n{len(FILES)} files, longest {max(lines.values())}; {len(sizes)} functions, median"
        f" {median:.0f}, 95 % {high:.0f} lines"
    )
    print(f"longest functions: {sizes[-3:]}; most parameters: {max(counts)}")
    assert max(lines.values()) <= 400, max(lines, key=lines.get)
    assert median <= 15
    assert high <= 60
    assert max(counts)[0] <= 8, max(counts)


def test_no_vague_names():
    vague = {"utils", "util", "base", "common", "helpers", "manager", "services", "misc"}
    assert vague & FILES.keys() == set()


@pytest.mark.parametrize("verb", [[], ["train"]], ids=["all", "train"])
def test_help_loads_nothing_heavy(verb: list[str]):
    script = (
        f"import sys\nfrom traitscope import cli\ntry:\n    cli.main({[*verb, '--help']})\nexcept"
        " SystemExit as stop:\n    assert not stop.code\nprint('HEAVY', sorted({'torch',"
        " 'transformers', 'scipy', 'matplotlib', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=ENV,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert "usage: traitscope" in done.stdout
