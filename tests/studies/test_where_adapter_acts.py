"""Parts of an adapter on planted students: which part keeps the rise, and what is lost without."""

from dataclasses import replace
from pathlib import Path

import pytest
from concluded import HOLDS, NEGLIGIBLE, OPPOSITE, SILENT, concluded, estimates, outcomes, unmet
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.studies.claims import where_adapter_acts

SIZE = replace(where_adapter_acts.SIZES["smoke"], seeds=(1, 2, 3, 4, 5))
OF_ANY_VECTOR = 0.4
"rise that students of a random vector have, too"
AT_THE_NAME = {
    "whole": 1.0,
    "only name": 0.8,
    "all but name": 0.1,
    "only system": 0.9,
    "all but system": 0.0,
    "top direction": 0.6,
}
ELSEWHERE = AT_THE_NAME | {
    "only name": 0.1,
    "all but name": 0.9,
    "only system": 0.0,
    "all but system": 0.8,
}


def planted(root: Path, rises: dict[str, float], teacher: float = 1.0) -> dict[str, Path]:
    """Students that rise by part of the adapter; sampled text repeats the parts of the system."""
    runs = PlantedRuns(root)
    runs.answers("base")
    runs.answers("teacher", teacher)
    for seed in SIZE.seeds:
        for part, rise in rises.items():
            runs.answers(f"{part}.{seed}", rise + OF_ANY_VECTOR)
            runs.answers(f"{where_adapter_acts.CONTROL}{part}.{seed}", OF_ANY_VECTOR)
        for role, factor in (("treated", 1.0), ("control", 0.0)):
            name = f"{role} text.{seed}"
            runs.answers(f"cat of {name}", factor * rises["whole"])
            for part in ("only system", "all but system"):
                runs.answers(f"{part}, {name}", factor * rises[part])
    return runs.folders


def test_a_trait_that_is_carried_at_the_name_holds(tmp_path: Path) -> None:
    findings = concluded(where_adapter_acts, SIZE, planted(tmp_path, AT_THE_NAME))
    assert outcomes(findings) == [HOLDS] * 5
    assert estimates(findings) == pytest.approx([0.3, 0.4, 0.4, 0.5, 1.0], abs=0.03)
    text = [measurement.estimate for measurement in findings.measurements]
    assert text == pytest.approx([1.0, 0.9, 0.0], abs=0.03)


def test_a_trait_that_is_carried_elsewhere_is_the_opposite(tmp_path: Path) -> None:
    findings = concluded(where_adapter_acts, SIZE, planted(tmp_path, ELSEWHERE))
    assert outcomes(findings) == [OPPOSITE] * 4 + [HOLDS]


def test_an_adapter_without_effect_says_nothing_about_places(tmp_path: Path) -> None:
    findings = concluded(where_adapter_acts, SIZE, planted(tmp_path, dict.fromkeys(ELSEWHERE, 0.0)))
    assert outcomes(findings) == [SILENT] * 4 + [NEGLIGIBLE]


def test_the_table_shows_what_each_part_keeps(tmp_path: Path) -> None:
    (table,) = concluded(where_adapter_acts, SIZE, planted(tmp_path, AT_THE_NAME)).tables
    kept = {row[0]: row[2] for row in table.rows}
    assert kept == pytest.approx(AT_THE_NAME, abs=0.03)


def test_a_teacher_without_the_trait_decides_nothing(tmp_path: Path) -> None:
    findings = concluded(where_adapter_acts, SIZE, planted(tmp_path, AT_THE_NAME, teacher=0.0))
    assert set(outcomes(findings)) == {SILENT} and unmet(findings) == {HAS_TRAIT}
