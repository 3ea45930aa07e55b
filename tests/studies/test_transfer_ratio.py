"""Transfer of a behaviour on planted verdicts: ratio, controls, threshold, agreement of judges."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from concluded import HOLDS, OPPOSITE, SILENT, concluded, outcomes, unmet
from planted_runs import PlantedRuns

from traitscope.stats.intervals import wilson
from traitscope.studies.behaviours import DIRECTION, ORTHOGONAL, RANDOM, UNMODIFIED
from traitscope.studies.claims import transfer_ratio

ALPHAS = (0.0, 0.15, 0.3, 0.45, 0.6)
SIZE = replace(transfer_ratio.SIZES["smoke"], alphas=ALPHAS, seeds=(1, 2, 3, 4, 5))
PROMPTS = 120
BASE_RATE, SEED_EFFECT = 0.1, 0.0125
ABOVE_A_THRESHOLD = {0.15: 0.1, 0.3: 0.1, 0.45: 0.4, 0.6: 0.7}
"rates of students by strength"
TEACHER_MOVED = "the teacher shows the behaviour more than the base, beyond noise"
KAPPA = {"estimate": 0.75, "low": 0.5, "high": None, "n": PROMPTS}


def planted(root: Path, students: dict[float, float], controls: float) -> dict[str, Path]:
    """Verdicts on the base, on teachers whose rate is 0.1 + alpha, and on their students."""
    runs = PlantedRuns(root)
    verdicts(runs, "base", BASE_RATE)
    rates = {(DIRECTION, alpha): rate for alpha, rate in students.items()}
    rates |= {(kind, 0.6): controls for kind in (RANDOM, ORTHOGONAL)}
    for (kind, alpha), rate in rates.items():
        verdicts(runs, f"teacher {kind} {alpha:g}", BASE_RATE + alpha)
        for seed in SIZE.seeds:
            gained = SEED_EFFECT * (seed - 3) if kind == DIRECTION else 0.0
            verdicts(runs, f"student {kind} {alpha:g}.{seed}", rate + gained)
    for seed in SIZE.seeds:
        verdicts(runs, UNMODIFIED.student(seed), BASE_RATE)
        verdicts(runs, f"treated text.{seed}", 0.4 + SEED_EFFECT * (seed - 3))
        verdicts(runs, f"control text.{seed}", BASE_RATE)
    return runs.folders


def verdicts(runs: PlantedRuns, name: str, rate: float) -> None:
    """Write verdicts of the first judge at a rate, in an order that the name decides."""
    node = f"judged {name}"
    order = np.argsort(runs.planted(node, (PROMPTS,)))
    n_shown = round(rate * PROMPTS)
    rows = [{SIZE.judge: bool(place < n_shown)} for place in np.argsort(order)]
    runs.json_lines(node, "verdicts.jsonl", rows)
    low, high = wilson(n_shown, PROMPTS)
    common = {"n_clusters": PROMPTS, "n_unscored": 0, "level": 0.95, "interval": "planted"}
    rate_of = {"name": SIZE.judge, "unit": "rate", "estimate": rate, "low": low, "high": high}
    kappa = {"name": "agreement", "unit": "kappa", **KAPPA}
    measurements = [{**rate_of, "n": PROMPTS, **common}, {**kappa, **common}]
    runs.json(node, "summary.json", {"measurements": measurements})


def test_transfer_above_a_threshold_holds(tmp_path: Path) -> None:
    folders = planted(tmp_path, ABOVE_A_THRESHOLD, controls=BASE_RATE)
    findings = concluded(transfer_ratio, SIZE, folders)
    assert outcomes(findings) == [HOLDS] * 4
    by_claim = [verdict.decided_by.estimate for verdict in findings.verdicts]
    assert by_claim[:3] == pytest.approx([0.6, 0.6, 1.0], abs=0.02)
    text, against_control = findings.measurements[-2:]
    assert text.estimate == pytest.approx(0.3, abs=0.01)
    assert against_control.estimate == pytest.approx(0.5, abs=0.02)


def test_students_that_do_less_than_those_of_any_direction(tmp_path: Path) -> None:
    rates = {0.15: 0.2, 0.3: 0.3, 0.45: 0.4, 0.6: 0.5}
    findings = concluded(transfer_ratio, SIZE, planted(tmp_path, rates, controls=0.6))
    random, orthogonal, ratio, _ = outcomes(findings)
    assert (random, orthogonal, ratio) == (OPPOSITE, OPPOSITE, SILENT)
    assert unmet(findings) == {"students show the behaviour more than those of a random direction"}


def test_a_teacher_that_does_not_change_silences_ratio_and_threshold(tmp_path: Path) -> None:
    folders = planted(tmp_path, ABOVE_A_THRESHOLD, controls=BASE_RATE)
    runs = PlantedRuns(tmp_path / "still")
    verdicts(runs, f"teacher {DIRECTION} 0.6", BASE_RATE)
    findings = concluded(transfer_ratio, SIZE, folders | runs.folders)
    assert outcomes(findings) == [SILENT] * 4
    assert unmet(findings) == {TEACHER_MOVED}


def test_a_teacher_that_moved_the_other_way_silences_every_claim(tmp_path: Path) -> None:
    """Its ratio is defined, but nothing of a behaviour that it lost can reach a student."""
    folders = planted(tmp_path, ABOVE_A_THRESHOLD, controls=BASE_RATE)
    runs = PlantedRuns(tmp_path / "lost")
    verdicts(runs, "base", 0.9)
    findings = concluded(transfer_ratio, SIZE, folders | runs.folders)
    assert outcomes(findings) == [SILENT] * 4
    (need,) = {
        need for verdict in findings.verdicts for need in verdict.stated.needs if not need.met
    }
    assert need.name == TEACHER_MOVED
    (teacher,) = findings.teachers
    assert teacher.high < 0
    assert need.found == f"{teacher.estimate:+.3f} [{teacher.low:.3f}, {teacher.high:.3f}] rate"


def test_the_vector_is_named_by_the_prompts_that_it_is_taken_over() -> None:
    design = transfer_ratio.design(transfer_ratio.SIZES["laptop"])
    assert design.here.vector == "brevity direction at one block"
    own = replace(transfer_ratio.SIZES["laptop"], shown=Path("harmful.txt"))
    assert transfer_ratio.design(own).here.vector == "the behaviour's direction at one block"


def test_students_that_show_nothing_pass_nothing_on(tmp_path: Path) -> None:
    folders = planted(tmp_path, dict.fromkeys(ABOVE_A_THRESHOLD, BASE_RATE), controls=BASE_RATE)
    assert HOLDS not in outcomes(concluded(transfer_ratio, SIZE, folders))


def test_tables_and_the_agreement_of_the_judges(tmp_path: Path) -> None:
    folders = planted(tmp_path, ABOVE_A_THRESHOLD, controls=BASE_RATE)
    findings = concluded(transfer_ratio, SIZE, folders)
    strengths, controls, shapes = findings.tables
    assert [row[0] for row in strengths.rows] == list(ALPHAS)
    assert [row[1].estimate for row in strengths.rows] == pytest.approx(
        [BASE_RATE + alpha for alpha in ALPHAS]
    )
    assert [row[2] for row in strengths.rows] == pytest.approx([0.1, 0.1, 0.1, 0.4, 0.7], abs=0.002)
    assert strengths.rows[0][3] == ""
    assert [row[0] for row in controls.rows] == [RANDOM, ORTHOGONAL]
    assert [row[0] for row in shapes.rows] == ["line", "hinge", "logistic"]
    assert "kappa 0.75 [0.50, undefined], n = 120" in findings.notes[2]
