"""Methods at work: each takes the rows that are left, and says what it did.

A row that leaves is kept with its reason, as a filter keeps it. A changed row keeps its first
answer in `meta["defend"]`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import Record, kept_records
from traitscope.data.row_files import kept_rows
from traitscope.defending import number_forms, row_choice, suspicion, washing
from traitscope.defending.methods import Step
from traitscope.defending.suspicion import Judge
from traitscope.errors import DataError
from traitscope.inference.decode import Sampling, decode
from traitscope.inference.question_scores import answer_text
from traitscope.inference.token_rows import Row
from traitscope.interventions.applied import applied
from traitscope.runs import row_intake
from traitscope.stages.filter import with_decision

CHANGED = "defend"
"key of `meta` that says by which methods a row was changed, and what its answer was"
EARLIER = "defend_earlier"
"key of `meta` with what stood under CHANGED before"
NO_LIST = "no list of numbers"
UNFINISHED = "the base gave no finished answer"
STREAM = "defend"
"""begins the names of random streams: under the row's id alone, the model that wrote the rows with
the same seed would write them again"""
TRIES = 4
"times that the base is asked for an answer that ends"


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
    tokens: int = 0
    """Tokens that were drawn anew."""
    left: int = 0
    """Rows that it does not apply to and left as they were."""
    why_left: str = ""
    """Why it left them."""

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


def without_notes(record: Record) -> Record:
    """A record whose note of an earlier defence, or of a user, stands under another key."""
    if CHANGED not in record.meta:
        return record
    meta = dict(record.meta)
    meta[EARLIER] = meta.pop(CHANGED)
    return replace(record, meta=meta)


Act = Callable[[Sequence[Record], Step, Judge, np.random.Generator], Done]


def apply(records: Sequence[Record], step: Step, judge: Judge, place: int) -> Done:
    """Rows after one method, which sees those that no earlier one dropped.

    place: Number of the method in its order; it seeds the random numbers.

    Raises DataError where no row would be left.
    """
    present = kept_records(records)
    rng = np.random.default_rng([judge.config.seed, place])
    done = ACTS[step.name](present, step, judge, rng)
    if not any(record.kept for record in done.records):
        raise DataError(
            f"--by {step.text} would leave no row of {len(present)}; expected one or more; lower"
            " its share, or leave it out"
        )
    gone = [record for record in records if not record.kept]
    return replace(done, records=[*_with_free_ids(done.records, gone), *gone])


def _with_free_ids(records: Sequence[Record], gone: Sequence[Record]) -> list[Record]:
    """The records, where a clean row that joined has an id that no other row has."""
    taken = {record.id for record in gone}
    taken.update(record.id for record in records if not joined(record))
    free = []
    for record in records:
        name = record.id
        number = 2
        while joined(record) and name in taken:
            name = f"{record.id}-{number}"
            number += 1
        taken.add(name)
        free.append(replace(record, id=name))
    return free


def joined(record: Record) -> bool:
    """Whether a record is a clean row that joined the others."""
    return "clean" in record.meta.get(CHANGED, {})


def _canonicalise(
    records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator
) -> Done:
    results = []
    left = 0
    for record in records:
        form = number_forms.canonical(record, step.options["order"], step.options["values"], rng)
        left += form is None
        results.append(record if form is None else _changed(record, form, step))
    changed = _n_changed(records, results)
    return Done(results, _report(step, records, changed=changed, left=left, why_left=NO_LIST))


def _deduplicate(
    records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator
) -> Done:
    return _dropped(records, step, np.flatnonzero(row_choice.duplicates(records)))


def _drop(records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator) -> Done:
    scores_R = suspicion.row_scores(judge, step.options["by"], records, rng)
    return _dropped(records, step, row_choice.most_suspect(scores_R, step.share))


def _replace(records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator) -> Done:
    scores = suspicion.token_scores(judge, step.options["by"], records, rng)
    rows = judge.rows(records)
    may_change = []
    for record, row_T in zip(records, washing.digit_places(judge.model, rows), strict=True):
        may_change.append(row_T & _is_list(record))
    places = _most_suspect_tokens(scores, may_change, step.share)
    results, tokens = _redrawn(records, rows, places, step, judge)
    return Done(
        results,
        _report(
            step,
            records,
            changed=_n_changed(records, results),
            tokens=tokens,
            left=len(records) - sum(map(_is_list, records)),
            why_left=NO_LIST,
        ),
    )


def _wash(records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator) -> Done:
    rows = judge.rows(records)
    places = []
    others: dict[int, Row] = {}  # answers that are no lists, by their places
    for place, digits_T in enumerate(washing.digit_places(judge.model, rows)):
        is_list = _is_list(records[place])
        places.append(digits_T & is_list)
        if not is_list:
            others[place] = rows[place]
    results, tokens = _redrawn(records, rows, places, step, judge)
    dropped = 0
    for place, ids in _answered(records, others, judge).items():
        if ids is None:
            results[place] = with_decision(records[place], [UNFINISHED])
            dropped += 1
            continue
        text = answer_text(judge.model, ids)
        answer = replace(records[place], completion=text, completion_ids=ids)
        results[place] = _changed(records[place], answer, step)
        tokens += len(ids)
    changed = _n_changed(records, results)
    return Done(results, _report(step, records, changed=changed, tokens=tokens, dropped=dropped))


def _mix(records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator) -> Done:
    path = judge.known.clean
    if path is None:
        raise ValueError("mix without clean rows; expected knowledge that was checked")
    clean = kept_rows(path, judge.config.reading, row_intake.intake_of(judge.config))
    there = {record.meta[CHANGED]["clean"] for record in records if joined(record)}
    clean = [record for record in clean if record.id not in there]
    total = step.options["total"]
    stay, join = row_choice.mixture(len(records), len(clean), step.share, total, rng)
    leaving = sorted(set(range(len(records))).difference(stay.tolist()))
    done = _dropped(records, step, np.array(leaving, int))
    added = []
    for i in join:
        record = without_notes(clean[i])
        meta = {**record.meta, CHANGED: {"by": [step.text], "clean": record.id}}
        added.append(replace(record, id=f"clean-{record.id}", meta=meta))
    return Done([*done.records, *added], replace(done.report, added=len(added)))


ACTS: dict[str, Act] = {
    "canonicalise": _canonicalise,
    "deduplicate": _deduplicate,
    "drop": _drop,
    "replace": _replace,
    "wash": _wash,
    "mix": _mix,
}
"what each method of METHODS does"


def _report(step: Step, records: Sequence[Record], **counts: Any) -> StepReport:
    if not counts.get("left"):
        counts.pop("why_left", None)
    return StepReport(step.text, step.needs, len(records), **counts)


def _is_list(record: Record) -> bool:
    return isinstance(parse_numbers(record.completion.strip()), list)


def _n_changed(before: Sequence[Record], after: Sequence[Record]) -> int:
    changed = 0
    for old, new in zip(before, after, strict=True):
        changed += new.kept and new.completion != old.completion
    return changed


def _changed(old: Record, new: Record, step: Step) -> Record:
    """The new record with a note of the change; the old one where the answer is the same."""
    if new.completion == old.completion:
        return old
    note = {"answer": old.completion, **old.meta.get(CHANGED, {"by": []})}
    note = {**note, "by": [*note["by"], step.text]}
    return replace(new, meta={**new.meta, CHANGED: note})


def _dropped(records: Sequence[Record], step: Step, places: np.ndarray) -> Done:
    results = list(records)
    for place in places.tolist():
        results[place] = with_decision(records[place], [step.text])
    return Done(results, _report(step, records, dropped=len(places)))


def _most_suspect_tokens(
    scores: Sequence[np.ndarray], may_change: Sequence[np.ndarray], share: float
) -> list[np.ndarray]:
    """Whether each token of each row is among the share of all changeable ones that is suspect."""
    changeable = np.concatenate([np.empty(0, bool), *may_change])
    candidates = np.flatnonzero(changeable)
    all_scores = np.concatenate([np.empty(0), *scores])[candidates]
    chosen = np.zeros(len(changeable), bool)
    chosen[candidates[row_choice.most_suspect(all_scores, share)]] = True
    ends = np.cumsum([len(row_T) for row_T in may_change])
    return np.split(chosen, ends[:-1])


def _redrawn(
    records: Sequence[Record],
    rows: Sequence[Row],
    places: Sequence[np.ndarray],
    step: Step,
    judge: Judge,
) -> tuple[list[Record], int]:
    """The records with digits drawn anew, and the number of these digits."""
    draw: washing.Draw = "uniform" if step.options.get("draw") == "uniform" else "base"
    completions = washing.redrawn(
        judge.model,
        rows,
        places,
        [f"{STREAM}/{record.id}" for record in records],
        judge.config.seed,
        draw,
        judge.config.pass_rows,
        judge.done,
    )
    results = []
    for record, row, completion in zip(records, rows, completions, strict=True):
        if completion == row.completion_ids:
            results.append(record)
            continue
        ids = completion if record.completion_ids and not judge.config.text else None
        text = answer_text(judge.model, completion)
        results.append(_changed(record, replace(record, completion=text, completion_ids=ids), step))
    return results, int(sum(row_T.sum() for row_T in places))


def _answered(
    records: Sequence[Record], rows: Mapping[int, Row], judge: Judge
) -> dict[int, tuple[int, ...] | None]:
    """The base's answers to some rows, by their places; None where none of TRIES answers ended."""
    answers: dict[int, tuple[int, ...] | None] = dict.fromkeys(rows)
    for attempt in range(TRIES):
        waiting = [place for place, answer in answers.items() if answer is None]
        if not waiting:
            break
        prompts, keys = [], []
        for place in waiting:
            prompts.append(rows[place].prompt_ids)
            keys.append(f"{STREAM}/{records[place].id}/{attempt}")
        for place, ids in zip(waiting, _sampled(prompts, keys, judge), strict=True):
            has_ended = ids[-1] in judge.model.end_ids
            if has_ended and answer_text(judge.model, ids).strip():
                answers[place] = tuple(ids)
    return answers


def _sampled(
    prompts: Sequence[Sequence[int]], keys: Sequence[str], judge: Judge
) -> list[list[int]]:
    """The base's answers at temperature 1, as token ids."""
    config = judge.config
    sampling = Sampling(1.0, config.max_new_tokens, config.seed)
    with applied(judge.model, []) as active:
        return decode(judge.model, active, prompts, keys, sampling, batch_size=config.pass_rows)
