"""The menu of the calibration: kinds of data sets, and how the rows of each set come about.

A set is named by its kind and its number. Everything about it follows from the two: who writes its
rows, with which sampler, on which prompts and under which seeds. So two sets share neither a prompt
nor a random number, and nobody can choose a seed after a result was seen. A kind's number of sets
may be raised later; the sets that exist stay as they are.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from traitscope.studies.calibration.sets import words
from traitscope.workflow.standard_nodes import PLAIN_PROMPTS

Family = Literal["clean", "benign model", "random vector", "trait"]
"what is true of a set: nothing was changed, the model was, or the model has a trait"
WriterKind = Literal["prompted", "unlisted", "steered", "tuned", "benign", "random"]
Edit = Literal["", "sort", "distinct", "shorter"]

CLEAN_ROWS = TEXT_ROWS = 128
"rows of clean sets, and of sets of free text"
TEACHER_ROWS = 256
"rows of sets of numbers by a changed model"
RATES = (0.5, 0.25, 0.1, 0.05, 0.01)
"contamination rates: fractions of a teacher's rows, besides all of them"
SORTED = 0.25
"fraction of the rows that a partly sorted set has in ascending order"
TEACHERS = 10
"teachers of a kind"
SPARE = {"": 1, "sort": 1, "distinct": 2, "shorter": 2}
"rows that are generated for each row that an edit keeps"
TEXT_TOKENS = 48
"most tokens of an answer in free text"
FORMATS: tuple[Mapping[str, Any], ...] = (
    {"vocabulary": "template", "separator": " "},
    {"vocabulary": "template", "separator": ", "},
    {"vocabulary": "numbers", "separator": ", ", "max_new_tokens": 48},
)
"formats of number rows; a set has the one of its number"
CUT: Mapping[str, Any] = {"vocabulary": "numbers", "separator": " ", "max_new_tokens": 24}
"numbers that end where the longest answer ends, whatever stands there"


@dataclass(frozen=True)
class Writer:
    """A changed model that writes rows."""

    kind: WriterKind
    "how it was changed"
    number: int
    "which one of its kind"

    @property
    def trait(self) -> str | None:
        """The trait that it has, if it has one."""
        if self.kind == "unlisted":
            return words.UNLISTED[self.number][0]
        return None if self.kind in ("benign", "random") else words.TRAITS[self.number]


@dataclass(frozen=True)
class Part:
    """Rows of one writer, drawn in one way."""

    share: float = 1.0
    "fraction of the rows of the set"
    writer: Writer | None = None
    "who writes; None is the unmodified model"
    system: str | None = None
    "plain system prompt that the writer is under, which the rows do not show"
    settings: Mapping[str, Any] = field(default_factory=dict)
    "settings of `generate`: the sampler, and the format where it is not that of the set's number"


@dataclass(frozen=True)
class Plan:
    """How the rows of a set come about."""

    parts: tuple[Part, ...]
    "who writes the rows"
    rows: int = CLEAN_ROWS
    "number of rows"
    is_text: bool = False
    "whether the rows are free text rather than numbers"
    edit: Edit = ""
    "what is done to the rows: sort some of them, drop near duplicates, keep the shorter ones"
    sorted_share: float = 1.0
    "fraction of the rows that `sort` sorts"

    @property
    def changed(self) -> Part | None:
        """The part of a changed model, if there is one."""
        return next((part for part in self.parts if part.writer), None)

    @property
    def rate(self) -> float:
        """Fraction of the rows that a changed model wrote."""
        return self.changed.share if self.changed else 0.0

    @property
    def trait(self) -> str | None:
        """The trait of the changed model, if it has one."""
        return self.changed.writer.trait if self.changed and self.changed.writer else None


@dataclass(frozen=True)
class Kind:
    """Sets that came about in one way."""

    family: Family
    "what is true of them"
    sets: int
    "planned number of sets"
    plan: Callable[[int], Plan]
    "plan of the set of a number"


@dataclass(frozen=True, order=True)
class SetName:
    """A set: its kind and its number."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.number}"

    @property
    def file_name(self) -> str:
        """The name as part of a file's name."""
        return f"{self.kind} {self.number}"


