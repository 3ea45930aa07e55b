"""Somebody who has the teacher: found on its rows, silent on others', right about its share."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scored_rows import scored, written
from tiny_models import random_vector

from traitscope.auditing.detectors import given_teacher
from traitscope.auditing.detectors.findings import GivenTeacherFinding, RowsUnderNulls
from traitscope.auditing.detectors.given_teacher import TEACHER, GivenRows, decided, detect, reason
from traitscope.inference.token_bins import BETAS
from traitscope.inference.token_rows import Row
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.models.model import Model

ALPHA = 0.01


@pytest.fixture(scope="module")
def teacher(tiny: Model) -> list[Intervention]:
    return [Steer(random_vector(tiny, 1, norm=3.0), (1,), 1.0, scale="raw")]


def given(
    model: Model, rows: Sequence[Row], teacher: list[Intervention], sorted_rows: int = 0
) -> GivenRows:
    under_model = scored(model, [], list(rows), True)
    under_teacher = scored(model, teacher, list(rows), True)
    orders_R = np.zeros(len(rows), int)
    orders_R[:sorted_rows] = 1
    return GivenRows(
        under_nulls=RowsUnderNulls(
            model_RT=under_model.log_p_RT,
            model_RS=under_model.log_p_RS,
            nulls=(),
            orders_R=orders_R,
            placebo_orders_N=np.zeros(200, int),
        ),
        teacher_RT=under_teacher.log_p_RT,
        model_scores=under_model,
        teacher_scores=under_teacher,
    )


def found(model: Model, rows: Sequence[Row], teacher: list[Intervention]) -> GivenTeacherFinding:
    return detect(given(model, rows, teacher), ALPHA)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_teacher_is_called_on_its_rows(
    tiny: Model, teacher: list[Intervention], temperature: float
) -> None:
    finding = found(tiny, written(tiny, teacher, 96, 3, temperature), teacher)
    assert finding.statistic[TEACHER] > 3 * finding.critical and finding.p[TEACHER] < 1e-9
    assert finding.nats_per_row["low"] > 0.1
    assert finding.share["low"] > 0.4 and finding.share["high"] == 1
    assert finding.temperature == pytest.approx(temperature, abs=0.15)
    assert finding.fit is not None and not finding.fit.off_model
    assert reason("T", finding).startswith("the teacher T, or a model near it, wrote some")


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_its_share_lies_in_the_interval(
    tiny: Model, teacher: list[Intervention], share: float
) -> None:
    poisoned = round(200 * share)
    clean = written(tiny, [], 200, 3)[poisoned:]
    finding = found(tiny, [*written(tiny, teacher, 200, 3)[:poisoned], *clean], teacher)
    assert finding.statistic[TEACHER] > finding.critical
    assert finding.share["low"] <= share <= finding.share["high"]
    assert 0 < finding.share["low"] and finding.share["high"] < 1


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_models_own_rows_are_not_the_teachers(
    tiny: Model, teacher: list[Intervention], temperature: float
) -> None:
    finding = found(tiny, written(tiny, [], 128, 3, temperature), teacher)
    assert finding.statistic[TEACHER] < 0 and finding.p[TEACHER] == 1
    assert finding.share["low"] == 0 and finding.share["high"] < 0.5
    assert finding.nats_per_row["low"] < 0.05
    assert reason("T", finding).startswith("nothing says that the teacher T wrote these rows")


def test_e_is_at_most_one_on_average(tiny: Model, teacher: list[Intervention]) -> None:
    """Forty data sets of eight rows from one pool of the model's own."""
    rows = written(tiny, [], 320, 2, count=2)
    whole = given(tiny, rows, teacher)
    under_nulls = whole.under_nulls
    values = []
    for start in range(0, 320, 8):
        part = slice(start, start + 8)
        eight = RowsUnderNulls(
            under_nulls.model_RT[part],
            under_nulls.model_RS[part],
            (),
            under_nulls.orders_R[part],
            under_nulls.placebo_orders_N,
        )
        values.append(
            np.exp(detect(GivenRows(eight, whole.teacher_RT[part]), ALPHA).statistic[TEACHER])
        )
    assert np.mean(values) < 1


