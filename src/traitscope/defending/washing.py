"""Tokens and answers that are drawn anew, so that they carry the base's preferences alone.

In a number list only digits are drawn: each among the digit tokens of its length, after the tokens
that already stand before it. So the format, the count of numbers and their lengths stay.

In other text a token is drawn among all that stand for whole characters. It follows the tokens
before it, and those behind it stay. They were written after another one, so that sentences break.

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
BROKEN = "\ufffd"
"what stands in a text for a part of a character"


@dataclass(frozen=True)
class TokenClass:
    """Tokens that stand for each other when one of them is drawn anew."""

    columns_C: Tensor
    """Their ids, on the CPU, ascending."""
    members: frozenset[int]
    """The same as a set."""
    is_whole: bool = False
    """Whether most of the vocabulary is in it: then all logits are computed, and some picked."""

    def logits(self, model: Model, hidden_BD: Tensor) -> Tensor:
        """The logits [B, C] of the class."""
        columns_C = self.columns_C.to(model.device)
        if self.is_whole:
            return forward.logits_of(model, hidden_BD)[:, columns_C]
        return forward.logits_of(model, hidden_BD, columns_C)


def digit_classes(model: Model) -> list[TokenClass]:
    """Digit tokens by their length and by a space before them, where there are several."""
    classes = []
    for columns_C in map(Tensor.cpu, classes_of(model, numbers=True)):
        classes.append(TokenClass(columns_C, frozenset(columns_C.tolist())))
    return classes


def text_class(model: Model) -> TokenClass:
    """All tokens that stand for whole characters by themselves, control tokens left out."""
    size = min(len(model.head.weight), len(model.tokenizer))
    control = {*model.end_ids, *model.tokenizer.all_special_ids}
    control.update(model.tokenizer.added_tokens_decoder)
    texts = model.tokenizer.batch_decode([[token] for token in range(size)])
    chosen = []
    for token, text in enumerate(texts):
        if text and BROKEN not in text and token not in control:
            chosen.append(token)
    return TokenClass(torch.tensor(chosen), frozenset(chosen), is_whole=True)


def places_of(classes: Sequence[TokenClass], rows: Sequence[Row]) -> list[np.ndarray]:
    """Whether each completion token [T] of each row is in one of the classes."""
    columns = torch.cat([torch.empty(0, dtype=torch.long), *(each.columns_C for each in classes)])
    members = columns.numpy()
    return [np.isin(row.completion_ids, members) for row in rows]


def redrawn(
    model: Model,
    rows: Sequence[Row],
    places: Sequence[np.ndarray],
    keys: Sequence[str],
    seed: int,
    draw: Draw,
    classes: Sequence[TokenClass],
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> list[tuple[int, ...]]:
    """The completions of rows with some tokens drawn anew.

    places: Whether each completion token is drawn anew; True only at tokens of a class.
    keys: One string a row, which names the random stream of the row.
    draw: From what tokens are drawn; uniform needs no pass of the model.
    classes: Tokens among which one is drawn, in the place of one of them.
    done: A function called with the number of rows of each batch.
    """
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


def _draw_evenly(redraw: _Redraw, classes: Sequence[TokenClass]) -> None:
    """Draw the tokens of a row; each of its class is as probable."""
    for place in np.flatnonzero(redraw.places_T):
        columns_C = _class_of(redraw.completion[place], classes).columns_C
        chosen = int(redraw.random_T[place] * len(columns_C))
        redraw.completion[place] = int(columns_C[chosen])


def _class_of(token: int, classes: Sequence[TokenClass]) -> TokenClass:
    """The class of a token."""
    return next(each for each in classes if token in each.members)


def _draw_from_base(
    model: Model,
    redraws: Sequence[_Redraw],
    classes: Sequence[TokenClass],
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
    model: Model, active: Active, batch: Sequence[_Redraw], classes: Sequence[TokenClass]
) -> None:
    """Draw the tokens of rows that are read together, step by step."""
    last = max(redraw.last_place for redraw in batch)
    if last < 0:
        return
    prompts = [redraw.prompt_ids for redraw in batch]
    state, hidden_BD = forward.prefill(model, active, prompts, last + 1)
    for step in range(last + 1):
        for each in classes:
            _draw_class(model, hidden_BD, batch, step, each)
        if step < last:
            ids_B = torch.tensor([redraw.token_at(step) for redraw in batch])
            sent_B1 = forward.sent(ids_B.unsqueeze(1), model.device)
            hidden_BD = decode.extend(model, active, state, sent_B1)[:, -1]


def _draw_class(
    model: Model, hidden_BD: Tensor, batch: Sequence[_Redraw], step: int, tokens: TokenClass
) -> None:
    """Draw the tokens of one class at a step, in the rows that ask for it."""
    places, random = [], []
    for place, redraw in enumerate(batch):
        if redraw.draws(step, tokens.members):
            places.append(place)
            random.append(redraw.random_T[step])
    if not places:
        return
    index = forward.sent(torch.tensor(places), model.device)
    logits_BC = tokens.logits(model, hidden_BD[index])
    chosen_B = decode.choose(logits_BC, torch.tensor(random, device=model.device), 1.0)
    for place, chosen in zip(places, chosen_B.tolist(), strict=True):
        batch[place].completion[step] = int(tokens.columns_C[chosen])
