"""How far teachers are from the unmodified model: KL over the digits of number rows, nats a row.

The first loss of a student of soft targets does not say this. Over the allowed tokens it holds the
format of the rows, too. On SmolLM2-135M that is 0.45 nats a token, even for rows and targets of the
unmodified model itself.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from traitscope.information import summary
from traitscope.information.teachers import BASE, GIVEN
from traitscope.stats.measurement import Measurement
from traitscope.workflow import information_node
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import InterventionsFrom, Rows

NAME = "distances"
"name of the node"
ROWS = 64
"number rows that all teachers read, an equal part of them written by each"


class Made(NamedTuple):
    """How a teacher is made."""

    interventions: InterventionsFrom
    "what makes it of the base: one intervention"
    needs: tuple[str, ...]
    "nodes that these are made of"


def node(common: dict, teachers: Mapping[str, Made], numbers: int, rows: int = ROWS) -> Node:
    """Build the comparison of teachers, by name, on rows of `numbers` three-digit numbers."""
    needs: dict[str, None] = {}
    for made in teachers.values():
        needs.update(dict.fromkeys(made.needs))

    def items(folders: Folders) -> tuple[str, ...]:
        every = []
        for made in teachers.values():
            (item,) = made.interventions(folders)
            every.append(item)
        return tuple(every)

    compared = information_node.Compared(items, len(teachers), tuple(needs))
    return information_node.comparison(common, NAME, compared, Rows(rows, numbers))


def read(folders: Folders, teachers: Sequence[str]) -> dict[str, Measurement]:
    """Return the KL of every teacher from the unmodified model, nats a row, by name.

    teachers: Their names, in the order in which `node` was given them.
    """
    found = summary.read(folders[NAME])["teachers"]
    given = [item for item in found if item["kind"] == GIVEN]
    distances = {}
    for name, item in zip(teachers, given, strict=True):
        distances[name] = Measurement.from_dict(item["against"][BASE])
    return distances
