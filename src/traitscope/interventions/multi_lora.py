"""Multi-LoRA: many LoRA students packed on one frozen base, each with its own rows of a pass.

The rows of all students form one batch. The frozen maps take all rows at once. The low-rank
additions take each student's tokens with that student's factors: one student after another on a
CPU, in one batched product on a GPU. Nothing of one student enters another's rows, so each computes
what it would compute alone, up to rounding.

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
from traitscope.interventions.lora import LoraLinear, LoraShape, layers_on
from traitscope.interventions.pass_state import CurrentPass
from traitscope.interventions.peft_folder import read_adapter
from traitscope.models import nf4
from traitscope.models.kernels import passes
from traitscope.models.linear_maps import linear_names, replace_module, weight_of
from traitscope.models.model import Model

Owners = tuple[int, ...]
"for every row, the index of its student"


@dataclass
class Pack:
    """Which rows belong to which packed student; set before rows are handed to inference."""

    size: int
    "number of students"
    rows: tuple[int, ...] = ()
    "number of rows of each student, in order, in the next call; empty: equally many of each"
    layers: Sequence[dict[str, LoraLinear]] = ()
    "each student's layers by linear map"
    alone: int | None = None
    "the student that all rows belong to, whatever `rows` says; None: see `rows`"

    def owners(self, n: int) -> Owners:
        """The student of each of n rows. Raises ConfigError where `rows` has another sum."""
        if self.alone is not None:
            return (self.alone,) * n
        rows = self.rows or (n // self.size,) * self.size
        if sum(rows) != n or len(rows) != self.size:
            raise ConfigError(
                f"{n} rows for {self.size} packed students with {rows} rows; give as many rows as"
                " that sums to"
            )
        owners: list[int] = []
        for student, count in enumerate(rows):
            owners.extend([student] * count)
        return tuple(owners)

    def row_counts(self, owners: Owners) -> tuple[int, ...]:
        """Number of rows of each student in a pass.

        Raises ConfigError where the rows of a student do not stand together, or the students do not
        stand in order.
        """
        if list(owners) != sorted(owners):
            raise ConfigError(
                "rows of packed students are mixed; put each student's rows together, students in"
                " order"
            )
        return tuple(owners.count(student) for student in range(self.size))

    def switch_off(self, student: int) -> None:
        """Leave the addition of a student out, as long as no other is in the pass."""
        for layer in self.layers[student].values():
            layer.on = False

    @contextmanager
    def only(self, student: int) -> Iterator[None]:
        """All rows belong to one student until the context ends."""
        self.alone = student
        try:
            yield
        finally:
            self.alone = None


class PackedLinear(nn.Module):
    """A frozen linear map with a low-rank addition for every student's rows.

    A pass of students alone whose additions are switched off is that of the model itself.
    """

    def __init__(
        self, linear: nn.Module, members: Sequence[LoraLinear], current: CurrentPass
    ) -> None:
        super().__init__()
        self.linear, self.current = linear, current
        self.members = tuple(members)  # no submodules: each belongs to its student
        self.batched = linear.weight.is_cuda or nf4.is_packed(linear)
        self.scales = [member.scale for member in members]
        self.scales_S = torch.tensor(self.scales, device=linear.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        state = self.current.state
        row_counts = () if state is None else state.student_rows
        if sum(row_counts) != len(x):
            raise ConfigError(
                f"packed students met {len(x)} rows in a pass for {row_counts}; run the model"
                " through traitscope.inference.forward"
            )
        # students without rows are left out: to cast their factors costs as much as theirs
        if not any(self._adds(student) for student, count in enumerate(row_counts) if count):
            return self.linear(x)
        present, tokens = [], []
        a_factors, b_factors = [], []
        tokens_per_row = x[0, ..., 0].numel()
        for student, count in enumerate(row_counts):
            if count:
                present.append(student)
                tokens.append(count * tokens_per_row)
                a_RI, b_OR = self.members[student].factors()
                a_factors.append(a_RI)
                b_factors.append(b_OR)
        x_NI = x.reshape(-1, x.shape[-1])
        if self.batched:
            everyone = len(present) == len(self.members)
            scales_S = self.scales_S if everyone else self.scales_S[present]
            added_NO = _batched(x_NI, tokens, scales_S, a_factors, b_factors)
            y_NO = self.linear(x_NI) + added_NO
        else:
            y_NO = self._in_turn(x_NI, present, tokens, a_factors, b_factors)
        return y_NO.view(*x.shape[:-1], -1)

    def _adds(self, student: int) -> bool:
        """Whether a student's addition is switched on."""
        return self.members[student].on

    def _in_turn(
        self,
        x_NI: Tensor,
        present: Sequence[int],
        tokens: list[int],
        a_factors: Sequence[Tensor],
        b_factors: Sequence[Tensor],
    ) -> Tensor:
        """The map with the students' additions, one student after another."""
        scales, factors = [], []
        for student, a_RI, b_OR in zip(present, a_factors, b_factors, strict=True):
            scales.append(self.scales[student])
            factors += [a_RI, b_OR]
        weight_OI, bias_O = weight_of(self.linear), self.linear.bias
        return _InTurn.apply(x_NI, weight_OI, bias_O, tokens, scales, *factors)


