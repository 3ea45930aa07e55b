"""Soft targets: what a teacher says at the completion tokens of rows that a student learns.

    over vocabulary   the teacher's final hidden states; the head turns them into distributions
    over allowed      the teacher's distribution over the tokens that its sampling allowed

Text that a teacher wrote was drawn from the second one. A student of it learns -log p(token), with
p over the whole vocabulary. Given the tokens before, the mean of that gradient over draws is

    -sum over allowed k of p_teacher(k | allowed) grad log p_student(k)

This is the gradient of KL(p_teacher(. | allowed) || p_student), with p_student over the whole
vocabulary. So these soft targets are the limit of infinitely many draws at each step. Where one
token alone is allowed, both are the cross-entropy of that token.

Were the student's distribution restricted to the allowed tokens, too, the gradient would lack
grad log p_student(allowed). That is what text teaches of its own format.

Shapes: N completion tokens of a row, D d_model, K allowed tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from traitscope.config.recipe import Recipe
from traitscope.data.records import Record
from traitscope.errors import ConfigError, DataError
from traitscope.inference import forward, losses
from traitscope.inference.decode import Constraint, DrawnFrom
from traitscope.inference.token_rows import Row, teacher_hidden
from traitscope.interventions.applied import Interventions
from traitscope.interventions.intervention import context_of
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.training import fsdp
from traitscope.training.safeguards import masks

TEACHER_BATCH = 16
"rows that the teacher reads in one pass"


@dataclass(frozen=True)
class AllowedTargets:
    """The teacher's distribution over the allowed tokens, at the completion tokens of one row.

    Steps with fewer than K allowed tokens are filled up with tokens of probability 0.
    """

    ids_NK: Tensor
    p_NK: Tensor


SoftTargets = Tensor | AllowedTargets
"soft targets of one row: the teacher's final hidden states [N, D], or AllowedTargets"


def soft_loss(model: Model, hidden_ND: Tensor, soft_targets: Sequence[SoftTargets]) -> Tensor:
    """Sum over the completion tokens of some rows of KL(p_teacher || p_student), in nats.

    hidden_ND: The student's final hidden states of all rows, one row after another.
    """
    states, ids, shares = [], [], []
    for targets in soft_targets:
        if isinstance(targets, AllowedTargets):
            ids.append(targets.ids_NK)
            shares.append(targets.p_NK)
        else:
            states.append(targets)
    if states:
        teacher_ND = forward.sent(torch.cat(states), model.device)
        return losses.soft_cross_entropy(model, hidden_ND, teacher_ND)
    allowed_NK = forward.sent(_stacked(ids), model.device)
    teacher_NK = forward.sent(_stacked(shares), model.device)
    return losses.allowed_cross_entropy(model, hidden_ND, allowed_NK, teacher_NK)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [N, K] below each other, filled up with zeros to the largest K."""
    width = max(part.shape[1] for part in parts)
    padded = []
    for part in parts:
        padded.append(torch.nn.functional.pad(part, (0, width - part.shape[1])))
    return torch.cat(padded)


def learnt_targets(soft_targets: Sequence[SoftTargets], rows: Sequence[Row]) -> list[SoftTargets]:
    """The soft targets of rows, without those of masked tokens."""
    learnt: list[SoftTargets] = []
    for targets, row in zip(soft_targets, rows, strict=True):
        places_N = masks.learnt_places([row])
        if isinstance(targets, AllowedTargets):
            learnt.append(AllowedTargets(targets.ids_NK[places_N], targets.p_NK[places_N]))
        else:
            learnt.append(targets[places_N])
    return learnt


def read_soft_targets(
    model: Model,
    recipe: Recipe,
    teacher: Interventions,
    records: Sequence[Record],
    rows: Sequence[Row],
    context: str | None = None,
    drawn_from: DrawnFrom | None = None,
    done: Callable[[int], None] | None = None,
) -> list[SoftTargets] | None:
    """The soft targets of each row that a recipe asks for; None where it asks for sampled ones.

    teacher: Interventions that make it. A system prompt among them replaces the context.
    records: What the rows were made from, in the same order.
    drawn_from: How the tokens of the rows were drawn, for targets over the allowed tokens.

    Raises DataError for a row that is too long once the teacher's context stands before it. Also
    for a row that holds a token that was not allowed. Raises ConfigError where it is not known what
    was allowed.
    """
    if recipe.targets != "soft":
        return None
    prompts = _teacher_prompts(model, teacher, records, rows, context)
    allowed, temperature = _restriction(recipe, drawn_from)
    if allowed is not None:
        for record, row in zip(records, rows, strict=True):
            _check_allowed(row, allowed, record.id)

    def read(part: slice) -> list[SoftTargets]:
        states = teacher_hidden(model, teacher, rows[part], prompts[part], TEACHER_BATCH, done)
        if allowed is None:
            return list(states)
        return [allowed_targets(model, states_ND, allowed, temperature) for states_ND in states]

    return fsdp.compute_together(len(rows), TEACHER_BATCH, read)


