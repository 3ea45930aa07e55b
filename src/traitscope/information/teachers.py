"""The teachers whose rows are compared, their kinds, and who writes which row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traitscope.config.analysis import InformationConfig
from traitscope.data import trait_files
from traitscope.data.trait_files import trait_names
from traitscope.data.traits import kind_of, load_trait
from traitscope.interventions import short_form
from traitscope.interventions.intervention import (
    Adapter,
    Intervention,
    Steer,
    SystemPrompt,
    WeightNoise,
)

BASE = "unmodified"
"Name of the teacher without interventions."
PLAIN = "plain prompt"
"Name of the teacher with a system prompt without a trait."
NEUTRAL = "neutral"
"Kind of these two."
GIVEN = "given"
"Kind of teachers that were given as interventions."


@dataclass(frozen=True)
class Teacher:
    """A model that could write the rows."""

    name: str
    """Name in tables; that of its trait, where its system prompt gives one."""
    kind: str
    """Question set of its trait, such as animals; NEUTRAL, or GIVEN."""
    interventions: tuple[Intervention, ...] = ()
    """What makes it of the base."""

    @property
    def has_trait(self) -> bool:
        """Whether it is prompted for a trait, and so belongs to a kind."""
        return self.kind not in (NEUTRAL, GIVEN)


def teachers_of(config: InformationConfig) -> list[Teacher]:
    """The base, the plain prompt, the prompted traits by kind, and the given interventions."""
    teachers = [Teacher(BASE, NEUTRAL)]
    if config.plain:
        teachers.append(Teacher(PLAIN, NEUTRAL, (SystemPrompt(config.plain),)))
    prompted = []
    for name in trait_names(config.traits):
        trait = load_trait(name)
        prompt = SystemPrompt(trait.teacher_prompt)
        prompted.append(Teacher(trait.name, kind_of(trait), (prompt,)))
    teachers += sorted(prompted, key=lambda teacher: (teacher.kind, teacher.name))
    seen = Counter(teacher.name for teacher in teachers)
    for item in short_form.parse_each(config.steered):
        name = _name_of(item)
        seen[name] += 1
        if seen[name] > 1:
            name = f"{name} ({seen[name]})"
        teachers.append(Teacher(name, GIVEN, (item,)))
    return teachers


def inputs(config: InformationConfig) -> dict[str, Path]:
    """The files behind the traits of a config, as inputs of its run."""
    return trait_files.trait_files(trait_names(config.traits))


def _name_of(item: Intervention) -> str:
    """A short name of a given teacher."""
    if isinstance(item, SystemPrompt):
        return f"prompt “{item.text}”"
    if isinstance(item, WeightNoise):
        return f"noise {item.sd:g}, seed {item.seed}"
    if isinstance(item, Adapter):
        return f"student {Path(item.folder).name}"
    if not isinstance(item, Steer):
        return short_form.to_short(item)
    layers = "+".join(map(str, item.layers))
    return f"{Path(str(item.vector)).stem}, steered {item.alpha:g} at {layers}"


def shares(teachers: Sequence[Teacher]) -> np.ndarray:
    """The part of the rows [K] that each teacher writes; they sum to 1.

    Every kind writes an equal part, and so does every given teacher. Teachers of one kind are near
    one another, so their rows serve each other. A far one needs rows of its own.
    """
    groups = []
    for teacher in teachers:
        groups.append(teacher.name if teacher.kind == GIVEN else teacher.kind)
    sizes = Counter(groups)
    return np.array([1 / (len(sizes) * sizes[group]) for group in groups])


def writers(share_K: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """The teacher [R] that writes each row, as a place in the list of teachers.

    Each row's writer is teacher k with probability `share_K[k]`. The numbers of rows differ from
    their expectation by less than one: systematic sampling, in random order.
    """
    rng = np.random.default_rng(seed)
    points = (np.arange(rows) + rng.random()) / rows
    places = np.searchsorted(np.cumsum(share_K), points, side="right")
    return rng.permutation(np.minimum(places, len(share_K) - 1))
