"""Audits drawn from a bank of rows: planted truth, by a steered tiny model."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scored_rows import scored, written
from tiny_models import random_vector

from traitscope.auditing.detectors import fit_test
from traitscope.auditing.detectors.text_features import order_of
from traitscope.auditing.search import PromptTeacher
from traitscope.inference.token_rows import Row
from traitscope.inference.token_scores import TokenScores
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.interventions.short_form import parse
from traitscope.models.model import Model
from traitscope.studies.audit_sets import audit_parts
from traitscope.studies.audit_sets.audit_bank import ScoredSet
from traitscope.studies.audit_sets.audit_parts import Kind
from traitscope.studies.claims import audit_rows

ROWS = 200
SIZE = replace(audit_rows.SIZES["smoke"], rows=ROWS)


def rows_of(tiny: Model, interventions: list[Intervention], seed: int) -> list[Row]:
    return written(tiny, interventions, ROWS, seed)


@pytest.fixture(scope="module")
def banks(tiny: Model) -> dict[str, ScoredSet]:
    """What two candidates say of clean rows, of the first one's, and of those of a model with noise
    in its weights."""
    one, other = ([Steer(random_vector(tiny, n, norm=3.0), (1,), 1.0, scale="raw")] for n in (1, 2))

    def bank(interventions: list[Intervention], seed: int) -> ScoredSet:
        rows = rows_of(tiny, interventions, seed)
        model, cat, owl = (scored(tiny, teacher, rows, True) for teacher in ([], one, other))
        orders = [order_of(tiny.tokenizer.decode(row.completion_ids)) for row in rows]
        teachers = {"cat": {PromptTeacher(): cat}, "owl": {PromptTeacher(): owl}}
        return ScoredSet(model, teachers, {}, np.array(orders))

    return {
        "clean": bank([], 21),
        "steered": bank(one, 22),
        "noisy": bank([parse("noise:0.3,seed=3")], 23),
    }


def with_cat(bank: ScoredSet, log_p_RT: np.ndarray) -> Mapping[str, Mapping]:
    """The teachers of a bank, with other log-likelihoods under cat's prompt."""
    cat: TokenScores = replace(bank.teachers["cat"][PromptTeacher()], log_p_RT=log_p_RT)
    return {"cat": {PromptTeacher(): cat}, "owl": bank.teachers["owl"]}


def test_clean_rows_are_not_called_and_teachers_are_by_their_name(
    banks: dict[str, ScoredSet],
) -> None:
    clean = banks["clean"]
    blocks = list(audit_parts.disjoint_blocks(SIZE, 50))
    assert sorted(np.concatenate(blocks)) == list(range(ROWS))
    none = np.zeros(50, bool)
    for block in blocks:
        assert not audit_parts.audit_of(SIZE, clean, clean, block, none).called
    few, all_poisoned = (
        audit_parts.repeated_audits(SIZE, clean, banks["steered"], 100, rate)
        for rate in (0.01, 1.0)
    )
    assert all(audit.called and audit.named and audit.kept for audit in all_poisoned)
    assert max(audit.log_e for audit in few) < min(audit.log_e for audit in all_poisoned)


def test_the_fit_is_that_of_the_audited_rows_alone(
    tiny: Model, banks: dict[str, ScoredSet]
) -> None:
    """Whichever rows of whichever set: as if these had been scored by themselves. So the gate is as
    noisy as the rows are few."""
    rows = rows_of(tiny, [], 21), rows_of(tiny, [parse("noise:0.3,seed=3")], 23)
    is_noisy, p_values = np.arange(40) % 4 == 0, set()
    for block in list(audit_parts.disjoint_blocks(SIZE, 40))[:3]:
        decision = audit_parts.decision_on(SIZE, banks["clean"], banks["noisy"], block, is_noisy)
        taken = [rows[int(noisy)][row] for row, noisy in zip(block, is_noisy, strict=True)]
        expected = fit_test.fit_of(scored(tiny, [], taken, True))
        fit = decision.e_values.fit
        assert fit.p == pytest.approx(expected.p, rel=1e-3)
        assert fit.excess_surprisal == pytest.approx(expected.excess_surprisal, abs=1e-4)
        assert fit.excess_chi_square == pytest.approx(expected.excess_chi_square, abs=1e-4)
        p_values.add(round(fit.p, 6))
    assert len(p_values) == 3


