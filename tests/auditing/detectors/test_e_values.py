"""E-values keep their promise on the model's own rows and grow on a teacher's."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from math import inf, log
from operator import add

import numpy as np
import pytest
import torch
from scored_rows import scored, written
from tiny_models import random_vector

from traitscope.auditing.detectors import e_values, temperatures
from traitscope.auditing.detectors.findings import Likelihoods, Null, RowsUnderNulls
from traitscope.auditing.search import GridPoint, PromptTeacher
from traitscope.inference.samplers import SAMPLERS
from traitscope.inference.token_bins import BETAS, BINS, PLAIN, WAYS
from traitscope.inference.token_scores import TokenScores
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.models.model import Model


@pytest.fixture(scope="module")
def steer(tiny: Model) -> list[Intervention]:
    return [Steer(random_vector(tiny, 1, norm=3.0), (1,), 1.0, scale="raw")]


def null_of(*parts: TokenScores) -> e_values.NullHypothesis:
    """The null hypothesis for rows of one or two scored sets."""
    scores = reduce(add, parts)
    return e_values.null_of(np.concatenate([scores.log_p_RT, scores.log_p_RS], 1).T)


@pytest.mark.parametrize("temperatures", [(1.0,), (0.36,), (0.7, 1.3), (0.5, 1.5)])
def test_e_is_at_most_one_on_the_models_own_rows(
    tiny: Model, steer: list[Intervention], temperatures: tuple[float, ...]
) -> None:
    """Forty data sets of eight rows from one pool, at one temperature or at two: the mean of e
    stays at or under 1."""
    n = 320 // len(temperatures)
    pools = [written(tiny, [], n, 2, temperature, count=2) for temperature in temperatures]
    rows = [row for rows_of_each in zip(*pools, strict=True) for row in rows_of_each]
    plain, told = (scored(tiny, teacher, rows, True) for teacher in ([], steer))
    values = []
    for start in range(0, 320, 8):
        log_p_KR = np.concatenate([plain.log_p_RT, plain.log_p_RS], 1)[start : start + 8].T
        null = e_values.null_of(log_p_KR)
        values.append(np.exp(e_values.log_e_value(null, told.log_p_RT[start : start + 8])))
    assert np.mean(values) < 1
    assert np.mean(np.array(values) >= 20) <= 0.1


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_e_grows_on_a_teachers_rows(tiny: Model, steer: list[Intervention], share: float) -> None:
    poisoned = round(128 * share)
    rows = written(tiny, steer, 128, seed=3)[:poisoned] + written(tiny, [], 128, seed=3)[poisoned:]
    found = [
        scored(tiny, told, rows, True)
        for told in ([], steer, [Steer(random_vector(tiny, 2, norm=3.0), (1,), 1.0, scale="raw")])
    ]
    null = null_of(found[0])
    right, wrong = (e_values.log_e_value(null, other.log_p_RT) for other in found[1:])
    assert right > np.log(1000) and right > wrong + 3


@pytest.mark.parametrize("beta", [0.83, 1.42, 2.7, 8.4])
def test_the_largest_likelihood_between_two_temperatures_is_found(beta: float) -> None:
    logits = torch.randn(500, 10, generator=torch.Generator().manual_seed(9)).double()
    chosen = (beta * logits).softmax(1).multinomial(1, generator=torch.Generator().manual_seed(10))

    def total(b: float) -> float:
        return float((b * logits).log_softmax(1).gather(1, chosen).sum())

    expected = max(total(b) for b in np.geomspace(0.6, 10, 2000))
    assert temperatures.best_log_likelihood(np.array([total(b) for b in BETAS])) == pytest.approx(
        expected, abs=0.2
    )


def with_orders(
    model_R: np.ndarray, gain_R: np.ndarray, order_R: np.ndarray, placebo_orders_N: np.ndarray
) -> Likelihoods:
    """Rows with one candidate, which adds a gain to each."""
    candidate = {"owl": {"its prompt": by_temperature(model_R + gain_R)}}
    plain = likelihoods(model_R, candidate, {"its prompt": 1.0})
    rows = replace(plain.under_nulls, orders_R=order_R, placebo_orders_N=placebo_orders_N)
    return replace(plain, under_nulls=rows)


def test_rows_picked_by_their_order_are_no_evidence() -> None:
    """A candidate writes rising rows five times as often as the model. Rows of the model, of which
    rising ones were picked until a quarter rises, would be called with the sorted rows counted."""
    rng, usual, likes = np.random.default_rng(5), 0.04, 0.2
    placebos = (rng.random(400) < usual).astype(int)
    counted, left_out = [], []
    for _ in range(100):
        order_R = (rng.random(60) < 0.25).astype(int)
        rising, other = np.log(likes / usual), np.log((1 - likes) / (1 - usual))
        gain_R = np.where(order_R == 1, rising, other)
        model_R = np.full(60, -50.0)
        data = with_orders(model_R, gain_R, order_R, placebos)
        left_out.append(e_values.detect(data, 1, 0.01).statistic["owl"])
        as_unsorted = with_orders(model_R, gain_R, 0 * order_R, placebos)
        counted.append(e_values.detect(as_unsorted, 1, 0.01).statistic["owl"])
    assert np.mean(np.array(counted) > log(1000)) > 0.5
    assert np.mean(np.exp(left_out)) < 1 and max(left_out) < log(100)


def test_sorting_a_quarter_of_the_rows_hides_no_teacher() -> None:
    """128 rows, to each of which the teacher adds 0.25 nats; sorted ones it makes unlikely."""
    rng = np.random.default_rng(6)
    placebos = (rng.random(400) < 0.03).astype(int)
    model_R = rng.normal(-60, 3, 128)
    order_R = np.zeros(128, int)
    found = e_values.detect(with_orders(model_R, np.full(128, 0.25), order_R, placebos), 1, 0.01)
    order_R[:32] = 1
    gain_R = np.where(order_R == 1, -2.0, 0.25)
    after = e_values.detect(with_orders(model_R, gain_R, order_R, placebos), 1, 0.01)
    assert found.p["owl"] < 1e-6 and after.p["owl"] < 1e-4
    lost = found.statistic["owl"] - after.statistic["owl"]
    assert lost == pytest.approx(32 * 0.25 + 96 * 0.03, abs=2.5)
    assert after.sorted_rows == 32 and after.sorted_by_model == pytest.approx(0.03, abs=0.03)


def test_clean_rows_that_are_all_sorted_leave_no_evidence_in_the_others() -> None:
    """Every other row has then a factor that leaves one of the two e-values: that in which sorted
    rows count as the nulls'. Where all are sorted, both are 1 at most."""
    model_R, order_R = np.full(60, -50.0), np.zeros(60, int)

    def found(placebos: int) -> float:
        data = with_orders(model_R, np.full(60, 0.5), order_R, np.ones(placebos, int))
        finding = e_values.detect(data, 1, 0.01)
        assert finding.sorted_by_model == pytest.approx(placebos / (placebos + 1))
        return finding.statistic["owl"]

    order_R[:30] = 1
    assert found(80) == pytest.approx(found(8000), abs=1e-6) and found(80) > found(1) - log(2)
    order_R[:] = 1
    assert found(80) <= 0


