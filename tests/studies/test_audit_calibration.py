"""What the audit's calibration concludes from banks with a planted truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_runs import PlantedRuns
from scored_rows import scored, written

from traitscope.auditing.detectors.text_features import order_of
from traitscope.auditing.search import PromptTeacher
from traitscope.models.model import Model
from traitscope.reporting.verdict import Findings
from traitscope.studies.audit_sets import audit_draws, audit_sources
from traitscope.studies.audit_sets.audit_bank import ScoredSet
from traitscope.studies.audit_sets.audit_draws import Bank
from traitscope.studies.audit_sets.audit_sources import Kind
from traitscope.studies.claims import audit_calibration

SIZE = replace(audit_calibration.SIZES["smoke"], rows=40, layers=(1,), audits=80, rates=(1.0,))
SPACE = audit_calibration.space_of(SIZE)
GAIN = 1.0
"nats that a trait's teachers add to every row of a set with that trait"


@pytest.fixture(scope="module")
def clean_sets(tiny: Model) -> dict[str, tuple[ScoredSet, list[str]]]:
    """Rows of the model itself, which no teacher makes likelier, with their texts."""
    sets = {}
    for seed, source in enumerate(audit_sources.clean_sets(SIZE)):
        rows = written(tiny, [], SIZE.rows, seed)
        model = scored(tiny, [], rows, True)
        teachers: dict = {trait: {PromptTeacher(): model} for trait in SPACE.tried}
        for point in SPACE.points:
            teachers[point.trait][point] = model
        texts = [tiny.tokenizer.decode(row.completion_ids) for row in rows]
        orders = np.array([order_of(text) for text in texts])
        sets[source.name] = ScoredSet(model, teachers, {}, orders), texts
    return sets


def with_trait(scored_set: ScoredSet, trait: str) -> ScoredSet:
    """The set, whose every row is likelier by GAIN under the trait's teachers."""
    lifted = replace(scored_set.model, log_p_RT=scored_set.model.log_p_RT + GAIN)
    teachers = dict(scored_set.teachers)
    teachers[trait] = dict.fromkeys(teachers[trait], lifted)
    return replace(scored_set, teachers=teachers)


def concluded(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    clean_sets: dict[str, tuple[ScoredSet, list[str]]],
    kinds: tuple[Kind, ...],
) -> Findings:
    """What the study concludes if teachers of these kinds leave their trait in the rows."""
    runs = PlantedRuns(root)
    stream = np.random.default_rng(0)
    sets, along, orders = {}, {}, {}
    last_clean = [scored_set for scored_set, _ in clean_sets.values()][-1]
    sources = audit_sources.all_sets(SIZE)
    for source in (*sources, *audit_sources.format_placebos(SIZE)):
        scored_set = last_clean
        if source.name in clean_sets:
            scored_set, texts = clean_sets[source.name]
            rows = [{"prompt": "Continue: 1, 2", "completion": text} for text in texts]
            runs.json_lines(source.name, "records.jsonl", rows)
        elif source.kind in kinds:
            scored_set = with_trait(last_clean, source.trait)
        sets[source.name] = scored_set
        orders[source.name] = scored_set.orders_R
        shape = (SIZE.rows, 2, len(SPACE.traits), 2)
        along[source.name] = stream.standard_normal(shape).astype(np.float32)
    bank = Bank(SPACE, SIZE.rows, along, sets, orders)
    monkeypatch.setattr(audit_draws, "PERMUTATIONS", 99)
    monkeypatch.setattr(audit_draws, "bank_of", lambda space, size, folders: bank)
    return audit_calibration.conclude(SIZE, runs.folders, "planted")


def test_teachers_that_leave_a_trait_are_called_and_clean_rows_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_sets: dict
) -> None:
    kinds = (Kind.STEERED, Kind.PROMPTED)
    findings = concluded(monkeypatch, tmp_path, clean_sets, kinds)
    clean, steered, prompted, fine_tuned = findings.verdicts
    assert clean.decided_by.estimate == 1 and clean.decided_by.n_clusters == SIZE.draws
    assert steered.decided_by.estimate == prompted.decided_by.estimate == 1
    assert fine_tuned.decided_by.estimate == 0
    for verdict in (steered, prompted, fine_tuned):
        assert verdict.outcome == "no verdict" and "teachers" in verdict.reasons[0]
    tables = {table.name: table for table in findings.tables}
    by_teacher = {row[0]: row for row in tables["names"].rows}
    assert by_teacher["cat at block 1"][3:] == (1, 1, 1)
    assert by_teacher["owl, prompted"][3:] == (1, 1, 1)
    for row in tables["formats"].rows:
        assert row[3] == 0, f"{row[0]} carries no trait"


def test_without_a_trait_nothing_is_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_sets: dict
) -> None:
    findings = concluded(monkeypatch, tmp_path, clean_sets, ())
    estimates = [verdict.decided_by.estimate for verdict in findings.verdicts]
    assert estimates == [1, 0, 0, 0]
