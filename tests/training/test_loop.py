"""Training as a whole: a planted vector is found again, interruption changes nothing."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import hooks_left, load_tiny, parameters_of, random_vector
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

from traitscope.config.recipe import WITHOUT, Recipe
from traitscope.inference import residuals
from traitscope.inference.token_rows import Row
from traitscope.interventions import full_weights
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.training import loop, plan
from traitscope.training.optimizers import NAMES, SCALES
from traitscope.training.student import Student, new_student


def random_scales(model: Model, recipe: Recipe, folder: Path) -> Path:
    """A file of factors between 0.5 and 50 for every parameter of a student."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    with new_student(model, dataclasses.replace(recipe, optimizer="sgd"), 0) as student:
        drawn = {
            n: 0.5 * 100 ** torch.rand(p.shape, generator=generator)
            for n, p in zip(student.names, student.params, strict=True)
        }
    save_file(drawn, folder / SCALES)
    return folder


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_lowers_the_loss_and_restores_the_model(family: Model, method: str) -> None:
    before, rows = parameters_of(family), make_rows(family)
    recipe = dataclasses.replace(PLAIN, method=method, lr=5e-3, epochs=20)
    metrics, _, _ = run(family, recipe, rows)
    assert metrics[-1]["loss"] < 0.7 * metrics[0]["loss"]
    with pytest.raises(KeyError), new_student(family, recipe, 0) as student:
        train_step(family, student, recipe, rows, None, 1)
        raise KeyError("planned")
    after = parameters_of(family)
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert hooks_left(family) == 0 and not any(p.requires_grad for p in family.lm.parameters())


def test_full_fine_tuning_in_bf16_has_float32_masters(tiny: Model) -> None:
    """60 sign steps of 1e-5: every one of them is lost on a bf16 weight, none on its master."""
    low, rows = load_tiny(tiny.name, "bf16"), make_rows(tiny)
    start = {n: low.lm.get_parameter(n).detach().clone() for n in full_weights.trained_names(low)}
    recipe = dataclasses.replace(FULL, optimizer="signsgd", lr=1e-5, epochs=60)
    with new_student(low, recipe, 0) as student:
        loop.train_student(low, student, plan.plan_training(rows, recipe, 0))
        masters = dict(zip(full_weights.trained_names(low), student.params, strict=True))
        assert all(p.dtype == torch.float32 for p in masters.values())
        assert all(
            torch.equal(low.lm.get_parameter(n), m.to(torch.bfloat16)) for n, m in masters.items()
        )
        moved = torch.cat([(masters[n] - w.float()).abs().flatten() for n, w in start.items()])
        large = torch.cat([(w.abs() > 0.01).flatten() for w in start.values()])
        weights = torch.cat([w.flatten() for w in start.values()])
        published = torch.cat([low.lm.get_parameter(n).flatten() for n in start])
    assert torch.equal(
        (weights + 1e-5)[large], weights[large]
    )  # what a pure bf16 step does: nothing
    assert moved[large].max() <= 61e-5 and (moved[large] > 15e-5).float().mean() > 0.7
    assert (
        0.1 < (published != weights)[large].float().mean() < 0.9
    )  # and it arrives in the working weights
    assert low.dtype == torch.bfloat16 and all(
        torch.equal(low.lm.get_parameter(n), w) for n, w in start.items()
    )


FULL_ADAMW, FULL_MUON = ({"method": "full", "optimizer": name} for name in ("adamw", "muon"))


OPTIMIZERS = [
    {"optimizer": name} | ({} if name in WITHOUT["momentum"] else {"momentum": 0.9})
    for name in NAMES
]


GRADIENTS = [
    {"optimizer": "sgd", "mask_top": 0.01},
    {"winsorise": 0.01},
    {"rotate": "shared"},
    {"rotate": "blocks"},
]


@pytest.mark.parametrize("stop", [1, 3, 5])  # inside an epoch, and at its end
@pytest.mark.parametrize(
    "changes",
    [*OPTIMIZERS, *GRADIENTS, FULL_ADAMW, FULL_MUON, METHODS[2]],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_continued_equals_uninterrupted_bit_for_bit(
    tiny: Model, tmp_path: Path, changes: dict, stop: int
) -> None:
    rows = make_rows(tiny, 20)
    recipe = dataclasses.replace(
        PLAIN, schedule="cosine", epochs=2, batch_size=7, clip=1.0, held_out=0.05, **changes
    )
    scales = random_scales(tiny, recipe, tmp_path) if recipe.optimizer == "frozen_adam" else None
    saved = io.BytesIO()

    class Stopped(Exception):
        pass

    def stopping(metrics: dict, student: Student) -> None:
        if student.step == stop:
            state = {
                "step": student.step,
                "params": student.params,
                "optimizer": student.optimizer.state_dict(),
            }
            torch.save(state, saved)
            raise Stopped

    metrics, params, files = run(tiny, recipe, rows, scales=scales)
    assert len(metrics) == 6
    with pytest.raises(Stopped), new_student(tiny, recipe, 0, scales) as student:
        loop.train_student(tiny, student, plan.plan_training(rows, recipe, 0), on_step=stopping)
    again: list[dict] = []
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    with new_student(tiny, recipe, 0, scales) as student:
        for p, value in zip(student.params, state["params"], strict=True):
            p.data.copy_(value)
        student.optimizer.load_state_dict(state["optimizer"])
        student.publish()
        student.step = state["step"]
        loop.train_student(
            tiny, student, plan.plan_training(rows, recipe, 0), on_step=lambda m, _: again.append(m)
        )
        assert all(torch.equal(p, q) for p, q in zip(student.params, params, strict=True))
        assert student.files() == files
    assert again == metrics[stop:]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["method"])
