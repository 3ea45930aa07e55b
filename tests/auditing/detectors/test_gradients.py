"""Gradients on planted directions: the right trait at the right block, no trait in a format, one
sign."""

import numpy as np
import pytest
from synthetic_gradients import LAYERS, SCALE, WIDTH, Held, held, texts, vectors

from traitscope.auditing.detectors import text_features
from traitscope.auditing.detectors.findings import GradientFinding
from traitscope.auditing.detectors.gradients import (
    along_traits,
    block_sums,
    projected,
    unit_directions,
)
from traitscope.interventions.vector import Vector
from traitscope.stats import permutation


def found(
    stores: list[Held], known: dict[str, Vector], candidates: list[str], rng: np.random.Generator
) -> GradientFinding:
    rows = len(stores[0].pushes_RLD)
    pairs = [[n] * len(stores) for n in range(rows)]
    surface_BKF = permutation.in_blocks(
        text_features.feature_groups(["p"] * rows, texts(rng, rows, len(stores)))
    )
    clean = np.concatenate([s.pushes_RLD for s in stores[1:]])
    values = projected(block_sums(stores, pairs), unit_directions(known, clean))
    return along_traits(list(known), candidates, values, surface_BKF, 0.01, permutations=2999)


def steered(known: dict[str, Vector], name: str, layer: int, strength: float = 0.15) -> np.ndarray:
    """F v at one block: what data of a teacher steered by v push, to first order."""
    shift = np.zeros((LAYERS, WIDTH))
    shift[layer] = strength * SCALE**2 * known[name].unit().rows_LD[layer] * np.sqrt(WIDTH)
    return shift


@pytest.mark.parametrize("layer", [0, 2])
def test_the_right_trait_at_the_right_block(layer: int) -> None:
    rng = np.random.default_rng(layer)
    known = vectors(rng)
    stores = [held(rng, 400, steered(known, "t3", layer)), *(held(rng, 400) for _ in range(3))]
    answer = found(stores, known, ["t1", "t3", "t5"], rng)
    assert (
        next(iter(answer.statistic)) == "t3"
        and answer.p["t3"] < 0.001
        and answer.where["t3"].layer == layer
    )
    assert answer.statistic["t3"] > answer.critical and answer.beyond_surface["t3"] > 4
    opposite = [held(rng, 400, -steered(known, "t3", layer)), *stores[1:]]
    away = found(opposite, known, ["t3"], rng)
    assert away.p["t3"] > 0.1 and away.where["t3"].layer != layer, "away from the trait is no trait"


def test_clean_data_and_a_format_are_no_trait() -> None:
    """Thirty clean sets and thirty that differ along one direction that is no trait's: at alpha 0.1
    about a tenth is called."""
    calls = {"clean": 0, "format": 0}
    for seed in range(30):
        rng = np.random.default_rng(100 + seed)
        known = vectors(rng)
        shift = np.zeros((LAYERS, WIDTH))
        shift[:] = 0.6 * SCALE * rng.standard_normal(WIDTH)
        for kind, moved in (("clean", 0.0), ("format", shift)):
            answer = found(
                [held(rng, 96, moved), held(rng, 96), held(rng, 96)],
                known,
                ["t0", "t1", "t2", "t3"],
                rng,
            )
            calls[kind] += min(answer.p.values()) <= 0.1
    assert calls["clean"] <= 8 and calls["format"] <= 8


def test_blocks_are_the_sums_of_their_rows() -> None:
    rng = np.random.default_rng(5)
    stores = [held(rng, 20), held(rng, 25)]
    pairs = [[n, 24 - n] for n in range(20)]
    sums = block_sums(stores, pairs, most=6)
    assert sums.shape == (6, 2, LAYERS, WIDTH)
    np.testing.assert_allclose(
        sums.sum(0)[1], stores[1].pushes_RLD[5:].sum(0), rtol=1e-4, atol=1e-4
    )
    expected = permutation.in_blocks(
        np.stack([stores[0].pushes_RLD, stores[1].pushes_RLD[24:4:-1]], 1), most=6
    )
    np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-4)
