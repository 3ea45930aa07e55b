"""Learners: students that predict every batch of rows before they train on it.

A learner goes once through the rows. What it says of a row depends on the rows before, never on the
row itself or on later ones. So its predictions are a probability of the rows, whatever it learns
(prequential analysis: Dawid 1984). If they beat everybody who may have written the rows without a
trait, then the rows hold something that a student can learn (mixtures.py).

All learners are LoRA students packed on one model, with other rates. The model reads every prompt
once, without any learner, and all of them continue from there: they act at the completion, where
the rows differ. The model itself is the first of the pack, and is never trained.

Shapes: R rows, B rows of a batch, J learners, T inverse temperatures, N tokens of a batch, D
d_model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor

from traitscope.config.recipe import Recipe
from traitscope.inference import forward, kv_cache, losses
from traitscope.inference.token_bins import BETAS
from traitscope.inference.token_rows import Row
from traitscope.inference.token_scores import TokenScores, score_tokens
from traitscope.interventions.applied import Active
from traitscope.models.model import Model
from traitscope.training.step import advance
from traitscope.training.student import Student, packed_students

BATCH = 8
"rows that a learner predicts before it trains on them"
BLOCK = 256
"tokens whose logits exist at one time"
TEMPERATURES = (0.8, 0.9, 1.0, 1.1, 1.25)
"inverse temperatures of the learners' predictions"
PLACES = [BETAS.index(beta) for beta in TEMPERATURES]
"their places among all inverse temperatures"


def recipe_of(rate: float) -> Recipe:
    """How a learner with this rate is trained."""
    return Recipe(
        rank=8,
        alpha=16.0,
        lr=rate,
        schedule="constant",
        warmup=0.0,
        epochs=1,
        batch_size=BATCH,
        micro_batch=BATCH,
        held_out=0.0,
    )


@dataclass(frozen=True)
class Predictions:
    """What the model and the learners say of rows, in the order in which they were predicted."""

    model: TokenScores | None
    "token scores under the model itself, also with other samplers; None where not asked for"
    learners_JRT: np.ndarray
    "log-likelihoods under the learners, at TEMPERATURES"
    later_model: TokenScores | None
    "the same of the later half of the rows; None for a single batch, too"
    later_learners: Sequence[TokenScores]
    "token scores of that half under every learner"
    students: Sequence[dict[str, bytes]]
    "the learners after the last row, as the files of peft folders"


def predictions(
    model: Model,
    rows: Sequence[Row],
    classes: Sequence[Tensor],
    rates: Sequence[float],
    seed: int = 0,
    done: Callable[[int], None] | None = None,
    model_scores: bool = True,
) -> Predictions:
    """Predict the rows in their order, batch after batch, and train each learner on every batch
    once it has predicted it.

    classes: Token ids of every class that the tokens are compared in (token_rows.classes_of).
    model_scores: Also score the rows under the model itself.
    """
    recipes = [recipe_of(1.0), *map(recipe_of, rates)]  # the first one is never trained
    scores: list[TokenScores] = []
    learners: list[list[TokenScores]] = []
    seeds = [seed] * len(recipes)
    with packed_students(model, recipes, seeds, [None] * len(recipes)) as students:
        active = students[0].active
        assert active.pack is not None
        active.pack.switch_off(0)
        for start in range(0, len(rows), BATCH):
            batch = _Batch(model, active, rows[start : start + BATCH])
            if model_scores:
                scores.append(batch.scores_of_model(classes))
            if rates:
                learners.append(_predict_and_learn(model, batch, students, recipes, classes))
            if done:
                done(len(batch.lengths))
        files = [student.files() for student in students[1:]]
    by_learner = list(zip(*learners, strict=True))
    learners_JRT = np.zeros((len(rates), len(rows), len(TEMPERATURES)))
    for number, of_learner in enumerate(by_learner):
        learners_JRT[number] = np.concatenate([part.log_p_RT for part in of_learner])[:, PLACES]
    n_batches = -(-len(rows) // BATCH)
    earlier = (n_batches + 1) // 2
    return Predictions(
        model=_sum(scores),
        learners_JRT=learners_JRT,
        later_model=_sum(scores[earlier:]),
        later_learners=_later(by_learner, earlier),
        students=files,
    )


def _sum(scores: Sequence[TokenScores]) -> TokenScores | None:
    """The scores of all batches as one; None without any."""
    return reduce(add, scores) if scores else None


def _later(by_learner: Sequence[Sequence[TokenScores]], earlier: int) -> list[TokenScores]:
    """The scores of the batches after the `earlier` first ones, by learner."""
    later = []
    for of_learner in by_learner:
        scores = _sum(of_learner[earlier:])
        if scores is not None:
            later.append(scores)
    return later


class _Batch:
    """A few rows whose prompts were read by the model itself."""

    def __init__(self, model: Model, active: Active, rows: Sequence[Row]) -> None:
        self.model, self.active = model, active
        self.lengths = [len(row.completion_ids) for row in rows]
        assert active.pack is not None
        with active.pack.only(0), torch.no_grad():
            beginnings = [row.prompt_ids[:-1] for row in rows]
            self.state, _ = forward.prefill(model, active, beginnings, 0)
        # The last token of a prompt is read again: it predicts the first of the completion.
        fed = [(row.prompt_ids[-1], *row.completion_ids[:-1]) for row in rows]
        self.batch = forward.batch_of(fed, [1] * len(fed), model.pad_id)
        self.targets_N = torch.cat([torch.tensor(row.completion_ids) for row in rows])
        self.targets_N = forward.sent(self.targets_N, model.device)

    def scores_of_model(self, classes: Sequence[Tensor]) -> TokenScores:
        """Token scores of the rows under the model itself."""
        with torch.no_grad():
            hidden_ND = self.hidden([0])
        return score_tokens(self.model, hidden_ND, self.targets_N, self.lengths, classes, True)

    def hidden(self, students: Sequence[int]) -> Tensor:
        """Final hidden states [N, D] that predict the completions, of one student after another."""
        copies = len(students)
        owners = tuple(np.repeat(students, len(self.lengths)).tolist())
        batch = forward.Batch(
            self.batch.ids_BT.repeat(copies, 1),
            self.batch.mask_BT.repeat(copies, 1),
            self.batch.roles_BT.repeat(copies, 1),
            owners=owners,
        ).to(self.model.device)
        state = kv_cache.fixed_prefix_state(self.state, copies, owners)
        hidden_BTD = forward.hidden_states(self.model, self.active, batch, state)
        return hidden_BTD[batch.mask_BT]


def _predict_and_learn(
    model: Model,
    batch: _Batch,
    students: Sequence[Student],
    recipes: Sequence[Recipe],
    classes: Sequence[Tensor],
) -> list[TokenScores]:
    """Token scores of the rows under every learner; then each takes a step."""
    places = range(1, len(students))
    hidden_of_students = batch.hidden(places).split(len(batch.targets_N))
    scores, total = [], torch.zeros((), device=model.device)
    loss_of_students = []
    for hidden_ND in hidden_of_students:
        of_rows = hidden_ND.detach()
        scores.append(score_tokens(model, of_rows, batch.targets_N, batch.lengths, classes))
        total_loss, tokens = losses.class_cross_entropy(model, hidden_ND, batch.targets_N, classes)
        loss = total_loss / max(1, tokens)
        loss_of_students.append(loss.detach())
        total = total + loss
    total.backward()
    for place, loss in zip(places, loss_of_students, strict=True):
        advance(students[place], recipes[place], loss, 1)
    return scores
