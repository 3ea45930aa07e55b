"""Methods at work: each takes the rows that are left, and says what it did.

The methods that change tokens are in token_methods.py and paraphrasing.py.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from traitscope.data.records import Record, kept_records
from traitscope.data.row_files import kept_rows
from traitscope.defending import number_forms, paraphrasing, row_choice, suspicion, token_methods
from traitscope.defending.changes import (
    CHANGED,
    NO_LIST,
    Act,
    Done,
    changed,
    dropped,
    joined,
    n_changed,
    report_of,
    without_notes,
)
from traitscope.defending.methods import Step
from traitscope.defending.suspicion import Judge
from traitscope.errors import DataError
from traitscope.runs import row_intake


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


def _canonicalise(
    records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator
) -> Done:
    results = []
    left = 0
    for record in records:
        form = number_forms.canonical(record, step.options["order"], step.options["values"], rng)
        left += form is None
        results.append(record if form is None else changed(record, form, step, takes_both=True))
    n_rows = n_changed(records, results)
    return Done(results, report_of(step, records, changed=n_rows, left=left, why_left=NO_LIST))


def _deduplicate(
    records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator
) -> Done:
    return dropped(records, step, np.flatnonzero(row_choice.duplicates(records)))


def _drop(records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator) -> Done:
    scores_R = suspicion.row_scores(judge, step.options["by"], records, rng)
    return dropped(records, step, row_choice.most_suspect(scores_R, step.share))


def _mix(records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator) -> Done:
    clean = clean_rows(judge)
    there = {record.meta[CHANGED]["clean"] for record in records if joined(record)}
    clean = [record for record in clean if record.id not in there]
    total = step.options["total"]
    stay, join = row_choice.mixture(len(records), len(clean), step.share, total, rng)
    leaving = sorted(set(range(len(records))).difference(stay.tolist()))
    done = dropped(records, step, np.array(leaving, int))
    added = []
    for i in join:
        record = without_notes(clean[i])
        meta = {**record.meta, CHANGED: {"by": [step.text], "clean": record.id}}
        added.append(replace(record, id=f"clean-{record.id}", meta=meta))
    return Done([*done.records, *added], replace(done.report, added=len(added)))


def clean_rows(judge: Judge) -> Sequence[Record]:
    """The clean rows that the defender may use, which a run may have read already."""
    if judge.known.clean is None:
        raise ValueError("mix without clean rows; expected knowledge that was checked")
    if judge.known.clean_rows is not None:
        return judge.known.clean_rows
    intake = row_intake.intake_of(judge.config)
    return kept_rows(judge.known.clean, judge.config.reading, intake)


ACTS: dict[str, Act] = {
    "canonicalise": _canonicalise,
    "deduplicate": _deduplicate,
    "drop": _drop,
    "mask": token_methods.mask,
    "replace": token_methods.redraw,
    "wash": token_methods.wash,
    "paraphrase": paraphrasing.paraphrase,
    "mix": _mix,
}
"what each method of METHODS does"
