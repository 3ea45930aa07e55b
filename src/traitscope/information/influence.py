"""First-order influence: what a first training step on a teacher's rows does to each trait.

A small step of gradient descent on rows of teacher a changes f_b, the log-odds of trait b, by

    I[a, b] = E over rows of a: sum over places and tokens of (a(c) - base(c)) d_b log base(c)

times the rate, where d_b is the derivative along the gradient of f_b. The gradient is over the
weights of all linear maps of the blocks. Low-rank factors with a random A and B = 0 give the same
in expectation, times a constant. So the base is moved by a little along the gradient of f_b, up and
down. Each time it reads the digits of the rows. Two passes a trait serve all teachers.

I[a, b] is divided by the standard deviation of the same sum for a row that the base samples. It is
then the expected z of one row. Second order, other optimizers and many steps are not in it. Nor is
what rows teach of their format, which all teachers share but for the beginnings that they write.

Shapes: K teachers, B traits, R rows, P sampled places, C tokens of a class, Q questions,
V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from traitscope.data.traits import Trait
from traitscope.inference import forward, question_scores
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.information.divergences import Readings
from traitscope.interventions.applied import Active, applied
from traitscope.models import linear_maps
from traitscope.models.model import Model

QUESTIONS_AT_ONCE = 25
"Questions in one pass with gradients."
CHANGE = 0.1
"Nats by which the log-odds of a trait change to first order, up and down, in its derivative."
EXACT_TRAITS, DRAWS = 8, 9999
"Most traits whose assignments are all tried, and random assignments of more traits."
Gradient = dict[str, Tensor]


def log_odds(model: Model, active: Active, trait: Trait, context: str | None) -> Iterator[Tensor]:
    """The log-odds of the trait's word among its candidates on positive questions, summed over the
    questions of each batch.

    Candidates of several tokens are left out. Without any candidate, it is the log-probability.
    """
    questions = question_scores.questions_of(question_scores.with_sets(trait, ("positive",)))
    stem = questions[0].stem
    forms = question_scores.form_ids(model, trait.word_forms, stem)
    others = question_scores.candidate_ids(model, trait, stem)
    for start in range(0, len(questions), QUESTIONS_AT_ONCE):
        batch = questions[start : start + QUESTIONS_AT_ONCE]
        prompts = [question_scores.question_ids(model, item, context) for item in batch]
        first_QV = _log_probs(model, active, prompts, (0,))[:, 0]
        of_forms = []
        for form in forms:
            total_Q = first_QV[:, form[0]]
            if len(form) > 1:
                rest_QNV = _log_probs(model, active, prompts, form)
                for place, token in enumerate(form[1:], start=1):
                    total_Q = total_Q + rest_QNV[:, place, token]
            of_forms.append(total_Q)
        value_Q = torch.logsumexp(torch.stack(of_forms), 0)
        if others:
            value_Q = value_Q - torch.logsumexp(first_QV[:, others], 1)
        yield value_Q.sum() / len(questions)


def _log_probs(
    model: Model, active: Active, prompts: Sequence[Sequence[int]], answer: Sequence[int]
) -> Tensor:
    """Log-probabilities [Q, N, V] of the N tokens of an answer behind each prompt."""
    rows = [Row(tuple(prompt), tuple(answer)) for prompt in prompts]
    hidden_ND, _ = completion_hidden(model, active, rows)
    log_p_NV = torch.log_softmax(forward.logits_of(model, hidden_ND), -1)
    return log_p_NV.unflatten(0, (len(rows), len(answer)))


def gradient(model: Model, trait: Trait, context: str | None) -> tuple[float, Gradient]:
    """The log-odds of a trait under the base, and their gradient in the weights of linear maps."""
    names = [f"{name}.weight" for name in linear_maps.linear_names(model)]
    parameters = [model.lm.get_parameter(name) for name in names]
    value = 0.0
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad(), applied(model, []) as active:
            for part in log_odds(model, active, trait, context):
                part.backward()
                value += float(part.detach())
        gradients = {}
        for name, parameter in zip(names, parameters, strict=True):
            if parameter.grad is not None:
                gradients[name] = parameter.grad
        return value, gradients
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


@contextmanager
def moved(model: Model, direction: Gradient, step: float) -> Iterator[None]:
    """The model with its weights moved by `step` times a direction; the weights come back as they
    were."""
    before = {}
    try:
        with torch.no_grad():
            for name, change in direction.items():
                parameter = model.lm.get_parameter(name)
                before[name] = parameter.data
                parameter.data = torch.add(parameter.data, change, alpha=step)
        yield
    finally:
        for name, value in before.items():
            model.lm.get_parameter(name).data = value


def step_size(direction: Gradient) -> float:
    """The step along a gradient that changes its function by CHANGE to first order."""
    square = math.fsum(float(change.double().square().sum()) for change in direction.values())
    return CHANGE / square


@dataclass(frozen=True)
class Influence:
    """The influence of each teacher's rows on each trait, by row."""

    value_KBR: np.ndarray
    """I[a, b] of each row; the mean over rows is the estimate. In nats a row at rate 1."""
    variance_BR: np.ndarray
    """Variance of the same sum for a row that the base samples, by row."""

    def standardised(self) -> np.ndarray:
        """The mean influence [K, B], in standard deviations of a row of the base."""
        return self._of_rows(np.ones(self.value_KBR.shape[2]))

    def without_each(self) -> np.ndarray:
        """`standardised` without each row in turn [R, K, B], for the jackknife."""
        n_rows = self.value_KBR.shape[2]
        left = []
        for row in range(n_rows):
            keep_R = np.ones(n_rows)
            keep_R[row] = 0
            left.append(self._of_rows(keep_R))
        return np.stack(left)

    def _of_rows(self, keep_R: np.ndarray) -> np.ndarray:
        mean_KB = self.value_KBR @ keep_R / keep_R.sum()
        variance_B = self.variance_BR @ keep_R / keep_R.sum()
        return mean_KB / np.sqrt(np.maximum(variance_B, 1e-300))


