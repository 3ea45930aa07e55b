"""Weight noise, which makes a model that differs a little from another one.

    W <- W + sd * std(W) * e,  e standard normal, for every weight matrix in the scope

Source: Hadley and Gultepe, arXiv 2608.05734, section on noise. Norms and biases stay. With
`mean_shift` the mean of W is added to the noise. The paper's released code does so, probably by
mistake. With `keep_norm` each matrix is brought back to its Frobenius norm.

Every matrix has a random stream that depends on the seed and the matrix's name only. The noise is
drawn on the CPU. So it is the same on every device, and the scope changes no draw.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from traitscope.config.parsing import from_dict
from traitscope.errors import ConfigError
from traitscope.plain_values import NotPlainError, from_yaml

if TYPE_CHECKING:
    from torch import Tensor

Scope = Literal["attention", "mlp", "embeddings"]
LARGEST_SD = 1e6
"largest size of noise; far below it nothing of the model is left"
MARK = "+noise:"
"stands between a model's name and the short form of the noise on its weights"


@dataclass(frozen=True)
class Noise:
    """How much noise, and on which weights."""

    sd: float
    """Size of the noise, in standard deviations of each matrix."""
    seed: int = 0
    """Seed of the random streams."""
    scope: tuple[Scope, ...] = ("attention", "mlp")
    """Kinds of weight matrices that get noise. The output head belongs to the embeddings."""
    keep_norm: bool = False
    """Bring each matrix back to its Frobenius norm."""
    mean_shift: bool = False
    """Add the mean of each matrix to the noise on it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", tuple(sorted(set(self.scope))))
        if not self.scope or set(self.scope) - set(get_args(Scope)):
            raise ConfigError(
                f"noise on {self.scope or 'nothing'}; expected some of"
                f" {', '.join(get_args(Scope))}; name some, or leave the scope out"
            )
        if not 0 <= self.sd <= LARGEST_SD or self.seed < 0:
            raise ConfigError(
                f"noise with sd {self.sd} and seed {self.seed}; expected an sd from 0 to"
                f" {LARGEST_SD:g} and a seed of 0 or more; correct them"
            )


def parse(text: str) -> Noise:
    """Noise from its short form.

    The form is SD[,seed=0][,scope=attention+mlp][,keep_norm=true][,mean_shift=true]. Raises
    ConfigError for any other text.
    """
    first, *pairs = text.split(",")
    where = f"noise {text!r}"
    fields: dict[str, Any] = {"sd": plain_value(first, where)}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(
                f"noise {text!r} is not understood; expected"
                " SD[,seed=0][,scope=attention+mlp][,keep_norm=true]; correct it"
            )
        fields[key] = value.split("+") if key == "scope" else plain_value(value, where)
    return from_dict(Noise, fields, where)


def plain_value(text: str, where: str) -> Any:
    """A number, a truth value or a text, as YAML reads it. Raises ConfigError for broken YAML."""
    try:
        return from_yaml(text)
    except NotPlainError as error:
        raise ConfigError(
            f"{where}: {text!r} is no number and no truth value ({error}); correct it"
        ) from None


def short_form(noise: Noise) -> str:
    """The text that `parse` turns into this noise."""
    form = repr(float(noise.sd))
    if noise.seed:
        form += f",seed={noise.seed}"
    if noise.scope != Noise(0.0).scope:
        form += f",scope={'+'.join(noise.scope)}"
    if noise.keep_norm:
        form += ",keep_norm=true"
    if noise.mean_shift:
        form += ",mean_shift=true"
    return form


def split_name(name: str) -> tuple[str, Noise | None]:
    """The name of the model without noise, and the noise: smollm2-135m+noise:0.1,seed=3."""
    plain, mark, rest = name.partition(MARK)
    return (plain, parse(rest)) if mark else (name, None)


def noised(weight: Tensor, noise: Noise, name: str) -> Tensor:
    """A weight matrix with noise, in the matrix's dtype and on its device.

    `name` is the matrix's name in the model. Together with the seed it chooses the random stream.
    """
    if noise.sd == 0 and not noise.mean_shift:
        return weight.clone()
    import torch

    key = hashlib.sha256(f"{noise.seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))
    drawn = torch.randn(weight.shape, generator=generator).to(weight.device)
    before = weight.float()
    after = before + noise.sd * before.std() * drawn + (before.mean() if noise.mean_shift else 0.0)
    if noise.keep_norm:
        after *= before.norm() / after.norm()
    return after.to(weight.dtype)


def noised_weights(lm: Any, noise: Noise) -> dict[str, Tensor]:
    """The weight matrices in the scope of the noise, with the noise, by name.

    Raises ConfigError where the model has no weights of a kind in the scope.
    """
    from traitscope.models import nf4

    nf4.refuse_packed(lm, "noise")
    matrices = {name: weight for name, weight in lm.named_parameters() if weight.dim() > 1}
    noisy: dict[str, Tensor] = {}
    for kind in noise.scope:
        names = _names_of_kind(lm, matrices, kind)
        if not names:
            raise ConfigError(
                f"noise on {kind}: {type(lm).__name__} names no such weights; leave {kind} out of"
                " the scope"
            )
        for name in names:
            noisy[name] = noised(matrices[name].data, noise, name)
    return noisy


def _names_of_kind(lm: Any, matrices: dict[str, Tensor], kind: Scope) -> list[str]:
    """Names of the weight matrices that belong to the attention, the MLPs or the embeddings."""
    from traitscope.models.linear_maps import NAME_PARTS
    from traitscope.models.model import residual_blocks

    if kind == "embeddings":
        ends = (lm.get_input_embeddings(), lm.get_output_embeddings())
        ids = {id(module.weight) for module in ends}
        return [name for name, weight in matrices.items() if id(weight) in ids]
    ids = {id(weight) for weight in residual_blocks(lm).parameters()}
    names = []
    for name, weight in matrices.items():
        in_block = id(weight) in ids
        if in_block and any(part in name for part in NAME_PARTS[kind]):
            names.append(name)
    return names