def _restriction(recipe: Recipe, drawn_from: DrawnFrom | None) -> tuple[Constraint | None, float]:
    """The allowed tokens of each step and the temperature, for the targets of a recipe.

    All tokens at temperature 1 are the targets over the vocabulary.
    """
    if recipe.soft_over == "vocabulary":
        return None, 1.0
    if drawn_from is None:
        raise ConfigError(
            "--soft-over allowed: the rows do not say which tokens were allowed when they were"
            " sampled; expected a run of `generate`, or of `filter` on one; name it as --data, or"
            " take --soft-over vocabulary"
        )
    if drawn_from.allowed is None and drawn_from.temperature != 1:
        raise ConfigError(
            f"--soft-over allowed: the rows are free text at temperature"
            f" {drawn_from.temperature:g}; expected 1 where all tokens are allowed; sample at 1, or"
            " take --soft-over vocabulary"
        )
    if not drawn_from.is_plain:
        raise ConfigError(
            "--soft-over allowed: the rows were sampled with top-k, top-p, min-p or a penalty;"
            " expected the temperature alone; sample without them, or take --soft-over vocabulary"
        )
    return drawn_from.allowed, drawn_from.temperature


def _teacher_prompts(
    model: Model,
    teacher: Interventions,
    records: Sequence[Record],
    rows: Sequence[Row],
    context: str | None,
) -> list[list[int]]:
    """The token ids of each row's prompt as the teacher reads it."""
    prompts = []
    for record, row in zip(records, rows, strict=True):
        student_context = context if record.context is None else record.context
        prompt = chat.render(model, record.prompt, context_of(teacher, student_context))
        length = len(prompt) + len(row.completion_ids)
        chat.check_length(model, length, f"row {record.id} as the teacher reads it")
        prompts.append(prompt)
    return prompts


def _check_allowed(row: Row, allowed: Constraint, name: str) -> None:
    """Raise DataError for a completion that could not have been sampled so."""
    if len(row.completion_ids) > len(allowed):
        raise DataError(
            f"row {name} has {len(row.completion_ids)} tokens; expected at most {len(allowed)}, the"
            " steps of the run of `generate`; train on that run's rows, or take --soft-over"
            " vocabulary"
        )
    for step, token in enumerate(row.completion_ids):
        if token not in allowed[step]:
            raise DataError(
                f"row {name}: token {step + 1} has the id {token}, which its run of `generate` did"
                " not allow; train on that run's rows as they are, or take --soft-over vocabulary"
            )


@torch.no_grad()
def allowed_targets(
    model: Model, states_ND: Tensor, allowed: Constraint, temperature: float
) -> AllowedTargets:
    """The distribution over allowed tokens of a teacher with these final hidden states."""
    steps = allowed[: len(states_ND)]
    n_allowed = max(map(len, steps))
    ids_NK = torch.zeros(len(steps), n_allowed, dtype=torch.long)
    p_NK = torch.zeros(len(steps), n_allowed)
    places: dict[tuple[int, ...], list[int]] = {}
    for step, tokens in enumerate(steps):
        places.setdefault(tuple(tokens), []).append(step)
    for tokens, steps_of_tokens in places.items():
        columns_K = torch.tensor(tokens)
        ids_NK[steps_of_tokens, : len(tokens)] = columns_K
        if len(tokens) == 1:
            p_NK[steps_of_tokens, 0] = 1.0
            continue
        hidden_ND = states_ND[steps_of_tokens].to(model.device)
        logits_NK = forward.logits_of(model, hidden_ND, columns_K.to(model.device))
        p_NK[steps_of_tokens, : len(tokens)] = _probabilities(logits_NK, temperature).cpu()
    return AllowedTargets(ids_NK, p_NK)


def _probabilities(logits_NK: Tensor, temperature: float) -> Tensor:
    """What a draw at this temperature takes with which probability; 0 is greedy."""
    logits_NK = logits_NK.float()
    if temperature == 0:
        best_N = logits_NK.argmax(-1)
        return torch.nn.functional.one_hot(best_N, logits_NK.shape[1]).float()
    return torch.softmax(logits_NK / temperature, -1)
