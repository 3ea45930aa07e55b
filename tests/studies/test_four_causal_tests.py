"""The four causal tests on planted answers: each verdict follows the arms that it compares."""

from dataclasses import replace
from pathlib import Path

import pytest
from planted_runs import PlantedRuns

from traitscope.studies.claims import four_causal_tests
from traitscope.studies.claims.four_causal_tests import arms

SIZE = replace(four_causal_tests.SIZES["smoke"], seeds=(1, 2, 3))
CAUSAL = {
    "answers.prompted.own": 1.0,
    "added.prompted.own": 0.8,
    "replaced.prompted.own": 0.2,
    "replaced.prompted.other": 1.0,
    "replaced.prompted.random": 1.0,
    "added.steered.own": 0.7,
    "replaced.steered.own": 0.1,
    "replaced.steered.other": 1.0,
    "replaced.steered.random": 1.0,
    "answers.steered.own": 0.9,
    "answers.ablated.own": 0.1,
    "answers.ablated.other": 1.0,
    "answers.ablated.random": 1.0,
}
"rises over the base where the vector is sufficient and necessary; arms not named do not rise"


def planted(root: Path, rises: dict[str, float]) -> dict[str, Path]:
    runs = PlantedRuns(root)
    runs.answers("base")
    for arm in arms():
        rise = rises.get(arm, 0.0)
        for seed in SIZE.seeds:
            runs.answers(f"{arm}.{seed}", rise, share_rise=0.1 * rise)
    for seed in SIZE.seeds:
        runs.answers(f"cat of treated text.{seed}", 0.5)
        runs.answers(f"cat of control text.{seed}", 0.0)
    return runs.folders


def outcomes(root: Path, rises: dict[str, float]) -> dict[str, str]:
    """Outcomes by the name of the number that decided."""
    findings = four_causal_tests.conclude(SIZE, planted(root, rises), "planted")
    return {verdict.decided_by.name: verdict.outcome for verdict in findings.verdicts}


def test_a_sufficient_and_necessary_vector_is_reproduced(tmp_path: Path) -> None:
    findings = four_causal_tests.conclude(SIZE, planted(tmp_path, CAUSAL), "planted")
    assert len(findings.verdicts) == 12
    assert {verdict.outcome for verdict in findings.verdicts} == {"reproduced"}
    by_name = {v.decided_by.name: v.decided_by.estimate for v in findings.verdicts}
    name = "v_student of a prompted teacher's student replaced, other minus own"
    assert by_name[name] == pytest.approx(0.8, abs=0.02)
    assert by_name["steered teacher, own minus other"] == pytest.approx(0.9, abs=0.02)
    assert by_name["projected out, random minus own"] == pytest.approx(0.9, abs=0.02)
    rows = {row[0]: row[1:] for row in findings.tables[0].rows}
    rise, share_rise = rows["steered.own"]
    assert rise.estimate == pytest.approx(0.9, abs=0.02)
    assert share_rise.estimate == pytest.approx(0.09, abs=0.005)
    assert len(findings.notes) == 2


def test_a_vector_that_does_less_than_its_controls_is_contradicted(tmp_path: Path) -> None:
    """Added it raises the trait by a little less, and removed it lowers the trait by less."""
    rises = dict.fromkeys(arms(), 0.6)
    for arm in arms():
        if arm.endswith(".own"):
            removed = arm.startswith(("replaced", "answers.ablated"))
            rises[arm] = 0.63 if removed else 0.57
    assert set(outcomes(tmp_path, rises).values()) == {"contradicted"}


def test_a_vector_can_be_sufficient_and_not_necessary(tmp_path: Path) -> None:
    rises = CAUSAL | {"replaced.prompted.own": 1.0, "replaced.steered.own": 1.0}
    by_name = outcomes(tmp_path, rises)
    for name, outcome in by_name.items():
        assert outcome == ("contradicted" if "replaced" in name else "reproduced"), name


def test_students_that_took_nothing_on_are_named(tmp_path: Path) -> None:
    findings = four_causal_tests.conclude(SIZE, planted(tmp_path, {}), "planted")
    named = [note for note in findings.notes if "did not take the trait on" in note]
    assert len(named) == 2
