"""Run a graph of stages: what is ready goes out, the longest way first; what fails holds up only
what needs it.

A stage whose worker died is tried again, alone; one that raised is not, since it would raise again.
What went wrong is noted beside the runs until the stage is sealed, so that `study status` can say
it by reading the disk alone. Whatever ends the command, what is sealed by then stays, and the same
command continues.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.errors import StoreError, TraitscopeError
from traitscope.runs import opening, progress
from traitscope.workflow import executors, graph
from traitscope.workflow.executors import Died, How, Pool
from traitscope.workflow.graph import Node

FAILED = ".failed"
"folder beside the runs, a file for each stage that failed last time"


def run(nodes: Sequence[Node], out: Output, how: How) -> dict[str, Path]:
    """The folders of all nodes, computing what is missing; of some, where `how` has a limit.

    Raises the error of the stage that failed, or one that names all that did, when everything else
    is done.
    """
    if how.executor != "local":  # whose workers have another working directory
        out = replace(out, root=out.root.absolute())
    folders = {
        p.node.name: p.path
        for p in graph.plan(nodes, out, strict=False)
        if p.path and p.state == "sealed"
    }
    rest = [node for node in graph.ordered(nodes) if node.name not in folders]
    if not rest:
        return folders
    sweep = _Sweep(out, how, folders, rest, graph.urgency(rest))
    with executors.pool(how, out) as pool, _shown(rest, pool.size) as reached:
        while sweep.send(pool):
            done, _ = wait(sweep.running, timeout=0.5, return_when=FIRST_COMPLETED)
            for name, fraction, line in pool.heard():
                print(line, file=sys.stderr, flush=True)
                reached(name, 0.95 * fraction)
            for future in done:
                for name in sweep.take(future):
                    reached(name, 1.0)
    sweep.check()
    return folders


@dataclass
class _Sweep:
    """Where a run of a graph stands."""

    out: Output
    how: How
    folders: dict[str, Path]
    rest: list[Node]
    "not sent yet"
    urgency: dict[str, float]
    running: dict[Future, list[Node]] = field(default_factory=dict)
    failed: dict[str, BaseException] = field(default_factory=dict)
    sent: int = 0
    tried: Counter = field(default_factory=Counter)

    def send(self, pool: Pool) -> bool:
        """Fill the pool with what is ready; whether anything is running."""
        if self.failed and self.how.stop_at_once:
            return bool(self.running)
        with pool.batch():
            for node in sorted(self._ready(), key=lambda node: -self.urgency[node.name]):
                if (
                    node in self.rest
                    and len(self.running) < pool.size
                    and not (self.how.limit and self.sent >= self.how.limit)
                ):
                    self._submit(pool, node)
        return bool(self.running)

    def _ready(self) -> list[Node]:
        return [node for node in self.rest if set(node.needs) <= self.folders.keys()]

    def _submit(self, pool: Pool, node: Node) -> None:
        """Send a node, with others of its kind where students may be packed."""
        batch = {name: config for name, config in self._pack(node).items() if config is not None}
        nodes = [other for other in self.rest if other.name in batch]
        self.rest = [
            other
            for other in self.rest
            if other.name not in batch and other.name not in self.failed
        ]
        if nodes:
            self.sent += len(nodes)
            self.tried.update(other.name for other in nodes)
            label = (
                nodes[0].name if len(nodes) == 1 else f"{nodes[0].name} and {len(nodes) - 1} more"
            )
            self.running[pool.submit(label, [batch[other.name] for other in nodes])] = nodes

    def _pack(self, node: Node) -> dict[str, Any]:
        """Configs by name of the nodes that go out together; one that cannot be made has failed."""
        found = {node.name: self._config(node)}
        if self.how.pack == 1 or found[node.name] is None or self.tried[node.name]:
            return found
        from traitscope.workflow import packed

        key = packed.key(found[node.name])
        for other in self._ready() if key is not None else []:
            if (
                len(found) < self.how.pack
                and other is not node
                and other.stage == node.stage
                and not self.tried[other.name]
            ):
                config = self._config(other)
                if config is not None and packed.key(config) == key:
                    found[other.name] = config
        return found

    def _config(self, node: Node) -> Any:
        try:
            return opening.settled(node.config(self.folders))
        except TraitscopeError as error:
            self._fail(node, error)
            return None

    def take(self, future: Future) -> list[str]:
        """What a job has come to; names of the nodes that are sealed now."""
        nodes = self.running.pop(future)
        error = future.exception()
        results = [error] * len(nodes) if error else future.result()
        for node, result in zip(nodes, results, strict=True):
            if isinstance(result, Path) and not (result / "manifest.json").exists():
                result = StoreError(
                    f"{result} was made where this machine does not see it; put --root on a disk"
                    " that all machines share"
                )
            if isinstance(result, Path):
                self.folders[node.name] = result
                _note(self.out, node.name).unlink(missing_ok=True)
            elif (
                isinstance(result, Died | BrokenExecutor)
                and self.tried[node.name] <= self.how.retries
            ):
                print(
                    f"{node.name}: its worker died, so it is tried again",
                    file=sys.stderr,
                    flush=True,
                )
                self.rest.append(node)
            else:
                self._fail(node, result)
        return [node.name for node in nodes if node.name in self.folders]

    def _fail(self, node: Node, error: BaseException) -> None:
        self.failed[node.name] = error
        print(f"failed: {node.name}: {error or type(error).__name__}", file=sys.stderr, flush=True)
        said = {
            "node": node.name,
            "error": type(error).__name__,
            "message": str(error),
            "tried": self.tried[node.name],
        }
        with suppress(
            StoreError
        ):  # where nothing can be written, what went wrong must still be heard
            atomic_files.write_json(
                _note(self.out, node.name),
                said | {"when": datetime.now(UTC).isoformat(timespec="seconds")},
            )

    def check(self) -> None:
        """Raise what went wrong."""
        if not self.failed:
            return
        errors = list(self.failed.values())
        worst = next(
            (error for error in errors if not isinstance(error, TraitscopeError)), errors[0]
        )
        if len(errors) == 1 or not isinstance(worst, TraitscopeError):
            raise worst
        names = ", ".join(list(self.failed)[:3]) + (", ..." if len(errors) > 3 else "")
        raise type(worst)(
            f"{len(errors)} stages failed ({names}), the first with: {worst}"
        ) from worst


def _note(out: Output, name: str) -> Path:
    """The file that says how a node failed."""
    return out.root / out.study / FAILED / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def failures(out: Output) -> dict[str, dict[str, Any]]:
    """What is noted of stages that failed, by node."""
    notes = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((out.root / out.study / FAILED).glob("*.json"))
    ]
    return {note["node"]: note for note in notes}


@contextmanager
def _shown(nodes: Sequence[Node], workers: int) -> Iterator[Callable[[str, float], None]]:
    """Progress over all nodes, told by (name, fraction done); with one worker each stage shows its
    own instead."""
    if workers == 1:
        yield lambda name, fraction: None
        return
    weights, shown = (
        {node.name: node.weight for node in nodes},
        dict.fromkeys([node.name for node in nodes], 0.0),
    )
    with progress.progress(f"{len(nodes)} stages", sum(weights.values()), "tokens") as advance:

        def reached(name: str, fraction: float) -> None:
            if fraction > shown.get(name, 1.0):
                advance(weights[name] * (fraction - shown[name]))
                shown[name] = fraction

        yield reached
