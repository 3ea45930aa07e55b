"""Which answers the teacher prefers more than the model does.

For every answer e of a kind and every question q of the kind

    f(e, q) = log P(e | q) - log sum over the other answers of P(. | q)       log-odds, nats
    d(e, q) = f of the teacher - f of the model

First tokens of answers stand for them. The unit is the question. The mean of d over the questions
of its kind has a t interval. Its two-sided p is corrected over all answers of all kinds (Holm
1979). An answer is called if that p is alpha or less, and the mean is DOUBLED or more in size. The
interval holds for further questions of this kind, and for these two models.

Training on anything moves many answers. So a called answer is named only if it stands out from the
others of its kind. Its z is its shift minus their median, in robust standard deviations. It is
named where the normal law exceeds this z with probability alpha over the number of answers or less.

Answers are ordered by nats, the mean over questions of p_T(e) (log p_T(e) - log p_M(e)). The
distributions are over the answers of the kind. So these terms add up to a divergence, and a rare
answer does not come first.

Shapes: Q questions, E answers, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from traitscope.data.traits import Trait, is_scorable, whole_word
from traitscope.inference import forward
from traitscope.inference.decode import Sampling, continue_rows
from traitscope.inference.question_scores import answer_text
from traitscope.interventions.applied import Active, applied
from traitscope.models import chat
from traitscope.screening.questions import Kind
from traitscope.screening.sides import Side
from traitscope.stats import estimates
from traitscope.stats.decision import holm
from traitscope.stats.measurement import Measurement

DOUBLED = math.log(2)
"""Nats by which the log-odds of an answer must move for a call: twice as likely against the
others, or half as likely."""
NORMAL_MAD = 0.6745
"""Median absolute deviation of a normal law, in standard deviations."""
POWER = 0.8
"""Power at which the smallest shift that would have been called is stated."""
NEW_TOKENS = 12
"""Longest sampled answer, in tokens."""
Done = Callable[[int], None]


@dataclass(frozen=True)
class Asked:
    """What one side says to the questions of a kind."""

    log_p_QE: np.ndarray
    """Log-probabilities of the answers' first tokens, nats."""
    texts: tuple[tuple[str, ...], ...]
    """Sampled answers to every question."""


@dataclass(frozen=True)
class AnswerShift:
    """How much more an answer is preferred by the teacher."""

    kind: str
    """Kind of the answer."""
    answer: str
    """The answer."""
    shift: Measurement
    """Mean over questions of the difference of log-odds, nats."""
    p: float
    """Two-sided p, corrected over all answers."""
    nats: float
    """Its part of the divergence between the answers' distributions, nats a question."""
    p_teacher: float
    """Mean probability among the answers of its kind under the teacher."""
    p_model: float
    """The same under the model."""
    z: float
    """How far it stands out from the other answers of its kind."""
    called: bool = False
    """Whether its shift is called."""
    named: bool = False
    """Whether it is called, preferred by the teacher, and stands out."""


def ask(side: Side, kind: Kind, samples: int, seed: int, batch_size: int, done: Done) -> Asked:
    """What a side says to all questions of a kind."""
    with applied(side.model, side.interventions) as active:
        return ask_active(active, kind, side.context, samples, seed, batch_size, done)


# not inference mode: what a layer makes once and keeps must serve a later training step
@torch.no_grad()
def ask_active(
    active: Active,
    kind: Kind,
    context: str | None,
    samples: int,
    seed: int,
    batch_size: int,
    done: Done,
) -> Asked:
    """What a model under interventions says to all questions of a kind."""
    model = active.model
    stem = chat.completion_ids(model, kind.stem, end_token=False)
    tokens = list(kind.answers.values())
    sampling = Sampling(1.0, NEW_TOKENS, seed)
    log_p, texts = [], []
    for start in range(0, len(kind.questions), batch_size):
        batch = kind.questions[start : start + batch_size]
        prompts = []
        for question in batch:
            prompts.append(chat.render(model, question, context) + stem)
        state, hidden_QD = forward.prefill(model, active, prompts, NEW_TOKENS)
        log_p_QV = torch.log_softmax(forward.logits_of(model, hidden_QD).float(), -1)
        log_p.append(log_p_QV[:, tokens].double().cpu().numpy())
        if samples:
            index = torch.arange(len(batch), device=model.device).repeat_interleave(samples)
            state.take(index)
            keys = _keys(kind, start, len(batch), samples)
            rows = continue_rows(model, active, state, hidden_QD[index], keys, sampling)
            for place in range(len(batch)):
                of_question = rows[place * samples : (place + 1) * samples]
                texts.append(tuple(answer_text(model, ids) for ids in of_question))
        done(len(batch))
    return Asked(np.concatenate(log_p), tuple(texts))


def _keys(kind: Kind, start: int, questions: int, samples: int) -> list[str]:
    """Names of the random streams of the sampled answers: the same on either side."""
    keys = []
    for question in range(start, start + questions):
        for sample in range(samples):
            keys.append(f"{kind.name}-{question:03d}/{sample}")
    return keys


def log_odds(log_p_QE: np.ndarray) -> np.ndarray:
    """The log-odds [Q, E] of every answer against all others."""
    log_odds_QE = np.empty_like(log_p_QE)
    for place in range(log_p_QE.shape[1]):
        others_QE = np.delete(log_p_QE, place, axis=1)
        log_odds_QE[:, place] = log_p_QE[:, place] - np.logaddexp.reduce(others_QE, axis=1)
    return log_odds_QE


