"""Packed students: many LoRA students of one frozen base in one pass, each on rows of its own.

Rows of different students stand side by side in a batch. The frozen maps take all of them at once;
the low-rank additions take every student's tokens with that student's factors, one student after
another on a CPU, in one batched product on a GPU. Nothing of one student enters another's rows, so
each computes what it would alone, to rounding.

Shapes: B rows, T tokens of a pass, N = B T tokens, I in, O out, R rank, S students.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from traitscope.errors import ConfigError
from traitscope.interventions.lora import LoraLinear, LoraShape, layers_on, read_adapter
from traitscope.models import nf4
from traitscope.models.linear_maps import linear_names, replace_module, weight_of
from traitscope.models.model import Model

Owners = tuple[int, ...]
"of every row, its student"


@dataclass
class Pack:
    """Whose rows are whose; set before a call, read by forward.py and by the layers."""

    size: int
    "students"
    rows: tuple[int, ...] = ()
    "of each student, in order, in the rows that are handed over next; empty: equally many of each"
    alone: int | None = None
    "the student that all rows belong to, whatever `rows` says"
    current: tuple[int, ...] = ()
    "rows of each student in the pass that is running"

    def owners(self, n: int) -> Owners:
        """Of n rows, the student of each.  Raises ConfigError where they cannot be dealt out."""
        if self.alone is not None:
            return (self.alone,) * n
        rows = self.rows or (n // self.size,) * self.size
        if sum(rows) != n or len(rows) != self.size:
            raise ConfigError(
                f"{n} rows for {self.size} packed students with {rows} rows; give as many rows as"
                " that sums to"
            )
        return tuple(s for s, count in enumerate(rows) for _ in range(count))

    def enter(self, owners: Owners) -> None:
        """Tell the layers whose rows come now; a student's rows stand together, students in
        order."""
        if list(owners) != sorted(owners):
            raise ConfigError(
                "rows of packed students are mixed; put each student's rows together, students in"
                " order"
            )
        self.current = tuple(owners.count(s) for s in range(self.size))

    @contextmanager
    def only(self, student: int) -> Iterator[None]:
        """All rows inside the block are one student's."""
        self.alone = student
        try:
            yield
        finally:
            self.alone = None


class PackedLinear(nn.Module):
    """A frozen linear map with a low-rank addition for every student's rows."""

    def __init__(self, linear: nn.Module, members: Sequence[LoraLinear], pack: Pack) -> None:
        super().__init__()
        self.linear, self.pack = linear, pack
        self.members = tuple(members)  # no submodules: each belongs to its student
        self.batched = linear.weight.is_cuda or nf4.is_packed(linear)
        self.scales_S = torch.tensor(
            [member.scale for member in members], device=linear.weight.device
        )

    def forward(self, x: Tensor) -> Tensor:
        if sum(self.pack.current) != len(x):
            raise ConfigError(
                f"packed students met {len(x)} rows and were told of {self.pack.current}; run the"
                " model through traitscope.inference.forward"
            )
        here = [
            n for n, count in enumerate(self.pack.current) if count
        ]  # casts of absent students' factors would cost as much as theirs
        tokens = [self.pack.current[n] * x[0, ..., 0].numel() for n in here]
        factors = [factor for n in here for factor in self.members[n].factors()]
        flat = x.reshape(-1, x.shape[-1])
        if self.batched:
            scales_S = self.scales_S if len(here) == len(self.members) else self.scales_S[here]
            y = self.linear(flat) + _batched(flat, tokens, scales_S, factors[::2], factors[1::2])
        else:
            scales, factors = (
                [self.members[n].scale for n in here],
                [factor.to(x.dtype) for factor in factors],
            )
            y = _InTurn.apply(
                flat, weight_of(self.linear), self.linear.bias, tokens, scales, *factors
            )
        return y.view(*x.shape[:-1], -1)


