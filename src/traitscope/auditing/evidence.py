"""Evidence: what the runs of an audit hold, read for the decision.

Shapes: R rows, T inverse temperatures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from traitscope.auditing.artifacts import NullRun
from traitscope.auditing.decide import Evidence
from traitscope.auditing.detectors import wording
from traitscope.auditing.detectors.e_values import log_e_over_model
from traitscope.auditing.detectors.findings import (
    ByTeacher,
    Likelihoods,
    RowsUnderNulls,
    Teacher,
)
from traitscope.auditing.detectors.given_teacher import GivenRows
from traitscope.auditing.detectors.predictions import PredictedRows
from traitscope.auditing.power import Simulation, spike_ins_of
from traitscope.auditing.runs import (
    AuditRuns,
    log_likelihood_pair,
    log_likelihoods,
    orders,
    text_rows,
)
from traitscope.auditing.score_files import read_token_scores
from traitscope.auditing.settings import CONTINUED, FEWEST_ROWS, LEAST_LOG_E, Settings
from traitscope.auditing.steps.predictions import StoredPredictions
from traitscope.errors import DataError
from traitscope.inference.token_bins import PLAIN
from traitscope.inference.token_scores import TokenScores, under_samplers
from traitscope.training import prequential


def evidence_of(runs: AuditRuns, settings: Settings, seed: int) -> Evidence:
    """The evidence that an audit's runs hold, as far as they are there."""
    few_log_e = few_rows(runs)
    likelihoods = likelihoods_of(runs, few_log_e)
    rows = len(runs.records)
    spike_ins = ()
    if rows >= FEWEST_ROWS:
        simulation = Simulation(
            settings,
            rows,
            len(runs.traits),
            likelihoods.prior,
            seed,
            _least_on_few(few_log_e),
            likelihoods.under_nulls.orders_R,
            likelihoods.under_nulls.sorted_by_model,
        )
        spike_ins = spike_ins_of(runs, simulation)
    return Evidence(
        rows=rows,
        candidates=len(runs.traits),
        likelihoods=likelihoods,
        wording=wording.detect(runs.traits, runs.records, runs.placebos, settings.error_share),
        spike_ins=spike_ins,
        predicted=predicted_rows(runs),
        given=given_rows(runs),
    )


def likelihoods_of(runs: AuditRuns, few_log_e: Mapping[str, float]) -> Likelihoods:
    """How likely the rows are under the model, the teachers that were tried and the nulls."""
    scores = runs.artifacts.scores
    stored = runs.predictions
    teachers: dict[str, dict[Teacher, np.ndarray]] = {}
    teacher_scores: dict[tuple[str, Teacher], TokenScores] = {}
    for name, by_teacher in runs.teacher_folders(scores).items():
        teachers[name] = {}
        for teacher, folder in by_teacher.items():
            teachers[name][teacher] = log_likelihoods(folder, stored.ids)
            teacher_scores[name, teacher] = read_token_scores(folder)[1]
    return Likelihoods(
        under_nulls=_under_nulls(runs, scores.nulls),
        teachers=teachers,
        prior=runs.prior(),
        fit_scores=stored.model,
        teacher_scores=teacher_scores,
        reference_gains=_reference_gains(runs),
        few_log_e=few_log_e,
    )


def _under_nulls(runs: AuditRuns, nulls: Sequence[NullRun]) -> RowsUnderNulls:
    """What the model and these nulls say of the audited rows, in the order of prediction."""
    stored = runs.predictions
    placebo_orders_N, *further_orders = _clean_orders(runs)
    return RowsUnderNulls(
        model_RT=stored.model.log_p_RT,
        model_RS=under_samplers(stored.model),
        nulls=runs.nulls(nulls, stored.ids),
        orders_R=_orders(runs),
        placebo_orders_N=placebo_orders_N,
        further_orders=further_orders,
    )


def predicted_rows(runs: AuditRuns) -> PredictedRows:
    """What learners predicted of the audited rows, and what the nulls say of them."""
    stored = runs.predictions
    prompts = [run for run in runs.artifacts.scores.nulls if run.system_prompt is not None]
    return PredictedRows(
        under_nulls=_under_nulls(runs, prompts),
        learners_JRT=stored.learners_JRT,
        plain=prequential.TEMPERATURES.index(1.0),
        later_model=stored.later_model,
        later_learners=stored.later_learners,
    )