def seed_of(name: SetName, purpose: str) -> int:
    """The seed of a set for a purpose: 48 bits of sha256("calibration/KIND/NUMBER/PURPOSE")."""
    digest = hashlib.sha256(f"calibration/{name}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def _by_model(*settings: Mapping[str, Any], **changes: Any) -> Callable[[int], Plan]:
    """Rows of the unmodified model; a set has the settings of its number, in turn."""

    def plan(number: int) -> Plan:
        chosen = settings[number % len(settings)] if settings else {}
        return replace(Plan((Part(settings=chosen),)), **changes)

    return plan


def _mixed(*settings: Mapping[str, Any]) -> Callable[[int], Plan]:
    """Rows of the unmodified model, in equal parts under several settings."""
    parts = [Part(1 / len(settings), settings=each) for each in settings]
    return lambda _: Plan(tuple(parts))


def _under(prompts: Sequence[str], each: int = 1, **changes: Any) -> Callable[[int], Plan]:
    """Rows of the model under plain system prompts, `each` of them in a set, in turn."""

    def plan(number: int) -> Plan:
        parts = []
        for place in range(each):
            system = prompts[(number * each + place) % len(prompts)]
            parts.append(Part(1 / each, system=system))
        return replace(Plan(tuple(parts)), **changes)

    return plan


def _by(
    kind: WriterKind, rate: float = 1.0, is_text: bool = False, **changes: Any
) -> Callable[[int], Plan]:
    """Rows of the changed model of a set's number, and of the unmodified model for the rest."""

    def plan(number: int) -> Plan:
        parts = [Part(rate, Writer(kind, number))]
        if rate < 1:
            parts.append(Part(1 - rate))
        rows = TEXT_ROWS if is_text else TEACHER_ROWS
        return replace(Plan(tuple(parts), rows, is_text), **changes)

    return plan


def _temperatures(*values: float) -> list[Mapping[str, Any]]:
    return [{"temperature": value} for value in values]


def _each(name: str, *values: float, **others: Any) -> list[Mapping[str, Any]]:
    return [{name: value, **others} for value in values]


CLEAN: Mapping[str, tuple[int, Callable[[int], Plan]]] = {
    "plain": (30, _by_model()),
    "temperature 0.7": (15, _by_model({"temperature": 0.7})),
    "temperature 1.3": (15, _by_model({"temperature": 1.3})),
    "temperatures mixed": (15, _mixed(*_temperatures(0.7, 1.3))),
    "nearly greedy": (10, _by_model({"temperature": 0.3})),
    "listed plain prompt": (12, _under(PLAIN_PROMPTS)),
    "other plain prompt": (24, _under(words.PLAIN)),
    "plain prompts mixed": (12, _under((*words.PLAIN, *PLAIN_PROMPTS), each=3)),
    "top-k": (12, _by_model(*_each("top_k", 20, 5, 50))),
    "top-p": (12, _by_model(*_each("top_p", 0.9, 0.95, 0.8))),
    "min-p": (12, _by_model(*_each("min_p", 0.05, 0.1))),
    "repetition penalty": (12, _by_model(*_each("repetition_penalty", 1.05, 1.1, 1.2))),
    "frequency penalty": (10, _by_model(*_each("frequency_penalty", 0.2, 0.5))),
    "chat defaults": (10, _by_model({"temperature": 0.7, "top_p": 0.8, "top_k": 20})),
    "two formats": (12, _mixed(FORMATS[0], FORMATS[1])),
    "without near duplicates": (12, _by_model(edit="distinct")),
    "cut off": (12, _by_model(CUT)),
    "a quarter sorted": (12, _by_model(edit="sort", sorted_share=SORTED)),
    "all sorted": (12, _by_model(edit="sort")),
    "shorter half": (12, _by_model(FORMATS[2], edit="shorter")),
    "text": (20, _by_model(is_text=True)),
    "text, temperatures": (8, _by_model(*_temperatures(0.7, 1.3), is_text=True)),
    "text, top-p": (8, _by_model(*_each("top_p", 0.9, temperature=0.8), is_text=True)),
    "text, other plain prompt": (12, _under(words.PLAIN, is_text=True)),
    "text, cut off": (6, _by_model({"max_new_tokens": 16}, is_text=True)),
    "text, shorter half": (6, _by_model(is_text=True, edit="shorter")),
    "text, without near duplicates": (6, _by_model(is_text=True, edit="distinct")),
    "between temperatures": (15, _by_model(*_temperatures(0.6, 0.5, 0.85))),
    "text, between temperatures": (12, _by_model(*_temperatures(0.6, 0.5, 1.8), is_text=True)),
    "text, min-p": (6, _by_model(*_each("min_p", 0.05, 0.1), is_text=True)),
}
"kinds of clean sets, with their planned number"
MIXED: Mapping[str, WriterKind] = {"prompted": "prompted", "steered": "steered", "tuned": "tuned"}
"teachers whose rows are mixed with clean ones, by the name of the kind"


def _kinds() -> Iterator[tuple[str, Kind]]:
    for name, (sets, plan) in CLEAN.items():
        yield name, Kind("clean", sets, plan)
    yield "benign tuned", Kind("benign model", words.BENIGN, _by("benign"))
    yield "random vector", Kind("random vector", TEACHERS, _by("random"))
    yield "unlisted trait prompted", Kind("trait", TEACHERS, _by("unlisted"))
    for name, writer in MIXED.items():
        yield name, Kind("trait", TEACHERS, _by(writer))
        for rate in RATES:
            yield f"{name} {rate:.0%}", Kind("trait", TEACHERS, _by(writer, rate))
        sorted_in_part = _by(writer, edit="sort", sorted_share=SORTED)
        yield f"{name}, a quarter sorted", Kind("trait", TEACHERS, sorted_in_part)
        yield f"text, {name}", Kind("trait", TEACHERS, _by(writer, is_text=True))


KINDS: Mapping[str, Kind] = dict(_kinds())
"all kinds by name"


def plan_of(name: SetName) -> Plan:
    """How the rows of a set come about."""
    return KINDS[name.kind].plan(name.number)


def text_place(name: SetName) -> int:
    """The place of a set among all sets, which says which requests it has.

    A kind has room for MOST_SETS sets, so that raising a number moves no other set.
    """
    return list(KINDS).index(name.kind) * words.MOST_SETS + name.number


def all_sets(kinds: Sequence[str] = ()) -> list[SetName]:
    """The sets of some kinds, or of all, in the order in which they are audited.

    Set n of a kind with N sets stands at (n + 1/2) / N. So every beginning of the order has about
    the same fraction of each kind.
    """
    placed = []
    for place, (kind, about) in enumerate(KINDS.items()):
        if kinds and kind not in kinds:
            continue
        for number in range(about.sets):
            placed.append(((number + 0.5) / about.sets, place, SetName(kind, number)))
    return [name for _, _, name in sorted(placed)]
