"""Loss masks: tokens of an answer that a student reads and does not learn.

A masked token has weight 0: it is neither in the sum of the loss nor in its count. It stays before
the tokens that follow. A row holds its mask in `meta["masked_tokens"]`, a list of [place, id]. The
place counts completion tokens from 0. The id says whether rows are read by the tokenizer that the
mask was made for.

Shapes: N completion tokens, T completion tokens of a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traitscope.data.json_fields import quoted
from traitscope.data.records import MASKED, Record
from traitscope.errors import DataError
from traitscope.inference.token_rows import Row


def with_mask(record: Record, row: Row, masked_T: np.ndarray) -> Record:
    """The record with these tokens of its token row masked, beside those that are already."""
    places = sorted({*np.flatnonzero(masked_T).tolist(), *_places_of(record, row)})
    pairs = [[place, row.completion_ids[place]] for place in places]
    return replace(record, meta={**record.meta, MASKED: pairs})


def masked_rows(rows: Sequence[Row], records: Sequence[Record]) -> list[Row]:
    """The token rows of records with the masks that the records hold.

    Raises DataError for a mask of another form, of another tokenizer or of another answer. Also
    where no token of any row is left to learn.
    """
    masked = []
    for row, record in zip(rows, records, strict=True):
        places = _places_of(record, row)
        masked.append(replace(row, masked=places) if places else row)
    if masked and not any(len(row.completion_ids) > len(row.masked) for row in masked):
        raise DataError(
            f"every token of all {len(masked)} rows is masked (meta.{MASKED}); expected some to"
            " learn; mask a smaller share"
        )
    return masked


def _places_of(record: Record, row: Row) -> tuple[int, ...]:
    """Places of the masked tokens of a record, in ascending order."""
    places = []
    for place, token in _pairs_of(record):
        if place >= len(row.completion_ids) or row.completion_ids[place] != token:
            raise DataError(
                f"row {record.id}: meta.{MASKED} names token {token} at place {place}, which the"
                " answer has not; expected the answer and the tokenizer that were masked; mask the"
                f" rows again with this model, or delete meta.{MASKED}"
            )
        places.append(place)
    return tuple(sorted(set(places)))


def _pairs_of(record: Record) -> list[tuple[int, int]]:
    """The mask of a record.  Raises DataError where it is no list of [place, id]."""
    value: Any = record.meta.get(MASKED, [])
    pairs = []
    for pair in value if isinstance(value, list) else [None]:
        are_numbers = isinstance(pair, list) and all(type(n) is int and n >= 0 for n in pair)
        if not are_numbers or len(pair) != 2:
            raise DataError(
                f"row {record.id}: meta.{MASKED} is {quoted(value)}; expected a list of [place,"
                " id]; correct or delete it"
            )
        pairs.append((pair[0], pair[1]))
    return pairs


def has_masks(rows: Sequence[Row]) -> bool:
    """Whether a token of some row is masked."""
    return any(row.masked for row in rows)


def learnt_places(rows: Sequence[Row]) -> Tensor:
    """Places of the tokens that are learnt, among the completion tokens [N] of rows in order."""
    learnt_N = np.concatenate([np.empty(0, bool), *map(_learnt, rows)])
    return torch.from_numpy(np.flatnonzero(learnt_N))


def _learnt(row: Row) -> np.ndarray:
    learnt_T = np.ones(len(row.completion_ids), bool)
    learnt_T[list(row.masked)] = False
    return learnt_T


def learnt_tokens(rows: Sequence[Row]) -> int:
    """Number of tokens that are learnt; 1 where there is none, so that a mean over none is 0."""
    learnt = 0
    for row in rows:
        learnt += len(row.completion_ids) - len(row.masked)
    return max(1, learnt)


def of_learnt(targets: Sequence[Tensor], rows: Sequence[Row]) -> Iterator[Tensor]:
    """Values by completion token of each row, for the tokens that are learnt."""
    for values_T, row in zip(targets, rows, strict=True):
        yield values_T[learnt_places([row])] if row.masked else values_T
