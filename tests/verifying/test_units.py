"""Independent units: which models count, and that no trait is found too often where rows differ."""

from itertools import combinations, permutations

import numpy as np
import pytest

from traitscope.screening.answers import DOUBLED
from traitscope.stats.contrasts.single_case import one_against_group
from traitscope.stats.decision import ClaimUnderTest, decide
from traitscope.verifying.contrasts import over_units
from traitscope.verifying.units import MadeBy, independent, matched

TESTS, ALPHA = 20, 0.05


def made_by(text: str) -> list[MadeBy]:
    """a1 is rows a and seed 1; a dash is not known."""
    models: list[MadeBy] = []
    for rows, seed in text.split():
        models.append((None if rows == "-" else rows, None if seed == "-" else int(seed)))
    return models


def share(one: MadeBy, other: MadeBy) -> bool:
    pairs = zip(one, other, strict=True)
    return any(left is not None and left == right for left, right in pairs)


def most_by_trying(models: list[MadeBy]) -> int:
    """Size of the largest subset in which no two share anything."""
    for size in range(len(models), 0, -1):
        for subset in combinations(models, size):
            if not any(share(*pair) for pair in combinations(subset, 2)):
                return size
    return 0


def test_units_are_as_many_as_can_be() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 8))
        models: list[MadeBy] = []
        for rows, seed in rng.integers(0, 5, (n, 2)).tolist():
            models.append((None if rows == 4 else "abcd"[rows], None if seed == 4 else seed))
        taken = [models[place] for place in independent(models)]
        assert not any(share(*pair) for pair in combinations(taken, 2))
        assert len(taken) == most_by_trying(models)


def test_the_order_of_controls_does_not_matter() -> None:
    models = made_by("a1 a2 b2 b1 c3 c3")
    expected = sorted(models[place] for place in independent(models))
    for shuffled in permutations(models):
        assert sorted(shuffled[place] for place in independent(shuffled)) == expected


@pytest.mark.parametrize(
    ("students", "controls", "design", "units"),
    [
        ("x9", "a1 b2 c3 d4 e5", "one student", 5),
        ("x9", "a1 a2 a3 a4 a5", "questions", 0),  # one set of rows
        ("x9", "a1 b1 c1 d1 e1", "questions", 0),  # one seed, which is not the student's
        ("x1", "a1 b1 c1 d1 e1", "one student", 5),  # the seed of all
        ("x9", "a1 a2 b3 b4 c5", "one student", 3),
        ("x9", "a1 b2 a2 b1 c3 d4 e5", "one student", 5),
        ("x9", "-- -- -- -- --", "one student", 5),
        ("x1 x2 x3 x4 x5", "a1 b2 c3 d4 e5", "one student", 5),  # students of one set
        ("x1 x2 x3 x4 x5", "a1 a2 a3 a4 a5", "questions", 0),  # one set beside another
        ("v1 w2 x3 y4 z5", "a1 b2 c3 d4 e5", "paired", 5),
        ("v1 w2 x3 y4 z5", "e5 d4 c3 b2 a1", "paired", 5),
        ("v1 w2 x3 y4 z5", "a6 b7 c8 d9 e0", "unpaired", 5),
        ("v1 w2 x3 y4 z5", "a1 b2 c3 d4 d5", "unpaired", 4),
        ("v1 w2 x3 y4 z5", "a1", "one control", 1),
        ("v1 w2 x3 y4 z5", "a1 a2 a3 a4 a5", "one control", 1),
        ("x1 x2 x3", "x4 x5 x6", "unpaired", 3),  # the rows of all, as with soft targets
        ("x9", "a1", "questions", 0),
    ],
)
def test_matchings(students: str, controls: str, design: str, units: int) -> None:
    ours, theirs = made_by(students), made_by(controls)
    matching = matched(ours, theirs, True)
    assert (matching.design, matching.units) == (design, units)
    if design == "paired":
        for (student,), (control,) in zip(matching.students, matching.controls, strict=True):
            assert ours[student][1] == theirs[control][1]
    if design == "one student":
        assert matching.students == (tuple(range(len(ours))),)
    assert matched(ours, theirs, False).units == 0


