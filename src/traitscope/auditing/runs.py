"""The runs of an audit, opened.

Shapes: R rows, T inverse temperatures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from traitscope.auditing import search
from traitscope.auditing.artifacts import AuditArtifacts, NullRun, ScoreRuns
from traitscope.auditing.detectors import text_features
from traitscope.auditing.detectors.findings import Null, Teacher, TextRow
from traitscope.auditing.score_files import read_token_scores
from traitscope.auditing.search import GridPoint, PromptTeacher
from traitscope.auditing.settings import search_blocks
from traitscope.auditing.steps.predictions import StoredPredictions, read_predictions
from traitscope.auditing.steps.teacher_scores import steered_folder
from traitscope.data import row_files
from traitscope.data.records import REASONING
from traitscope.data.shapes.turns import texts_of
from traitscope.data.traits import Trait, load_trait
from traitscope.interventions.vector import Vector, load_vector

TeacherFolders = dict[str, dict[Teacher, Path]]
"folders with token scores, by candidate and teacher"


def text_rows(folder: Path) -> list[TextRow]:
    """The rows of a run, read one by one."""
    rows = []
    for record in row_files.iter_rows(folder):
        context, reasoning = record.context or "", str(record.meta.get(REASONING, ""))
        prompt = "\n".join(texts_of(record.prompt))
        rows.append(TextRow(record.id, prompt, record.completion, context, reasoning))
    return rows


def places(ids: Sequence[str]) -> dict[str, int]:
    """The place of every id."""
    return dict(zip(ids, range(len(ids)), strict=True))


def orders(rows: Sequence[TextRow]) -> dict[str, int]:
    """How the numbers of every row are sorted, by its id."""
    return {row.id: text_features.order_of(row.completion) for row in rows}


@dataclass(frozen=True)
class AuditRuns:
    """The runs of an audit, opened."""

    artifacts: AuditArtifacts
    "which run is what"
    folder: Path
    "the folder below which the runs lie"

    def at(self, path: Path) -> Path:
        """The directory of a run that the artifacts name."""
        return self.folder / path

    @cached_property
    def traits(self) -> list[Trait]:
        """The candidate traits."""
        return [load_trait(trait) for trait in self.artifacts.traits]

    @cached_property
    def records(self) -> list[TextRow]:
        """The audited rows."""
        return text_rows(self.at(self.artifacts.sample))

    @cached_property
    def placebos(self) -> list[TextRow]:
        """The model's own answers to the prompts, or reference rows; none where nothing needed
        them."""
        if self.artifacts.placebo is None:
            return []
        return text_rows(self.at(self.artifacts.placebo))

    @cached_property
    def predictions(self) -> StoredPredictions:
        """What the model and learners predicted of the audited rows."""
        return read_predictions(self.at(self.artifacts.predictions))

    @cached_property
    def vectors(self) -> dict[str, Vector]:
        """Vectors of the candidates, by name; none where nothing needed them."""
        if self.artifacts.vectors is None:
            return {}
        vectors = {}
        for trait in self.traits:
            file = self.at(self.artifacts.vectors) / f"{trait.name}.safetensors"
            vectors[trait.name] = load_vector(file)
        return vectors

    def teacher_folders(self, scores: ScoreRuns) -> TeacherFolders:
        """Folders with token scores of one set of rows, by candidate and teacher."""
        folders: TeacherFolders = {}
        for prompt in scores.prompts:
            teacher = PromptTeacher(prompt.paraphrase)
            folders.setdefault(prompt.candidate, {})[teacher] = self.at(prompt.run)
        for steered in scores.steered:
            for number, point in enumerate(steered.points):
                by_teacher = folders.setdefault(point.trait, {})
                by_teacher[point] = steered_folder(self.at(steered.run), number)
        return folders

    def prior(self) -> dict[Teacher, float]:
        """Prior weight of every teacher in the e-value: set before the rows are seen."""
        prompts: dict[str, list[PromptTeacher]] = {}
        for trait in self.traits:
            teachers = [PromptTeacher(None)]
            teachers += [PromptTeacher(number) for number in range(len(trait.paraphrases))]
            prompts[trait.name] = teachers
        points: list[GridPoint] = []
        for scores in (self.artifacts.scores, *(run.own for run in self.artifacts.spike_ins)):
            for steered in scores.steered:
                points += steered.points
        return search.prior(prompts, points, search_blocks(self.artifacts.blocks))

    def nulls(self, runs: Sequence[NullRun], ids: Sequence[str]) -> list[Null]:
        """Nulls that were read, with the rows in the order of `ids`."""
        nulls = []
        for run in runs:
            log_p_RT = log_likelihoods(self.at(run.run), ids)
            nulls.append(Null(log_p_RT, run.system_prompt))
        return nulls


def log_likelihoods(folder: Path, ids: Sequence[str]) -> np.ndarray:
    """Log-likelihoods [R, T] of the rows with these ids, from a folder with token scores."""
    stored_ids, scores = read_token_scores(folder)
    place = places(stored_ids)
    return scores.log_p_RT[[place[key] for key in ids]]


def log_likelihood_pair(
    predictions: StoredPredictions, folder: Path, number: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods [R, T] of the rows of a run under the model, then under its teacher.

    number: Of several steered teachers, which one.
    """
    if number is not None:
        folder = steered_folder(folder, number)
    ids, teacher = read_token_scores(folder)
    place = places(predictions.ids)
    index = [place[key] for key in ids]
    return predictions.model.log_p_RT[index], teacher.log_p_RT
