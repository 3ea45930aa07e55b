"""Steering gradients on planted runs: alignment with the teacher's vector and with others."""

from dataclasses import replace
from pathlib import Path

import pytest
from concluded import HOLDS, OPPOSITE, SILENT, concluded, estimates, outcomes
from planted_runs import PlantedRuns

from traitscope.studies.claims import steering_gradients
from traitscope.studies.teachers import scanned

SIZE = replace(
    steering_gradients.SIZES["smoke"],
    traits=("cat", "owl", "fox", "wolf", "otter"),
    others=("dog",),
    layer=2,
)
LAYERS = 4


def planted(
    root: Path, aligned: dict[str, float], others: float, rise: float = 1.0
) -> dict[str, Path]:
    """Gradients by teacher; `aligned` is the cosine with the teacher's vector at the block."""
    runs = PlantedRuns(root, LAYERS)
    place = {"layer": 2, "alpha": 0.3}
    for trait in SIZE.traits:
        runs.answers(f"base about {trait}")
        runs.json(scanned.scan_name(trait), "summary.json", {"best": place, "cells": []})
    for teacher in steering_gradients.TEACHERS:
        for trait in SIZE.traits:
            runs.answers(f"{teacher} teacher of {trait}", rise)
            node = f"gradients.{teacher}.{trait}"
            vectors = {}
            for name in (*SIZE.traits, *SIZE.others):
                cosine = aligned[teacher] if name == trait else others
                noise = 0.005 * runs.planted(f"{node} {name}", (1,))[0]
                vectors[name] = compared(cosine + noise)
            by_fraction = {
                "coordinates": {"0.01": [0.5] * LAYERS},
                "rows": {"0.1": [0.3] * LAYERS},
            }
            runs.json(node, "summary.json", {"concentration": by_fraction, "vectors": vectors})
    return runs.folders


def compared(cosine: float) -> dict:
    """What `gradients` writes of one vector: by layer, with a trap at the other layers."""
    by_layer = [-1.0, -1.0, cosine, 0.9]
    parts = {}
    for name in ("alignment.all", "alignment.rest", "alignment.top", "norm.rest", "norm.all"):
        parts[name] = [0.5] * LAYERS
    return {
        "alignment": by_layer,
        "low": [value - 0.1 for value in by_layer],
        "high": [value + 0.1 for value in by_layer],
        "signal_to_noise": [0.0, 0.0, 3.0, 0.0],
        "growth": {"2": [0.0] * LAYERS, "4": by_layer},
        "without_top": parts,
    }


def test_gradients_along_the_vector_of_steered_teachers_only(tmp_path: Path) -> None:
    folders = planted(tmp_path, {"steered": 0.3, "prompted": 0.0}, others=0.1)
    findings = concluded(steering_gradients, SIZE, folders)
    steered_own, steered, prompted_own, prompted = outcomes(findings)
    assert (steered_own, steered) == (HOLDS, HOLDS)
    assert prompted != HOLDS and prompted_own == OPPOSITE
    assert estimates(findings) == pytest.approx([0.2, 0.3, -0.1, 0.0], abs=0.02)


def test_gradients_of_noise_are_along_no_vector(tmp_path: Path) -> None:
    folders = planted(tmp_path, {"steered": 0.0, "prompted": 0.0}, others=0.0)
    assert HOLDS not in outcomes(concluded(steering_gradients, SIZE, folders))


def test_the_tables_show_the_block_the_winners_and_the_growth(tmp_path: Path) -> None:
    folders = planted(tmp_path, {"steered": 0.3, "prompted": 0.0}, others=0.1)
    alignment, growth, energy = concluded(steering_gradients, SIZE, folders).tables
    first, last = alignment.rows[0], alignment.rows[-1]
    assert first[:2] == ("steered", "cat") and last[:2] == ("prompted", "otter")
    assert first[2] == 2 and first[3].low == pytest.approx(first[3].estimate - 0.1)
    assert first[3].n == 4
    assert first[4:] == (pytest.approx(0.1, abs=0.02), 3.0, 3, 0.9, "5 of 5")
    assert last[-1] == "0 of 5"
    assert [row[2] for row in growth.rows[:2]] == [2, 4]
    assert energy.rows[0][2:] == (0.5, 0.3, 0.5, 0.5, 0.5, 1.0)


def test_teachers_without_the_trait_decide_nothing(tmp_path: Path) -> None:
    folders = planted(tmp_path, {"steered": 0.3, "prompted": 0.3}, others=0.1, rise=0.0)
    findings = concluded(steering_gradients, SIZE, folders)
    assert set(outcomes(findings)) == {SILENT}
    (found,) = {n.found for v in findings.verdicts[:1] for n in v.stated.needs}
    assert "mean of 5 teachers" in found and "Not shown to have it: steered teacher of" in found
