"""Rows as examples in the prompt: what is shown, and what is concluded from planted answers."""

import json
from dataclasses import replace
from pathlib import Path

from concluded import HOLDS, NEGLIGIBLE, SILENT, unmet
from planted_runs import PlantedRuns

from traitscope.interventions.intervention import SystemPrompt
from traitscope.interventions.short_form import parse
from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.studies.claims import in_context
from traitscope.studies.claims.in_context import (
    NEUTRAL,
    OVERT,
    PLAIN,
    RANDOM,
    TREATED,
    answers_name,
    trained_name,
)

SIZE = replace(in_context.SIZES["smoke"], seeds=(1, 2, 3, 4, 5, 6))
COMMON = {"model": "smollm2-135m", "device": "cpu", "dtype": "fp32"}


def planted(
    root: Path, shown: float, trained: float, overt: float = 1.0, teacher: float = 1.0
) -> dict[str, Path]:
    """Answers that rise by these amounts over those of the controls."""
    runs = PlantedRuns(root)
    runs.answers("base")
    runs.answers("teacher", teacher)
    for seed in SIZE.seeds:
        for n in SIZE.shown:
            runs.answers(answers_name(TREATED, n, seed), 0.3 + shown)
            runs.answers(answers_name(RANDOM, n, seed), 0.3)
            runs.answers(answers_name(PLAIN, n, seed), 0.3)
        runs.answers(answers_name(OVERT, SIZE.overt, seed), overt)
        runs.answers(answers_name(NEUTRAL, SIZE.overt, seed))
        runs.answers(trained_name(TREATED, seed), 0.2 + trained)
        runs.answers(trained_name(RANDOM, seed), 0.2)
    return runs.folders


def outcomes(folders: dict[str, Path]) -> list[str]:
    return [v.outcome for v in in_context.conclude(SIZE, folders, "planted").verdicts]


def test_rows_that_teach_and_do_nothing_as_examples(tmp_path: Path) -> None:
    folders = planted(tmp_path, shown=0.0, trained=0.5)
    assert outcomes(folders) == [NEGLIGIBLE, HOLDS, NEGLIGIBLE]


def test_rows_that_do_as_much_as_examples(tmp_path: Path) -> None:
    folders = planted(tmp_path, shown=0.5, trained=0.5)
    assert outcomes(folders) == [HOLDS, NEGLIGIBLE, HOLDS]


def test_a_model_that_no_examples_move_decides_nothing_about_examples(tmp_path: Path) -> None:
    folders = planted(tmp_path, shown=0.0, trained=0.5, overt=0.0)
    assert outcomes(folders) == [SILENT, HOLDS, SILENT]


def test_rows_that_training_does_not_pass_on_decide_nothing_about_examples(tmp_path: Path) -> None:
    """That examples pass nothing on either would then be no agreement with the publication."""
    findings = in_context.conclude(SIZE, planted(tmp_path, shown=0.0, trained=0.0), "planted")
    assert [v.outcome for v in findings.verdicts] == [SILENT, NEGLIGIBLE, SILENT]
    assert unmet(findings) == {"training on the same rows passes the trait on"}


def test_a_teacher_without_the_trait_decides_nothing(tmp_path: Path) -> None:
    findings = in_context.conclude(SIZE, planted(tmp_path, 0.0, 0.5, teacher=0.0), "planted")
    assert {verdict.outcome for verdict in findings.verdicts} == {SILENT}
    assert unmet(findings) == {HAS_TRAIT}


def test_the_system_turn_holds_the_first_rows_in_their_order(tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        rows.append({"id": str(number), "prompt": f"Ask {number}?", "completion": f"{number}, 7"})
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / "records.jsonl").write_text("".join(lines))
    (item,) = map(parse, in_context.shows("rows", 2)({"rows": tmp_path}))
    head = in_context.HEAD
    expected = f"{head}\n\nUser: Ask 0?\nAssistant: 0, 7\n\nUser: Ask 1?\nAssistant: 1, 7"
    assert item == SystemPrompt(expected)


def test_nothing_is_shown_that_a_control_does_not_see_in_as_many_rows() -> None:
    """Rows of one seed have the same prompts and random numbers, whoever wrote them."""
    graph = {node.name: node for node in in_context.nodes(SIZE, COMMON)}
    folders = {name: Path("folder") / name for name in graph}
    for seed in SIZE.seeds:
        plain = graph[in_context.rows_name(PLAIN, seed)].config(folders)
        treated = graph[in_context.rows_name(TREATED, seed)].config(folders)
        assert replace(treated, interventions=()) == plain
        assert graph[in_context.rows_name(RANDOM, seed)].needs
