"""Writes the notebooks of examples/ from their scripts: python scripts/make_notebooks.py.

The docstring becomes the first text. Code is cut into cells at blank lines between statements of
the top level.
"""

import ast
import json
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("first_student", "first_audit")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook(script: str) -> dict:
    """The notebook of a script's text."""
    docstring = ast.get_docstring(ast.parse(script)) or ""
    cells = [_cell("markdown", "# " + docstring)]
    body = script.split('"""', 2)[2]
    for block in _blocks(body):
        cells.append(_cell("code", block))
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def _blocks(body: str) -> list[str]:
    """Blocks of code between blank lines; an indented block belongs to the one before it."""
    blocks: list[str] = []
    for block in body.strip("\n").split("\n\n"):
        if blocks and block.startswith(" "):
            blocks[-1] += "\n\n" + block
        else:
            blocks.append(block.strip("\n"))
    return blocks


def _cell(kind: str, text: str) -> dict:
    cell: dict = {"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell


if __name__ == "__main__":
    for name in NAMES:
        script = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        target = EXAMPLES / f"{name}.ipynb"
        target.write_text(json.dumps(notebook(script), indent=1) + "\n", encoding="utf-8")
        print(target)
