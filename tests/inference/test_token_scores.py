"""Token scores: against a loop over tokens; sums over any parts of the rows are the same, and take
no more memory for more of them."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scored_rows import scored, written
from tiny_models import random_rows, random_vector

from traitscope.errors import DataError
from traitscope.inference import token_bins, token_rows, token_scores
from traitscope.inference.row_batches import batches
from traitscope.inference.token_bins import BETAS, PLAIN
from traitscope.inference.token_rows import Row
from traitscope.inference.token_scores import Scores
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model


@pytest.mark.parametrize("numbers", [True, False])
def test_equals_a_loop_over_tokens(family: Model, numbers: bool) -> None:
    digits = [family.tokenizer.encode(str(d))[0] for d in range(10)]
    prompts = random_rows(family, [5, 7, 4])
    rows = [Row(tuple(p), (*digits[n : n + 3], 9, digits[n])) for n, p in enumerate(prompts)]
    found = scored(family, [], rows, numbers)
    columns = digits if numbers else list(range(len(family.lm.get_input_embeddings().weight)))
    for r, row in enumerate(rows):
        with torch.no_grad():
            logits = family.lm(torch.tensor([row.ids])).logits[0].double()
        places = [
            (len(row.prompt_ids) + i - 1, token)
            for i, token in enumerate(row.completion_ids)
            if token in columns
        ]
        assert found.tokens_R[r] == len(places)
        for t, beta in enumerate(BETAS):
            expected = sum(
                (beta * logits[p, columns]).log_softmax(-1)[columns.index(token)].item()
                for p, token in places
            )
            assert found.log_p_RT[r, t] == pytest.approx(expected, abs=2e-3)
    assert (found.taken_PK.sum(1) == found.tokens_R.sum()).all() and found.expected_TPK[PLAIN].sum(
        1
    ) == pytest.approx(found.tokens_R.sum(), rel=1e-5)
    if numbers:
        taken = [sum(row.completion_ids.count(digit) for row in rows) for digit in sorted(digits)]
        assert found.taken_PK[token_bins.BY_TOKEN].tolist() == taken + [0] * 6
        quarters = [
            (place * token_bins.QUARTERS // 5, sorted(digits).index(t))
            for row in rows
            for place, t in enumerate(row.completion_ids)
            if t in digits
        ]
        assert found.taken_PK[token_bins.BY_PLACE].tolist() == [
            sum(q == place and d // 4 == group for q, d in quarters)
            for place in range(4)
            for group in range(4)
        ]


def test_rows_judged_apart_are_the_rows_judged_together(tiny: Model) -> None:
    rows = written(tiny, [], 6, seed=1)
    whole, parts = (
        scored(tiny, [], rows, True),
        scored(tiny, [], rows[:2], True) + scored(tiny, [], rows[2:], True),
    )
    for name in (*token_scores.ARRAYS, "log_p_RS"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-4)


def assert_same_bins(one: Scores, other: Scores) -> None:
    """The same counts, at three temperatures."""
    assert one.excess_surprisal == pytest.approx(other.excess_surprisal, abs=1e-3)
    for way in token_bins.WAYS:
        for temperature in (0, PLAIN, 20):
            for a, b in zip(one.bins(way, temperature), other.bins(way, temperature), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-4)


def test_bins_of_some_rows_are_those_of_these_rows_alone(tiny: Model) -> None:
    """Counted anew from kept tokens: of all rows, of a part, of a row twice, of two sets."""
    rows = written(tiny, [], 9, seed=1)
    whole = scored(tiny, [], rows, True)
    assert_same_bins(whole.of_rows(range(9)), whole)
    part = whole.of_rows([7, 2, 4])
    assert_same_bins(part, scored(tiny, [], [rows[n] for n in (7, 2, 4)], True))
    np.testing.assert_allclose(part.log_p_RT, whole.log_p_RT[[7, 2, 4]])
    np.testing.assert_array_equal(part.tokens_R, whole.tokens_R[[7, 2, 4]])
    twice = whole.of_rows([3, 3])
    np.testing.assert_allclose(
        twice.bins(0, PLAIN).taken_K, 2 * whole.of_rows([3]).bins(0, PLAIN).taken_K
    )
    assert_same_bins(part + whole.of_rows([0]), whole.of_rows([7, 2, 4, 0]))
    halves = scored(tiny, [], rows[:5], True) + scored(tiny, [], rows[5:], True)
    assert_same_bins(halves.of_rows([8, 0, 4, 5]), whole.of_rows([8, 0, 4, 5]))
    again = (whole + halves).of_rows([8, 9])
    assert_same_bins(again, whole.of_rows([8, 0]))


def test_tokens_are_kept_by_set_and_in_the_order_of_the_rows(tiny: Model) -> None:
    """Rows of several lengths and prompts are read in another order, those of two sets together."""
    sets = [written(tiny, [], 5, seed=1), written(tiny, [], 4, seed=2, count=2)]
    classes = token_rows.classes_of(tiny, True)
    steer = Steer(random_vector(tiny, 1), (1,), 1.0)
    by_set = token_scores.score_sets(tiny, [], [steer], sets, classes, 3, keep=True)
    for rows, (plain, steered) in zip(sets, by_set, strict=True):
        for scores, told in ((plain, []), (steered, [steer])):
            assert_same_bins(scores.of_rows([3, 1]), scored(tiny, told, [rows[3], rows[1]], True))


def test_bins_of_a_part_need_the_tokens(tiny: Model) -> None:
    scores = replace(scored(tiny, [], written(tiny, [], 4, seed=1), True), kept=None)
    assert scores.of_rows([2, 0, 1, 3]) is scores, "the sums are those of all rows"
    for rows in ([0, 1], [0, 1, 2, 2]):
        with pytest.raises(DataError, match="score the rows again with --keep-tokens"):
            scores.of_rows(rows)


def test_batches_are_summed_as_they_come(tiny: Model) -> None:
    """Covariances take far more memory than the likelihoods of some rows: they are not kept by
    batch."""
    rows, classes, steer = (
        written(tiny, [], 60, seed=1),
        token_rows.classes_of(tiny, True),
        Steer(random_vector(tiny, 1), (1,), 1.0),
    )

    def peak(n: int) -> int:
        tracemalloc.start()
        token_scores.score_sets(tiny, [], [steer], [rows[:n], rows[:n]], classes, batch_size=4)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(4)
    assert peak(60) < 1.3 * peak(4)


def test_rows_of_one_prompt_are_read_together_where_that_saves_tokens() -> None:
    """Three rows of 4 tokens and one of 40 behind a prompt of 5: padding the three would cost 108;
    one of 5 tokens costs 3 in padding."""
    rows = [Row((1, 2, 3, 4, 5), tuple(range(n))) for n in (4, 40, 4, 5, 4)]
    assert batches(rows, 8) == [[0, 2, 4, 3], [1]]
    assert batches([Row((1,), (2,) * 7)] * 10, 4) == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8, 9],
    ]
    many = [Row((1, 2), (3,) * n) for n in range(1, 60)]
    assert sorted(sum(batches(many, 4), [])) == list(range(59))


@pytest.mark.parametrize("cached", [1, 9000, 2**30])
def test_every_temperature_equals_a_softmax_in_double_precision(
    monkeypatch: pytest.MonkeyPatch, cached: int
) -> None:
    """Also for logits 100 nats below the largest, and however many tokens are scored at a time."""
    monkeypatch.setattr(token_bins, "CACHED", cached)
    generator = torch.Generator().manual_seed(5)
    logits = 20 * torch.randn(23, 3001, generator=generator)
    chosen, quarter = (
        torch.randint(3001, (23,), generator=generator),
        torch.randint(4, (23,), generator=generator),
    )
    log_p_NT, entropy_N, _, expected_NTPK = token_bins.binned(logits, chosen, quarter)
    width = -(-3001 // token_bins.BINS)
    for t, beta in enumerate(BETAS):
        exact = (beta * logits.double()).log_softmax(1)
        assert log_p_NT[:, t] == pytest.approx(
            exact.gather(1, chosen.unsqueeze(1)).squeeze(1).numpy(), rel=1e-5, abs=1e-4
        )
        p = (
            torch.nn.functional.pad(exact.exp(), (0, token_bins.BINS * width - 3001))
            .unflatten(1, (token_bins.BINS, width))
            .sum(2)
            .numpy()
        )
        assert expected_NTPK[:, t, token_bins.BY_TOKEN] == pytest.approx(p, abs=1e-5)
        ranked = exact.exp().sort(1, descending=True).values.cumsum(1).numpy()
        assert expected_NTPK[:, t, token_bins.BY_RANK, :3].cumsum(1) == pytest.approx(
            ranked[:, [edge - 1 for edge in token_bins.EDGES[:3]]], abs=1e-5
        )
    assert entropy_N == pytest.approx(
        torch.special.entr(logits.double().softmax(1)).sum(1).numpy(), abs=1e-4
    )


def test_ties_of_rounded_logits_are_no_misfit() -> None:
    """bf16 gives several tokens the same logit: they still have one rank each, or the best of them
    would be taken too often."""
    generator = torch.Generator().manual_seed(3)
    logits = (4 * torch.randn(4000, 10, generator=generator)).round() / 2
    chosen = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    _, _, taken_NPK, expected_NTPK = token_bins.binned(logits, chosen, torch.zeros(4000, dtype=int))
    taken_NK, p_NK = taken_NPK[:, 0], expected_NTPK[:, PLAIN, 0]
    spread_K = np.sqrt((p_NK * (1 - p_NK)).sum(0))
    z_K = (taken_NK.sum(0) - p_NK.sum(0))[spread_K > 1] / spread_K[spread_K > 1]
    assert len(z_K) == 4 and np.abs(z_K).max() < 3.5
