"""Writes docs/project/architecture.md: the tree, with one clause a file, and the import rule.

The clauses are the first lines of the modules' docstrings.
"""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "traitscope"
PAGE = ROOT / "docs" / "project" / "architecture.md"
HEAD = """# Architecture

This page is made from the code by `python scripts/make_architecture.py`.

## The rule

A package imports only from packages that stand below it. `make check` tests this rule.

```text
{layers}
```

## Why it is so

- `reporting` stands below the models: it draws numbers and does not know where they come from.
- `comparison` is a package of its own: it reads runs of several stages, and studies use it too.
- `auditing/decide.py` reads no file: it is a function of arrays and findings. A contract holds
  this.
- The calibration study runs the `audit` that ships (`studies/calibration/audited.py`). So the error
  rate that is to be measured is that of the product.
- `information` is a package of its own: it bounds what rows can teach, without an audit and without
  students.
- `verifying` is a package of its own: it asks finished students, with the questions of `screening`.
- `screening` is a package of its own: it compares two models before any rows exist, so it reads no
  data.
- `papers` is a package of its own: it reads finished runs of every kind, so it stands above them.
- `vectors` is a package of its own: `stages`, `information` and `workflow` need the same vectors,
  so they are made below all three.
- `auditing/detectors` imports no other module of the audit. A contract holds this.
- The config's type names the stage (`config/entries.py`). Nobody else knows which inputs a stage
  has, whether it resumes, or where its run lies.
- The package of the audit is called `auditing`, because `traitscope.audit` is the public function.
- `workflow/standard_nodes.py`, `workflow/executors.py`, `workflow/ray_executor.py`,
  `workflow/slurm_executor.py` and `inference/vllm_engine.py` have longer names than `nodes`,
  `workers`, `ray`, `slurm` and `vllm`. The short names are those of local variables or of the
  packages that they import.
- `atomic_files.py` lies at the bottom, because inference and runs both write files.
- `deferred_imports.py` lies at the bottom, because models and the command line both use it.
- Planning, addresses and finished runs import no torch. So `models/identity/finding.py`,
  `stages/behaviours/scores.py`, `training/inputs.py` and `information/influence_table.py` are files
  of their own.

## The tree

"""


def page() -> str:
    """The text of the page."""
    parts = [HEAD.format(layers=_layers())]
    for folder in sorted(_folders(), key=_rank):
        parts.append(_section(folder))
    return "\n".join(parts)


def _contract() -> list[str]:
    """The layers of the first import contract, top first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["tool"]["importlinter"]["contracts"][0]["layers"]


def _layers() -> str:
    lines = []
    for layer in _contract():
        lines.append(layer.replace(" | ", ", "))
    return "\n".join(lines)


def _rank(folder: Path) -> tuple[int, str]:
    """Where a folder stands in the contract; the package itself comes first."""
    name = folder.relative_to(SOURCE).as_posix()
    order: list[str] = [".", *reversed([n for layer in _contract() for n in layer.split(" | ")])]
    return order.index(name.split("/")[0]), name


def _folders() -> set[Path]:
    return {path.parent for path in SOURCE.rglob("*.py")}


def _section(folder: Path) -> str:
    name = folder.relative_to(SOURCE).as_posix()
    title = "traitscope" if name == "." else f"traitscope/{name}"
    about = "" if name == "." else f"{_first_line(folder / '__init__.py')}\n\n"
    lines = ["| file | what it holds |", "|---|---|"]
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py" or name == ".":
            lines.append(f"| `{path.name}` | {_first_line(path)} |")
    return f"### {title}\n\n{about}" + "\n".join(lines) + "\n"


def _first_line(path: Path) -> str:
    """The first paragraph of a module's docstring, in one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = docstring.split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
