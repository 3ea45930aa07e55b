"""Settings that several commands share: the model, where results go, and checks of numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from traitscope.config.fields import setting
from traitscope.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "fp32", "bf16", "nf4"]
Position = Literal["prompt", "last", "completion", "all"]
TAUGHT = ("interventions", "teacher", "steered")
"settings that are interventions in short form"


def check_minimums(config: Any, **minimums: int) -> None:
    """Raise ConfigError, naming the flag, for a number that is set and below its minimum."""
    for name, limit in minimums.items():
        value = getattr(config, name)
        if value is not None and not value >= limit:  # true of NaN, too
            raise ConfigError(
                f"--{name.replace('_', '-')} {value}; expected {limit} or more; raise it"
            )


@dataclass(frozen=True)
class OnModel:
    """Settings of every stage that loads a model."""

    model: str = "smollm2-135m"
    """Hub id or folder of a model, or smollm2-135m for the embedded model."""
    device: Device = "auto"
    """Device to compute on. auto takes CUDA where it is available."""
    dtype: Dtype = setting("auto", advanced=True)
    """Number type to compute in. auto takes bf16 where the hardware has it, else fp32. LoRA and
    master weights are always fp32. nf4 keeps the blocks' maps in 4 bits (QLoRA, needs
    bitsandbytes)."""
    seed: int = 0
    """Seed of all random numbers of this stage."""


@dataclass(frozen=True)
class Output:
    """Where results are written. These settings change no result."""

    root: Path = Path("runs")
    """Folder of all runs."""
    study: str = "default"
    """Study folder: the folder of this run below the root."""
    json: Path | None = None
    """File for a machine-readable summary with a `status`."""
