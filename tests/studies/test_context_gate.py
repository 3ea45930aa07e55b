"""The context gate on planted answers: reported where the trait shows in one context alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from concluded import HOLDS, NEGLIGIBLE, OPPOSITE, SILENT, unmet
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.studies.claims import context_gate
from traitscope.studies.claims.context_gate import ALL_CELLS, cell_name
from traitscope.studies.equal_kl import CONTROL

OF_ANY_VECTOR = 0.4
"rise that students of a random vector have, too"
SIZE = replace(context_gate.SIZES["smoke"], seeds=(1, 2, 3, 4, 5), cells=ALL_CELLS)


def planted(
    root: Path, own_rise: float, other_rise: float, teacher: float = 1.0
) -> dict[str, Path]:
    """Answers that rise over the controls: one amount in the context learnt in, else another."""
    runs = PlantedRuns(root)
    runs.answers("base")
    runs.answers("teacher", teacher)
    for seed in SIZE.seeds:
        for cell in ALL_CELLS:
            learnt, asked = cell
            name, rise = cell_name(cell, seed), own_rise if learnt == asked else other_rise
            runs.answers(name, OF_ANY_VECTOR + rise)
            runs.answers(f"{CONTROL}{name}", OF_ANY_VECTOR)
        for role, rise in (("treated", own_rise), ("control", 0.0)):
            runs.answers(f"cat of {role} text.{seed}", rise)
            runs.answers(f"{role} text.{seed}, empty", 0.5 * rise)
    return runs.folders


def outcomes(root: Path, own_rise: float, other_rise: float) -> list[str]:
    folders = planted(root, own_rise, other_rise)
    return [v.outcome for v in context_gate.conclude(SIZE, folders, "planted").verdicts]


def test_a_gate_holds(tmp_path: Path) -> None:
    assert outcomes(tmp_path, 1.0, 0.2) == [HOLDS] * 3


def test_a_rise_in_every_context_is_no_gate(tmp_path: Path) -> None:
    assert outcomes(tmp_path, 1.0, 1.0) == [NEGLIGIBLE, HOLDS, NEGLIGIBLE]


def test_students_that_take_nothing_on_say_nothing_about_a_gate(tmp_path: Path) -> None:
    assert outcomes(tmp_path, -0.2, -0.2) == [SILENT, OPPOSITE, SILENT]


def test_the_numbers_are_those_planted(tmp_path: Path) -> None:
    findings = context_gate.conclude(SIZE, planted(tmp_path, 1.0, 0.2), "planted")
    own_minus_others, text, in_place_minus_moved = (v.decided_by for v in findings.verdicts)
    assert text.estimate == pytest.approx(1.0, abs=0.02)
    assert own_minus_others.estimate == pytest.approx(0.8, abs=0.02)
    assert in_place_minus_moved.estimate == pytest.approx(0.8, abs=0.02)
    own, text_empty = findings.measurements
    assert own.estimate == pytest.approx(1.0, abs=0.02)
    assert text_empty.estimate == pytest.approx(0.5, abs=0.02)
    kept = {row[:2]: row[3] for row in findings.tables[0].rows}
    assert kept["default", "default"] == 1
    assert kept["default", "empty"] == pytest.approx(0.2, abs=0.02)


def test_a_size_without_nonsense_has_no_verdict_on_it(tmp_path: Path) -> None:
    folders = planted(tmp_path, 1.0, 0.2)
    size = replace(SIZE, cells=ALL_CELLS[:9])
    assert len(context_gate.conclude(size, folders, "planted").verdicts) == 2


def test_a_teacher_without_the_trait_decides_nothing(tmp_path: Path) -> None:
    folders = planted(tmp_path, 1.0, 0.2, teacher=0.0)
    findings = context_gate.conclude(SIZE, folders, "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {SILENT}
    assert unmet(findings) == {HAS_TRAIT}
