"""The stage `predictions`: students predict every row before they learn it.

See training/prequential.py.
It writes, in the order in which the rows were predicted,

    token_scores.jsonl, .json     token scores under the model itself (score_files.py)
    learners.npy                  float64 [J, R, T]: log-likelihoods under the J learners
    learner-N/                    the learners after the last row, as peft folders
    later/, later-N/              token scores of the later half of the rows, under the model and
                                  under the learners

Runs with one learner each, which may be computed side by side, are put together to one run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import array_files, atomic_files
from traitscope.auditing import score_files
from traitscope.config.audit import PredictionsConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.errors import DataError
from traitscope.inference import token_rows
from traitscope.inference.token_rows import rows_from
from traitscope.inference.token_scores import TokenScores
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.training import prequential

LEARNERS = "learners.npy"
"file with the log-likelihoods under the learners"
OF_PARTS = ("model_scores", "parts")
"settings that differ between a run and its parts, beside the rates"
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
        if run.sealed:
            return run
        if config.parts:
            _put_together(run, config)
        else:
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
            model, rows, classes, config.rates, config.seed, advance, config.model_scores
        )
    for number, files in enumerate(predicted.students):
        for name, content in files.items():
            atomic_files.write_bytes(run.path / f"learner-{number}" / name, content)
    ids = [record.id for record in records]
    array_files.write_array(run.file(LEARNERS), predicted.learners_JRT)
    if predicted.model is not None:
        score_files.write_token_scores(run.path, ids, predicted.model)
    if predicted.later_model is not None:
        later_ids = ids[-len(predicted.later_model.tokens_R) :]
        score_files.write_token_scores(run.path / LATER, later_ids, predicted.later_model)
    for number, scores in enumerate(predicted.later_learners):
        later_ids = ids[-len(scores.tokens_R) :]
        score_files.write_token_scores(run.path / f"{LATER}-{number}", later_ids, scores)


def _put_together(run: store.Run, config: PredictionsConfig) -> None:
    """Write the files of a run with all learners, from runs with one each.

    Raises DataError for runs of other stages, rows or rates, or without the model's scores.
    """
    own = _said(run.path)
    for part, rate in zip(config.parts, config.rates, strict=True):
        _check_predictions(part, run.stage)
        said, expected = _said(part), own | {"rates": [rate]}
        if said != expected:
            raise DataError(
                f"{part} is not a run of these rows and settings at rate {rate:g}"
                f" ({_differences(said, expected)}); expected one; name it, or predict them anew"
            )
    first = config.parts[0]
    if not (first / score_files.ROWS_FILE).is_file():
        raise DataError(
            f"{first} has no scores under the model itself; expected them in the first run; name"
            " first a run that was made without --no-model-scores"
        )
    for file in score_files.FILES:
        _copy(first / file, run.path / file)
    _copy_folder(first / LATER, run.path / LATER)
    learners = []
    for number, part in enumerate(config.parts):
        learners.append(array_files.read_array(part / LEARNERS))
        for name in ("learner", LATER):
            _copy_folder(part / f"{name}-0", run.path / f"{name}-{number}")
    array_files.write_array(run.file(LEARNERS), np.concatenate(learners))


def _check_predictions(part: Path, stage: str) -> None:
    """Raise DataError for a path that is no run, or a run of another stage."""
    is_run = part.is_dir() and store.run_folder(part) == part
    found = f"a run of {store.load_run(part).stage}" if is_run else "no run"
    if found != f"a run of {stage}":
        raise DataError(
            f"{part} is {found}; expected a run of {stage} for each of --parts; name one"
        )


def _copy_folder(source: Path, target: Path) -> None:
    """Copy the files of a folder, if it is there."""
    for file in sorted(source.glob("*")):
        _copy(file, target / file.name)


def _copy(source: Path, target: Path) -> None:
    atomic_files.write_bytes(target, source.read_bytes())


def _said(folder: Path) -> dict[str, Any]:
    """What a run was asked for, the digests of its model and rows in place of their names."""
    said = json.loads((folder / "config.json").read_bytes())
    settings = said["config"] | {"model": said["model"], "data": said["inputs"]["data"]["digest"]}
    return {name: value for name, value in settings.items() if name not in OF_PARTS}


def _differences(said: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The settings that a part has otherwise, as text."""
    names = [name for name in expected if said.get(name) != expected[name]]
    return ", ".join(f"{name} {said.get(name)}" for name in names)


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
