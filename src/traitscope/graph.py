"""A study as a graph of stages: planned without running anything, run side by side, resumed for nothing.

A node is a stage whose config depends on the folders of the nodes that it needs.  Because a run's address holds the
digests of its inputs, the address of a node is known as soon as what it needs is sealed; before that the plan says what
it waits for.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from traitscope import cli, execute, progress, stage
from traitscope.configs import Output
from traitscope.errors import ConfigError

Folders = Mapping[str, Path]
"run directories by node"


@dataclass(frozen=True)
class Node:
    """One stage of a study."""

    name: str
    """Unique in the study, such as student.cat.seed1."""
    verb: str
    """The stage."""
    config: Callable[[Folders], Any]
    """From the folders of `needs` to its config."""
    needs: tuple[str, ...] = ()
    """Nodes that must be sealed first."""
    weight: float = 0.0
    """Expected work: tokens through a forward pass of the model; a backward pass counts as one or two more."""


@dataclass(frozen=True)
class Planned:
    """Where a node stands before anything is run."""

    node: Node
    """The node."""
    state: Literal["sealed", "missing", "waiting"]
    """waiting: what it needs is not there yet, so its address is not known."""
    path: Path | None
    """Its run directory; None while waiting."""


def ordered(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, each behind those it needs.  Raises ConfigError for a name that is missing, twice, or in a circle."""
    names = [node.name for node in nodes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"the study has {twice[0]!r} twice; expected distinct node names")
    found: dict[str, Node] = {}
    rest = list(nodes)
    while rest:
        ready = [node for node in rest if set(node.needs) <= found.keys()]
        if not ready:
            needed = sorted({need for node in rest for need in node.needs} - found.keys())
            raise ConfigError(f"nodes {[n.name for n in rest][:3]} need {needed[:3]}, which never come; correct the study")
        found |= {node.name: node for node in ready}
        rest = [node for node in rest if node.name not in found]
    return list(found.values())


def plan(nodes: Sequence[Node], out: Output) -> list[Planned]:
    """Where every node stands; nothing is computed and nothing is written."""
    folders: dict[str, Path] = {}
    found = []
    with stage.planning():
        for node in ordered(nodes):
            path, state = None, "waiting"
            if set(node.needs) <= folders.keys():
                path, state = _place(node, folders, out)
            if state == "sealed":
                folders[node.name] = path
            found.append(Planned(node, state, path))
    return found


def _place(node: Node, folders: Folders, out: Output) -> tuple[Path, str]:
    try:
        return cli.function(cli.VERBS[node.verb].run)(node.config(folders), out).path, "sealed"
    except stage.Missing as missing:
        return missing.path, "missing"


def run(nodes: Sequence[Node], out: Output, workers: int) -> dict[str, Path]:
    """The folders of all nodes, computing what is missing; of what is ready, that with the most work behind it goes first.

    The first error ends it; what was sealed by then stays, so the same command continues.
    """
    folders = {p.node.name: p.path for p in plan(nodes, out) if p.path and p.state == "sealed"}
    rest = [node for node in ordered(nodes) if node.name not in folders]
    if not rest:
        return folders
    urgency = _urgency(rest)
    running: dict[Future[Path], Node] = {}
    with execute.pool(workers, out) as pool, _shown(rest, pool.size) as reached:
        while rest or running:
            ready = [node for node in rest if set(node.needs) <= folders.keys()]
            for node in sorted(ready, key=lambda node: -urgency[node.name])[: pool.size - len(running)]:
                running[pool.submit(node.name, node.verb, node.config(folders))] = node
                rest.remove(node)
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for name, fraction, line in pool.heard():
                print(line, file=sys.stderr, flush=True)
                reached(name, 0.95 * fraction)
            for future in done:
                name = running.pop(future).name
                folders[name] = future.result()
                reached(name, 1.0)
    return folders


def _urgency(nodes: Sequence[Node]) -> dict[str, float]:
    """Of every node, the work on the longest way from its start to the end of the study."""
    found: dict[str, float] = {}
    for node in reversed(nodes):
        behind = (found[other.name] for other in nodes if node.name in other.needs)
        found[node.name] = node.weight + max(behind, default=0.0)
    return found


@contextmanager
def _shown(nodes: Sequence[Node], workers: int) -> Iterator[Callable[[str, float], None]]:
    """Progress over all nodes, told by (name, fraction done); with one worker each stage shows its own instead."""
    if workers == 1:
        yield lambda name, fraction: None
        return
    weights, shown = {node.name: node.weight for node in nodes}, dict.fromkeys([node.name for node in nodes], 0.0)
    with progress.progress(f"{len(nodes)} stages", sum(weights.values()), "tokens") as advance:

        def reached(name: str, fraction: float) -> None:
            if fraction > shown[name]:
                advance(weights[name] * (fraction - shown[name]))
                shown[name] = fraction

        yield reached


def seconds(nodes: Sequence[Node], parameters: int, rate: float, share: float = 0.5) -> float:
    """Expected time: 2 FLOP a parameter and token, at `share` of a matmul `rate` in FLOP/s."""
    return 2 * parameters * sum(node.weight for node in nodes) / (share * rate)
