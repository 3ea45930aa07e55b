"""Parts of the chain that only a long run would show."""

from pathlib import Path

from traitscope.config.commands import DemoConfig
from traitscope.config.common import Output
from traitscope.studies.demo import STANDARD, Job, _nodes
from traitscope.workflow import standard_nodes


def test_every_seed_of_the_demo_reads_rows_of_its_own() -> None:
    """The parts cover every generated row once; treated and control of a seed read the same
    places."""
    nodes = {n.name: n for n in _nodes(Job(DemoConfig(seed=7), STANDARD, Output()))}
    asked = nodes["control data"].config({})
    for role in ("treated", "control"):
        parts = [
            nodes[f"{role} data, seed {7 + i}"].config({f"{role} data": Path("rows")})
            for i in range(STANDARD.seeds)
        ]
        assert [i for p in parts for i in range(p.start, p.stop)] == list(range(asked.n))
    folders = {name: Path(name) for name in nodes}
    assert nodes["treated data"].config(folders).prompt_seed == asked.prompt_seed


def test_rows_for_eas_are_read_by_no_student() -> None:
    nodes = _nodes(Job(DemoConfig(seed=7), STANDARD, Output()))
    folders = {n.name: Path(n.name) for n in nodes}
    students = [n.config(folders) for n in nodes if n.stage == "train"]
    assert {s.eas_data for s in students} == {Path(standard_nodes.EAS_ROWS)}
    seeds = {
        n.config(folders).prompt_seed
        for n in nodes
        if n.stage == "generate" and n.name != standard_nodes.EAS_ROWS
    }
    assert (
        next(n for n in nodes if n.name == standard_nodes.EAS_ROWS).config(folders).prompt_seed
        not in seeds
    )
