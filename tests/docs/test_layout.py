"""What the layout promises beyond import contracts: help answers at once, and only `models` looks
inside a transformers model."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from command import ENV

import traitscope

SOURCE = Path(traitscope.__file__).parent
INSIDE = {"model", "layers", "transformer", "h", "gpt_neox", "decoder"}
"attributes of transformers models: lm.model.layers, lm.transformer.h, ..."


def test_nothing_but_models_looks_into_the_modules_of_a_model():
    places = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent.name == "models":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            inner = node.value if isinstance(node, ast.Attribute) else None
            if isinstance(inner, ast.Attribute) and inner.attr == "lm" and node.attr in INSIDE:
                places.append(f"{path}:{node.lineno}")
    assert places == []


@pytest.mark.parametrize(
    "command", [[], ["train"], ["audit"], ["study"], ["experiment"], ["judge"]], ids=str
)
def test_help_loads_nothing_heavy(command: list[str]):
    script = (
        "import sys\n"
        "from traitscope.cli import main\n"
        f"try:\n    main.main({[*command, '--help']})\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'scipy', 'matplotlib', 'numpy'} & sys.modules.keys()\n"
        "print('HEAVY', sorted(heavy))"
    )
    line = [sys.executable, "-c", script]
    done = subprocess.run(line, env=ENV, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert "usage: traitscope" in done.stdout