def test_the_set_of_clean_rows_that_sorts_most_counts() -> None:
    """A reference with more sorted rows than the model's own takes evidence away."""
    rng = np.random.default_rng(6)
    order_R = (rng.random(128) < 0.3).astype(int)
    gain_R = np.where(order_R == 1, -2.0, 0.25)
    data = with_orders(rng.normal(-60, 3, 128), gain_R, order_R, np.zeros(400, int))
    sets = (np.ones(400, int), (rng.random(400) < 0.3).astype(int))
    shares = [0.0, 400 / 401, (sets[1].sum() + 1) / 401]
    found = []
    for further in ((), sets[:1], sets[1:], sets):
        rows = replace(data.under_nulls, further_orders=further)
        found.append(e_values.detect(replace(data, under_nulls=rows), 1, 0.01))
    assert [item.sorted_by_model for item in found] == pytest.approx([*shares, shares[1]])
    assert found[0].p["owl"] < 1e-4 < found[2].p["owl"]
    assert found[3].statistic == found[1].statistic


def test_benign_kinds_say_what_they_explain(tiny: Model, steer: list[Intervention]) -> None:
    """Rows of the three likeliest tokens, drawn by the test itself, are explained by truncation."""
    rows = written(tiny, [], 64, 2, temperature=0.4)
    scores = scored(tiny, [], rows, True)
    plain = likelihoods(np.zeros(64), {}, {}).under_nulls
    data = replace(plain, model_RT=scores.log_p_RT, model_RS=scores.log_p_RS)
    gains = e_values.benign_gains(data)
    assert set(gains) == {"temperature", "truncation", "penalty", "rule"}
    assert 0 <= gains["temperature"] <= min(gains.values()) + 0.05


def by_temperature(log_p_R: np.ndarray) -> np.ndarray:
    return log_p_R[:, None] - 3 * (np.array(BETAS) - 1) ** 2


def likelihoods(
    model_R: np.ndarray,
    teachers: dict[str, dict[str, np.ndarray]],
    prior: dict[str, float],
    nulls: Sequence[Null] = (),
) -> Likelihoods:
    """Rows that fit the model perfectly, in no order."""
    T, P, K = len(BETAS), len(WAYS), BINS
    counts = np.zeros((P, K)), np.zeros((T, P, K)), np.zeros((T, P, K, K))
    scores = TokenScores(by_temperature(model_R), np.full(len(model_R), 5), 2.0, *counts)
    rows = RowsUnderNulls(
        model_RT=scores.log_p_RT,
        model_RS=np.repeat(scores.log_p_RT[:, :1] - 9.0, len(SAMPLERS), 1),
        nulls=nulls,
        orders_R=np.zeros(len(model_R), int),
        placebo_orders_N=np.zeros(30, int),
    )
    return Likelihoods(rows, teachers, prior, fit_scores=scores, teacher_scores={})


