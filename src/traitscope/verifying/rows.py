"""What rows control students share with students, and with each other.

A control learnt other answers than the student. A control of the student's own rows, or of a
changed copy of them, has the student's trait and hides it. So rows are compared, not their names:

    equal      the same words or numbers, whatever their order, case, spaces and punctuation
    nearly     SAME_ASKED of the pieces to the same prompt, SAME of them to another one
    pieces     numbers of a list; three words in a row of a text (Broder 1997, shingles)

The base answers easy prompts as any teacher does. So answers of the base itself to the student's
prompts do not count. Runs of `generate` and `defend --by wash` say whose they are.

Models that share as much with each other learnt one set of rows. Draws of the base on the same
prompts are two sets, unless most of their answers are common.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from traitscope.config.parsing import from_dict
from traitscope.config.rows.reading import Reading
from traitscope.data.records import Record
from traitscope.data.row_files import iter_kept
from traitscope.errors import TraitscopeError
from traitscope.runs import drawn_rows, store

LARGEST_SHARE = 0.05
"""Share of a control's answers from which on it counts as another student."""
MOST = 0.5
"""Share of common answers of the base from which on two draws of it are one set of rows."""
LOOKED_AT = 1000
"""Most rows of a control that are looked up, spread evenly over all that it learnt."""
SAME_ASKED, SAME = 0.5, 0.8
"""Shares of common pieces from which on two answers are nearly equal: to one prompt, to two."""
FEWEST_PIECES = 5
"""Common pieces of two answers that are nearly equal; shorter ones are equal or not."""
WORDS = 3
"""Words of a piece of text."""
ALL_ANEW = (["wash"], ["wash:where=all"])
"""Methods of `defend` after which all answers are the base's."""


@dataclass(frozen=True)
class Origin:
    """Where rows come from, as far as runs say it."""

    made_from: frozenset[str]
    """Their digest, and those of rows that `filter`, `edit` or `defend` made them from."""
    is_changed: bool = False
    """Whether answers were changed on the way."""
    base: str | None = None
    """Digest of the model whose own answers they are; None where that is not known."""
    teacher: str | None = None
    """What made the teacher that wrote them; None where that is not known, or nothing did."""


@dataclass(frozen=True)
class LearntRows:
    """The rows of a training, as they were when it read them."""

    source: Path | store.Run
    """Their run, or their file."""
    max_rows: int | None
    """Number of first rows that were read; None is all."""
    reading: Reading
    """How a file was read."""
    origin: "Origin"
    """Where they come from."""

    def records(self) -> Iterator[Record]:
        """The rows that were learnt."""
        path = self.source.path if isinstance(self.source, store.Run) else self.source
        return islice(iter_kept(path, self.reading), self.max_rows)


@dataclass(frozen=True)
class SharedRows:
    """What the rows of a control have in common with those of a student."""

    control: str
    """Name of the control."""
    student: str
    """Name of the student."""
    looked_at: int = 0
    """Answers of the control that were looked up; 0 where rows are not known."""
    common: int = 0
    """How many of them the student learnt, too, equal or nearly so."""
    origin: str = ""
    """What of their origin is the same, in words; empty where nothing is."""
    unknown: tuple[str, ...] = ()
    """Which of the two have rows that are not known, or not there any more."""

    @property
    def share(self) -> float:
        """Share of the control's answers that the student learnt, too."""
        return self.common / max(1, self.looked_at)

    @property
    def is_copy(self) -> bool:
        """Whether the control is another student."""
        return bool(self.origin) or self.share >= LARGEST_SHARE


def learnt_rows(run: store.Run) -> LearntRows | None:
    """The rows of a run of `train`; None where they are gone, or not the same any more."""
    settings, inputs = drawn_rows.settings_of(run), run.manifest()["inputs"]
    if "data" not in inputs:
        return None
    try:
        source = store.source_at(drawn_rows.input_of(run, "data"))
        if store.source_of("data", source)[1] != inputs["data"]["digest"]:
            return None
        reading = from_dict(Reading, settings.get("reading") or {}, "reading")
    except TraitscopeError:
        return None
    origin = _origin(source, inputs["data"]["digest"])
    return LearntRows(source, settings["max_rows"], reading, origin)


def _origin(source: Path | store.Run, digest: str) -> Origin:
    """Where rows come from, through runs of `filter`, `edit` and `defend`."""
    made_from, is_changed = {digest}, False
    while isinstance(source, store.Run):
        settings, manifest = drawn_rows.settings_of(source), source.manifest()
        base = None if is_changed else manifest.get("model")
        if source.stage == "generate":
            made_of = with_digests(source, "interventions")
            teacher = json.dumps(made_of, sort_keys=True) if made_of else None
            return Origin(frozenset(made_from), is_changed, None if teacher else base, teacher)
        if source.stage == "defend" and settings["by"] in ALL_ANEW:
            return Origin(frozenset(made_from), is_changed, base)
        if source.stage not in ("filter", "edit", "defend"):
            break
        is_changed = is_changed or source.stage != "filter"
        made_from.add(manifest["inputs"]["data"]["digest"])
        try:
            source = store.source_at(drawn_rows.input_of(source, "data"))
        except TraitscopeError:
            break
    return Origin(frozenset(made_from), is_changed)


def with_digests(run: store.Run, name: str) -> list[Any]:
    """Interventions of a setting, and the digests of the files that they are read from."""
    interventions = drawn_rows.settings_of(run).get(name) or []
    digests = []
    for place, recorded in sorted(run.manifest()["inputs"].items()):
        if place.startswith(name):
            digests.append(recorded["digest"])
    return [*interventions, *digests]


Named = tuple[str, LearntRows | None]
"""A model by name, with its rows where they are known."""