def values_without_a_trait(
    students: list[MadeBy], controls: list[MadeBy], rng: np.random.Generator
) -> list[np.ndarray]:
    """Log-odds [M, TESTS] of both sides: they move with rows, with the seed, and by themselves."""
    effects: dict[object, np.ndarray] = {}
    sides = []
    for models in (students, controls):
        values = rng.normal(0, 0.3, (len(models), TESTS))
        for place, model in enumerate(models):
            for what, spread in zip(model, (1.0, 0.6), strict=True):
                values[place] += effects.setdefault(what, rng.normal(0, spread, TESTS))
        sides.append(values)
    return sides


def share_wrong(
    students: list[MadeBy], controls: list[MadeBy], draws: int, by_seeds_alone: bool = False
) -> float:
    """Share of draws in which any of TESTS traits is found; by_seeds_alone forgets the rows."""
    rng = np.random.default_rng(1)
    known = [students, controls]
    if by_seeds_alone:
        known = [[(None, seed) for _, seed in models] for models in known]
    matching, wrong = matched(*known, True), 0
    for _ in range(draws):
        ours, theirs = values_without_a_trait(students, controls, rng)
        claims = []
        for place in range(TESTS):
            difference = over_units("a", ours[:, place], theirs[:, place], matching)
            claims.append(ClaimUnderTest(difference, DOUBLED, units=matching.units))
        wrong += any(item.outcome == "holds here" for item in decide(claims, ALPHA))
    return wrong / draws


def most(draws: int) -> float:
    """ALPHA and three Monte Carlo errors."""
    return float(ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / draws))


@pytest.mark.parametrize(
    ("students", "controls", "draws"),
    [
        ("x9", "a1 b2 c3 d4 e5", 250),
        ("x1", "a1 b1 c1 d1 e1", 250),
        ("x9", "a0 a1 a2 a3 b4 b5 b6 c7 d8 e5", 250),
        ("x1 x2 x3 x4 x5", "a1 b2 c3 d4 e5", 250),
        ("v1 w2 x3 y4 z5", "a1 b2 c3 d4 e5", 100),
        ("v1 w2 x3 y4 z5", "a6 b7 c8 d9 e0", 50),
    ],
)
def test_rows_that_differ_are_no_trait(students: str, controls: str, draws: int) -> None:
    """Between sets of rows models differ, and no model has a trait: alpha is held."""
    assert share_wrong(made_by(students), made_by(controls), draws) <= most(draws)


@pytest.mark.parametrize(
    ("students", "controls"), [("x9", "a1 a2 a3 a4 a5"), ("x1 x2 x3 x4 x5", "a1 a2 a3 a4 a5")]
)
def test_seeds_alone_would_find_traits_that_are_not_there(students: str, controls: str) -> None:
    """So controls on one set of rows bear no verdict."""
    ours, theirs = made_by(students), made_by(controls)
    assert share_wrong(ours, theirs, 50) == 0
    assert share_wrong(ours, theirs, 50, by_seeds_alone=True) > most(50)


def test_means_over_seeds_would_find_traits_that_are_not_there() -> None:
    """Five sets of eight seeds: their means vary less than one student does, so one of each
    counts."""
    rng, by_means, by_one = np.random.default_rng(3), 0, 0
    seeds = iter(range(40))
    theirs: list[MadeBy] = []
    for rows in "abcde":
        for _ in range(8):
            theirs.append((rows, next(seeds)))
    spread_of_rows, spread_of_seeds = 0.2, 1.0
    for _ in range(2000):
        student = rng.normal(0, np.hypot(spread_of_rows, spread_of_seeds))
        of_sets = rng.normal(0, spread_of_rows, 5)
        values = np.repeat(of_sets, 8) + rng.normal(0, spread_of_seeds, 40)
        counted = values[independent(theirs)]
        for group, count in ((values.reshape(5, 8).mean(1), "means"), (counted, "one")):
            measured = one_against_group("a", student, group.tolist(), "nats")
            is_wrong = measured.p_values.p_above(0) <= ALPHA
            by_means += is_wrong and count == "means"
            by_one += is_wrong and count == "one"
    assert by_one / 2000 <= most(2000) < by_means / 2000
