"""Which models are independent units, and how the two sides are matched: labels in, places out.

A trained model varies by its rows and by its seed:

    value = mean + of these rows + of this seed + of both together

Controls on one set of rows show nothing of what another set would do. So of the models of a side
that share rows or a seed, one counts: a unit shares neither with any other. What every model of
both sides shares cancels in the difference, so it does not count.

One student stands beside controls that each vary as it does. So controls are not averaged over
seeds: means of several vary less than one student, and would find traits that are not there.
Several students of one set of rows are averaged. They vary less than the controls, which errs on
the safe side.

    paired         equal seeds on both sides, and as many units as models on each
    unpaired       two units or more on either side
    one student    the mean of the students against several units
    one control    several units against the mean of the controls
    questions      one unit on either side, or no controls
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Design = Literal["paired", "unpaired", "one student", "one control", "questions"]
MadeBy = tuple[str | None, int | None]
"""Set of rows and seed of a model; None where one is not known, or does not count."""
Units = tuple[tuple[int, ...], ...]
"""Places of the models of every unit."""


@dataclass(frozen=True)
class Matching:
    """How the two sides are matched."""

    design: Design
    """The kind of comparison."""
    students: Units
    """Units of the students; of pairs in the order of the controls."""
    controls: Units
    """Units of the controls, or the base."""

    @property
    def units(self) -> int:
        """Independent units behind a difference; 0 where nothing is known over models."""
        if self.design == "questions":
            return 0
        if self.design == "one student":
            return len(self.controls)
        return min(len(self.students), len(self.controls))


def matched(students: Sequence[MadeBy], controls: Sequence[MadeBy], has_controls: bool) -> Matching:
    """Return how students and controls are matched.

    has_controls: Whether there are any; else the base stands in their place.
    """
    all_students = (tuple(range(len(students))),)
    all_controls = (tuple(range(len(controls))),)
    if not has_controls:
        return Matching("questions", all_students, all_controls)
    students, controls = _without_common(students, controls)
    ours, theirs = independent(students), independent(controls)
    if len(ours) > 1 and len(theirs) > 1:
        if len(ours) == len(students) and len(theirs) == len(controls):
            pairs = _pairs(students, controls)
            if pairs:
                return Matching("paired", _alone(list(pairs)), _alone(list(pairs.values())))
        return Matching("unpaired", _alone(ours), _alone(theirs))
    if len(theirs) > 1:
        return Matching("one student", all_students, _alone(theirs))
    if len(ours) > 1:
        return Matching("one control", _alone(ours), all_controls)
    return Matching("questions", all_students, all_controls)


def independent(models: Sequence[MadeBy]) -> list[int]:
    """Return the places of the most models of which no two share rows or a seed.

    Which ones are taken depends on rows and seeds, and not on their order. What is not known is
    shared with nobody. Source: Kuhn 1955 (matching by augmenting paths).
    """
    seeds_of: dict[object, list[tuple[object, int]]] = defaultdict(list)
    for place in sorted(range(len(models)), key=lambda place: _in_order(models[place])):
        rows, seed = models[place]
        own = ("own", place)
        seeds_of[own if rows is None else rows].append((own if seed is None else seed, place))
    taken: dict[object, tuple[object, int]] = {}

    def take(rows: object, tried: set[object]) -> bool:
        for seed, place in seeds_of[rows]:
            if seed in tried:
                continue
            tried.add(seed)
            if seed not in taken or take(taken[seed][0], tried):
                taken[seed] = (rows, place)
                return True
        return False

    for of_rows in list(seeds_of):
        take(of_rows, set())
    return sorted(place for _, place in taken.values())


def _in_order(model: MadeBy) -> tuple[str, int]:
    rows, seed = model
    return rows or "", -1 if seed is None else seed


def _without_common(
    students: Sequence[MadeBy], controls: Sequence[MadeBy]
) -> tuple[list[MadeBy], list[MadeBy]]:
    """Both sides without the rows that all models share, or else without the seed."""
    everyone = [*students, *controls]
    first_rows, first_seed = everyone[0]
    is_one_set = first_rows is not None and all(rows == first_rows for rows, _ in everyone)
    is_one_seed = first_seed is not None and all(seed == first_seed for _, seed in everyone)
    sides = []
    for side in (students, controls):
        kept: list[MadeBy] = []
        for rows, seed in side:
            if is_one_set:
                kept.append((None, seed))
            else:
                kept.append((rows, None if is_one_seed else seed))
        sides.append(kept)
    return sides[0], sides[1]


def _pairs(students: Sequence[MadeBy], controls: Sequence[MadeBy]) -> dict[int, int]:
    """The control of every student by seed; nothing where their seeds are not the same ones."""
    by_seed: dict[int | None, int] = {}
    for place, (_, seed) in enumerate(controls):
        by_seed[seed] = place
    pairs = {}
    for place, (_, seed) in enumerate(students):
        if seed is not None and seed in by_seed:
            pairs[place] = by_seed[seed]
    return pairs if len(pairs) == len(students) == len(controls) else {}


def _alone(places: Sequence[int]) -> Units:
    """Units of one model each."""
    return tuple((place,) for place in places)
