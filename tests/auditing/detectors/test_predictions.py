"""The detector without candidates: right about who learnt something, silent on the model's rows."""

from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pytest
from scored_rows import written
from tiny_models import random_vector

from traitscope.auditing.detectors.findings import Null, RowsUnderNulls
from traitscope.auditing.detectors.predictions import CHANGE, PredictedRows, detect
from traitscope.inference.token_rows import Row, classes_of
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.training.prequential import TEMPERATURES, predictions

RATES = (1e-3, 3e-3)
"rates at which a tiny model learns in a hundred rows"


def predicted(model: Model, rows: list[Row], nulls: tuple[Null, ...] = ()) -> PredictedRows:
    found = predictions(model, rows, classes_of(model, True), RATES)
    return PredictedRows(
        under_nulls=RowsUnderNulls(
            model_RT=found.model.log_p_RT,
            model_RS=found.model.log_p_RS,
            nulls=nulls,
            orders_R=np.zeros(len(rows), int),
            placebo_orders_N=np.zeros(200, int),
        ),
        learners_JRT=found.learners_JRT,
        plain=TEMPERATURES.index(1.0),
    )


def with_nulls(rows: PredictedRows, **changed: Any) -> PredictedRows:
    """The rows with something else known of the nulls or of how they are sorted."""
    return replace(rows, under_nulls=replace(rows.under_nulls, **changed))


def steered(model: Model, n: int) -> list[Row]:
    teacher = [Steer(random_vector(model, 1, norm=3.0), (1,), 1.0, scale="raw")]
    return written(model, teacher, n, seed=3)


def shuffled(rows: list[Row]) -> list[Row]:
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[i] for i in order]


def test_a_teachers_rows_are_called_and_so_is_a_half_of_them(tiny: Model) -> None:
    whole = detect(predicted(tiny, steered(tiny, 192)), 0.003)
    assert whole.p[CHANGE] < 1e-6 and whole.predicted_rows == 192
    assert whole.learnt["low"] > 0
    mixed = shuffled(steered(tiny, 192) + written(tiny, [], 192, seed=5))
    half = detect(predicted(tiny, mixed), 0.003)
    assert half.p[CHANGE] < 0.003
    assert half.statistic[CHANGE] < whole.statistic[CHANGE]
    assert half.critical == pytest.approx(log(1 / 0.003))


@pytest.mark.parametrize("temperatures", [(1.0,), (0.7, 1.3), (0.4, 2.0)])
def test_the_models_own_rows_are_not_called(tiny: Model, temperatures: tuple[float, ...]) -> None:
    rows = []
    for temperature in temperatures:
        n = 192 // len(temperatures)
        rows += written(tiny, [], n, seed=7, temperature=temperature)
    finding = detect(predicted(tiny, shuffled(rows)), 0.003)
    assert finding.statistic[CHANGE] < 0 and finding.p[CHANGE] == 1


def test_a_null_that_wrote_the_rows_leaves_no_evidence(tiny: Model) -> None:
    """The learners know no more than the null: the rows' own teacher, were it a plain prompt."""
    rows = predicted(tiny, steered(tiny, 128))
    called = detect(rows, 0.003)
    teacher_RT = rows.under_nulls.model_RT + 3.0
    silent = detect(with_nulls(rows, nulls=(Null(teacher_RT, "Be brief."),)), 0.003)
    assert called.p[CHANGE] < 0.003 < silent.p[CHANGE]


def test_sorted_rows_are_no_evidence_and_hide_none_of_the_others(tiny: Model) -> None:
    rows = predicted(tiny, steered(tiny, 192))
    orders_R = np.zeros(192, int)
    orders_R[::4] = 1
    sorted_out = detect(with_nulls(rows, orders_R=orders_R), 0.003)
    assert sorted_out.p[CHANGE] < 0.003
    nothing = detect(with_nulls(rows, orders_R=np.ones(192, int)), 0.003)
    assert nothing.p[CHANGE] == 1


def test_the_curve_grows_by_looks_and_the_largest_counts(tiny: Model) -> None:
    finding = detect(predicted(tiny, steered(tiny, 100)), 0.003)
    assert [n for n, _ in finding.curve] == [32, 64, 96, 100]
    assert finding.statistic[CHANGE] == max(value for _, value in finding.curve)
