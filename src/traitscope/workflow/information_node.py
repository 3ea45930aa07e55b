"""What a study's number rows can carry: one more node for any study, and its table.

The teachers are those whose digits the study's nodes sample; the students are those that train on
their rows. So a study says before it trains which differences its size can show.
"""

from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope.config.analysis import InformationConfig
from traitscope.config.stages import FilterConfig, GenerateConfig, TrainConfig
from traitscope.errors import TraitscopeError
from traitscope.information import power, summary
from traitscope.information.power import Contrast
from traitscope.information.teachers import GIVEN
from traitscope.reporting.tables import Table
from traitscope.stats.measurement import Measurement
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import InterventionsFrom, Rows

NAME = "information"
"Name of the node."
ROWS = 32
"Number rows that the teachers are compared on."
NOTHING = (
    "Known only of students that read sampled digits of a teacher with no step between. This study"
    " has none."
)


class _Anywhere(dict[str, Path]):
    """Folders of nodes that are not sealed: each has some path."""

    def __missing__(self, name: str) -> Path:
        return Path("unsealed") / name


@dataclass(frozen=True)
class _Written:
    """Digits of one teacher, as a node samples them."""

    node: str
    """The node."""
    teacher: str
    """The teacher's intervention, in short form."""
    config: GenerateConfig
    """Settings of the node."""


def node(nodes: Sequence[Node], common: dict, rows: int = ROWS) -> Node | None:
    """The node that compares the study's teachers of number rows with the unmodified model.

    None for a study without students of such rows.
    """
    written = list(_written(nodes, _Anywhere(), common))
    if not any(node.config_type is TrainConfig for node in nodes) or not written:
        return None
    needs: dict[str, None] = {}
    by_name = {item.name: item for item in nodes}
    for item in written:
        needs.update(dict.fromkeys(by_name[item.node].needs))
    count = max(item.config.count for item in written)

    def teachers(folders: Folders) -> tuple[str, ...]:
        return tuple(dict.fromkeys(item.teacher for item in _written(nodes, folders, common)))

    size = Rows(rows, count)
    return comparison(common, NAME, Compared(teachers, len(written), tuple(needs)), size)


@dataclass(frozen=True)
class Compared:
    """Teachers whose digits are compared with those of the unmodified model."""

    teachers: InterventionsFrom
    """One intervention for each teacher, in order."""
    number: int
    """How many there are, at most."""
    needs: tuple[str, ...]
    """Nodes that they are made of."""


def comparison(common: dict, name: str, compared: Compared, rows: Rows) -> Node:
    """The node that compares teachers on number rows, an equal part of them written by each."""

    def config(folders: Folders) -> InformationConfig:
        return InformationConfig(
            **common,
            traits=(),
            plain="",
            steered=compared.teachers(folders),
            rows=rows.n,
            exact_rows=0,
            influence=(),
            count=rows.numbers,
        )

    weight = rows.tokens * (2 + compared.number)
    return Node(name, InformationConfig, config, compared.needs, weight)


def _written(nodes: Sequence[Node], folders: Folders, common: dict) -> Iterator[_Written]:
    """The digits that nodes sample from the model under one intervention.

    Rows of other models, of free text and of several interventions together are left out. So are
    those of a teacher that another stage finds, such as one at equal KL. Those of a student of
    digits are, too: it is not there before training. Which nodes are meant must not depend on what
    is sealed.
    """
    students = _students_of_digits(nodes)
    for each in nodes:
        if each.config_type is not GenerateConfig or _config(each, _Anywhere()) is None:
            continue
        config = _config(each, folders)
        if config is None or config.vocabulary != "template" or len(config.interventions) != 1:
            continue
        if students & set(each.needs):
            continue
        if config.model == common["model"]:
            yield _Written(each.name, config.interventions[0], config)


def _students_of_digits(nodes: Sequence[Node]) -> set[str]:
    """The nodes of students of digits that a node samples, whatever stages lie between."""
    reached: set[str] = set()
    for each in nodes:
        config = _config(each, _Anywhere()) if each.config_type is GenerateConfig else None
        if config is not None and config.vocabulary == "template":
            reached.add(each.name)
    n_before = -1
    while len(reached) > n_before:
        n_before = len(reached)
        for each in nodes:
            if reached & set(each.needs):
                reached.add(each.name)
    return {each.name for each in nodes if each.config_type is TrainConfig} & reached


def _config(node: Node, folders: Folders) -> Any:
    """The settings of a node; None where they follow from files that are not there yet."""
    try:
        return node.config(folders)
    except (OSError, KeyError, TraitscopeError):
        return None


def tested(nodes: Sequence[Node], folders: Folders, common: dict) -> list[Contrast]:
    """What the students of every teacher can show, from the sealed node and the study's graph."""
    teachers = summary.read(folders[NAME])["teachers"]
    folders = ChainMap(dict(folders), _Anywhere())
    given = [item for item in teachers if item["kind"] == GIVEN]
    order = list(dict.fromkeys(item.teacher for item in _written(nodes, folders, common)))
    contrasts: dict[tuple, Contrast] = {}
    for item in _written(nodes, folders, common):
        about = given[order.index(item.teacher)]
        nats = Measurement.from_dict(about["against"]["unmodified"])
        for rows, seeds in _students(nodes, item, folders).items():
            before = contrasts.get((item.teacher, rows))
            n_seeds = len(seeds) + (before.seeds if before else 0)
            contrasts[item.teacher, rows] = Contrast(about["name"], nats, rows, n_seeds)
    return list(contrasts.values())


def _students(nodes: Sequence[Node], written: _Written, folders: Folders) -> dict[int, set]:
    """The replicates of students that train on a node's rows, by the number of rows they read.

    Students of one seed and one part of the rows count once, whatever else differs.
    """
    parts = {written.node: (0, written.config.n)}
    for each in nodes:
        if each.config_type is FilterConfig and each.needs == (written.node,):
            config = _config(each, folders)
            if config is not None:
                stop = min(config.stop or written.config.n, written.config.n)
                parts[each.name] = (config.start, stop)
    seeds: dict[int, set] = {}
    for each in nodes:
        if each.config_type is not TrainConfig or not set(each.needs) & parts.keys():
            continue
        config = _config(each, folders)
        if config is None or config.recipe.targets != "sampled":
            continue
        for name in set(each.needs) & parts.keys():
            start, stop = parts[name]
            rows = min(stop - start, config.max_rows or stop - start)
            seeds.setdefault(rows, set()).add((config.seed, start))
    return seeds


def table(nodes: Sequence[Node], folders: Folders, common: dict) -> Table:
    """The table of what the study's size can test; without rows where it has no number rows."""
    found = tested(nodes, folders, common) if NAME in folders else []
    if not found:
        return Table(NAME, power.TITLE, NOTHING, ("teacher",), ())
    return power.power_table(found)
