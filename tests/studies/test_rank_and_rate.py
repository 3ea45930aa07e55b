"""Ranks on planted students: the slice at one rate, best rates, all weights, repeated rows."""

from dataclasses import replace
from pathlib import Path

import pytest
from concluded import HOLDS, NEGLIGIBLE, OPPOSITE, SILENT, concluded, estimates, outcomes, unmet
from planted_runs import PlantedRuns

from traitscope.studies.claims import rank_and_rate
from traitscope.studies.equal_kl import CONTROL

SIZE = replace(
    rank_and_rate.SIZES["smoke"],
    seeds=(1, 2, 3, 4, 5),
    rates=(1e-3, 3e-3),
    whole_rates=(1e-5, 3e-5),
)
RANK_1, RANK_2, RANK_4 = ("rank 1 at 0.001", "rank 2 at 0.001", "rank 4 at 0.001")
WHOLE, WHOLE_FAST = "all weights at 1e-05", "all weights at 3e-05"
RANK_1_FAST = "rank 1 at 0.003"
UNIQUE, REPEATED = "rank 2, 4 rows 2 times", "rank 2, 2 rows 4 times"
INVERTED_U = {RANK_1: 0.2, RANK_2: 1.0, RANK_4: 0.4, WHOLE: 0.3, UNIQUE: 0.9, REPEATED: 0.1}
OF_ANY_VECTOR = 0.1
"rise that students of a random vector have, too"
FAST, BROKEN = "rank 2 at 0.003", "rank 4 at 0.003"
"an arm that gains least on the fresh rows, and one that gains most and is not coherent"


def planted(
    root: Path, rises: dict[str, float], whole_gains: tuple[float, float] = (1.0, 0.5)
) -> dict[str, Path]:
    """Students of every arm, which rise as said, and whose gain on fresh rows is 1 nat a token.

    `whole_gains` are those of all weights, by rate.
    """
    runs = PlantedRuns(root)
    runs.answers("base")
    runs.answers("teacher", 2.0)
    for seed in SIZE.seeds:
        for arm in rank_and_rate._arms(SIZE):
            name = f"{arm}.{seed}"
            perplexity = 30.0 if arm == BROKEN else 10.0
            runs.answers(f"answers.{name}", rises.get(arm, 3.0), perplexity=perplexity)
            special = {FAST: 0.5, BROKEN: 9.0, RANK_1_FAST: 0.5}
            special |= dict(zip((WHOLE, WHOLE_FAST), whole_gains, strict=True))
            gain = special.get(arm, 1.0)
            gain += 0.1 * rises.get(arm, 0.0) + 0.01 * runs.planted(f"gain.{name}", (1,))[0]
            row = {"base": -30.0, "under": -30.0 + 10 * gain, "tokens": 10}
            runs.json_lines(f"gain.{name}", "rows.jsonl", [row, row])
            runs.json_lines(name, "metrics.jsonl", [{"update_norm": 1.5}, {"update_norm": 0.5}])
        for rate in SIZE.whole_rates:
            control = f"{CONTROL}{rank_and_rate._arm_name(rank_and_rate.WHOLE, rate)}"
            runs.answers(f"answers.{control}.{seed}", OF_ANY_VECTOR)
        for role in ("treated", "control"):
            runs.answers(f"cat of {role} text.{seed}", 0.3 if role == "treated" else 0.0)
    return runs.folders


def test_an_inverted_u_and_less_by_all_weights_hold(tmp_path: Path) -> None:
    findings = concluded(rank_and_rate, SIZE, planted(tmp_path, INVERTED_U))
    assert outcomes(findings) == [HOLDS] * 5
    assert estimates(findings) == pytest.approx([0.7, 0.6, 0.7, 0.8, 0.2], abs=0.03)
    assert findings.measurements[1].estimate == pytest.approx(0.3, abs=0.03)


def test_ranks_that_are_alike_are_not_told_apart(tmp_path: Path) -> None:
    """All weights rise by less than students of a random vector do."""
    findings = concluded(rank_and_rate, SIZE, planted(tmp_path, dict.fromkeys(INVERTED_U, 0.0)))
    assert outcomes(findings) == [NEGLIGIBLE] * 4 + [OPPOSITE]


def test_a_rate_that_noise_chose_has_no_verdict(tmp_path: Path) -> None:
    """Fresh rows gain alike at both rates of all weights: which is best is a matter of chance."""
    folders = planted(tmp_path, INVERTED_U | {WHOLE_FAST: 0.3}, whole_gains=(1.0, 1.0))
    findings = concluded(rank_and_rate, SIZE, folders)
    assert outcomes(findings) == [HOLDS, HOLDS, SILENT, HOLDS, HOLDS]
    (name,) = unmet(findings)
    assert name == "fresh rows tell the best rate of all weights from the next one"


def test_the_best_rate_gains_most_on_fresh_rows_and_is_coherent(tmp_path: Path) -> None:
    findings = concluded(rank_and_rate, SIZE, planted(tmp_path, INVERTED_U))
    assert findings.notes[1].startswith("Best arms: ")
    assert f"{RANK_2}, {RANK_4}, {WHOLE}." in findings.notes[1]
    (table,) = findings.tables
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert rows[BROKEN]["coherent"] == "no"
    assert rows[RANK_2]["coherent"] == "yes"
    assert rows[RANK_2]["gain"] == pytest.approx(1.1, abs=0.02)
    assert rows[RANK_2]["update"] == pytest.approx(2.0)
