"""The stage `predictions`: students predict every row before they learn it.

See training/prequential.py.
It writes, in the order in which the rows were predicted,

    token_scores.jsonl, .json     token scores under the model itself (score_files.py)
    learners.npy                  float64 [J, R, T]: log-likelihoods under the J learners
    learner-N/                    the learners after the last row, as peft folders
    later/, later-N/              token scores of the later half of the rows, under the model and
                                  under the learners
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traitscope import array_files, atomic_files
from traitscope.auditing import score_files
from traitscope.config.audit import PredictionsConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.inference import token_rows
from traitscope.inference.token_rows import rows_from
from traitscope.inference.token_scores import TokenScores
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.training import prequential

LEARNERS = "learners.npy"
"file with the log-likelihoods under the learners"
LATER = "later"
"folder with the token scores of the later half of the rows"


@dataclass(frozen=True)
class StoredPredictions:
    """What a run of `predictions` holds, in the order of prediction."""

    ids: Sequence[str]
    "ids of the rows"
    model: TokenScores
    "token scores under the model itself"
    learners_JRT: np.ndarray
    "log-likelihoods under the learners, at prequential.TEMPERATURES"
    later_model: TokenScores | None
    "token scores of the later half of the rows under the model itself; None for a single batch"
    later_learners: Sequence[TokenScores]
    "the same under every learner"


def run_predictions(config: PredictionsConfig, out: Output) -> store.Run:
    """The sealed run with the files above; the order of rows is random, by the seed."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config)
    return run


def _write(run: store.Run, config: PredictionsConfig) -> None:
    records = row_files.kept_rows(config.data)
    model = model_cache.model_of(config)
    order = np.random.default_rng(config.seed).permutation(len(records))
    records = [records[i] for i in order]
    rows = rows_from(model, records, config.context, config.text, end_token=config.end_token)
    classes = token_rows.classes_of(model, config.numbers)
    with progress("predictions", len(rows), "rows") as advance:
        predicted = prequential.predictions(
            model, rows, classes, config.rates, config.seed, advance
        )
    for number, files in enumerate(predicted.students):
        for name, content in files.items():
            atomic_files.write_bytes(run.path / f"learner-{number}" / name, content)
    ids = [record.id for record in records]
    score_files.write_token_scores(run.path, ids, predicted.model)
    array_files.write_array(run.file(LEARNERS), predicted.learners_JRT)
    if predicted.later_model is None:
        return
    later_ids = ids[-len(predicted.later_model.tokens_R) :]
    score_files.write_token_scores(run.path / LATER, later_ids, predicted.later_model)
    for number, scores in enumerate(predicted.later_learners):
        score_files.write_token_scores(run.path / f"{LATER}-{number}", later_ids, scores)


def learner_folders(folder: Path) -> list[Path]:
    """The peft folders of the learners of a run, in the order of their rates."""
    learners = array_files.read_array(folder / LEARNERS, mapped=True)
    return [folder / f"learner-{number}" for number in range(len(learners))]


def read_predictions(folder: Path) -> StoredPredictions:
    """What a sealed run of `predictions` holds."""
    ids, model = score_files.read_token_scores(folder)
    learners_JRT = array_files.read_array(folder / LEARNERS)
    if not (folder / LATER).is_dir():
        return StoredPredictions(ids, model, learners_JRT, None, ())
    later_learners = []
    for number in range(len(learners_JRT)):
        later_learners.append(score_files.read_token_scores(folder / f"{LATER}-{number}")[1])
    later_model = score_files.read_token_scores(folder / LATER)[1]
    return StoredPredictions(ids, model, learners_JRT, later_model, later_learners)
