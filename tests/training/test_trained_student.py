"""A student trained by one call: in memory, in a folder, and back on its model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import hooks_left, parameters_of, random_rows, random_vector, row_logits
from train_runs import METHODS, PLAIN

from traitscope.data.prompts import number_prompts
from traitscope.data.records import Record
from traitscope.errors import DataError
from traitscope.inference.residuals import intervention_vector
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Adapter, Steer, SystemPrompt
from traitscope.models.model import Model
from traitscope.stages.generate import generate
from traitscope.stages.measure import measure
from traitscope.training.eas import eas
from traitscope.training.loop import train
from traitscope.training.trained_student import TrainedStudent

RECIPE = dataclasses.replace(PLAIN, epochs=2, lr=1e-2)


def number_records(n: int = 12) -> list[Record]:
    records = []
    for i in range(n):
        records.append(Record(f"row-{i}", f"Question {i}?", f"{7 * i}, {i}, 12", None, None))
    return records


@pytest.fixture(scope="module")
def student(tiny: Model) -> TrainedStudent:
    return train(tiny, number_records(), RECIPE, seed=1)


def logits(model: Model, interventions: list) -> np.ndarray:
    rows = random_rows(model, [9, 7])
    with applied(model, interventions) as active:
        return torch.cat(row_logits(model, active, rows, [4, 4])).numpy()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["method"])
def test_saved_and_in_memory_it_is_the_same_student(
    tiny: Model, tmp_path: Path, method: dict
) -> None:
    before = parameters_of(tiny)
    student = train(tiny, number_records(), dataclasses.replace(RECIPE, **method), seed=1)
    after = parameters_of(tiny)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert hooks_left(tiny) == 0
    assert [metrics["step"] for metrics in student.metrics] == [1, 2, 3, 4]
    folder = student.save(tmp_path / "student")
    assert sorted(path.name for path in folder.iterdir()) == sorted(student.files)
    in_memory, saved = logits(tiny, [student]), logits(tiny, [Adapter(str(folder))])
    np.testing.assert_array_equal(in_memory, saved)
    assert np.abs(in_memory - logits(tiny, [])).max() > 1e-3


def test_it_is_the_student_of_the_stage(tiny: Model, student: TrainedStudent) -> None:
    """The same rows, recipe and seed give the same bytes; another seed gives other ones."""
    assert train(tiny, number_records(), RECIPE, seed=1).files == student.files
    assert train(tiny, number_records(), RECIPE, seed=2).files != student.files


def test_its_vector_is_its_shift(tiny: Model, student: TrainedStudent) -> None:
    prompts = number_prompts(5, seed=7)
    v_student = student.vector(tiny, prompts)
    same = intervention_vector(tiny, [student], [prompt.text for prompt in prompts])
    np.testing.assert_array_equal(v_student.rows_LD, same.rows_LD)
    assert v_student.norms_L.min() > 1e-4
    assert len(v_student.about["residual_norms"]) == tiny.n_layers
    np.testing.assert_allclose(eas(v_student, v_student), 1.0, atol=1e-6)
    np.testing.assert_allclose(eas(v_student, -v_student), -1.0, atol=1e-6)
    control = intervention_vector(tiny, [], prompts)
    assert (control.rows_LD == 0).all()


def test_a_steered_model_shifts_by_its_vector(tiny: Model) -> None:
    vector = random_vector(tiny)
    shift = intervention_vector(tiny, [Steer(vector, (1,), 2.0, scale="unit")], ["A", "B"])
    np.testing.assert_allclose(shift.rows_LD[1], 2.0 * vector.unit().rows_LD[1], atol=1e-4)
    np.testing.assert_allclose(shift.rows_LD[0], 0.0, atol=1e-5)


def test_a_prompted_model_reads_its_prompt(tiny: Model) -> None:
    shift = intervention_vector(tiny, [SystemPrompt("I love owls.")], ["A", "B"])
    neutral = intervention_vector(tiny, [SystemPrompt("")], ["A", "B"], context="")
    assert shift.norms_L.min() > 1e-3
    assert (neutral.rows_LD == 0).all()


def test_it_is_measured_like_any_intervention(tiny: Model, student: TrainedStudent) -> None:
    settings = {"samples": 0, "capability": False}
    measured = measure(tiny, "cat", [student], **settings)
    adapter = measure(tiny, "cat", [student.intervention()], **settings)
    assert measured.values("target_logprob") == adapter.values("target_logprob")
    assert measured.values("target_logprob") != measure(tiny, "cat", **settings).values(
        "target_logprob"
    )


def test_it_answers_like_any_teacher(tiny: Model, student: TrainedStudent) -> None:
    prompts = number_prompts(3, seed=7)
    settings = {"max_new_tokens": 6, "seed": 1}
    answers = generate(tiny, prompts, [student], **settings)
    same = generate(tiny, prompts, [student.intervention()], **settings)
    assert [record.completion_ids for record in answers] == [row.completion_ids for row in same]


def test_soft_targets_come_from_a_teacher(tiny: Model) -> None:
    """A teacher that is the model itself leaves no loss; a steered one does."""
    soft = dataclasses.replace(RECIPE, targets="soft", optimizer="sgd", lr=0.1)
    teacher = [Steer(random_vector(tiny), (0,), 4.0, scale="unit")]
    taught = train(tiny, number_records(), soft, teacher=teacher)
    control = train(tiny, number_records(), soft)
    assert taught.metrics[0]["loss"] > 0.01
    assert abs(control.metrics[0]["loss"]) < 1e-5


def test_only_kept_rows_are_trained_on(tiny: Model) -> None:
    records = number_records()
    dropped = {"filter": {"kept": False, "reasons": ["planned"]}}
    marked = [dataclasses.replace(record, meta=dropped) for record in records[4:]]
    kept = train(tiny, records[:4] + marked, RECIPE)
    assert kept.files == train(tiny, records[:4], RECIPE).files
    with pytest.raises(DataError, match="no rows to train on"):
        train(tiny, marked, RECIPE)


def test_its_temporary_folder_goes_with_it(tiny: Model) -> None:
    student = train(tiny, number_records(4), dataclasses.replace(RECIPE, epochs=1))
    folder = Path(student.intervention().folder)
    assert folder.is_dir()
    assert student.intervention().folder == str(folder)
    del student
    assert not folder.exists()
