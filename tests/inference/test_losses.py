"""Losses and their hand-written gradients against plain autograd over full logits."""

import pytest
import torch
from torch import Tensor

from traitscope.inference import losses
from traitscope.models.model import Model

NAMES = ("llama", "qwen2", "gpt2", "gemma2")  # gemma2 caps its logits at 3


def plain_logits(model: Model, hidden_ND: Tensor) -> Tensor:
    logits = hidden_ND @ model.head.weight.T
    return logits if model.softcap is None else model.softcap * torch.tanh(logits / model.softcap)


def states(model: Model, n: int = 7, seed: int = 0) -> Tensor:
    return torch.randn(n, model.d_model, generator=torch.Generator().manual_seed(seed))


def value_and_gradient(loss, hidden: Tensor) -> tuple[Tensor, Tensor]:
    hidden = hidden.clone().requires_grad_(True)
    value = loss(hidden)
    (3 * value).backward()
    return value.detach(), hidden.grad


@pytest.mark.parametrize("block", [3, 512])
@pytest.mark.parametrize("name", NAMES)
def test_cross_entropy(
    families: dict[str, Model], name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK", block)
    model = families[name]
    hidden, targets = states(model), torch.tensor([5, 5, 0, 419, 17, 2, 100])
    ours = value_and_gradient(lambda h: losses.cross_entropy(model, h, targets), hidden)
    plain = value_and_gradient(
        lambda h: torch.nn.functional.cross_entropy(
            plain_logits(model, h), targets, reduction="sum"
        ),
        hidden,
    )
    assert plain[1].abs().max() > 0.1
    for found, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("block", [3, 512])
@pytest.mark.parametrize("name", NAMES)
def test_soft_cross_entropy_is_the_divergence_from_the_teacher(
    families: dict[str, Model], name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK", block)
    model = families[name]
    hidden, teacher = states(model), states(model, seed=1)

    def plain(h: Tensor) -> Tensor:
        log_t, log_s = (torch.log_softmax(plain_logits(model, x), -1) for x in (teacher, h))
        return torch.nn.functional.kl_div(log_s, log_t, reduction="sum", log_target=True)

    ours = value_and_gradient(lambda h: losses.soft_cross_entropy(model, h, teacher), hidden)
    expected = value_and_gradient(plain, hidden)
    assert expected[0] > 1
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_at_no_distance_from_itself(families: dict[str, Model], name: str) -> None:
    model = families[name]
    value, gradient = value_and_gradient(
        lambda h: losses.soft_cross_entropy(model, h, states(model)), states(model)
    )
    _, elsewhere = value_and_gradient(
        lambda h: losses.soft_cross_entropy(model, h, states(model, seed=1)), states(model)
    )
    assert value.abs() < 1e-5
    assert gradient.abs().max() < 1e-6
    assert elsewhere.abs().max() > 1e-2


def test_divergence_is_never_negative(tiny: Model) -> None:
    base = states(tiny)
    for seed in range(5):
        assert losses.soft_cross_entropy(tiny, base + 0.01 * states(tiny, seed=seed + 2), base) > 0


def test_no_tokens(tiny: Model) -> None:
    nothing = torch.zeros(0, tiny.d_model)
    assert losses.cross_entropy(tiny, nothing, torch.zeros(0, dtype=torch.long)) == 0


def test_bf16_states_get_bf16_gradients(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    head = torch.nn.Linear(tiny.d_model, 420, bias=False)
    head.weight.data.copy_(tiny.head.weight)
    targets = torch.tensor([5, 6, 7])
    exact = value_and_gradient(lambda h: losses.cross_entropy(tiny, h, targets), states(tiny, 3))
    monkeypatch.setattr(Model, "head", head.to(torch.bfloat16))
    low = value_and_gradient(
        lambda h: losses.cross_entropy(tiny, h, targets), states(tiny, 3).bfloat16()
    )
    assert low[0].dtype == torch.float32 and low[1].dtype == torch.bfloat16
    torch.testing.assert_close(low[0], exact[0], rtol=0.02, atol=0)
    assert (low[1].float() - exact[1]).norm() < 0.02 * exact[1].norm()


@pytest.mark.parametrize("block", [3, 512])
@pytest.mark.parametrize("name", NAMES)
def test_log_likelihoods_of_tokens_have_a_gradient_each(
    families: dict[str, Model], name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK", block)
    model = families[name]
    hidden, targets = states(model), torch.tensor([5, 5, 0, 419, 17, 2, 100])
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, -1.0, 4.0])

    def plain(h: Tensor) -> Tensor:
        log_p = torch.log_softmax(plain_logits(model, h), -1)
        return (weights * log_p.gather(1, targets[:, None])[:, 0]).sum()

    def ours(h: Tensor) -> Tensor:
        return (weights * losses.token_log_likelihood(model, h, targets)).sum()

    expected = value_and_gradient(plain, hidden)
    assert expected[1].abs().max() > 0.1
    for found, wanted in zip(value_and_gradient(ours, hidden), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)
