"""Safeguards under transformers' Trainer do what they do here, to rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from traitscope.config.recipe import Recipe
from traitscope.data.records import Record
from traitscope.errors import ConfigError
from traitscope.inference.token_rows import rows_from
from traitscope.interventions.intervention import Ablate, Adapter, Steer
from traitscope.interventions.vector import Vector
from traitscope.training.loop import train
from traitscope.training.safeguards.hf_safeguards import SafeguardCallback
from traitscope.training.student import new_student

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
STEPS = 3
BOTH = "steer and anchor"
RECORDS = [Record(f"r{i}", f"Count on from {i}.", f"{i}, {i + 1}, {i + 7}") for i in range(4)]
RECIPE = Recipe(
    epochs=STEPS,
    batch_size=4,
    micro_batch=4,
    lr=0.1,
    optimizer="sgd",
    schedule="constant",
    warmup=0.0,
    clip=0.0,
    held_out=0.0,
)


def direction(model) -> Vector:
    rows = np.random.default_rng(0).normal(size=(model.n_layers, model.d_model))
    norms = np.ones(model.n_layers).tolist()
    return Vector(rows.astype(np.float32), model.digest, {"residual_norms": norms})


def batch_of(model) -> list[dict]:
    """The rows as one batch, padded on the right."""
    rows = rows_from(model, RECORDS, None)
    width = max(len(row.ids) for row in rows)
    examples = []
    for row in rows:
        fill = width - len(row.ids)
        examples.append(
            {
                "input_ids": [*row.ids, *[0] * fill],
                "attention_mask": [1] * len(row.ids) + [0] * fill,
                "labels": [-100] * len(row.prompt_ids) + [*row.completion_ids] + [-100] * fill,
            }
        )
    return examples


def trained_elsewhere(model, folder: Path, callback) -> dict[str, torch.Tensor]:
    """The adapter's factors after the same steps under transformers' Trainer."""
    with new_student(model, RECIPE, 1) as student:
        for name, content in student.files().items():
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    base = AutoModelForCausalLM.from_pretrained(model.name, dtype=torch.float32)
    lm = PeftModel.from_pretrained(base, folder, is_trainable=True)
    arguments = TrainingArguments(
        str(folder / "out"),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=RECIPE.lr,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
    )
    Trainer(lm, arguments, train_dataset=batch_of(model), callbacks=[callback]).train()
    hooks_there = [m for m in lm.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks_there
    factors = {}
    for name, value in lm.named_parameters():
        if "lora_" in name:
            factors[name] = value.detach()
    return factors


def difference(theirs: dict[str, torch.Tensor], student) -> float:
    """Largest difference of B factors, as a share of the largest B."""
    from safetensors.torch import load

    ours = load(student.files["adapter_model.safetensors"])
    largest, off = 0.0, 0.0
    for name, value in theirs.items():
        if "lora_B" in name:
            mine = ours[name.replace(".default", "")]
            largest = max(largest, mine.abs().max().item())
            off = max(off, (mine - value).abs().max().item())
    return off / largest


@pytest.mark.parametrize("kind", ["nothing", "steer", "ablate", "project", "anchor", BOTH])
def test_the_same_student_comes_out(tiny, tmp_path, kind):
    vector = direction(tiny)
    acting = {
        "nothing": {},
        "steer": {"during": [Steer(vector, layer=0, alpha=1.0, scale="unit")]},
        "ablate": {"during": [Ablate(vector, layers=(0, 1))]},
        "project": {"project_out": [Ablate(vector, layer=1)]},
        "anchor": {},
        BOTH: {"during": [Steer(vector, layer=0, alpha=1.0, scale="unit")]},
    }[kind]
    anchored = {"anchor": 2.0, "anchor_temperature": 2.0} if "anchor" in kind else {}
    recipe = Recipe(**{**vars(RECIPE), **anchored})
    here = train(tiny, RECORDS, recipe, 1, **acting)
    plain = train(tiny, RECORDS, RECIPE, 1)
    theirs = trained_elsewhere(
        tiny, tmp_path / "start", SafeguardCallback(tiny, **acting, **anchored)
    )
    assert difference(theirs, here) < 2e-3
    if kind != "nothing":
        assert difference(theirs, plain) > 2e-2


def test_what_another_trainer_cannot_do_is_refused(tiny):
    with pytest.raises(ConfigError, match="merge the adapter into the model"):
        SafeguardCallback(tiny, during=[Adapter("folder")])
    callback = SafeguardCallback(tiny, anchor=1.0)
    arguments = TrainingArguments("unused", report_to="none", use_cpu=True)
    with pytest.raises(ConfigError, match="expected a peft model"):
        callback.on_train_begin(arguments, None, None, model=tiny.lm)
