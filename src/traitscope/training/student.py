"""A student in training: low-rank adapters, all weights of the blocks or one vector, put on a model
and taken off again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from traitscope import distributed
from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError
from traitscope.interventions import (
    full_weights,
    hooks,
    intervention,
    lora,
    multi_lora,
    rotated_lora,
)
from traitscope.interventions.intervention import Active, applied
from traitscope.interventions.vector import Vector, vector_bytes
from traitscope.models.model import Model
from traitscope.training.optimizers import Stepper, make_optimizer, read_scales


@dataclass
class Student:
    """A student in training: its parameters, and where it stands."""

    active: Active
    names: list[str]
    "of the parameters: that of a weight, <map>.lora_A and <map>.lora_B, or blocks.<layer>.vector"
    params: list[Tensor]
    "float32 masters, in a fixed order"
    publish: Callable[[], None]
    "copies the masters into the model (full fine-tuning below float32); else does nothing"
    collect: Callable[[], None]
    "adds the model's gradients to those of the masters; else does nothing"
    files: Callable[[], dict[str, bytes]]
    "the folder of this student as it is now, by file name"
    optimizer: Stepper = field(init=False)
    step: int = 0
    "optimizer steps done"


@contextmanager
def new_student(
    model: Model, recipe: Recipe, seed: int, scales: Path | None = None
) -> Iterator[Student]:
    """A student whose function is still the base's, ready to train; the model is restored at the
    end of the block.

    scales: the run whose scales.safetensors frozen_adam takes.
    """
    with MAKERS[recipe.method](model, recipe, seed) as student:
        _equip(student, recipe, scales)
        yield student


@contextmanager
def _lora_student(model: Model, recipe: Recipe, seed: int) -> Iterator[Student]:
    with (
        applied(model, []) as active,
        lora.adapted(model, lora.LoraShape(recipe.rank, recipe.alpha)) as layers,
    ):
        yield _of_layers(model, active, layers, recipe, seed)


def _of_layers(
    model: Model, active: Active, layers: dict[str, lora.LoraLinear], recipe: Recipe, seed: int
) -> Student:
    """The student that is these adapters, drawn anew."""
    lora.initialise(layers, seed)
    if recipe.rotate != "none":
        rotated_lora.rotate(model, layers, recipe.rotate)
    params = {
        f"{name}.lora_{x}": factor
        for name in sorted(layers)
        for x, factor in (("A", layers[name].lora_A), ("B", layers[name].lora_B))
    }
    return Student(
        active,
        list(params),
        list(params.values()),
        _nothing,
        _nothing,
        lambda: lora.adapter_files(model, layers),
    )


@contextmanager
def packed_students(
    model: Model, recipes: Sequence[Recipe], seeds: Sequence[int], scales: Sequence[Path | None]
) -> Iterator[list[Student]]:
    """Students as `new_student` makes them, side by side on one model (packing.py); all share one
    `active`, whose `pack` deals rows out.

    Raises ConfigError for a student that is no LoRA.
    """
    if odd := [recipe.method for recipe in recipes if recipe.method != "lora"]:
        raise ConfigError(
            f"--method {odd[0]} cannot be packed: only LoRA students leave the weights that they"
            " share alone; train it by itself"
        )
    shapes = [lora.LoraShape(recipe.rank, recipe.alpha) for recipe in recipes]
    with applied(model, []) as active, multi_lora.packed(model, shapes) as (pack, layers):
        active.pack = pack
        students = [
            _of_layers(model, active, *own) for own in zip(layers, recipes, seeds, strict=True)
        ]
        for student, recipe, path in zip(students, recipes, scales, strict=True):
            _equip(student, recipe, path)
        yield students


def _equip(student: Student, recipe: Recipe, scales: Path | None) -> None:
    """Give a student its optimizer."""
    factors = read_scales(scales, student.names, student.params) if scales else None
    student.optimizer = make_optimizer(recipe, student.params, factors)


@contextmanager
def _full_student(model: Model, recipe: Recipe, seed: int) -> Iterator[Student]:
    names = full_weights.trained_names(model)
    working = {n: model.lm.get_parameter(n) for n in names}
    own = (
        nullcontext()
        if model.sharded
        else full_weights.swapped(model, {n: p.data.clone() for n, p in working.items()})
    )
    with (
        applied(model, []) as active,
        own,
    ):  # weights in parts are this process's only: nobody asks for the base's again
        masters = {n: torch.nn.Parameter(p.data.float().clone()) for n, p in working.items()}

        def publish() -> None:
            for name, p in working.items():
                p.data.copy_(masters[name].data)

        def collect() -> None:
            for name, p in working.items():
                if p.grad is not None:
                    grad = p.grad.float()
                    if model.sharded:
                        grad = (
                            grad * distributed.world()
                        )  # what FSDP leaves is the mean over processes
                    masters[name].grad = (
                        grad if masters[name].grad is None else masters[name].grad + grad
                    )
                    p.grad = None

        try:
            for p in working.values():
                p.requires_grad_(True)
            params = list(masters.values())
            yield Student(
                active,
                names,
                params,
                publish,
                collect,
                lambda: full_weights.student_files(model, masters),
            )
        finally:
            for p in working.values():
                p.requires_grad_(False)
                p.grad = None


@contextmanager
def _vector_student(model: Model, recipe: Recipe, seed: int) -> Iterator[Student]:
    """One vector behind one block, zero at first (Hadley and Gultepe, arXiv 2608.05734: what a
    steered teacher's data ask for)."""
    intervention.check_layers((recipe.layer,), model)
    row_D = torch.nn.Parameter(torch.zeros(model.d_model, device=model.device))
    with applied(model, []) as active:
        edit = (recipe.layer, "all", intervention.adding(row_D, active))
        with hooks.edited(model.blocks, [edit], active.roles):
            files = partial(_vector_files, model, recipe.layer, row_D)
            yield Student(
                active, [f"blocks.{recipe.layer}.vector"], [row_D], _nothing, _nothing, files
            )


def _vector_files(model: Model, layer: int, row_D: Tensor) -> dict[str, bytes]:
    rows_LD = np.zeros((model.n_layers, model.d_model), dtype=np.float32)
    rows_LD[layer] = row_D.detach().cpu().numpy()
    return {
        intervention.TRAINED: vector_bytes(Vector(rows_LD, model.digest, {"trained at": layer}))
    }


MAKERS = {"lora": _lora_student, "full": _full_student, "vector": _vector_student}


def _nothing() -> None:
    return None
