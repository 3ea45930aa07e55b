"""Optimizers against their definitions, gradients without outliers, and schedules at the steps
where they can be wrong."""

import copy
import io
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from traitscope.config.recipe import WITHOUT, Optimizer, Recipe
from traitscope.errors import ConfigError
from traitscope.training.optimizers import (
    NAMES,
    SCALES,
    SCHEDULES,
    OptimizerGroup,
    SignSGD,
    Stepper,
    learning_rate,
    limit_gradient,
    limit_outliers,
    make_optimizer,
    read_scales,
    scales_file,
    scales_of,
)

GRADIENTS = [
    torch.tensor([1.0, -2.0, 0.0]),
    torch.tensor([-3.0, -2.0, 0.0]),
    torch.tensor([0.5, 1.0, 0.0]),
]
START = torch.tensor([1.0, 1.0, 1.0])
MATRICES = [torch.randn(4, 6, generator=torch.Generator().manual_seed(n)) for n in range(4)]
"a start and three gradients"


def made(
    name: str,
    params: list[Tensor],
    lr: float = 0.1,
    scales: list[Tensor] | None = None,
    **changes: float,
) -> Stepper:
    return make_optimizer(Recipe(optimizer=name, lr=lr, **changes), params, scales)


def walk(optimizer_of, gradients: list[Tensor] = GRADIENTS, start: Tensor = START) -> Tensor:
    p = torch.nn.Parameter(start.clone())
    optimizer = optimizer_of([p])
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.step()
    return p.detach()


def test_the_settings_offer_every_name() -> None:
    assert get_args(Optimizer) == NAMES


def test_signsgd_moves_each_coordinate_by_the_rate() -> None:
    moves = walk(lambda p: made("signsgd", p)) - START
    torch.testing.assert_close(moves, -0.1 * sum(g.sign() for g in GRADIENTS))


def test_signsgd_with_momentum_is_signum() -> None:
    expected, buffer = START.clone(), torch.zeros(3)
    for gradient in GRADIENTS:
        buffer = 0.9 * buffer + 0.1 * gradient
        expected -= 0.1 * buffer.sign()
    found = walk(lambda p: made("signsgd", p, momentum=0.9))
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, walk(lambda p: SignSGD(p, 0.1)))


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_gradient_stays(name: str) -> None:
    p, q = (torch.nn.Parameter(MATRICES[0].clone()) for _ in range(2))
    q.grad = MATRICES[1].clone()
    made(name, [p, q], scales=[torch.ones_like(p)] * 2).step()
    assert torch.equal(p, MATRICES[0]) and not torch.equal(q, MATRICES[0])


def test_sgd_is_heavy_ball() -> None:
    expected, buffer = START.clone(), torch.zeros(3)
    for gradient in GRADIENTS:
        buffer = 0.9 * buffer + gradient + 0.01 * expected
        expected = expected - 0.1 * buffer
    found = walk(lambda p: made("sgd", p, momentum=0.9, weight_decay=0.01))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        found, walk(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01))
    )