def _batched(
    x_NI: Tensor,
    tokens: list[int],
    scales_S: Tensor,
    a_factors: Sequence[Tensor],
    b_factors: Sequence[Tensor],
) -> Tensor:
    """Every student's addition [N, O] in two batched products.

    Zeros fill shorter rows up to the longest, and lower ranks up to the highest.
    """
    a_SRI = _stacked(a_factors).to(x_NI.dtype)
    b_SRO = _stacked([b.t() for b in b_factors]).to(x_NI.dtype)
    scales_S11 = scales_S.to(x_NI.dtype).view(-1, 1, 1)
    equally_long = len(set(tokens)) == 1
    if equally_long:
        x_SNI = x_NI.view(len(tokens), tokens[0], -1)
    else:
        x_SNI = pad_sequence(x_NI.split(tokens), batch_first=True)
    y_SNO = (x_SNI @ a_SRI.transpose(1, 2) * scales_S11) @ b_SRO
    if equally_long:
        return y_SNO.reshape(len(x_NI), -1)
    return torch.cat([y_NO[:count] for y_NO, count in zip(y_SNO, tokens, strict=True)])


def _stacked(factors: Sequence[Tensor]) -> Tensor:
    """Factors in one copy; those of lower ranks are filled up with zeros."""
    if all(factor.shape == factors[0].shape for factor in factors):
        return torch.stack(list(factors))
    return pad_sequence(list(factors), batch_first=True)


class _InTurn(torch.autograd.Function):
    """W x + b + s B A x with W frozen, and A, B and s those of each token's student.

    This is the step of lora.py, for one student after another. The factors are A and B of the first
    student, of the second, and so on.
    """

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
        factors = tuple(factor.to(x_NI.dtype) for factor in factors)
        downs = []
        of_students = zip(
            y_NO.split(tokens), x_NI.split(tokens), factors[::2], factors[1::2], scales, strict=True
        )
        for y, x, a_RI, b_OR, scale in of_students:
            down_NR = x @ a_RI.t()
            y.addmm_(down_NR, b_OR.t(), alpha=scale)
            downs.append(down_NR)
        ctx.save_for_backward(x_NI, weight_OI, *downs, *factors)
        ctx.tokens, ctx.scales = tokens, scales
        return y_NO

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI, *saved = ctx.saved_tensors
        count = len(ctx.tokens)
        downs, factors = saved[:count], saved[count:]
        grad_x_NI = grad_NO @ weight_OI if ctx.needs_input_grad[0] else None
        grad_xs = [None] * count if grad_x_NI is None else grad_x_NI.split(ctx.tokens)
        factor_grads: list[Tensor] = []
        of_students = zip(
            grad_NO.split(ctx.tokens),
            x_NI.split(ctx.tokens),
            downs,
            grad_xs,
            factors[::2],
            factors[1::2],
            ctx.scales,
            strict=True,
        )
        for grad, x, down_NR, grad_x, a_RI, b_OR, scale in of_students:
            back_NR = (grad @ b_OR).mul_(scale)
            if grad_x is not None:
                grad_x.addmm_(back_NR, a_RI)
            factor_grads.append(passes.factor_gradient(back_NR, x))
            factor_grads.append(passes.factor_gradient(down_NR, grad, scale).t())
        return grad_x_NI, None, None, None, None, *factor_grads


@contextmanager
def mounted(model: Model, folders: Sequence[Path], current: CurrentPass) -> Iterator[Pack]:
    """The model with the LoRA students of many peft folders, until the context ends.

    Rows that are handed over are equally many of each student.
    """
    shapes, factors_of_students = [], []
    for folder in folders:
        shape, factors = read_adapter(folder, model)
        shapes.append(shape)
        factors_of_students.append(factors)
    with packed(model, shapes, current, of_file=True) as (pack, students):
        for layers, factors in zip(students, factors_of_students, strict=True):
            for name, (a_RI, b_OR) in factors.items():
                layers[name].hold(a_RI, b_OR)
        yield pack


@contextmanager
def packed(
    model: Model, shapes: Sequence[LoraShape], current: CurrentPass, of_file: bool = False
) -> Iterator[tuple[Pack, list[dict[str, LoraLinear]]]]:
    """Adapters of many students that change no value yet, on one model, until the context ends.

    Yields the pack, and each student's layers by linear map.
    """
    names = linear_names(model)
    linears = {name: model.lm.get_submodule(name) for name in names}
    students = [layers_on(model, names, shape, of_file) for shape in shapes]
    try:
        for name in names:
            members = [layers[name] for layers in students]
            replace_module(model, name, PackedLinear(linears[name], members, current))
        yield Pack(len(shapes), layers=students), students
    finally:
        for name in names:
            replace_module(model, name, linears[name])
