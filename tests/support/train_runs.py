"""Rows and recipes for small training runs."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from tiny_models import random_rows
from torch import Tensor, nn

from traitscope.config.recipe import Recipe
from traitscope.inference.token_rows import Row, teacher_hidden
from traitscope.models.model import Model
from traitscope.training.loop import train_student
from traitscope.training.plan import plan_training
from traitscope.training.step import Metrics, StudentBatch, step_metrics, take_step
from traitscope.training.student import Student, new_student

PLAIN = Recipe(
    rank=4,
    alpha=8.0,
    lr=1e-2,
    schedule="constant",
    warmup=0.0,
    epochs=1,
    batch_size=8,
    clip=0.0,
    held_out=0.0,
)
FULL = dataclasses.replace(PLAIN, method="full", lr=1e-3)
METHODS = [{"method": "lora"}, {"method": "full"}, {"method": "vector", "layer": 0}]


def train_step(
    model: Model, student: Student, recipe: Recipe, rows: list[Row], soft: object, total_steps: int
) -> Metrics:
    """Metrics of one optimizer step of one student on one batch."""
    (values,) = take_step(model, [StudentBatch(student, recipe, rows, soft, total_steps)])
    return step_metrics(student, recipe, values)


def make_rows(model: Model, n: int = 8, shared: int = 0, seed: int = 0) -> list[Row]:
    """Rows with prompts of 1 to 6 tokens after `shared` common ones, and answers of 1 to 7."""
    rng = np.random.default_rng(seed)
    sizes = [(int(rng.integers(1, 7)), int(rng.integers(1, 8))) for _ in range(n)]
    ids = random_rows(model, [p + a for p, a in sizes], seed)
    head = tuple(range(20, 20 + shared))
    return [
        Row(head + tuple(row[:p]), tuple(row[p:])) for row, (p, _) in zip(ids, sizes, strict=True)
    ]


def self_distilled(model: Model, rows: list[Row], items: list) -> list[Tensor]:
    return teacher_hidden(model, items, rows, [r.prompt_ids for r in rows], batch_size=3)


def run(
    model: Model,
    recipe: Recipe,
    rows: list[Row],
    soft: list[Tensor] | None = None,
    seed: int = 0,
    scales: Path | None = None,
) -> tuple:
    """Metrics of every step, the final parameters, and the student's files."""
    all_metrics: list[dict] = []
    plan = plan_training(rows, recipe, seed, soft)
    with new_student(model, recipe, seed, scales) as student:
        train_student(model, student, plan, lambda metrics, _: all_metrics.append(metrics))
        params = [p.detach().clone() for p in student.params]
        return all_metrics, params, student.files()


def transformers_loss(lm: nn.Module, rows: list[Row]) -> Tensor:
    """transformers' loss of a right-padded batch, prompts and padding labelled -100."""
    width = max(len(r.ids) for r in rows)
    ids = torch.tensor([list(r.ids) + [0] * (width - len(r.ids)) for r in rows])
    mask = torch.tensor([[i < len(r.ids) for i in range(width)] for r in rows])
    wanted = torch.tensor(
        [[len(r.prompt_ids) <= i < len(r.ids) for i in range(width)] for r in rows]
    )
    return lm(input_ids=ids, attention_mask=mask.long(), labels=torch.where(wanted, ids, -100)).loss