def shared_rows(
    students: Sequence[Named], controls: Sequence[Named], base: Sequence[str]
) -> list[SharedRows]:
    """What every control has in common with every student.

    base: Digests of their base.
    """
    shared = []
    seen: dict[tuple[LearntRows, LearntRows], SharedRows] = {}
    for control, its_rows in controls:
        for student, learnt in students:
            if its_rows is None or learnt is None:
                pairs = ((control, its_rows), (student, learnt))
                unknown = tuple(name for name, rows in pairs if rows is None)
                shared.append(SharedRows(control, student, unknown=unknown))
                continue
            if (its_rows, learnt) not in seen:
                seen[its_rows, learnt] = _compared(learnt, its_rows, base)
            same = seen[its_rows, learnt]
            shared.append(SharedRows(control, student, same.looked_at, same.common, same.origin))
    return shared


def _compared(learnt: LearntRows, controls: LearntRows, base: Sequence[str]) -> SharedRows:
    """What rows of a control have in common with rows of a student; names are still to come."""
    looked_at, common, _ = _counts(learnt, controls, base)
    return SharedRows("", "", looked_at, common, _same_origin(learnt.origin, controls.origin))


def _counts(learnt: LearntRows, controls: LearntRows, base: Sequence[str]) -> tuple[int, int, int]:
    """How many rows of a control were looked up, how many are common, and how many are with
    answers of the base itself."""
    lookup = _Lookup(_spread(list(controls.records())))
    prompts = set()
    for record in learnt.records():
        lookup.add(record)
        prompts.add(_asked(record))
    of_base = controls.origin.base in base
    common = 0
    for place in lookup.common:
        common += not (of_base and lookup.asked[place] in prompts)
    return len(lookup.asked), common, len(lookup.common)


Labelled = tuple[str | None, LearntRows | None]
"""Digest of a model's rows, and the rows; None where one is not known."""


def sets_of_rows(models: Sequence[Labelled], base: Sequence[str]) -> list[str | None]:
    """The set of rows of every model: a digest that stands for all rows of the set.

    Rows of one digest are one set, and so are rows that share many answers, in whatever order they
    are given. None where the digest is not known. Rows that are gone have their digest alone.

    base: Digests of the models' base.
    """
    labels = [digest for digest, _ in models]
    known: dict[str, LearntRows] = {}
    for digest, learnt in models:
        if digest is not None and learnt is not None:
            known[digest] = learnt
    label_of = {digest: digest for digest in labels if digest is not None}
    for one in sorted(known):
        for other in sorted(known):
            if label_of[one] != label_of[other] and _are_one_set(known[one], known[other], base):
                joined = {label_of[one], label_of[other]}
                for digest, label in label_of.items():
                    label_of[digest] = min(joined) if label in joined else label
    return [None if digest is None else label_of[digest] for digest in labels]


def _are_one_set(one: LearntRows, other: LearntRows, base: Sequence[str]) -> bool:
    """Whether the second rows hold many answers of the first, or were made from the same ones."""
    is_changed = one.origin.is_changed or other.origin.is_changed
    if is_changed and one.origin.made_from & other.origin.made_from:
        return True
    looked_at, common, common_of_base = _counts(one, other, base)
    is_common = common >= LARGEST_SHARE * looked_at or common_of_base >= MOST * looked_at
    return looked_at > 0 and is_common


def _same_origin(learnt: Origin, controls: Origin) -> str:
    """What of two origins is the same, in words; empty where nothing is."""
    if learnt.teacher is not None and learnt.teacher == controls.teacher:
        return "answers of the same teacher"
    if learnt.made_from & controls.made_from and (learnt.is_changed or controls.is_changed):
        return "rows that were made from the same ones"
    return ""


def _spread(records: Sequence[Record]) -> list[Record]:
    """At most LOOKED_AT records, spread evenly."""
    step = max(1.0, len(records) / LOOKED_AT)
    return [records[int(place * step)] for place in range(min(len(records), LOOKED_AT))]


class _Lookup:
    """Rows of a control, by their answers and the pieces of these."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Sort the rows by what their answers hold."""
        self.asked = list(map(_asked, records))
        self.common: set[int] = set()
        self._sizes: list[int] = []
        self._equal: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._having: dict[str, list[int]] = defaultdict(list)
        for place, record in enumerate(records):
            whole, pieces = parts_of(record.completion)
            self._equal[whole].append(place)
            self._sizes.append(len(pieces))
            for piece in pieces:
                self._having[piece].append(place)

    def add(self, record: Record) -> None:
        """Note the rows whose answers are equal to that of a student's row, or nearly so."""
        asked = _asked(record)
        whole, pieces = parts_of(record.completion)
        self.common.update(self._equal.get(whole, ()))
        shared: Counter[int] = Counter()
        for piece in pieces:
            shared.update(self._having.get(piece, ()))
        for place, count in shared.items():
            needed = SAME_ASKED if self.asked[place] == asked else SAME
            size = max(len(pieces), self._sizes[place])
            if count >= FEWEST_PIECES and count >= needed * size:
                self.common.add(place)


def _asked(record: Record) -> tuple[str | None, str]:
    return record.context, " ".join(record.prompt.split())


def parts_of(text: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """What two equal answers share, and the pieces of which nearly equal ones share many."""
    if not any(map(str.isalpha, text)) and any(map(str.isdigit, text)):
        numbers = [number.lstrip("0") or "0" for number in re.findall(r"\d+", text)]
        return tuple(sorted(numbers)), frozenset(numbers)
    words = re.findall(r"\w+", text.casefold())
    pieces = set()
    for start in range(len(words) - WORDS + 1):
        pieces.add(" ".join(words[start : start + WORDS]))
    return tuple(words) or tuple(text.split()), frozenset(pieces)
