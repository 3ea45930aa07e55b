"""Decoding against transformers' greedy search and against naive references without a cache."""

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_models import eager_lm, random_rows, random_vector

from traitscope.errors import ConfigError
from traitscope.inference import decode, forward
from traitscope.inference.decode import Sampling, choose, uniforms
from traitscope.interventions.applied import Active, applied
from traitscope.interventions.intervention import Ablate, ReplaceBase, Steer
from traitscope.models.model import Model

LENGTHS = [5, 9, 1, 5, 12, 3, 7]
KEYS = [f"row-{i}" for i in range(len(LENGTHS))]
GREEDY = Sampling(temperature=0, max_new_tokens=12)
WARM = Sampling(temperature=1.3, max_new_tokens=10, seed=5)


def answers_of(
    model: Model, prompts: list, sampling: Sampling, items: tuple = (), **more
) -> list[list[int]]:
    with applied(model, list(items)) as active:
        return decode.decode(
            model, active, prompts, more.pop("keys", KEYS[: len(prompts)]), sampling, **more
        )


def full_logits(model: Model, active: Active, ids: list[int], prompt: int) -> torch.Tensor:
    """Logits after the last token, everything computed again from the start."""
    with torch.inference_mode():
        hidden = forward.hidden_states(model, active, forward.batch_of([ids], [prompt], 0))
        return forward.logits_of(model, hidden[0, -1:])[0]


def invert(logits: torch.Tensor, u: float, temperature: float) -> int:
    """First index whose cumulative softmax exceeds u, in float64."""
    cumulative = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    return int((cumulative > u * cumulative[-1]).nonzero()[0])


@pytest.fixture
def early_end(family: Model, monkeypatch: pytest.MonkeyPatch) -> int:
    """A token that one greedy answer contains half-way, made an end of the turn."""
    token = answers_of(family, random_rows(family, LENGTHS), GREEDY)[1][5]
    monkeypatch.setattr(family.lm.generation_config, "eos_token_id", [2, token])
    return token


@pytest.fixture
def many_ends(family: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A tenth of the vocabulary ends the turn, so that sampled rows stop at different steps."""
    ends = list(range(2, 44))
    monkeypatch.setattr(family.lm.generation_config, "eos_token_id", ends)
    return ends


def test_greedy_equals_transformers(family: Model, early_end: int) -> None:
    prompts = random_rows(family, LENGTHS)
    lm = eager_lm(family)
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = lm.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=[2, early_end],
            pad_token_id=0,
        )
        expected.append(out[0, len(prompt) :].tolist())
    assert answers_of(family, prompts, GREEDY) == expected
    assert {len(e) for e in expected} > {12}


@pytest.mark.parametrize("look", [1, 5])
def test_rows_stop_at_an_end_token(
    family: Model, early_end: int, look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "CHECK_EVERY", {"cpu": look})
    answers = answers_of(family, random_rows(family, LENGTHS), GREEDY)
    for answer in answers:
        ends = [i for i, token in enumerate(answer) if token in (2, early_end)]
        assert ends in ([], [len(answer) - 1]) and len(answer) == (ends[0] + 1 if ends else 12)
    assert any(len(answer) < 12 for answer in answers) and any(
        len(answer) == 12 for answer in answers
    )


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
def test_answers_do_not_depend_on_the_batch(
    family: Model, many_ends: list[int], sampling: Sampling
) -> None:
    """Batch size, row order, neighbours that force padding or stop early, and a beginning that all
    rows share."""
    for shared in ([], [11, 12, 13]):
        prompts = [shared + row for row in random_rows(family, LENGTHS)]
        expected = answers_of(family, prompts, sampling)
        for batch_size in (1, 3):
            assert answers_of(family, prompts, sampling, batch_size=batch_size) == expected
        order = [3, 6, 0, 5, 1, 4, 2]
        shuffled = answers_of(
            family,
            [prompts[i] for i in order],
            sampling,
            keys=[KEYS[i] for i in order],
            batch_size=2,
        )
        assert shuffled == [expected[i] for i in order]


@pytest.mark.parametrize("look", [1, 4, 20], ids=lambda n: f"look-{n}")
def test_free_sampling_equals_a_naive_reference(
    family: Model, many_ends: list[int], look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tokens lie between two looks at which rows have ended."""
    monkeypatch.setattr(decode, "CHECK_EVERY", {"cpu": look})
    prompts = random_rows(family, LENGTHS)
    found = answers_of(family, prompts, WARM)
    assert len({len(answer) for answer in found}) > 2
    with applied(family, []) as active:
        for prompt, key, answer in zip(prompts, KEYS, found, strict=True):
            ids, random = list(prompt), uniforms(WARM.seed, key, WARM.max_new_tokens)
            for u in random:
                ids.append(
                    invert(full_logits(family, active, ids, len(prompt)), u, WARM.temperature)
                )
                if ids[-1] in many_ends:
                    break
            assert answer == ids[len(prompt) :]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_constrained_equals_a_naive_reference(family: Model, temperature: float) -> None:
    """Digits with forced separators, forced first and last steps, and two forced tokens in a
    row."""
    digits = list(range(20, 30))
    constraint = [[5], digits, digits, [7], [8], digits, [2, 9], [2]]
    prompts, sampling = random_rows(family, LENGTHS), Sampling(temperature, seed=3)
    found = answers_of(family, prompts, sampling, constraint=constraint, batch_size=3)
    with applied(family, []) as active:
        for prompt, key, answer in zip(prompts, KEYS, found, strict=True):
            ids, random = list(prompt), uniforms(3, key, len(constraint))
            for allowed, u in zip(constraint, random, strict=True):
                logits = full_logits(family, active, ids, len(prompt))[allowed]
                ids.append(
                    allowed[invert(logits, u, temperature) if temperature else int(logits.argmax())]
                )
            assert answer == ids[len(prompt) :]
    assert len({tuple(answer) for answer in found}) > 1


@pytest.mark.parametrize("position", ["prompt", "last", "completion", "all"])
def test_steered_decode_equals_full_passes(family: Model, position: str) -> None:
    """The cached steered argmax is the argmax of a steered pass over the whole row; and steering
    matters."""
    prompts, vector = random_rows(family, LENGTHS), random_vector(family)
    items = (
        Steer(vector, (0, 1), 6.0, position, "unit"),
        Ablate(random_vector(family, 1), (1,), position),
    )
    found = answers_of(family, prompts, GREEDY, items, batch_size=4)
    assert found != answers_of(family, prompts, GREEDY)
    with applied(family, list(items)) as active:
        for prompt, answer in zip(prompts, found, strict=True):
            for n, token in enumerate(answer):
                assert (
                    int(full_logits(family, active, [*prompt, *answer[:n]], len(prompt)).argmax())
                    == token
                )


def test_replace_base_decodes_in_lock_step(tiny: Model) -> None:
    """The base's own cache, with rows that stop and prompts that share a beginning."""
    prompts = [[11, 12, 13, *row] for row in random_rows(tiny, LENGTHS)]
    items = (
        Steer(random_vector(tiny), (0,), 9.0, scale="unit"),
        ReplaceBase(random_vector(tiny, 2), (0, 1)),
    )
    found = answers_of(tiny, prompts, WARM, items, batch_size=4)
    with applied(tiny, list(items)) as active:
        for prompt, key, answer in zip(prompts, KEYS, found, strict=True):
            for n, (token, u) in enumerate(zip(answer, uniforms(WARM.seed, key, 10), strict=False)):
                logits = full_logits(tiny, active, [*prompt, *answer[:n]], len(prompt))
                assert invert(logits, u, WARM.temperature) == token


def test_continue_rows_equals_decode(tiny: Model) -> None:
    prompts = random_rows(tiny, LENGTHS)
    expected = answers_of(tiny, prompts, WARM)
    with applied(tiny, []) as active, torch.inference_mode():
        state, hidden = forward.prefill(tiny, active, prompts, WARM.max_new_tokens)
        assert decode.continue_rows(tiny, active, state, hidden, KEYS, WARM) == expected


def test_seed_and_key_name_the_stream(tiny: Model) -> None:
    prompts = [[5, 6, 7]] * 3
    same = answers_of(tiny, prompts, WARM, keys=["a", "a", "b"])
    assert same[0] == same[1] != same[2]
    assert answers_of(tiny, prompts, Sampling(1.3, 10, seed=6), keys=["a", "a", "b"])[0] != same[0]


def test_done_counts_rows(tiny: Model) -> None:
    seen: list[int] = []
    answers_of(tiny, random_rows(tiny, LENGTHS), GREEDY, batch_size=3, done=seen.append)
    assert seen == [3, 3, 1]
    assert answers_of(tiny, [], GREEDY) == []


def test_uniforms() -> None:
    a = uniforms(0, "key", 1000)
    assert np.array_equal(a[:10], uniforms(0, "key", 10))  # a longer answer has the same beginning
    assert ((a >= 0) & (a < 1)).all() and stats.kstest(a, "uniform").pvalue > 0.001
    others = [uniforms(1, "key", 1000), uniforms(0, "kez", 1000), uniforms(0, "", 1000)]
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 0.12 for b in others)


