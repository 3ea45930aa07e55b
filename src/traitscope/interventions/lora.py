"""Low-rank adapters on the linear maps of the blocks, read and written as peft folders.

y = W x + (alpha / rank) B A x, with A and B in float32 whatever the model computes in (Hu et al.
2021, arXiv 2106.09685). Own layers rather than peft's because the training loop needs them thin:
the product is one fused step without temporaries, importing them costs nothing, and many adapters
over one frozen base will run side by side. The folder format is peft's, so any peft user can load
the result; tests compare both ways.

Shapes: N tokens, I in, O out, R rank.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.errors import ConfigError, VectorError
from traitscope.models import nf4
from traitscope.models.linear_maps import (
    linear_names,
    replace_module,
    selected_linear_names,
    weight_of,
)
from traitscope.models.model import Model


class _LowRank(torch.autograd.Function):
    """W x + b + s B A x with W frozen: no gradient for W, and no temporary the size of the
    output."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        s: float,
    ) -> Tensor:
        down_NR = x_NI @ a_RI.t()
        y_NO = x_NI @ weight_OI.t() if bias_O is None else torch.addmm(bias_O, x_NI, weight_OI.t())
        y_NO.addmm_(down_NR, b_OR.t(), alpha=s)
        ctx.save_for_backward(x_NI, weight_OI, a_RI, b_OR, down_NR)
        ctx.s = s
        return y_NO

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI, a_RI, b_OR, down_NR = ctx.saved_tensors
        back_NR = (grad_NO @ b_OR).mul_(ctx.s)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_NO @ weight_OI).addmm_(back_NR, a_RI)
        return grad_x, None, None, back_NR.t() @ x_NI, (grad_NO.t() @ down_NR).mul_(ctx.s), None


@dataclass
class Switch:
    """At which tokens the adapters that share it act; set before each forward pass, read by their
    layers."""

    gate: Callable[[Sequence[int]], list[bool]]
    "from a row's token ids to which of them are chosen (locate.py)"
    outside: bool = False
    "act at the others instead; tokens behind the rows given to `gate` are never chosen"
    current_BT: Tensor | None = None
    "bool, of the pass that is running"

    def at(self, rows: Sequence[Sequence[int]]) -> list[list[bool]]:
        """Whether the adapters act at each token of each row."""
        return [[chosen != self.outside for chosen in self.gate(row)] for row in rows]

    def mask(self, x_BTI: Tensor) -> Tensor:
        """[B, T, 1] bool."""
        found = None if self.current_BT is None else tuple(self.current_BT.shape)
        if found != x_BTI.shape[:-1]:
            raise ConfigError(
                f"an adapter for some tokens met {tuple(x_BTI.shape[:-1])} tokens and was told of"
                f" {found}; run the model through traitscope.inference.forward"
            )
        return self.current_BT.unsqueeze(-1)


