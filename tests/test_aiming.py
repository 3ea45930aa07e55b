"""Aiming: a planted push is aimed at, also where a format pushes along everything; what is not tried is paid for."""

import numpy as np
import pytest

from traitscope.aiming import MOST, Cell, aims, cells, grid, mixture, pulls, weights

NAMES = [f"t{n}" for n in range(20)]
LAYERS = grid(30)


def planted(rng: np.random.Generator, places: dict[tuple[str, int], tuple[int, float]], wide: float = 0.0) -> np.ndarray:
    """Projections [B, K, L, T, J] of noise, with pushes of so many standard deviations at (trait, layer): (kind, push)."""
    found = rng.standard_normal((64, 4, 30, len(NAMES), 2))
    found[:, 0] += wide * rng.standard_normal((30, len(NAMES), 2))
    for (name, layer), (kind, push) in places.items():
        found[:, 0, layer, NAMES.index(name), kind] += push
    return found


def test_blocks_in_the_middle_are_possible() -> None:
    assert LAYERS == (8, 10, 12, 14, 16, 18, 20)
    assert grid(4) == (1, 2, 3) and grid(2) == (0, 1) and len(grid(80)) < 10 and all(0 <= n < 80 for n in grid(80))


@pytest.mark.parametrize("wide", [0.0, 0.3])
def test_a_planted_push_is_aimed_at(wide: float) -> None:
    """Of either kind, at its block alone, and beside a format that pushes along every vector."""
    values = planted(np.random.default_rng(3), {("t7", 12): (0, 1.5), ("t3", 18): (1, 1.5), ("t5", 13): (0, 9.0)}, wide)
    found = pulls(NAMES, NAMES[:10], values, LAYERS)
    assert len(found) == 10 * len(LAYERS) and {name for name, _ in found} == set(NAMES[:10])
    best = aims(found)
    assert set(best[:2]) == {("t7", 12), ("t3", 18)} and len(best) == MOST, "13 is none of the blocks"


def test_a_mixture_aims_at_what_is_planted_where_it_stands_out() -> None:
    rng, place = np.random.default_rng(4), ("t7", 12)
    poisoned, clean = (pulls(NAMES, NAMES, planted(rng, {place: (0, push)}), LAYERS) for push in (1.0, 0.0))
    assert mixture(poisoned, clean, 1.0) == poisoned and mixture(poisoned, clean, 0.0) == clean
    reached = [aims(mixture(poisoned, clean, share)).index(place) if place in aims(mixture(poisoned, clean, share)) else MOST for share in (0.0, 0.2, 0.5, 1.0)]
    assert reached[0] == MOST and reached == sorted(reached, reverse=True) and reached[-1] == 0


def test_weights_are_those_of_all_that_might_be_tried() -> None:
    """Half for prompts, half for vectors: however the rows choose among these, the mean over all has a sum of one at most."""
    everywhere = cells([("owl", layer) for layer in LAYERS], 0.6)
    found = weights({"owl": ["its prompt", "in other words"], "cat": ["its prompt"]}, everywhere, LAYERS)
    assert sum(found.values()) == pytest.approx(1) and found["its prompt"] == 0.25 and found[str(Cell("owl", 8, 0.3))] == 0.5 / 14
    few = weights({"owl": ["its prompt"]}, everywhere[:2], LAYERS)
    assert few[str(everywhere[0])] == found[str(everywhere[0])] and few["its prompt"] == 0.5
    assert [cell.strength for cell in everywhere[:2]] == [0.3, 0.6]
