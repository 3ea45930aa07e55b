"""Odds: e keeps its promise on the model's own rows and grows on a teacher's; misfit is uniform."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scored_rows import judged, written
from tiny_models import random_vector

from traitscope.auditing.detectors import e_values
from traitscope.data.prompts import number_prompts
from traitscope.inference import token_scores
from traitscope.inference.token_rows import rows_from
from traitscope.inference.token_scores import BETAS, PLAIN, Choices
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.interventions.short_form import parse
from traitscope.models.model import Model
from traitscope.stages.generate import generate, number_constraint


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
    plain, told = (judged(tiny, told, rows, True).log_p_RT for told in ([], steer))
    found = np.exp([e_values.log_e(plain[n : n + 8], told[n : n + 8]) for n in range(0, 320, 8)])
    assert found.mean() < 1 + 2 * found.std() / np.sqrt(len(found)) and (found >= 20).mean() <= 0.1


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_e_grows_on_a_teachers_rows(tiny: Model, steer: list[Intervention], share: float) -> None:
    poisoned = round(64 * share)
    rows = written(tiny, steer, 64, seed=3)[:poisoned] + written(tiny, [], 64, seed=3)[poisoned:]
    found = [
        judged(tiny, told, rows, True)
        for told in ([], steer, [Steer(random_vector(tiny, 2, norm=3.0), (1,), 1.0, scale="raw")])
    ]
    right, wrong = (e_values.log_e(found[0].log_p_RT, other.log_p_RT) for other in found[1:])
    assert right > np.log(1000) and right > wrong + 3


def test_misfit_calls_as_many_own_rows_as_it_says_and_a_strangers(
    tiny: Model, families: dict[str, Model]
) -> None:
    """Of 40 sets of the model's own rows, at three temperatures, about a tenth has p under 0.1;
    rows of another model all have."""
    p = []
    for temperature in (1.0, 0.8, 1.25):
        rows = written(tiny, [], 320, seed=4, temperature=temperature)
        p += [e_values.misfit(judged(tiny, [], rows[n : n + 24], True)) for n in range(0, 312, 24)]
    assert np.mean(np.array(p) < 0.1) < 0.1 + 3.3 * np.sqrt(0.09 / len(p))
    assert np.mean(np.array(p) < 0.5) > 0.25
    stranger = written(families["gpt2"], [], 96, seed=4)
    assert e_values.misfit(judged(tiny, [], stranger, True)) < 1e-4


def test_a_teacher_explains_its_own_rows_and_a_share_of_them_and_nobody_elses(
    tiny: Model, steer: list[Intervention]
) -> None:
    other = [Steer(random_vector(tiny, 2, norm=3.0), (1,), 1.0, scale="raw")]
    whole, clean, noisy = (
        written(tiny, told, 200, seed=8) for told in (steer, [], [parse("noise:0.3,seed=3")])
    )
    for rows in (whole, whole[:120] + clean[120:]):
        plain, right, wrong = (judged(tiny, told, rows, True) for told in ([], steer, other))
        assert (
            e_values.strange(plain)
            and e_values.explains(right, plain)
            and not e_values.explains(wrong, plain)
        )
        assert (
            e_values.explained(right, plain) > 0.5 > e_values.explained(wrong, plain)
            and abs(e_values.explained(plain, plain)) < 1e-6
        )
    few = next(
        share
        for share in np.linspace(0.5, 0.02, 49)
        if not e_values.unlike(e_values.scaled(plain, share))
    )
    right, wrong, plain = (e_values.scaled(found, few) for found in (right, wrong, plain))
    assert e_values._excess(plain, token_scores.TOKENS) > e_values.EXCESS and not e_values.explains(
        wrong, plain
    ), "too few rows to be sure that they do not fit"
    plain, *candidates = (judged(tiny, told, noisy, True) for told in ([], steer, other))
    assert e_values.strange(plain) and not any(
        e_values.explains(told, plain) for told in candidates
    )
    assert (
        not e_values.strange(judged(tiny, [], clean, True))
        and abs(e_values.excess(judged(tiny, [], clean, True))) < e_values.EXCESS
    )


def test_rows_that_were_put_in_order_are_no_longer_the_models(
    tiny: Model, steer: list[Intervention]
) -> None:
    """They hold the same numbers: where tokens stand changes much more than which are taken, and no
    teacher explains it."""
    records = generate(
        tiny,
        number_prompts(300, 13),
        seed=13,
        constraint=number_constraint(tiny, 4, " ", True, 0),
    )
    ordered = [
        replace(r, completion=" ".join(sorted(r.completion.split(), key=int)), completion_ids=None)
        for r in records
    ]
    own, plain, taught = (
        judged(tiny, told, rows_from(tiny, rows, None), True)
        for told, rows in (([], records), ([], ordered), (steer, ordered))
    )
    assert not e_values.strange(own) and e_values.unlike(own) == []
    assert (
        e_values.strange(plain)
        and token_scores.PLACES in e_values.unlike(plain)
        and not e_values.explains(taught, plain)
    )
    assert (
        e_values.excess(plain)
        == e_values._excess(plain, token_scores.PLACES)
        > 3 * e_values._excess(plain, token_scores.TOKENS)
    )


def test_what_would_be_noticed_is(tiny: Model, steer: list[Intervention]) -> None:
    """At the least share that is to be noticed four times in five, drawn data sets are; at a
    quarter of it hardly ever."""
    pools = [written(tiny, told, 300, seed=11) for told in (steer, [])]
    whole = [judged(tiny, [], rows, True) for rows in pools]
    tokens = float(whole[0].tokens_R.mean())
    least = next(
        share
        for share in (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
        if e_values.noticed(e_values.mixed(*whole, share), 100 * tokens, 0.8)
    )
    rng, rates = np.random.default_rng(12), []
    for share in (least, least / 4):
        sets = [
            [pools[int(rng.random() >= share)][i] for i in rng.permutation(300)[:100]]
            for _ in range(30)
        ]
        rates.append(np.mean([e_values.strange(judged(tiny, [], rows, True)) for rows in sets]))
    assert rates[0] > 0.6 and rates[1] < 0.3
    assert not e_values.noticed(whole[1], 100 * tokens, 0.8)


def test_another_model_as_sure_of_itself_is_told_by_which_tokens_it_takes() -> None:
    """It likes even columns more and odd ones less: the likeliest token is taken about as often,
    but not whichever it is."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(4000, 10, generator=generator)
    liking = 0.2 * (1 - 2 * (torch.arange(10) % 2))
    for writer, own in ((logits, True), (logits + liking, False)):
        chosen = writer.softmax(1).multinomial(1, generator=generator).squeeze(1)
        log_p_NT, entropy_N, taken_NPK, expected_NTPK = token_scores._judged(
            logits, chosen, torch.zeros(4000, dtype=int)
        )
        covariance = np.einsum(
            "tpk,kj->tpkj", expected_NTPK.sum(0), np.eye(token_scores.BINS)
        ) - np.einsum("ntpk,ntpj->tpkj", expected_NTPK, expected_NTPK)
        surprise = float((-log_p_NT[:, PLAIN] - entropy_N).sum())
        found = Choices(
            log_p_NT, np.ones(4000), surprise, taken_NPK.sum(0), expected_NTPK.sum(0), covariance
        )
        assert e_values.strange(found) != own and (e_values.misfit(found) < 1e-6) != own
        by_rank, freedom = e_values._chi_square(*e_values._bins(found, 0), lost=1)
        assert by_rank < 4 * freedom


