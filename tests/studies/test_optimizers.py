"""Optimizers on planted students: matched by loss, compared by EAS and by answers."""

from dataclasses import replace
from pathlib import Path

import pytest
from concluded import HOLDS, NEGLIGIBLE, SILENT, concluded, estimates, outcomes, unmet
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import Findings
from traitscope.studies.claims import optimizers

SIZE = replace(optimizers.SIZES["smoke"], seeds=(1, 2, 3, 4, 5), layer=2)
LAYERS = 4
ADAPTIVE = ("adamw", "frozen adam", "adamw, all weights")
BASE_EAS = 0.2
"EAS of every student without an effect"
UNMATCHED = 5.0
"effect of the rates whose loss is far from AdamW's; it must not be seen"


def planted(root: Path, effect: float) -> dict[str, Path]:
    """Students of every arm; those of adaptive optimizers turn and rise by `effect` more.

    The first rate of an arm has a loss near AdamW's best.
    """
    runs = PlantedRuns(root, LAYERS)
    runs.answers("base")
    runs.answers("teacher", 2.0)
    for seed in SIZE.seeds:
        for arm in SIZE.arms:
            for number, rate in enumerate(optimizers.ARMS[arm][1]):
                gained = effect if arm in ADAPTIVE else 0.0
                if number:
                    gained = UNMATCHED
                plant_student(runs, f"{arm}.{rate:g}.{seed}", gained, 1.0 + 0.3 * number)
        for role in ("treated", "control"):
            runs.answers(f"cat of {role} text.{seed}", effect if role == "treated" else 0.0)
            runs.eas(f"{role} text.{seed}", {"v_student": [0.0] * LAYERS})
    return runs.folders


def plant_student(runs: PlantedRuns, name: str, gained: float, loss: float) -> None:
    runs.answers(f"answers.{name}", gained)
    noise = 0.01 * runs.planted(name, (1,))[0]
    eas = [9.0, 9.0, BASE_EAS + gained + noise, 9.0]
    steps = [
        {"step": 1, "update_norm": 1.0, "update_share_B": 0.25},
        {"step": 2, "update_norm": 2.0, "update_share_B": 0.75, "held_out_loss": loss, "eas": eas},
    ]
    runs.json_lines(name, "metrics.jsonl", steps)


def row_of(findings: Findings, arm: str) -> dict:
    table = findings.tables[0]
    for row in table.rows:
        if row[0] == arm:
            return dict(zip(table.header, row, strict=True))
    raise AssertionError(f"no row of {arm}")


def test_adaptive_optimizers_that_pass_more_on_hold(tmp_path: Path) -> None:
    findings = concluded(optimizers, SIZE, planted(tmp_path, 0.4))
    assert len(findings.verdicts) == 4
    assert set(outcomes(findings)) == {HOLDS}
    assert estimates(findings) == pytest.approx([0.4] * 4, abs=0.03)


def test_optimizers_that_are_alike_are_not_told_apart(tmp_path: Path) -> None:
    findings = concluded(optimizers, SIZE, planted(tmp_path, 0.0))
    assert set(outcomes(findings)) == {NEGLIGIBLE}


def test_the_table_shows_the_matched_rate(tmp_path: Path) -> None:
    findings = concluded(optimizers, SIZE, planted(tmp_path, 0.4))
    row = row_of(findings, "sgd")
    assert row["rates"] == "1/1/1/1/1"
    assert row["matched"] == "5 of 5"
    assert row["held-out loss"] == pytest.approx(1.0)
    assert row["update norm"] == pytest.approx(3.0)
    assert row["share in B"] == pytest.approx(0.5)
    assert row["rise"].estimate == pytest.approx(0.0, abs=0.03)
    assert row_of(findings, "adamw")["share along the vector"] == pytest.approx(0.36, abs=0.03)


def test_an_arm_that_never_comes_near_has_no_verdict(tmp_path: Path) -> None:
    folders = planted(tmp_path, 0.4)
    runs = PlantedRuns(tmp_path / "slow", LAYERS)
    for rate in optimizers.ARMS["sgd"][1]:
        for seed in SIZE.seeds:
            plant_student(runs, f"sgd.{rate:g}.{seed}", 0.0, 1.11 + rate)
    findings = concluded(optimizers, SIZE, {**folders, **metrics_only(runs)})
    assert row_of(findings, "sgd")["matched"] == "0 of 5"
    by_claim = {v.claim: v for v in findings.verdicts}
    against_sgd = [v for claim, v in by_claim.items() if "than sgd does" in claim]
    assert {v.outcome for v in against_sgd} == {SILENT}
    assert len(against_sgd) == len(by_claim) == 4
    assert unmet(findings) == {"sgd comes within 10% of AdamW's best held-out loss in every seed"}
    assert "0 of 5 seeds" in against_sgd[0].reasons[0]


def metrics_only(runs: PlantedRuns) -> dict[str, Path]:
    return {name: path for name, path in runs.folders.items() if not name.startswith("answers")}
