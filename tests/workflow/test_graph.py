"""A study as a graph: planned without a trace, run in order, continued where it stopped."""

import json
from pathlib import Path

import pytest
from command import CAT, OWL, ok, write_yaml

from traitscope.config.analysis import ExtractConfig
from traitscope.config.common import Output
from traitscope.config.stages import FilterConfig, GenerateConfig
from traitscope.errors import ConfigError, StoreError
from traitscope.interventions.vector import load_vector
from traitscope.stages import registry
from traitscope.workflow import graph, schedule
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Node


def three(model: Path, count: int = 3) -> list[Node]:
    """filtered <- rows, and vectors on their own, given in the wrong order."""
    asked = GenerateConfig(model=str(model), n=4, count=count, vocabulary="template")
    return [
        Node(
            "filtered", FilterConfig, lambda folders: FilterConfig(data=folders["rows"]), ("rows",)
        ),
        Node("rows", GenerateConfig, lambda _: asked),
    ]


def test_plan_run_and_plan_again(tmp_path: Path, tiny_folder: Path) -> None:
    out = Output(root=tmp_path / "runs")
    before = {p.node.name: p for p in graph.plan(three(tiny_folder), out)}
    assert (before["rows"].state, before["filtered"].state) == ("missing", "waiting")
    assert before["filtered"].path is None and not (tmp_path / "runs").exists()
    folders = schedule.run(three(tiny_folder), out, How())
    assert folders["rows"] == before["rows"].path
    after = graph.plan(three(tiny_folder), out)
    assert {p.state for p in after} == {"sealed"}
    assert {p.node.name: p.path for p in after} == folders
    other = {p.node.name: p for p in graph.plan(three(tiny_folder, count=2), out)}
    assert other["rows"].state == "missing" and other["rows"].path != folders["rows"]


def test_an_address_is_that_of_the_run(tmp_path: Path, tiny_folder: Path) -> None:
    config = GenerateConfig(model=str(tiny_folder), n=1, count=1, vocabulary="template")
    out = Output(root=tmp_path / "runs")
    path = registry.address(config, out)
    assert not (tmp_path / "runs").exists()
    assert registry.run_stage(config, out).path == path == registry.address(config, out)


@pytest.mark.parametrize(
    ("needs", "says"),
    [({"a": ("b",), "b": ("a",)}, "never come"), ({"a": ("z",)}, r"need \['z'\]")],
)
def test_circles_and_unknown_needs(needs: dict[str, tuple[str, ...]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        graph.ordered(
            [
                Node(name, FilterConfig, lambda _: FilterConfig(), need)
                for name, need in needs.items()
            ]
        )


def test_a_name_twice() -> None:
    with pytest.raises(ConfigError, match="twice"):
        graph.ordered([Node("a", ExtractConfig, lambda _: ExtractConfig())] * 2)


def test_common_and_raw_vectors_lie_beside_the_centred_ones(
    tmp_path: Path, tiny_folder: Path
) -> None:
    import numpy as np

    owl, cat = (write_yaml(tmp_path / f"{trait['name']}.yaml", trait) for trait in (OWL, CAT))
    folder = ok(tmp_path / "runs", "extract", "--model", tiny_folder, "--traits", owl, cat).run
    own, raw, common = (
        load_vector(folder / f"{n}.safetensors").rows_LD for n in ("owl", "raw/owl", "common/mean")
    )
    np.testing.assert_allclose(own + common, raw, atol=1e-5)
    alone = ok(tmp_path / "runs", "extract", "--model", tiny_folder, "--traits", owl).run
    np.testing.assert_allclose(load_vector(alone / "owl.safetensors").rows_LD, raw, atol=1e-5)


def read_of(folders: graph.Folders) -> FilterConfig:
    """Settings that are read from a file of another node's run."""
    about = json.loads((folders["filtered"] / "summary.json").read_text())
    return FilterConfig(data=folders["filtered"], limit=about["rows"])


@pytest.mark.parametrize("content", ["{", '{"rows": 3}'], ids=["no-json", "other-number"])
def test_a_damaged_run_is_named_before_it_is_read(
    content: str, tmp_path: Path, tiny_folder: Path
) -> None:
    """Also by a plan, where the settings of a further node cannot be read from it."""
    out = Output(root=tmp_path / "runs")
    nodes = [*three(tiny_folder), Node("again", FilterConfig, read_of, ("filtered",))]
    summary = schedule.run(nodes, out, How())["filtered"] / "summary.json"
    summary.write_text(content)
    with pytest.raises(StoreError, match=r"summary.json changed after it was sealed; restore it"):
        schedule.run(nodes, out, How())
    if content == "{":
        with pytest.raises(StoreError, match=r"summary.json changed after it was sealed"):
            graph.plan(nodes, out, strict=False)


def test_what_no_damage_causes_stays_as_it_is(tmp_path: Path, tiny_folder: Path) -> None:
    out = Output(root=tmp_path / "runs")
    schedule.run(three(tiny_folder), out, How())
    broken = Node("broken", FilterConfig, lambda folders: folders["nobody"], ("filtered",))
    with pytest.raises(KeyError, match="nobody"):
        graph.plan([*three(tiny_folder), broken], out)
