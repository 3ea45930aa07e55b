"""Scores of pairs: how far a teacher moves the log-odds of one answer over the other.

    log-odds = log p(chosen) - log p(rejected)
    score    = log-odds under the teacher - log-odds under the unmodified model

The log-probability of an answer is the sum over its tokens, the end of the turn included. Per
token, it is divided by their number. Selection by such scores is published as logit-linear
selection (Aden-Ali et al. 2026, arXiv 2602.04863).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from traitscope.data.records import Record
from traitscope.inference.token_rows import Row, rows_from
from traitscope.interventions.applied import Interventions
from traitscope.models.model import Model
from traitscope.stages.likelihood import log_likelihoods
from traitscope.training.preference.pairs import rejected_rows


@dataclass(frozen=True)
class PairScores:
    """The log-odds of pairs, with and without a teacher."""

    ids: tuple[str, ...]
    """Ids of the pairs."""
    tokens: tuple[tuple[int, int], ...]
    """Tokens of the chosen and of the rejected answer of each pair."""
    base: tuple[float, ...]
    """The log-odds under the unmodified model, in nats."""
    under: tuple[float, ...]
    """The log-odds under the teacher, in nats."""

    @property
    def scores(self) -> list[float]:
        """How far the teacher moves the log-odds of each pair, in nats."""
        return np.subtract(self.under, self.base).tolist()


def pair_scores(
    model: Model,
    records: Sequence[Record],
    interventions: Interventions = (),
    *,
    context: str | None = None,
    text: bool = False,
    per_token: bool = False,
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> PairScores:
    """The log-odds of pairs under the model, without and with the interventions.

    context: System turn of records that have none. A system prompt among the interventions replaces
    every context.
    text: Take the rows' text instead of their token ids.
    per_token: Divide the log-probability of each answer by its tokens.
    done: A function called with the number of answers of each pass.

    Raises DataError for a row that is no pair, or that the model cannot read.
    """

    def log_odds(interventions: Interventions) -> tuple[list[float], list[tuple[int, int]]]:
        chosen = rows_from(model, records, context, text, interventions)
        rejected = rejected_rows(model, records, context, text, interventions)
        lengths = list(zip(_lengths(chosen), _lengths(rejected), strict=True))
        log_p = log_likelihoods(model, interventions, [*chosen, *rejected], batch_size, done)
        of_pairs = []
        for better, worse, (n, m) in zip(
            log_p[: len(chosen)], log_p[len(chosen) :], lengths, strict=True
        ):
            of_pairs.append(better / n - worse / m if per_token else better - worse)
        return of_pairs, lengths

    base, lengths = log_odds(())
    under = log_odds(interventions)[0] if interventions else base
    ids = tuple(record.id for record in records)
    return PairScores(ids, tuple(lengths), tuple(base), tuple(under))


def _lengths(rows: Sequence[Row]) -> list[int]:
    return [len(row.completion_ids) for row in rows]