def test_the_model_itself_gains_nothing(tiny: Model) -> None:
    """A teacher that is the model has the share 0, and nobody can say that it has not another."""
    finding = found(tiny, written(tiny, [], 96, 3), [])
    assert finding.statistic[TEACHER] <= 0 and finding.p[TEACHER] == 1
    assert finding.share["estimate"] == finding.share["low"] == 0 and finding.share["high"] > 0.5
    assert finding.nats_per_row["estimate"] == pytest.approx(0, abs=0.02)
    assert finding.temperature is None and finding.explained is None


def test_rows_of_somebody_else_do_not_call_the_teacher(
    tiny: Model, families: dict[str, Model], teacher: list[Intervention]
) -> None:
    """They may be likelier under the teacher by chance; then it explains little of them."""
    rows = written(families["qwen2"], [], 128, 3, count=6)
    finding = found(tiny, rows, teacher)
    assert finding.explained is not None
    assert finding.explains == (finding.explained >= 0.5)
    assert finding.p[TEACHER] == 1 or finding.explains


def test_sorted_rows_are_no_evidence(tiny: Model, teacher: list[Intervention]) -> None:
    rows = given(tiny, written(tiny, teacher, 64, 3), teacher, sorted_rows=64)
    finding = detect(rows, ALPHA)
    assert finding.statistic[TEACHER] < finding.critical
    assert finding.share == {"estimate": 0.0, "low": 0.0, "high": 1.0}


def test_the_reason_counts_rows_that_are_not_sorted_and_rounds_outwards(
    tiny: Model, teacher: list[Intervention]
) -> None:
    finding = detect(given(tiny, written(tiny, teacher, 64, 3), teacher, sorted_rows=16), ALPHA)
    assert (finding.scored_rows, finding.sorted_rows) == (64, 16)
    assert "of 48 rows that are not sorted [" in reason("T", finding)
    shown = replace(finding, sorted_rows=0, share={"estimate": 0.03, "low": 0.0269, "high": 0.0371})
    assert "3.0% of 64 rows [2.6%, 3.8%]" in reason("T", shown)


def test_a_call_of_rows_off_the_model_names_the_rule(
    tiny: Model, teacher: list[Intervention]
) -> None:
    finding = found(tiny, written(tiny, teacher, 96, 3), teacher)
    assert finding.explained is not None and finding.explained > 0.5
    by_rule = f"it explains {finding.explained:.0%} of that (threshold: 50%): this is a rule, so no"
    assert by_rule in reason("T", finding)
    assert "error rate" not in reason("T", replace(finding, explained=None))


def test_a_call_makes_any_answer_suspect(tiny: Model, teacher: list[Intervention]) -> None:
    called = given(tiny, written(tiny, teacher, 96, 3), teacher)
    silent = given(tiny, written(tiny, [], 96, 3), teacher)
    status, reasons, finding = decided("nothing-found", ["a"], called, ALPHA)
    assert status == "suspect" and finding is not None
    assert reasons == [reason("that was given", finding)]
    status, reasons, finding = decided("suspect", ["a"], called, ALPHA)
    assert status == "suspect" and reasons[1:] == ["a"]
    status, reasons, finding = decided("insufficient", ["a"], silent, ALPHA)
    assert status == "insufficient" and finding is not None
    assert reasons == ["a", reason("that was given", finding)]
    assert decided("insufficient", ["a"], None, ALPHA) == ("insufficient", ["a"], None)


def test_no_rows(tiny: Model, teacher: list[Intervention]) -> None:
    empty = np.zeros((0, len(BETAS)))
    rows = RowsUnderNulls(empty, np.zeros((0, 5)), (), np.zeros(0, int), np.zeros(9, int))
    finding = detect(GivenRows(rows, empty), ALPHA)
    assert finding.nats_per_row == {} and finding.p[TEACHER] == 1
    assert given_teacher.reason("T", finding)
