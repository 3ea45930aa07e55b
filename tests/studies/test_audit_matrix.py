"""The audit matrix on planted gradients: the steered teacher's own vector wins if it is there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from concluded import HOLDS
from planted_runs import PlantedRuns

from traitscope.studies.claims import audit_matrix
from traitscope.studies.claims.audit_matrix import CONTROL, data_set, data_sets, gradients_of
from traitscope.workflow.standard_nodes import VECTORS

TRAITS = ("cat", "owl", "dog", "fox", "wolf", "otter")
SIZE = replace(audit_matrix.SIZES["smoke"], traits=TRAITS, rows=8, layer=1)
LAYERS, WIDTH = 3, 8
TRAIT_VECTORS = np.eye(WIDTH)[: len(SIZE.traits)]
"the unit vector of every trait, the same at every layer"


def planted(root: Path, steered_by_own: float) -> dict[str, Path]:
    """Gradients of every data set: noise, one common direction, and some of the own vector."""
    runs = PlantedRuns(root)
    for trait, vector_D in zip(SIZE.traits, TRAIT_VECTORS, strict=True):
        runs.vector(VECTORS, trait, np.tile(vector_D, (LAYERS, 1)))
    common_D = np.full(WIDTH, 0.3)
    for name in data_sets(SIZE):
        direction_D = common_D + 0.02 * runs.planted(name, (WIDTH,))
        for trait, vector_D in zip(SIZE.traits, TRAIT_VECTORS, strict=True):
            if name == data_set("steered", trait):
                direction_D = direction_D + steered_by_own * vector_D
        node = gradients_of(name)
        runs.vector(node, "push", np.tile(direction_D, (LAYERS, 1)))
        runs.json_lines(node, "rows.jsonl", row_projections(runs, name, direction_D))
    return runs.folders


def row_projections(runs: PlantedRuns, name: str, direction_D: np.ndarray) -> list[dict]:
    rows = []
    for noise_D in 0.3 * runs.planted(f"rows of {name}", (SIZE.rows, WIDTH)):
        along = TRAIT_VECTORS @ (direction_D + noise_D)
        by_trait = zip(SIZE.traits, along, strict=True)
        rows.append({"along": {trait: [float(value)] * LAYERS for trait, value in by_trait}})
    return rows


def test_an_own_direction_is_reported_for_steered_teachers_alone(tmp_path: Path) -> None:
    findings = audit_matrix.conclude(SIZE, planted(tmp_path, 1.0), "planted")
    nearer, winner, prompted_nearer, prompted_winner = findings.verdicts
    assert (nearer.outcome, winner.outcome) == (HOLDS, HOLDS)
    assert winner.decided_by.estimate == 1
    assert nearer.decided_by.estimate == pytest.approx(1.0, abs=0.05)
    assert HOLDS not in (prompted_nearer.outcome, prompted_winner.outcome)


def test_without_an_own_direction_nothing_is_reported(tmp_path: Path) -> None:
    findings = audit_matrix.conclude(SIZE, planted(tmp_path, 0.0), "planted")
    assert HOLDS not in {verdict.outcome for verdict in findings.verdicts}
    assert abs(findings.measurements[0].estimate) < 0.05


def test_the_reference_takes_the_common_direction_away(tmp_path: Path) -> None:
    """A weak own direction beside the common one is almost the whole of what is left."""
    findings = audit_matrix.conclude(SIZE, planted(tmp_path, 1.0), "planted")
    expected = (1.3 - 0.3) / np.hypot(1.3, 0.3 * np.sqrt(WIDTH - 1))
    assert findings.measurements[0].estimate == pytest.approx(expected, abs=0.03)
    assert findings.verdicts[0].decided_by.estimate == pytest.approx(1.0, abs=0.05)
    table = findings.tables[1]
    alone, with_reference = table.rows[3][2:]
    assert table.rows[3][:2] == ("steered", SIZE.rows)
    assert (alone, with_reference) == (1.0, 1.0)
    assert CONTROL in {row[0] for row in findings.tables[0].rows}
