"""How much of what a teacher does to the likelihood of its rows a vector does, too.

    gain(m)  = sum over tokens of log p_m(token) - log p_base(token)
    share    = gain(base + vector) / gain(teacher)
    KL share = 1 - sum over tokens of KL(teacher || base + vector) / the same of KL(teacher || base)

The teacher sampled the rows. So the expectation of its gain is the KL, and both shares estimate one
number. The KL share has no noise of sampled tokens. Source of the share as a difference of
losses: Blank et al. 2026 (arXiv 2606.00995), section 7. Only tokens that were sampled count: in
rows of the vocabulary `template` these are digits, among the other digits.

Shapes: R rows, N scored tokens, C columns (token ids among which a token was sampled), D d_model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from traitscope.errors import DataError
from traitscope.inference import forward
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.interventions import hooks
from traitscope.interventions.applied import Active, Interventions, applied, check_layers
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.plurals import counted


@dataclass(frozen=True)
class TeacherBatch:
    """A few rows, and the teacher's distribution at each of their scored tokens."""

    index: list[int]
    "the rows' places in their list"
    rows: list[Row]
    "rows under the neutral prompt"
    log_p_NC: Tensor
    "the teacher's log-probabilities, row after row"


@dataclass(frozen=True)
class TeacherRows:
    """Rows that a teacher sampled, with its distributions: what a vector is to stand in for."""

    batches: tuple[TeacherBatch, ...]
    "the rows, those of like length together"
    columns_C: Tensor | None
    "token ids among which tokens were sampled; None for the whole vocabulary"

    @property
    def n(self) -> int:
        """Number of rows."""
        return sum(len(batch.rows) for batch in self.batches)


@dataclass(frozen=True)
class Fit:
    """How well a model predicts a teacher's rows."""

    log_p_R: np.ndarray
    "log-likelihood of every row's scored tokens, in nats"
    kl_R: np.ndarray
    "KL from the teacher to the model, summed over every row's scored tokens, in nats"

    @property
    def kl(self) -> float:
        """The KL of all rows."""
        return float(self.kl_R.sum())


def teacher_rows(
    model: Model,
    rows: Sequence[Row],
    teacher_prompts: Sequence[Sequence[int]],
    columns_C: Tensor | None = None,
    interventions: Interventions = (),
    batch_size: int = 16,
) -> TeacherRows:
    """The rows with the distributions of a teacher, which reads `teacher_prompts`.

    interventions: Those that make the teacher, beside its prompt.

    Raises DataError where a row holds no token of `columns_C`.
    """
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    batches = []
    with torch.no_grad(), applied(model, interventions) as active:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            as_read = []
            for i in index:
                as_read.append(Row(tuple(teacher_prompts[i]), rows[i].completion_ids))
            log_p_NC = scored_log_p(model, active, as_read, columns_C)
            batches.append(TeacherBatch(index, [rows[i] for i in index], log_p_NC))
    return TeacherRows(tuple(batches), columns_C)


def fits(model: Model, target: TeacherRows, steered: Sequence[Steer]) -> tuple[Fit, Fit, list[Fit]]:
    """How well the teacher itself, the base, and the base under each of `steered` predict the rows.

    A steered model is computed from the first block on where it is steered: what comes before is
    the base's. Raises ConfigError for a layer that the model lacks.
    """
    for item in steered:
        check_layers(item.layers, model)
    layers = sorted({min(item.layers) for item in steered})
    sums = [_Sums(target.n) for _ in range(2 + len(steered))]
    for batch in target.batches:
        _add(sums[0], target, batch, batch.log_p_NC)
        with (
            torch.no_grad(),
            applied(model, []) as active,
            hooks.recorded(model.blocks, layers) as outputs,
        ):
            log_p_NC = scored_log_p(model, active, batch.rows, target.columns_C)
            _add(sums[1], target, batch, log_p_NC)
        for item, item_sums in zip(steered, sums[2:], strict=True):
            layer = min(item.layers)
            with (
                torch.no_grad(),
                applied(model, [item]) as active,
                hooks.resumed(model, layer, outputs[layer]),
            ):
                log_p_NC = scored_log_p(model, active, batch.rows, target.columns_C)
            _add(item_sums, target, batch, log_p_NC)
    teacher, base, *others = [item.fit() for item in sums]
    return teacher, base, others


def kl_from(teacher_NC: Tensor, log_p_NC: Tensor) -> Tensor:
    """KL(teacher || model) of each token [N] in nats, both given by log-probabilities."""
    return (teacher_NC.exp() * (teacher_NC - log_p_NC)).sum(-1)


class _Sums:
    """Sums over the scored tokens of every row."""

    def __init__(self, n_rows: int) -> None:
        self.log_p_R = np.zeros(n_rows)
        self.kl_R = np.zeros(n_rows)

    def fit(self) -> Fit:
        return Fit(self.log_p_R, self.kl_R)


def _add(sums: _Sums, target: TeacherRows, batch: TeacherBatch, log_p_NC: Tensor) -> None:
    """Add the scored tokens of a batch under a model with these log-probabilities."""
    places_N, counts = scored_places(batch.rows, target.columns_C)
    log_p_N = log_p_NC.gather(1, places_N.to(log_p_NC.device).unsqueeze(1)).squeeze(1)
    kl_N = kl_from(batch.log_p_NC, log_p_NC)
    parts = zip(batch.index, log_p_N.split(counts), kl_N.split(counts), strict=True)
    for row, row_log_p_N, row_kl_N in parts:
        sums.log_p_R[row] = float(row_log_p_N.double().sum())
        sums.kl_R[row] = float(row_kl_N.double().sum())


def scored_log_p(
    model: Model, active: Active, rows: Sequence[Row], columns_C: Tensor | None
) -> Tensor:
    """Log-probabilities [N, C] of a running model at the scored tokens of rows."""
    hidden_ND, targets_N = completion_hidden(model, active, rows)
    if columns_C is not None:
        hidden_ND = hidden_ND[torch.isin(targets_N, columns_C)]
    return torch.log_softmax(forward.logits_of(model, hidden_ND, columns_C), -1)


def scored_places(rows: Sequence[Row], columns_C: Tensor | None) -> tuple[Tensor, list[int]]:
    """The column [N] of every scored token, and the number of scored tokens of every row.

    Raises DataError for a row without any.
    """
    places: list[int] = []
    counts = []
    column_of = None
    if columns_C is not None:
        column_of = {token: place for place, token in enumerate(columns_C.tolist())}
    for row in rows:
        scored = list(row.completion_ids)
        if column_of is not None:
            scored = [column_of[token] for token in row.completion_ids if token in column_of]
        if not scored:
            raise DataError(
                f"a row of {len(row.completion_ids)} tokens holds none of the tokens that are"
                " scored; expected a row of digits; check what the rows were sampled from"
            )
        places += scored
        counts.append(len(scored))
    return torch.tensor(places), counts


def halves(n_rows: int) -> tuple[slice, slice]:
    """The rows to choose on, and those to test on. Raises DataError for fewer than eight rows."""
    if n_rows < 8:
        raise DataError(
            f"{counted(n_rows, 'row')} to choose and to test on; expected eight or more; generate"
            " more"
        )
    return slice(0, n_rows // 2), slice(n_rows // 2, n_rows)