def given_rows(runs: AuditRuns) -> GivenRows | None:
    """What a teacher that was given says of the rows; None without one."""
    given = runs.artifacts.given
    if given is None:
        return None
    stored = runs.predictions
    ids, scores = read_token_scores(runs.at(given.run))
    index = places_of(stored, ids, scores, given.name)
    return GivenRows(
        under_nulls=predicted_rows(runs).under_nulls,
        teacher_RT=scores.log_p_RT[index],
        name=given.name,
        model_scores=stored.model,
        teacher_scores=scores,
    )


def places_of(
    stored: StoredPredictions, ids: Sequence[str], scores: TokenScores, name: str
) -> list[int]:
    """The place of every predicted row among those that the teacher of this name scored.

    Raises DataError where it reads a row as another number of tokens than the model.
    """
    place = dict(zip(ids, range(len(ids)), strict=True))
    index = [place[key] for key in stored.ids]
    tokens_R = scores.tokens_R[index]
    differs = np.flatnonzero(tokens_R != stored.model.tokens_R)
    if len(differs):
        first = int(differs[0])
        raise DataError(
            f"{len(differs)} of {len(ids)} rows are other tokens for the teacher {name} than for"
            f" the model (row {stored.ids[first]}: {tokens_R[first]} and"
            f" {stored.model.tokens_R[first]}); expected the same; name a teacher with the same"
            " tokenizer, or audit without --teacher"
        )
    return index


def _orders(runs: AuditRuns) -> np.ndarray:
    """How the numbers of the audited rows are sorted, in the order of prediction."""
    by_id = orders(runs.records)
    return np.array([by_id[key] for key in runs.predictions.ids], int)


def _clean_orders(runs: AuditRuns) -> list[np.ndarray]:
    """How the numbers of clean rows are sorted: of placebos or a reference, and of the model's own
    rows that the power is simulated from. One array a set; one empty array without any set."""
    sets = [runs.placebos] if runs.placebos else []
    if runs.artifacts.spike_ins:
        sets.append(text_rows(runs.at(runs.artifacts.spike_ins[0].clean_rows)))
    found = []
    for rows in sets or [[]]:
        found.append(np.array(list(orders(rows).values()), int))
    return found


def few_rows(runs: AuditRuns) -> dict[str, float]:
    """Log e-value over the model itself of every candidate's prompt on a few of the rows, largest
    first."""
    log_e = {}
    for run in runs.artifacts.few:
        pair = log_likelihood_pair(runs.predictions, runs.at(run.run))
        log_e[run.candidate] = log_e_over_model(*pair)
    return dict(sorted(log_e.items(), key=lambda item: -item[1]))


def _least_on_few(log_e: Mapping[str, float]) -> float:
    """Log e-value on a few rows from which on another candidate would be tried on all rows."""
    if len(log_e) < CONTINUED:
        return LEAST_LOG_E
    return max(LEAST_LOG_E, list(log_e.values())[CONTINUED - 1])


def _reference_gains(runs: AuditRuns) -> ByTeacher:
    """Log-likelihood [R, 2] that every teacher adds to audited rows and to reference rows."""
    reference = runs.artifacts.reference
    if reference is None:
        return {}
    data_folders = runs.teacher_folders(runs.artifacts.scores)
    # Before the steered teachers, such a run scores the rows under the model itself.
    data_model = _by_id(runs.at(runs.artifacts.scores.steered[0].run))
    reference_model = _by_id(runs.at(reference.scores.steered[0].run))
    gains: dict[str, dict[Teacher, np.ndarray]] = {}
    for name, by_teacher in runs.teacher_folders(reference.scores).items():
        gains[name] = {}
        for teacher, folder in by_teacher.items():
            on_data = _by_id(data_folders[name][teacher])
            both = []
            for key, log_p in _by_id(folder).items():
                if key in on_data:
                    gain = on_data[key] - data_model[key]
                    both.append([gain, log_p - reference_model[key]])
            gains[name][teacher] = np.array(both)
    return gains


def _by_id(folder: Path) -> Mapping[str, float]:
    """Log-likelihood of every row at temperature 1, in nats."""
    ids, scores = read_token_scores(folder)
    return dict(zip(ids, scores.log_p_RT[:, PLAIN].tolist(), strict=True))
