"""Which rows and tokens are suspect: scores of completion tokens, and of rows.

    loss              -log p_base(token)
    student           log p_student(token) - log p_base(token)
    trait, vector,
    teacher           log p_writer(token) - log p_base(token), for the suspected writer
    divergence        Jensen-Shannon divergence of the next token under the prompts of TEACHERS
    random            a random number
    length            characters of the answer; for rows alone

The divergence is the mean over k of KL(p_k || m), where m is the mean of the p_k. Its source is
Lin 1991, IEEE Transactions on Information Theory 37, 145-151. Tokens at which teachers of different
traits differ are those that Schrodi et al. 2025 (arXiv 2509.23886) call divergence tokens. They
compare the likeliest tokens; here the whole distributions are compared.

A row's score is the mean over its tokens. Each student reads one half of the rows and scores the
other, so that no row is suspect for having been learnt by heart.

Shapes: N completion tokens, R rows, D d_model, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from traitscope.config.rows.defend import DefendConfig
from traitscope.data.records import Record
from traitscope.data.traits import load_trait
from traitscope.defending.knowledge import TEACHER, TRAIT, Knowledge
from traitscope.defending.methods import DIVERGENCE, LENGTH, LOSS, RANDOM, STUDENT, Step
from traitscope.errors import DataError
from traitscope.inference import forward
from traitscope.inference.token_rows import Row, row_check, rows_from, teacher_hidden
from traitscope.interventions.applied import Interventions
from traitscope.interventions.intervention import SystemPrompt
from traitscope.models.model import Model
from traitscope.runs import given_teacher, model_cache
from traitscope.stages.likelihood import token_log_likelihoods
from traitscope.training import loop

FEWEST = 4
"rows of which each student needs half"
TEACHERS = ("cat", "dolphin", "elephant", "lion", "octopus", "owl", "panda", "wolf")
"bundled traits whose prompts make the teachers that by=divergence compares"
RENDERING = ("mask", "replace", "wash")
"methods that render rows whatever their order is"
CHUNK = 16
"tokens whose distributions exist at one time"


@dataclass(frozen=True)
class Judge:
    """What scores are computed with."""

    config: DefendConfig
    """Settings of the run."""
    known: Knowledge
    """What the defender may use."""
    done: Callable[[int], None] | None = None
    """Called with the number of rows of each batch."""
    loaded: Model | None = None
    """The base, where it is loaded already."""

    @property
    def model(self) -> Model:
        """The base, loaded when it is first needed."""
        return self.loaded or model_cache.model_of(self.config)

    def rows(self, records: Sequence[Record], interventions: Interventions = ()) -> list[Row]:
        """Token rows of records under interventions."""
        config = self.config
        return rows_from(self.model, records, config.context, config.text, interventions)

    def log_p(self, writer: "Writer", records: Sequence[Record]) -> list[np.ndarray]:
        """log p [N] of the tokens of each record under a writer, nats."""
        rows = self.rows(records, writer.interventions)
        size = self.config.pass_rows
        tensors = token_log_likelihoods(writer.model, writer.interventions, rows, size, self.done)
        return list(map(Tensor.numpy, tensors))

    def blocks(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """Records that are read in one pass."""
        size = self.config.pass_rows
        for start in range(0, len(records), size):
            yield records[start : start + size]

    def log_distributions(
        self, writers: Sequence["Writer"], records: Sequence[Record]
    ) -> Iterator[list[Tensor]]:
        """Log-probabilities [N, V] of some tokens of a few records under each writer, in order.

        Where models differ in V, the tokens that all of them have are compared.
        """
        rows = self.rows(records)
        states = []
        for writer in writers:
            as_read = self.rows(records, writer.interventions)
            prompts = [row.prompt_ids for row in as_read]
            hidden = teacher_hidden(
                writer.model, writer.interventions, rows, prompts, self.config.pass_rows
            )
            states.append(torch.cat(hidden))
        shared = min(len(writer.model.head.weight) for writer in writers)
        for start in range(0, len(states[0]), CHUNK):
            log_p = []
            for writer, hidden_ND in zip(writers, states, strict=True):
                part_ND = forward.sent(hidden_ND[start : start + CHUNK], writer.model.device)
                logits_NV = forward.logits_of(writer.model, part_ND)[:, :shared]
                log_p.append(torch.log_softmax(logits_NV.double(), -1))
            yield log_p


@dataclass(frozen=True)
class Writer:
    """A model under interventions that may have written rows, and the rows that it scores."""

    model: Model
    """What it runs on."""
    interventions: Interventions
    """What is changed in that model."""
    scored_R: np.ndarray
    """Numbers of the rows."""


def row_checks(step: Step, judge: Judge) -> list[Callable[[Record], None]]:
    """What refuses rows that a step cannot read; nothing for a step that renders none."""
    by = step.options["by"] if "by" in step.options else RANDOM
    if step.options.get("where") == "all":
        by = RANDOM
    if step.name not in RENDERING and by in (RANDOM, LENGTH):
        return []
    readers: list[Interventions] = []
    if by == DIVERGENCE:
        readers = [(SystemPrompt(load_trait(name).teacher_prompt),) for name in TEACHERS]
    elif by in (TRAIT, TEACHER):
        readers = [judge.known.suspected(by)]
    return [row_check(judge.model, judge.config.context, judge.config.text, *readers)]


def token_scores(
    judge: Judge, by: str, records: Sequence[Record], rng: np.random.Generator
) -> list[np.ndarray]:
    """Scores [N] of the completion tokens of each record; higher is more suspect."""
    if by == RANDOM:
        return _random(judge, records, rng)
    if by == DIVERGENCE:
        return divergences(judge, records)
    base = judge.log_p(_base(judge, records), records)
    if by == LOSS:
        return list(map(np.negative, base))
    scores = list(base)
    for writer in _writers(judge, by, records, rng):
        scored = [records[i] for i in writer.scored_R]
        for i, log_p_N in zip(writer.scored_R, judge.log_p(writer, scored), strict=True):
            scores[i] = log_p_N - base[i]
    return scores


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


def disagreements(
    judge: Judge, by: str, records: Sequence[Record], rng: np.random.Generator
) -> list[np.ndarray]:
    """KL(p_writer || p_base) [N] at the completion tokens of each record, in nats.

    It is a score of places, whatever token stands there. by=divergence compares teachers.
    """
    if by == RANDOM:
        return _random(judge, records, rng)
    if by == DIVERGENCE:
        return divergences(judge, records)
    scores = [np.empty(0)] * len(records)
    for writer in _writers(judge, by, records, rng):
        scored = [records[i] for i in writer.scored_R]
        pair = (writer, _base(judge, scored))
        for i, kl_N in zip(writer.scored_R, _compared(judge, pair, scored, _kl), strict=True):
            scores[i] = kl_N
    return scores


def divergences(judge: Judge, records: Sequence[Record]) -> list[np.ndarray]:
    """Jensen-Shannon divergence [N] between teachers at the tokens of each record, in nats.

    The teachers are the base under the prompts of TEACHERS.
    """
    everything = np.arange(len(records))
    writers = []
    for name in TEACHERS:
        prompt = SystemPrompt(load_trait(name).teacher_prompt)
        writers.append(Writer(judge.model, (prompt,), everything))
    return list(_compared(judge, writers, records, jensen_shannon))


def jensen_shannon(log_p: Sequence[Tensor]) -> Tensor:
    """Mean over k of KL(p_k || mean of all p) [N], from log-probabilities [N, V] of each k."""
    log_m_NV = torch.logsumexp(torch.stack(list(log_p)), 0) - np.log(len(log_p))
    total_N = torch.zeros(len(log_m_NV), dtype=torch.float64, device=log_m_NV.device)
    for log_p_NV in log_p:
        total_N += _kl((log_p_NV, log_m_NV))
    return (total_N / len(log_p)).clamp(min=0)


def _kl(log_p: Sequence[Tensor]) -> Tensor:
    """KL(p || q) [N] of two distributions that are given as log-probabilities [N, V]."""
    log_p_NV, log_q_NV = log_p
    return (log_p_NV.exp() * (log_p_NV - log_q_NV.to(log_p_NV.device))).sum(-1)


@torch.no_grad()
def _compared(
    judge: Judge,
    writers: Sequence[Writer],
    records: Sequence[Record],
    compare: Callable[[Sequence[Tensor]], Tensor],
) -> list[np.ndarray]:
    """What compares the distributions of writers [N], at the tokens of each record."""
    values = []
    for block in judge.blocks(records):
        distributions = judge.log_distributions(writers, block)
        found = [compare(log_p).cpu() for log_p in distributions]
        lengths = [len(row.completion_ids) for row in judge.rows(block)]
        values += list(map(Tensor.numpy, torch.cat(found).split(lengths)))
        if judge.done:
            judge.done(len(block))
    return values


def _random(judge: Judge, records: Sequence[Record], rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.random(len(row.completion_ids)) for row in judge.rows(records)]


def _base(judge: Judge, records: Sequence[Record]) -> Writer:
    return Writer(judge.model, (), np.arange(len(records)))


def _writers(
    judge: Judge, by: str, records: Sequence[Record], rng: np.random.Generator
) -> Iterator[Writer]:
    """The suspected writers of rows, each with the rows that it scores."""
    if by == STUDENT:
        yield from _students(judge, records, rng)
        return
    model = judge.model
    teacher = judge.known.teacher
    if by == TEACHER and teacher is not None and teacher.model != judge.config.model:
        config = judge.config
        given_teacher.check_readable(teacher, config.model, config.template)
        model = teacher.loaded(config)
    yield Writer(model, judge.known.suspected(by), np.arange(len(records)))


def _students(
    judge: Judge, records: Sequence[Record], rng: np.random.Generator
) -> Iterator[Writer]:
    """Two students, each with the rows that it did not read.

    Raises DataError for fewer than FEWEST rows.
    """
    if len(records) < FEWEST:
        raise DataError(
            f"by=student splits the rows in halves and found {len(records)}; expected {FEWEST} or"
            " more; take by=loss, or more rows"
        )
    order = rng.permutation(len(records))
    halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    config = judge.config
    for read_R, scored_R in (halves, halves[::-1]):
        student = loop.train(
            judge.model,
            [records[i] for i in read_R],
            config.recipe,
            config.seed,
            context=config.context,
            text=config.text,
        )
        yield Writer(judge.model, (student,), scored_R)
