"""The schedule of a graph: stages that are ready are sent to an executor, the longest way first.

A stage that fails holds up only the stages that need it. A stage whose worker died is tried again,
alone; one that raised is not, since it would raise again. Whatever ends the command, what is sealed
by then stays, and the same command continues.

Settings that cannot work are refused before anything is computed. Where the other stages go on
after a failure, what went wrong is noted beside the runs (failure_notes.py).
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.errors import StoreError, TraitscopeError
from traitscope.plurals import counted
from traitscope.runs import opening, progress
from traitscope.runs.manifests import is_sealed
from traitscope.workflow import executors, failure_notes, graph
from traitscope.workflow.executors import Died, How, Pool
from traitscope.workflow.graph import Node
from traitscope.workflow.waiting import Waiting


def run(
    nodes: Sequence[Node],
    out: Output,
    how: How,
    pool: Pool | None = None,
    sealed: Callable[[str, Path], None] = lambda name, folder: None,
) -> dict[str, Path]:
    """The folders of all nodes, computing what is missing; of some, where `how` has a limit.

    pool: Workers of an executor as `how` asks for, which stay for a further graph.
    sealed: A function called with the name and folder of every node, once it is computed.

    Raises StoreError for a sealed run whose files changed, before anything is read from it. Raises
    the error of a stage that needs no other and whose settings cannot work, before anything is
    computed. Otherwise raises the error of the stage that failed, or one that names all that
    did, when everything else is done.
    """
    if how.executor != "local":  # whose workers have another working directory
        out = replace(out, root=out.root.absolute())
    folders: dict[str, Path] = {}
    graph.check_settings(nodes, out)
    for planned in graph.plan(nodes, out, strict=False, checked=True):
        if planned.path and planned.state == "sealed":
            folders[planned.node.name] = planned.path
    rest = [node for node in graph.ordered(nodes) if node.name not in folders]
    if not rest:
        return folders
    if how.executor == "local":
        atomic_files.check_writable(out.root / out.study)
    sweep = _Sweep(out, how, folders, Waiting(rest, folders, graph.urgency(rest)))
    workers = nullcontext(pool) if pool else executors.pool(how, out)
    with workers as there, _shown(rest, there.size) as reached:
        while sweep.send(there):
            done, _ = wait(sweep.running, timeout=0.5, return_when=FIRST_COMPLETED)
            for name, fraction, line in there.heard():
                print(line, file=sys.stderr, flush=True)
                reached(name, 0.95 * fraction)
            for future in done:
                for name in sweep.take(future):
                    reached(name, 1.0)
                    sealed(name, sweep.folders[name])
    sweep.check()
    return folders


@dataclass
class _Sweep:
    """Where a run of a graph stands."""

    out: Output
    how: How
    folders: dict[str, Path]
    """Run directories of the nodes that are sealed."""
    waiting: Waiting
    """Nodes that are not sent yet."""
    running: dict[Future, list[Node]] = field(default_factory=dict)
    """Nodes by the job that computes them."""
    failed: dict[str, BaseException] = field(default_factory=dict)
    """What went wrong, by node."""
    sent: int = 0
    """How many nodes were sent."""
    tried: Counter = field(default_factory=Counter)
    """How often each node was sent."""

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return self.out.root / self.out.study

    def send(self, pool: Pool) -> bool:
        """Fill the pool with what is ready; whether anything is running."""
        if self.failed and self.how.stop_at_once:
            return bool(self.running)
        with pool.batch():
            while self._may_send(pool):
                node = self.waiting.most_urgent()
                if node is None:
                    break
                self._submit(pool, node)
        return bool(self.running)

    def _may_send(self, pool: Pool) -> bool:
        has_room = len(self.running) < pool.size
        at_limit = self.how.limit and self.sent >= self.how.limit
        ends = self.failed and self.how.stop_at_once
        return has_room and not at_limit and not ends

    def _submit(self, pool: Pool, node: Node) -> None:
        """Send a node, with others of its kind where students may be packed."""
        batch = self._pack(node)
        nodes = self.waiting.in_order(batch)
        for name in [*batch, *self.failed]:
            self.waiting.remove(name)
        if not nodes:
            return
        self.sent += len(nodes)
        for other in nodes:
            self.tried[other.name] += 1
            failure_notes.delete(self.folder, other.name)
        label = nodes[0].name
        if len(nodes) > 1:
            label += f" and {len(nodes) - 1} more"
        self.running[pool.submit(label, [batch[each.name] for each in nodes])] = nodes

    def _pack(self, node: Node) -> dict[str, Any]:
        """Configs by name of the nodes that go out together; a node whose config cannot be made has
        failed and is left out."""
        config = self._config(node)
        if config is None:
            return {}
        batch = {node.name: config}
        if self.how.pack == 1 or self.tried[node.name]:
            return batch
        from traitscope.workflow import packed

        key = packed.key(config)
        if key is None:
            return batch
        for other in self.waiting.ready():
            alike = other is not node and other.config_type is node.config_type
            if len(batch) < self.how.pack and alike and not self.tried[other.name]:
                config = self._config(other)
                if config is not None and packed.key(config) == key:
                    batch[other.name] = config
        return batch

    def _config(self, node: Node) -> Any:
        try:
            return opening.settled(node.config(self.folders))
        except TraitscopeError as error:
            self._fail(node, error)
            return None

    def take(self, future: Future) -> list[str]:
        """Note what a job has come to; names of its nodes that are sealed now."""
        nodes = self.running.pop(future)
        error = future.exception()
        results = [error] * len(nodes) if error else future.result()
        for node, result in zip(nodes, results, strict=True):
            if isinstance(result, Path):
                self._take_run(node, result)
            elif self._may_try_again(node, result):
                line = f"{node.name}: its worker died, so it is tried again"
                print(line, file=sys.stderr, flush=True)
                self.waiting.put_back(node)
            else:
                self._fail(node, result)
        return [node.name for node in nodes if node.name in self.folders]

    def _take_run(self, node: Node, folder: Path) -> None:
        if not is_sealed(folder):
            error = StoreError(
                f"{folder} was made where this machine does not see it; put --root on a disk"
                " that all machines share"
            )
            self._fail(node, error)
            return
        self.folders[node.name] = folder
        self.waiting.note_sealed(node.name)

    def _may_try_again(self, node: Node, error: BaseException) -> bool:
        died = isinstance(error, Died | BrokenExecutor)
        return died and self.tried[node.name] <= self.how.retries

    def _fail(self, node: Node, error: BaseException) -> None:
        self.failed[node.name] = error
        if self.how.stop_at_once:  # the command ends with this error
            return
        print(f"failed: {node.name}: {error or type(error).__name__}", file=sys.stderr, flush=True)
        failure_notes.write(self.folder, node.name, error, self.tried[node.name])

    def check(self) -> None:
        """Raise what went wrong: an error of the program before those of a user."""
        if not self.failed:
            return
        errors = list(self.failed.values())
        for error in errors:
            if not isinstance(error, TraitscopeError):
                raise error
        if len(errors) == 1:
            raise errors[0]
        names = ", ".join(list(self.failed)[:3])
        if len(errors) > 3:
            names += ", ..."
        failed = counted(len(errors), "stage")
        message = f"{failed} failed ({names}), the first with: {errors[0]}"
        raise type(errors[0])(message) from errors[0]


@contextmanager
def _shown(nodes: Sequence[Node], workers: int) -> Iterator[Callable[[str, float], None]]:
    """Yield a function that shows a node's progress, given its name and the fraction done.

    With one worker the function shows nothing, because each stage shows its own progress.
    """
    if workers == 1:
        yield lambda name, fraction: None
        return
    weights = {node.name: node.weight for node in nodes}
    shown = dict.fromkeys(weights, 0.0)
    with progress.progress(
        counted(len(nodes), "stage"), sum(weights.values()), "tokens"
    ) as advance:

        def reached(name: str, fraction: float) -> None:
            if fraction > shown.get(name, 1.0):
                advance(weights[name] * (fraction - shown[name]))
                shown[name] = fraction

        yield reached
