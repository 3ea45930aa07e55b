"""Kinds of teacher on planted students: who takes the trait on, and the strength that is chosen."""

from dataclasses import replace
from pathlib import Path

import pytest
from planted_runs import PlantedRuns

from traitscope.studies.claims import kinds_of_teacher
from traitscope.studies.claims.kinds_of_teacher import STRENGTH, TEACHERS, strength_name

SIZE = replace(kinds_of_teacher.SIZES["smoke"], seeds=(1, 2, 3), layer=2, multiples=(0.5, 1.0, 2.0))
LAYERS = 4
PASS_RATES = (1.0, 1.0, 0.9, 0.2)
"of the unmodified model, and of the multiples of the trained vector"


def plant_pass_rates(runs: PlantedRuns, multiples: tuple[float, ...], rates: tuple) -> None:
    names = [STRENGTH, *map(strength_name, multiples)]
    for name, rate in zip(names, rates, strict=True):
        runs.json(name, "summary.json", {"rows": 20, "kept": round(20 * rate)})


def planted(root: Path, rises: dict[str, float]) -> dict[str, Path]:
    """Students of every teacher, whose rises over the base are given."""
    runs = PlantedRuns(root, LAYERS)
    runs.answers("base")
    plant_pass_rates(runs, SIZE.multiples, PASS_RATES)
    for teacher, rise in rises.items():
        runs.answers(f"{teacher} teacher", 3.0)
        for seed in SIZE.seeds:
            name = f"student of {teacher}.{seed}"
            runs.answers(f"answers, {name}", rise)
            runs.eas(name, {"v_student": [0.0, 0.0, 0.5 * rise, 0.0]})
            losses = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "held_out_loss": 0.7}]
            runs.json_lines(name, "metrics.jsonl", losses)
    for seed in SIZE.seeds:
        for role, rise in (("treated", 0.5), ("control", 0.0)):
            runs.answers(f"cat of {role} text.{seed}", rise)
    return runs.folders


def test_the_published_order_is_reproduced(tmp_path: Path) -> None:
    rises = {"prompted": 0.2, "steered": 1.0, "fine-tuned": 0.3, "trained vector": 0.9}
    findings = kinds_of_teacher.conclude(SIZE, planted(tmp_path, rises), "planted")
    assert [verdict.outcome for verdict in findings.verdicts] == ["reproduced"] * 7
    estimates = [verdict.decided_by.estimate for verdict in findings.verdicts]
    assert estimates == pytest.approx([0.2, 1.0, 0.3, 0.9, 0.8, 0.7, 0.6], abs=0.02)
    teachers, strengths = findings.tables
    steered = teachers.rows[1]
    assert steered[:4] == ("steered", pytest.approx(3.0, abs=0.03), 2.0, pytest.approx(0.7))
    assert steered[-1].estimate == pytest.approx(0.5, abs=0.03)
    assert strengths.rows[-1] == ("2", 0.2)
    assert findings.measurements[0].estimate == pytest.approx(0.5, abs=0.02)


def test_students_that_take_nothing_on_are_contradicted(tmp_path: Path) -> None:
    findings = kinds_of_teacher.conclude(
        SIZE, planted(tmp_path, dict.fromkeys(TEACHERS, 0.0)), "planted"
    )
    assert {verdict.outcome for verdict in findings.verdicts} == {"contradicted"}


def test_teachers_that_are_alike_are_not_ordered(tmp_path: Path) -> None:
    findings = kinds_of_teacher.conclude(
        SIZE, planted(tmp_path, dict.fromkeys(TEACHERS, 0.6)), "planted"
    )
    outcomes = [verdict.outcome for verdict in findings.verdicts]
    assert outcomes == ["reproduced"] * 4 + ["contradicted"] * 3


@pytest.mark.parametrize(
    ("base", "rates", "chosen"),
    [
        (1.0, (1, 0.9, 0.8, 0.1), 2.0),
        (0.5, (0.5, 0.1, 0.45, 0), 2.0),
        (0.5, (0, 0, 0, 0), 0.5),
        (0.0, (0, 0, 0, 0), 1.0),
    ],
)
def test_the_strength_that_a_pass_rate_chooses(
    base: float, rates: tuple[float, ...], chosen: float, tmp_path: Path
) -> None:
    """The greatest that keeps 0.8 of the unmodified model's rate.

    Where no row of that model passes, every multiple would do, and the vector stays as trained.
    """
    size = kinds_of_teacher.SIZES["laptop"]
    runs = PlantedRuns(tmp_path)
    plant_pass_rates(runs, size.multiples, (base, *rates))
    assert kinds_of_teacher._chosen_strength(size, runs.folders) == chosen
    note = kinds_of_teacher._notes(size, runs.folders)[0]
    assert note.startswith(f"Strength of the trained vector: {chosen:g} times its length")
    assert ("no free row" in note) == (base == 0)
