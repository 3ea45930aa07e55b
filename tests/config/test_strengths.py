"""Strengths that cannot be meant are refused by every command that takes one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from traitscope.config.analysis import ExplainConfig, RecoverConfig
from traitscope.config.audit import AuditConfig, BlindNamingConfig
from traitscope.config.common import LARGEST_FACTOR, LARGEST_STRENGTH
from traitscope.config.recipe import Recipe
from traitscope.config.screen import ScreenConfig, SteerScanConfig
from traitscope.config.stages import ExportConfig, GenerateConfig
from traitscope.config.students.verify import VerifyConfig
from traitscope.errors import ConfigError
from traitscope.interventions import applied
from traitscope.interventions.intervention import Steer
from traitscope.interventions.short_form import parse
from traitscope.interventions.vector import Vector
from traitscope.models.model import Model
from traitscope.studies.experiment.file import Teacher

STEERING = {
    "steer": lambda value: Steer("v", layer=0, alpha=value),
    "short form": lambda value: parse(f"steer:v,layers=0,alpha={value}"),
    "explain": lambda value: ExplainConfig(alphas=(0.1, value)),
    "recover": lambda value: RecoverConfig(alphas=(value,)),
    "recover, tiled": lambda value: RecoverConfig(tiled_alphas=(value,)),
    "recover, steps": lambda value: RecoverConfig(steps=(value,)),
    "screen": lambda value: ScreenConfig(strengths=(value,)),
    "steer_scan": lambda value: SteerScanConfig(alphas=(value,)),
    "blind_naming": lambda value: BlindNamingConfig(strength=value),
    "audit": lambda value: AuditConfig(strength=value),
    "experiment": lambda value: Teacher(steer=value),
}
FACTORS = {
    "lr": lambda value: Recipe(lr=value),
    "LoRA alpha": lambda value: Recipe(alpha=value),
    "momentum": lambda value: Recipe(optimizer="sgd", momentum=value),
    "weight decay": lambda value: Recipe(weight_decay=value),
    "clip": lambda value: Recipe(clip=value),
    "anchor": lambda value: Recipe(anchor=value),
    "anchor temperature": lambda value: Recipe(anchor=1.0, anchor_temperature=value),
    "relearning": lambda value: VerifyConfig(relearn_lr=value),
    "temperature": lambda value: GenerateConfig(temperature=value),
    "frequency penalty": lambda value: GenerateConfig(frequency_penalty=value),
    "repetition penalty": lambda value: GenerateConfig(repetition_penalty=value),
    "raw": lambda value: Steer("v", layer=0, alpha=value, scale="raw"),
    "unit": lambda value: Steer("v", layer=0, alpha=value, scale="unit"),
}
PARTS = {
    "scale": lambda value: ExportConfig(scale=value),
    "ablate_strength": lambda value: ExportConfig(ablate=("v,layers=1",), ablate_strength=value),
}
Make = Callable[[float], Any]


def cases() -> list[tuple[Make, float]]:
    every = []
    for makes, largest in ((STEERING, LARGEST_STRENGTH), (FACTORS, LARGEST_FACTOR), (PARTS, 1.0)):
        for name, make in makes.items():
            every.append(pytest.param(make, largest, id=name))
    return every


@pytest.mark.parametrize(("make", "largest"), cases())
def test_a_strength_is_taken_up_to_the_largest(make: Make, largest: float) -> None:
    make(largest)
    for wrong in (np.nextafter(largest, np.inf), 1e30, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="expected"):
            make(float(wrong))


def test_strengths_below_zero_have_the_same_bound() -> None:
    assert Steer("v", layer=0, alpha=-LARGEST_STRENGTH).alpha == -LARGEST_STRENGTH
    with pytest.raises(ConfigError, match=r"--alpha -1e\+30; expected a finite strength of size"):
        Steer("v", layer=0, alpha=-1e30)


@pytest.mark.parametrize("scale", ["raw", "unit", "residual"])
def test_what_is_added_is_at_most_1000_mean_residual_norms(tiny: Model, scale: str) -> None:
    """Whatever the scale is, where the vector says how long residuals are."""
    rows_LD = np.full((tiny.n_layers, tiny.d_model), 1 / np.sqrt(tiny.d_model), np.float32)
    vector = Vector(rows_LD, tiny.digest, {"residual_norms": [2.0] * tiny.n_layers})
    most = LARGEST_STRENGTH if scale == "residual" else 2 * LARGEST_STRENGTH
    ((layer, row_D),) = applied.steering(
        Steer(vector, layer=1, alpha=0.999 * most, scale=scale), tiny
    )
    assert layer == 1 and float(row_D.norm()) == pytest.approx(1998, rel=1e-4)
    if scale != "residual":
        with pytest.raises(ConfigError, match="adds, in mean residual norms, 100[12]"):
            applied.steering(Steer(vector, layer=1, alpha=1.0015 * most, scale=scale), tiny)
