"""Aiming: a planted push is aimed at, also where a format pushes along everything; what is not tried is paid for."""

import numpy as np
import pytest

from traitscope.aiming import BEST, MOST, Cell, aims, around, beside, cells, first, grid, mixture, pulls, weights

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
    assert LAYERS == tuple(range(8, 21)) and grid(60) == tuple(range(15, 42, 2))
    assert grid(4) == (1, 2) and grid(3) == (1, 2) and grid(2) == (0, 1) and all(grid(n) for n in range(2, 100))
    assert beside(8, LAYERS) == (8, 9) and beside(14, LAYERS) == (13, 14, 15) and beside(20, LAYERS) == (19, 20) and beside(41, grid(60)) == (39, 41)


@pytest.mark.parametrize("wide", [0.0, 0.3])
def test_a_planted_push_is_aimed_at(wide: float) -> None:
    """Of either kind, at its block alone, and beside a format that pushes along every vector."""
    values = planted(np.random.default_rng(3), {("t7", 13): (0, 1.5), ("t3", 18): (1, 1.5), ("t5", 21): (0, 9.0)}, wide)
    found = pulls(NAMES, NAMES[:10], values, LAYERS)
    assert len(found) == 10 * len(LAYERS) and {name for name, _ in found} == set(NAMES[:10])
    best = aims(found)
    assert set(best[:2]) == {("t7", 13), ("t3", 18)} and len(best) == MOST, "21 is none of the blocks"


def test_a_mixture_aims_at_what_is_planted_where_it_stands_out() -> None:
    rng, place = np.random.default_rng(4), ("t7", 12)
    poisoned, clean = (pulls(NAMES, NAMES, planted(rng, {place: (0, push)}), LAYERS) for push in (1.0, 0.0))
    assert mixture(poisoned, clean, 1.0) == poisoned and mixture(poisoned, clean, 0.0) == clean
    reached = [aims(mixture(poisoned, clean, share)).index(place) if place in aims(mixture(poisoned, clean, share)) else MOST for share in (0.0, 0.2, 0.5, 1.0)]
    assert reached[0] == MOST and reached == sorted(reached, reverse=True) and reached[-1] == 0


def test_the_second_round_goes_around_the_likeliest_of_the_first() -> None:
    """A teacher of which the first round has a neighbour at half its strength is tried itself; nothing is tried twice."""
    places = [("t7", 12), ("t3", 18), ("t7", 14), ("t5", 20), ("t2", 9)]
    tried = first(places, 0.6)
    assert [(cell.trait, cell.layer) for cell in tried] == places and {cell.strength for cell in tried} == {0.3}
    e = dict(zip(tried, (40.0, -3.0, 39.0, 1.0, -9.0), strict=True))
    more = around(e, LAYERS, 0.6)
    assert Cell("t7", 13, 0.6) in more and not set(more) & set(tried) and len(more) == len(set(more))
    assert {(cell.trait, cell.layer) for cell in more} == {*(("t7", n) for n in range(11, 16)), ("t5", 19), ("t5", 20)}
    assert len(more) == 2 * 7 - BEST, "both strengths everywhere, but the half where it was tried"


def test_weights_are_those_of_all_that_might_be_tried() -> None:
    """Half for prompts, half for vectors: however the rows choose among these, the mean over all has a sum of one at most."""
    everywhere = cells([("owl", layer) for layer in LAYERS], 0.6)
    found = weights({"owl": ["its prompt", "in other words"], "cat": ["its prompt"]}, everywhere, LAYERS)
    assert sum(found.values()) == pytest.approx(1) and found["its prompt"] == 0.25 and found[str(Cell("owl", 8, 0.3))] == 0.5 / 26
    few = weights({"owl": ["its prompt"]}, everywhere[:2], LAYERS)
    assert few[str(everywhere[0])] == found[str(everywhere[0])] and few["its prompt"] == 0.5
    assert [cell.strength for cell in everywhere[:2]] == [0.3, 0.6]
