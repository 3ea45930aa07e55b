"""Simulated data with seeds and questions as crossed factors, and a check of coverage."""

import numpy as np
import scipy.stats as scipy_stats


def crossed(n_seeds: int, n_questions: int) -> tuple[list[int], list[int]]:
    return (
        np.repeat(range(n_seeds), n_questions).tolist(),
        np.tile(range(n_questions), n_seeds).tolist(),
    )


def random_effects(
    rng: np.random.Generator,
    n_seeds: int,
    n_questions: int,
    sd_seed: float,
    sd_question: float,
    sd_row: float,
) -> np.ndarray:
    seeds = rng.normal(0, sd_seed, (n_seeds, 1))
    return (
        seeds
        + rng.normal(0, sd_question, n_questions)
        + rng.normal(0, sd_row, (n_seeds, n_questions))
    )


def assert_covers(hits: int, repeats: int, level: float = 0.95, slack: float = 0.0) -> None:
    """Observed coverage is one that `level` (give or take `slack`) makes likely: 99.9 % of binomial
    outcomes."""
    lowest = scipy_stats.binom.ppf(0.0005, repeats, level - slack)
    highest = scipy_stats.binom.ppf(0.9995, repeats, level + slack)
    assert lowest <= hits <= highest, f"coverage {hits / repeats:.3f}, expected {level}"
