"""Rows that a tiny model wrote, and their token scores."""

import torch

from traitscope.data.prompts import number_prompts
from traitscope.inference import token_scores
from traitscope.inference.token_rows import Row, completion_hidden, rows_from
from traitscope.inference.token_scores import Choices
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Intervention
from traitscope.models.model import Model
from traitscope.stages.generate import generate, number_constraint


def judged(model: Model, told: list[Intervention], rows: list[Row], numbers: bool) -> Choices:
    """The choices of rows under interventions."""
    with applied(model, told) as active, torch.no_grad():
        hidden, targets = completion_hidden(model, active, rows)
    return token_scores.choices_of(
        model,
        hidden,
        targets,
        [len(r.completion_ids) for r in rows],
        token_scores.classes_of(model, numbers),
    )


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
