"""The four causal tests on planted answers: each verdict follows the arms that it compares."""

from dataclasses import replace
from pathlib import Path

import pytest
from concluded import HOLDS, NEGLIGIBLE, OPPOSITE, SILENT, unmet
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import has_trait_name
from traitscope.studies.claims import four_causal_tests
from traitscope.studies.claims.four_causal_tests import arms

SIZE = replace(four_causal_tests.SIZES["smoke"], seeds=(1, 2, 3, 4, 5))
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


def planted(root: Path, rises: dict[str, float], teacher: float = 1.0) -> dict[str, Path]:
    runs = PlantedRuns(root)
    runs.answers("base")
    for kind in ("steered", "prompted"):
        runs.answers(f"{kind} teacher of cat", teacher)
    for arm in (*arms(), "answers.prompted.other"):
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


def test_a_sufficient_and_necessary_vector_holds(tmp_path: Path) -> None:
    findings = four_causal_tests.conclude(SIZE, planted(tmp_path, CAUSAL), "planted")
    assert len(findings.verdicts) == 6
    assert {verdict.outcome for verdict in findings.verdicts} == {HOLDS}
    assert findings.verdicts[0].stated.primary
    by_name = {v.decided_by.name: v.decided_by.estimate for v in findings.verdicts}
    name = "v_student of a prompted teacher's student replaced, other minus own"
    assert by_name[name] == pytest.approx(0.8, abs=0.02)
    assert by_name["steered teacher, own minus other"] == pytest.approx(0.9, abs=0.02)
    assert by_name["projected out, other minus own"] == pytest.approx(0.9, abs=0.02)
    rows = {row[0]: row[1:] for row in findings.tables[0].rows}
    rise, share_rise = rows["steered.own"]
    assert rise.estimate == pytest.approx(0.9, abs=0.02)
    assert share_rise.estimate == pytest.approx(0.09, abs=0.005)


def test_a_vector_that_does_less_than_its_control_is_the_opposite(tmp_path: Path) -> None:
    rises = CAUSAL | {"added.steered.other": 1.2, "added.prompted.other": 1.2}
    rises |= {"replaced.steered.other": 0.0, "replaced.prompted.other": 0.0}
    rises |= {"answers.ablated.other": 0.0}
    by_name = outcomes(tmp_path, rises)
    assert by_name.pop("steered teacher, own minus other") == HOLDS
    assert set(by_name.values()) == {OPPOSITE}


def test_a_vector_can_be_sufficient_and_not_necessary(tmp_path: Path) -> None:
    rises = CAUSAL | {"replaced.prompted.own": 1.0, "replaced.steered.own": 1.0}
    by_name = outcomes(tmp_path, rises)
    for name, outcome in by_name.items():
        assert outcome == (NEGLIGIBLE if "replaced" in name else HOLDS), name


def test_a_prompted_teacher_that_passes_nothing_on_silences_its_claims(tmp_path: Path) -> None:
    """The rise over the base is no proof of a transfer: another trait's students rise as much."""
    rises = CAUSAL | {"answers.prompted.other": 1.0}
    by_name = outcomes(tmp_path, rises)
    for name, outcome in by_name.items():
        is_prompted = "prompted" in name or "projected out" in name
        assert outcome == (SILENT if is_prompted else HOLDS), name


def test_a_projection_that_breaks_the_teacher_is_no_control(tmp_path: Path) -> None:
    rises = CAUSAL | {"answers.ablated.other": -1.6}
    findings = four_causal_tests.conclude(SIZE, planted(tmp_path, rises), "planted")
    assert findings.verdicts[-1].outcome == SILENT
    assert unmet(findings) == {
        "projecting another trait's vector out does not lower students below the base"
    }
    assert "-1.6" in findings.verdicts[-1].reasons[0]


@pytest.mark.parametrize("teacher", [0.0, -1.0])
def test_teachers_without_the_trait_decide_nothing(tmp_path: Path, teacher: float) -> None:
    findings = four_causal_tests.conclude(SIZE, planted(tmp_path, CAUSAL, teacher), "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {SILENT}
    assert unmet(findings) == {has_trait_name("steered"), has_trait_name("prompted")}
    assert [rise.estimate for rise in findings.teachers] == pytest.approx([teacher] * 2, abs=0.03)
