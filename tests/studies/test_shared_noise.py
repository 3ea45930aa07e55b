"""Shared weight noise on planted students: against clean models, other draws, and parents."""

from dataclasses import replace
from pathlib import Path

import pytest
from concluded import HOLDS, NEGLIGIBLE, SILENT, concluded, estimates, outcomes, unmet
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.studies.claims import shared_noise
from traitscope.studies.claims.shared_noise import OTHER, SAME, STUDENT, TEACHER

SIZE = replace(shared_noise.SIZES["smoke"], draws=(1, 2, 3, 4, 5), clean=(11, 12, 13, 14, 15))
PARENT_RISE = 0.25
"what the parents with noise say of the trait above the clean model"
NO_EFFECT = {"clean": 0.2, SAME: 0.2, TEACHER: 0.2, STUDENT: 0.2, OTHER: 0.2, "noise 0.2": 0.2}


def planted(root: Path, transfer: dict[str, float], teacher: float = 1.0) -> dict[str, Path]:
    """Students under every condition, whose treated minus control is `transfer`."""
    runs = PlantedRuns(root)
    runs.answers("parent, clean", perplexity=10.0)
    runs.answers("clean teacher of cat", teacher)
    for draw in SIZE.draws:
        runs.answers(f"sd 0.1 draw {draw} teacher of cat", PARENT_RISE + teacher)
        runs.answers(f"parent, sd 0.1 draw {draw}", PARENT_RISE, perplexity=12.0)
    runs.answers("parent, sd 0.2 draw 1", PARENT_RISE, perplexity=20.0)
    for condition, difference in transfer.items():
        seeds = SIZE.clean if condition == "clean" else SIZE.draws
        for seed in SIZE.further_draws if condition.startswith("noise ") else seeds:
            start = 0.0 if condition in ("clean", TEACHER) else PARENT_RISE
            runs.answers(f"answers, treated, {condition}.{seed}", start + 0.1 + difference)
            runs.answers(f"answers, control, {condition}.{seed}", start + 0.1)
    return runs.folders


def test_noise_that_helps_when_it_is_shared_holds(tmp_path: Path) -> None:
    findings = concluded(shared_noise, SIZE, planted(tmp_path, NO_EFFECT | {SAME: 0.8, OTHER: 0.1}))
    assert outcomes(findings) == [HOLDS] * 3
    assert estimates(findings) == pytest.approx([0.6, 0.7, 0.8], abs=0.03)


def test_noise_without_effect_is_not(tmp_path: Path) -> None:
    findings = concluded(shared_noise, SIZE, planted(tmp_path, NO_EFFECT))
    assert outcomes(findings) == [NEGLIGIBLE, NEGLIGIBLE, HOLDS]


def test_few_clean_students_silence_the_comparison_with_them(tmp_path: Path) -> None:
    folders = planted(tmp_path, NO_EFFECT | {SAME: 0.8})
    findings = concluded(shared_noise, replace(SIZE, clean=(11, 12, 13)), without(folders))
    assert outcomes(findings)[0] == SILENT
    assert findings.verdicts[0].reasons == ("It has 3 of the 5 draws that a verdict needs.",)
    assert "multiplies perplexity by 1.2" in findings.verdicts[0].claim


def without(folders: dict[str, Path]) -> dict[str, Path]:
    """The runs without those of the last two clean students."""
    endings = ("clean.14", "clean.15")
    return {name: path for name, path in folders.items() if not name.endswith(endings)}


def test_students_are_compared_with_the_model_that_they_started_as(tmp_path: Path) -> None:
    conditions, noise = concluded(shared_noise, SIZE, planted(tmp_path, NO_EFFECT)).tables
    for row in conditions.rows:
        assert row[1].estimate == pytest.approx(0.2, abs=0.03)
        assert row[2].estimate == pytest.approx(0.3, abs=0.03)
    assert [row[0] for row in noise.rows] == [0.0, 0.1, 0.2]
    assert [row[2].estimate for row in noise.rows] == [10.0, 12.0, 20.0]


def test_teachers_without_the_trait_decide_nothing(tmp_path: Path) -> None:
    """What the noise itself does to the trait is not the teacher's."""
    folders = planted(tmp_path, NO_EFFECT | {SAME: 0.8}, teacher=-0.1)
    findings = concluded(shared_noise, SIZE, folders)
    assert outcomes(findings) == [SILENT] * 3 and unmet(findings) == {HAS_TRAIT}
    assert [rise.name for rise in findings.teachers][:2] == [
        "clean teacher of cat minus base",
        "sd 0.1 draw 1 teacher of cat minus base",
    ]
