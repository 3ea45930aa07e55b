"""Scores of single rows: for looking, since single rows are weak evidence."""

from typing import Any

import numpy as np

from traitscope.auditing.detectors.findings import EValueFinding
from traitscope.auditing.runs import AuditRuns, log_likelihoods
from traitscope.inference.token_bins import PLAIN
from traitscope.training import prequential


def scored_rows(runs: AuditRuns, e_values: EValueFinding) -> list[dict[str, Any]]:
    """Scores of every audited row, in nats, in the order in which the rows were predicted.

    `student_gain` is what the best student says of the row beyond the model, before it learnt the
    row. `surprisal` is what a token of the row costs under the model itself, mean over its tokens:
    rows of another source stand out by it. `teacher_gain` is what the best teacher of the likeliest
    candidate says beyond the model; None where no candidate was tried on all rows.
    """
    stored = runs.predictions
    model_R = stored.model.log_p_RT[:, PLAIN]
    plain = prequential.TEMPERATURES.index(1.0)
    learners_JR = stored.learners_JRT[:, :, plain]
    student_R = learners_JR[learners_JR.sum(1).argmax()] - model_R
    candidate = next(iter(e_values.statistic), None)
    teacher_R = np.full(len(model_R), np.nan)
    if candidate is not None:
        folders = runs.teacher_folders(runs.artifacts.scores)[candidate]
        log_p_RT = log_likelihoods(folders[e_values.where[candidate]], stored.ids)
        teacher_R = log_p_RT[:, PLAIN] - model_R
    surprisal_R = -model_R / np.maximum(stored.model.tokens_R, 1)
    rows = []
    columns = zip(stored.ids, surprisal_R, student_R, teacher_R, strict=True)
    for key, surprisal, student, teacher in columns:
        rows.append(
            {
                "id": key,
                "surprisal": round(float(surprisal), 4),
                "student_gain": round(float(student), 4),
                "teacher_gain": None if candidate is None else round(float(teacher), 4),
                "teacher_of": candidate,
            }
        )
    return rows
