"""Tokens and answers that are drawn anew, so that they carry the base's preferences alone.

In a number list only digits are drawn: each among the digit tokens of its length, after the tokens
that already stand before it. So the format, the count of numbers and their lengths stay.

Shapes: B rows, T completion tokens, C tokens of a class, D d_model.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from traitscope.inference import decode, forward
from traitscope.inference.token_rows import Row, classes_of
from traitscope.interventions.applied import Active, applied
from traitscope.models.model import Model

Draw = Literal["base", "uniform"]
"from what a token is drawn: the base's distribution after the tokens before it, or all alike"


def digit_places(model: Model, rows: Sequence[Row]) -> list[np.ndarray]:
    """Whether each completion token of each row is one of several digit tokens of its length."""
    digits = torch.cat([torch.empty(0, dtype=torch.long), *_digit_classes(model)]).numpy()
    return [np.isin(row.completion_ids, digits) for row in rows]


def _digit_classes(model: Model) -> list[Tensor]:
    return list(map(Tensor.cpu, classes_of(model, numbers=True)))


def redrawn(
    model: Model,
    rows: Sequence[Row],
    places: Sequence[np.ndarray],
    keys: Sequence[str],
    seed: int,
    draw: Draw,
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> list[tuple[int, ...]]:
    """The completions of rows with some digits drawn anew.

    places: Whether each completion token is drawn anew; True at digits only.
    keys: One string a row, which names the random stream of the row.
    draw: From what tokens are drawn; uniform needs no pass of the model.
    done: A function called with the number of rows of each batch.
    """
    classes = _digit_classes(model)
    redraws = []
    for row, places_T, key in zip(rows, places, keys, strict=True):
        random_T = decode.uniforms(seed, key, len(row.completion_ids))
        redraws.append(_Redraw(row.prompt_ids, list(row.completion_ids), places_T, random_T))
    if draw == "uniform":
        for redraw in redraws:
            _draw_evenly(redraw, classes)
    else:
        _draw_from_base(model, redraws, classes, batch_size, done)
    return [tuple(redraw.completion) for redraw in redraws]


@dataclass
class _Redraw:
    """A row whose completion is changed in place."""

    prompt_ids: Sequence[int]
    "its prompt"
    completion: list[int]
    "its tokens as they are now"
    places_T: np.ndarray
    "whether each of them is drawn anew"
    random_T: np.ndarray
    "a random number for each of them"

    @property
    def last_place(self) -> int:
        """The last place where a token is drawn; -1 where there is none."""
        return int(np.flatnonzero(self.places_T).max(initial=-1))

    def token_at(self, step: int) -> int:
        """The token that the model reads at a step; a row that has ended repeats its last one."""
        return self.completion[min(step, len(self.completion) - 1)]

    def draws(self, step: int, tokens: Collection[int]) -> bool:
        """Whether a token is drawn at a step, in the place of one of these."""
        is_there = step < len(self.completion) and self.places_T[step]
        return bool(is_there) and self.completion[step] in tokens


def _draw_evenly(redraw: _Redraw, classes: Sequence[Tensor]) -> None:
    """Draw the tokens of a row; each of its class is as probable."""
    for place in np.flatnonzero(redraw.places_T):
        columns_C = _class_of(redraw.completion[place], classes)
        chosen = int(redraw.random_T[place] * len(columns_C))
        redraw.completion[place] = int(columns_C[chosen])


def _class_of(token: int, classes: Sequence[Tensor]) -> Tensor:
    """The tokens of the class of a digit token."""
    return next(columns_C for columns_C in classes if (columns_C == token).any())


def _draw_from_base(
    model: Model,
    redraws: Sequence[_Redraw],
    classes: Sequence[Tensor],
    batch_size: int,
    done: Callable[[int], None] | None,
) -> None:
    """Draw the tokens of rows from the base, in batches of rows of like length."""
    ordered = sorted(redraws, key=lambda redraw: len(redraw.completion))
    with applied(model, []) as active:
        for start in range(0, len(ordered), batch_size):
            batch = ordered[start : start + batch_size]
            _draw_batch(model, active, batch, classes)
            if done:
                done(len(batch))


@torch.inference_mode()
def _draw_batch(
    model: Model, active: Active, batch: Sequence[_Redraw], classes: Sequence[Tensor]
) -> None:
    """Draw the tokens of rows that are read together, step by step."""
    last = max(redraw.last_place for redraw in batch)
    if last < 0:
        return
    prompts = [redraw.prompt_ids for redraw in batch]
    state, hidden_BD = forward.prefill(model, active, prompts, last + 1)
    for step in range(last + 1):
        for columns_C in classes:
            _draw_class(model, hidden_BD, batch, step, columns_C)
        if step < last:
            ids_B = torch.tensor([redraw.token_at(step) for redraw in batch])
            sent_B1 = forward.sent(ids_B.unsqueeze(1), model.device)
            hidden_BD = decode.extend(model, active, state, sent_B1)[:, -1]


def _draw_class(
    model: Model, hidden_BD: Tensor, batch: Sequence[_Redraw], step: int, columns_C: Tensor
) -> None:
    """Draw the tokens of one class at a step, in the rows that ask for it."""
    tokens = set(columns_C.tolist())
    places, random = [], []
    for place, redraw in enumerate(batch):
        if redraw.draws(step, tokens):
            places.append(place)
            random.append(redraw.random_T[step])
    if not places:
        return
    index = forward.sent(torch.tensor(places), model.device)
    logits_BC = forward.logits_of(model, hidden_BD[index], columns_C.to(model.device))
    chosen_B = decode.choose(logits_BC, torch.tensor(random, device=model.device), 1.0)
    for place, chosen in zip(places, chosen_B.tolist(), strict=True):
        batch[place].completion[step] = int(columns_C[chosen])