class LoraLinear(nn.Module):
    """A frozen linear map with a low-rank addition; `on` switches the addition off without removing
    it."""

    def __init__(self, linear: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.packed = nf4.is_packed(linear)
        weight_OI = weight_of(linear)
        out_features, in_features = weight_OI.shape
        self.scale = alpha / rank
        self.on = True
        self.switch: Switch | None = None
        self.lora_A = nn.Parameter(torch.zeros(rank, in_features, device=weight_OI.device))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank, device=weight_OI.device))
        self.turn_in: Tensor | None = None
        self.turn_out: Tensor | None = None

    def hold(self, a_RI: Tensor, b_OR: Tensor) -> None:
        """Take these factors, not to be trained."""
        self.lora_A.data.copy_(a_RI)
        self.lora_B.data.copy_(b_OR)
        self.requires_grad_(False)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B as they act on the model: the parameters, turned back where rotation.py has
        turned them."""
        a = self.lora_A if self.turn_in is None else self.lora_A @ self.turn_in.t()
        b = self.lora_B if self.turn_out is None else self.turn_out @ self.lora_B
        return a, b

    def forward(self, x: Tensor) -> Tensor:
        if not self.on:
            return self.linear(x)
        a, b = (factor.to(x.dtype) for factor in self.factors())
        if self.packed:  # keeping a written-out weight for the backward pass would undo the packing
            y = (
                self.linear(x)
                + torch.nn.functional.linear(torch.nn.functional.linear(x, a), b) * self.scale
            )
        else:
            flat = x.reshape(-1, x.shape[-1])
            y = _LowRank.apply(
                flat, weight_of(self.linear), self.linear.bias, a, b, self.scale
            ).view(*x.shape[:-1], -1)
        return y if self.switch is None else torch.where(self.switch.mask(x), y, self.linear(x))


@dataclass(frozen=True)
class LoraShape:
    """What an adapter looks like before training."""

    rank: int = 8
    "R"
    alpha: float = 32.0
    "the addition is scaled by alpha / rank"

    def __post_init__(self) -> None:
        if self.rank < 1 or not math.isfinite(self.alpha):
            raise ConfigError(
                f"--rank {self.rank} --alpha {self.alpha}: rank must be at least 1, alpha finite"
            )


def directions(a_RI: Tensor, b_OR: Tensor, top: int | None, drop: int) -> tuple[Tensor, Tensor]:
    """Factors of B A without its `drop` largest singular directions, of which the first `top` count
    (None: all).

    The rank stays; what is left out is zero. The ablation of Nief et al. (arXiv 2606.00831),
    notebook on the adapter's SVD.
    """
    q_OR, upper = torch.linalg.qr(b_OR)
    p_IR, lower = torch.linalg.qr(a_RI.t())
    u, s, vh = torch.linalg.svd(upper @ lower.t(), full_matrices=False)
    keep = torch.zeros_like(s)
    keep[drop:top] = 1
    lost = (0, len(a_RI) - len(s))  # of a map that is narrower than the rank
    return torch.nn.functional.pad(vh @ p_IR.t(), (0, 0, *lost)), torch.nn.functional.pad(
        (q_OR @ u) * (s * keep), lost
    )


def layers_on(model: Model, names: Sequence[str], shape: LoraShape) -> dict[str, LoraLinear]:
    """Zero-function adapters for linear maps, by name, not yet in their place.

    A map that is narrower than the rank, such as the keys of grouped attention, has it all the
    same, as in peft. Raises ConfigError for a rank that all of them are narrower than.
    """
    linears = {name: model.lm.get_submodule(name) for name in names}
    widest = max(min(weight_of(linear).shape) for linear in linears.values())
    if shape.rank > widest:
        raise ConfigError(
            f"--rank {shape.rank} is larger than any map of {model.name} allows ({widest}); choose"
            " a smaller rank"
        )
    return {name: LoraLinear(linear, shape.rank, shape.alpha) for name, linear in linears.items()}


@contextmanager
def adapted(
    model: Model, shape: LoraShape, names: list[str] | None = None
) -> Iterator[dict[str, LoraLinear]]:
    """Put zero-function adapters on the model until the context ends; yields them by module
    name."""
    layers = layers_on(model, names or linear_names(model), shape)
    try:
        for name, layer in layers.items():
            replace_module(model, name, layer)
        yield layers
    finally:
        for name, layer in layers.items():
            replace_module(model, name, layer.linear)


def initialise(layers: dict[str, LoraLinear], seed: int) -> None:
    """A ~ U(-1/sqrt(I), 1/sqrt(I)) as peft does (Kaiming uniform with a = sqrt 5), B = 0: the
    function is unchanged."""
    generator = torch.Generator().manual_seed(seed)
    for _, layer in sorted(layers.items()):
        bound = 1 / math.sqrt(layer.lora_A.shape[1])
        drawn = (torch.rand(layer.lora_A.shape, generator=generator) * 2 - 1) * bound
        layer.lora_A.data.copy_(drawn)
        layer.lora_B.data.zero_()


def adapter_files(model: Model, layers: dict[str, LoraLinear]) -> dict[str, bytes]:
    """The two files of a peft adapter folder, by file name."""
    from safetensors.torch import save

    tensors = {}
    for name, layer in layers.items():
        for letter, factor in zip("AB", layer.factors(), strict=True):
            tensors[f"base_model.model.{name}.lora_{letter}.weight"] = (
                factor.detach().cpu().contiguous()
            )
    first = next(iter(layers.values()))
    rank = first.lora_A.shape[0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name,
        "bias": "none",
        "r": rank,
        "lora_alpha": first.scale * rank,
        "lora_dropout": 0.0,
        "inference_mode": True,
        "target_modules": sorted(layers),
        "fan_in_fan_out": not isinstance(first.linear, nn.Linear),
        "traitscope_base_digest": model.digest,
    }
    return {
        "adapter_config.json": (json.dumps(config, indent=1, sort_keys=True) + "\n").encode(),
        "adapter_model.safetensors": save(tensors, metadata={"format": "pt"}),
    }


def read_adapter(folder: Path, model: Model) -> tuple[LoraShape, dict[str, tuple[Tensor, Tensor]]]:
    """Shape and {module name: (A, B)} of a peft folder. Raises VectorError for another base or an
    unsupported kind."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    paths = [Path(folder) / "adapter_config.json", Path(folder) / "adapter_model.safetensors"]
    if missing := [p.name for p in paths if not p.is_file()]:
        raise VectorError(f"{folder} is no adapter folder: {' and '.join(missing)} missing")
    try:
        config, tensors = json.loads(paths[0].read_text()), load_file(paths[1])
    except (ValueError, SafetensorError) as error:
        raise VectorError(
            f"{folder} holds a damaged adapter: {error}; copy or train it again"
        ) from error
    _check_kind(folder, config, model)
    if odd := [key for key in tensors if not key.endswith((".lora_A.weight", ".lora_B.weight"))]:
        raise VectorError(
            f"{folder}: tensor {odd[0]} is not of a plain LoRA on linear maps; only that is read"
        )
    names = sorted(
        {key.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for key in tensors}
    )
    pairs = {
        n: tuple(tensors[f"base_model.model.{n}.lora_{x}.weight"].float() for x in "AB")
        for n in names
    }
    _check_fit(folder, pairs, model)
    scale = (
        math.sqrt(config["r"]) if config.get("use_rslora") else 1.0
    )  # rsLoRA scales by alpha / sqrt(rank)
    return LoraShape(config["r"], config["lora_alpha"] * scale), pairs