def _batched(
    x_NI: Tensor, tokens: list[int], scales_S: Tensor, As: Sequence[Tensor], Bs: Sequence[Tensor]
) -> Tensor:
    """Every student's addition [N, O] in two batched products; zeros fill up to the longest rows
    and the highest rank."""
    a_SRI, b_SRO = (_stacked(factors).to(x_NI.dtype) for factors in (As, [b.t() for b in Bs]))
    even = len(set(tokens)) == 1
    x_SNI = (
        x_NI.view(len(tokens), tokens[0], -1)
        if even
        else pad_sequence(x_NI.split(tokens), batch_first=True)
    )
    y_SNO = (x_SNI @ a_SRI.transpose(1, 2) * scales_S.to(x_NI.dtype).view(-1, 1, 1)) @ b_SRO
    return (
        y_SNO.reshape(len(x_NI), -1)
        if even
        else torch.cat([y[:n] for y, n in zip(y_SNO, tokens, strict=True)])
    )


def _stacked(factors: Sequence[Tensor]) -> Tensor:
    """Factors of like ranks in one copy; of unlike ones filled up with zeros."""
    return (
        torch.stack(list(factors))
        if len({f.shape for f in factors}) == 1
        else pad_sequence(list(factors), batch_first=True)
    )


class _InTurn(torch.autograd.Function):
    """W x + b + s B A x with W frozen and A, B, s those of each token's student: lora.py's step,
    one student after another."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        tokens: list[int],
        scales: list[float],
        *factors: Tensor,
    ) -> Tensor:
        y_NO = x_NI @ weight_OI.t() if bias_O is None else torch.addmm(bias_O, x_NI, weight_OI.t())
        downs = []
        for y, x, a_RI, b_OR, s in zip(
            y_NO.split(tokens), x_NI.split(tokens), factors[::2], factors[1::2], scales, strict=True
        ):
            downs.append(x @ a_RI.t())
            y.addmm_(downs[-1], b_OR.t(), alpha=s)
        ctx.save_for_backward(x_NI, weight_OI, *downs, *factors)
        ctx.tokens, ctx.scales = tokens, scales
        return y_NO

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI, *rest = ctx.saved_tensors
        downs, factors = rest[: len(ctx.tokens)], rest[len(ctx.tokens) :]
        grad_NI = grad_NO @ weight_OI if ctx.needs_input_grad[0] else None
        inward = grad_NI.split(ctx.tokens) if grad_NI is not None else downs
        grads: list[Tensor | None] = []
        parts = zip(
            grad_NO.split(ctx.tokens),
            x_NI.split(ctx.tokens),
            downs,
            inward,
            factors[::2],
            factors[1::2],
            ctx.scales,
            strict=True,
        )
        for g, x, down_NR, dx, a_RI, b_OR, s in parts:
            back_NR = (g @ b_OR).mul_(s)
            if grad_NI is not None:
                dx.addmm_(back_NR, a_RI)
            grads += [back_NR.t() @ x, (g.t() @ down_NR).mul_(s)]
        return grad_NI, None, None, None, None, *grads


@contextmanager
def mounted(model: Model, folders: Sequence[Path]) -> Iterator[Pack]:
    """The model with the adapters of many peft folders until the context ends; rows that are handed
    over are equally many of each."""
    found = [read_adapter(folder, model) for folder in folders]
    with packed(model, [shape for shape, _ in found]) as (pack, students):
        for layers, (_, pairs) in zip(students, found, strict=True):
            for name, (a, b) in pairs.items():
                layers[name].hold(a, b)
        yield pack


@contextmanager
def packed(
    model: Model, shapes: Sequence[LoraShape]
) -> Iterator[tuple[Pack, list[dict[str, LoraLinear]]]]:
    """Zero-function adapters of every student on the model until the context ends: whose rows are
    whose, and each student's layers."""
    pack, names = Pack(len(shapes)), linear_names(model)
    linears = {name: model.lm.get_submodule(name) for name in names}
    students = [layers_on(model, names, shape) for shape in shapes]
    try:
        for name in names:
            replace_module(
                model,
                name,
                PackedLinear(linears[name], [layers[name] for layers in students], pack),
            )
        yield pack, students
    finally:
        for name in names:
            replace_module(model, name, linears[name])
