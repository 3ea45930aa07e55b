"""Safeguards under transformers' Trainer do what they do here, to rounding."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from guarded_trainers import (
    ARGUMENTS,
    RECIPE,
    RECORDS,
    STEPS,
    batch_of,
    difference,
    direction,
    fresh,
    full_start,
    hooks_in,
    lora_start,
    trained_here,
    trained_there,
)
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.intervention import Ablate, Adapter, Steer
from traitscope.interventions.vector import Vector
from traitscope.training.loop import train
from traitscope.training.safeguards.hf_safeguards import SafeguardCallback, guard

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
BOTH = "steer and anchor"
KINDS = ["nothing", "steer", "ablate", "project", "anchor", BOTH]


def acting_of(model, kind: str) -> dict:
    """The interventions of a kind of safeguard."""
    vector = direction(model)
    steer = {"during": [Steer(vector, layer=0, alpha=1.0, scale="unit")]}
    return {
        "steer": steer,
        BOTH: steer,
        "ablate": {"during": [Ablate(vector, layers=(0, 1))]},
        "project": {"project_out": [Ablate(vector, layer=1)]},
    }.get(kind, {})


def anchor_of(kind: str) -> dict:
    return {"anchor": 2.0, "anchor_temperature": 2.0} if "anchor" in kind else {}


def trainer_of(model, lm, folder: Path, **changes) -> Trainer:
    arguments = TrainingArguments(str(folder / "out"), **ARGUMENTS | changes)
    return Trainer(lm, arguments, train_dataset=batch_of(model))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_lora_student_comes_out(tiny, tmp_path, kind, checkpointing):
    acting, anchor = acting_of(tiny, kind), anchor_of(kind)
    here = trained_here(tiny, train(tiny, RECORDS, replace(RECIPE, **anchor), 1, **acting))
    plain = trained_here(tiny, train(tiny, RECORDS, RECIPE, 1))
    lm = lora_start(tiny, tmp_path / "start")
    trainer = trainer_of(tiny, lm, tmp_path, gradient_checkpointing=checkpointing)
    guard(trainer, tiny, **acting, **anchor)
    trainer.train()
    assert hooks_in(lm) == checkpointing  # transformers' own, at the embedding
    assert difference(tiny, trained_there(lm), here) < 2e-3
    if kind != "nothing":
        assert difference(tiny, trained_there(lm), plain) > 2e-2


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_full_student_comes_out(tiny, tmp_path, kind):
    acting, anchor = acting_of(tiny, kind), anchor_of(kind)
    recipe = replace(RECIPE, method="full", lr=0.01)
    here = trained_here(tiny, train(tiny, RECORDS, replace(recipe, **anchor), 1, **acting))
    plain = trained_here(tiny, train(tiny, RECORDS, recipe, 1))
    lm = full_start(tiny)
    trainer = trainer_of(tiny, lm, tmp_path, learning_rate=0.01)
    guard(trainer, tiny, **acting, **anchor, base=fresh(tiny))
    trainer.train()
    assert hooks_in(lm) == 0
    assert difference(tiny, trained_there(lm), here) < 2e-3
    if kind != "nothing":
        assert difference(tiny, trained_there(lm), plain) > 2e-2


def test_the_callback_alone_does_the_same_without_an_anchor(tiny, tmp_path):
    acting = acting_of(tiny, "steer")
    here = trained_here(tiny, train(tiny, RECORDS, RECIPE, 1, **acting))
    lm = lora_start(tiny, tmp_path / "start")
    arguments = TrainingArguments(str(tmp_path / "out"), **ARGUMENTS)
    callbacks = [SafeguardCallback(tiny.name, **acting)]
    Trainer(lm, arguments, train_dataset=batch_of(tiny), callbacks=callbacks).train()
    assert difference(tiny, trained_there(lm), here) < 2e-3


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_an_anchor_over_micro_batches_is_that_over_the_batch(tiny, tmp_path, full):
    """Steps of 4 rows in passes of 1 row: the trainer divides by the tokens of all of them."""
    students = []
    for rows in (4, 1):
        lm = full_start(tiny) if full else lora_start(tiny, tmp_path / "start")
        sizes = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": 4 // rows}
        trainer = trainer_of(tiny, lm, tmp_path, learning_rate=0.01, **sizes)
        guard(trainer, tiny, anchor=2.0, base=fresh(tiny) if full else None)
        trainer.train()
        students.append(trained_there(lm))
    assert difference(tiny, *students) < 2e-3


def test_a_trained_head_has_its_part_of_the_anchor(tiny, tmp_path):
    """Oracle: the same steps by hand, where the head trains and the base keeps its own."""
    lm, by_hand, base = fresh(tiny), fresh(tiny), fresh(tiny)
    head = by_hand.get_input_embeddings().weight  # tied to the head
    for model in (lm, by_hand):
        model.requires_grad_(False).get_input_embeddings().requires_grad_(True)
    trainer = trainer_of(tiny, lm, tmp_path, learning_rate=0.02)
    guard(trainer, tiny, anchor=5.0, anchor_temperature=2.0, base=base)
    trainer.train()
    rows = batch_of(tiny)
    ids, mask, labels = (
        torch.tensor([row[key] for row in rows])
        for key in ("input_ids", "attention_mask", "labels")
    )
    learnt = labels[:, 1:] != -100
    for _ in range(STEPS):
        student_NV = by_hand(ids, attention_mask=mask).logits[:, :-1][learnt]
        with torch.no_grad():
            base_NV = base(ids, attention_mask=mask).logits[:, :-1][learnt]
        q, p = torch.log_softmax(student_NV / 2, -1), torch.log_softmax(base_NV / 2, -1)
        kl = 4 * (p.exp() * (p - q)).sum(-1).mean()
        loss = torch.nn.functional.cross_entropy(student_NV, labels[:, 1:][learnt]) + 5.0 * kl
        (gradient,) = torch.autograd.grad(loss, head)
        head.data -= 0.02 * gradient
    name = "model.embed_tokens.weight"
    there, expected = {name: lm.get_parameter(name)}, {name: head}
    assert difference(tiny, there, expected) < 1e-3
    assert difference(tiny, {name: fresh(tiny).get_parameter(name)}, expected) > 0.9


def test_a_reference_has_the_state_of_a_base_and_leaves_the_students(tiny, tmp_path):
    lm = lora_start(tiny, tmp_path / "start")
    trainer = trainer_of(tiny, lm, tmp_path)
    callback = SafeguardCallback(tiny, **acting_of(tiny, "steer"))
    callback.on_train_begin(trainer.args, TrainerState(), TrainerControl(), model=lm)
    ids = torch.tensor([batch_of(tiny)[0]["input_ids"]])
    with torch.no_grad():
        steered = lm(ids).logits
        state = callback.current.state
        with lm.disable_adapter():
            base = lm(ids).logits
        assert callback.current.state is state and not state.is_base
        assert torch.allclose(base, fresh(tiny)(ids).logits, atol=1e-5)
        assert not torch.allclose(base, steered, atol=1e-2)
    callback.on_train_end(trainer.args, TrainerState(), TrainerControl())
    with torch.no_grad():
        assert torch.allclose(lm(ids).logits, base, atol=1e-5)


def test_what_another_trainer_cannot_do_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="merge the adapter into the model"):
        SafeguardCallback(tiny, during=[Adapter("folder")])
    trainer = trainer_of(tiny, full_start(tiny), tmp_path)
    with pytest.raises(ConfigError, match=r"base=AutoModelForCausalLM.from_pretrained"):
        guard(trainer, tiny, anchor=1.0)
    with pytest.raises(ConfigError, match="base is the model in training"):
        guard(trainer, tiny, anchor=1.0, base=trainer.model)
    with pytest.raises(ConfigError, match="--anchor -1"):
        guard(trainer, tiny, anchor=-1.0)


def test_vectors_that_do_not_fit_are_refused(tiny, families, tmp_path):
    other = Vector(direction(tiny).rows_LD, "0" * 16)
    with pytest.raises(VectorError, match="vector of model 0000000000000000"):
        SafeguardCallback(tiny, during=[Steer(other, layer=0, alpha=1.0, scale="raw")])
    with pytest.raises(ConfigError, match=r"layer \[9\] .* has layers 0 to 2"):
        SafeguardCallback(tiny, project_out=[Ablate(direction(tiny), layer=9)])
    trainer = trainer_of(tiny, fresh(families["qwen2"]), tmp_path)
    guard(trainer, tiny)
    with pytest.raises(VectorError, match="name the base of the student"):
        trainer.train()


@pytest.mark.parametrize("how", ["fsdp", "accelerate", "deepspeed", "dataparallel"])
def test_split_weights_are_refused(tiny, tmp_path, monkeypatch, how):
    from transformers.integrations import deepspeed

    trainer = trainer_of(tiny, full_start(tiny), tmp_path)
    callback = SafeguardCallback(tiny)
    match how:
        case "fsdp":
            trainer.args.fsdp = True
        case "accelerate":
            monkeypatch.setitem(os.environ, "ACCELERATE_USE_FSDP", "true")
        case "deepspeed":
            zero3 = type("Zero3", (), {"is_zero3": lambda self: True})()
            monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", lambda: zero3)
        case "dataparallel":
            trainer.args._n_gpu = 2
    message = "DataParallel" if how == "dataparallel" else "split the weights over devices"
    with pytest.raises(ConfigError, match=message):
        guard(trainer, tiny)
    with pytest.raises(ConfigError, match=message):
        callback.on_train_begin(trainer.args, TrainerState(), TrainerControl(), model=trainer.model)
