"""The type of intervention on planted students: a step at the block, and what a vector carries."""

from dataclasses import replace
from pathlib import Path

import pytest
from concluded import HOLDS, NEGLIGIBLE, SILENT, unmet
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import has_trait_name
from traitscope.studies.claims import intervention_type
from traitscope.studies.claims.intervention_type import Kind, kinds

SIZE = replace(intervention_type.SIZES["smoke"], seeds=(1, 2, 3, 4, 5), layer=2)
LAYERS = 4
BEST_VECTOR_RATE, OTHER_VECTOR_RATE = SIZE.rates["vector"]


def planted(
    root: Path,
    step: float,
    rises: dict[tuple[str, str], float],
    steered_distance: float = 2.0,
    teachers: dict[str, float] | None = None,
) -> dict[str, Path]:
    """Students of both teachers.

    Those of the steered one have `step` more EAS from the steered block on. `rises` are by teacher
    and method. Vectors of the rate that leaves more held-out loss do not rise. The steered teacher
    is `steered_distance` away from the base, the prompted one 2.
    """
    runs = PlantedRuns(root, LAYERS)
    runs.answers("base")
    runs.distances([steered_distance, 2.0])
    for teacher, rise in (teachers or {"steered": 1.0, "prompted": 1.0}).items():
        runs.answers(f"{teacher} teacher of cat", rise)
    for seed in SIZE.seeds:
        for kind in kinds(SIZE):
            rise = rises.get((kind.teacher, kind.method), 0.0)
            plant_student(runs, kind, seed, step, rise)
        for role, rise in (("treated", 0.5), ("control", 0.0)):
            runs.answers(f"cat of {role} text.{seed}", rise)
            runs.eas(f"{role} text.{seed}", {"v_student": [0.1 + rise] * LAYERS})
    return runs.folders


def plant_student(runs: PlantedRuns, kind: Kind, seed: int, step: float, rise: float) -> None:
    name = f"{kind.name}.{seed}"
    best = kind.rate != OTHER_VECTOR_RATE
    runs.answers(f"answers.{name}", rise if best else 0.0)
    plant_losses(runs, kind, seed)
    height = step if kind.teacher == "steered" else 0.0
    runs.eas(name, {"v_student": [0.1, 0.1, 0.1 + height, 0.1 + height]})


def plant_losses(runs: PlantedRuns, kind: Kind, seed: int) -> None:
    losses = [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.0}]
    left = 0.9 if kind.rate == OTHER_VECTOR_RATE else 0.5
    losses.append({"step": 3, "held_out_loss": left})
    runs.json_lines(f"{kind.name}.{seed}", "metrics.jsonl", losses)


STEERED_ONLY = {
    ("steered", "lora"): 1.0,
    ("steered", "vector"): 0.8,
    ("prompted", "lora"): 0.6,
    ("prompted", "vector"): 0.1,
}
ALIKE = dict.fromkeys(STEERED_ONLY, 0.0)


def test_a_step_and_a_vector_of_steered_data_hold(tmp_path: Path) -> None:
    findings = intervention_type.conclude(SIZE, planted(tmp_path, 0.5, STEERED_ONLY), "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {HOLDS}
    estimates = [verdict.decided_by.estimate for verdict in findings.verdicts]
    assert estimates == pytest.approx([0.5, 0.5, 0.5, 0.8, 0.5, 0.7], abs=0.03)
    prompted_step, *_, text_eas, text_rise = findings.measurements
    assert abs(prompted_step.estimate) < 0.03
    assert text_eas.estimate == pytest.approx(0.5, abs=0.03)
    assert text_rise.estimate == pytest.approx(0.5, abs=0.03)
    assert len(findings.tables[0].rows) == len(kinds(SIZE))


def test_teachers_that_are_alike_are_not_told_apart(tmp_path: Path) -> None:
    findings = intervention_type.conclude(SIZE, planted(tmp_path, 0.0, ALIKE), "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {NEGLIGIBLE}


def test_teachers_at_another_distance_are_not_compared_by_it(tmp_path: Path) -> None:
    """A steered teacher twenty times as far from the base: level and vector show only that."""
    folders = planted(tmp_path, 0.5, STEERED_ONLY, steered_distance=40.0)
    findings = intervention_type.conclude(SIZE, folders, "planted")
    outcomes = [verdict.outcome for verdict in findings.verdicts]
    assert outcomes == [HOLDS, HOLDS, SILENT, HOLDS, HOLDS, SILENT]
    assert "40.000 and 2.000" in findings.verdicts[2].reasons[0]


def test_the_learning_rate_with_the_least_held_out_loss_counts(tmp_path: Path) -> None:
    folders = planted(tmp_path, 0.5, STEERED_ONLY)
    best = intervention_type._best(SIZE, folders, "prompted", "vector")
    assert best == Kind("prompted", "vector", BEST_VECTOR_RATE)
    notes = intervention_type.conclude(SIZE, folders, "planted").notes
    assert "prompted.vector at 0.1" in notes[0]
    assert "vector at 1" not in notes[0]


def test_a_teacher_without_the_trait_silences_every_comparison_with_it(tmp_path: Path) -> None:
    teachers = {"steered": 1.0, "prompted": 0.0}
    folders = planted(tmp_path, 0.2, STEERED_ONLY, teachers=teachers)
    findings = intervention_type.conclude(SIZE, folders, "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {SILENT}
    assert unmet(findings) == {has_trait_name("prompted")}
