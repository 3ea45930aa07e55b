"""Control teachers at equal KL: their nodes, and what their strength makes of them."""

from pathlib import Path

import pytest
import sealed_students as planted

from traitscope.config.stages import TrainConfig
from traitscope.studies.claims import (
    context_gate,
    four_causal_tests,
    intervention_type,
    rank_and_rate,
    transfer_ratio,
    vector_distillation,
    where_adapter_acts,
)
from traitscope.studies.equal_kl import RANDOM_VECTORS, RandomControls
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Node

COMMON = {"model": "x", "device": "cpu", "dtype": "fp32"}
STUDIES = (
    context_gate,
    four_causal_tests,
    intervention_type,
    rank_and_rate,
    transfer_ratio,
    vector_distillation,
    where_adapter_acts,
)


def test_every_seed_has_a_vector_of_its_own_at_the_strength_that_was_found(tmp_path: Path) -> None:
    teacher = standard_nodes.steered_by("cat", 14, 0.6)
    controls = RandomControls("cat", (3, 5), 14, teacher, 10)
    nodes = {node.name: node for node in controls.nodes(COMMON)}
    folders = {name: Path(name) for name in (standard_nodes.VECTORS, RANDOM_VECTORS)}
    vectors = nodes[RANDOM_VECTORS].config(folders)
    assert (vectors.randoms, vectors.seed) == (2, 3)
    for place, seed in enumerate(controls.seeds):
        control = controls.of(seed)
        search = nodes[control.name].config(folders)
        assert search.vector == Path(RANDOM_VECTORS) / f"random-{place}.safetensors"
        assert search.teacher == teacher(folders) and search.layer == 14
        folders[control.name] = planted.sealed_strength(tmp_path, control.name, 0.7 + place).path
        (steered,) = control.teacher(folders)
        assert f"random-{place}" in steered and f"{0.7 + place:g}" in steered
        assert set(controls.needs(seed)) == folders.keys() - {controls.of(8 - seed).name}
        assert control.strength(folders).teacher_kl.estimate == 12


def configs(graph: list[Node], root: Path) -> list[TrainConfig]:
    """Configs of all students of a study, with folders in which every search found 0.8."""
    strength = planted.sealed_strength(root, "any", 0.8).path
    folders = {node.name: strength for node in graph}
    found = []
    for node in graph:
        if node.config_type is TrainConfig:
            found.append(node.config(folders))
    return found


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.__name__.split(".")[-1])
def test_studies_that_let_soft_targets_stand_in_for_text_restrict_them(
    study: object, tmp_path: Path
) -> None:
    """In every size; some students are controls at the strength that was found."""
    for size in study.SIZES.values():
        graph = study.nodes(size, COMMON)
        names = {node.name for node in graph}
        for node in graph:
            assert set(node.needs) <= names, node.name
        soft = []
        for config in configs(graph, tmp_path):
            if config.recipe.targets == "soft":
                soft.append(config)
        assert {config.recipe.soft_over for config in soft} <= {"allowed"}
        if soft:
            assert any("alpha=0.8" in " ".join(config.teacher) for config in soft)