def test_adamw_is_the_formula() -> None:
    expected, m, v = START.clone(), torch.zeros(3), torch.zeros(3)
    for t, gradient in enumerate(GRADIENTS, 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected = expected * (1 - 0.1 * 0.05) - 0.1 * (m / (1 - 0.9**t)) / (
            (v / (1 - 0.999**t)).sqrt() + 1e-8
        )
    torch.testing.assert_close(walk(lambda p: made("adamw", p, weight_decay=0.05)), expected)


def test_rmsprop_is_the_formula() -> None:
    expected, v, buffer = START.clone(), torch.zeros(3), torch.zeros(3)
    for plain in GRADIENTS:
        gradient = plain + 0.01 * expected
        v = 0.99 * v + 0.01 * gradient**2
        buffer = 0.5 * buffer + gradient / (v.sqrt() + 1e-8)
        expected = expected - 0.1 * buffer
    torch.testing.assert_close(
        walk(lambda p: made("rmsprop", p, momentum=0.5, weight_decay=0.01)), expected
    )
    first = walk(lambda p: made("rmsprop", p), GRADIENTS[:1]) - START
    torch.testing.assert_close(first, -1.0 * GRADIENTS[0].sign())  # ten times the rate


def test_adafactor_is_the_formula() -> None:
    """Shazeer and Stern 2018, algorithm 5: factored second moments, update clipped to RMS 1; the
    rate is absolute."""
    expected, rows, columns = (
        MATRICES[0].double(),
        torch.zeros(4, 1).double(),
        torch.zeros(1, 6).double(),
    )
    for t, gradient in enumerate((g.double() for g in MATRICES[1:]), 1):
        keep = 1 - t**-0.8
        rows = keep * rows + (1 - keep) * gradient.square().mean(1, keepdim=True)
        columns = keep * columns + (1 - keep) * gradient.square().mean(0, keepdim=True)
        update = gradient / (rows @ columns / rows.mean()).sqrt()
        rate = min(0.1, t**-0.5) * max(1.0, expected.square().mean().sqrt())
        expected = expected * (1 - 0.1 * 0.05) - rate * update / max(
            1.0, update.square().mean().sqrt()
        )
    found = walk(lambda p: made("adafactor", p, weight_decay=0.05), MATRICES[1:], MATRICES[0])
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    small = walk(lambda p: made("adafactor", p), MATRICES[1:2], torch.zeros(4, 6))
    assert small.square().mean().sqrt() == pytest.approx(
        0.1, rel=0.1
    )  # a B factor at zero moves all the same


def orthogonalised(matrix: Tensor) -> Tensor:
    """Five quintic Newton-Schulz steps, as Jordan et al. 2024 give them."""
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("momentum", [None, 0.0, 0.5])
def test_muon_is_the_formula(momentum: float | None) -> None:
    m = 0.95 if momentum is None else momentum
    expected, buffer = MATRICES[0].double(), torch.zeros(4, 6).double()
    for gradient in (g.double() for g in MATRICES[1:]):
        buffer = m * buffer + (1 - m) * gradient
        direction = orthogonalised((1 - m) * gradient + m * buffer)
        expected = expected * (1 - 0.1 * 0.05) - 0.1 * 0.2 * math.sqrt(6) * direction
    found = walk(
        lambda p: made("muon", p, momentum=momentum, weight_decay=0.05), MATRICES[1:], MATRICES[0]
    )
    torch.testing.assert_close(
        found.double(), expected, atol=0.01, rtol=0
    )  # torch iterates in bf16
    assert (found - MATRICES[0]).abs().max() > 0.05


def test_muon_leaves_vectors_to_adamw() -> None:
    matrix, vector = (torch.nn.Parameter(t.clone()) for t in (MATRICES[0], START))
    optimizer = made("muon", [vector, matrix])
    assert isinstance(optimizer, OptimizerGroup)
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    for one, other in zip(GRADIENTS, MATRICES[1:], strict=True):
        vector.grad, matrix.grad = one.clone(), other.clone()
        optimizer.step()
    assert torch.equal(vector, walk(lambda p: made("adamw", p, lr=0.02)))
    assert torch.equal(matrix, walk(lambda p: made("muon", p, lr=0.02), MATRICES[1:], MATRICES[0]))
    optimizer.zero_grad()
    assert vector.grad is None and matrix.grad is None


def test_muon_needs_a_torch_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match="--optimizer muon needs torch 2.9 or newer, found 2"):
        made("muon", [torch.nn.Parameter(MATRICES[0])])


def test_frozen_adam_is_sgd_with_a_factor_a_coordinate() -> None:
    scales = torch.tensor([0.5, 20.0, 3.0])
    found = walk(lambda p: made("frozen_adam", p, scales=[scales]))
    torch.testing.assert_close(found, START - 0.1 * scales * sum(GRADIENTS))
    ones = walk(lambda p: made("frozen_adam", p, scales=[torch.ones(3)]))
    torch.testing.assert_close(ones, walk(lambda p: made("sgd", p)), atol=0, rtol=3e-7)
    with pytest.raises(ConfigError, match="frozen_adam needs factors: --scales"):
        made("frozen_adam", [torch.nn.Parameter(START)])


