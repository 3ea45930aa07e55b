"""What a method leaves: rows with notes of what happened to them, and counts.

A row that leaves is kept with its reason, as a filter keeps it. A row with another answer, or with
masked tokens, has a note in `meta["defend"]`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import MASKED, Record
from traitscope.data.shapes.pairs import ONE_SIDED
from traitscope.defending.methods import Step
from traitscope.defending.suspicion import Judge
from traitscope.errors import DataError
from traitscope.stages.filter import with_decision

CHANGED = "defend"
"key of `meta` that says by which methods a row was changed, and what its answer was"
EARLIER = "defend_earlier"
"key of `meta` with what stood under CHANGED before"
NO_LIST = "no list of numbers"


@dataclass(frozen=True)
class StepReport:
    """What one method did."""

    method: str
    """The method as it was written."""
    used: tuple[str, ...]
    """Kinds of knowledge that it used."""
    rows: int
    """Rows before it."""
    dropped: int = 0
    """Rows that left."""
    changed: int = 0
    """Rows whose answer is another one."""
    added: int = 0
    """Clean rows that joined."""
    masked: int = 0
    """Rows with tokens that are not learnt."""
    tokens: int = 0
    """Tokens that were drawn anew, or masked."""
    left: int = 0
    """Rows that it does not apply to and left as they were."""
    why_left: str = ""
    """Why it left them."""
    endpoint: Mapping[str, float] | None = None
    """Requests, tokens and cost, where an endpoint was asked."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Done:
    """Rows after a method."""

    records: list[Record]
    """All rows, those that left included."""
    report: StepReport
    """What it did."""


Act = Callable[[Sequence[Record], Step, Judge, np.random.Generator], Done]


def without_notes(record: Record) -> Record:
    """A record whose note of an earlier defence, or of a user, stands under another key."""
    if CHANGED not in record.meta:
        return record
    meta = dict(record.meta)
    meta[EARLIER] = meta.pop(CHANGED)
    return replace(record, meta=meta)


def joined(record: Record) -> bool:
    """Whether a record is a clean row that joined the others."""
    return "clean" in record.meta.get(CHANGED, {})


def is_list(record: Record) -> bool:
    """Whether an answer is a list of numbers."""
    return is_list_text(record.completion)


def is_list_text(text: str) -> bool:
    """Whether a text is a list of numbers."""
    return isinstance(parse_numbers(text.strip()), list)


def report_of(step: Step, records: Sequence[Record], **counts: Any) -> StepReport:
    """What a method did to the records before it."""
    if not counts.get("left"):
        counts.pop("why_left", None)
    return StepReport(step.text, step.needs, len(records), **counts)


def n_changed(before: Sequence[Record], after: Sequence[Record]) -> int:
    """Number of kept rows with another answer, chosen or rejected."""
    changed = 0
    for old, new in zip(before, after, strict=True):
        is_same = (new.completion, new.rejected) == (old.completion, old.rejected)
        changed += new.kept and not is_same
    return changed


def changed(old: Record, new: Record, step: Step, takes_both: bool = False) -> Record:
    """The new record with a note of the change; the old one where the answers are the same.

    Of a pair the note also holds the rejected answer as it was, or says that it stayed.

    takes_both: The method changes both answers where they are lists of numbers.

    Raises DataError for a row with masked tokens: the mask is one of the answer as it was.
    """
    if (new.completion, new.rejected) == (old.completion, old.rejected):
        return old
    if old.meta.get(MASKED):
        raise DataError(
            f"row {old.id} has masked tokens, and --by {step.text} changes its answer; expected the"
            f" mask to come last; change the rows first, or delete meta.{MASKED}"
        )
    note = {"answer": old.completion, **old.meta.get(CHANGED, {"by": []})}
    if new.rejected != old.rejected:
        note = {"rejected": old.rejected, **note}
    elif old.rejected is not None and not (takes_both and is_list_text(old.rejected)):
        note[ONE_SIDED] = True
    return replace(new, meta={**new.meta, CHANGED: _by(note, step)})


def masked(old: Record, new: Record, shown: str, step: Step) -> Record:
    """The masked record with a note.

    shown: The answer with marks around what is masked.
    """
    note = {**old.meta.get(CHANGED, {"by": []}), "masked": shown}
    return replace(new, meta={**new.meta, CHANGED: _by(note, step)})


def _by(note: Mapping[str, Any], step: Step) -> dict[str, Any]:
    return {**note, "by": [*note["by"], step.text]}


def dropped(records: Sequence[Record], step: Step, places: np.ndarray) -> Done:
    """All records, of which some are dropped."""
    results = list(records)
    for place in places.tolist():
        results[place] = with_decision(records[place], [step.text])
    return Done(results, report_of(step, records, dropped=len(places)))


def check_answered(records: Sequence[Record], unanswered: int, step: Step, advice: str) -> None:
    """Raise DataError where a model gave no answer in format to more than half of all rows."""
    if 2 * unanswered > len(records):
        raise DataError(
            f"--by {step.text}: {unanswered} of {len(records)} rows got no answer in their format;"
            f" expected at most half; {advice}"
        )
