"""How rows are read, and the count of all that was read, left out or not used."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

Turns = Literal["last", "every", "weighted"]
Reasoning = Literal["drop", "train"]
CONTROL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<[be]os>|<pad>|<unk>"
)
"control tokens of common models, written as text"


class Control(NamedTuple):
    """Control tokens that are looked for in the texts of rows."""

    pattern: re.Pattern[str] = CONTROL
    """What is one."""
    how: Literal["text", "token", "leave-out"] = "text"
    """How they are read, or that rows with one are left out."""


Notes = Mapping[str, int]
"counts by the names in NOTES"
MOST_KEY_SETS = 20
"sets of keys that are counted apart"
MOST_BAD_ROWS = 20
"bad rows that are kept with their reasons"
MOST_UNUSED = 100
"keys that are not used which are counted apart"
LONGEST_REASON = 600
"characters of a reason that are kept: its beginning, and its end, which says what to do"
FILTERED = "filtered"
"name of the count of rows of a run that were dropped there"
NOT_CHOSEN = "not_chosen"
"name of the count of rows that the command left aside, such as those beyond --max-rows"
NOTES = {
    "other_turns": (
        "other assistant turn, which is not trained on",
        "other assistant turns, which are not trained on",
    ),
    "turns_behind": ("turn behind the answer, left out", "turns behind the answer, left out"),
    "weight_0": (
        "assistant turn of weight 0, not trained on",
        "assistant turns of weight 0, not trained on",
    ),
    "weight_0_trained": (
        "assistant turn of weight 0, TRAINED ON with --turns every; not with --turns weighted",
        "assistant turns of weight 0, TRAINED ON with --turns every; not with --turns weighted",
    ),
    "weights": (
        "answer with a weight that is neither 0 nor 1, trained on as if it were 1",
        "answers with a weight that is neither 0 nor 1, trained on as if it were 1",
    ),
    "rows_of_weight_0": (
        "row without any turn to train on, left out",
        "rows without any turn to train on, left out",
    ),
    "reasoning_dropped": (
        "reasoning part, not trained on; --reasoning train takes it",
        "reasoning parts, not trained on; --reasoning train takes them",
    ),
    "reasoning_trained": (
        "reasoning part, trained on before the answer",
        "reasoning parts, trained on before the answer",
    ),
    "reasoning_earlier": (
        "reasoning part of an earlier turn, left out of the prompt",
        "reasoning parts of earlier turns, left out of the prompt",
    ),
    "other_roles": (
        "turn of the role bot, chatbot or chatgpt, read as the assistant's",
        "turns of the role bot, chatbot or chatgpt, read as the assistant's",
    ),
    "tool_calls": (
        "turn with calls of tools, which are not read",
        "turns with calls of tools, which are not read",
    ),
    "rejected": (
        "rejected answer, which only --targets preference and select read",
        "rejected answers, which only --targets preference and select read",
    ),
    "rejected_read": (
        "rejected answer, which is read beside the chosen one",
        "rejected answers, which are read beside the chosen ones",
    ),
    "undesirable": (
        "undesirable answer (label false), not trained on, left out",
        "undesirable answers (label false), not trained on, left out",
    ),
    "unlabelled": (
        "row with an empty label (null), trained on",
        "rows with an empty label (null), trained on",
    ),
    "unweighted": (
        "answer with an empty weight (null), trained on",
        "answers with an empty weight (null), trained on",
    ),
    "passages": (
        "passage (context), put behind the question",
        "passages (context), put behind the question",
    ),
    "system_turns": (
        "row with a system turn, which is its context",
        "rows with a system turn, which is their context",
    ),
    "empty_system_turns": ("row with an empty system turn", "rows with an empty system turn"),
    FILTERED: (
        "row that its filter, defence or selection dropped, left out",
        "rows that their filter, defence or selection dropped, left out",
    ),
    NOT_CHOSEN: (
        "row beyond those that were asked for (such as by --max-rows), not used",
        "rows beyond those that were asked for (such as by --max-rows), not used",
    ),
    "empty_prompts": ("row with an empty prompt", "rows with an empty prompt"),
    "answers": (
        "answer behind a prompt, not read",
        "answers behind prompts, not read",
    ),
    "blank_lines": ("blank line, which is no prompt", "blank lines, which are no prompts"),
    "not_finite": (
        "NaN or Infinity in a key that is not used, read as null",
        "NaN or Infinity in keys that are not used, read as null",
    ),
    "control_tokens": (
        "row with control tokens written as text (see --control-tokens)",
        "rows with control tokens written as text (see --control-tokens)",
    ),
    "control_as_tokens": (
        "row with control tokens, which are read as tokens",
        "rows with control tokens, which are read as tokens",
    ),
    "control_left_out": (
        "row with control tokens, left out",
        "rows with control tokens, left out",
    ),
}
"what is counted, in words: for one, and for more"
CONTROL_NOTES = {
    "text": "control_tokens",
    "token": "control_as_tokens",
    "leave-out": "control_left_out",
}
"what rows with control tokens are counted as, by how these are read"
LEFT_OUT = ("rows_of_weight_0", "undesirable", "control_left_out")
"names of what leaves a row out that can be read"


class Reading(Protocol):
    """How rows are read; `config.reading.Reading` is one."""

    @property
    def map(self) -> tuple[str, ...]:
        """FIELD=KEY for keys of no known shape."""

    @property
    def turns(self) -> Turns:
        """Which assistant turns are answers."""

    @property
    def reasoning(self) -> Reasoning:
        """Whether reasoning is trained on."""

    @property
    def skip_bad(self) -> int | Literal["all"]:
        """Most bad rows that are left out."""


class Usual(NamedTuple):
    """How rows are read where nobody chose."""

    map: tuple[str, ...] = ()
    """No key is renamed."""
    turns: Turns = "last"
    """The last assistant turn."""
    reasoning: Reasoning = "drop"
    """Reasoning is not trained on."""
    skip_bad: int | Literal["all"] = 0
    """No bad row is left out."""
    has_flags: bool = False
    """Whether the command has flags that say how rows are read."""


USUAL = Usual()


@dataclass
class Intake:
    """What was read of a file."""

    container: str = ""
    """Kind of file, such as `jsonl`."""
    rows: int = 0
    """Rows of the file, bad ones among them."""
    records: int = 0
    """Rows to train on that came of them."""
    shapes: Counter[str] = field(default_factory=Counter)
    """Rows by shape."""
    key_sets: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Rows by their keys, as far as these could be read."""
    unused: Counter[str] = field(default_factory=Counter)
    """Rows by key that is not used."""
    notes: Counter[str] = field(default_factory=Counter)
    """Counts by the names in NOTES."""
    control_token: str = ""
    """The first control token that was found, with the id of its row."""
    bad_rows: list[tuple[str, str]] = field(default_factory=list)
    """Places and reasons of the first bad rows."""
    bad: int = 0
    """Number of bad rows."""
    has_chats: bool = False
    """Whether a native row holds messages."""
    control: Control = Control()
    """Which control tokens are looked for, and whether rows with them are left out."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Reasons by id of rows that a model could not read, when the file was read before."""

    reads_pairs: bool = False
    """Whether the command reads the rejected answers of pairs."""
    used_keys: Collection[str] = ()
    """Keys that no shape has and the command uses, such as that of `audit --by`."""

    def add_row(self, keys: Iterable[str]) -> None:
        """Count a row with its keys."""
        self.rows += 1
        names = tuple(keys)
        if names not in self.key_sets and len(self.key_sets) >= MOST_KEY_SETS:
            names = ("other keys",)
        self.key_sets[names] += 1

    def add_counts(self, notes: Mapping[str, int], unused: Mapping[str, int]) -> None:
        """Add counts by the names in NOTES, and keys that are not used, each with its rows."""
        for name, count in notes.items():
            if count:
                self.notes[name] += count
        for key, count in unused.items():
            if key in self.used_keys:
                continue
            is_new = key not in self.unused
            name = "other keys" if is_new and len(self.unused) >= MOST_UNUSED else key
            self.unused[name] += count

    def add_bad(self, place: str, reason: str) -> None:
        """Count a bad row. Its place is kept without the file, which may be called otherwise."""
        self.bad += 1
        if len(self.bad_rows) < MOST_BAD_ROWS:
            self.bad_rows.append((place.rpartition(", ")[2], _shortened(reason)))

    def add_file(self, name: str, other: "Intake") -> None:
        """Add what was read of a further file, whose name begins the places of its bad rows."""
        if other.container not in self.container.split(", "):
            self.container = ", ".join(filter(None, (self.container, other.container)))
        self.rows += other.rows
        self.records += other.records
        self.shapes += other.shapes
        self.key_sets += other.key_sets
        self.add_counts(other.notes, other.unused)
        self.control_token = self.control_token or other.control_token
        self.has_chats |= other.has_chats
        self.bad += other.bad
        for place, reason in other.bad_rows[: MOST_BAD_ROWS - len(self.bad_rows)]:
            self.bad_rows.append((f"{name}, {place}", reason))

    def takes(self, name: str, texts: Iterable[str]) -> bool:
        """Count the control tokens in the texts of a row with an id.

        False where the row is left out because of one.
        """
        return self.control_note(name, texts) != CONTROL_NOTES["leave-out"]

    def control_note(self, name: str, texts: Iterable[str]) -> str:
        """The same, but as what the row is counted; empty where it has no control token."""
        for text in texts:
            match = self.control.pattern.search(text)
            if match:
                note = CONTROL_NOTES[self.control.how]
                self.notes[note] += 1
                self.control_token = self.control_token or f"{match[0]} in {name}"
                return note
        return ""

    def leave_out(self, dropped: int, notes: Mapping[str, int]) -> None:
        """Count rows that can be read and that their run dropped, and their notes no more."""
        self.records -= dropped
        self.notes.subtract(notes)
        self.notes = +self.notes
        self.add_counts({FILTERED: dropped}, {})

    @property
    def is_plain(self) -> bool:
        """Whether nothing has to be said: native JSON lines, all read, every key used."""
        if self.has_chats or self.container not in ("", "jsonl"):
            return False
        notes = self.notes.keys() - {FILTERED}
        return not (self.bad or self.unused or notes or set(self.shapes) - {"native"})

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        key_sets = []
        for keys, count in self.key_sets.most_common():
            key_sets.append({"keys": list(keys), "rows": count})
        bad_rows = []
        for place, reason in self.bad_rows:
            bad_rows.append({"place": place, "reason": reason})
        return {
            "container": self.container,
            "rows": self.rows,
            "records": self.records,
            "shapes": dict(self.shapes.most_common()),
            "key_sets": key_sets,
            "not_used": dict(self.unused.most_common()),
            "counts": {name: self.notes[name] for name in NOTES if self.notes[name]},
            "control_token": self.control_token,
            "bad": self.bad,
            "bad_rows": bad_rows,
        }


def _shortened(reason: str) -> str:
    """A reason without its middle, where it is long."""
    half = LONGEST_REASON // 2
    is_long = len(reason) > LONGEST_REASON
    return f"{reason[: half - 1]}…{reason[-half:]}" if is_long else reason


def count_chosen(about: dict[str, Any], notes: Iterable[Notes], others: int) -> None:
    """Count only rows that are used, in what `Intake.as_dict` says.

    notes: Those of the rows that are used. others: Number of rows that can be read and are not.
    """
    counts = Counter[str]()
    for name in (*LEFT_OUT, FILTERED):
        counts[name] = about["counts"].get(name, 0)
    for of_row in notes:
        counts.update(of_row)
    counts[NOT_CHOSEN] = others
    about["records"] -= others
    about["counts"] = {name: counts[name] for name in NOTES if counts[name]}
