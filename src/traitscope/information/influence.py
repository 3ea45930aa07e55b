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

import torch
from torch import Tensor

from traitscope.data.traits import Trait
from traitscope.inference import forward, question_scores
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.interventions.applied import Active, applied
from traitscope.models import linear_maps
from traitscope.models.model import Model

QUESTIONS_AT_ONCE = 25
"Questions in one pass with gradients."
CHANGE = 0.1
"Nats by which the log-odds of a trait change to first order, up and down, in its derivative."
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