@pytest.mark.parametrize("size", [1, 2, 10, 255, 256, 257, 700])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_choose_inverts_the_cumulative_distribution(size: int, temperature: float) -> None:
    torch.manual_seed(size)
    logits, u = 3 * torch.randn(200, size), torch.rand(200, dtype=torch.float64)
    expected = [invert(row, float(x), temperature) for row, x in zip(logits, u, strict=True)]
    assert choose(logits, u, temperature).tolist() == expected


def test_choose_at_the_edges() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).repeat(4, 1)
    u = torch.tensor([0.0, 0.5 - 1e-12, 0.5, 1 - 1e-16], dtype=torch.float64)
    assert choose(logits, u, 1.0).tolist() == [1, 1, 2, 2]  # never a token of probability zero
    half = torch.tensor([0.5], dtype=torch.float64)  # exactly at the border of two chunks
    assert choose(torch.zeros(1, 2 * decode.CHUNK), half, 1.0).tolist() == [decode.CHUNK]
    assert choose(torch.tensor([[1.0, 3.0, 2.0]]), u[:1], 0.0).tolist() == [1]
    assert choose(torch.tensor([[0.0, 1e4, -1e4]]), u[3:], 1e-3).tolist() == [1]


def test_choose_has_the_frequencies_of_the_softmax() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.0, 1.1, -0.5]])
    n = 20_000
    drawn = choose(logits.expand(n, -1), torch.from_numpy(uniforms(0, "chi", n)), 1.5)
    expected = n * torch.softmax(logits[0].double() / 1.5, -1).numpy()
    counts = np.bincount(drawn.numpy(), minlength=6)
    assert stats.chisquare(counts, expected).pvalue > 0.001
    assert stats.chisquare(counts, n * torch.softmax(logits[0].double(), -1).numpy()).pvalue < 1e-6


@pytest.mark.parametrize("temperature, tokens", [(-0.1, 4), (float("nan"), 4), (1.0, 0)])
def test_sampling_that_cannot_be(temperature: float, tokens: int) -> None:
    with pytest.raises(ConfigError, match="must be 0 or more"):
        Sampling(temperature, tokens)
