"""Selected pairs: what is compared with what, and what is concluded from planted students."""

from dataclasses import replace
from pathlib import Path

import pytest
from concluded import COMMON, HOLDS, NEGLIGIBLE, OPPOSITE, SILENT, concluded, outcomes, unmet
from planted_runs import PlantedRuns

from traitscope.config.rows.select import SelectConfig
from traitscope.config.stages import TrainConfig
from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.studies.claims import preference_selection as study
from traitscope.studies.claims.preference_selection import (
    OTHER,
    RANDOM,
    TREATED,
    answers_name,
    others_name,
    pairs_name,
    pool_name,
    student_name,
)

SIZE = replace(study.SIZES["smoke"], seeds=(1, 2, 3, 4, 5))


def planted(
    root: Path,
    treated: float,
    other: float = 0.0,
    teacher: float = 1.0,
    margins: tuple[float, ...] = (0.5, 0.6, 0.4, 0.5, 0.7),
) -> dict[str, Path]:
    """Students that rise by these amounts over those of random pairs."""
    runs = PlantedRuns(root)
    runs.answers("base")
    runs.answers("teacher", teacher)
    for seed, margin in zip(SIZE.seeds, margins, strict=True):
        for chooser, rise in ((TREATED, treated), (OTHER, other), (RANDOM, 0.0)):
            runs.answers(answers_name(chooser, seed), 0.3 + rise)
        steps = [{"step": 1, "margin": -9.0}, {"step": 2, "margin": margin}]
        runs.json_lines(student_name(TREATED, seed), "metrics.jsonl", steps)
        summary = {"kept": 12, "mean_score_kept": 2.0 + seed / 10}
        runs.json(pairs_name(TREATED, seed), "summary.json", summary)
    return runs.folders


@pytest.mark.parametrize(
    ("treated", "other", "expected"),
    [
        (0.5, 0.0, [HOLDS, HOLDS]),
        (0.5, 0.5, [HOLDS, NEGLIGIBLE]),
        (0.0, 0.0, [NEGLIGIBLE, NEGLIGIBLE]),
        (-0.5, 0.0, [OPPOSITE, OPPOSITE]),
    ],
)
def test_an_effect_and_none(
    tmp_path: Path, treated: float, other: float, expected: list[str]
) -> None:
    assert outcomes(concluded(study, SIZE, planted(tmp_path, treated, other))) == expected


def test_students_that_learn_no_pair_decide_nothing(tmp_path: Path) -> None:
    """The margin that counts is that of the last step."""
    folders = planted(tmp_path, 0.5, margins=(0.5, -0.6, 0.1, -0.2, 0.3))
    findings = concluded(study, SIZE, folders)
    assert outcomes(findings) == [SILENT, SILENT]
    assert unmet(findings) == {"students learn the pairs that the teacher chose"}


def test_a_teacher_without_the_trait_decides_nothing(tmp_path: Path) -> None:
    findings = concluded(study, SIZE, planted(tmp_path, 0.5, teacher=0.0))
    assert outcomes(findings) == [SILENT, SILENT] and unmet(findings) == {HAS_TRAIT}


def test_the_table_says_what_was_kept_and_how_far_it_was_moved(tmp_path: Path) -> None:
    (table,) = concluded(study, SIZE, planted(tmp_path, 0.5)).tables
    for row in table.rows:
        assert row[1] == 12 and row[2].estimate == pytest.approx(2.3)


def test_all_choosers_have_one_pool_and_keep_as_many() -> None:
    graph = {node.name: node for node in study.nodes(SIZE, COMMON)}
    folders = {name: Path("folder") / name for name in graph}
    for seed in SIZE.seeds:
        answers = [graph[name(seed)].config(folders) for name in (pool_name, others_name)]
        assert answers[0] != answers[1] and replace(answers[0], seed=answers[1].seed) == answers[1]
        assert not answers[0].interventions
        selections = [graph[pairs_name(who, seed)].config(folders) for who in (TREATED, OTHER)]
        assert selections[0].interventions != selections[1].interventions
        chance = graph[pairs_name(RANDOM, seed)].config(folders)
        for selection in selections:
            assert (
                isinstance(selection, SelectConfig) and selection.data == folders[pool_name(seed)]
            )
            usual = replace(selection, interventions=(), by="random", seed=seed)
            assert usual == chance
        students = [graph[student_name(who, seed)].config(folders) for who in (TREATED, RANDOM)]
        assert replace(students[0], data=students[1].data) == students[1]
        assert isinstance(students[0], TrainConfig)
        assert students[0].recipe.targets == "preference"