def _check_kind(folder: Path, config: dict, model: Model) -> None:
    digest = config.get("traitscope_base_digest")
    if digest not in (None, model.digest):
        raise VectorError(
            f"{folder} was trained on a model with digest {digest}, but {model.name} has"
            f" {model.digest}"
        )
    odd = [
        k for k in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern") if config.get(k)
    ]
    if config.get("peft_type") != "LORA" or odd or config.get("bias", "none") != "none":
        raise VectorError(
            f"{folder}: {config.get('peft_type')} with {odd or config.get('bias')}; only plain LoRA"
            " is read"
        )


def _check_fit(folder: Path, pairs: dict[str, tuple[Tensor, Tensor]], model: Model) -> None:
    linear = {name: model.lm.get_submodule(name) for name in linear_names(model)}
    for name, (a, b) in pairs.items():
        if name not in linear or weight_of(linear[name]).shape != (b.shape[0], a.shape[1]):
            raise VectorError(
                f"{folder}: adapter on {name} [{b.shape[0]}, {a.shape[1]}] does not fit"
                f" {model.name}"
            )


@dataclass(frozen=True)
class Share:
    """A part of an adapter."""

    cells: str = "all"
    "linear maps, see selected_linear_names"
    outside: bool = False
    "all but the chosen cells, or the chosen tokens in them"
    top: int | None = None
    "singular directions of each map's change that are kept"
    drop: int = 0
    "and of those, how many of the largest are not"

    def __post_init__(self) -> None:
        if self.drop < 0 or self.top is not None and self.top <= self.drop:
            raise ConfigError(
                f"top={self.top} and drop={self.drop} leave no singular direction; expected 0 <="
                " drop < top"
            )


@contextmanager
def mounted(
    model: Model, folder: Path, share: Share = Share(), switch: Switch | None = None
) -> Iterator[dict[str, LoraLinear]]:
    """The model with the adapter of a peft folder, or a share of it, until the context ends.

    With a switch the chosen cells act at its tokens only, and with `outside` all others everywhere.
    """
    shape, pairs = read_adapter(folder, model)
    cells = set(selected_linear_names(model, share.cells))
    act = {
        n: switch if n in cells else None
        for n in pairs
        if share.outside and switch or (n in cells) != share.outside
    }
    if not act:
        raise ConfigError(
            f"{folder} has no adapter in cells={share.cells!r}, outside={share.outside}; name other"
            " cells"
        )
    with adapted(model, shape, sorted(act)) as layers:
        for name, own in act.items():
            layers[name].switch = own
            a, b = pairs[name]
            if share.top is not None or share.drop:
                a, b = directions(a, b, share.top, share.drop)
            layers[name].hold(a, b)
        yield layers


@contextmanager
def switched_off(model: Model) -> Iterator[None]:
    """The base model under its mounted adapters: their additions are skipped, not removed."""
    layers = [m for m in model.lm.modules() if isinstance(m, LoraLinear)]
    try:
        for layer in layers:
            layer.on = False
        yield
    finally:
        for layer in layers:
            layer.on = True
