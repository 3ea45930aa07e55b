"""The files of a run of `information`: divergences, influence, tables and a page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from traitscope import atomic_files
from traitscope.data.traits import load_trait
from traitscope.information import divergences, influence_table
from traitscope.information.divergences import Readings
from traitscope.information.influence_table import Influence
from traitscope.information.teachers import BASE, Teacher
from traitscope.stats import square_tables
from traitscope.stats.measurement import Measurement

PAIRS, INFLUENCE, SUMMARY = "pairs.jsonl", "influence.jsonl", "summary.json"
OTHERS = "other traits"
"What a teacher is compared with: all other prompted teachers, one of them drawn at random."


@dataclass(frozen=True)
class Measured:
    """Everything that was measured, before it is written."""

    teachers: list[Teacher]
    """The teachers, in the order of all arrays."""
    readings: Readings
    """What they say of all rows."""
    exact: Readings | None
    """What they say of the first rows in float32."""
    vocabulary_KKX: np.ndarray | None
    """KL of every pair over the whole vocabulary, by exact row."""
    influence: Influence | None
    """Influence on the traits below."""
    traits: list[str]
    """Traits that influence was computed on, by name or file."""
    is_exact: bool
    """Whether all rows were read in float32, so that nothing is corrected."""

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray | None]:
        """KL of every pair over digits by row: of all rows, and of the exact ones."""
        exact = None
        if self.exact is not None and not self.is_exact:
            exact = divergences.pairs(self.exact)
        return divergences.pairs(self.readings), exact

    def place(self, name: str) -> int:
        """Place of a teacher."""
        return [teacher.name for teacher in self.teachers].index(name)

    def digits(self, a: int, b: int) -> Measurement:
        """KL of teacher a from teacher b over the digits."""
        all_KKR, exact_KKX = self.pairs
        name = f"{self.teachers[a].name} against {self.teachers[b].name}"
        return _estimated(name, all_KKR[a, b], None if exact_KKX is None else exact_KKX[a, b])

    def vocabulary(self, a: int, b: int) -> Measurement | None:
        """KL of teacher a from teacher b over the whole vocabulary; None where not computed."""
        if self.vocabulary_KKX is None:
            return None
        name = f"{self.teachers[a].name} against {self.teachers[b].name}, whole vocabulary"
        return divergences.mean_over_rows(name, self.vocabulary_KKX[a, b])

    def mixture(self, a: int, others: Sequence[int], label: str) -> Measurement:
        """KL over the digits of teacher a from a mixture of others."""
        exact_X = None
        if self.exact is not None and not self.is_exact:
            exact_X = divergences.against_mixture(self.exact, a, others)
        value_R = divergences.against_mixture(self.readings, a, others)
        return _estimated(f"{self.teachers[a].name} against {label}", value_R, exact_X)

    def against(self, a: int) -> dict[str, Measurement]:
        """The divergences of one teacher over the digits, by what it is compared with.

        The base, all other traits, and the other traits of its kind.
        """
        others, of_kind = [], []
        for place, teacher in enumerate(self.teachers):
            if place != a and teacher.has_trait:
                others.append(place)
                if teacher.kind == self.teachers[a].kind:
                    of_kind.append(place)
        by_label = {BASE: self.digits(a, self.place(BASE))}
        if others:
            by_label[OTHERS] = self.mixture(a, others, OTHERS)
        if of_kind:
            label = f"other {self.teachers[a].kind}"
            by_label[label] = self.mixture(a, of_kind, label)
        return by_label

    def influence_on_own(self, a: int) -> Measurement | None:
        """The standardised influence of a teacher's rows on its own trait, in z of one row."""
        names = [load_trait(name).name for name in self.traits]
        if self.influence is None or self.teachers[a].name not in names:
            return None
        b = names.index(self.teachers[a].name)
        name = f"{self.teachers[a].name}, influence on its trait"
        return self._jackknifed(
            name,
            float(self.influence.standardised()[a, b]),
            self.influence.without_each()[:, a, b],
            self._effective_rows([a]),
        )

    def specific_influence(self) -> list[Measurement]:
        """For every kind: the mean influence of teachers on their own trait, doubly centred."""
        if self.influence is None:
            return []
        table_KB = self.influence.standardised()
        without_RKB = self.influence.without_each()
        by_kind = []
        for kind, (rows, columns) in self._influenced_kinds().items():
            chosen = np.ix_(rows, columns)
            without = [_mean_diagonal(left_KB[chosen]) for left_KB in without_RKB]
            name = f"{kind}, influence on the own trait, doubly centred"
            estimate = _mean_diagonal(table_KB[chosen])
            effective = self._effective_rows(rows)
            by_kind.append(self._jackknifed(name, estimate, np.array(without), effective))
        return by_kind

    def permutation_p(self) -> dict[str, float]:
        """For every kind: p of the influence on own traits, with the trait as the unit."""
        if self.influence is None:
            return {}
        table_KB = self.influence.standardised()
        p_of_kind = {}
        for kind, (rows, columns) in self._influenced_kinds().items():
            p_of_kind[kind] = square_tables.permutation_p(table_KB[np.ix_(rows, columns)])
        return p_of_kind

    def _influenced_kinds(self) -> dict[str, tuple[list[int], list[int]]]:
        """Teachers and traits, as places, of every kind with influence on two traits or more."""
        names = [load_trait(name).name for name in self.traits]
        kinds: dict[str, tuple[list[int], list[int]]] = {}
        for place, teacher in enumerate(self.teachers):
            if teacher.has_trait and teacher.name in names:
                rows, columns = kinds.setdefault(teacher.kind, ([], []))
                rows.append(place)
                columns.append(names.index(teacher.name))
        return {kind: places for kind, places in kinds.items() if len(places[0]) > 1}

    def _effective_rows(self, teachers: Sequence[int]) -> float:
        """The effective rows behind the influence of the teacher, of some, that has the fewest."""
        readings = self.readings if self.exact is None else self.exact
        return float(divergences.effective_rows(readings)[list(teachers)].min())

    def _jackknifed(
        self, name: str, estimate: float, without_R: np.ndarray, effective: float
    ) -> Measurement:
        half = influence_table.jackknife_half_width(without_R)
        n = len(without_R)
        return Measurement(
            name=name,
            estimate=estimate,
            low=estimate - half,
            high=estimate + half,
            n=n,
            n_clusters=n,
            n_unscored=0,
            unit="z of a row",
            interval=f"jackknife over {n} rows ({effective:.1f} effective), Student's t",
        )


