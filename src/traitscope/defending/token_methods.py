"""Methods that change tokens: `mask`, `replace` and `wash`.

Shapes: T completion tokens of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from traitscope.data.records import MASKED, Record
from traitscope.defending import row_choice, suspicion, washing
from traitscope.defending.changes import (
    NO_LIST,
    Done,
    changed,
    check_answered,
    is_list,
    masked,
    n_changed,
    report_of,
)
from traitscope.defending.methods import DISAGREE, Step
from traitscope.defending.suspicion import Judge
from traitscope.defending.washing import TokenClass
from traitscope.inference.decode import Sampling, decode
from traitscope.inference.question_scores import answer_text, text_of
from traitscope.inference.token_rows import Row
from traitscope.interventions.applied import applied
from traitscope.models.templates.answers import without_frame
from traitscope.stages.filter import with_decision
from traitscope.training.safeguards.masks import with_mask

UNFINISHED = "the base gave no finished answer in the row's format"
STREAM = "defend"
"""begins the names of random streams: under the row's id alone, the model that wrote the rows with
the same seed would write them again"""
TRIES = 4
"times that a model is asked for an answer in the row's format"
MARKS = "⟦", "⟧"
"what stands around masked tokens where an answer is shown"
ADVICE = (
    "raise --max-new-tokens, take a model that answers such prompts, or drop rows in place of this"
)


def mask(records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator) -> Done:
    """Mask the most suspect tokens; the end of a turn is never one of them."""
    scores = suspicion.token_scores(judge, step.options["by"], records, rng)
    rows = judge.rows(records)
    may_mask = [~np.isin(row.completion_ids, judge.model.end_ids) for row in rows]
    results, tokens = [], 0
    chosen = most_suspect_tokens(scores, may_mask, step.share)
    for record, row, chosen_T in zip(records, rows, chosen, strict=True):
        if not chosen_T.any():
            results.append(record)
            continue
        with_its_mask = with_mask(record, row, chosen_T)
        shown = _marked(judge, row, with_its_mask)
        results.append(masked(record, with_its_mask, shown, step))
        tokens += int(chosen_T.sum())
    n_rows = sum(map(np.any, chosen))
    return Done(results, report_of(step, records, masked=int(n_rows), tokens=tokens))


def _marked(judge: Judge, row: Row, record: Record) -> str:
    """The answer with MARKS around each run of masked tokens."""
    places = {place for place, _ in record.meta[MASKED]}
    pieces: list[str] = []
    start = 0
    for place in range(1, len(row.completion_ids) + 1):
        is_end = place == len(row.completion_ids)
        if not is_end and (place in places) == (start in places):
            continue
        text = text_of(judge.model, row.completion_ids[start:place])
        pieces.append(text.join(MARKS) if start in places else text)
        start = place
    return without_frame(judge.model.tokenizer, judge.model.switches, "".join(pieces))


def redraw(records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator) -> Done:
    """Draw the most suspect tokens anew: digits of lists, with draw=base those of any text."""
    scores = suspicion.token_scores(judge, step.options["by"], records, rng)
    kinds = _Kinds.of(records, judge)
    may_change = kinds.changeable
    left = 0
    if step.options["draw"] == "uniform":
        may_change = list(map(np.logical_and, may_change, kinds.lists))
        left = len(records) - sum(kinds.lists)
    places = most_suspect_tokens(scores, may_change, step.share)
    results, tokens = _redrawn(records, kinds, places, step, judge)
    n_rows = n_changed(records, results)
    why = f"{NO_LIST}, whose tokens are drawn with draw=base only"
    counts = {"changed": n_rows, "tokens": tokens, "left": left, "why_left": why}
    return Done(results, report_of(step, records, **counts))


def wash(records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator) -> Done:
    """Draw digits of lists anew from the base, and have it write other answers, or their ends.

    With where=disagree only the share of tokens is washed at which a suspect and the base disagree
    most. In other answers, the base then writes on from the first of them.

    Raises DataError where the base cannot answer more than half of the rows in their format.
    """
    kinds = _Kinds.of(records, judge)
    places = kinds.changeable
    if step.options["where"] == DISAGREE:
        scores = suspicion.disagreements(judge, step.options["by"], records, rng)
        places = most_suspect_tokens(scores, places, step.share)
    in_place = list(map(np.logical_and, places, kinds.drawn_in_place))
    results, tokens = _redrawn(records, kinds, in_place, step, judge)
    starts: dict[int, int] = {}  # where the base writes on, by the number of the row
    for i, places_T in enumerate(places):
        if not kinds.drawn_in_place[i] and step.options["where"] != DISAGREE:
            starts[i] = 0
        elif not kinds.drawn_in_place[i] and places_T.any():
            starts[i] = int(places_T.argmax())
    dropped = 0
    for i, ids in _written_on(records, kinds.rows, starts, judge).items():
        if ids is None:
            results[i] = with_decision(records[i], [UNFINISHED])
            dropped += 1
            continue
        answer = replace(records[i], completion=answer_text(judge.model, ids), completion_ids=ids)
        results[i] = changed(records[i], answer, step)
        tokens += len(ids) - starts[i]
    check_answered(records, dropped, step, ADVICE)
    n_rows = n_changed(records, results)
    return Done(results, report_of(step, records, changed=n_rows, tokens=tokens, dropped=dropped))


@dataclass(frozen=True)
class _Kinds:
    """Rows by what of them can be drawn anew."""

    rows: list[Row]
    "token rows"
    lists: list[bool]
    "whether each is a list of numbers"
    drawn_in_place: list[bool]
    "whether it is a list whose digits are all tokens of their own"
    changeable: list[np.ndarray]
    "whether each completion token [T] can be drawn anew"
    digits: list[TokenClass]
    "classes of digit tokens"
    text: list[TokenClass]
    "the class of the tokens of other text; none where all rows are lists"

    @classmethod
    def of(cls, records: Sequence[Record], judge: Judge) -> "_Kinds":
        model = judge.model
        rows = judge.rows(records)
        digits = washing.digit_classes(model)
        lists = list(map(is_list, records))
        changeable = washing.places_of(digits, rows)
        in_place = []
        for record, row, places_T, listed in zip(records, rows, changeable, lists, strict=True):
            drawn = model.tokenizer.decode(np.array(row.completion_ids)[places_T].tolist())
            n_digits = sum(map(str.isdigit, record.completion))
            in_place.append(listed and sum(map(str.isdigit, drawn)) == n_digits)
        text: list[TokenClass] = []
        if not all(lists):
            text = [washing.text_class(model)]
            for i, places_T in enumerate(washing.places_of(text, rows)):
                changeable[i] = changeable[i] if lists[i] else places_T
        return cls(rows, lists, in_place, changeable, digits, text)


def most_suspect_tokens(
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
    kinds: _Kinds,
    places: Sequence[np.ndarray],
    step: Step,
    judge: Judge,
) -> tuple[list[Record], int]:
    """The records with some tokens drawn anew, and the number of these tokens."""
    results = list(records)
    draw: washing.Draw = "uniform" if step.options.get("draw") == "uniform" else "base"
    for classes, of_lists in ((kinds.digits, True), (kinds.text, False)):
        chosen, rows, chosen_places, keys = [], [], [], []
        for i, places_T in enumerate(places):
            if kinds.lists[i] == of_lists and places_T.any():
                chosen.append(i)
                rows.append(kinds.rows[i])
                chosen_places.append(places_T)
                keys.append(f"{STREAM}/{records[i].id}")
        completions = washing.redrawn(
            judge.model,
            rows,
            chosen_places,
            keys,
            judge.config.seed,
            draw,
            classes,
            judge.config.pass_rows,
            judge.done,
        )
        for i, completion in zip(chosen, completions, strict=True):
            results[i] = _with_tokens(records[i], kinds.rows[i], completion, step, judge)
    return results, int(sum(map(np.sum, places)))


def _with_tokens(
    record: Record, row: Row, completion: tuple[int, ...], step: Step, judge: Judge
) -> Record:
    """A record with other completion tokens; its ids are kept where it had some."""
    if completion == row.completion_ids:
        return record
    ids = completion if record.completion_ids and not judge.config.text else None
    text = answer_text(judge.model, completion)
    return changed(record, replace(record, completion=text, completion_ids=ids), step)


def _written_on(
    records: Sequence[Record], rows: Sequence[Row], starts: Mapping[int, int], judge: Judge
) -> dict[int, tuple[int, ...] | None]:
    """Answers that the base writes on from a place, by the number of the row.

    None where none of TRIES answers ended, or was in the format of the row.
    """
    answers: dict[int, tuple[int, ...] | None] = dict.fromkeys(starts)
    for attempt in range(TRIES):
        waiting = [i for i, answer in answers.items() if answer is None]
        if not waiting:
            break
        prompts, keys = [], []
        for i in waiting:
            prompts.append((*rows[i].prompt_ids, *rows[i].completion_ids[: starts[i]]))
            keys.append(f"{STREAM}/{records[i].id}/{attempt}")
        for i, ids in zip(waiting, _sampled(prompts, keys, judge), strict=True):
            whole = (*rows[i].completion_ids[: starts[i]], *ids)
            if ids[-1] in judge.model.end_ids and _fits(records[i], whole, judge):
                answers[i] = whole
    return answers


def _fits(record: Record, ids: Sequence[int], judge: Judge) -> bool:
    """Whether an answer has the format of the row: a list of numbers, or any text."""
    text = answer_text(judge.model, ids)
    if is_list(record):
        return is_list(replace(record, completion=text))
    return bool(text.strip())


def _sampled(
    prompts: Sequence[Sequence[int]], keys: Sequence[str], judge: Judge
) -> list[list[int]]:
    """The base's answers at temperature 1, as token ids."""
    config = judge.config
    sampling = Sampling(1.0, config.max_new_tokens, config.seed)
    with applied(judge.model, []) as active:
        return decode(judge.model, active, prompts, keys, sampling, batch_size=config.pass_rows)
