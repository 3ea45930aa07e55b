"""Which rows and tokens are suspect: scores of completion tokens, and of rows.

    loss              -log p_base(token)
    student           log p_student(token) - log p_base(token)
    trait, vector,
    teacher           log p_writer(token) - log p_base(token), for the suspected writer
    random            a random number
    length            tokens of the answer; for rows alone

A row's score is the mean over its tokens. Each student reads one half of the rows and scores the
other, so that no row is suspect for having been learnt by heart.

Shapes: N completion tokens, R rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from traitscope.config.rows.defend import DefendConfig
from traitscope.data.records import Record
from traitscope.defending.knowledge import TEACHER, Knowledge
from traitscope.defending.methods import LENGTH, LOSS, RANDOM, STUDENT
from traitscope.errors import DataError
from traitscope.inference.token_rows import Row, rows_from
from traitscope.interventions.applied import Interventions
from traitscope.models.model import Model
from traitscope.runs import given_teacher, model_cache
from traitscope.stages.likelihood import token_log_likelihoods
from traitscope.training import loop

FEWEST = 4
"rows of which each student needs half"


@dataclass(frozen=True)
class Judge:
    """What scores are computed with."""

    config: DefendConfig
    """Settings of the run."""
    known: Knowledge
    """What the defender may use."""
    done: Callable[[int], None] | None = None
    """Called with the number of rows of each batch."""

    @property
    def model(self) -> Model:
        """The base, loaded when it is first needed."""
        return model_cache.model_of(self.config)

    def rows(self, records: Sequence[Record], interventions: Interventions = ()) -> list[Row]:
        """Token rows of records under interventions."""
        config = self.config
        return rows_from(self.model, records, config.context, config.text, interventions)

    def log_p(
        self, model: Model, records: Sequence[Record], interventions: Interventions
    ) -> list[np.ndarray]:
        """log p [N] of the tokens of each record under interventions on a model, nats."""
        rows = self.rows(records, interventions)
        size = self.config.pass_rows
        tensors = token_log_likelihoods(model, interventions, rows, size, self.done)
        return list(map(Tensor.numpy, tensors))


def token_scores(
    judge: Judge, by: str, records: Sequence[Record], rng: np.random.Generator
) -> list[np.ndarray]:
    """Scores [N] of the completion tokens of each record; higher is more suspect."""
    if by == RANDOM:
        return [rng.random(len(row.completion_ids)) for row in judge.rows(records)]
    base = judge.log_p(judge.model, records, ())
    if by == LOSS:
        return list(map(np.negative, base))
    writer = _of_students(judge, records, rng) if by == STUDENT else _of_writer(judge, by, records)
    return list(map(np.subtract, writer, base))


def row_scores(
    judge: Judge, by: str, records: Sequence[Record], rng: np.random.Generator
) -> np.ndarray:
    """Score [R] of each record; higher is more suspect."""
    if by == RANDOM:
        return rng.random(len(records))
    if by == LENGTH:
        characters = [len(record.completion) for record in records]
        return np.array(characters, float)
    return np.array(list(map(np.mean, token_scores(judge, by, records, rng))))


def _of_writer(judge: Judge, by: str, records: Sequence[Record]) -> list[np.ndarray]:
    """log p of tokens under the suspected writer of the rows."""
    model = judge.model
    teacher = judge.known.teacher
    if by == TEACHER and teacher is not None:
        config = judge.config
        given_teacher.check_readable(teacher, config.model, config.template)
        model = teacher.loaded(config)
    return judge.log_p(model, records, judge.known.suspected(by))


def _of_students(
    judge: Judge, records: Sequence[Record], rng: np.random.Generator
) -> list[np.ndarray]:
    """log p of tokens under students that did not read their row.

    Raises DataError for fewer than FEWEST rows.
    """
    if len(records) < FEWEST:
        raise DataError(
            f"by=student splits the rows in halves and found {len(records)}; expected {FEWEST} or"
            " more; take by=loss, or more rows"
        )
    order = rng.permutation(len(records))
    halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    log_p: list[np.ndarray] = [np.empty(0)] * len(records)
    for read, scored in (halves, halves[::-1]):
        learnt = [records[i] for i in read]
        unread = [records[i] for i in scored]
        config = judge.config
        student = loop.train(
            judge.model,
            learnt,
            config.recipe,
            config.seed,
            context=config.context,
            text=config.text,
        )
        for i, row_N in zip(scored, judge.log_p(judge.model, unread, [student]), strict=True):
            log_p[i] = row_N
    return log_p
