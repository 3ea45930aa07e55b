"""Messages of users' errors end with what to do, not with what was found or expected."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import traitscope
from traitscope import errors

SOURCE = Path(traitscope.__file__).parent
KINDS = {name for name, value in vars(errors).items() if isinstance(value, type)}
SEPARATOR = re.compile(r"[;:] ")


def text_of(node: ast.expr) -> str:
    """The text of a message; a value in it is a dot."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "."


def messages() -> Iterator[tuple[str, str]]:
    """Place and text of the messages that stand where an error is raised."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
            if is_call and getattr(node.exc.func, "id", "") in KINDS and node.exc.args:
                yield f"{name}:{node.lineno}", text_of(node.exc.args[0])


def test_every_message_says_what_to_do() -> None:
    without = []
    listed = list(messages())
    for place, text in listed:
        if not re.search("[a-z]", text):
            continue
        *_, last = SEPARATOR.split(text)
        if last == text or last.startswith("expected"):
            without.append(f"{place} {text}")
    assert without == []
    assert len(listed) > 150
