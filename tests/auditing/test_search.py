"""Aiming: a planted push is aimed at, also where a format pushes along everything; what is not
tried is paid for."""

import numpy as np
import pytest

from traitscope.auditing.search import (
    MOST,
    SHARES,
    Cell,
    aims,
    batched,
    beside,
    cells,
    climb,
    grid,
    mixture,
    pulls,
    weights,
)

NAMES = [f"t{n}" for n in range(20)]
LAYERS = grid(30)


def planted(
    rng: np.random.Generator, places: dict[tuple[str, int], tuple[int, float]], wide: float = 0.0
) -> np.ndarray:
    """Projections [B, K, L, T, J] of noise, with pushes of so many standard deviations at (trait,
    layer): (kind, push)."""
    found = rng.standard_normal((64, 4, 30, len(NAMES), 2))
    found[:, 0] += wide * rng.standard_normal((30, len(NAMES), 2))
    for (name, layer), (kind, push) in places.items():
        found[:, 0, layer, NAMES.index(name), kind] += push
    return found


def test_blocks_in_the_middle_are_possible() -> None:
    assert LAYERS == tuple(range(8, 21)) and grid(60) == tuple(range(15, 42, 2))
    assert (
        grid(4) == (1, 2)
        and grid(3) == (1, 2)
        and grid(2) == (0, 1)
        and all(grid(n) for n in range(2, 100))
    )
    assert (
        beside(8, LAYERS) == (8, 9)
        and beside(14, LAYERS) == (13, 14, 15)
        and beside(20, LAYERS) == (19, 20)
        and beside(41, grid(60)) == (39, 41)
    )


@pytest.mark.parametrize("wide", [0.0, 0.3])
def test_a_planted_push_is_aimed_at(wide: float) -> None:
    """Of either kind, at its block alone, and beside a format that pushes along every vector."""
    values = planted(
        np.random.default_rng(3),
        {("t7", 13): (0, 1.5), ("t3", 18): (1, 1.5), ("t5", 21): (0, 9.0)},
        wide,
    )
    found = pulls(NAMES, NAMES[:10], values, LAYERS)
    assert len(found) == 10 * len(LAYERS) and {name for name, _ in found} == set(NAMES[:10])
    best = aims(found)
    assert set(best[:2]) == {("t7", 13), ("t3", 18)} and len(best) == MOST, (
        "21 is none of the blocks"
    )


def test_a_mixture_aims_at_what_is_planted_where_it_stands_out() -> None:
    rng, place = np.random.default_rng(4), ("t7", 12)
    poisoned, clean = (
        pulls(NAMES, NAMES, planted(rng, {place: (0, push)}), LAYERS) for push in (1.0, 0.0)
    )
    assert mixture(poisoned, clean, 1.0) == poisoned and mixture(poisoned, clean, 0.0) == clean
    reached = [
        (
            aims(mixture(poisoned, clean, share)).index(place)
            if place in aims(mixture(poisoned, clean, share))
            else MOST
        )
        for share in (0.0, 0.2, 0.5, 1.0)
    ]
    assert reached[0] == MOST and reached == sorted(reached, reverse=True) and reached[-1] == 0


@pytest.mark.parametrize(
    ("layer", "strength"), [(13, 0.3), (13, 0.6), (15, 0.45), (20, 0.6), (8, 0.45)]
)
def test_further_rounds_climb_to_the_teacher(layer: int, strength: float) -> None:
    """From the strongest of the first round, which has none but the weakest and misses the block
    itself; nothing is tried twice."""
    places = [("t7", n) for n in LAYERS if abs(n - layer) == 1] + [
        ("t3", 18),
        ("t5", 20),
        ("t2", 9),
    ]

    def ln_e(cell: Cell) -> float:
        return (
            50 - 10 * abs(cell.layer - layer) - 60 * abs(cell.strength - strength)
            if cell.trait == "t7"
            else 5.0
        )

    e, tried = {cell: ln_e(cell) for cell in cells(places, 0.6, SHARES[:1])}, len(places)
    for _ in range(3):
        more = climb(e, LAYERS, 0.6)
        assert (
            len(more) == len(set(more)) <= 9
            and not set(more) & set(e)
            and all(cell.layer in LAYERS for cell in more)
        )
        e |= {cell: ln_e(cell) for cell in more}
    best = max(e, key=lambda cell: e[cell])
    assert (best.trait, best.layer) == ("t7", layer) and best.strength == pytest.approx(strength)
    assert len(e) - tried < 27


def test_weights_are_those_of_all_that_might_be_tried() -> None:
    """Half for prompts, half for vectors: however the rows choose among these, the mean over all
    has a sum of one at most."""
    everywhere = cells([("owl", layer) for layer in LAYERS], 0.6)
    found = weights(
        {"owl": ["its prompt", "in other words"], "cat": ["its prompt"]}, everywhere, LAYERS
    )
    assert (
        sum(found.values()) == pytest.approx(1)
        and found["its prompt"] == 0.25
        and found[str(Cell("owl", 8, 0.3))] == pytest.approx(0.5 / 39)
    )
    few = weights({"owl": ["its prompt"]}, everywhere[:2], LAYERS)
    assert few[str(everywhere[0])] == found[str(everywhere[0])] and few["its prompt"] == 0.5
    assert [cell.strength for cell in everywhere[:3]] == pytest.approx([0.3, 0.45, 0.6])


@pytest.mark.parametrize("n", [0, 1, 12, 13, 36, 78])
def test_batches_hold_every_teacher_once(n: int) -> None:
    cells = [Cell("owl", (7 * k) % 13, 0.3 + k) for k in range(n)]
    found = batched(cells)
    sizes = [len(batch) for batch in found]
    assert sorted(map(str, cells)) == sorted(
        str(cell) for batch in found for cell in batch
    ) and len(found) == -(-n // 12)
    assert max(sizes, default=0) <= 12 and max(sizes, default=0) - min(sizes, default=0) <= 1
    blocks = [cell.layer for batch in found for cell in batch]
    assert blocks == sorted(blocks)
