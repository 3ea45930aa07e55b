"""Goodness of fit: p is uniform on the model's own rows; others are off-model; a teacher explains
its own rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scored_rows import scored, written
from tiny_models import random_vector

from traitscope.auditing.detectors import fit_test
from traitscope.data.prompts import number_prompts
from traitscope.inference import token_bins
from traitscope.inference.token_bins import BETAS, PLAIN
from traitscope.inference.token_rows import rows_from
from traitscope.inference.token_scores import TokenScores
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.interventions.short_form import parse
from traitscope.models.model import Model
from traitscope.stages.generate import generate, number_constraint


@pytest.fixture(scope="module")
def steer(tiny: Model) -> list[Intervention]:
    return [Steer(random_vector(tiny, 1, norm=3.0), (1,), 1.0, scale="raw")]


def test_misfit_calls_as_many_own_rows_as_it_says_and_a_strangers(
    tiny: Model, families: dict[str, Model]
) -> None:
    """Of 40 sets of the model's own rows, at three temperatures, about a tenth has p under 0.1;
    rows of another model all have."""
    p = []
    for temperature in (1.0, 0.8, 1.25):
        rows = written(tiny, [], 320, seed=4, temperature=temperature)
        p += [fit_test.fit_p(scored(tiny, [], rows[n : n + 24], True)) for n in range(0, 312, 24)]
    assert np.mean(np.array(p) < 0.1) < 0.1 + 3.3 * np.sqrt(0.09 / len(p))
    assert np.mean(np.array(p) < 0.5) > 0.25
    stranger = written(families["gpt2"], [], 96, seed=4)
    assert fit_test.fit_p(scored(tiny, [], stranger, True)) < 1e-4


def test_a_teacher_explains_its_own_rows_and_a_share_of_them_and_nobody_elses(
    tiny: Model, steer: list[Intervention]
) -> None:
    other = [Steer(random_vector(tiny, 2, norm=3.0), (1,), 1.0, scale="raw")]
    whole, clean, noisy = (
        written(tiny, told, 200, seed=8) for told in (steer, [], [parse("noise:0.3,seed=3")])
    )
    for rows in (whole, whole[:120] + clean[120:]):
        plain, right, wrong = (scored(tiny, told, rows, True) for told in ([], steer, other))
        assert (
            fit_test.is_off_model(plain)
            and fit_test.explains(right, plain)
            and not fit_test.explains(wrong, plain)
        )
        assert (
            fit_test.fraction_explained(right, plain)
            > 0.5
            > fit_test.fraction_explained(wrong, plain)
            and abs(fit_test.fraction_explained(plain, plain)) < 1e-6
        )
    few = next(
        share
        for share in np.linspace(0.5, 0.02, 49)
        if not fit_test.differing_ways(plain.scaled(share))
    )
    right, wrong, plain = (found.scaled(few) for found in (right, wrong, plain))
    assert fit_test.excess_by(
        plain, token_bins.BY_TOKEN
    ) > fit_test.EXCESS_CHI_SQUARE and not fit_test.explains(wrong, plain), (
        "too few rows to be sure that they do not fit"
    )
    plain, *candidates = (scored(tiny, told, noisy, True) for told in ([], steer, other))
    assert fit_test.is_off_model(plain) and not any(
        fit_test.explains(told, plain) for told in candidates
    )
    assert (
        not fit_test.is_off_model(scored(tiny, [], clean, True))
        and abs(fit_test.excess_chi_square(scored(tiny, [], clean, True)))
        < fit_test.EXCESS_CHI_SQUARE
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
        scored(tiny, told, rows_from(tiny, rows, None), True)
        for told, rows in (([], records), ([], ordered), (steer, ordered))
    )
    assert not fit_test.is_off_model(own) and fit_test.differing_ways(own) == []
    assert (
        fit_test.is_off_model(plain)
        and token_bins.BY_PLACE in fit_test.differing_ways(plain)
        and not fit_test.explains(taught, plain)
    )
    assert (
        fit_test.excess_chi_square(plain)
        == fit_test.excess_by(plain, token_bins.BY_PLACE)
        > 3 * fit_test.excess_by(plain, token_bins.BY_TOKEN)
    )


def test_what_would_be_noticed_is(tiny: Model, steer: list[Intervention]) -> None:
    """At the least share that is to be noticed four times in five, drawn data sets are; at a
    quarter of it hardly ever."""
    pools = [written(tiny, told, 300, seed=11) for told in (steer, [])]
    whole = [scored(tiny, [], rows, True) for rows in pools]
    tokens = float(whole[0].tokens_R.mean())
    least = next(
        share
        for share in (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
        if fit_test.would_be_off_model(fit_test.mixed(*whole, share), 100 * tokens, 0.8)
    )
    both = whole[0] + whole[1]
    rng, rates = np.random.default_rng(12), []
    for share in (least, least / 4):
        off_model = 0
        for _ in range(30):
            is_clean = rng.random(100) >= share
            rows = rng.permutation(300)[:100] + 300 * is_clean
            off_model += fit_test.is_off_model(both.of_rows(rows))
        rates.append(off_model / 30)
    assert rates[0] > 0.6 and rates[1] < 0.3
    assert not fit_test.would_be_off_model(whole[1], 100 * tokens, 0.8)


def test_another_model_as_sure_of_itself_is_told_by_which_tokens_it_takes() -> None:
    """It likes even columns more and odd ones less: the likeliest token is taken about as often,
    but not whichever it is."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(4000, 10, generator=generator)
    liking = 0.2 * (1 - 2 * (torch.arange(10) % 2))
    for writer, own in ((logits, True), (logits + liking, False)):
        chosen = writer.softmax(1).multinomial(1, generator=generator).squeeze(1)
        log_p_NT, entropy_N, taken_NPK, expected_NTPK = token_bins.binned(
            logits, chosen, torch.zeros(4000, dtype=int)
        )
        covariance = np.einsum(
            "tpk,kj->tpkj", expected_NTPK.sum(0), np.eye(token_bins.BINS)
        ) - np.einsum("ntpk,ntpj->tpkj", expected_NTPK, expected_NTPK)
        surprise = float((-log_p_NT[:, PLAIN] - entropy_N).sum())
        found = TokenScores(
            log_p_NT, np.ones(4000), surprise, taken_NPK.sum(0), expected_NTPK.sum(0), covariance
        )
        assert fit_test.is_off_model(found) != own and (fit_test.fit_p(found) < 1e-6) != own
        by_rank, freedom = fit_test._chi_square(*fit_test._bins(found, 0), lost=1)
        assert by_rank < 4 * freedom


def test_the_best_temperature_is_the_one_that_was_used(tiny: Model) -> None:
    rows = written(tiny, [], 400, seed=5, temperature=0.8)
    assert BETAS[fit_test.best_beta(scored(tiny, [], rows, True))] == pytest.approx(1.25, abs=0.11)


def test_surprise_is_about_zero_on_own_rows(tiny: Model) -> None:
    found = scored(tiny, [], written(tiny, [], 200, seed=6), True)
    assert abs(found.excess_surprisal / found.tokens_R.sum()) < 0.05


def test_too_few_tokens_fit_anything(tiny: Model) -> None:
    assert fit_test.fit_p(scored(tiny, [], written(tiny, [], 1, seed=7, count=1), True)) == 1.0
