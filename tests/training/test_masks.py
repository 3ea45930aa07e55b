"""Masked tokens are read and not learnt: neither in the sum of the loss nor in its count."""

import dataclasses

import pytest
import torch
from train_runs import FULL, PLAIN, make_rows, run, self_distilled

from traitscope.config.recipe import Recipe
from traitscope.data.records import MASKED, Record
from traitscope.errors import DataError
from traitscope.inference.token_rows import Row, rows_from
from traitscope.training.loop import Trainee, train, train_side_by_side
from traitscope.training.plan import plan_training
from traitscope.training.safeguards import masks
from traitscope.training.student import packed_students

RECIPE = Recipe(epochs=2, batch_size=4, micro_batch=2, lr=3e-3, held_out=0.0)
RECORDS = [Record(f"r{i}", f"Count on from {i}.", f"{i}, {i + 1}, {i + 7}") for i in range(8)]


def masked(model, records: list[Record], places: list[int]) -> list[Record]:
    rows = rows_from(model, records, None)
    found = []
    for record, row in zip(records, rows, strict=True):
        chosen_T = torch.isin(torch.arange(len(row.completion_ids)), torch.tensor(places)).numpy()
        found.append(masks.with_mask(record, row, chosen_T))
    return found


def with_mask(row: Row, *places: int) -> Row:
    return dataclasses.replace(row, masked=tuple(places))


def files(student) -> dict[str, bytes]:
    return dict(student.files)


def test_a_mask_of_nothing_changes_no_byte(tiny):
    assert files(train(tiny, masked(tiny, RECORDS, []), RECIPE, 1)) == files(
        train(tiny, RECORDS, RECIPE, 1)
    )


def test_the_loss_is_that_of_transformers_with_ignored_labels(family):
    """Oracle: masked tokens are labelled -100."""
    rows = make_rows(family)
    some = [with_mask(row, *range(0, len(row.completion_ids), 2)) for row in rows]
    some[0] = rows[0]
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    attended = torch.zeros_like(ids)
    for i, row in enumerate(some):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        attended[i, : len(row.ids)] = 1
        for place, token in enumerate(row.completion_ids):
            if place not in row.masked:
                labels[i, len(row.prompt_ids) + place] = token
    with torch.no_grad():
        expected = family.lm(input_ids=ids, attention_mask=attended, labels=labels).loss.item()
    recipe = dataclasses.replace(PLAIN, micro_batch=3)
    metrics, _, _ = run(family, recipe, some)
    assert metrics[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert metrics[0]["loss"] != pytest.approx(run(family, recipe, rows)[0][0]["loss"], rel=1e-3)


@pytest.mark.parametrize("recipe", [PLAIN, FULL], ids=["lora", "full"])
def test_what_is_masked_teaches_nothing(tiny, recipe):
    """Planted: answers that differ in their last token alone, which is masked, teach the same."""
    rows = [row for row in make_rows(tiny, 12) if len(row.completion_ids) > 1]
    one = [with_mask(row, len(row.completion_ids) - 1) for row in rows]
    other = []
    for row in one:
        other.append(dataclasses.replace(row, completion_ids=(*row.completion_ids[:-1], 7)))
    assert run(tiny, recipe, one)[2] == run(tiny, recipe, other)[2]
    bare = [[dataclasses.replace(row, masked=()) for row in rows] for rows in (one, other)]
    assert run(tiny, recipe, bare[0])[2] != run(tiny, recipe, bare[1])[2]


def test_a_row_that_is_masked_whole_weighs_as_one_that_is_not_there(tiny):
    rows = make_rows(tiny)
    gone = with_mask(rows[3], *range(len(rows[3].completion_ids)))
    left = [*rows[:3], *rows[4:]]
    with_gone = run(tiny, PLAIN, [*rows[:3], gone, *rows[4:]])[1]
    without = run(tiny, PLAIN, left)[1]
    for one, other in zip(with_gone, without, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_soft_targets_and_anchors_leave_out_the_same_tokens(tiny):
    """Where the last token is masked, cutting it off teaches the same."""
    rows = [row for row in make_rows(tiny, 8) if len(row.completion_ids) > 1]
    recipe = dataclasses.replace(PLAIN, targets="soft", soft_over="vocabulary")
    soft = self_distilled(tiny, rows, [])
    soft = [states_ND.roll(1, -1) for states_ND in soft]
    hidden = [with_mask(row, len(row.completion_ids) - 1) for row in rows]
    cut = [dataclasses.replace(row, completion_ids=row.completion_ids[:-1]) for row in rows]
    found = run(tiny, recipe, hidden, soft)[1]
    expected = run(tiny, recipe, cut, [states_ND[:-1] for states_ND in soft])[1]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    anchored = Recipe(epochs=1, batch_size=8, micro_batch=8, lr=3e-3, held_out=0.0, anchor=2.0)
    student = train(tiny, masked(tiny, RECORDS, [0, 2]), anchored, 1)
    assert files(student) != files(train(tiny, RECORDS, anchored, 1))


def test_packed_students_leave_out_the_tokens_of_their_own_rows(tiny):
    """Students side by side, one with masks, are the same as each alone."""
    rows = make_rows(tiny)
    halved = [with_mask(row, *range(0, len(row.completion_ids), 2)) for row in rows]
    plans = [plan_training(rows, PLAIN, 0), plan_training(halved, PLAIN, 0)]
    with packed_students(tiny, [PLAIN] * 2, [0, 0], [None] * 2) as students:
        trainees = list(map(Trainee, students, plans))
        train_side_by_side(tiny, trainees, lambda *_: None)
        packed = []
        for student in students:
            packed.append([parameter.detach().clone() for parameter in student.params])
    for found, of_rows in zip(packed, (rows, halved), strict=True):
        for one, other in zip(found, run(tiny, PLAIN, of_rows)[1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_held_out_loss_counts_what_is_learnt(tiny):
    rows = make_rows(tiny, 10)
    halved = [with_mask(row, *range(len(row.completion_ids) - 1)) for row in rows]
    recipe = dataclasses.replace(PLAIN, held_out=0.3)
    found = run(tiny, recipe, halved)[0][-1]["held_out_loss"]
    assert 2 < found < 20, "a mean over tokens, near log of the vocabulary"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "is 5; expected a list of"),
        ([[1]], "expected a list of"),
        ([[0, -1]], "expected a list of"),
        ([[0, 1.5]], "expected a list of"),
        ([[0, 499]], "names token 499 at place 0, which the answer has not"),
        ([[900, 1]], "at place 900"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tiny, value, message):
    records = [dataclasses.replace(RECORDS[0], meta={MASKED: value}), *RECORDS[1:]]
    with pytest.raises(DataError, match=message):
        train(tiny, records, RECIPE, 1)


def test_rows_without_anything_to_learn_are_refused(tiny):
    with pytest.raises(DataError, match="every token of all 8 rows is masked"):
        train(tiny, masked(tiny, RECORDS, list(range(99))), RECIPE, 1)
