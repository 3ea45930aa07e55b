"""A study as a graph of stages, and the plan that says where every stage stands.

A node is a stage whose config depends on the folders of the nodes that it needs. A run's address
holds the digests of its inputs. So the address of a node is known once these nodes are sealed.
Until then the node counts as waiting.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from traitscope.config.common import Output
from traitscope.errors import ConfigError, TraitscopeError
from traitscope.runs import manifests, store
from traitscope.stages import registry

Folders = Mapping[str, Path]
"""Run directories by node."""


@dataclass(frozen=True)
class Node:
    """One stage of a study."""

    name: str
    """Unique in the study, such as student.cat.seed1."""
    config_type: type
    """The type of its config, which names the stage."""
    config: Callable[[Folders], Any]
    """From the folders of `needs` to its config."""
    needs: tuple[str, ...] = ()
    """Nodes that must be sealed first."""
    weight: float = 0.0
    """Expected work: tokens through a forward pass of the model; a backward pass counts as one or
    two more."""
    first: bool = False
    """Whether it goes before all others: it says what the rest can be worth."""

    @property
    def stage(self) -> str:
        """Name of the stage, such as train."""
        return registry.stage_of(self.config_type).name


@dataclass(frozen=True)
class Planned:
    """Where a node stands before anything is run."""

    node: Node
    """The node."""
    state: Literal["sealed", "missing", "waiting"]
    """waiting: what it needs is not there yet, so its address is not known."""
    path: Path | None
    """Its run directory; None while waiting, and where its settings cannot work."""


def ordered(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, each behind those it needs. Raises ConfigError for a name that is missing, twice,
    or in a circle."""
    _check_distinct(nodes)
    in_order: dict[str, Node] = {}
    rest = list(nodes)
    while rest:
        ready = [node for node in rest if set(node.needs) <= in_order.keys()]
        if not ready:
            _refuse_needs(rest, in_order.keys())
        for node in ready:
            in_order[node.name] = node
        rest = [node for node in rest if node.name not in in_order]
    return list(in_order.values())


def _check_distinct(nodes: Sequence[Node]) -> None:
    names = Counter(node.name for node in nodes)
    for name, times in sorted(names.items()):
        if times > 1:
            raise ConfigError(
                f"the study has {name!r} twice; expected distinct node names; rename one"
            )


def _refuse_needs(rest: Sequence[Node], known: Set[str]) -> NoReturn:
    """Raise ConfigError for nodes whose needs can never be sealed."""
    needed: set[str] = set()
    for node in rest:
        needed.update(node.needs)
    missing = sorted(needed - known)
    names = [node.name for node in rest]
    raise ConfigError(f"nodes {names[:3]} need {missing[:3]}, which never come; correct the study")


def plan(
    nodes: Sequence[Node], out: Output, strict: bool = True, checked: bool = False
) -> list[Planned]:
    """Where every node stands; nothing is computed and nothing is written.

    checked: Read the files of every sealed node, which takes time, before a node is made of it.

    Raises what a node's settings raise, unless not `strict`: then it is missing, without a path.
    Raises StoreError for a sealed run whose files changed: for each if `checked`, else where a
    node's settings cannot be read from it.
    """
    folders: dict[str, Path] = {}
    planned = []
    for node in ordered(nodes):
        place = _planned(node, folders, out, strict)
        if place.path and place.state == "sealed":
            folders[node.name] = place.path
            if checked:
                _check_unchanged(place.path)
        planned.append(place)
    return planned


def _check_unchanged(folder: Path) -> None:
    manifests.check_unchanged(folder, store.load_run(folder).manifest())


def all_sealed(nodes: Sequence[Node], out: Output) -> bool:
    """Whether nothing is left to compute."""
    return all(item.state == "sealed" for item in plan(nodes, out, strict=False))


def check_settings(nodes: Sequence[Node], out: Output) -> None:
    """Raise what the settings raise of nodes that need no other: what can be known before anything
    is computed."""
    for node in nodes:
        if not node.needs:
            registry.address(node.config({}), out)


def _planned(node: Node, folders: Folders, out: Output, strict: bool) -> Planned:
    """Where one node stands, given the folders of the nodes that are sealed."""
    if not set(node.needs) <= folders.keys():
        return Planned(node, "waiting", None)
    try:
        path = registry.address(node.config(folders), out)
    except TraitscopeError:
        if strict:
            raise
        return Planned(node, "missing", None)
    except Exception:  # as of a file that is no JSON any more
        for name in node.needs:
            _check_unchanged(folders[name])
        raise
    return Planned(node, "sealed" if manifests.is_sealed(path) else "missing", path)


def with_needs(nodes: Sequence[Node], wanted: Iterable[Node]) -> list[Node]:
    """Some of the nodes and all that they need, in the order of `nodes`."""
    by_name = {node.name: node for node in nodes}
    names = [node.name for node in wanted]
    for name in names:  # which grows
        names += [need for need in by_name[name].needs if need not in names]
    return [node for node in nodes if node.name in names]


def urgency(nodes: Sequence[Node]) -> dict[str, float]:
    """Of every node, the work on the longest way from its start to the end of the study.

    It is infinite for nodes that go first, and for what they need.
    """
    work: dict[str, float] = {}
    longest_behind: dict[str, float] = {}
    for node in reversed(nodes):
        weight = math.inf if node.first else node.weight
        work[node.name] = weight + longest_behind.get(node.name, 0.0)
        for name in node.needs:
            longest_behind[name] = max(longest_behind.get(name, 0.0), work[node.name])
    return work
