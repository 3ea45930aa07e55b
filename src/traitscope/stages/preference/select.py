"""The stage `select`: a teacher chooses among pairs of answers that others wrote.

It keeps the pairs whose chosen answer it moves up most, or says itself which of both is preferred.
Nothing is deleted: a pair that is not kept has the reason `not_selected`. Controls are the same
number of pairs at random (`--by random`), and the selection of another trait's teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.rows.select import SelectConfig
from traitscope.data.records import REASONING, Record, dump_records
from traitscope.data.row_files import RECORDS
from traitscope.data.shapes import writing
from traitscope.data.shapes.pairs import NOT_A_PAIR
from traitscope.errors import ConfigError, DataError
from traitscope.inference.token_rows import row_check
from traitscope.interventions import short_form
from traitscope.plurals import counted
from traitscope.runs import model_cache, opening, row_intake, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stages.filter import with_decision
from traitscope.stages.preference.scores import PairScores, pair_scores
from traitscope.training.preference.pairs import pair_check

SCORES = "scores.jsonl"
"file of a run with the score of every pair"
NOT_SELECTED = "not_selected"
"reason of a pair that is not kept"


@dataclass(frozen=True)
class Choice:
    """What becomes of each pair."""

    kept: tuple[bool, ...]
    """Whether it is kept."""
    swapped: tuple[bool, ...]
    """Whether its answers change places."""


def number_kept(pairs: int, share: float) -> int:
    """How many of some pairs a share is; at least 1. Scores do not change it."""
    return max(1, round(share * pairs))


def chosen_by_score(scores: Sequence[float], share: float, relabel: bool = False) -> Choice:
    """The choice of a teacher with these scores.

    The highest scores are kept; of equal ones the first. With relabel the largest scores of either
    sign are kept, and answers change places where the score is below 0.

    Raises ConfigError where all scores are 0, because nothing orders the pairs.
    """
    if not any(scores):
        raise ConfigError(
            f"--interventions moves no log-odds: all scores of {counted(len(scores), 'pair')} are"
            " 0, so nothing orders them; expected a teacher that differs from the model; name"
            " other interventions, or take --by random"
        )
    values = np.asarray(scores)
    order = np.argsort(-np.abs(values) if relabel else -values, kind="stable")
    kept = np.zeros(len(values), dtype=bool)
    kept[order[: number_kept(len(values), share)]] = True
    swapped = (values < 0) if relabel else np.zeros(len(values), dtype=bool)
    return Choice(tuple(kept.tolist()), tuple(swapped.tolist()))


def chosen_at_random(pairs: int, share: float, relabel: bool = False, seed: int = 0) -> Choice:
    """The control: as many pairs at random; with relabel each label is drawn as well."""
    rng = np.random.default_rng(seed)
    kept = np.zeros(pairs, dtype=bool)
    kept[rng.permutation(pairs)[: number_kept(pairs, share)]] = True
    swapped = rng.random(pairs) < 0.5 if relabel else np.zeros(pairs, dtype=bool)
    return Choice(tuple(kept.tolist()), tuple(swapped.tolist()))


def selected(records: Sequence[Record], choice: Choice) -> list[Record]:
    """The pairs in their order, each with the decision, and with its answers swapped where they
    are."""
    decided = []
    for record, kept, swapped in zip(records, choice.kept, choice.swapped, strict=True):
        if swapped:
            record = replace(
                record,
                completion=record.rejected or "",
                completion_ids=record.rejected_ids,
                rejected=record.completion,
                rejected_ids=record.completion_ids,
            )
        decided.append(with_decision(record, [] if kept else [NOT_SELECTED]))
    return decided


def paired(records: Sequence[Record], others: Sequence[Record]) -> list[Record]:
    """The records with the answers of others to the same prompts, by id, as rejected ones.

    A record without such an answer is no pair, and says why. Raises DataError for records that have
    rejected answers already.
    """
    by_id = {record.id: record for record in others}
    pairs = []
    for record in records:
        if record.rejected is not None:
            raise DataError(
                f"row {record.id!r} of --data has a rejected answer, and --rejected names another;"
                " expected one of them; drop --rejected, or name rows of single answers"
            )
        pairs.append(_paired(record, by_id.get(record.id)))
    return pairs


def _paired(record: Record, other: Record | None) -> Record:
    if other is None:
        fault = "no row of --rejected has its id; expected a second answer to its prompt"
    elif (other.prompt, other.context) != (record.prompt, record.context):
        fault = "the row of --rejected with its id has another prompt; expected the same one"
    else:
        return replace(record, rejected=other.completion, rejected_ids=other.completion_ids)
    fault += "; delete the row, or answer its prompt again"
    return replace(record, meta={**record.meta, NOT_A_PAIR: fault})


def run_select(config: SelectConfig, out: Output) -> store.Run:
    """Return the sealed run with every pair and its decision (`records.jsonl`), `scores.jsonl` and
    `summary.json`.

    Of a file of pairs, the run also holds the kept ones in the shape and the container that they
    came in.
    """
    config.check_teacher()
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            records, scores = _scored(run, config)
            _write(run, config, records, scores)
    return run


def _scored(run: store.Run, config: SelectConfig) -> tuple[list[Record], PairScores | None]:
    """The pairs of a config and their scores; no scores where chance chooses."""
    keep_original = config.rejected is None
    records = row_intake.kept_rows(run, config, keep_original)
    others = None
    if config.rejected is not None:
        others = row_intake.kept_rows(run, config, field="rejected")

    def choose(records: Sequence[Record]) -> Sequence[Record]:
        return (records if others is None else paired(records, others))[: config.max_rows]

    model = model_cache.model_of(config)
    interventions = short_form.parse_all(config.interventions)
    check = pair_check(row_check(model, config.context, config.text, interventions))

    def check_all(record: Record) -> None:
        check(record)
        if config.relabel:
            _check_no_reasoning(record, config)

    pairs = row_intake.readable(
        run, config, records, check_all, choose, keep_original=keep_original
    )
    if not interventions:
        return pairs, None
    with progress("select", 4 * len(pairs), "answers") as advance:
        scores = pair_scores(
            model,
            pairs,
            interventions,
            context=config.context,
            text=config.text,
            per_token=config.per_token,
            batch_size=config.batch_size,
            done=advance,
        )
    return pairs, scores


def _check_no_reasoning(record: Record, config: SelectConfig) -> None:
    """Raise DataError for reasoning that would stay where another answer comes to stand."""
    if REASONING in record.meta and config.reading.reasoning == "drop":
        raise DataError(
            "it has reasoning, which --relabel would leave before the other answer; expected"
            " answers without any; delete the row, or take --reasoning train"
        )


def _write(
    run: store.Run, config: SelectConfig, records: Sequence[Record], scores: PairScores | None
) -> None:
    if scores is None:
        choice = chosen_at_random(len(records), config.share, config.relabel, config.seed)
    else:
        choice = chosen_by_score(scores.scores, config.share, config.relabel)
    decided = selected(records, choice)
    if config.rejected is None:
        row_intake.write_rows(run, decided, config.data)
    else:
        bare = writing.without_original(decided)
        atomic_files.write_text(run.file(RECORDS), dump_records(bare))
    lines = _lines(records, scores, choice)
    for line in lines:
        atomic_files.append_jsonl(run.file(SCORES), line)
    atomic_files.write_json(run.file("summary.json"), _summary(lines, scores))


def _lines(
    records: Sequence[Record], scores: PairScores | None, choice: Choice
) -> list[dict[str, Any]]:
    """What is said of each pair; log-odds where they were asked for."""
    lines = []
    values = [] if scores is None else scores.scores
    for number, record in enumerate(records):
        line: dict[str, Any] = {"id": record.id}
        if scores is not None:
            line["tokens"] = list(scores.tokens[number])
            line["base"] = round(scores.base[number], 6)
            line["under"] = round(scores.under[number], 6)
            line["score"] = round(values[number], 6)
        line["kept"], line["swapped"] = choice.kept[number], choice.swapped[number]
        lines.append(line)
    return lines


def _summary(lines: Sequence[dict[str, Any]], scores: PairScores | None) -> dict[str, Any]:
    """Numbers of pairs; where there are scores, their means towards the preferred answer, nats."""
    kept = [line for line in lines if line["kept"]]
    about: dict[str, Any] = {
        "rows": len(lines),
        "kept": len(kept),
        "swapped": sum(line["swapped"] for line in kept),
    }
    if scores is not None:
        of_kept = [-line["score"] if line["swapped"] else line["score"] for line in kept]
        about["mean_score"] = round(float(np.mean(scores.scores)), 6)
        about["mean_score_kept"] = round(float(np.mean(of_kept)), 6)
        about["kept_below_0"] = int(np.sum(np.asarray(of_kept) < 0))
    return about
