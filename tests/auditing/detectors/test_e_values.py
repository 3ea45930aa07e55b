"""E-values keep their promise on the model's own rows and grow on a teacher's."""

from collections.abc import Sequence
from math import inf, log

import numpy as np
import pytest
import torch
from scored_rows import scored, written
from tiny_models import random_vector

from traitscope.auditing.detectors import e_values
from traitscope.auditing.detectors.findings import Likelihoods, Null
from traitscope.inference.token_bins import BETAS, BINS, PLAIN, WAYS
from traitscope.inference.token_scores import TokenScores
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.models.model import Model


@pytest.fixture(scope="module")
def steer(tiny: Model) -> list[Intervention]:
    return [Steer(random_vector(tiny, 1, norm=3.0), (1,), 1.0, scale="raw")]


@pytest.mark.parametrize("temperature", [1.0, 0.8, 0.36])
def test_e_is_at_most_one_on_the_models_own_rows(
    tiny: Model, steer: list[Intervention], temperature: float
) -> None:
    """Forty data sets of eight rows from one pool, at three temperatures: the mean of e stays at or
    under 1."""
    rows = written(tiny, [], 320, seed=2, temperature=temperature, count=2)
    plain, told = (scored(tiny, told, rows, True).log_p_RT for told in ([], steer))
    found = np.exp(
        [e_values.log_e_value(plain[n : n + 8], told[n : n + 8]) for n in range(0, 320, 8)]
    )
    assert found.mean() < 1 + 2 * found.std() / np.sqrt(len(found)) and (found >= 20).mean() <= 0.1


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_e_grows_on_a_teachers_rows(tiny: Model, steer: list[Intervention], share: float) -> None:
    poisoned = round(64 * share)
    rows = written(tiny, steer, 64, seed=3)[:poisoned] + written(tiny, [], 64, seed=3)[poisoned:]
    found = [
        scored(tiny, told, rows, True)
        for told in ([], steer, [Steer(random_vector(tiny, 2, norm=3.0), (1,), 1.0, scale="raw")])
    ]
    right, wrong = (e_values.log_e_value(found[0].log_p_RT, other.log_p_RT) for other in found[1:])
    assert right > np.log(1000) and right > wrong + 3


@pytest.mark.parametrize("beta", [0.83, 1.42, 2.7, 8.4])
def test_the_largest_likelihood_between_two_temperatures_is_found(beta: float) -> None:
    logits = torch.randn(500, 10, generator=torch.Generator().manual_seed(9)).double()
    chosen = (beta * logits).softmax(1).multinomial(1, generator=torch.Generator().manual_seed(10))

    def total(b: float) -> float:
        return float((b * logits).log_softmax(1).gather(1, chosen).sum())

    expected = max(total(b) for b in np.geomspace(0.6, 10, 2000))
    assert e_values.best_log_likelihood(np.array([total(b) for b in BETAS])) == pytest.approx(
        expected, abs=0.2
    )


def test_rows_picked_by_their_order_are_a_null() -> None:
    """A candidate writes rising rows five times as often as the model. Of rows of the model among
    which rising ones were picked until a quarter rises it would be sure; with this null it is not,
    300 times, and the bound holds; its own rows, which it makes likelier besides, it is sure of.
    """
    rng, usual, likes = np.random.default_rng(5), 0.04, 0.2
    placebos = (rng.random(400) < usual).astype(int)

    def ln_e(order_R: np.ndarray, more: float = 0.0, null: bool = True) -> float:
        plain_RT = np.full((len(order_R), len(BETAS)), -50.0)
        gain_R = (
            np.where(order_R == 1, np.log(likes / usual), np.log((1 - likes) / (1 - usual))) + more
        )
        return e_values.log_e_value(
            plain_RT,
            plain_RT + gain_R[:, None],
            [plain_RT + e_values.selection_gain(order_R, placebos)[:, None]] if null else [],
        )

    sets = [(rng.random(60) < 0.25).astype(int) for _ in range(300)]
    assert np.mean([ln_e(x, null=False) > np.log(1000) for x in sets]) > 0.5
    assert np.mean(np.exp([ln_e(x) for x in sets])) < 1 and max(ln_e(x) for x in sets) < np.log(
        1000
    )
    assert min(ln_e(x, more=0.4) for x in sets) > np.log(1000)
    assert e_values.selection_gain([0] * 9, [0] * 30).tolist() == [0.0] * 9
    assert (
        e_values.selection_gain([1, 1, 0], [0] * 30).sum() > 5
        and abs(e_values.selection_gain([0] * 5 + [1] * 5, [0, 1] * 500).sum()) < 0.01
    )


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
    return Likelihoods(
        model_RT=scores.log_p_RT,
        teachers=teachers,
        nulls=nulls,
        prior=prior,
        orders_R=np.zeros(len(model_R), int),
        placebo_orders_N=np.zeros(30, int),
        fit_scores=scores,
        model_scores=scores,
        teacher_scores={},
    )


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
