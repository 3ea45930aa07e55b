"""Calibration: the error rate holds for any values, planted shifts are found, formats do not pass
for traits."""

from itertools import product

import numpy as np
import pytest

from traitscope.errors import DataError
from traitscope.stats.permutation import (
    genomic_control_factor,
    in_blocks,
    largest_of,
    whitened,
    z_scores,
)


def null(rng: np.random.Generator, rows: int, k: int, features: int) -> np.ndarray:
    """Skewed, correlated values with an effect of the prompt: nothing that a normal law would
    need."""
    prompt = 5 * rng.standard_normal((rows, 1, features))
    common = rng.exponential(1, (rows, k, 1)) ** 2
    return prompt + common + 0.3 * rng.exponential(1, (rows, k, features))


def test_error_rate_of_clean_data() -> None:
    """Of 400 clean sets, 10 % and no more are called at alpha 0.1, over 30 correlated features:
    within 99.9 % of binomial."""
    rng = np.random.default_rng(0)
    smallest = [
        largest_of(in_blocks(null(rng, 24, 3, 30)), permutations=199, seed=n).p_F.min()
        for n in range(400)
    ]
    found = np.mean(np.array(smallest) <= 0.1)
    assert abs(found - 0.1) < 3.3 * np.sqrt(0.1 * 0.9 / 400)


def test_all_permutations_of_few_rows_are_the_oracle() -> None:
    """With three prompts and two rows each, p tends to the share among all eight permutations."""
    values = np.random.default_rng(1).standard_normal((3, 2, 4))
    sums = in_blocks(values, seed=3)
    centred = sums - sums.mean(1, keepdims=True)
    spread = np.sqrt((centred**2).mean(1).sum(0))
    every = np.array(
        [
            sum(centred[b, k] for b, k in enumerate(choice)) / spread
            for choice in product(range(2), repeat=3)
        ]
    )
    found = largest_of(sums, permutations=40_000)
    share = [(every.max(1) >= z - 1e-9).mean() for z in found.z_F]
    assert np.allclose(found.z_F, every[0]) and np.allclose(found.p_F, share, atol=0.01)


def test_a_shift_is_found_in_its_feature_only() -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal((200, 4, 20))
    values[:, 0, 7] += 0.5
    found = largest_of(in_blocks(values, most=64))
    assert found.p_F[7] < 0.001 and np.delete(found.p_F, 7).min() > 0.05
    assert found.z_F[7] > found.critical(0.01) > found.critical(0.05)


def test_blocks_keep_the_sums() -> None:
    values = np.random.default_rng(3).standard_normal((50, 3, 2))
    sums = in_blocks(values, most=7)
    assert sums.shape == (7, 3, 2) and np.allclose(sums.sum(0), values.sum(0))
    assert np.array_equal(in_blocks(values, most=7), sums) and in_blocks(values).shape[0] == 50


def test_z_does_not_see_units_or_prompts() -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal((30, 3, 5))
    moved = 1000 * rng.standard_normal((30, 1, 5)) + values * np.array([1, 10, 0.1, 3, 1e6])
    assert np.allclose(z_scores(in_blocks(moved)), z_scores(in_blocks(values)), rtol=1e-6)
    assert (z_scores(np.ones((4, 3, 2))) == 0).all()
    same = np.full((50, 3, 1), 9 / 39) + 1e-17 * rng.standard_normal((50, 3, 1))
    assert (z_scores(in_blocks(same, most=7)) == 0).all(), "rounding is no variation"


@pytest.mark.parametrize("shape", [(0, 3, 2), (5, 1, 2)])
def test_no_groups(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected at least one prompt and two rows"):
        in_blocks(np.zeros(shape))


def pushes(rng: np.random.Generator, rows: int, k: int, width: int = 24) -> np.ndarray:
    """Pushes [R, K, 2, D] with a covariance that is far from round."""
    scale = np.linspace(3, 0.2, width)
    return rng.standard_normal((rows, k, 2, width)) * scale


def test_genomic_control_factor_is_a_median() -> None:
    """Of 21 traits one that moves by 30, and two near it, leave it near 1; all that move by 5 do
    not."""
    z = np.random.default_rng(9).standard_normal((200, 21))
    one, all_ = z.copy(), 5 * z
    one[:, 0], one[:, 1:3] = 30, 8
    assert (
        genomic_control_factor(z).mean() == pytest.approx(1.08, abs=0.08)
        and genomic_control_factor(one).mean() < 1.35
    )
    assert (
        genomic_control_factor(all_).mean() == pytest.approx(5.05, abs=0.35)
        and (genomic_control_factor(z) >= 1).all()
    )


def test_a_format_is_no_trait_once_deflated() -> None:
    """Data that differ along one random direction: traits in other directions are called without
    control, not with it."""
    rng = np.random.default_rng(6)
    called = {"plain": 0, "controlled": 0}
    for n in range(60):
        data = pushes(rng, 64, 3)[:, :, :1]
        data[:, 0, 0] += 1.0 * rng.standard_normal(24) * np.linspace(3, 0.2, 24)
        sums = in_blocks(data, seed=n)
        traits = rng.standard_normal((24, 20)) * np.linspace(3, 0.2, 24)[:, None]
        features = sums[:, :, 0] @ traits
        called["plain"] += largest_of(features, permutations=199, seed=n).p_F[0] <= 0.05
        called["controlled"] += (
            largest_of(
                features, genomic_control_factor(z_scores(features)[None]), permutations=199, seed=n
            ).p_F[0]
            <= 0.05
        )
    assert called["plain"] > 15 and called["controlled"] <= 8


def test_whitening_recovers_the_planted_vector() -> None:
    """Data steered by v push along F v: the whitened push points to v, the raw one does not."""
    rng = np.random.default_rng(7)
    clean = (rng.standard_normal((4000, 24)) * np.linspace(3, 0.2, 24)).astype(np.float32)
    vectors = rng.standard_normal((5, 24))
    push = np.cov(clean.T) @ vectors[2]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    back = whitened(push[None], clean, ridge=1e-3)[0]
    assert back @ unit[2] > 0.99 > push / np.linalg.norm(push) @ unit[2] + 0.1
    turned = whitened(
        vectors, clean, ridge=1e-3
    )  # symmetric: projecting on F⁻¹ v ranks the vectors alike
    assert np.argmax(turned @ push) == 2
    assert np.allclose(np.linalg.norm(turned, axis=1), 1)
