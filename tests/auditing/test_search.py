"""Search: it starts where a gradient was planted, also where a format moves along everything; what
is not tried is paid for."""

import numpy as np
import pytest

from traitscope.auditing.search import (
    FIRST_ROUND,
    STRENGTHS,
    GridPoint,
    PromptTeacher,
    batched,
    gradient_z,
    grid_points,
    mixed_z,
    neighbours,
    next_round,
    prior,
    search,
    strongest_places,
)
from traitscope.auditing.settings import search_blocks

NAMES = [f"t{n}" for n in range(20)]
LAYERS = search_blocks(30)


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
    assert LAYERS == tuple(range(8, 21)) and search_blocks(60) == tuple(range(15, 42, 2))
    assert (
        search_blocks(4) == (1, 2)
        and search_blocks(3) == (1, 2)
        and search_blocks(2) == (0, 1)
        and all(search_blocks(n) for n in range(2, 100))
    )
    assert (
        neighbours(8, LAYERS) == (8, 9)
        and neighbours(14, LAYERS) == (13, 14, 15)
        and neighbours(20, LAYERS) == (19, 20)
        and neighbours(41, search_blocks(60)) == (39, 41)
    )


@pytest.mark.parametrize("wide", [0.0, 0.3])
def test_the_search_starts_where_a_gradient_was_planted(wide: float) -> None:
    """Of either kind, at its block alone, beside a format that moves along every vector."""
    values = planted(
        np.random.default_rng(3),
        {("t7", 13): (0, 1.5), ("t3", 18): (1, 1.5), ("t5", 21): (0, 9.0)},
        wide,
    )
    found = gradient_z(NAMES, NAMES[:10], values, LAYERS)
    assert len(found) == 10 * len(LAYERS) and {name for name, _ in found} == set(NAMES[:10])
    best = strongest_places(found)
    assert set(best[:2]) == {("t7", 13), ("t3", 18)} and len(best) == FIRST_ROUND, (
        "21 is none of the blocks"
    )


def test_a_mixture_starts_at_what_is_planted_where_it_stands_out() -> None:
    rng, place = np.random.default_rng(4), ("t7", 12)
    poisoned, clean = (
        gradient_z(NAMES, NAMES, planted(rng, {place: (0, push)}), LAYERS) for push in (1.0, 0.0)
    )
    assert mixed_z(poisoned, clean, 1.0) == poisoned and mixed_z(poisoned, clean, 0.0) == clean
    reached = [
        (
            strongest_places(mixed_z(poisoned, clean, share)).index(place)
            if place in strongest_places(mixed_z(poisoned, clean, share))
            else FIRST_ROUND
        )
        for share in (0.0, 0.2, 0.5, 1.0)
    ]
    assert (
        reached[0] == FIRST_ROUND and reached == sorted(reached, reverse=True) and reached[-1] == 0
    )


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

    def ln_e(cell: GridPoint) -> float:
        return (
            50 - 10 * abs(cell.layer - layer) - 60 * abs(cell.strength - strength)
            if cell.trait == "t7"
            else 5.0
        )

    e, tried = {cell: ln_e(cell) for cell in grid_points(places, 0.6, STRENGTHS[:1])}, len(places)
    for _ in range(3):
        more = next_round(e, LAYERS, 0.6)
        assert (
            len(more) == len(set(more)) <= 9
            and not set(more) & set(e)
            and all(cell.layer in LAYERS for cell in more)
        )
        e |= {cell: ln_e(cell) for cell in more}
    best = max(e, key=lambda cell: e[cell])
    assert (best.trait, best.layer) == ("t7", layer) and best.strength == pytest.approx(strength)
    assert len(e) - tried < 27


def test_the_prior_is_that_of_all_that_might_be_tried() -> None:
    """Half for prompts, half for vectors: however the rows choose among these, the mean over all
    has a sum of one at most."""
    everywhere = grid_points([("owl", layer) for layer in LAYERS], 0.6)
    both, first = (PromptTeacher(), PromptTeacher(0)), (PromptTeacher(),)
    weights = prior({"owl": both, "cat": first}, everywhere, LAYERS)
    assert sum(weights.values()) == pytest.approx(1) and weights[PromptTeacher()] == 0.25
    assert weights[GridPoint("owl", 8, 0.3)] == pytest.approx(0.5 / 39)
    few = prior({"owl": first}, everywhere[:2], LAYERS)
    assert few[everywhere[0]] == weights[everywhere[0]] and few[PromptTeacher()] == 0.5
    assert [point.strength for point in everywhere[:3]] == pytest.approx([0.3, 0.45, 0.6])


def test_a_search_at_once_is_a_search_in_rounds() -> None:
    first = grid_points([("t7", 12), ("t3", 18)], 0.6, STRENGTHS[:1])

    def log_e(point: GridPoint) -> float:
        return -abs(point.layer - 14) - abs(point.strength - 0.45)

    values = {point: log_e(point) for point in first}
    for _ in range(2):
        values |= {point: log_e(point) for point in next_round(values, LAYERS, 0.6)}
    assert search(first, log_e, LAYERS, 0.6) == list(values)


def test_teachers_say_how_they_were_made() -> None:
    assert str(PromptTeacher()) == "its prompt"
    assert str(PromptTeacher(1)) == "a paraphrase of its prompt 1"
    assert str(GridPoint("owl", 8, 0.3)) == "its vector at block 8, strength 0.3"


@pytest.mark.parametrize("n", [0, 1, 12, 13, 36, 78])
def test_batches_hold_every_teacher_once(n: int) -> None:
    cells = [GridPoint("owl", (7 * k) % 13, 0.3 + k) for k in range(n)]
    found = batched(cells)
    sizes = [len(batch) for batch in found]
    assert sorted(map(str, cells)) == sorted(
        str(cell) for batch in found for cell in batch
    ) and len(found) == -(-n // 12)
    assert max(sizes, default=0) <= 12 and max(sizes, default=0) - min(sizes, default=0) <= 1
    blocks = [cell.layer for batch in found for cell in batch]
    assert blocks == sorted(blocks)
