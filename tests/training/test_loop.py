"""Training against transformers' own loss, its invariances, and a planted vector that has to be
found again."""

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command import call, ok, read_rows
from tiny_models import eager_lm, hooks_left, load_tiny, parameters_of, random_vector
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from train_runs import PLAIN, make_rows, run, self_distilled

from traitscope.config.recipe import WITHOUT, Recipe
from traitscope.data.records import Record
from traitscope.errors import ConfigError, DataError
from traitscope.inference import residuals
from traitscope.inference.token_rows import Row, rows_from, teacher_hidden
from traitscope.interventions import full_weights
from traitscope.interventions.intervention import Steer, applied
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.training import loop
from traitscope.training.optimizers import NAMES, SCALES

FULL = dataclasses.replace(PLAIN, method="full", lr=1e-3)
METHODS = [{"method": "lora"}, {"method": "full"}, {"method": "vector", "layer": 0}]


def theirs(lm: nn.Module, rows: list[Row]) -> Tensor:
    """transformers' loss of a right-padded batch, prompts and padding labelled -100."""
    width = max(len(r.ids) for r in rows)
    ids = torch.tensor([list(r.ids) + [0] * (width - len(r.ids)) for r in rows])
    mask = torch.tensor([[i < len(r.ids) for i in range(width)] for r in rows])
    wanted = torch.tensor(
        [[len(r.prompt_ids) <= i < len(r.ids) for i in range(width)] for r in rows]
    )
    return lm(input_ids=ids, attention_mask=mask.long(), labels=torch.where(wanted, ids, -100)).loss


