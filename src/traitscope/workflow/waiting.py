"""Nodes of a graph that wait for what they need, or for room, the most urgent one first."""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence

from traitscope.workflow.graph import Node


class Waiting:
    """Nodes that are not sent yet, and which of them have all that they need.

    A sealed node costs time by the nodes that need it, not by all that wait.
    """

    def __init__(
        self, nodes: Sequence[Node], sealed: Collection[str], urgency: Mapping[str, float]
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self._places = {node.name: place for place, node in enumerate(nodes)}
        self._urgency = urgency
        self._unmet: dict[str, int] = {}
        self._behind: dict[str, list[str]] = {}
        self._ready: list[tuple[float, int, str]] = []
        for node in nodes:
            unmet = [name for name in set(node.needs) if name not in sealed]
            self._unmet[node.name] = len(unmet)
            for name in unmet:
                self._behind.setdefault(name, []).append(node.name)
            if not unmet:
                self._push(node.name)

    def most_urgent(self) -> Node | None:
        """The ready node with most work behind it; the earlier one of equals. None without any."""
        while self._ready and self._ready[0][2] not in self.nodes:
            heapq.heappop(self._ready)
        return self.nodes[self._ready[0][2]] if self._ready else None

    def ready(self) -> list[Node]:
        """All nodes that have what they need, in the order of the graph."""
        return self.in_order({name for _, _, name in self._ready if name in self.nodes})

    def in_order(self, names: Iterable[str]) -> list[Node]:
        """Some of the waiting nodes, in the order of the graph."""
        return [self.nodes[name] for name in sorted(names, key=self._places.__getitem__)]

    def remove(self, name: str) -> None:
        """Take a node out: it was sent, or has failed."""
        self.nodes.pop(name, None)

    def put_back(self, node: Node) -> None:
        """Let a node that was sent wait again."""
        self.nodes[node.name] = node
        self._push(node.name)

    def note_sealed(self, name: str) -> None:
        """A node is sealed: those that needed it may be ready now."""
        for behind in self._behind.pop(name, []):
            self._unmet[behind] -= 1
            if not self._unmet[behind]:
                self._push(behind)

    def _push(self, name: str) -> None:
        heapq.heappush(self._ready, (-self._urgency[name], self._places[name], name))