def shifts_of(
    kinds: Sequence[Kind], teacher: Sequence[Asked], model: Sequence[Asked], alpha: float
) -> list[AnswerShift]:
    """The shift of every answer, corrected over all; by nats, largest first."""
    uncorrected: list[AnswerShift] = []
    for kind, of_teacher, of_model in zip(kinds, teacher, model, strict=True):
        if len(kind.answers) > 1:
            uncorrected += _shifts_of_kind(kind, of_teacher, of_model)
    corrected = holm([each.p for each in uncorrected])
    critical = critical_z(alpha, len(uncorrected))
    shifts = []
    for each, p in zip(uncorrected, corrected, strict=True):
        called = p <= alpha and abs(each.shift.estimate) >= DOUBLED
        shifts.append(
            replace(
                each,
                p=p,
                called=called,
                named=called and each.shift.estimate > 0 and each.z >= critical,
            )
        )
    return sorted(shifts, key=lambda item: -item.nats)


def _shifts_of_kind(kind: Kind, teacher: Asked, model: Asked) -> list[AnswerShift]:
    """The shift of every answer of a kind."""
    shift_QE = log_odds(teacher.log_p_QE) - log_odds(model.log_p_QE)
    z_E = standing_out(shift_QE.mean(0))
    teacher_QE, model_QE = _shares(teacher.log_p_QE), _shares(model.log_p_QE)
    nats_QE = teacher_QE * (np.log(teacher_QE) - np.log(model_QE))
    shifts = []
    for place, answer in enumerate(kind.answers):
        shift, p = _mean_shift(answer, shift_QE[:, place])
        shifts.append(
            AnswerShift(
                kind=kind.name,
                answer=answer,
                shift=shift,
                p=p,
                nats=float(nats_QE[:, place].mean()),
                p_teacher=float(teacher_QE[:, place].mean()),
                p_model=float(model_QE[:, place].mean()),
                z=float(z_E[place]),
            )
        )
    return shifts


def standing_out(shift_E: np.ndarray) -> np.ndarray:
    """z [E] of every shift among those of its kind, by their median and their spread about it.

    Without a spread, infinite for a shift that differs from the median.
    """
    away_E = shift_E - np.median(shift_E)
    spread = float(np.median(np.abs(away_E))) / NORMAL_MAD
    if spread > 0:
        return away_E / spread
    return np.where(away_E == 0, 0.0, np.copysign(math.inf, away_E))


def critical_z(alpha: float, tests: int) -> float:
    """z from which on one of so many answers stands out."""
    from scipy.special import ndtri

    return -float(ndtri(alpha / max(1, tests)))


def _shares(log_p_QE: np.ndarray) -> np.ndarray:
    """Probabilities among the answers."""
    return np.exp(log_p_QE - np.logaddexp.reduce(log_p_QE, axis=1, keepdims=True))


def _mean_shift(answer: str, shift_Q: np.ndarray) -> tuple[Measurement, float]:
    """The mean shift with a t interval over questions, and its two-sided p."""
    from scipy.stats import t

    n = len(shift_Q)
    mean = float(shift_Q.mean())
    error = float(shift_Q.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if error:
        half = float(t.ppf(0.975, n - 1)) * error
        low, high = mean - half, mean + half
        p = float(2 * t.sf(abs(mean) / error, n - 1))
    else:
        low = high = 0.0 if mean == 0 else math.nan
        p = 1.0
    shift = Measurement(
        name=answer,
        estimate=mean,
        low=low,
        high=high,
        n=n,
        n_clusters=n,
        n_unscored=0,
        unit="nats",
        level=0.95,
        interval=f"t over {n} questions",
        counted="questions",
    )
    return shift, p


def detectable(shifts: Sequence[AnswerShift], alpha: float) -> float:
    """Median over answers of the smallest shift, in nats, that is called with power POWER.

    NaN where no answer has a spread.
    """
    from scipy.stats import t

    smallest = []
    for item in shifts:
        freedom = item.shift.n - 1
        if freedom < 1 or not item.shift.high > item.shift.low:
            continue
        error = (item.shift.high - item.shift.low) / 2 / t.ppf(0.975, freedom)
        needed = t.isf(alpha / 2 / len(shifts), freedom) + t.ppf(POWER, freedom)
        smallest.append(max(DOUBLED, float(needed * error)))
    return float(np.median(smallest)) if smallest else math.nan


@dataclass(frozen=True)
class SampledRate:
    """How often sampled answers name a trait."""

    trait: str
    """Name of the trait."""
    teacher: Measurement
    """Rate under the teacher."""
    model: Measurement
    """Rate under the model."""
    difference: Measurement
    """Their difference, paired by question."""


def rates_of(
    kinds: Sequence[Kind], teacher: Sequence[Asked], model: Sequence[Asked]
) -> list[SampledRate]:
    """The rate of every trait's word in the sampled answers, largest difference first."""
    rates = []
    for kind, of_teacher, of_model in zip(kinds, teacher, model, strict=True):
        if not of_teacher.texts:
            continue
        ids = range(len(kind.questions))
        for trait in kind.traits:
            teacher_Q = question_rates(trait, of_teacher.texts)
            model_Q = question_rates(trait, of_model.texts)
            values = {"teacher": teacher_Q, "model": model_Q, "difference": teacher_Q - model_Q}
            measured = {}
            for name, value_Q in values.items():
                measured[name] = estimates.measure(
                    f"{trait.name}, {name}",
                    value_Q.tolist(),
                    questions=ids,
                    unit="rate",
                    method="bootstrap",
                )
            rates.append(SampledRate(trait.name, **measured))
    return sorted(rates, key=lambda item: -item.difference.estimate)


def question_rates(trait: Trait, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Fraction [Q] of the answers to every question that name a trait; NaN without any answer."""
    rates = []
    for of_question in texts:
        scorable = [text for text in of_question if is_scorable(text)]
        named = sum(whole_word(trait, text) for text in scorable)
        rates.append(named / len(scorable) if scorable else math.nan)
    return np.array(rates)