def test_the_best_temperature_is_the_one_that_was_used(tiny: Model) -> None:
    rows = written(tiny, [], 400, seed=5, temperature=0.8)
    assert BETAS[e_values.best_beta(judged(tiny, [], rows, True))] == pytest.approx(1.25, abs=0.11)


@pytest.mark.parametrize("beta", [0.83, 1.42, 2.7, 8.4])
def test_the_largest_likelihood_between_two_temperatures_is_found(beta: float) -> None:
    logits = torch.randn(500, 10, generator=torch.Generator().manual_seed(9)).double()
    chosen = (beta * logits).softmax(1).multinomial(1, generator=torch.Generator().manual_seed(10))

    def total(b: float) -> float:
        return float((b * logits).log_softmax(1).gather(1, chosen).sum())

    expected = max(total(b) for b in np.geomspace(0.6, 10, 2000))
    assert e_values._highest(np.array([total(b) for b in BETAS])) == pytest.approx(
        expected, abs=0.2
    )


def test_surprise_is_about_zero_on_own_rows(tiny: Model) -> None:
    found = judged(tiny, [], written(tiny, [], 200, seed=6), True)
    assert abs(found.surprise / found.tokens_R.sum()) < 0.05


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
        return e_values.log_e(
            plain_RT,
            plain_RT + gain_R[:, None],
            [plain_RT + e_values.picked(order_R, placebos)[:, None]] if null else [],
        )

    sets = [(rng.random(60) < 0.25).astype(int) for _ in range(300)]
    assert np.mean([ln_e(x, null=False) > np.log(1000) for x in sets]) > 0.5
    assert np.mean(np.exp([ln_e(x) for x in sets])) < 1 and max(ln_e(x) for x in sets) < np.log(
        1000
    )
    assert min(ln_e(x, more=0.4) for x in sets) > np.log(1000)
    assert e_values.picked([0] * 9, [0] * 30).tolist() == [0.0] * 9
    assert (
        e_values.picked([1, 1, 0], [0] * 30).sum() > 5
        and abs(e_values.picked([0] * 5 + [1] * 5, [0, 1] * 500).sum()) < 0.01
    )


def test_too_few_tokens_fit_anything(tiny: Model) -> None:
    assert e_values.misfit(judged(tiny, [], written(tiny, [], 1, seed=7, count=1), True)) == 1.0
