"""One optimizer step against transformers' own loss, and what it must not depend on."""

import dataclasses

import pytest
import torch
from tiny_models import eager_lm, random_vector
from torch.utils._python_dispatch import TorchDispatchMode
from train_runs import (
    FULL,
    METHODS,
    PLAIN,
    make_rows,
    run,
    self_distilled,
    train_step,
    transformers_loss,
)

from traitscope.errors import ConfigError
from traitscope.interventions import full_weights
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.training import step
from traitscope.training.student import new_student


@pytest.mark.parametrize("shared", [0, 5])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gemma2"])
def test_loss_and_gradients_equal_transformers(
    families: dict[str, Model], name: str, shared: int
) -> None:
    """One batch, all block weights: value and every gradient, with and without a beginning that all
    prompts share."""
    model = families[name]
    rows, oracle, names = (
        make_rows(model, shared=shared),
        eager_lm(model),
        full_weights.trained_names(model),
    )
    for n in names:
        oracle.get_parameter(n).requires_grad_(True)
    expected = transformers_loss(oracle, rows)
    expected.backward()
    with new_student(model, FULL, 0) as student:
        loss = step.loss_sum(model, student.active, rows, None) / sum(
            len(r.completion_ids) for r in rows
        )
        loss.backward()
        student.collect()
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        for n, master in zip(names, student.params, strict=True):
            torch.testing.assert_close(
                master.grad, oracle.get_parameter(n).grad, atol=2e-5, rtol=1e-3
            )
    assert max(oracle.get_parameter(n).grad.abs().max() for n in names) > 0.01


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["method"])
@pytest.mark.parametrize("targets", ["sampled", "soft"])
def test_micro_batches_do_not_change_the_step(family: Model, method: dict, targets: str) -> None:
    rows = make_rows(family)
    soft = (
        self_distilled(family, rows, [Steer(random_vector(family), (0,), 4.0, scale="unit")])
        if targets == "soft"
        else None
    )
    recipe = dataclasses.replace(PLAIN, **method, optimizer="sgd", lr=0.1)
    found = [run(family, dataclasses.replace(recipe, micro_batch=m), rows, soft) for m in (8, 3, 1)]
    assert found[0][0][0]["grad_norm"] > 0.01
    for metrics, params, _ in found[1:]:
        assert metrics[0]["loss"] == pytest.approx(found[0][0][0]["loss"], rel=1e-5)
        assert metrics[0]["grad_norm"] == pytest.approx(found[0][0][0]["grad_norm"], rel=1e-4)
        for one, other in zip(params, found[0][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_clipping_and_the_norm_before_it(tiny: Model, method: str) -> None:
    rows = make_rows(tiny)
    recipe = dataclasses.replace(PLAIN, method=method, optimizer="sgd", lr=1.0)
    with new_student(tiny, recipe, 0) as student:
        (
            step.loss_sum(tiny, student.active, rows, None)
            / sum(len(r.completion_ids) for r in rows)
        ).backward()
        student.collect()
        norm = torch.cat([p.grad.flatten() for p in student.params]).norm().item()
    for clip in (0.01, 0.0):
        with new_student(tiny, recipe, 0) as student:
            start = [p.detach().clone() for p in student.params]
            clipped = dataclasses.replace(recipe, clip=clip)
            metrics = train_step(tiny, student, clipped, rows, None, 1)
            length = (
                torch.cat([(p - s).flatten() for p, s in zip(student.params, start, strict=True)])
                .norm()
                .item()
            )
        assert norm > 0.1 and metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert length == pytest.approx(clip or norm, rel=1e-3)


def test_divergence_is_an_error_not_a_student(tiny: Model) -> None:
    rows = make_rows(tiny)
    with new_student(tiny, PLAIN, 0) as student:
        student.params[0].data[:] = torch.nan
        with pytest.raises(ConfigError, match="step 1: loss nan.*lower --lr"):
            train_step(tiny, student, PLAIN, rows, None, 1)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "signsgd"}, {"rotate": "blocks"}],
    ids=["adamw", "signsgd", "rotated"],
)
def test_metrics_say_how_far_a_step_moved(tiny: Model, changes: dict) -> None:
    rows = make_rows(tiny)
    recipe = dataclasses.replace(PLAIN, epochs=3, **changes)
    with new_student(tiny, recipe, 0) as student:
        for _ in range(3):
            before = {
                n: p.detach().double().clone()
                for n, p in zip(student.names, student.params, strict=True)
            }
            metrics = train_step(tiny, student, recipe, rows, None, 3)
            square = {
                n: (p.double() - before[n]).square().sum().item()
                for n, p in zip(student.names, student.params, strict=True)
            }
            in_B = sum(s for n, s in square.items() if n.endswith("lora_B"))
            assert metrics["update_norm"] == pytest.approx(sum(square.values()) ** 0.5, rel=1e-5)
            assert metrics["update_share_B"] == pytest.approx(in_B / sum(square.values()), rel=1e-5)
        assert 0.2 < metrics["update_share_B"] < 0.8 and metrics["update_norm"] > 0.01


