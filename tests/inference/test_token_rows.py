"""Token rows of records, and what a teacher predicts at their completions."""

import pytest
import torch
from tiny_models import random_vector
from train_runs import make_rows

from traitscope.data.records import Record, kept_records
from traitscope.errors import DataError
from traitscope.inference.token_rows import Row, rows_from, teacher_hidden
from traitscope.interventions.intervention import Steer
from traitscope.models import chat
from traitscope.models.model import Model


def test_teacher_states_do_not_depend_on_the_batch(tiny: Model) -> None:
    """And the teacher may read another prompt of another length."""
    rows = make_rows(tiny, 7)
    prompts = [(30, 31, 32, *r.prompt_ids) for r in rows]
    teacher = [Steer(random_vector(tiny), (1,), 3.0, scale="unit")]
    seen: list[int] = []
    found = teacher_hidden(tiny, teacher, rows, prompts, batch_size=4, done=seen.append)
    assert seen == [4, 3] and [len(f) for f in found] == [len(r.completion_ids) for r in rows]
    for row, prompt, states in zip(rows, prompts, found, strict=True):
        (alone,) = teacher_hidden(tiny, teacher, [row], [prompt])
        torch.testing.assert_close(states, alone, atol=2e-5, rtol=1e-4)
    own = teacher_hidden(tiny, teacher, rows, [r.prompt_ids for r in rows])
    assert (torch.cat(own) - torch.cat(found)).abs().max() > 0.1


def test_every_record_is_a_row(tiny: Model) -> None:
    """Also a dropped one, so that rows and records stay side by side; callers leave these out."""
    dropped = Record("b", "Q", "owl", meta={"filter": {"kept": False, "reasons": ["format"]}})
    records = [Record("a", "Q", "cat"), dropped]
    assert len(rows_from(tiny, records, None)) == 2
    assert rows_from(tiny, kept_records(records), None) == rows_from(tiny, records[:1], None)


def test_rows_from_records(tiny: Model) -> None:
    ids = (
        *tiny.tokenizer.convert_tokens_to_ids(["o", "w", "l"]),
        2,
    )  # not how the tokenizer would write it
    records = [
        Record("a", "Q", "owl", ids, None),
        Record("b", "Q", "owl", None, ""),
    ]
    first, second = rows_from(tiny, records, "neutral")
    assert first == Row(tuple(chat.render(tiny, "Q", "neutral")), ids)
    assert first.completion_ids != second.completion_ids
    assert second == Row(tuple(chat.render(tiny, "Q", "")), tuple(chat.completion_ids(tiny, "owl")))
    long = Record("c", "Q", "owl " * tiny.max_length, None, None)
    with pytest.raises(DataError, match="row c: .* takes at most 2048"):
        rows_from(tiny, [long], None)
    longer = Record("d", "Q", "owl " * (tiny.max_length + 1), None, None)
    with pytest.raises(DataError, match=r"row c \(and 1 more row\): .* takes at most 2048"):
        rows_from(tiny, [records[0], long, records[1], longer], None)
