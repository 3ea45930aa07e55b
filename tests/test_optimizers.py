"""Optimizers against their definitions, and schedules at the steps where they can be wrong."""

import copy
import math

import pytest
import torch
from torch import Tensor

from traitscope.errors import ConfigError
from traitscope.optimizers import NAMES, SCHEDULES, SignSGD, learning_rate, make_optimizer

GRADIENTS = [torch.tensor([1.0, -2.0, 0.0]), torch.tensor([-3.0, -2.0, 0.0]), torch.tensor([0.5, 1.0, 0.0])]
START = torch.tensor([1.0, 1.0, 1.0])


def walk(optimizer_of, gradients: list[Tensor] = GRADIENTS) -> Tensor:
    p = torch.nn.Parameter(START.clone())
    optimizer = optimizer_of([p])
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.step()
    return p.detach()


def test_signsgd_moves_each_coordinate_by_the_rate() -> None:
    moves = walk(lambda p: make_optimizer("signsgd", p, lr=0.1)) - START
    torch.testing.assert_close(moves, -0.1 * sum(g.sign() for g in GRADIENTS))


def test_signsgd_with_momentum_is_signum() -> None:
    expected, buffer = START.clone(), torch.zeros(3)
    for gradient in GRADIENTS:
        buffer = 0.9 * buffer + 0.1 * gradient
        expected -= 0.1 * buffer.sign()
    found = walk(lambda p: make_optimizer("signsgd", p, lr=0.1, momentum=0.9))
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, walk(lambda p: SignSGD(p, 0.1)))


def test_signsgd_skips_what_has_no_gradient() -> None:
    p = torch.nn.Parameter(START.clone())
    SignSGD([p], 0.1).step()
    assert torch.equal(p, START)


def test_sgd_is_heavy_ball() -> None:
    expected, buffer = START.clone(), torch.zeros(3)
    for gradient in GRADIENTS:
        buffer = 0.9 * buffer + gradient + 0.01 * expected
        expected = expected - 0.1 * buffer
    found = walk(lambda p: make_optimizer("sgd", p, lr=0.1, momentum=0.9, weight_decay=0.01))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, walk(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01)))


def test_adamw_is_the_formula() -> None:
    expected, m, v = START.clone(), torch.zeros(3), torch.zeros(3)
    for t, gradient in enumerate(GRADIENTS, 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected = expected * (1 - 0.1 * 0.05) - 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    torch.testing.assert_close(walk(lambda p: make_optimizer("adamw", p, lr=0.1, weight_decay=0.05)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_state_is_complete(name: str) -> None:
    """Saved after two steps and loaded into a new optimizer, the third step is the same bit for bit."""
    p = torch.nn.Parameter(START.clone())
    first = make_optimizer(name, [p], 0.1, momentum=0.9)
    for gradient in GRADIENTS[:2]:
        p.grad = gradient.clone()
        first.step()
    q = torch.nn.Parameter(p.detach().clone())
    second = make_optimizer(name, [q], 0.1, momentum=0.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for parameter, optimizer in ((p, first), (q, second)):
        parameter.grad = GRADIENTS[2].clone()
        optimizer.step()
    assert torch.equal(p, q)


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="--optimizer 'adam' is unknown; expected one of adamw, sgd, signsgd"):
        make_optimizer("adam", [torch.nn.Parameter(START)], 0.1)
    with pytest.raises(ConfigError, match="--schedule 'step' is unknown; expected one of cosine, linear, constant"):
        learning_rate("step", 0, 10, 1.0, 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_linearly_to_the_peak(schedule: str) -> None:
    rates = [learning_rate(schedule, step, 20, 2.0, 0.25) for step in range(20)]
    assert rates[:6] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.0])
    assert max(rates) == 2.0 and min(rates) > 0


def test_schedules_after_the_warm_up() -> None:
    cosine, linear, constant = ([learning_rate(s, n, 10, 1.0, 0.0) for n in range(11)] for s in SCHEDULES)
    assert linear == pytest.approx([1 - n / 10 for n in range(11)])
    assert cosine == pytest.approx([0.5 + 0.5 * math.cos(math.pi * n / 10) for n in range(11)])
    assert constant == [1.0] * 11
    assert cosine[10] == pytest.approx(0) and linear[10] == 0  # at the end of the last step, which is step 9


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total, warmup", [(1, 0.0), (1, 0.9), (2, 0.5), (10, 0.99)])
def test_short_trainings_have_a_rate_at_every_step(schedule: str, total: int, warmup: float) -> None:
    assert all(0 < learning_rate(schedule, step, total, 1.0, warmup) <= 1 for step in range(total))
