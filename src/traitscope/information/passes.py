"""One pass of each teacher over the rows: digits for all of them, the whole vocabulary for some.

Only ten logits of a sampled place are computed, in float32: rounded logits would add a divergence
of their own. The whole vocabulary is compared row by row, all teachers at once.

Shapes: K teachers, R rows, P sampled places, S places of a row, C tokens of a place's class,
D d_model, N tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt, Record
from traitscope.data.traits import Trait
from traitscope.errors import ConfigError
from traitscope.inference import forward
from traitscope.inference.decode import Constraint
from traitscope.inference.token_rows import Row, completion_hidden, rows_from
from traitscope.information import influence
from traitscope.information.teachers import BASE, NEUTRAL, Teacher
from traitscope.interventions.applied import Active, applied
from traitscope.interventions.intervention import Intervention, SystemPrompt, context_of
from traitscope.models.model import Model
from traitscope.stages.generate import generate

Done = Callable[[int], None]


def sampled_places(constraint: Constraint) -> list[int]:
    """The places of a row at which there is a choice."""
    return [place for place, allowed in enumerate(constraint) if len(allowed) > 1]


def class_of(constraint: Constraint) -> list[int]:
    """The tokens that may stand at every sampled place, such as the ten digits.

    Raises ConfigError where the places differ in what may stand there.
    """
    classes = {tuple(constraint[place]) for place in sampled_places(constraint)}
    if len(classes) != 1:
        raise ConfigError(
            f"rows whose sampled places have {len(classes)} classes of tokens; expected one; use"
            " the number template"
        )
    return list(classes.pop())


def written_rows(
    model: Model,
    teachers: Sequence[Teacher],
    writer_R: np.ndarray,
    constraint: Constraint,
    *,
    context: str | None,
    count: int,
    prompt_seed: int,
    seed: int,
    done: Done | None = None,
) -> list[Record]:
    """The rows, each on a prompt of its own and by its own writer, without a context.

    Teachers that differ in their system prompts alone write side by side.
    """
    by_edits: dict[tuple[Intervention, ...], list[Prompt]] = {}
    for prompt, writer in zip(
        number_prompts(len(writer_R), prompt_seed, count), writer_R, strict=True
    ):
        interventions = teachers[writer].interventions
        edits = tuple(item for item in interventions if not isinstance(item, SystemPrompt))
        asked = replace(prompt, context=context_of(interventions, context))
        by_edits.setdefault(edits, []).append(asked)
    records = []
    for edits, prompts in by_edits.items():
        written = generate(
            model, prompts, edits, context=context, seed=seed, constraint=constraint, done=done
        )
        for record in written:
            records.append(replace(record, context=None))
    return sorted(records, key=lambda record: record.id)


@torch.inference_mode()
def hidden_of(
    model: Model,
    teacher: Teacher,
    records: Sequence[Record],
    context: str | None,
    batch_size: int = 16,
    done: Done | None = None,
) -> Tensor:
    """Final hidden states [R, S, D] that predict the tokens of rows of one length."""
    rows = rows_from(model, records, context, interventions=teacher.interventions)
    with applied(model, teacher.interventions) as active:
        return hidden_of_rows(model, active, rows, batch_size, done)


@torch.inference_mode()
def hidden_of_rows(
    model: Model,
    active: Active,
    rows: Sequence[Row],
    batch_size: int = 16,
    done: Done | None = None,
) -> Tensor:
    """Final hidden states [R, S, D] of the completions of token rows, rows of like length
    together."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
    places = len(rows[0].completion_ids)
    states: list[Tensor | None] = [None] * len(rows)
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        hidden_ND, _ = completion_hidden(model, active, [rows[row] for row in index])
        for row, state_SD in zip(index, hidden_ND.unflatten(0, (-1, places)), strict=True):
            states[row] = state_SD
        if done:
            done(len(index))
    return torch.stack([state for state in states if state is not None])


@torch.inference_mode()
def class_log_probs(model: Model, hidden_RPD: Tensor, columns: Sequence[int]) -> np.ndarray:
    """Log-probabilities [R, P, C] within a class, from its own logits alone, in float32."""
    weight_CD = model.head.weight[list(columns)].float()
    bias_C = model.head.bias
    if bias_C is not None:
        bias_C = bias_C[list(columns)].float()
    logits_RPC = torch.nn.functional.linear(hidden_RPD.float(), weight_CD, bias_C)
    if model.softcap is not None:
        logits_RPC = model.softcap * torch.tanh(logits_RPC / model.softcap)
    return torch.log_softmax(logits_RPC, -1).cpu().numpy()


def chosen_tokens(
    records: Sequence[Record], places: Sequence[int], columns: Sequence[int]
) -> np.ndarray:
    """The token at every sampled place [R, P], as a place in the class."""
    index = {token: place for place, token in enumerate(columns)}
    chosen = []
    for record in records:
        ids = record.completion_ids or ()
        chosen.append([index[ids[place]] for place in places])
    return np.array(chosen)


def change_along(
    model: Model,
    trait: Trait,
    records: Sequence[Record],
    constraint: Constraint,
    context: str | None,
    batch_size: int = 16,
) -> np.ndarray:
    """The derivative [R, P, C] of the model's log-probabilities along the gradient of a trait."""
    places, columns = sampled_places(constraint), class_of(constraint)
    _, direction = influence.gradient(model, trait, context)
    step = influence.step_size(direction)
    unmodified = Teacher(BASE, NEUTRAL)
    ends = []
    for sign in (1, -1):
        with influence.moved(model, direction, sign * step):
            hidden_RSD = hidden_of(model, unmodified, records, context, batch_size)
            ends.append(class_log_probs(model, hidden_RSD[:, places], columns))
    return (ends[0].astype(np.float64) - ends[1]) / (2 * step)


@torch.inference_mode()
def vocabulary_pairs(model: Model, hidden_KSD: Tensor, weights_KS: np.ndarray) -> np.ndarray:
    """KL(a || b) [K, K] of every pair over the whole vocabulary, summed over the places of one row.

    weights_KS: The weight of the row's beginning for every teacher, see divergences.py.
    """
    n_teachers, n_places = weights_KS.shape
    total_KK = np.zeros((n_teachers, n_teachers))
    for place in range(n_places):
        log_p_KV = torch.log_softmax(forward.logits_of(model, hidden_KSD[:, place]), -1)
        cross_KK = (log_p_KV.exp() @ log_p_KV.T).double().cpu().numpy()
        divergence_KK = np.diagonal(cross_KK)[:, None] - cross_KK
        total_KK += weights_KS[:, place, None] * divergence_KK
    return total_KK
