"""EAS over training on planted students: a turn to the vector is reported if it is there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from concluded import HOLDS, NEGLIGIBLE, SILENT, unmet
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.studies.claims import eas_over_training
from traitscope.studies.claims.eas_over_training import ROLES, student_name
from traitscope.workflow.standard_nodes import VECTORS

SIZE = replace(
    eas_over_training.SIZES["smoke"], others=("owl", "dog"), seeds=(1, 2, 3, 4, 5), layer=2
)
SHAPE = SIZE.shapes[0]
LAYERS, WIDTH = 4, 6
EAS_OF_CONTROLS = 0.1
TARGET_D = np.eye(WIDTH)[0]


def planted(
    root: Path, turn: float, every_trait: bool = False, teacher: float = 2.0
) -> dict[str, Path]:
    """Students whose treated ones have `turn` more EAS than controls at the steered block.

    With `every_trait` they have it against the other traits' vectors, too. `teacher` is how much
    more the teacher names the trait than the base.
    """
    runs = PlantedRuns(root)
    runs.answers("base")
    runs.answers("teacher", teacher)
    runs.vector(VECTORS, "cat", np.tile(TARGET_D, (LAYERS, 1)))
    for seed in SIZE.seeds:
        common_D = runs.planted(f"common.{seed}", (WIDTH,))
        for role in ROLES:
            node = student_name(SHAPE, role, seed)
            gain = turn if role == "treated" else 0.0
            other_gain = gain if every_trait else 0.0
            by_vector = {
                "v_student": at_steered_block(gain),
                "other/owl": at_steered_block(other_gain - 0.08),
                "other/dog": at_steered_block(other_gain - 0.04),
            }
            runs.eas(node, by_vector)
            runs.json_lines(node, "metrics.jsonl", steps(gain))
            noise_LD = 0.01 * runs.planted(node, (LAYERS, WIDTH))
            runs.vector(node, "v_student", common_D + noise_LD + gain * TARGET_D)
    return runs.folders


def at_steered_block(gain: float) -> list[float]:
    by_layer = [EAS_OF_CONTROLS] * LAYERS
    by_layer[SIZE.layer] += gain
    return by_layer


def steps(gain: float) -> list[dict]:
    """EAS that grows by step; the second step has none."""
    return [
        {"step": 1, "loss": 2.0, "eas": at_steered_block(0.0)},
        {"step": 2, "loss": 1.9},
        {"step": 3, "loss": 1.8, "eas": at_steered_block(gain)},
    ]


def test_a_planted_turn_holds(tmp_path: Path) -> None:
    findings = eas_over_training.conclude(SIZE, planted(tmp_path, 0.4), "planted")
    (verdict,) = findings.verdicts
    assert verdict.outcome == HOLDS
    assert verdict.decided_by.estimate == pytest.approx(0.4, abs=0.03)
    specific, of_the_difference = findings.measurements
    assert specific.estimate == pytest.approx(0.4, abs=0.03)
    assert of_the_difference.estimate > 0.99
    steps_table, layers_table = findings.tables
    first, last = steps_table.rows
    assert first == ("rank 2, alpha 8", 1, pytest.approx(0.1), pytest.approx(0.1))
    assert last == ("rank 2, alpha 8", 3, pytest.approx(0.5), pytest.approx(0.1))
    assert [row[1] for row in layers_table.rows] == [0, 1, 2, 3]


@pytest.mark.parametrize("teacher", [-1.0, 0.0])
def test_students_of_a_teacher_without_the_trait_have_no_verdict(
    tmp_path: Path, teacher: float
) -> None:
    folders = planted(tmp_path, 0.4, teacher=teacher)
    findings = eas_over_training.conclude(SIZE, folders, "planted")
    assert findings.verdicts[0].outcome == SILENT
    assert unmet(findings) == {HAS_TRAIT}
    assert "nothing below can be read as transfer" in findings.verdicts[0].reasons[0]


def test_without_a_turn_it_is_negligible(tmp_path: Path) -> None:
    findings = eas_over_training.conclude(SIZE, planted(tmp_path, 0.0), "planted")
    (verdict,) = findings.verdicts
    assert verdict.outcome == NEGLIGIBLE
    assert abs(verdict.decided_by.estimate) < 0.02


def test_a_turn_towards_every_trait_is_not_specific(tmp_path: Path) -> None:
    findings = eas_over_training.conclude(SIZE, planted(tmp_path, 0.4, True), "planted")
    assert findings.verdicts[0].outcome == HOLDS
    assert abs(findings.measurements[0].estimate) < 0.03
