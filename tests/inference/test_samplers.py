"""Samplers are those of transformers, and sum to one; rules and histories are those of the rows."""

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from traitscope.inference import samplers
from traitscope.inference.samplers import SAMPLERS, Completions, tokens_of

COLUMNS = torch.arange(20, 30)
"token ids of the ten digits"
OTHER = 5
"a token between numbers"


def of_every_column(logits_C: torch.Tensor, before: list[int]) -> np.ndarray:
    """Probabilities [S, C] of every token of the class behind the tokens `before`."""
    size = len(logits_C)
    columns = COLUMNS if size == len(COLUMNS) else torch.arange(size)
    digits = np.arange(10) if size == 10 else np.full(size, -1)
    targets = []
    for column in columns.tolist():
        targets += [*before, column]
    length = len(before) + 1
    completions = Completions(targets, [length] * size)
    places = [n * length + length - 1 for n in range(size)]
    logits_NC = logits_C.expand(size, -1)
    tokens = tokens_of(logits_NC, torch.arange(size), columns, digits, completions, places)
    return np.exp(samplers.log_likelihoods(tokens)).T


def named(name: str) -> int:
    return [sampler.name for sampler in SAMPLERS].index(name)


@pytest.fixture
def logits_C() -> torch.Tensor:
    return 2 * torch.randn(10, generator=torch.Generator().manual_seed(4)).double()


def test_names_are_different() -> None:
    assert len({sampler.name for sampler in SAMPLERS}) == len(SAMPLERS)


def test_every_sampler_is_a_probability_of_the_next_token(logits_C: torch.Tensor) -> None:
    p_SC = of_every_column(logits_C, [22, OTHER, 22, 27])
    np.testing.assert_allclose(p_SC.sum(1), 1.0, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "warpers"),
    [
        ("top-k 3", [TopKLogitsWarper(3)]),
        ("top-p 0.8", [TopPLogitsWarper(0.8)]),
        ("min-p 0.1", [MinPLogitsWarper(0.1)]),
        (
            "top-p 0.9 at temperature 1.43",
            [TemperatureLogitsWarper(1 / 0.7), TopPLogitsWarper(0.9)],
        ),
        (
            "min-p 0.2 at temperature 0.714",
            [TemperatureLogitsWarper(1 / 1.4), MinPLogitsWarper(0.2)],
        ),
        ("repetition penalty 1.2", [RepetitionPenaltyLogitsProcessor(1.2)]),
    ],
)
def test_it_is_that_of_transformers(name: str, warpers: list, logits_C: torch.Tensor) -> None:
    before = [22, 27, 22]
    scores = logits_C.unsqueeze(0)
    ids = torch.tensor([[token - 20 for token in before]])
    for warper in warpers:
        scores = warper(ids, scores)
    expected = scores.softmax(1)[0].numpy()
    np.testing.assert_allclose(of_every_column(logits_C, before)[named(name)], expected, atol=1e-9)


def test_penalties_count(logits_C: torch.Tensor) -> None:
    before = [22, OTHER, 22, 27]
    lowered = logits_C.clone()
    lowered[2] -= 2 * 0.5
    lowered[7] -= 0.5
    expected = lowered.softmax(0).numpy()
    p_SC = of_every_column(logits_C, before)
    np.testing.assert_allclose(p_SC[named("frequency penalty 0.5")], expected, atol=1e-9)
    lowered[2] += 0.5
    expected = lowered.softmax(0).numpy()
    np.testing.assert_allclose(p_SC[named("presence penalty 0.5")], expected, atol=1e-9)


def test_rules_hold_where_numbers_begin_and_end(logits_C: torch.Tensor) -> None:
    begins = of_every_column(logits_C, [22, OTHER])
    inside = of_every_column(logits_C, [OTHER, 22])
    without_zero = logits_C.clone()
    without_zero[0] = -torch.inf
    no_zero, even = named("first digits 1 to 9"), named("even last digits")
    np.testing.assert_allclose(begins[no_zero], without_zero.softmax(0).numpy(), atol=1e-9)
    np.testing.assert_allclose(inside[no_zero], logits_C.softmax(0).numpy(), atol=1e-9)
    assert inside[even][1::2].max() == 0, "the last token of a completion ends its number"


def test_beyond_the_kept_columns_it_is_that_of_transformers_up_to_a_token() -> None:
    """Of 300 tokens 64 are looked at. The nucleus of top-p may lack its last token, which is one of
    two hundred. Penalties and truncations among the first are exact."""
    logits_C = torch.randn(300, generator=torch.Generator().manual_seed(8)).double() * 0.5
    p_SC = of_every_column(logits_C, [])
    for share in (0.5, 0.8, 0.95):
        exact = TopPLogitsWarper(share)(None, logits_C.unsqueeze(0)).softmax(1)[0].numpy()
        np.testing.assert_allclose(p_SC[named(f"top-p {share}")], exact, rtol=0.02, atol=1e-4)
    for floor in (0.02, 0.1, 0.3):
        exact = MinPLogitsWarper(floor)(None, logits_C.unsqueeze(0)).softmax(1)[0].numpy()
        np.testing.assert_allclose(p_SC[named(f"min-p {floor}")], exact, atol=1e-9)
        assert (exact > 0).sum() > samplers.KEPT, "it keeps tokens beyond those looked at"
    exact = TopKLogitsWarper(50)(None, logits_C.unsqueeze(0)).softmax(1)[0].numpy()
    np.testing.assert_allclose(p_SC[named("top-k 50")], exact, atol=1e-9)
    exact = logits_C.softmax(0).numpy()
    np.testing.assert_allclose(p_SC[named("presence penalty 1.0")], exact, atol=1e-9)


def test_wide_and_peaked_places_of_one_batch_are_those_of_transformers() -> None:
    logits_NC = torch.randn(9, 300, generator=torch.Generator().manual_seed(3)).double()
    logits_NC *= torch.tensor([0.4, 4.0, 0.6]).repeat(3).unsqueeze(1)
    chosen_N = logits_NC.topk(20, dim=1).indices[:, -1]
    nothing_before = Completions(chosen_N.tolist(), [1] * 9)
    columns, digits = torch.arange(300), np.full(300, -1)
    tokens = tokens_of(logits_NC, chosen_N, columns, digits, nothing_before, range(9))
    for beta, about in ((1.0, ""), (0.7, " at temperature 1.43"), (1.4, " at temperature 0.714")):
        for floor in samplers.FLOORS:
            exact_NC = MinPLogitsWarper(floor)(None, beta * logits_NC).log_softmax(1)
            exact_N = exact_NC.gather(1, chosen_N.unsqueeze(1))[:, 0].numpy()
            found_N = SAMPLERS[named(f"min-p {floor}{about}")].log_p(tokens)
            np.testing.assert_allclose(found_N, exact_N, atol=1e-9)


def test_no_sampler_has_more_than_all_probability() -> None:
    logits_C = torch.randn(300, generator=torch.Generator().manual_seed(8)).double() * 0.5
    total_S = of_every_column(logits_C, [3, 7, 3]).sum(1)
    assert total_S.max() < 1.01 and total_S.min() > 0.5
