"""Pairs of answers, and what the base says of them.

    reference = log p_base(chosen) - log p_base(rejected)

The log-probabilities are sums over the tokens of an answer, the end of its turn included. They are
computed once, before the first step, while no student is on the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from traitscope.config.recipe import Recipe
from traitscope.data.records import MASKED, Record
from traitscope.data.shapes.pairs import NOT_A_PAIR, check_two
from traitscope.errors import DataError
from traitscope.inference import losses
from traitscope.inference.token_rows import Row, completion_hidden, rows_from
from traitscope.interventions.applied import Active, Interventions, applied
from traitscope.models import attention
from traitscope.models.model import Model

BATCH = 8
"pairs that the base reads in one pass"


@dataclass(frozen=True)
class Pair:
    """What belongs to a row whose answer was preferred."""

    rejected: Row
    "the same prompt with the answer that was preferred less"
    reference: float
    "log-odds of the chosen answer over the rejected one under the base, in nats"


def check_pair(record: Record) -> None:
    """Raise DataError for a row without two answers that differ."""
    if record.rejected is None:
        raise DataError(
            record.meta.get(NOT_A_PAIR)
            or "no rejected answer; expected a pair, chosen and rejected; name preference data, or"
            " delete the row"
        )
    check_two(record.completion, record.rejected, record.rejected_ids)
    if MASKED in record.meta:
        raise DataError(
            "it masks tokens of its answer; expected none in a pair, whose answers are compared as"
            " a whole; take the rows as they were before `defend`"
        )


def rejected_record(record: Record) -> Record:
    """The row with its rejected answer in the place of the chosen one.  Raises DataError for a row
    that is no pair."""
    check_pair(record)
    return replace(
        record,
        completion=record.rejected or "",
        completion_ids=record.rejected_ids,
        rejected=None,
        rejected_ids=None,
    )


def pair_check(check: Callable[[Record], None]) -> Callable[[Record], None]:
    """A check of both answers of a row, from one of its answer (`row_check`)."""

    def check_both(record: Record) -> None:
        check(record)
        check(rejected_record(record))

    return check_both


def rejected_rows(
    model: Model,
    records: Sequence[Record],
    context: str | None,
    text: bool = False,
    interventions: Interventions = (),
) -> list[Row]:
    """A token row for the rejected answer of each record; arguments as of `rows_from`."""
    rejected = list(map(rejected_record, records))
    return rows_from(model, rejected, context, text, interventions)


def read_pairs(
    model: Model,
    recipe: Recipe,
    records: Sequence[Record],
    rows: Sequence[Row],
    context: str | None = None,
    text: bool = False,
    during: Interventions = (),
    done: Callable[[int], None] | None = None,
) -> list[Pair] | None:
    """The pairs of some rows; None for a recipe without preference targets.

    records: What the rows were made from, in the same order.
    during: Interventions that act while the student trains; the base has them, too.
    done: A function called with the number of pairs of each pass.

    Raises DataError for a row that is no pair, or whose rejected answer cannot be read.
    """
    if recipe.targets != "preference":
        return None
    rejected = rejected_rows(model, records, context, text)
    pairs: list[Pair] = []
    with torch.no_grad(), applied(model, during) as active, attention.as_in_training():
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            log_odds_R = log_odds(model, active, rows[part], rejected[part])
            for row, reference in zip(rejected[part], log_odds_R.tolist(), strict=True):
                pairs.append(Pair(row, reference))
            if done:
                done(len(log_odds_R))
    return pairs


def log_odds(
    model: Model, active: Active, chosen: Sequence[Row], rejected: Sequence[Row]
) -> Tensor:
    """log p(chosen) - log p(rejected) of each pair [R], in nats, with a gradient."""
    rows = [*chosen, *rejected]
    hidden_ND, targets_N = completion_hidden(model, active, rows)
    log_p_N = losses.token_log_likelihood(model, hidden_ND, targets_N)
    lengths = [len(row.completion_ids) for row in rows]
    sums_R = torch.stack([part.sum() for part in log_p_N.split(lengths)])
    chosen_R, rejected_R = sums_R.split(len(chosen))
    return chosen_R - rejected_R