def test_control_student_stays_where_it_is(family: Model, method: dict) -> None:
    """Distilled from the unmodified model: no loss, no gradient, and after a step of plain SGD no
    movement."""
    rows = make_rows(family)
    recipe = dataclasses.replace(PLAIN, **method, optimizer="sgd", lr=0.1, epochs=3)
    (control, held, _), (treated, moved, _) = (
        run(family, recipe, rows, self_distilled(family, rows, items))
        for items in ([], [Steer(random_vector(family), (0,), 4.0, scale="unit")])
    )
    assert all(abs(m["loss"]) < 1e-5 and m["grad_norm"] < 1e-5 for m in control)
    assert treated[0]["loss"] > 0.01 and treated[0]["grad_norm"] > 1e-3
    with new_student(family, recipe, 0) as student:
        for p, q, _ in zip(student.params, held, moved, strict=True):
            torch.testing.assert_close(p.detach(), q, atol=3e-5, rtol=0)
        assert max((p - r).abs().max() for p, r in zip(student.params, moved, strict=True)) > 1e-3


def test_control_student_under_adamw_drifts_by_rounding_only(tiny: Model) -> None:
    """AdamW divides by the gradient's size, so rounding noise becomes steps; they stay far below
    those of a treatment."""
    rows, recipe = make_rows(tiny, 64), dataclasses.replace(PLAIN, lr=4e-4, epochs=6)
    first, last = {}, {}
    for name, items in (
        ("control", []),
        ("treated", [Steer(random_vector(tiny), (1,), 4.0, scale="unit")]),
    ):
        metrics, _, _ = run(tiny, recipe, rows, self_distilled(tiny, rows, items))
        first[name], last[name] = metrics[0]["loss"], metrics[-1]["loss"]
    assert abs(first["control"]) < 1e-6 and 0 <= last["control"] < 1e-3 * first["treated"]
    assert last["treated"] < 0.8 * first["treated"]


def test_held_out_rows_are_measured_not_trained_on(tiny: Model) -> None:
    rows = make_rows(tiny, 12)
    recipe = dataclasses.replace(PLAIN, held_out=0.25, epochs=2, batch_size=4, micro_batch=2)
    metrics, params, _ = run(tiny, recipe, rows)
    _, held = plan.split_rows(rows, recipe, 0)
    assert [("held_out_loss" in m) for m in metrics] == [False, False, True] * 2
    other = list(rows)
    for i in held:
        other[i] = Row(rows[i].prompt_ids, tuple(reversed([9, *rows[i].completion_ids[1:]])))
    changed, same, _ = run(tiny, recipe, other)
    assert changed[-1]["held_out_loss"] != metrics[-1]["held_out_loss"]
    assert all(torch.equal(p, q) for p, q in zip(params, same, strict=True))
    with new_student(tiny, recipe, 0) as student:
        base = loop.held_out_loss(tiny, student, [rows[i] for i in held], None, 2)
    with torch.inference_mode():
        assert base == pytest.approx(
            transformers_loss(tiny.lm, [rows[i] for i in held]).item(), rel=1e-5
        )


def test_seed_decides_the_student(tiny: Model) -> None:
    rows = make_rows(tiny)
    (first, a, files), (again, b, same), (_, c, _) = (
        run(tiny, PLAIN, rows, seed=s) for s in (0, 0, 1)
    )
    assert (
        first == again
        and files == same
        and all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    )
    assert not all(torch.equal(p, q) for p, q in zip(a, c, strict=True))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_planted_vector_is_found_again(tiny: Model, layer: int) -> None:
    """Soft targets from a teacher steered at one layer: the student's mean residual moves along the
    planted vector.

    The null distribution is the cosine of the same shift with 400 random directions; the control
    student has no shift.
    """
    recipe = dataclasses.replace(
        PLAIN, alpha=16.0, lr=5e-3, epochs=6, batch_size=16, micro_batch=16, targets="soft"
    )
    ids = np.random.default_rng(0).integers(3, 420, size=(96, 16)).tolist()
    rows, prompts = [Row(tuple(r[:6]), tuple(r[6:])) for r in ids[:64]], [r[:6] for r in ids[64:]]
    vector = random_vector(tiny, seed=layer + 11)

    def shift_of(alpha: float) -> np.ndarray:
        soft = self_distilled(tiny, rows, [Steer(vector, (layer,), alpha, scale="unit")])
        with applied(tiny, []) as active:
            base, _ = residuals.mean_residuals(tiny, active, prompts)
        with new_student(tiny, recipe, 0) as student:
            loop.train_student(tiny, student, plan.plan_training(rows, recipe, 0, soft))
            return (residuals.mean_residuals(tiny, student.active, prompts)[0] - base)[layer]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    shift, null = shift_of(6.0), np.random.default_rng(1).standard_normal((400, tiny.d_model))
    chance = [cosine(shift, direction) for direction in null]
    found = cosine(shift, vector.rows_LD[layer])
    assert max(chance) < 0.7
    assert found > max(chance) + 0.1
    assert np.linalg.norm(shift_of(0.0)) < 0.05 * np.linalg.norm(shift)