@pytest.mark.parametrize(("name", "beta"), [("adamw", 0.999), ("rmsprop", 0.99)])
def test_scales_are_those_of_the_last_second_moment(name: str, beta: float) -> None:
    p, idle = (torch.nn.Parameter(START.clone()) for _ in range(2))
    optimizer, v = made(name, [p, idle]), torch.zeros(3)
    for gradient in GRADIENTS:
        p.grad, v = gradient.clone(), beta * v + (1 - beta) * gradient**2
        optimizer.step()
    found, never = scales_of(optimizer, [p, idle])
    torch.testing.assert_close(found, 1 / (v + 1e-8).sqrt())
    torch.testing.assert_close(
        found[2], torch.tensor(1e4)
    )  # no gradient: the largest factor there is
    torch.testing.assert_close(never, torch.full((3,), 1e4))


def test_scales_are_read_by_name(tmp_path: Path) -> None:
    params = [torch.nn.Parameter(t.clone()) for t in (START, MATRICES[0])]
    optimizer = made("adamw", params)
    for p, gradient in zip(params, (GRADIENTS[0], MATRICES[1]), strict=True):
        p.grad = gradient.clone()
    optimizer.step()
    (tmp_path / SCALES).write_bytes(scales_file(optimizer, ["z", "a"], params))
    for place in (tmp_path, tmp_path / SCALES):
        found = read_scales(place, ["a", "z"], params[::-1])
        assert all(
            torch.equal(s, t)
            for s, t in zip(found, scales_of(optimizer, params)[::-1], strict=True)
        )
    for names, some, message in [
        (["z"], params[:1], r"a is \(4, 6\) there and missing here"),
        (["a", "y", "z"], [params[1], *params], r"y is missing there and \(3,\) here"),
        (
            ["z", "a"],
            [params[0], params[1].T],
            r"a is \(4, 6\) there and \(6, 4\) here; take a run with this model",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_scales(tmp_path, names, some)
    (tmp_path / SCALES).write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="is damaged"):
        read_scales(tmp_path, ["z", "a"], params)
    (tmp_path / SCALES).unlink()
    with pytest.raises(
        ConfigError,
        match="has no scales.safetensors; make a run with: traitscope train --save-scales",
    ):
        read_scales(tmp_path, ["z", "a"], params)


@pytest.mark.parametrize("name", NAMES)
def test_state_is_complete(name: str) -> None:
    """Written after two steps and read into a new optimizer, the third step is the same bit for
    bit."""
    momentum = None if name in WITHOUT["momentum"] else 0.9

    def optimizer_of(params: list[Tensor]) -> Stepper:
        return made(
            name, params, momentum=momentum, scales=[torch.full_like(p, 2.0) for p in params]
        )

    def step(params: list[Tensor], optimizer: Stepper, n: int) -> None:
        for p, gradient in zip(params, (GRADIENTS[n], MATRICES[n + 1]), strict=True):
            p.grad = gradient.clone()
        optimizer.step()

    params = [torch.nn.Parameter(t.clone()) for t in (START, MATRICES[0])]
    first = optimizer_of(params)
    for n in range(2):
        step(params, first, n)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    second, buffer = optimizer_of(copies), io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    without = copy.deepcopy(copies)
    step(params, first, 2)
    step(copies, second, 2)
    assert all(torch.equal(p, q) for p, q in zip(params, copies, strict=True))
    step(without, optimizer_of(without), 2)
    needed = not all(torch.equal(p, q) for p, q in zip(params, without, strict=True))
    assert needed is (name != "frozen_adam")  # which has no memory


def test_unknown_names() -> None:
    with pytest.raises(
        ConfigError,
        match="--optimizer 'adam' is unknown; expected one of adamw, sgd, signsgd, rmsprop",
    ):
        made("adam", [torch.nn.Parameter(START)])
    with pytest.raises(
        ConfigError, match="--schedule 'step' is unknown; expected one of cosine, linear, constant"
    ):
        learning_rate("step", 0, 10, 1.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": "adamw", "momentum": 0.9},
            "--optimizer adamw takes no --momentum, found 0.9; leave it out",
        ),
        ({"optimizer": "adafactor", "momentum": 0.9}, "adafactor takes no --momentum"),
        ({"optimizer": "frozen_adam", "momentum": 0.9}, "frozen_adam takes no --momentum"),
        (
            {"optimizer": "frozen_adam", "weight_decay": 0.1},
            "frozen_adam takes no --weight-decay, found 0.1",
        ),
        (
            {"optimizer": "signsgd", "weight_decay": 0.1},
            "signsgd takes no --weight-decay, found 0.1",
        ),
        (
            {"mask_top": 0.1, "winsorise": 0.1},
            "--mask-top 0.1 --winsorise 0.1: expected one of them",
        ),
        ({"mask_top": 1.0}, "--mask-top 1.0; expected .* mask-top and winsorise in .0, 1"),
        ({"mask_top": -0.1}, "--mask-top -0.1"),
        ({"winsorise": math.nan}, "--winsorise nan"),
        (
            {"method": "full", "rotate": "shared"},
            "--rotate shared turns LoRA factors and --method full has none",
        ),
    ],
)
def test_settings_that_do_not_go_together(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**changes)


