"""Kinds of teacher on planted students: whose trait passes on, and the strength that is chosen."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from concluded import HOLDS, NEGLIGIBLE, SILENT, concluded, estimates, outcomes, unmet
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import has_trait_name
from traitscope.studies.claims import kinds_of_teacher
from traitscope.studies.teachers import kinds, positive_control, scanned
from traitscope.studies.teachers.kinds import STRENGTH, TEACHERS, strength_name

TRAITS = ("cat", "owl", "dog", "fox", "wolf", "otter")
SIZE = replace(
    kinds_of_teacher.SIZES["smoke"], traits=TRAITS, taught=6, layer=2, multiples=(0.5, 1.0, 2.0)
)
LAYERS = 4
PASS_RATES = (1.0, 1.0, 0.9, 0.2)
"of the unmodified model, and of the multiples of the trained vector"
GENERAL = 0.4
"rise of every trait in every student: what number rows do"
PUBLISHED = {"prompted": 0.2, "steered": 1.0, "fine-tuned": 0.3, "trained vector": 0.9}


def plant_pass_rates(runs: PlantedRuns, multiples: tuple[float, ...], rates: tuple) -> None:
    names = [STRENGTH, *map(strength_name, multiples)]
    for name, rate in zip(names, rates, strict=True):
        runs.json(name, "summary.json", {"rows": 20, "kept": round(20 * rate)})


def scan_of(best: dict | None) -> dict:
    """What a scan of two places says, of which the first one is coherent if it is the best."""
    cells = [
        {"layer": 2, "alpha": 0.3, "rise": {"estimate": 1.0}},
        {"layer": 1, "alpha": 0.6, "rise": {"estimate": 2.0}},
    ]
    return {"cells": cells, "best": best}


def planted(
    root: Path,
    passed: dict[str, float],
    teachers: dict[str, float] | None = None,
    taught: int = len(TRAITS),
) -> dict[str, Path]:
    """Students of every teacher: all rise by GENERAL, about their teacher's trait by more."""
    runs = PlantedRuns(root, LAYERS)
    runs.distances(np.repeat([0.1, 5.0, 0.3, 4.0], taught).tolist())
    plant_pass_rates(runs, SIZE.multiples, PASS_RATES)
    for trait in TRAITS:
        runs.answers(positive_control.base_name(trait))
        runs.json(scanned.scan_name(trait), "summary.json", scan_of({"layer": 2, "alpha": 0.3}))
    for kind, trait in product(TEACHERS, TRAITS):
        runs.answers(positive_control.teacher_name(kind, trait), (teachers or {}).get(kind, 3.0))
        for seed in SIZE.seeds:
            name = kinds.student_name(kind, trait, seed)
            for asked in TRAITS:
                rise = GENERAL + (passed[kind] if asked == trait else 0.0)
                runs.answers(kinds.answers_name(kind, trait, asked, seed), rise)
            runs.eas(name, {"v_student": [0.0, 0.0, 0.5 * passed[kind], 0.0]})
            losses = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "held_out_loss": 0.7}]
            runs.json_lines(name, "metrics.jsonl", losses)
    return runs.folders


def test_the_published_order_holds(tmp_path: Path) -> None:
    findings = concluded(kinds_of_teacher, SIZE, planted(tmp_path, PUBLISHED))
    assert outcomes(findings) == [HOLDS] * 7
    assert estimates(findings) == pytest.approx([0.8, 0.7, 0.6, 0.2, 1.0, 0.3, 0.9], abs=0.02)
    assert {verdict.decided_by.n_clusters for verdict in findings.verdicts} == {6}
    table, strengths, places = findings.tables
    assert places.rows[0] == ("cat", 2, "0.3")
    steered = table.rows[1]
    assert steered[:2] == ("steered", pytest.approx(3.0, abs=0.03))
    assert steered[2].estimate == 5.0 and steered[3] == pytest.approx(0.7)
    assert steered[-1].estimate == pytest.approx(0.5, abs=0.03)
    assert strengths.rows[-1] == ("2", 0.2)


def test_what_every_student_takes_on_is_no_transfer(tmp_path: Path) -> None:
    """All students rise by 0.4 nats over the base, about all traits alike."""
    findings = concluded(kinds_of_teacher, SIZE, planted(tmp_path, dict.fromkeys(TEACHERS, 0.0)))
    assert set(outcomes(findings)) == {NEGLIGIBLE}


def test_teachers_that_are_alike_are_not_ordered(tmp_path: Path) -> None:
    findings = concluded(kinds_of_teacher, SIZE, planted(tmp_path, dict.fromkeys(TEACHERS, 0.6)))
    assert outcomes(findings) == [NEGLIGIBLE] * 3 + [HOLDS] * 4


def test_a_teacher_without_the_trait_silences_its_claims(tmp_path: Path) -> None:
    folders = planted(tmp_path, PUBLISHED, {"fine-tuned": -0.1})
    findings = concluded(kinds_of_teacher, SIZE, folders)
    assert outcomes(findings) == [HOLDS, SILENT, SILENT, HOLDS, HOLDS, SILENT, HOLDS]
    assert unmet(findings) == {has_trait_name("fine-tuned")}
    without = [rise.name for rise in findings.teachers if rise.low <= 0]
    assert without == [f"fine-tuned teacher of {trait} minus base" for trait in TRAITS]


def test_fewer_than_five_traits_give_no_verdict(tmp_path: Path) -> None:
    folders = planted(tmp_path, PUBLISHED, taught=4)
    findings = kinds_of_teacher.conclude(replace(SIZE, taught=4), folders, "planted")
    assert set(outcomes(findings)) == {SILENT}
    assert findings.verdicts[0].reasons == ("It has 4 of the 5 traits that a verdict needs.",)


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
    assert kinds.chosen_strength(size, runs.folders) == chosen
    note = kinds_of_teacher._notes(size, runs.folders)[0]
    assert note.startswith(f"Strength of the trained vector: {chosen:g} times its length")
    assert ("No free row" in note) == (base == 0)


def test_where_no_place_is_coherent_the_greatest_rise_is_taken(tmp_path: Path) -> None:
    runs = PlantedRuns(tmp_path, LAYERS)
    runs.json(scanned.scan_name("cat"), "summary.json", scan_of(None))
    assert scanned.place(runs.folders, "cat") == (1, 0.6)