def _estimated(name: str, value_R: np.ndarray, exact_X: np.ndarray | None) -> Measurement:
    """The mean over rows, corrected by exact rows where there are any."""
    if exact_X is None:
        return divergences.mean_over_rows(name, value_R)
    return divergences.two_level_mean(name, value_R, exact_X)


def _mean_diagonal(table_NN: np.ndarray) -> float:
    return float(np.trace(square_tables.doubly_centred(table_NN)) / len(table_NN))


def write(folder: Path, model: str, measured: Measured) -> None:
    """Write pairs, influence and summary into a folder."""
    listed, measurements = [], []
    for a, teacher in enumerate(measured.teachers):
        against = measured.against(a)
        listed.append(_about(measured, a, against))
        if teacher.name != BASE:
            measurements += against.values()
    specific = measured.specific_influence()
    measurements += specific
    _write_pairs(folder / PAIRS, measured)
    _write_influence(folder / INFLUENCE, measured)
    content = {
        "model": model,
        "rows": measured.readings.chosen_RP.shape[0],
        "exact_rows": 0 if measured.exact is None else measured.exact.chosen_RP.shape[0],
        "teachers": listed,
        "specific_influence": [item.as_dict() for item in specific],
        "permutation_p": measured.permutation_p(),
        "measurements": [item.as_dict() for item in measurements],
    }
    atomic_files.write_json(folder / SUMMARY, content)


def _about(measured: Measured, a: int, against: dict[str, Measurement]) -> dict:
    """What summary.json says of one teacher."""
    whole = measured.vocabulary(a, measured.place(BASE))
    on_trait = measured.influence_on_own(a)
    rows = divergences.effective_rows(measured.readings)[a]
    return {
        "name": measured.teachers[a].name,
        "kind": measured.teachers[a].kind,
        "effective_rows": round(float(rows), 1),
        "against": {label: value.as_dict() for label, value in against.items()},
        "vocabulary": None if whole is None else whole.as_dict(),
        "influence": None if on_trait is None else on_trait.as_dict(),
    }


def _write_pairs(file: Path, measured: Measured) -> None:
    lines = []
    for a, teacher in enumerate(measured.teachers):
        for b, other in enumerate(measured.teachers):
            if a == b:
                continue
            whole = measured.vocabulary(a, b)
            line = {
                "teacher": teacher.name,
                "against": other.name,
                "digits": _numbers(measured.digits(a, b)),
                "vocabulary": None if whole is None else _numbers(whole),
            }
            lines.append(json.dumps(line))
    atomic_files.write_text(file, "\n".join(lines) + "\n")


def _write_influence(file: Path, measured: Measured) -> None:
    if measured.influence is None:
        return
    lines = []
    table_KB = measured.influence.standardised()
    without_RKB = measured.influence.without_each()
    for a, teacher in enumerate(measured.teachers):
        for b, name in enumerate(measured.traits):
            error = influence_table.jackknife_error(without_RKB[:, a, b])
            line = {
                "teacher": teacher.name,
                "trait": load_trait(name).name,
                "z_of_a_row": round(float(table_KB[a, b]), 6),
                "error": round(error, 6),
            }
            lines.append(json.dumps(line))
    atomic_files.write_text(file, "\n".join(lines) + "\n")


def _numbers(value: Measurement) -> dict[str, float | None]:
    plain = value.as_dict()
    return {key: plain[key] for key in ("estimate", "low", "high")}


def read(folder: Path) -> dict:
    """The content of summary.json of a run."""
    return json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