@pytest.fixture(scope="module")
def model_R() -> np.ndarray:
    return np.random.default_rng(7).normal(-10, 1, 40)


@pytest.fixture(scope="module")
def teachers(model_R: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    right = {
        "its prompt": by_temperature(model_R - 0.2),
        "its vector": by_temperature(model_R + 0.5),
    }
    wrong = {"its prompt": by_temperature(model_R - 0.4)}
    same = {"its prompt": by_temperature(model_R)}
    return {"right": right, "wrong": wrong, "same": same}


HALVES = {"its prompt": 0.5, "its vector": 0.5}


def test_the_right_candidate_comes_first(
    model_R: np.ndarray, teachers: dict[str, dict[str, np.ndarray]]
) -> None:
    finding = e_values.detect(likelihoods(model_R, teachers, HALVES), 3, 0.01)
    assert list(finding.statistic) == ["right", "same", "wrong"]
    assert finding.p["right"] < 1e-6 and finding.p["wrong"] == 1
    assert finding.statistic["same"] == pytest.approx(0, abs=4)
    assert finding.critical == pytest.approx(log(300)) and finding.scored_rows == 40
    assert finding.nats_per_row["right"] == pytest.approx(0.5)
    assert finding.where["right"] == "its vector" and finding.teachers == 4
    assert finding.fit.temperature == 1 / BETAS[PLAIN] and not finding.fit.off_model
    assert finding.fit.excess_surprisal == pytest.approx(0.01)


def test_all_candidates_and_teachers_are_paid_for(
    model_R: np.ndarray, teachers: dict[str, dict[str, np.ndarray]]
) -> None:
    """Also those that are not tried: they count as zero in the mean."""
    both = e_values.detect(likelihoods(model_R, teachers, HALVES), 3, 0.01)
    by_vector = {"right": {"its vector": teachers["right"]["its vector"]}, "wrong": {}}
    alone = e_values.detect(likelihoods(model_R, by_vector, {"its vector": 1.0}), 30, 0.01)
    gain = alone.statistic["right"] - both.statistic["right"]
    assert gain == pytest.approx(log(2), abs=1e-3)
    assert alone.critical - both.critical == pytest.approx(log(10))
    assert alone.teachers == 1 and set(alone.statistic) == {"right"}, "wrong has no teacher"
    prompt = {"wrong": teachers["wrong"]}
    whole = e_values.detect(likelihoods(model_R, prompt, {"its prompt": 1.0}), 3, 0.01)
    assert whole.statistic["wrong"] - both.statistic["wrong"] == pytest.approx(log(2))
    some = {"a": {"its prompt": by_temperature(model_R + 0.15)}}
    p = [e_values.detect(likelihoods(model_R, some, HALVES), n, 0.01).p["a"] for n in (3, 30)]
    assert p[1] > p[0]


def test_a_null_that_explains_the_rows_as_well_leaves_no_evidence(
    model_R: np.ndarray, teachers: dict[str, dict[str, np.ndarray]]
) -> None:
    null = Null(by_temperature(model_R + 0.5), "Be helpful.")
    finding = e_values.detect(likelihoods(model_R, teachers, HALVES, [null]), 3, 0.01)
    assert finding.p["right"] == 1 and finding.context == "Be helpful."
    without = e_values.detect(likelihoods(model_R, teachers, HALVES), 3, 0.01)
    assert without.context is None


def test_no_teacher_no_call(model_R: np.ndarray) -> None:
    finding = e_values.detect(likelihoods(model_R[:0], {}, {}), 3, 0.01)
    assert finding.statistic == {} and finding.critical == inf and finding.scored_rows == 0


def test_teachers_of_a_kind_are_compared_with_each_other_and_not_by_their_text() -> None:
    """What moves all candidates alike is divided out, for each kind of teacher by itself.

    A teacher that is alone of its kind is divided by its own z over 0.67, the normal median.
    """
    rng = np.random.default_rng(0)
    gains: dict[str, dict] = {}
    for name in ("ant", "bee", "cat", "dog", "elk", "fox"):
        shift = np.array([1.0, 0.0])
        for_all, for_none = rng.standard_normal((2, 200, 2))
        point = GridPoint(name, 3, 0.5)
        gains[name] = {PromptTeacher(): for_none, point: for_all + shift}
    gains["cat"][PromptTeacher()] = gains["cat"][PromptTeacher()] + np.array([1.0, 0.0])
    found = e_values.against_reference(gains)
    assert str(GridPoint("ant", 3, 0.5)) == str(GridPoint("ant", 3, 0.5 + 1e-9))
    assert found["cat"].teacher == PromptTeacher() and found["cat"].p < 0.01
    assert min(value.p for name, value in found.items() if name != "cat") > 0.05
    assert max(value.z for name, value in found.items() if name != "cat") < 3
    near = {}
    for number, (name, by_teacher) in enumerate(gains.items()):
        steered = GridPoint(name, 3, 0.5 + number * 1e-9)
        near[name] = {steered: by_teacher[GridPoint(name, 3, 0.5)]}
    assert {round(value.z, 2) for value in e_values.against_reference(near).values()} == {0.67}
