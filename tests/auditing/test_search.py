"""Search: it starts where a gradient was planted, and nowhere else; what is not tried is paid
for."""

import numpy as np
import pytest

from traitscope.auditing.search import (
    FINALISTS,
    FIRST_ROUND,
    LEAST_Z,
    STRENGTHS,
    GridPoint,
    PromptTeacher,
    batched,
    finalists,
    first_round,
    gradient_z,
    grid_points,
    mixed_z,
    neighbours,
    next_round,
    prior,
    strongest_places,
)
from traitscope.auditing.settings import search_blocks
from traitscope.interventions.vector import Vector

NAMES = [f"t{n}" for n in range(20)]
LAYERS = search_blocks(30)
DIM = 48
WIDTHS = np.linspace(0.5, 2.0, DIM)
"how wide the gradients of clean rows are, by direction"


def vectors(rng: np.random.Generator, names: list[str] = NAMES) -> dict[str, Vector]:
    """A vector of unit rows for every name."""
    found = {}
    for name in names:
        rows_LD = rng.standard_normal((30, DIM)).astype(np.float32)
        rows_LD /= np.linalg.norm(rows_LD, axis=1, keepdims=True)
        found[name] = Vector(rows_LD, "digest", {})
    return found


def planted(
    rng: np.random.Generator, pushes: dict[tuple[str, int], np.ndarray], n: int = 128
) -> np.ndarray:
    """Gradients [R, L, D] of noise that is wider in some directions, plus a push [D] by place."""
    found = rng.standard_normal((n, 30, DIM)) * WIDTHS
    for (_, layer), push in pushes.items():
        found[:, layer] += push
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


def test_the_search_starts_where_a_gradient_was_planted() -> None:
    """A push along a vector, or along what the Fisher matrix makes of it, at its block alone."""
    rng = np.random.default_rng(3)
    known = vectors(rng)
    pushes = {
        ("t7", 13): 1.2 * known["t7"].rows_LD[13],
        ("t3", 18): 1.2 * WIDTHS**2 * known["t3"].rows_LD[18],
        ("t5", 21): 9.0 * known["t5"].rows_LD[21],
    }
    found = gradient_z(planted(rng, pushes), known, LAYERS)
    assert len(found) == len(NAMES) * len(LAYERS)
    best = strongest_places(found)
    assert set(best[:2]) == {("t7", 13), ("t3", 18)}, "21 is none of the blocks"
    assert all(found[place] >= LEAST_Z for place in best) and len(best) <= FIRST_ROUND
    assert first_round(found, 0.6)[0] == GridPoint(*best[0], 0.3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_gradients_of_a_few_rows_give_numbers_and_no_warning(n: int) -> None:
    """One row has no error, and half of two rows has no covariance."""
    known = vectors(np.random.default_rng(3), NAMES[:2])
    found = gradient_z(planted(np.random.default_rng(4), {}, n), known, LAYERS)
    assert np.isfinite(list(found.values())).all() and len(found) == 2 * len(LAYERS)
    assert (n > 1) == any(found.values())


def test_gradients_that_point_nowhere_start_no_search() -> None:
    """Of 40 clean sets few try anything: under the model itself the mean gradient is zero."""
    rng = np.random.default_rng(5)
    known = vectors(rng, NAMES[:8])
    tried = 0
    for _ in range(40):
        tried += bool(strongest_places(gradient_z(planted(rng, {}), known, LAYERS)))
    assert tried < 20


def test_a_mixture_starts_at_what_is_planted_where_it_stands_out() -> None:
    rng, place = np.random.default_rng(4), ("t7", 12)
    known = vectors(rng)
    push = {place: 1.5 * known["t7"].rows_LD[12]}
    poisoned = gradient_z(planted(rng, push), known, LAYERS)
    clean = gradient_z(planted(rng, {}), known, LAYERS)
    assert mixed_z(poisoned, clean, 1.0) == poisoned and mixed_z(poisoned, clean, 0.0) == clean
    reached = []
    for share in (0.0, 0.5, 1.0):
        best = strongest_places(mixed_z(poisoned, clean, share))
        reached.append(best.index(place) if place in best else FIRST_ROUND)
    assert reached == sorted(reached, reverse=True) and reached[-1] == 0


def test_the_best_teachers_are_scored_on_all_rows() -> None:
    points = grid_points([("t7", layer) for layer in LAYERS[:8]], 0.6, STRENGTHS[:1])
    log_e = dict(zip(points, [3.0, -1.0, 5.0, 0.5, 2.0, 4.0, -9.0, 1.0], strict=True))
    kept = finalists(log_e)
    assert [log_e[point] for point in kept] == [5.0, 4.0, 3.0, 2.0] and len(kept) == FINALISTS
    assert finalists({points[0]: -0.5}) == []


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
