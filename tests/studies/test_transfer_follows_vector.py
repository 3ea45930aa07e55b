"""Transfer and fraction of KL explained on planted traits: claims in both directions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from concluded import HOLDS, OPPOSITE, SILENT, concluded, estimates, outcomes, unmet
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.studies import sizes
from traitscope.studies.claims import transfer_follows_vector

TRAITS = sizes.KINDS_OF_TRAITS
SIZE = replace(transfer_follows_vector.SIZES["smoke"], traits=TRAITS, seeds=3)
EXPLAINED = {trait: 0.05 + 0.06 * number for number, trait in enumerate(TRAITS)}
"fractions from 0.05 to 0.95; eight traits are below one half"
EVERYBODY = 0.5
"rise over the base in students of every teacher, which says nothing of a trait"
TEACHER_RISE = 1.0
HALF_WIDTH = 0.02
"half of a share's interval"


def share(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - HALF_WIDTH, "high": estimate + HALF_WIDTH}


def planted(root: Path, rises: dict[str, float]) -> dict[str, Path]:
    """Explanations by trait, and students that rise as said."""
    runs = PlantedRuns(root)
    for trait in TRAITS:
        kinds = {
            "raw": {"share": share(EXPLAINED[trait])},
            "centred": {"share": share(-EXPLAINED[trait])},
        }
        runs.json(f"share.{trait}", "summary.json", {"kinds": kinds})
        runs.answers(f"base.{trait}")
        runs.answers(f"teacher.{trait}", TEACHER_RISE)
        for seed in range(SIZE.seeds):
            runs.answers(f"answers.{trait}.of.{trait}.{seed}", rises[trait] + EVERYBODY)
            for other in transfer_follows_vector.controls(SIZE, trait):
                runs.answers(f"answers.{trait}.of.{other}.{seed}", EVERYBODY)
    for seed in transfer_follows_vector.TEXT_SEEDS:
        runs.answers(f"cat of treated text.{seed}", 0.4)
        runs.answers(f"cat of control text.{seed}")
    return runs.folders


def test_transfer_that_follows_the_vector_holds(tmp_path: Path) -> None:
    rises = {trait: 2 * max(0.0, EXPLAINED[trait] - 0.5) for trait in TRAITS}
    findings = concluded(transfer_follows_vector, SIZE, planted(tmp_path, rises))
    assert outcomes(findings) == [HOLDS] * 2
    rank, auc = estimates(findings)
    assert rank > 0.8 and auc == 1.0
    stayed, centred, text = findings.measurements
    assert stayed.estimate == 1.0
    assert centred.estimate == pytest.approx(-rank)
    assert text.estimate == pytest.approx(0.4, abs=0.03)
    assert "above 0.1 nats and an interval above zero: none." in findings.notes[2]


def test_transfer_of_what_no_vector_explains_is_the_opposite(tmp_path: Path) -> None:
    rises = {trait: 2 * max(0.0, 0.5 - EXPLAINED[trait]) for trait in TRAITS}
    findings = concluded(transfer_follows_vector, SIZE, planted(tmp_path, rises))
    assert outcomes(findings) == [OPPOSITE, OPPOSITE]
    assert findings.measurements[0].estimate < 0.5
    assert f"zero: {', '.join(TRAITS[:7])}" in findings.notes[2]


def test_traits_that_all_rise_alike_tell_nothing_apart(tmp_path: Path) -> None:
    findings = concluded(
        transfer_follows_vector, SIZE, planted(tmp_path, dict.fromkeys(TRAITS, 0.0))
    )
    assert HOLDS not in outcomes(findings)
    assert outcomes(findings)[1] == SILENT


def test_prompts_of_which_none_is_a_vector_have_no_contrast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shares lie under 0.2: the claim is about others, however the traits rise."""
    monkeypatch.setattr(
        f"{__name__}.EXPLAINED", {trait: 0.2 * share for trait, share in EXPLAINED.items()}
    )
    rises = {trait: 2 * EXPLAINED[trait] for trait in TRAITS}
    findings = concluded(transfer_follows_vector, SIZE, planted(tmp_path, rises))
    assert outcomes(findings) == [SILENT, SILENT]
    assert any("makes up 0.5 or more" in name for name in unmet(findings))


def test_the_table_has_every_trait(tmp_path: Path) -> None:
    rises = {trait: EXPLAINED[trait] for trait in TRAITS}
    (table,) = concluded(transfer_follows_vector, SIZE, planted(tmp_path, rises)).tables
    for trait, fraction, centred, teacher, rise, over_base, rate in table.rows:
        assert (fraction, centred) == (EXPLAINED[trait], -EXPLAINED[trait])
        assert rise.estimate == pytest.approx(EXPLAINED[trait], abs=0.03)
        assert teacher == pytest.approx(TEACHER_RISE, abs=0.03)
        assert over_base == pytest.approx(EXPLAINED[trait] + EVERYBODY, abs=0.03)
        assert 0 < rate < 0.3


def test_teachers_without_their_trait_decide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.TEACHER_RISE", 0.0)
    rises = {trait: 2 * max(0.0, EXPLAINED[trait] - 0.5) for trait in TRAITS}
    findings = concluded(transfer_follows_vector, SIZE, planted(tmp_path, rises))
    assert outcomes(findings) == [SILENT, SILENT]
    assert any(HAS_TRAIT in name for name in unmet(findings))


def test_noisy_shares_are_corrected_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of shares as wide as half of their spread: reliability falls, and the correlation
    that is read from it rises, up to 1."""
    rises = {trait: EXPLAINED[trait] + 0.3 * (number % 3) for number, trait in enumerate(TRAITS)}
    rank = {}
    for name, half_width in (("sharp", 0.02), ("blurred", 0.3)):
        monkeypatch.setattr(f"{__name__}.HALF_WIDTH", half_width)
        findings = concluded(transfer_follows_vector, SIZE, planted(tmp_path / name, rises))
        rank[name] = findings.verdicts[0].decided_by
        assert "Without correction" in findings.notes[1]
    sharp, blurred = rank["sharp"], rank["blurred"]
    assert sharp.estimate < blurred.estimate <= 1 and "reliabilities of 1.00" in sharp.interval
    factor = (1 - (0.3 / 1.96) ** 2 / np.var(list(EXPLAINED.values()), ddof=1)) ** -0.5
    assert blurred.estimate == pytest.approx(min(1, sharp.estimate * factor), rel=0.02)
