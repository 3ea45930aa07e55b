"""Trainings of tiny students by other trainers, and the same ones here, to compare them."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load

from traitscope.config.recipe import Recipe
from traitscope.data.records import Record
from traitscope.inference.token_rows import rows_from
from traitscope.interventions import full_weights
from traitscope.interventions.vector import Vector
from traitscope.training.student import new_student

STEPS = 3
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
ARGUMENTS = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 4,
    "learning_rate": RECIPE.lr,
    "lr_scheduler_type": "constant",
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "save_strategy": "no",
    "bf16": False,
}
"settings of a transformers trainer that train as RECIPE does"


def direction(model, seed: int = 0) -> Vector:
    rows = np.random.default_rng(seed).normal(size=(model.n_layers, model.d_model))
    norms = np.ones(model.n_layers).tolist()
    return Vector(rows.astype(np.float32), model.digest, {"residual_norms": norms})


def lora_start(model, folder: Path):
    """A peft model with the factors that a student here starts from."""
    from peft import PeftModel

    with new_student(model, RECIPE, 1) as student:
        folder.mkdir(exist_ok=True)
        for name, content in student.files().items():
            (folder / name).write_bytes(content)
    return PeftModel.from_pretrained(fresh(model), folder, is_trainable=True)


def fresh(model):
    """The model in float32, from its folder."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model.name, dtype=torch.float32)


def full_start(model):
    """The model with the blocks to be trained alone, as full fine-tuning trains here."""
    lm = fresh(model).requires_grad_(False)
    for name in full_weights.trained_names(model):
        lm.get_parameter(name).requires_grad_(True)
    return lm


def trained_here(model, student) -> dict[str, torch.Tensor]:
    """The B factors, or the weights, of a student that was trained here, by name."""
    (content,) = [data for name, data in student.files.items() if name.endswith(".safetensors")]
    return {name: value for name, value in load(content).items() if "lora_A" not in name}


def trained_there(lm) -> dict[str, torch.Tensor]:
    """The B factors of a peft model, or the weights of another model, by the same names."""
    values = {}
    for name, value in lm.named_parameters():
        if "lora_B" in name or not hasattr(lm, "disable_adapter"):
            values[name.replace(".default", "")] = value.detach().clone()
    return values


def difference(model, one: dict, other: dict) -> float:
    """Largest difference of two students, as a share of the second one's largest change."""
    start = {name: torch.zeros(()) for name in other}
    if not any("lora_" in name for name in other):
        start = {name: model.lm.get_parameter(name).detach() for name in other}
    off = max((one[name] - other[name]).abs().max().item() for name in other)
    moved = max((other[name] - start[name]).abs().max().item() for name in other)
    return off / moved


def batch_of(model) -> list[dict]:
    """The rows as one batch, padded on the right, for transformers' Trainer."""
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


def hooks_in(lm) -> int:
    """Modules of a model that have a forward hook."""
    return sum(bool(m._forward_hooks or m._forward_pre_hooks) for m in lm.modules())