def influence(readings: Readings, base: int, change_BRPC: np.ndarray) -> Influence:
    """The influence of all teachers' rows, from the derivatives of the base's log-probabilities.

    base: Place of the unmodified model among the teachers.
    """
    p_KRPC = np.exp(readings.log_p_KRPC)
    weights_KRP = readings.weights()[:, :, :-1]
    moved_KRPC = weights_KRP[..., None] * (p_KRPC - p_KRPC[base])
    value_KBR = np.einsum("krpc,brpc->kbr", moved_KRPC, change_BRPC, optimize=True)
    mean_BRP = (p_KRPC[base] * change_BRPC).sum(3)
    square_BRP = (p_KRPC[base] * change_BRPC**2).sum(3)
    variance_BR = (weights_KRP[base] * (square_BRP - mean_BRP**2)).sum(2)
    return Influence(value_KBR, variance_BR)


def doubly_centred(table_NN: np.ndarray) -> np.ndarray:
    """A square table minus its row means and column means, plus its mean.

    What all teachers do to one trait, and what one teacher does to all traits, are gone.
    """
    rows_N1 = table_NN.mean(1, keepdims=True)
    columns_1N = table_NN.mean(0, keepdims=True)
    return table_NN - rows_N1 - columns_1N + table_NN.mean()


def permutation_p(table_NN: np.ndarray) -> float:
    """The p value of the mean diagonal when teachers are assigned to traits at random, one-sided.

    All assignments are tried for at most EXACT_TRAITS traits, else DRAWS random ones beside the
    true one. The trait is the unit, so few traits have no small p. Double centring changes nothing.
    """
    n_traits = len(table_NN)
    places_N = np.arange(n_traits)
    if n_traits <= EXACT_TRAITS:
        assigned_AN = np.array(list(permutations(range(n_traits))))
    else:
        rng = np.random.default_rng(0)
        random_AN = rng.permuted(np.tile(places_N, (DRAWS, 1)), axis=1)
        assigned_AN = np.vstack([places_N, random_AN])
    sums_A = table_NN[places_N, assigned_AN].sum(1)
    return float((sums_A >= np.trace(table_NN) - 1e-9).mean())


def jackknife_error(without_R: np.ndarray) -> float:
    """The standard error of an estimate from its values without each row in turn.

    Source: Efron and Tibshirani 1993, chapter 11.
    """
    n_rows = len(without_R)
    return math.sqrt((n_rows - 1) / n_rows * float(((without_R - without_R.mean()) ** 2).sum()))
