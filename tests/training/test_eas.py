"""EAS: a cosine by layer, over a probe whose base is measured once."""

from collections.abc import Iterator

import numpy as np
import pytest
from tiny_models import random_vector

from traitscope.errors import VectorError
from traitscope.inference import residuals
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import Vector
from traitscope.models.model import Model
from traitscope.training import eas as eas_module
from traitscope.training.eas import ShiftMeter, eas, number_probe, rounded


@pytest.fixture(autouse=True)
def no_base_is_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known = eas_module._base_means.copy()
    eas_module._base_means.clear()
    yield
    eas_module._base_means.clear()
    eas_module._base_means.update(known)


def test_it_is_the_cosine_at_each_layer(tiny: Model) -> None:
    one, other = random_vector(tiny, 1), random_vector(tiny, 2)
    expected = []
    for one_D, other_D in zip(one.rows_LD, other.rows_LD, strict=True):
        expected.append(one_D @ other_D / np.linalg.norm(one_D) / np.linalg.norm(other_D))
    np.testing.assert_allclose(eas(one, other), expected, atol=1e-6)
    assert rounded(np.array([1 / 3, -1.0])) == [0.333333, -1.0]


def test_vectors_of_other_models_are_refused(tiny: Model) -> None:
    vector = random_vector(tiny)
    foreign = Vector(vector.rows_LD, "0123456789abcdef")
    with pytest.raises(VectorError, match="different models"):
        eas(vector, foreign)


def test_a_steered_model_goes_along_its_vector(tiny: Model) -> None:
    vector = random_vector(tiny)
    meter = ShiftMeter(tiny, number_probe(tiny, 4, None))
    with applied(tiny, [Steer(vector, (1,), 2.0, scale="unit")]) as active:
        v_student = meter.v_student(active)
    assert eas(v_student, vector)[1] > 0.999
    assert v_student.about["prompts"] == "4 number prompts"


def test_the_base_is_measured_once_and_few_are_kept(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    whole = residuals.mean_residuals

    def counting(*args: object, **kwargs: object) -> tuple:
        measured.append(args)
        return whole(*args, **kwargs)

    monkeypatch.setattr(residuals, "mean_residuals", counting)
    first = number_probe(tiny, 1, None)
    for _ in range(3):
        ShiftMeter(tiny, first)
    assert len(measured) == 1
    for n_prompts in range(2, eas_module._BASES_KEPT + 2):
        ShiftMeter(tiny, number_probe(tiny, n_prompts, None))
    assert len(eas_module._base_means) == eas_module._BASES_KEPT
    ShiftMeter(tiny, first)
    assert len(measured) == eas_module._BASES_KEPT + 2, "the oldest base was dropped"
