"""Nodes that wait: ready when all is there, most work behind first, each once."""

import random
from dataclasses import replace

from traitscope.config.stages import FilterConfig
from traitscope.workflow import graph
from traitscope.workflow.graph import Node
from traitscope.workflow.waiting import Waiting


def node(name: str, *needs: str, weight: float = 1.0) -> Node:
    return Node(name, FilterConfig, lambda _: FilterConfig(), needs, weight)


def test_a_node_is_ready_when_all_that_it_needs_is_sealed() -> None:
    nodes = [node("c", "a", "b"), node("d", "c"), node("e")]
    waiting = Waiting(nodes, {"b"}, graph.urgency(nodes))
    assert [each.name for each in waiting.ready()] == ["e"]
    waiting.note_sealed("a")
    assert [each.name for each in waiting.ready()] == ["c", "e"]
    assert waiting.most_urgent().name == "c", "the way to d is longer"
    waiting.remove("c")
    waiting.note_sealed("c")
    assert waiting.most_urgent().name == "d", "it stands before e, which is as urgent"
    waiting.remove("d")
    waiting.remove("e")
    assert waiting.most_urgent() is None and waiting.ready() == []
    waiting.put_back(nodes[0])
    assert waiting.most_urgent().name == "c"


def test_random_graphs_are_sent_whole_in_an_order_that_can_be() -> None:
    rng = random.Random(0)
    for _ in range(50):
        nodes = []
        for place in range(30):
            needs = rng.sample(range(place), k=min(place, rng.randrange(4)))
            nodes.append(node(str(place), *map(str, needs), weight=rng.random()))
        urgency = graph.urgency(nodes)
        waiting = Waiting(nodes, (), urgency)
        sealed: set[str] = set()
        while (best := waiting.most_urgent()) is not None:
            assert set(best.needs) <= sealed
            assert urgency[best.name] == max(urgency[each.name] for each in waiting.ready())
            waiting.remove(best.name)
            waiting.note_sealed(best.name)
            sealed.add(best.name)
        assert len(sealed) == 30


def test_the_longest_way_from_each_node() -> None:
    nodes = [node("a", weight=1), node("b", "a", weight=5), node("c", "a", weight=2)]
    nodes.append(node("d", "b", "c", weight=3))
    assert graph.urgency(nodes) == {"a": 9, "b": 8, "c": 5, "d": 3}


def test_what_goes_first_goes_first_with_what_it_needs() -> None:
    """Whether a teacher has its trait is known before the long work that rests on it."""
    nodes = [node("rows", weight=100), node("vectors", weight=1), node("student", "rows")]
    nodes.append(replace(node("teacher", "vectors", weight=1), first=True))
    waiting = Waiting(nodes, (), graph.urgency(nodes))
    order = []
    while (best := waiting.most_urgent()) is not None:
        order.append(best.name)
        waiting.remove(best.name)
        waiting.note_sealed(best.name)
    assert order == ["vectors", "teacher", "rows", "student"]
    assert graph.with_needs(nodes, nodes[3:]) == [nodes[1], nodes[3]]