def test_the_first_step_of_sgd_is_in_B_alone(tiny: Model) -> None:
    """A has no gradient while B is 0; and a step of the rate 1 is as long as the gradient."""
    first, second = run(
        tiny, dataclasses.replace(PLAIN, optimizer="sgd", lr=1.0, epochs=2), make_rows(tiny)
    )[0]
    assert first["update_share_B"] == 1 and 0 < second["update_share_B"] < 1
    assert first["update_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)


def test_a_step_of_zero_has_no_share(tiny: Model) -> None:
    with new_student(tiny, PLAIN, 0) as student:
        for p in student.params:
            p.grad = torch.zeros_like(p)
        values = step.advance(student, PLAIN, torch.tensor(1.0), 8).tolist()
        assert step.step_metrics(student, PLAIN, values) == {
            "step": 1,
            "loss": 1.0,
            "grad_norm": 0.0,
            "lr": PLAIN.lr,
            "update_norm": 0.0,
            "update_share_B": None,
        }


def test_full_fine_tuning_keeps_no_copy_for_the_metrics(tiny: Model) -> None:
    (metrics,) = run(tiny, FULL, make_rows(tiny))[0]
    assert metrics.keys() == {"step", "loss", "grad_norm", "lr"}


def test_a_step_that_overflows_is_an_error(tiny: Model) -> None:
    """Each step multiplies the weights by 1 - 1e12."""
    recipe = dataclasses.replace(PLAIN, optimizer="sgd", lr=1e6, weight_decay=1e6)
    with (
        new_student(tiny, recipe, 0) as student,
        pytest.raises(ConfigError, match=r"step \d: .*training diverged"),
    ):
        for _ in range(5):
            train_step(tiny, student, recipe, make_rows(tiny), None, 5)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", ["mask_top", "winsorise"])
def test_outliers_of_the_whole_gradient_are_left_out_of_a_step(
    tiny: Model, method: str, kind: str
) -> None:
    rows, recipe = (
        make_rows(tiny),
        dataclasses.replace(PLAIN, method=method, optimizer="sgd", lr=1.0),
    )
    moves, norms = [], []
    for changes in ({}, {kind: 0.05}):
        with new_student(tiny, recipe, 0) as student:
            start = [p.detach().clone() for p in student.params]
            norms.append(
                train_step(tiny, student, dataclasses.replace(recipe, **changes), rows, None, 1)[
                    "grad_norm"
                ]
            )
            moves.append(
                torch.cat(
                    [(s - p).flatten() for p, s in zip(student.params, start, strict=True)]
                ).detach()
            )
    n_largest = round(0.05 * len(moves[0]))
    bound = moves[0].abs().sort(descending=True).values[n_largest]
    plain, found = moves
    expected = (
        torch.where(plain.abs() > bound, 0, plain)
        if kind == "mask_top"
        else plain.clamp(-bound, bound)
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    assert norms[0] == norms[1] > found.norm() > 0


class Waiting(TorchDispatchMode):
    """Operations whose result the program has to know before it can go on: on a GPU each waits for
    all that was asked before."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        index = (
            args[1]
            if func.__name__.startswith("index")
            and len(args) > 1
            and isinstance(args[1], list | tuple)
            else ()
        )
        if any(name in func.__name__ for name in self.NAMES) or any(
            t is not None and t.dtype == torch.bool for t in index
        ):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("targets", ["sampled", "soft"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["method"])
def test_a_step_waits_for_nothing_but_its_metrics(tiny: Model, method: dict, targets: str) -> None:
    rows = make_rows(tiny, shared=5)
    soft = (
        self_distilled(tiny, rows, [Steer(random_vector(tiny), (0,), 4.0, scale="unit")])
        if targets == "soft"
        else None
    )
    recipe = dataclasses.replace(PLAIN, **method, targets=targets, micro_batch=3)
    with new_student(tiny, recipe, 0) as student, Waiting() as waiting:
        train_step(tiny, student, recipe, rows, soft, 2)
        assert waiting.found == []
        torch.arange(3)[torch.tensor([True, False, True])]
        assert len(waiting.found) == 1, "it sees what it looks for"


@pytest.mark.parametrize(
    ("pass_rows", "expected"),
    [
        (None, [[0, 1, 2, 4]]),
        (4, [[1, 4], [0], [2]]),
        (5, [[0, 1, 4], [2]]),
        (9, [[0, 1, 4], [2]]),
        (1, [[4], [1], [0], [2]]),
    ],
)
def test_passes_on_a_cpu_have_few_rows_of_like_length(
    pass_rows: int | None, expected: list[list[int]]
) -> None:
    """Every micro-batch once and whole, students in order; one above the limit goes alone."""
    sizes = {0: (2, 30), 1: (2, 20), 2: (5, 40), 4: (1, 10)}
    micro_batches = []
    for place, (n_rows, longest) in sizes.items():
        micro_batches.append(step.MicroBatch(place, slice(0, n_rows), True, n_rows, longest))
    groups = list(step.share_passes(micro_batches, pass_rows))
    assert [[micro_batch.place for micro_batch in group] for group in groups] == expected
    shared = [micro_batch for group in groups for micro_batch in group]
    assert sorted(shared, key=lambda micro_batch: micro_batch.place) == micro_batches
