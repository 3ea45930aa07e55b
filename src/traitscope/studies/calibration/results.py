"""The results of a calibration: one JSON line for each audited set, kept in the repository.

A file is replaced in one step under a kernel lock. So a killed process leaves every line whole, and
two processes side by side lose none. All lines of a file have the same digests of
settings and code. A file with others is refused, so that figures of two versions are never mixed.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.errors import ConfigError, DataError
from traitscope.runs.locks import locked

PACKAGE = Path(__file__).parents[2]
"folder of the package"
Line = dict[str, Any]


@dataclass(frozen=True)
class Version:
    """What all lines of a file have in common."""

    settings: str
    "digest of all settings but the set's own"
    code: str
    "digest of the code that decides"

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a line."""
        return {"settings": self.settings, "code": self.code}


def digest_of(value: Any) -> str:
    """The first 16 hex digits of the sha256 of a JSON value; paths count as text."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_digest(places: Iterable[str]) -> str:
    """The digest of the code of files and packages of this project.

    Comments, docstrings and layout do not count.
    """
    files: list[Path] = []
    for place in places:
        path = PACKAGE / place
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    dumps = []
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        dumps.append([file.relative_to(PACKAGE).as_posix(), ast.dump(_without_texts(tree))])
    return digest_of(dumps)


def _without_texts(tree: ast.AST) -> ast.AST:
    """The tree without statements that are nothing but a text."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.AST) -> bool:
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)  # type: ignore[attr-defined]


def read_results(file: Path) -> list[Line]:
    """The lines of a file of results; none where it is not there. Raises DataError."""
    if not file.exists():
        return []
    lines = []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise DataError(
                f"{file}, line {number}: {error}; expected a JSON object; delete the line, so that"
                " its set is audited again"
            ) from None
    return lines


def check_version(
    file: Path, lines: Sequence[Line], version: Version, same_as: Sequence[str] = ()
) -> None:
    """Raise ConfigError where a line is of other settings or other code.

    same_as: Digests of code that is known to decide alike, such as before a message was reworded.
    """
    for line in lines:
        same_code = line["code"] in (version.code, *same_as)
        if line["settings"] != version.settings or not same_code:
            raise ConfigError(
                f"{file}: set {line['set']} has settings {line['settings']} and code"
                f" {line['code']}; expected {version.settings} and {version.code}; move the file"
                " away to begin anew, or name code that decides alike with --same-as"
            )


def add_result(file: Path, line: Line, version: Version, same_as: Sequence[str] = ()) -> None:
    """Add the line of a set, or do nothing where the set has one. Raises ConfigError."""
    with locked(file):
        lines = read_results(file)
        check_version(file, lines, version, same_as)
        if any(other["set"] == line["set"] for other in lines):
            return
        texts = [json.dumps(each, ensure_ascii=False) + "\n" for each in [*lines, line]]
        atomic_files.write_text(file, "".join(texts))