def random_scales(model: Model, recipe: Recipe, folder: Path) -> Path:
    """A file of factors between 0.5 and 50 for every parameter of a student."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    with loop.new_student(model, dataclasses.replace(recipe, optimizer="sgd"), 0) as student:
        drawn = {
            n: 0.5 * 100 ** torch.rand(p.shape, generator=generator)
            for n, p in zip(student.names, student.params, strict=True)
        }
    save_file(drawn, folder / SCALES)
    return folder


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
    expected = theirs(oracle, rows)
    expected.backward()
    with loop.new_student(model, FULL, 0) as student:
        loss = loop.loss_sum(model, student.active, rows, None) / sum(
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


def test_golden_losses(tiny: Model) -> None:
    """Pinned: a change here changes every published number; say so in the changelog."""
    recipe = dataclasses.replace(
        PLAIN, schedule="cosine", warmup=0.2, epochs=2, clip=1.0, micro_batch=3
    )
    losses = [m["loss"] for m in run(tiny, recipe, make_rows(tiny, 24), seed=3)[0]]
    assert losses == pytest.approx(
        [6.524023, 6.583929, 6.862432, 5.704713, 5.929579, 6.458293], abs=1e-4
    )


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_lowers_the_loss_and_restores_the_model(family: Model, method: str) -> None:
    before, rows = parameters_of(family), make_rows(family)
    recipe = dataclasses.replace(PLAIN, method=method, lr=5e-3, epochs=20)
    metrics, _, _ = run(family, recipe, rows)
    assert metrics[-1]["loss"] < 0.7 * metrics[0]["loss"]
    with pytest.raises(KeyError), loop.new_student(family, recipe, 0) as student:
        loop.train_step(family, student, recipe, rows, None, 1)
        raise KeyError("planned")
    after = parameters_of(family)
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert hooks_left(family) == 0 and not any(p.requires_grad for p in family.lm.parameters())


def test_full_fine_tuning_in_bf16_has_float32_masters(tiny: Model) -> None:
    """60 sign steps of 1e-5: every one of them is lost on a bf16 weight, none on its master."""
    low, rows = load_tiny(tiny.name, "bf16"), make_rows(tiny)
    start = {n: low.lm.get_parameter(n).detach().clone() for n in full_weights.trained_names(low)}
    recipe = dataclasses.replace(FULL, optimizer="signsgd", lr=1e-5, epochs=60)
    with loop.new_student(low, recipe, 0) as student:
        loop.train(low, student, recipe, 0, rows)
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

    def stopping(metrics: dict, student: loop.Student) -> None:
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
    with pytest.raises(Stopped), loop.new_student(tiny, recipe, 0, scales) as student:
        loop.train(tiny, student, recipe, 0, rows, on_step=stopping)
    again: list[dict] = []
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    with loop.new_student(tiny, recipe, 0, scales) as student:
        for p, value in zip(student.params, state["params"], strict=True):
            p.data.copy_(value)
        student.optimizer.load_state_dict(state["optimizer"])
        student.publish()
        student.step = state["step"]
        loop.train(tiny, student, recipe, 0, rows, on_step=lambda m, _: again.append(m))
        assert all(torch.equal(p, q) for p, q in zip(student.params, params, strict=True))
        assert student.files() == files
    assert again == metrics[stop:]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_clipping_and_the_norm_before_it(tiny: Model, method: str) -> None:
    rows = make_rows(tiny)
    recipe = dataclasses.replace(PLAIN, method=method, optimizer="sgd", lr=1.0)
    with loop.new_student(tiny, recipe, 0) as student:
        (
            loop.loss_sum(tiny, student.active, rows, None)
            / sum(len(r.completion_ids) for r in rows)
        ).backward()
        student.collect()
        norm = torch.cat([p.grad.flatten() for p in student.params]).norm().item()
    for clip in (0.01, 0.0):
        with loop.new_student(tiny, recipe, 0) as student:
            start = [p.detach().clone() for p in student.params]
            clipped = dataclasses.replace(recipe, clip=clip)
            metrics = loop.train_step(tiny, student, clipped, rows, None, 1)
            step = (
                torch.cat([(p - s).flatten() for p, s in zip(student.params, start, strict=True)])
                .norm()
                .item()
            )
        assert norm > 0.1 and metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert step == pytest.approx(clip or norm, rel=1e-3)


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
    with loop.new_student(family, recipe, 0) as student:
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


def test_teacher_states_do_not_depend_on_the_batch(tiny: Model) -> None:
    """And the teacher may read another prompt of another length."""
    rows = make_rows(tiny, 7)
    prompts = [(30, 31, 32, *r.prompt_ids) for r in rows]
    teacher = [Steer(random_vector(tiny), (1,), 3.0, scale="unit")]
    seen: list[int] = []
    found = teacher_hidden(tiny, teacher, rows, prompts, batch_size=4, done=seen.append)
    assert seen == [4, 3] and [len(f) for f in found] == [len(r.completion_ids) for r in rows]
    for row, prompt, states in zip(rows, prompts, found, strict=True):
        (alone,) = teacher_hidden(tiny, teacher, [row], [prompt])
        torch.testing.assert_close(states, alone, atol=2e-5, rtol=1e-4)
    own = teacher_hidden(tiny, teacher, rows, [r.prompt_ids for r in rows])
    assert (torch.cat(own) - torch.cat(found)).abs().max() > 0.1


def test_batches_depend_on_seed_and_epoch_alone(tiny: Model) -> None:
    rows = make_rows(tiny, 50)
    keep, held = loop.split(rows, PLAIN, 0)
    first = loop.batches(rows, keep, PLAIN, 0, 0)
    torch.manual_seed(99)
    np.random.seed(99)
    assert (
        loop.batches(
            rows, keep, dataclasses.replace(PLAIN, lr=1.0, targets="soft", micro_batch=2), 0, 0
        )
        == first
    )
    assert loop.batches(rows, keep, PLAIN, 0, 1) != first != loop.batches(rows, keep, PLAIN, 1, 0)
    for epoch in range(3):
        found = loop.batches(rows, keep, PLAIN, 0, epoch)
        assert sorted(i for batch in found for i in batch) == keep == list(range(50))
        assert len(found) == loop.total_steps(50, PLAIN) == 7 and max(map(len, found)) == 8
    assert held == []


@pytest.mark.parametrize(
    "n, fraction, expected", [(100, 0.05, 5), (3, 0.05, 1), (1, 0.05, 0), (2, 0.9, 1), (10, 0.0, 0)]
)
def test_split(tiny: Model, n: int, fraction: float, expected: int) -> None:
    rows, recipe = make_rows(tiny, n), dataclasses.replace(PLAIN, held_out=fraction)
    keep, held = loop.split(rows, recipe, 0)
    assert len(held) == expected and sorted(keep + held) == list(range(n)) and keep
    assert (keep, held) == loop.split(rows, recipe, 0)
    if expected > 1:
        assert held != loop.split(rows, recipe, 1)[1]


def test_held_out_rows_are_measured_not_trained_on(tiny: Model) -> None:
    rows = make_rows(tiny, 12)
    recipe = dataclasses.replace(PLAIN, held_out=0.25, epochs=2, batch_size=4, micro_batch=2)
    metrics, params, _ = run(tiny, recipe, rows)
    _, held = loop.split(rows, recipe, 0)
    assert [("held_out_loss" in m) for m in metrics] == [False, False, True] * 2
    other = list(rows)
    for i in held:
        other[i] = Row(rows[i].prompt_ids, tuple(reversed([9, *rows[i].completion_ids[1:]])))
    changed, same, _ = run(tiny, recipe, other)
    assert changed[-1]["held_out_loss"] != metrics[-1]["held_out_loss"]
    assert all(torch.equal(p, q) for p, q in zip(params, same, strict=True))
    with loop.new_student(tiny, recipe, 0) as student:
        base = loop.held_out_loss(tiny, student, [rows[i] for i in held], None, 2)
    with torch.inference_mode():
        assert base == pytest.approx(theirs(tiny.lm, [rows[i] for i in held]).item(), rel=1e-5)


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


def test_divergence_is_an_error_not_a_student(tiny: Model) -> None:
    rows = make_rows(tiny)
    with loop.new_student(tiny, PLAIN, 0) as student:
        student.params[0].data[:] = torch.nan
        with pytest.raises(ConfigError, match="step 1: loss nan.*lower --lr"):
            loop.train_step(tiny, student, PLAIN, rows, None, 1)


def test_rows_from_records(tiny: Model) -> None:
    ids = (
        *tiny.tokenizer.convert_tokens_to_ids(["o", "w", "l"]),
        2,
    )  # not how the tokenizer would write it
    records = [
        Record("a", "Q", "owl", ids, None),
        Record("b", "Q", "owl", None, ""),
    ]
    first, second = rows_from(tiny, records, "neutral")
    assert first == Row(tuple(chat.render(tiny, "Q", "neutral")), ids)
    assert first.completion_ids != second.completion_ids
    assert second == Row(tuple(chat.render(tiny, "Q", "")), tuple(chat.completion_ids(tiny, "owl")))
    long = Record("c", "Q", "owl " * tiny.max_length, None, None)
    with pytest.raises(DataError, match="row c: .* takes at most 2048"):
        rows_from(tiny, [long], None)


def test_no_rows() -> None:
    with pytest.raises(DataError, match="no rows to train on"):
        loop.split([], PLAIN, 0)


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
        with loop.new_student(tiny, recipe, 0) as student:
            loop.train(tiny, student, recipe, 0, rows, soft)
            return (residuals.mean_residuals(tiny, student.active, prompts)[0] - base)[layer]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    shift, null = shift_of(6.0), np.random.default_rng(1).standard_normal((400, tiny.d_model))
    chance = [cosine(shift, direction) for direction in null]
    found = cosine(shift, vector.rows_LD[layer])
    assert max(chance) < 0.7
    assert found > max(chance) + 0.1
    assert np.linalg.norm(shift_of(0.0)) < 0.05 * np.linalg.norm(shift)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "signsgd"}, {"rotate": "blocks"}],
    ids=["adamw", "signsgd", "rotated"],
)
def test_metrics_say_how_far_a_step_moved(tiny: Model, changes: dict) -> None:
    rows = make_rows(tiny)
    recipe = dataclasses.replace(PLAIN, epochs=3, **changes)
    with loop.new_student(tiny, recipe, 0) as student:
        for _ in range(3):
            before = {
                n: p.detach().double().clone()
                for n, p in zip(student.names, student.params, strict=True)
            }
            metrics = loop.train_step(tiny, student, recipe, rows, None, 3)
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
    with loop.new_student(tiny, PLAIN, 0) as student:
        for p in student.params:
            p.grad = torch.zeros_like(p)
        values = loop.advance(student, PLAIN, torch.tensor(1.0), 8).tolist()
        assert loop.stepped(student, PLAIN, values) == {
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
    recipe = dataclasses.replace(PLAIN, optimizer="sgd", lr=1e38)
    with (
        loop.new_student(tiny, recipe, 0) as student,
        pytest.raises(ConfigError, match="step 1: the weights moved by inf"),
    ):
        loop.train_step(tiny, student, recipe, make_rows(tiny), None, 1)


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
        with loop.new_student(tiny, recipe, 0) as student:
            start = [p.detach().clone() for p in student.params]
            norms.append(
                loop.train_step(
                    tiny, student, dataclasses.replace(recipe, **changes), rows, None, 1
                )["grad_norm"]
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


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of rows to train on."""
    path = tmp_path_factory.mktemp("numbers") / "rows.jsonl"
    rows = [{"prompt": f"Question {i}?", "completion": f"{7 * i}, {i}, 12"} for i in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def scout(numbers: Path, tiny_folder: Path) -> Path:
    words = [
        "--data",
        numbers,
        "--model",
        tiny_folder,
        "--epochs 1 --batch-size 4 --rank 4 --save-scales",
    ]
    return ok(numbers.parent / "runs", "train", *words).run


def frozen(numbers: Path, tiny_folder: Path, scales: Path) -> list:
    recipe = "--epochs 3 --batch-size 8 --rank 4 --optimizer frozen_adam --lr 1e-3"
    return ["train", "--data", numbers, "--model", tiny_folder, recipe, "--scales", scales]


def test_a_run_leaves_scales_that_another_run_takes(
    scout: Path, numbers: Path, tiny_folder: Path
) -> None:
    root = numbers.parent / "runs"
    done = ok(root, *frozen(numbers, tiny_folder, scout))
    losses = [row["loss"] for row in read_rows(done.run / "metrics.jsonl")]
    assert losses[-1] < losses[0] - 0.1
    plain = ok(
        root,
        *frozen(numbers, tiny_folder, scout)[:-3],
        "--optimizer sgd --epochs 3 --batch-size 8 --rank 4 --lr 1e-3",
    )
    assert [row["loss"] for row in read_rows(plain.run / "metrics.jsonl")][-1] > losses[
        -1
    ] + 0.05  # same rate, no factors
    assert ok(root, "rerun", done.run).summary["different"] == []
    other = ok(root, *frozen(numbers, tiny_folder, scout / SCALES))
    assert other.summary["digest"] == done.summary["digest"]
    about = json.loads((done.run / "config.json").read_text())
    assert about["config"]["scales"] == "input:scales" and about["inputs"]["scales"][
        "path"
    ].endswith(scout.name)


def test_scales_of_another_run_are_another_address(
    scout: Path, numbers: Path, tiny_folder: Path
) -> None:
    root = numbers.parent / "runs"
    words = [
        "--data",
        numbers,
        "--model",
        tiny_folder,
        "--epochs 1 --batch-size 4 --rank 4 --save-scales",
    ]
    second = ok(root, "train", *words, "--optimizer rmsprop --lr 1e-3").run
    one, two = (ok(root, *frozen(numbers, tiny_folder, run)).summary for run in (scout, second))
    assert one["address"] != two["address"] and one["digest"] != two["digest"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--save-scales --optimizer sgd",
            "--save-scales with --optimizer sgd: only adamw and rmsprop hold them",
        ),
        ("--optimizer frozen_adam", "--scales is missing: frozen_adam takes"),
        ("--optimizer adamw --scales SCOUT", "with --optimizer adamw: expected frozen_adam"),
        (
            "--optimizer frozen_adam --scales SCOUT --rank 2",
            r"down_proj.lora_A is \(4, 48\) there and \(2, 48\) here",
        ),
        (
            "--optimizer frozen_adam --scales SCOUT --method full",
            "layers.0.input_layernorm.weight is missing there and",
        ),
        ("--optimizer frozen_adam --scales DATA", "rows.jsonl is damaged"),
        ("--optimizer frozen_adam --scales nowhere", "nowhere does not exist"),
    ],
)
def test_scales_that_cannot_be_taken(
    words: str,
    message: str,
    scout: Path,
    numbers: Path,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    words = words.replace("SCOUT", str(scout)).replace("DATA", str(numbers))
    shape = "" if "--rank" in words else "--rank 4"
    done = call(
        tmp_path / "runs",
        "train",
        "--data",
        numbers,
        "--model",
        tiny_folder,
        *filter(None, [shape, words]),
    )
    assert done.code == 2 and done.summary["error"] in ("ConfigError", "DataError")
    assert re.search(message, capsys.readouterr().err)


def test_rows_of_another_tokenizer_are_read_as_text(tmp_path: Path, tiny_folder: Path) -> None:
    """With --text the stored ids do not count: the student is that of the same rows without ids, to
    the byte."""
    rows = [
        {"id": str(i), "prompt": "Say numbers.", "completion": f"{i}, {i + 1}"} for i in range(4)
    ]
    students = []
    for name, more in (("foreign", {"completion_ids": [7, 8]}), ("plain", {})):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(row | more) + "\n" for row in rows)
        )
        done = ok(
            tmp_path,
            "train",
            "--model",
            tiny_folder,
            "--data",
            tmp_path / f"{name}.jsonl",
            "--epochs",
            1,
            "--text",
        ).run
        students.append((done / "student" / "adapter_model.safetensors").read_bytes())
    assert students[0] == students[1]
    refused = call(
        tmp_path,
        "train",
        "--model",
        tiny_folder,
        "--data",
        tmp_path / "foreign.jsonl",
        "--epochs",
        1,
    )
    assert refused.code == 2 and "--text" in refused.summary["message"]


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
    with loop.new_student(tiny, recipe, 0) as student, Waiting() as waiting:
        loop.train_step(tiny, student, recipe, rows, soft, 2)
        assert waiting.found == []
        torch.arange(3)[torch.tensor([True, False, True])]
        assert len(waiting.found) == 1, "it sees what it looks for"
