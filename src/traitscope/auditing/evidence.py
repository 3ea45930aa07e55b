"""Evidence: what the runs of an audit hold, read for the detectors and for the decision.

Shapes: R rows, K rows a prompt (the audited one first), T inverse temperatures, L blocks,
D d_model, N clean rows.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from traitscope.auditing import search
from traitscope.auditing.artifacts import AuditArtifacts, ScoreRuns
from traitscope.auditing.detectors import gradients, text_features
from traitscope.auditing.detectors.findings import (
    AuditData,
    ByTeacher,
    Likelihoods,
    Null,
    PairedRows,
    Teacher,
    TextRow,
)
from traitscope.auditing.detectors.predictions import PredictedRows
from traitscope.auditing.detectors.row_gradients import RowGradients, read_row_gradients
from traitscope.auditing.search import GridPoint, PromptTeacher
from traitscope.auditing.settings import search_blocks
from traitscope.auditing.steps.predictions import read_predictions
from traitscope.auditing.steps.teacher_scores import steered_folder
from traitscope.data import row_files
from traitscope.data.traits import load_trait
from traitscope.errors import DataError
from traitscope.inference.token_bins import PLAIN
from traitscope.inference.token_scores import TokenScores, read_token_scores, under_samplers
from traitscope.interventions.vector import Vector, load_vector
from traitscope.training import prequential

CLEAN_ROWS = 1024
"most placebo rows that a covariance is taken from"
TeacherFolders = dict[str, dict[Teacher, Path]]
"folders with token scores, by candidate and teacher"


def text_rows(folder: Path) -> list[TextRow]:
    """The rows of a run, read one by one."""
    rows = []
    for record in row_files.iter_rows(folder):
        rows.append(TextRow(record.id, record.prompt, record.completion))
    return rows


@dataclass(frozen=True)
class AuditRuns:
    """The runs of an audit, opened: gradients stay on disk."""

    artifacts: AuditArtifacts
    "which run is what"
    folder: Path
    "the folder below which the runs lie"

    def at(self, path: Path) -> Path:
        """The directory of a run that the artifacts name."""
        return self.folder / path

    @cached_property
    def vectors(self) -> dict[str, Vector]:
        """Vectors of the candidates and of other traits, by name."""
        vectors = {}
        for file in sorted(self.at(self.artifacts.vectors).glob("*.safetensors")):
            vectors[file.stem] = load_vector(file)
        return vectors

    @cached_property
    def candidates(self) -> list[str]:
        """Names of the candidates."""
        return [load_trait(trait).name for trait in self.artifacts.traits]

    @cached_property
    def data(self) -> RowGradients:
        """Row gradients of the audited rows."""
        return read_row_gradients(self.at(self.artifacts.gradients))

    @cached_property
    def placebos(self) -> list[tuple[list[TextRow], RowGradients]]:
        """Rows and row gradients of every placebo set."""
        sets = []
        for runs in self.artifacts.placebos:
            stored = read_row_gradients(self.at(runs.gradients))
            sets.append((text_rows(self.at(runs.rows)), stored))
        return sets

    @cached_property
    def paired(self) -> PairedRows:
        """The audited rows with their placebos."""
        return paired_rows(text_rows(self.at(self.artifacts.sample)), self.data, self.placebos)

    def paired_spike_in(self, rows: Path, row_gradients: Path) -> PairedRows:
        """The rows of a spike-in teacher with the placebos."""
        stored = read_row_gradients(self.at(row_gradients))
        return paired_rows(text_rows(self.at(rows)), stored, self.placebos)

    @cached_property
    def directions_LTJD(self) -> np.ndarray:
        """Unit directions of all vectors."""
        return gradients.unit_directions(self.vectors, self.clean_gradients())

    def clean_gradients(self) -> np.ndarray:
        """Row gradients [N, L, D] of placebo rows."""
        return self._of_placebos(RowGradients.rows)

    def clean_features(self) -> np.ndarray:
        """Mean residuals [N, L, D] of placebo rows."""
        return self._of_placebos(RowGradients.features)

    def _of_placebos(
        self, values: Callable[[RowGradients, Sequence[int]], np.ndarray]
    ) -> np.ndarray:
        each = -(-CLEAN_ROWS // len(self.placebos))
        arrays = []
        for _, stored in self.placebos:
            arrays.append(values(stored, range(min(each, len(stored.ids)))))
        return np.concatenate(arrays)

    def canary_scores(
        self,
    ) -> dict[str, list[tuple[dict[str, float], dict[str, float]]]]:
        """log P of a trait by question: of a student of the data and of one of a placebo, by
        trait and seed."""
        scores: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {}
        for runs in self.artifacts.canaries:
            pair = (_target_scores(self.at(runs.data)), _target_scores(self.at(runs.placebo)))
            scores.setdefault(runs.trait, []).append(pair)
        return scores

    def teacher_folders(self, scores: ScoreRuns) -> TeacherFolders:
        """Folders with token scores of one set of rows, by candidate and teacher."""
        folders: TeacherFolders = {}
        for prompt in scores.prompts:
            teacher = PromptTeacher(prompt.paraphrase)
            folders.setdefault(prompt.candidate, {})[teacher] = self.at(prompt.run)
        for point, path in self.steered_folders(scores).items():
            folders.setdefault(point.trait, {})[point] = path
        return folders

    def tried_folders(self) -> TeacherFolders:
        """Folders with token scores of audited rows under all teachers, also those beside a
        reference."""
        folders = self.teacher_folders(self.artifacts.scores)
        if self.artifacts.reference is not None:
            beside = self.teacher_folders(self.artifacts.reference.data)
            for name, by_teacher in beside.items():
                folders[name] = by_teacher | folders.get(name, {})
        return folders

    def steered_folders(self, scores: ScoreRuns) -> dict[GridPoint, Path]:
        """Folders with token scores of one set of rows under every steered teacher."""
        folders = {}
        for steered in scores.steered:
            for number, point in enumerate(steered.points):
                folders[point] = steered_folder(self.at(steered.run), number)
        return folders

    def prior(self) -> dict[Teacher, float]:
        """Prior weight of every teacher in the e-value."""
        prompts: dict[str, list[PromptTeacher]] = {}
        for prompt in self.artifacts.scores.prompts:
            teachers = prompts.setdefault(prompt.candidate, [])
            teachers.append(PromptTeacher(prompt.paraphrase))
        points = list(self.steered_folders(self.artifacts.scores))
        for spike_in in self.artifacts.spike_ins:
            points += self.steered_folders(spike_in.own)
        return search.prior(prompts, points, search_blocks(self.artifacts.blocks))


def _target_scores(folder: Path) -> dict[str, float]:
    """log P of the trait's word on every question of a run of `measure`."""
    scores = {}
    for line in (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        scores[row["id"]] = row["target_logprob"]
    return scores


def paired_rows(
    records: Sequence[TextRow],
    data: RowGradients,
    placebos: Sequence[tuple[Sequence[TextRow], RowGradients]],
) -> PairedRows:
    """Rows that have a placebo on the same prompt in every set, with these placebos.

    Raises DataError where no row has.
    """
    places = [_places(data.ids)]
    answers: list[dict[str, str]] = []
    for rows, stored in placebos:
        places.append(_places(stored.ids))
        answers.append({row.id: row.completion for row in rows})
    in_all_sets = set(data.ids).intersection(*places)
    kept = [record for record in records if record.id in in_all_sets]
    if not kept:
        raise DataError(
            "no row has a placebo in every set; expected the model to answer these prompts in the"
            " format of the data; name a --reference"
        )
    texts_RK = []
    pairs = []
    for record in kept:
        texts_RK.append([record.completion, *(by_id[record.id] for by_id in answers)])
        pairs.append([place[record.id] for place in places])
    gradients_of_sets = [data]
    for _, stored in placebos:
        gradients_of_sets.append(stored)
    return PairedRows(kept, texts_RK, gradients_of_sets, pairs)


def _places(ids: Sequence[str]) -> dict[str, int]:
    """The place of every id."""
    return dict(zip(ids, range(len(ids)), strict=True))


def audit_data(runs: AuditRuns, error_share: float, seed: int) -> AuditData:
    """What the detectors read."""
    return AuditData(
        traits=[load_trait(trait) for trait in runs.artifacts.traits],
        rows=runs.paired,
        vectors=runs.vectors,
        directions_LTJD=runs.directions_LTJD,
        canary_scores=runs.canary_scores(),
        error_share=error_share,
        seed=seed,
    )


def likelihoods_of(runs: AuditRuns) -> Likelihoods:
    """How likely the scored rows are under the model, the teachers that were tried and the
    nulls."""
    scores = runs.artifacts.scores
    ids: list[str] = []
    teachers: dict[str, dict[Teacher, np.ndarray]] = {}
    teacher_scores: dict[tuple[str, Teacher], TokenScores] = {}
    for name, by_teacher in runs.teacher_folders(scores).items():
        teachers[name] = {}
        for teacher, folder in by_teacher.items():
            ids, scored = read_token_scores(folder)
            teachers[name][teacher] = scored.log_p_RT
            teacher_scores[name, teacher] = scored
    nulls = []
    for null in scores.nulls:
        null_ids, null_scores = read_token_scores(runs.at(null.run))
        null_place = _places(null_ids)
        null_index = [null_place[key] for key in ids]
        nulls.append(Null(null_scores.log_p_RT[null_index], null.system_prompt))
    place = _places(runs.data.ids)
    order_by_id = _orders(text_rows(runs.at(runs.artifacts.sample)))
    index = [place[key] for key in ids]
    return Likelihoods(
        model_RT=runs.data.scores.log_p_RT[index],
        model_RS=under_samplers(runs.data.scores)[index],
        teachers=teachers,
        nulls=nulls,
        prior=runs.prior(),
        orders_R=np.array([order_by_id[key] for key in ids], int),
        placebo_orders_N=_placebo_orders(runs),
        fit_scores=runs.data.scores,
        model_scores=_scores_of_model(runs, scores),
        teacher_scores=teacher_scores,
        reference_gains=_reference_gains(runs),
    )


def predicted_rows(runs: AuditRuns) -> PredictedRows:
    """What learners predicted of the audited rows, and what the nulls say of them."""
    stored = read_predictions(runs.at(runs.artifacts.predictions))
    nulls = []
    for null in runs.artifacts.scores.nulls:
        if null.system_prompt is not None:
            ids, scores = read_token_scores(runs.at(null.run))
            place = _places(ids)
            index = [place[key] for key in stored.ids]
            nulls.append(Null(scores.log_p_RT[index], null.system_prompt))
    order_by_id = _orders(text_rows(runs.at(runs.artifacts.sample)))
    return PredictedRows(
        model_RT=stored.model.log_p_RT,
        model_RS=under_samplers(stored.model),
        learners_JRT=stored.learners_JRT,
        plain=prequential.TEMPERATURES.index(1.0),
        nulls=nulls,
        orders_R=np.array([order_by_id[key] for key in stored.ids], int),
        placebo_orders_N=_placebo_orders(runs),
        later_model=stored.later_model,
        later_learners=stored.later_learners,
    )


def _placebo_orders(runs: AuditRuns) -> np.ndarray:
    """How the numbers of all placebos are sorted."""
    orders: list[int] = []
    for rows, _ in runs.placebos:
        orders += _orders(rows).values()
    return np.array(orders, int)


def _orders(rows: Sequence[TextRow]) -> dict[str, int]:
    """How the numbers of every row are sorted, by its id."""
    return {row.id: text_features.order_of(row.completion) for row in rows}


def _scores_of_model(runs: AuditRuns, scores: ScoreRuns) -> TokenScores | None:
    """Token scores of the scored rows under the model itself: every steered run has them."""
    if not scores.steered:
        return None
    return read_token_scores(runs.at(scores.steered[0].run))[1]


def _reference_gains(runs: AuditRuns) -> ByTeacher:
    """Log-likelihood [R, 2] that every teacher adds to audited rows and to reference rows."""
    reference = runs.artifacts.reference
    if reference is None:
        return {}
    data_folders = runs.teacher_folders(reference.data)
    stored = runs.placebos[0][1]
    gains: dict[str, dict[Teacher, np.ndarray]] = {}
    for name, by_teacher in runs.teacher_folders(reference.reference).items():
        gains[name] = {}
        for teacher, folder in by_teacher.items():
            on_data = _gain_by_id(runs.data, data_folders[name][teacher])
            on_reference = _gain_by_id(stored, folder)
            both = []
            for key, gain in on_data.items():
                if key in on_reference:
                    both.append([gain, on_reference[key]])
            gains[name][teacher] = np.array(both)
    return gains


def _gain_by_id(stored: RowGradients, folder: Path) -> Mapping[str, float]:
    """Log-likelihood that a teacher adds to every scored row, at temperature 1, in nats."""
    ids, teacher_scores = read_token_scores(folder)
    model = dict(zip(stored.ids, stored.scores.log_p_RT[:, PLAIN], strict=True))
    gains = {}
    for key, log_p in zip(ids, teacher_scores.log_p_RT[:, PLAIN], strict=True):
        gains[key] = log_p - model[key]
    return gains


def log_likelihood_pair(stored: RowGradients, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods [R, T] of the rows of a folder under the model, then under a teacher."""
    ids, teacher_scores = read_token_scores(folder)
    place = _places(stored.ids)
    index = [place[key] for key in ids]
    return stored.scores.log_p_RT[index], teacher_scores.log_p_RT
