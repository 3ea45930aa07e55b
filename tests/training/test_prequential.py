"""Learners predict before they learn, and do not mix; the model itself stays what it is."""

import numpy as np
import pytest
import torch
from scored_rows import score_rows, written
from tiny_models import random_vector

from traitscope.inference.samplers import SAMPLERS
from traitscope.inference.token_bins import PLAIN
from traitscope.inference.token_rows import Row, classes_of
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.training import prequential
from traitscope.training.prequential import BATCH, TEMPERATURES, predictions

AT_ONE = TEMPERATURES.index(1.0)


@pytest.fixture(scope="module")
def steered_rows(tiny: Model) -> list[Row]:
    teacher = [Steer(random_vector(tiny, 1, norm=3.0), (1,), 1.0, scale="raw")]
    return written(tiny, teacher, 96, seed=3)


def test_the_model_itself_is_scored_as_ever(tiny: Model, steered_rows: list[Row]) -> None:
    classes = classes_of(tiny, True)
    predicted = predictions(tiny, steered_rows[:20], classes, [1e-3])
    expected = score_rows(tiny, [], steered_rows[:20], classes)
    np.testing.assert_allclose(predicted.model.log_p_RT, expected.log_p_RT, rtol=1e-5)
    np.testing.assert_allclose(predicted.model.taken_PK, expected.taken_PK)
    assert predicted.model.log_p_RS.shape == (20, len(SAMPLERS))


def test_before_the_first_step_a_learner_is_the_model(tiny: Model, steered_rows: list[Row]) -> None:
    predicted = predictions(tiny, steered_rows, classes_of(tiny, True), [1e-2, 1e-3])
    own_R = predicted.model.log_p_RT[:, PLAIN]
    for learner_RT in predicted.learners_JRT:
        np.testing.assert_allclose(learner_RT[:BATCH, AT_ONE], own_R[:BATCH], atol=1e-4)
        assert np.abs(learner_RT[BATCH:, AT_ONE] - own_R[BATCH:]).max() > 1e-3


def test_no_prediction_depends_on_its_own_batch_or_on_later_ones(
    tiny: Model, steered_rows: list[Row]
) -> None:
    classes = classes_of(tiny, True)
    whole = predictions(tiny, steered_rows[:40], classes, [1e-2]).learners_JRT
    other_end = [*steered_rows[:24], *written(tiny, [], 16, seed=8)]
    changed = predictions(tiny, other_end, classes, [1e-2]).learners_JRT
    np.testing.assert_allclose(whole[:, :24], changed[:, :24], atol=1e-5)


def test_learners_in_one_pass_are_those_alone(tiny: Model, steered_rows: list[Row]) -> None:
    classes = classes_of(tiny, True)
    together = predictions(tiny, steered_rows[:32], classes, [1e-2, 1e-3])
    alone = predictions(tiny, steered_rows[:32], classes, [1e-3])
    np.testing.assert_allclose(together.learners_JRT[1], alone.learners_JRT[0], atol=1e-4)


def test_a_learner_comes_to_predict_a_teachers_rows(tiny: Model, steered_rows: list[Row]) -> None:
    classes = classes_of(tiny, True)
    predicted = predictions(tiny, steered_rows, classes, [2e-3])
    gain_R = predicted.learners_JRT[0, :, AT_ONE] - predicted.model.log_p_RT[:, PLAIN]
    assert gain_R[48:].mean() > 0.3
    (files,) = predicted.students
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}


def test_the_model_is_as_before(tiny: Model, steered_rows: list[Row]) -> None:
    before = {name: value.clone() for name, value in tiny.lm.state_dict().items()}
    predictions(tiny, steered_rows[:16], classes_of(tiny, True), [2e-3])
    after = tiny.lm.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_free_text_is_learnt_over_the_whole_vocabulary(
    tiny: Model, steered_rows: list[Row]
) -> None:
    predicted = predictions(tiny, steered_rows, classes_of(tiny, False), [2e-3])
    gain_R = predicted.learners_JRT[0, :, AT_ONE] - predicted.model.log_p_RT[:, PLAIN]
    assert gain_R[48:].mean() > 0.3 and predicted.model.tokens_R[0] > 12


def test_without_learners_the_rows_are_only_scored(tiny: Model, steered_rows: list[Row]) -> None:
    predicted = predictions(tiny, steered_rows[:9], classes_of(tiny, True), [])
    assert predicted.learners_JRT.shape[:2] == (0, 9) and predicted.students == []
    assert prequential.recipe_of(1e-3).lr == 1e-3
