"""Weight noise: a model that is a little off another one. (Hadley and Gultepe, arXiv 2608.05734,
section on noise.)

    W <- W + sd * std(W) * e,  e standard normal, for every weight matrix in the scope

Norms and biases stay. With `mean_shift` the noise has the mean of W added, as in the paper's
released code, where it was probably not meant; with `keep_norm` each matrix is brought back to its
Frobenius norm. Every matrix has a stream of its own, keyed by the seed and its name, drawn on the
CPU: the same on every device, and another scope changes no other draw.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import yaml
from torch import Tensor

from traitscope.config.parsing import from_dict
from traitscope.errors import ConfigError

Scope = Literal["attention", "mlp", "embeddings"]
MARK = "+noise:"
"between a model's name and the noise on it"


@dataclass(frozen=True)
class Noise:
    """How much of it, and where."""

    sd: float
    """In standard deviations of each matrix."""
    seed: int = 0
    """The draw."""
    scope: tuple[Scope, ...] = ("attention", "mlp")
    """Which matrices; the output head belongs to the embeddings."""
    keep_norm: bool = False
    """Bring each matrix back to its norm."""
    mean_shift: bool = False
    """Add the mean of each matrix to its noise."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", tuple(sorted(set(self.scope))))
        if not self.scope or set(self.scope) - set(get_args(Scope)):
            raise ConfigError(
                f"noise on {self.scope or 'nothing'}; expected some of {', '.join(get_args(Scope))}"
            )
        if not (math.isfinite(self.sd) and self.sd >= 0) or self.seed < 0:
            raise ConfigError(
                f"noise with sd {self.sd} and seed {self.seed}; expected 0 or more of both"
            )


def parse(text: str) -> Noise:
    """Noise from its short form:
    SD[,seed=0][,scope=attention+mlp][,keep_norm=true][,mean_shift=true]."""
    first, *pairs = text.split(",")
    if any("=" not in pair for pair in pairs):
        raise ConfigError(
            f"noise {text!r} is not understood; expected"
            " SD[,seed=0][,scope=attention+mlp][,keep_norm=true]"
        )
    fields = {"sd": first} | dict(pair.split("=", 1) for pair in pairs)
    plain = {
        key: value.split("+") if key == "scope" else yaml.safe_load(value)
        for key, value in fields.items()
    }
    return from_dict(Noise, plain, f"noise {text!r}")


def split_name(name: str) -> tuple[str, Noise | None]:
    """A model's name without its noise, and the noise: smollm2-135m+noise:0.1,seed=3."""
    plain, mark, rest = name.partition(MARK)
    return (plain, parse(rest)) if mark else (name, None)


def noised(weight: Tensor, noise: Noise, name: str) -> Tensor:
    """The matrix with noise, in its own dtype and on its own device."""
    if noise.sd == 0 and not noise.mean_shift:
        return weight.clone()
    seed = int.from_bytes(hashlib.sha256(f"{noise.seed}/{name}".encode()).digest()[:7], "little")
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)).to(
        weight.device
    )
    before = weight.float()
    after = before + noise.sd * before.std() * drawn + (before.mean() if noise.mean_shift else 0.0)
    if noise.keep_norm:
        after *= before.norm() / after.norm()
    return after.to(weight.dtype)
