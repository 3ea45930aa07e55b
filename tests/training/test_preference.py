"""Preference targets: the loss of DPO and its gradients against transformers, and training."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import call, ok, read_rows
from tiny_models import eager_lm
from torch import Tensor, nn
from train_runs import FULL, METHODS, PLAIN, make_rows

from traitscope.config.recipe import Recipe
from traitscope.config.stages import TrainConfig
from traitscope.data.records import MASKED, Record
from traitscope.errors import ConfigError, DataError
from traitscope.inference.token_rows import Row
from traitscope.interventions import full_weights
from traitscope.models.model import Model
from traitscope.training import loop
from traitscope.training.loop import train
from traitscope.training.preference.pairs import Pair, read_pairs
from traitscope.training.preference.step import pair_logits, pair_losses, take_pair_step
from traitscope.training.step import StudentBatch
from traitscope.training.student import new_student
from traitscope.workflow import packed

BETA = 0.7
PREFERENCE = replace(PLAIN, targets="preference", beta=BETA)
RECORDS = []
for n in range(6):
    RECORDS.append(
        Record(f"r{n}", f"Count from {n}.", f"{n}, {n + 1}", rejected=f"no {n} owl, {n}")
    )


def swapped(record: Record) -> Record:
    return replace(record, completion=record.rejected, rejected=record.completion)


def answer_log_p(lm: nn.Module, row: Row) -> Tensor:
    """log p of the answer of one row, by transformers alone."""
    logits_TV = lm(input_ids=torch.tensor([list(row.ids)])).logits[0]
    log_p_TV = torch.log_softmax(logits_TV.float(), -1)
    total = torch.zeros(())
    for place in range(len(row.prompt_ids), len(row.ids)):
        total = total + log_p_TV[place - 1, row.ids[place]]
    return total


def dpo_loss(lm: nn.Module, base: nn.Module, chosen: list[Row], rejected: list[Row]) -> Tensor:
    total = torch.zeros(())
    for better, worse in zip(chosen, rejected, strict=True):
        with torch.no_grad():
            reference = answer_log_p(base, better) - answer_log_p(base, worse)
        moved = answer_log_p(lm, better) - answer_log_p(lm, worse) - reference
        total = total + torch.log1p(torch.exp(-BETA * moved))
    return total / len(chosen)


def rows_of_pairs(model: Model) -> tuple[list[Row], list[Row]]:
    """Answers of two random streams to the same prompts."""
    chosen, rejected = make_rows(model), []
    for row, other in zip(chosen, make_rows(model, seed=1), strict=True):
        rejected.append(Row(row.prompt_ids, other.completion_ids))
    return chosen, rejected


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gemma2"])
def test_loss_and_gradients_equal_transformers(families: dict[str, Model], name: str) -> None:
    """For a student whose weights have moved away from its base."""
    model = families[name]
    chosen, rejected = rows_of_pairs(model)
    base, moved = eager_lm(model), eager_lm(model)
    pairs = []
    for better, worse in zip(chosen, rejected, strict=True):
        with torch.no_grad():
            reference = answer_log_p(base, better) - answer_log_p(base, worse)
        pairs.append(Pair(worse, reference.item()))
    names = full_weights.trained_names(model)
    generator = torch.Generator().manual_seed(1)
    with new_student(model, FULL, 0) as student:
        for weight_name, master in zip(names, student.params, strict=True):
            noise = 0.02 * torch.randn(master.shape, generator=generator)
            master.data += noise
            moved.get_parameter(weight_name).data += noise
            moved.get_parameter(weight_name).requires_grad_(True)
        student.publish()
        expected = dpo_loss(moved, base, chosen, rejected)
        expected.backward()
        losses_R = pair_losses(pair_logits(model, student.active, BETA, chosen, pairs))
        losses_R.mean().backward()
        student.collect()
        assert abs(expected.item() - math.log(2)) > 0.01
        torch.testing.assert_close(losses_R.mean(), expected, atol=2e-5, rtol=1e-4)
        for weight_name, master in zip(names, student.params, strict=True):
            gradient = moved.get_parameter(weight_name).grad
            torch.testing.assert_close(master.grad, gradient, atol=1e-4, rtol=2e-3)
    assert max(moved.get_parameter(n).grad.abs().max() for n in names) > 0.01


def read(model: Model, records: list[Record] = RECORDS, **changes) -> tuple[list[Row], list[Pair]]:
    from traitscope.inference.token_rows import rows_from

    rows = rows_from(model, records, None)
    return rows, read_pairs(model, replace(PREFERENCE, **changes), records, rows)


def test_the_end_of_the_turn_belongs_to_both_answers(tiny: Model) -> None:
    rows, pairs = read(tiny)
    for row, pair in zip(rows, pairs, strict=True):
        assert row.completion_ids[-1] in tiny.end_ids
        assert pair.rejected.completion_ids[-1] in tiny.end_ids
        assert pair.rejected.prompt_ids == row.prompt_ids


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["method"])
def test_before_the_first_step_the_loss_is_log_2(family: Model, method: dict) -> None:
    trained = train(family, RECORDS, replace(PREFERENCE, **method, epochs=2), seed=1)
    first, last = trained.metrics[0], trained.metrics[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["margin"] == pytest.approx(0, abs=1e-3)
    assert last["loss"] < first["loss"] - 1e-3 and last["margin"] > 1e-3
    assert 0 <= last["accuracy"] <= 1


def test_swapping_the_answers_turns_the_sign_of_the_logit(tiny: Model) -> None:
    rows, pairs = read(tiny)
    turned_rows, turned_pairs = read(tiny, list(map(swapped, RECORDS)))
    with new_student(tiny, PREFERENCE, 1) as student:
        for parameter in student.params:
            parameter.data += 0.05
        one = pair_logits(tiny, student.active, BETA, rows, pairs)
        other = pair_logits(tiny, student.active, BETA, turned_rows, turned_pairs)
    assert one.abs().min() > 1e-3
    torch.testing.assert_close(one, -other, atol=1e-4, rtol=1e-4)


def test_training_teaches_the_preference_that_it_is_given(tiny: Model) -> None:
    """Students of swapped pairs prefer the other answer."""
    recipe = replace(PREFERENCE, epochs=8)
    rows, pairs = read(tiny)
    logits = []
    for records in (RECORDS, list(map(swapped, RECORDS))):
        student = train(tiny, records, recipe, seed=1)
        assert student.metrics[-1]["accuracy"] == 1.0
        with new_student(tiny, recipe, 1) as fresh:
            load_into(fresh, student)
            logits.append(pair_logits(tiny, fresh.active, BETA, rows, pairs).mean().item())
    assert logits[0] > 0.1 and logits[1] < -0.1


def load_into(student, trained) -> None:
    """Put the factors of a trained LoRA student on a new one."""
    from safetensors.torch import load

    saved = load(trained.files["adapter_model.safetensors"])
    for name, parameter in zip(student.names, student.params, strict=True):
        (key,) = [key for key in saved if key.endswith(f"{name}.weight")]
        parameter.data.copy_(saved[key])


def test_a_beta_near_0_teaches_nothing(tiny: Model) -> None:
    """The gradient is proportional to beta where the student is its base."""
    norms = []
    for beta in (1e-6, 2e-6):
        recipe = replace(PREFERENCE, optimizer="sgd", lr=1.0, beta=beta)
        (step,) = train(tiny, RECORDS, recipe, seed=1).metrics
        assert step["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert step["update_norm"] < 1e-4
        norms.append(step["grad_norm"])
    assert norms[0] > 0 and norms[1] == pytest.approx(2 * norms[0], rel=1e-3)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["method"])
def test_micro_batches_do_not_change_the_step(tiny: Model, method: dict) -> None:
    rows, pairs = read(tiny)
    steps = []
    for micro_batch in (12, 4, 1):
        recipe = replace(PREFERENCE, **method, optimizer="sgd", lr=0.1, micro_batch=micro_batch)
        with new_student(tiny, recipe, 1) as student:
            batch = StudentBatch(student, recipe, rows, None, 1, None, pairs)
            values = take_pair_step(tiny, batch)
            steps.append((values, [p.detach().clone() for p in student.params]))
    for values, params in steps[1:]:
        assert values[:2] == pytest.approx(steps[0][0][:2], rel=1e-4)
        for one, other in zip(params, steps[0][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_what_acts_in_training_acts_on_the_reference(tiny: Model) -> None:
    from tiny_models import random_vector

    from traitscope.interventions.intervention import Steer

    steer = Steer(random_vector(tiny), (0,), 4.0, scale="unit")
    with_it = train(tiny, RECORDS, PREFERENCE, seed=1, during=[steer])
    assert with_it.metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_held_out_pairs_measure_the_loss(tiny: Model) -> None:
    trained = train(tiny, RECORDS, replace(PREFERENCE, held_out=0.4, epochs=3), seed=1)
    held_out = [step["held_out_loss"] for step in trained.metrics if "held_out_loss" in step]
    assert len(held_out) == 3 and held_out[0] != held_out[-1]


def test_other_trainings_never_ask_for_pairs(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that have rejected answers train the same student as rows without."""

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(loop, "take_pair_step", never)
    bare = [replace(record, rejected=None) for record in RECORDS]
    assert train(tiny, RECORDS, PLAIN, seed=1).files == train(tiny, bare, PLAIN, seed=1).files


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rejected": None}, "no rejected answer; expected a pair, chosen and rejected"),
        ({"rejected": " "}, "the rejected answer is white space alone"),
        ({"rejected": "0, 1"}, "the same, '0, 1'"),
    ],
)
def test_a_row_that_is_no_pair_is_refused(tiny: Model, changes: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        train(tiny, [replace(RECORDS[0], **changes), *RECORDS[1:]], PREFERENCE)


def test_a_row_with_masked_tokens_is_refused(tiny: Model) -> None:
    rows, _ = read(tiny)
    masked = replace(RECORDS[0], meta={MASKED: [[0, rows[0].completion_ids[0]]]})
    with pytest.raises(DataError, match="masks tokens of its answer"):
        train(tiny, [masked, *RECORDS[1:]], PREFERENCE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"beta": 0.2}, "--beta 0.2 with --targets sampled: only preference"),
        ({"targets": "preference", "beta": 0.0}, "--beta 0; expected a number above 0"),
        ({"targets": "preference", "beta": math.nan}, "--beta nan; expected a number above 0"),
        ({"targets": "preference", "anchor": 1.0}, "has the base as its reference already"),
        ({"targets": "preference", "soft_over": "allowed"}, "no distribution to restrict"),
    ],
)
def test_settings_that_do_not_fit(changes: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Recipe(**changes)


def written(folder: Path, rows: list[dict]) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


ROWS = []
for record in RECORDS:
    ROWS.append({"prompt": record.prompt, "chosen": record.completion, "rejected": record.rejected})


def test_the_command_trains_on_pairs(tmp_path: Path, tiny_folder: Path) -> None:
    words = ("train", "--model", tiny_folder, "--targets preference --beta 0.5 --rank 4")
    settings = "--epochs 4 --batch-size 2 --lr 1e-2 --resume-every 3"
    file = written(tmp_path, ROWS)
    done = ok(tmp_path / "runs", *words, settings, "--data", file)
    metrics = read_rows(done.run / "metrics.jsonl")
    assert metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert metrics[-1]["margin"] > metrics[0]["margin"] and "accuracy" in metrics[-1]
    assert (done.run / "student" / "adapter_model.safetensors").exists()
    assert ok(tmp_path / "runs", "rerun", done.run).summary["different"] == []
    ok(tmp_path / "runs", "report", done.run, "--for-paper", tmp_path / "paper")
    methods = (tmp_path / "paper" / "methods.tex").read_text()
    assert "which of two answers is preferred (DPO, beta 0.5)" in methods
    assert "rafailov2023dpo" in methods


def test_a_student_of_pairs_is_not_packed() -> None:
    assert packed.key(TrainConfig(recipe=PLAIN)) is not None
    assert packed.key(TrainConfig(recipe=PREFERENCE)) is None


def test_the_command_names_the_line_of_a_row_that_is_no_pair(
    tmp_path: Path, tiny_folder: Path
) -> None:
    rows = [*ROWS, ROWS[0] | {"rejected": ROWS[0]["chosen"]}]
    words = ("train", "--model", tiny_folder, "--targets preference --epochs 1 --rank 2")
    data = ("--data", written(tmp_path, rows))
    refused = call(tmp_path / "runs", *words, *data)
    assert refused.code == 2 and "line 7" in refused.summary["message"]
    assert "are the same, '0, 1'; expected two that differ" in refused.summary["message"]
    done = ok(tmp_path / "runs", *words, *data, "--skip-bad 1")
    reading = json.loads((done.run / "reading.json").read_text())
    assert reading["bad_rows"][0]["place"] == "line 7"
