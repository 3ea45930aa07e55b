"""Rows that a tiny model wrote, and their token scores."""

from collections.abc import Sequence

import torch
from torch import Tensor

from traitscope.data.prompts import number_prompts
from traitscope.inference import token_rows, token_scores
from traitscope.inference.token_rows import Row, completion_hidden, rows_from
from traitscope.inference.token_scores import TokenScores
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Intervention
from traitscope.models.model import Model
from traitscope.stages.generate import generate, number_constraint


def scored(model: Model, told: list[Intervention], rows: list[Row], numbers: bool) -> TokenScores:
    """The token scores of rows under interventions; tokens of numbers are kept."""
    with applied(model, told) as active, torch.no_grad():
        hidden, targets = completion_hidden(model, active, rows)
    lengths = [len(r.completion_ids) for r in rows]
    classes = token_rows.classes_of(model, numbers)
    one_set = [0] * len(rows)
    return token_scores.score_tokens_by_set(
        model, hidden, targets, lengths, classes, one_set, not told, keep=numbers
    )[0]


def score_rows(
    model: Model,
    interventions: Sequence[Intervention],
    rows: Sequence[Row],
    classes: Sequence[Tensor],
    batch_size: int = 16,
) -> TokenScores:
    """Token scores of rows, in their order, under interventions."""
    return token_scores.score_sets(model, interventions, (), [rows], classes, batch_size)[0][0]


def written(
    model: Model,
    told: list[Intervention],
    n: int,
    seed: int,
    temperature: float = 1.0,
    count: int = 4,
) -> list[Row]:
    """Number rows that a teacher wrote, of fixed form."""
    constraint = number_constraint(model, count, " ", True, 0)
    records = generate(
        model,
        number_prompts(n, seed),
        told,
        temperature=temperature,
        seed=seed,
        constraint=constraint,
    )
    return rows_from(model, records, None)