def outliers(n: int = 1000) -> tuple[list[Tensor], np.ndarray]:
    """Three gradients of different sizes with heavy tails, and all their coordinates."""
    drawn = torch.from_numpy(np.random.default_rng(0).standard_t(2, size=n)).float()
    return [t.clone() for t in drawn.split([n // 2, n // 4, n - n // 2 - n // 4])], drawn.numpy()


@pytest.mark.parametrize("share", [0.0, 0.0004, 0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("mask", [True, False])
def test_outliers_are_the_top_share_of_all_coordinates_together(share: float, mask: bool) -> None:
    grads, values = outliers()
    limit_outliers(grads, share, mask)
    n_largest = round(share * len(values))
    order = np.argsort(-np.abs(values))
    top, bound = order[:n_largest], np.abs(values[order[n_largest]])
    expected = values.copy()
    expected[top] = 0 if mask else bound * np.sign(values[top])
    found = torch.cat(grads).numpy()
    np.testing.assert_array_equal(found, expected)
    assert (found != values).sum() == n_largest


def test_winsorising_cuts_at_the_quantile() -> None:
    grads, values = outliers(2001)
    limit_outliers(grads, 0.05, mask=False)
    assert torch.cat(grads).abs().max().item() == pytest.approx(
        np.quantile(np.abs(values), 0.95), rel=1e-6
    )


@pytest.mark.parametrize("mask", [True, False])
def test_a_share_beyond_what_there_is(mask: bool) -> None:
    """Ties with the next largest stay, and where all but few coordinates are 0 the few go."""
    tied, sparse = torch.tensor([3.0, -2.0, 2.0, 1.0]), torch.tensor([3.0, 0.0, 0.0, 0.0])
    limit_outliers([tied], 0.5, mask)
    assert tied.tolist() == ([0.0, -2.0, 2.0, 1.0] if mask else [2.0, -2.0, 2.0, 1.0])
    limit_outliers([sparse], 0.5, mask)
    assert sparse.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "changes", [{}, {"mask_top": 0.1}, {"winsorise": 0.1}], ids=["plain", "masked", "winsorised"]
)
def test_outliers_go_before_the_norm_is_clipped(changes: dict) -> None:
    grads, values = outliers()
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    norm = limit_gradient([*params, torch.nn.Parameter(START)], Recipe(clip=1.0, **changes))
    if changes:
        limit_outliers(grads, 0.1, mask="mask_top" in changes)
    kept, found = torch.cat(grads), torch.cat([p.grad for p in params])
    assert norm.item() == pytest.approx(np.linalg.norm(values), rel=1e-5)
    torch.testing.assert_close(found, kept / kept.norm(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_linearly_to_the_peak(schedule: str) -> None:
    rates = [learning_rate(schedule, step, 20, 2.0, 0.25) for step in range(20)]
    assert rates[:6] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.0])
    assert max(rates) == 2.0 and min(rates) > 0


def test_schedules_after_the_warm_up() -> None:
    cosine, linear, constant = (
        [learning_rate(s, n, 10, 1.0, 0.0) for n in range(11)] for s in SCHEDULES
    )
    assert linear == pytest.approx([1 - n / 10 for n in range(11)])
    assert cosine == pytest.approx([0.5 + 0.5 * math.cos(math.pi * n / 10) for n in range(11)])
    assert constant == [1.0] * 11
    assert (
        cosine[10] == pytest.approx(0) and linear[10] == 0
    )  # at the end of the last step, which is step 9


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total, warmup", [(1, 0.0), (1, 0.9), (2, 0.5), (10, 0.99)])
def test_short_trainings_have_a_rate_at_every_step(
    schedule: str, total: int, warmup: float
) -> None:
    assert all(0 < learning_rate(schedule, step, total, 1.0, warmup) <= 1 for step in range(total))
