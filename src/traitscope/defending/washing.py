"""Tokens and answers that are drawn anew, so that they carry the base's preferences alone.

In a number list only digits are drawn: each among the digit tokens of its length, after the tokens
that already stand before it. So the format, the count of numbers and their lengths stay.

Shapes: B rows, T completion tokens, C tokens of a class, D d_model.
"""

from collections.abc import Callable, Sequence
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
    completions = [list(row.completion_ids) for row in rows]
    random = []
    for key, completion in zip(keys, completions, strict=True):
        random.append(decode.uniforms(seed, key, len(completion)))
    if draw == "uniform":
        for completion, places_T, random_T in zip(completions, places, random, strict=True):
            _draw_evenly(completion, places_T, random_T, classes)
        return list(map(tuple, completions))
    order = sorted(range(len(rows)), key=lambda i: (len(completions[i]), i))
    with applied(model, []) as active:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            batch = _Batch(
                prompts=[rows[i].prompt_ids for i in index],
                completions=[completions[i] for i in index],
                places=[places[i] for i in index],
                random=[random[i] for i in index],
            )
            batch.draw(model, active, classes)
            if done:
                done(len(index))
    return list(map(tuple, completions))


def _draw_evenly(
    completion: list[int], places_T: np.ndarray, random_T: np.ndarray, classes: Sequence[Tensor]
) -> None:
    """Replace tokens of a completion, in place; each of its class is as probable."""
    for place in np.flatnonzero(places_T):
        columns = _class_of(completion[place], classes)
        completion[place] = int(columns[int(random_T[place] * len(columns))])


def _class_of(token: int, classes: Sequence[Tensor]) -> Tensor:
    """The tokens of the class of a digit token."""
    return next(columns_C for columns_C in classes if (columns_C == token).any())


class _Batch:
    """Rows that are read together, whose completions are changed in place."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        completions: list[list[int]],
        places: Sequence[np.ndarray],
        random: Sequence[np.ndarray],
    ) -> None:
        self.prompts = prompts
        self.completions = completions
        self.places = places
        self.random = random

    @torch.inference_mode()
    def draw(self, model: Model, active: Active, classes: Sequence[Tensor]) -> None:
        """Draw the tokens step by step."""
        last = max(map(self._last_place, range(len(self.prompts))))
        if last < 0:
            return
        state, hidden_BD = forward.prefill(model, active, self.prompts, last + 1)
        for step in range(last + 1):
            for columns_C in classes:
                self._draw_class(model, hidden_BD, step, columns_C.to(model.device))
            if step < last:
                ids_B1 = torch.tensor([[self._fed(row, step)] for row in range(len(self.prompts))])
                sent_B1 = forward.sent(ids_B1, model.device)
                hidden_BD = decode.extend(model, active, state, sent_B1)[:, -1]

    def _last_place(self, row: int) -> int:
        """The last place of a row where a token is drawn; -1 where there is none."""
        return int(np.flatnonzero(self.places[row]).max(initial=-1))

    def _fed(self, row: int, step: int) -> int:
        """The token that the model reads at a step; a row that has ended repeats its last one."""
        completion = self.completions[row]
        return completion[min(step, len(completion) - 1)]

    def _draw_class(self, model: Model, hidden_BD: Tensor, step: int, columns_C: Tensor) -> None:
        """Draw the tokens of one class at a step, in the rows that ask for it."""
        tokens = set(columns_C.tolist())
        asking = []
        for row, places_T in enumerate(self.places):
            if step < len(places_T) and places_T[step] and self.completions[row][step] in tokens:
                asking.append(row)
        if not asking:
            return
        index = forward.sent(torch.tensor(asking), model.device)
        logits_BC = forward.logits_of(model, hidden_BD[index], columns_C)
        random = [self.random[row][step] for row in asking]
        random_B = torch.tensor(random, device=model.device)
        drawn_B = columns_C[decode.choose(logits_BC, random_B, 1.0)]
        for row, token in zip(asking, drawn_B.tolist(), strict=True):
            self.completions[row][step] = token
