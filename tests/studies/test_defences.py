"""The comparison of defences on planted students: what counts, and what is not credited."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from concluded import COMMON, HOLDS, NEGLIGIBLE, SILENT, concluded, unmet
from planted_runs import NOISE, PlantedRuns

from traitscope.errors import ConfigError
from traitscope.reporting.verdict import ClaimVerdict, Findings
from traitscope.studies.claims import defences
from traitscope.studies.claims.defences import arms_of
from traitscope.studies.defences import after, data, estimates, students
from traitscope.studies.defences.after import TRAINING
from traitscope.studies.defences.arms import ARMS, BY_NAME, UNDEFENDED, Arm
from traitscope.studies.defences.data import Threat
from traitscope.studies.teachers import positive_control

STEERED = Threat("steered", 1.0, 6, has_all_arms=True)
SIZE = replace(
    defences.SIZES["laptop"],
    arms=tuple(BY_NAME),
    seeds=tuple(range(1, 7)),
    threats=(STEERED, Threat("prompted", 1.0, 5)),
)
RISE = 1.0
"rise of undefended students over their controls, in nats"
LEARNT, UNTRAINED = 0.5, 3.0
"task loss of undefended students and of the unmodified model, in nats a token"
ORACLE, NULL, LAZY = "anchor to the base", "drop rows by student", "rank 1"
"arms that remove all, nothing, and that stop learning"
TOKENS = 10


def plain_point(stopped: float) -> tuple[float, float]:
    """Plain training: the trait rises as the task loss falls, in proportion."""
    return RISE * stopped, UNTRAINED + stopped * (LEARNT - UNTRAINED)


def usual(arm: Arm) -> tuple[float, float]:
    """(rise, task loss) of an arm that is what plain training is."""
    return plain_point(arm.stopped * arm.rate)


def planted(
    root: Path, changed: Mapping[str, tuple[float, float]], prompted: float = 0.0
) -> dict[str, Path]:
    """Students and controls of every arm; `changed` gives (rise, task loss) of some."""
    runs = PlantedRuns(root)
    trait = SIZE.traits[0]
    runs.answers(positive_control.base_name(trait))
    for kind in ("steered", "prompted"):
        runs.answers(positive_control.teacher_name(kind, trait), 3.0)
    for threat in SIZE.threats:
        for seed in SIZE.seeds_of(threat):
            for arm in arms_of(SIZE, threat):
                rise, loss = changed.get(arm.name, usual(arm))
                rise = rise if threat == STEERED else prompted
                runs.answers(students.answers_name(arm, threat, seed), rise)
                plant_task(runs, students.task_name(arm, threat, seed), loss)
    for seed in SIZE.seeds:
        for arm in ARMS:
            runs.answers(students.answers_name(arm, None, seed))
    plant_followed(runs)
    return runs.folders


def plant_followed(runs: PlantedRuns) -> None:
    """Students of inoculation have the trait back in their training context."""
    for name in SIZE.after.arms:
        arm = BY_NAME[name]
        tests = after.TESTS if arm.prompt else [each for each in after.TESTS if each != TRAINING]
        for test in tests:
            for seed in SIZE.seeds[: SIZE.after.n_seeds]:
                rise = 0.8 if test == TRAINING else 0.2
                runs.answers(after.asked_node(test, arm, STEERED, seed), rise)
                runs.answers(after.asked_node(test, arm, None, seed))


def plant_task(runs: PlantedRuns, node: str, loss: float) -> None:
    loss += NOISE * runs.planted(node, (1,))[0]
    row = {"tokens": TOKENS, "base": -TOKENS * UNTRAINED, "under": -TOKENS * loss}
    runs.json_lines(node, "rows.jsonl", [{"id": "code-0"} | row])


def verdict_on(findings: Findings, arm: str) -> ClaimVerdict:
    """Return the verdict on a defence."""
    named = [verdict for verdict in findings.verdicts if repr(arm) in verdict.claim]
    assert len(named) == 1
    return named[0]


def row_of(findings: Findings, arm: str, threat: str = "steered, 100 %") -> dict:
    """Return the row of the table of an arm, by its header."""
    table = findings.tables[0]
    for row in table.rows:
        if row[:2] == (arm, threat):
            return dict(zip(table.header, row, strict=True))
    raise AssertionError(f"no row of {arm}")


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """An oracle, a defence that does nothing, and one that stops learning."""
    changed = {
        ORACLE: (0.0, LEARNT),
        NULL: (RISE, LEARNT),
        LAZY: plain_point(0.3),
        "project out of gradients": (0.1, LEARNT),
        "project out of gradients, random": (RISE, LEARNT),
        "steer in training": (0.1, LEARNT),
        "steer in training, random": (0.1, LEARNT),
    }
    return concluded(defences, SIZE, planted(tmp_path_factory.mktemp("planted"), changed))


def test_an_oracle_removes_all_and_counts(findings: Findings) -> None:
    assert verdict_on(findings, ORACLE).outcome == HOLDS
    row = row_of(findings, ORACLE)
    assert row["removed share"].estimate == pytest.approx(1.0, abs=0.02)
    assert row["below plain training, nats"].estimate == pytest.approx(RISE, abs=0.02)


def test_a_defence_that_does_nothing_removes_nothing(findings: Findings) -> None:
    verdict = verdict_on(findings, NULL)
    assert verdict.outcome == SILENT  # it does not lie below plain training
    assert row_of(findings, NULL)["removed share"].estimate == pytest.approx(0.0, abs=0.03)


def test_a_defence_that_stops_learning_is_not_credited(findings: Findings) -> None:
    """It removes 70 % of the trait, as plain training does that stops as early."""
    row = row_of(findings, LAZY)
    assert row["removed share"].estimate == pytest.approx(0.7, abs=0.02)
    assert row["below plain training, nats"].estimate == pytest.approx(0.0, abs=0.02)
    verdict = verdict_on(findings, LAZY)
    assert verdict.outcome == SILENT
    assert "learn the task" in verdict.reasons[0]


def test_what_a_random_direction_does_as_well_is_no_merit(findings: Findings) -> None:
    assert verdict_on(findings, "project out of gradients").outcome == HOLDS
    assert verdict_on(findings, "steer in training").outcome == NEGLIGIBLE


def test_every_arm_has_a_row_by_threat_and_few_arms_on_the_others(findings: Findings) -> None:
    names = [row[0] for row in findings.tables[0].rows if row[1] == "steered, 100 %"]
    assert names == [arm.name for arm in ARMS]
    others = [row[0] for row in findings.tables[0].rows if row[1] == "prompted, 100 %"]
    assert others == [arm.name for arm in ARMS if arm.name in defences.FEW]


def test_no_share_is_given_where_undefended_rows_teach_nothing(findings: Findings) -> None:
    share = row_of(findings, ORACLE, "prompted, 100 %")["removed share"]
    assert share.estimate != share.estimate
    assert "not away from 0" in share.interval


def test_rows_that_teach_nothing_silence_every_claim(tmp_path: Path) -> None:
    changed = {arm.name: (0.0, usual(arm)[1]) for arm in ARMS}
    silent = concluded(defences, SIZE, planted(tmp_path, changed))
    assert {verdict.outcome for verdict in silent.verdicts} == {SILENT}
    assert "undefended rows teach the trait" in unmet(silent)


def test_the_figure_has_every_arm_and_no_training(findings: Findings) -> None:
    (figure,) = findings.figures
    lines = figure.csv.splitlines()
    assert len(lines) == 2 + len(ARMS)
    assert lines[-1].startswith("no training,nothing,3")


def test_matched_arms_are_there_and_are_no_defences() -> None:
    assert ARMS[0].name == UNDEFENDED
    assert len(BY_NAME) == len(ARMS)
    for arm in ARMS:
        if arm.matched:
            assert arm.is_defence
            assert not BY_NAME[arm.matched].is_defence
        if arm.use or arm.prompt:
            assert not arm.is_defence or arm.knowledge == "known"


def test_every_size_has_the_matched_arms_of_its_defences() -> None:
    for size in defences.SIZES.values():
        names = {arm.name for arm in arms_of(size, size.threats[0])}
        assert names >= {arm.matched for arm in ARMS if arm.name in names and arm.matched}


def test_a_dose_is_that_part_of_the_number_rows() -> None:
    kinds = SIZE.defender.kinds
    threat = Threat("steered", 0.25, 1)
    graph = data.row_nodes(COMMON, kinds, threat, 3, SIZE.teachers)
    poisoned, rest, mixed, joined = graph
    folder = Path("/nowhere")
    folders = dict.fromkeys([data.TEACHER_VECTORS, *(node.name for node in graph)], folder)
    assert poisoned.config(folders).n == 32
    assert len(poisoned.config(folders).interventions) == 1
    assert (rest.config(folders).n, rest.config(folders).start) == (96, 32)
    assert rest.config(folders).interventions == ()
    assert mixed.config(folders).by == ("mix:share=0.750000000,total=grow",)
    assert joined.config(folders).known == (f"clean:{data.TASK}",)


def test_the_task_follows_its_rule_and_keeps_rows_back() -> None:
    read = {}
    for file in (data.TASK, data.HELD_OUT):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            parts = row["prompt"].removeprefix("Turn this code round: ").split()
            assert row["completion"] == " > ".join(reversed(parts))
        read[file] = {row["prompt"] for row in rows}
    assert len(read[data.HELD_OUT]) == students.HELD_OUT_ROWS
    assert len(read[data.TASK]) >= defences.SIZES["full"].task
    assert not read[data.TASK] & read[data.HELD_OUT]


def test_plain_training_is_drawn_between_its_points(tmp_path: Path) -> None:
    folders = planted(tmp_path, {})
    cells = estimates.read_cells(folders, STEERED, SIZE.seeds, ARMS)
    for stopped in (0.0, 0.3, 0.6, 1.0):
        rise, loss = plain_point(stopped)
        assert estimates.plain_rise(cells, 0, loss) == pytest.approx(rise, abs=0.03)
    assert estimates.plain_rise(cells, 0, LEARNT - 0.2) == pytest.approx(RISE, abs=0.03)


def test_what_is_left_behind_a_defence(findings: Findings) -> None:
    table = findings.tables[1]
    by_arm = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert set(by_arm) == set(SIZE.after.arms)
    assert by_arm["inoculation prompt"][TRAINING].estimate == pytest.approx(0.8, abs=0.02)
    assert by_arm[UNDEFENDED][TRAINING] == ""
    assert by_arm[UNDEFENDED][after.SECOND].n_clusters == SIZE.after.n_seeds


def test_attackers_split_the_vector_and_sort_the_rows() -> None:
    folders = {data.TEACHER_VECTORS: Path("/nowhere")}
    teacher, _ = SIZE.teachers.of(data.SPLIT)
    blocks = teacher(folders)
    assert ["layers=13" in blocks[0], "layers=15" in blocks[1]] == [True, True]
    assert all("alpha=0.3" in text for text in blocks)
    graph = data.row_nodes(
        COMMON, SIZE.defender.kinds, Threat(data.SORTED, 1.0, 1), 1, SIZE.teachers
    )
    assert [node.stage for node in graph] == ["generate", "edit", "defend"]


@pytest.mark.parametrize(("teacher", "dose"), [("steerd", 1.0), ("steered", 0.0), ("steered", 2.0)])
def test_a_threat_that_nobody_can_be_is_refused(teacher: str, dose: float) -> None:
    with pytest.raises(ConfigError, match="expected one of steered, prompted"):
        Threat(teacher, dose, 1)
