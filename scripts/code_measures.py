"""How readable the code is, in numbers: prints them, and fails where one is over its limit.

    python scripts/code_measures.py [folder or file ...]      (default: src/traitscope)

Limits that a formatter cannot hold: comprehensions per 1,000 lines, comprehensions inside
comprehensions, lines of a function and of a file, files of a folder, and local variables with
names that say nothing.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
DENSITY = 15.0
"most comprehensions per 1,000 lines"
FUNCTION_LINES, FILE_LINES, FOLDER_FILES = 60, 400, 12
WIDE_FOLDERS = ("claims",)
"folders that may hold any number of files"
VAGUE = ("found", "told", "own", "more")
"names that no variable may have for more than VAGUE_LINES lines"
VAGUE_LINES = 3
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Measures:
    """What was counted, and where a limit is passed."""

    lines: int = 0
    comprehensions: int = 0
    longest_function: int = 0
    longest_file: int = 0
    widest_line: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def density(self) -> float:
        """Comprehensions per 1,000 lines."""
        return 1000 * self.comprehensions / max(1, self.lines)


def measured(files: list[Path]) -> Measures:
    """The measures of some Python files."""
    measures = Measures()
    for path in files:
        _add_file(measures, path)
    _add_folders(measures, files)
    if measures.density > DENSITY:
        measures.problems.append(
            f"{measures.density:.1f} comprehensions per 1,000 lines; at most {DENSITY:g}"
        )
    return measures


def _add_file(measures: Measures, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    rows = text.splitlines()
    tree = ast.parse(text)
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    measures.lines += len(rows)
    measures.longest_file = max(measures.longest_file, len(rows))
    measures.widest_line = max([measures.widest_line, *map(len, rows)])
    if len(rows) > FILE_LINES:
        measures.problems.append(f"{name}: {len(rows)} lines; at most {FILE_LINES}")
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            measures.comprehensions += 1
            if _has_inner_comprehension(node):
                measures.problems.append(f"{name}:{node.lineno}: nested comprehension")
        if isinstance(node, FUNCTIONS):
            _add_function(measures, node, str(name))


def _has_inner_comprehension(node: ast.AST) -> bool:
    inner = (child for child in ast.walk(node) if child is not node)
    return any(isinstance(child, COMPREHENSIONS) for child in inner)


def _add_function(measures: Measures, node: ast.FunctionDef, name: str) -> None:
    length = node.end_lineno - node.lineno + 1
    measures.longest_function = max(measures.longest_function, length)
    if length > FUNCTION_LINES:
        measures.problems.append(
            f"{name}:{node.lineno}: {node.name} has {length} lines; at most {FUNCTION_LINES}"
        )
    for variable, first, last in _lives(node):
        if variable in VAGUE and last - first > VAGUE_LINES:
            measures.problems.append(
                f"{name}:{first}: `{variable}` lives {last - first} lines in {node.name};"
                " give it a name that says what it is"
            )


def _lives(function: ast.FunctionDef) -> Iterator[tuple[str, int, int]]:
    """Name, first line and last line of every local variable and parameter."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        first[argument.arg] = last[argument.arg] = argument.lineno
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                first[node.id] = min(first.get(node.id, node.lineno), node.lineno)
            last[node.id] = max(last.get(node.id, 0), node.lineno)
    for name, line in first.items():
        yield name, line, last[name]


def _add_folders(measures: Measures, files: list[Path]) -> None:
    counts = Counter(path.parent for path in files if path.name != "__init__.py")
    for folder, count in counts.items():
        if count > FOLDER_FILES and folder.name not in WIDE_FOLDERS:
            measures.problems.append(f"{folder}: {count} files; at most {FOLDER_FILES}")


def main(arguments: list[str]) -> int:
    """Print the measures of the given folders or files; 1 where a limit is passed."""
    files: list[Path] = []
    for place in map(Path, arguments or [str(ROOT / "src" / "traitscope")]):
        files += sorted(place.resolve().rglob("*.py")) if place.is_dir() else [place.resolve()]
    measures = measured(files)
    print(f"files                            {len(files)}")
    print(f"lines                            {measures.lines}")
    print(f"comprehensions per 1,000 lines   {measures.density:.1f}")
    print(f"longest function, lines          {measures.longest_function}")
    print(f"longest file, lines              {measures.longest_file}")
    print(f"widest line, columns             {measures.widest_line}")
    print("\n".join(measures.problems) or "within all limits")
    return 1 if measures.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
