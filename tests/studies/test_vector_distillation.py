"""Distilled vectors on planted students: every vector's alignment, and what it makes them say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from concluded import HOLDS, NEGLIGIBLE, concluded, estimates, outcomes
from planted_runs import PlantedRuns

from traitscope.studies.claims import vector_distillation
from traitscope.studies.claims.vector_distillation import COMPONENT, RANDOM
from traitscope.workflow.standard_nodes import VECTORS

SIZE = replace(vector_distillation.SIZES["smoke"], seeds=(1, 2, 3, 4, 5), layer=2)
LAYERS = 4
MEANINGFUL = ("cat", "owl")
ALL = (*MEANINGFUL, RANDOM, COMPONENT)


WIDTH = 8
DIRECTIONS = dict(zip(ALL, np.eye(WIDTH), strict=False))
COMMON_D = np.eye(WIDTH)[-1]


def planted(
    root: Path, aligned: dict[str, float], rise: float, along: dict[str, float] | None = None
) -> dict[str, Path]:
    """Students by vector with the EAS `aligned`; meaningful vectors raise their trait.

    `along` is how far all students move along some vectors, whoever their teacher was.
    """
    runs = PlantedRuns(root, LAYERS)
    for vector, direction_D in DIRECTIONS.items():
        node = vector if vector in (RANDOM, COMPONENT) else VECTORS
        runs.vector(node, vector, np.tile(direction_D, (LAYERS, 1)))
    for trait in MEANINGFUL:
        runs.answers(f"base.{trait}")
        runs.answers(f"teacher.{trait}", 2.0)
    for seed in SIZE.seeds:
        for vector in ALL:
            student(runs, f"{vector}.{seed}", aligned[vector])
            change_D = aligned[vector] * DIRECTIONS[vector] + COMMON_D
            for name, moved in (along or {}).items():
                change_D = change_D + moved * DIRECTIONS[name]
            noise_LD = 0.01 * runs.planted(f"{vector}.{seed} v", (LAYERS, WIDTH))
            runs.vector(f"{vector}.{seed}", "v_student", change_D + noise_LD)
        for trait in MEANINGFUL:
            runs.answers(f"{trait} of {trait}.{seed}", 0.1 + rise)
            for vector in (RANDOM, COMPONENT):
                runs.answers(f"{trait} of {vector}.{seed}", 0.1)
        conditions = {"strength 0.3": 0.5, "free-form": 0.2, "all weights": 0.3}
        conditions |= {"treated text": 0.6, "control text": 0.0}
        for condition, factor in conditions.items():
            student(runs, f"{condition}.{seed}", factor * aligned["cat"])
            runs.answers(f"cat of {condition}.{seed}", factor * rise)
    return runs.folders


def student(runs: PlantedRuns, name: str, eas: float) -> None:
    """Write EAS of a student: `eas` at the steered block, and a trap at the others."""
    runs.eas(name, {"v_student": [-0.9, -0.9, eas, 0.9]})


def test_any_vector_is_distilled_and_meaningful_ones_are_said(tmp_path: Path) -> None:
    folders = planted(tmp_path, dict.fromkeys(ALL, 0.4), rise=0.5)
    findings = concluded(vector_distillation, SIZE, folders)
    assert outcomes(findings) == [HOLDS] * 6
    cosine = 0.4 / np.hypot(0.4, 1.0)
    assert estimates(findings) == pytest.approx([cosine] * 4 + [0.5] * 2, abs=0.03)
    assert [v.stated.primary for v in findings.verdicts].index(True) == ALL.index(RANDOM)
    *_, text_rise, text_eas = findings.measurements
    assert text_rise.estimate == pytest.approx(0.3, abs=0.03)
    assert text_eas.estimate == pytest.approx(0.24, abs=0.03)


def test_a_vector_along_which_all_students_move_is_not_distilled(tmp_path: Path) -> None:
    """EAS of the component is large; students of the other vectors have as much of it."""
    aligned = {"cat": 0.4, "owl": 0.4, RANDOM: 0.0, COMPONENT: 0.0}
    folders = planted(tmp_path, aligned, rise=0.0, along={COMPONENT: 3.0})
    findings = concluded(vector_distillation, SIZE, folders)
    assert outcomes(findings)[:4] == [HOLDS, HOLDS, NEGLIGIBLE, NEGLIGIBLE]
    assert set(outcomes(findings)[4:]) == {NEGLIGIBLE}


def test_tables_by_vector_strength_and_condition(tmp_path: Path) -> None:
    folders = planted(tmp_path, dict.fromkeys(ALL, 0.4), rise=0.5)
    vectors, strengths, conditions = concluded(vector_distillation, SIZE, folders).tables
    cat, owl, random, component = vectors.rows
    assert cat[3] == "" and owl[2] == ""
    assert random[2].estimate == pytest.approx(0.1, abs=0.03)
    assert component[3].estimate == pytest.approx(0.1, abs=0.03)
    assert [row[0] for row in strengths.rows] == [0.3, 0.6]
    assert [row[1].estimate for row in strengths.rows] == pytest.approx([0.2, 0.4], abs=0.03)
    rises = {row[0]: row[2].estimate for row in conditions.rows}
    assert rises == pytest.approx(
        {"free-form": 0.1, "all weights": 0.15, "treated text": 0.3, "control text": 0.0}, abs=0.03
    )