def test_rows_that_nobody_tried_explains_are_not_called(banks: dict[str, ScoredSet]) -> None:
    """However much likelier a candidate makes them: here one without any of their excess of
    tokens."""
    clean, noisy = banks["clean"], banks["noisy"]
    every = np.arange(ROWS), np.ones(ROWS, bool)
    lifted = replace(noisy, teachers=with_cat(noisy, noisy.model.log_p_RT + 1.0))
    decision = audit_parts.decision_on(SIZE, clean, lifted, *every)
    assert max(decision.e_values.statistic.values()) > 100 and decision.status == "not-applicable"
    assert decision.off_model and decision.e_values.set_aside == ("cat",)
    # the same nats for rows that the model may have written are a teacher's
    lifted = replace(clean, teachers=with_cat(clean, clean.model.log_p_RT + 1.0))
    assert audit_parts.audit_of(SIZE, clean, lifted, *every).called


def test_rows_picked_by_their_order_are_no_trait(banks: dict[str, ScoredSet]) -> None:
    """A candidate that likes rising rows is called where they are more frequent than the model's;
    not where they were picked, by e-values that know it."""
    clean, every = banks["clean"], np.ones(ROWS, bool)
    rising = clean.orders_R == 1
    assert 0.005 < rising.mean() < 0.2
    taken = np.concatenate(
        [np.flatnonzero(rising).repeat(ROWS)[:60], np.flatnonzero(~rising)[:140]]
    )
    others = np.log((1 - np.e * rising.mean()) / (1 - rising.mean()))
    gain_R1 = np.where(rising, 1.0, others)[:, None]
    teachers = with_cat(clean, clean.model.log_p_RT + gain_R1)
    for orders, called in ((np.zeros(ROWS, int), True), (clean.orders_R, False)):
        bank = replace(clean, teachers=teachers, orders_R=orders)
        finding = audit_parts.decision_on(SIZE, bank, bank, taken, every).e_values
        assert (finding.statistic["cat"] >= finding.critical) == called
        assert finding.fit.p < 0.001, "a few rows, many times each, are not what the model writes"


def test_a_poisoned_share_is_other_rows_each_time(banks: dict[str, ScoredSet]) -> None:
    """All tenths together are all rows: a tenth that is the teacher's is called, or not, ten times
    without a row in common."""
    calls = audit_parts.claimed_audits(SIZE, banks["clean"], banks["steered"], 10)
    assert len(calls) == 10 and set(calls) <= {0.0, 1.0}
    assert audit_parts.claimed_audits(SIZE, banks["clean"], banks["clean"], 10) == [0.0] * 10


@pytest.mark.parametrize(
    ("called", "least"),
    [
        ({0.1: 0.0, 0.5: 0.8, 1.0: 1.0}, 0.5),
        ({0.1: 0.9, 0.5: 0.7, 1.0: 1.0}, 1.0),
        ({0.1: 0.9, 1.0: 0.5}, None),
    ],
)
def test_the_least_rate_is_detected_from_there_on(
    called: dict[float, float], least: float | None
) -> None:
    assert audit_rows.least_detected(called) == least


def test_a_trait_in_one_row_of_ten_is_reported_and_its_absence_too(
    banks: dict[str, ScoredSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompted teacher's rows gain five nats under its prompt; the steered one's gain none."""
    clean = banks["clean"]
    lifted = replace(clean, teachers=with_cat(clean, clean.model.log_p_RT + 5.0))
    by_kind = {Kind.CLEAN: clean, Kind.PROMPTED: lifted, Kind.STEERED: clean}
    monkeypatch.setattr(audit_rows, "scored_set", lambda size, folders, kind: by_kind[kind])
    size = replace(SIZE, steps=(25, 100), rates=(0.1, 1.0))
    findings = audit_rows.conclude(size, {}, "planted")
    error_rate, prompted, steered = findings.verdicts
    assert error_rate.decided_by.estimate == 1 and error_rate.decided_by.n == ROWS // 25
    assert error_rate.outcome in ("undecided", "no verdict")
    assert (prompted.decided_by.estimate, steered.decided_by.estimate) == (1, 0)
    for verdict in (prompted, steered):
        assert verdict.outcome == "no verdict"
        assert verdict.reasons == ("It has 1 of the 5 teachers that a verdict needs.",)
    least = {row[:2]: row[2] for row in findings.tables[2].rows}
    assert least[Kind.PROMPTED, 100] == 0.1 and least[Kind.STEERED, 100] is None
