"""Whether a file is an older result of this product, which a command may replace."""

import json
from collections.abc import Callable
from pathlib import Path

from traitscope.plain_values import NotPlainError, from_json

LARGEST = 64 * 2**20
"bytes of a file that may be an older result; a larger one holds data"
TOOL = "traitscope"
"value of `tool` in a summary"
EARLIER = ("run", "message")
"keys of which a summary of an earlier version has one"
END = 2**12
"bytes at the end of a page that hold its footer"


def may_be_replaced(name: str, file: Path) -> bool:
    """Whether the setting `name` may replace a file: it is empty, or an older result of its kind.

    Settings that are not among KINDS refuse every file themselves.
    """
    size = file.stat().st_size
    if name not in KINDS or size == 0:
        return True
    try:
        return size <= LARGEST and KINDS[name][1](file)
    except (OSError, UnicodeDecodeError, NotPlainError):
        return False


def _is_summary(file: Path) -> bool:
    """Whether a file is the summary of a command: an object that names this product.

    Summaries of earlier versions do not. They are known by their layout, a status, and a run or a
    message. A status alone is nothing to lose.
    """
    with open(file, "rb") as stream:
        if stream.read(1) != b"{":
            return False
    text = file.read_text(encoding="utf-8")
    value = from_json(text)
    if not isinstance(value, dict):
        return False
    if value.get("tool") == TOOL:
        return True
    if not isinstance(value.get("status"), str):
        return False
    if len(value) == 1:
        return True
    is_laid_out = json.dumps(value, indent=2, ensure_ascii=False) == text.rstrip()
    return is_laid_out and not value.keys().isdisjoint(EARLIER)


def _is_page(file: Path) -> bool:
    """Whether a file is a page of ours: HTML with our footer."""
    doctype = b"<!doctype html>"
    with open(file, "rb") as stream:
        begins = stream.read(len(doctype) + 16).lstrip()
        stream.seek(max(0, file.stat().st_size - END))
        return begins.startswith(doctype) and b"<p>Made by traitscope" in stream.read()


def _is_table(file: Path) -> bool:
    """Whether a file is our table for LaTeX."""
    from traitscope.reporting.latex import NEEDS

    return _first_line(file) == NEEDS


def _is_list(file: Path) -> bool:
    """Whether a file is our list of runs as CSV."""
    from traitscope.cli.listing import COLUMNS

    return _first_line(file) == ",".join(COLUMNS)


def _is_sarif(file: Path) -> bool:
    """Whether a file is a SARIF log of ours."""
    value = from_json(file.read_text(encoding="utf-8"))
    try:
        return value["runs"][0]["tool"]["driver"]["name"] == "traitscope"
    except (TypeError, KeyError, IndexError):
        return False


def _first_line(file: Path) -> str:
    with open(file, encoding="utf-8") as stream:
        return stream.readline(1000).rstrip("\n")


KINDS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "json": ("the summary of a command", _is_summary),
    "report": ("a page of traitscope", _is_page),
    "latex": ("a table of traitscope", _is_table),
    "sarif": ("a SARIF log of traitscope", _is_sarif),
    "csv": ("a list of runs", _is_list),
}
"what a setting writes, and how a file of that kind is known"
