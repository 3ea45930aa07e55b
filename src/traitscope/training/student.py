"""A student in training: put on a model, and taken off again.

A student is low-rank adapters on the model, all weights of the blocks, or one vector.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
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
    peft_folder,
    rotated_lora,
)
from traitscope.interventions.applied import Active, adding, applied, check_layers
from traitscope.interventions.intervention import TRAINED_AT, Adapter
from traitscope.interventions.vector import Vector, vector_bytes
from traitscope.models.linear_maps import linear_names_of_layers
from traitscope.models.model import Model
from traitscope.training.optimizers import Stepper, make_optimizer, read_scales
from traitscope.training.safeguards.acting import Safeguards, guarded

NONE = Safeguards()
"nothing that acts beside the student"


def _nothing() -> None:
    return None


@dataclass
class Student:
    """A student in training: its parameters, its optimizer, and the step where it stands."""

    active: Active
    "the model under the student"
    names: list[str]
    """names of the parameters: that of a weight, <map>.lora_A and <map>.lora_B, or
    blocks.<layer>.vector"""
    params: list[Tensor]
    "float32 parameters that the optimizer changes, in the order of the names"
    files: Callable[[], dict[str, bytes]]
    "makes the content of this student's folder as it is now, by file name"
    publish: Callable[[], None] = _nothing
    "copies the float32 parameters into the model, for full fine-tuning; else does nothing"
    collect: Callable[[], None] = _nothing
    "adds the model's gradients to those of the parameters, for full fine-tuning"
    place: int = 0
    "place of the student among packed ones"
    optimizer: Stepper = field(init=False)
    "changes `params` by their gradients"
    step: int = 0
    "optimizer steps done"


@contextmanager
def new_student(
    model: Model,
    recipe: Recipe,
    seed: int,
    scales: Path | None = None,
    guards: Safeguards = NONE,
) -> Iterator[Student]:
    """A student whose function is still the base's, ready to train.

    The model is as before at the end of the block. `scales` is the run or file with the factors of
    frozen_adam. `guards` act until then, and leave nothing in the student. Raises ConfigError for
    a frozen adapter below a student that holds all weights.
    """
    if recipe.method == "full" and any(isinstance(item, Adapter) for item in guards.during):
        raise ConfigError(
            "--during adapter:... with --method full: the student would hold the adapter's weights,"
            " too; expected lora or vector; take one of them"
        )
    with MAKERS[recipe.method](model, recipe, seed, guards) as student:
        _equip(student, recipe, scales)
        yield student


@contextmanager
def packed_students(
    model: Model, recipes: Sequence[Recipe], seeds: Sequence[int], scales: Sequence[Path | None]
) -> Iterator[list[Student]]:
    """Students as `new_student` makes them, side by side on one model (multi_lora.py).

    All share one `active`, whose pack deals rows out. Raises ConfigError for a student that is no
    LoRA on all blocks.
    """
    for recipe in recipes:
        if recipe.method != "lora":
            raise ConfigError(
                f"--method {recipe.method} cannot be packed: only LoRA students leave the weights"
                " that they share alone; train it by itself"
            )
        if recipe.train_layers:
            raise ConfigError(
                "--train-layers cannot be packed: packed students have adapters on all blocks;"
                " train it by itself"
            )
    shapes = [lora.LoraShape(recipe.rank, recipe.alpha) for recipe in recipes]
    with applied(model, []) as active, active.packed_students(shapes) as student_layers:
        students = []
        for place, layers in enumerate(student_layers):
            student = _student_of_layers(model, active, layers, recipes[place], seeds[place])
            student.place = place
            students.append(student)
        for student, recipe, path in zip(students, recipes, scales, strict=True):
            _equip(student, recipe, path)
        yield students


def _equip(student: Student, recipe: Recipe, scales: Path | None) -> None:
    """Give a student its optimizer."""
    factors = read_scales(scales, student.names, student.params) if scales else None
    student.optimizer = make_optimizer(recipe, student.params, factors)


@contextmanager
def _lora_student(model: Model, recipe: Recipe, seed: int, guards: Safeguards) -> Iterator[Student]:
    shape = lora.LoraShape(recipe.rank, recipe.alpha)
    names = linear_names_of_layers(model, recipe.train_layers)
    with guarded(model, guards) as active, lora.adapted(model, shape, names) as layers:
        yield _student_of_layers(model, active, layers, recipe, seed)


def _student_of_layers(
    model: Model, active: Active, layers: dict[str, lora.LoraLinear], recipe: Recipe, seed: int
) -> Student:
    """The student that is these adapters, with newly drawn factors."""
    lora.initialise(layers, seed)
    if recipe.rotate != "none":
        rotated_lora.rotate(model, layers, recipe.rotate)
    names, params = [], []
    for name in sorted(layers):
        names += [f"{name}.lora_A", f"{name}.lora_B"]
        params += [layers[name].lora_A, layers[name].lora_B]
    return Student(active, names, params, lambda: peft_folder.adapter_files(model, layers))


@contextmanager
def _full_student(model: Model, recipe: Recipe, seed: int, guards: Safeguards) -> Iterator[Student]:
    names = full_weights.trained_names(model, recipe.train_layers)
    working = {name: model.lm.get_parameter(name) for name in names}
    if model.sharded:  # the weights are this process's only: nobody asks for the base's again
        trained_weights = nullcontext()
    else:
        copies = {name: weight.data.clone() for name, weight in working.items()}
        trained_weights = full_weights.swapped(model, copies)
    with guarded(model, guards) as active, trained_weights:
        masters = {}
        for name, weight in working.items():
            masters[name] = torch.nn.Parameter(weight.data.float().clone())

        def publish() -> None:
            for name, weight in working.items():
                weight.data.copy_(masters[name].data)

        def collect() -> None:
            for name, weight in working.items():
                _move_gradient(weight, masters[name], model.sharded)

        try:
            for weight in working.values():
                weight.requires_grad_(True)
            yield Student(
                active,
                names,
                list(masters.values()),
                lambda: full_weights.student_files(model, masters),
                publish,
                collect,
            )
        finally:
            for weight in working.values():
                weight.requires_grad_(False)
                weight.grad = None


def _move_gradient(weight: Tensor, master: Tensor, is_sharded: bool) -> None:
    """Add the gradient of a weight to that of its float32 master."""
    if weight.grad is None:
        return
    grad = weight.grad.float()
    if is_sharded:
        grad = grad * distributed.world()  # what FSDP leaves is the mean over processes
    master.grad = grad if master.grad is None else master.grad + grad
    weight.grad = None


@contextmanager
def _vector_student(
    model: Model, recipe: Recipe, seed: int, guards: Safeguards
) -> Iterator[Student]:
    """One vector behind one block, zero at first.

    A steered teacher's data ask for such a student (Hadley and Gultepe, arXiv 2608.05734).
    """
    layer = recipe.layer
    check_layers((layer,), model)
    row_D = torch.nn.Parameter(torch.zeros(model.d_model, device=model.device))
    with guarded(model, guards) as active:
        edit = (layer, "all", adding(row_D, active.current))
        with hooks.edited(model.blocks, [edit], active.current):
            yield Student(
                active,
                [f"blocks.{layer}.vector"],
                [row_D],
                lambda: _vector_files(model, layer, row_D),
            )


def _vector_files(model: Model, layer: int, row_D: Tensor) -> dict[str, bytes]:
    rows_LD = np.zeros((model.n_layers, model.d_model), dtype=np.float32)
    rows_LD[layer] = row_D.detach().cpu().numpy()
    vector = Vector(rows_LD, model.digest, {TRAINED_AT: layer})
    return {intervention.TRAINED: vector_bytes(vector)}


MAKERS = {"lora": _lora_student, "full": _full_student, "vector": _vector_student}
