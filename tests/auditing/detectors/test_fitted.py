"""Fitted vectors: one trained on the data points along its trait."""

import numpy as np
from synthetic_gradients import LAYERS, WIDTH, vectors

from traitscope.auditing.detectors.fitted import nearest_traits


def test_a_vector_trained_on_the_data_points_along_its_trait_and_one_of_clean_rows_along_none() -> (
    None
):
    """What all rows of numbers train is in the placebos' vectors, too, and cancels."""
    rng = np.random.default_rng(5)
    known, common, called = vectors(rng), 3 * rng.standard_normal(WIDTH), []

    def trained(*more: np.ndarray) -> np.ndarray:
        rows_LD = np.zeros((LAYERS, WIDTH))
        rows_LD[1] = common + rng.standard_normal(WIDTH) + sum(more)
        return rows_LD

    for _ in range(40):
        found = nearest_traits(
            [trained(0.5 * np.sqrt(WIDTH) * known["t7"].unit().rows_LD[1]), trained(), trained()],
            known,
        )
        assert (
            next(iter(found.statistic)) == "t7"
            and found.p["t7"] < 0.01
            and found.where["t7"] == "block 1"
        )
        called.append(
            min(nearest_traits([trained(), trained(), trained()], known).p.values()) < 0.05
        )
    assert np.mean(called) <= 0.2
