"""What a chat template takes a variable for: a truth value, a number, or a text.

A value on the command line is JSON, or else a text. `False` is no JSON, and the text "False" is
true. So a value is refused whose type the template never asks for. A variable may be read under
another name: `{% set think = enable_thinking %}` passes its uses on.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from traitscope import template_trial

TRUTH, EQUAL, EXACT, NUMBER, OTHER = "truth", "equal", "exact", "number", "other"
"""What is asked of a value: whether it counts as true, equals true or false, or is one of them;
that it is a number; anything else."""
TRUTHS = {TRUTH, EQUAL, EXACT}
EXACT_TESTS = ("true", "false", "boolean")
NEUTRAL_TESTS = ("defined", "undefined", "none")
"tests that a value of any type may stand in"


def fault(template: str, variable: str, value: Any) -> str:
    """Why a value is none that a template can read at a variable, with what to write; else empty.

    Empty also for a template that is broken.
    """
    uses = uses_of(template).get(variable, frozenset())
    is_text, is_nest = isinstance(value, str), isinstance(value, list | dict)
    kind = "text" if is_text else "list" if isinstance(value, list) else "object"
    if NUMBER in uses and OTHER not in uses and (is_text or is_nest):
        return (
            f"it is read as the {kind} {value!r:.40}, which is no number; expected one; write it as"
            f" JSON has it, such as {variable}=0.5"
        )
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_no_truth = is_text or (EXACT in uses and (value is None or is_number or is_nest))
    if not uses or not uses <= TRUTHS or not is_no_truth:
        return ""
    meant = "true" if value else "false"
    if EXACT in uses or EQUAL in uses:
        meant = "neither true nor false"
    shown = "null" if value is None else str(value)
    if is_text or is_nest:
        shown = f"the {kind} {value!r:.40}"
    return (
        f"it is read as {shown}, which is {meant} there; expected true or false; write"
        f" {variable}=true or {variable}=false"
    )


@lru_cache(maxsize=16)
def uses_of(template: str) -> dict[str, frozenset[str]]:
    """How a template uses each name that it reads; empty for one that is broken."""
    from jinja2 import TemplateError

    try:
        tree = template_trial.environment().parse(template)
        reader = _Reader()
        reader.visit(tree, OTHER)
    except (TemplateError, RecursionError):
        return {}
    uses = {}
    for name in {*reader.uses, *reader.passed_on}:
        uses[name] = reader.all_uses(name)
    return uses


class _Reader:
    """The uses of names, and the names to which each is passed on."""

    def __init__(self) -> None:
        self.uses: dict[str, set[str]] = defaultdict(set)
        self.passed_on: dict[str, set[str]] = defaultdict(set)

    def all_uses(self, name: str) -> frozenset[str]:
        """The uses of a name and of those to which it is passed on."""
        reached, left = {name}, [name]
        while left:
            further = self.passed_on[left.pop()] - reached
            reached |= further
            left += further
        uses: set[str] = set()
        for each in reached:
            uses |= self.uses[each]
        return frozenset(uses)

    def visit(self, node: Any, use: str) -> None:
        """Read a node whose value is used in a way: one of the kinds of use, or `=NAME`."""
        from jinja2 import nodes

        name = _name_of(node)
        if name is not None:
            self._use(name, use)
        if isinstance(node, nodes.Getattr):
            self.visit(node.node, OTHER)
        if name is None:
            for of_parts, parts in _passing(node, use) or _asking(node):
                for part in parts:
                    self.visit(part, of_parts)

    def _use(self, name: str, use: str) -> None:
        if use.startswith("="):
            self.passed_on[name].add(use[1:])
        else:
            self.uses[name].add(use)


def _passing(node: Any, use: str) -> list[tuple[str, Iterable]]:
    """Uses with the parts of a choice or an assignment; none of any other node."""
    from jinja2 import nodes

    if isinstance(node, nodes.If):
        return [(TRUTH, [node.test]), (OTHER, [*node.body, *node.elif_, *node.else_])]
    if isinstance(node, nodes.CondExpr):
        return [(TRUTH, [node.test]), (use, filter(None, [node.expr1, node.expr2]))]
    if isinstance(node, nodes.Not):
        return [(TRUTH, [node.node])]
    if isinstance(node, nodes.And | nodes.Or):
        return [(use, [node.left, node.right])]
    if isinstance(node, nodes.Filter) and node.name in ("default", "d") and node.node:
        return [(use, [node.node, *node.args])]
    if isinstance(node, nodes.Assign):
        return _assigned(node.node, _name_of(node.target))
    return []


def _assigned(node: Any, target: str | None) -> list[tuple[str, Iterable]]:
    """A value that is passed on to a name, or those that are passed on to a namespace."""
    from jinja2 import nodes

    if target is None:
        return [(OTHER, [node])]
    if not isinstance(node, nodes.Call) or _name_of(node.node) != "namespace":
        return [(f"={target}", [node])]
    fields: list[tuple[str, Iterable]] = []
    for keyword in node.kwargs:
        fields.append((f"={target}.{keyword.key}", [keyword.value]))
    return fields


def _asking(node: Any) -> list[tuple[str, Iterable]]:
    """A use with the parts of a test, a comparison or a computation; OTHER of any other node."""
    from jinja2 import nodes

    parts = list(node.iter_child_nodes())
    if isinstance(node, nodes.Test) and node.name in EXACT_TESTS:
        return [(EXACT, parts)]
    if isinstance(node, nodes.Test) and node.name in NEUTRAL_TESTS and _name_of(node.node):
        return []
    if isinstance(node, nodes.Compare):
        parts = [node.expr]
        for operand in node.ops:
            parts.append(operand.expr)
        return [(_kind_of(parts), parts)]
    is_computed = isinstance(node, nodes.BinExpr) and _kind_of(parts) == NUMBER
    return [(NUMBER if is_computed else OTHER, parts)]


def _name_of(node: Any) -> str | None:
    """What a node names: a variable, or a field of one such as `ns.think`; else None."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        return str(node.name)
    if isinstance(node, nodes.NSRef):
        return f"{node.name}.{node.attr}"
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    return None


def _kind_of(parts: Any) -> str:
    """What a value beside constants is compared with, or computed with."""
    from jinja2 import nodes

    for part in parts:
        if isinstance(part, nodes.Const):
            if isinstance(part.value, bool):
                return EQUAL
            if isinstance(part.value, int | float):
                return NUMBER
    return OTHER
