"""Rows and recipes for small training runs."""

from pathlib import Path

import numpy as np
from tiny_models import random_rows
from torch import Tensor

from traitscope.config.recipe import Recipe
from traitscope.inference.token_rows import Row, teacher_hidden
from traitscope.models.model import Model
from traitscope.training import loop

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
    found: list[dict] = []
    with loop.new_student(model, recipe, seed, scales) as student:
        loop.train(
            model, student, recipe, seed, rows, soft, lambda metrics, _: found.append(metrics)
        )
        return found, [p.detach().clone() for p in student.params], student.files()
