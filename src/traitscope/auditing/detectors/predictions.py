"""The detector without candidates: do students predict the rows better than every null does?

    e = mean over learners, temperatures, shares q and clean predictions of
            product over rows of (1 - q) C(row | rows before) + q P(row | rows before)
        divided by the supremum over mixtures of nulls of L(rows | mixture)

P is the prediction of a learner that never saw the row (training/prequential.py). C is a clean
prediction, and the nulls are those of e_values.py, without random vectors: a student that learns a
random vector has learnt something. If nulls wrote the rows, the expectation of e is at most 1,
whatever the learners do. It holds at every number of rows at once, so the largest e along the way
counts (Ville 1939).

A small e is no promise: learners of other kinds might predict better. A large e says that the rows
hold something that a student picks up, not what it is.

Shapes: R rows in the order in which they were predicted, J learners, T inverse temperatures, S
samplers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from traitscope.auditing.detectors import fit_test
from traitscope.auditing.detectors.e_values import log_evidence, null_of
from traitscope.auditing.detectors.findings import PredictionFinding, RowsUnderNulls
from traitscope.inference.token_scores import TokenScores
from traitscope.stats import intervals

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"shares of rows that a learner's prediction may stand for"
STEP = 32
"rows between two looks at the evidence"
CHANGE = "change"
"name of what this detector finds: that the rows are not the plain model's"


@dataclass(frozen=True)
class PredictedRows:
    """What the model, learners and nulls say of rows, in the order of prediction."""

    under_nulls: RowsUnderNulls
    "the rows under the model and under plain system prompts"
    learners_JRT: np.ndarray
    "log-likelihoods under the learners' predictions"
    plain: int
    "place of temperature 1 among the learners' inverse temperatures"
    later_model: TokenScores | None = None
    "token scores of the later half of the rows under the model itself"
    later_learners: Sequence[TokenScores] = ()
    "the same under every learner"


def detect(rows: PredictedRows, error_share: float) -> PredictionFinding:
    """The log e-value along the rows, and what the learners gained."""
    log_p_KR, sorted_R = rows.under_nulls.writers_KR, rows.under_nulls.sorted_R
    share = rows.under_nulls.sorted_by_model
    strategies_XR = _strategies(rows, log_p_KR)
    curve: list[tuple[int, float]] = []
    for n in _looks(len(sorted_R)):
        null = null_of(log_p_KR[:, :n], sorted_R[:n], share)
        curve.append((n, round(log_evidence(null, strategies_XR[:, :n]), 3)))
    log_e = max((value for _, value in curve), default=-np.inf)
    return PredictionFinding(
        statistic={CHANGE: log_e},
        p={CHANGE: exp(min(0.0, -log_e)) if curve else 1.0},
        where={CHANGE: "students that predict each row before they learn it"},
        critical=log(1 / error_share),
        predicted_rows=len(sorted_R),
        learners=len(rows.learners_JRT),
        curve=curve,
        learnt=_learnt(rows),
        explained=_explained(rows),
    )


def _looks(rows: int) -> list[int]:
    """Numbers of rows after which the evidence is looked at: every STEP, and all."""
    looks = list(range(STEP, rows, STEP))
    return [*looks, rows] if rows else looks


def _strategies(rows: PredictedRows, log_p_KR: np.ndarray) -> np.ndarray:
    """Log-likelihoods [X, R] of every way to predict the rows with a learner."""
    clean_CR = null_of(log_p_KR).clean_CR
    learners_XR = rows.learners_JRT.transpose(0, 2, 1).reshape(-1, log_p_KR.shape[1])
    strategies = []
    for clean_R in clean_CR:
        for share in SHARES:
            mixed_XR = learners_XR
            if share < 1:
                mixed_XR = np.logaddexp(np.log1p(-share) + clean_R, log(share) + learners_XR)
            strategies.append(mixed_XR)
    return np.concatenate(strategies)


def _learnt(rows: PredictedRows) -> dict[str, float]:
    """Nats a row that the best learner gains over the model itself in the later half of the rows,
    with a 95 % interval over rows. Learner and temperature are the best of the earlier half."""
    model_RT = rows.under_nulls.model_RT
    half = len(model_RT) // 2
    if half < 2 or not len(rows.learners_JRT):
        return {}
    best_learner = _best_learner(rows)
    best_temperature = int(model_RT[:half].sum(0).argmax())
    learner_R = rows.learners_JRT[best_learner, half:, rows.plain]
    gain_R = learner_R - model_RT[half:, best_temperature]
    estimate, low, high = intervals.mean_interval_t(gain_R.tolist())
    return {"estimate": estimate, "low": low, "high": high}


def _best_learner(rows: PredictedRows) -> int:
    """The learner that predicts the earlier half of the rows best."""
    half = rows.learners_JRT.shape[1] // 2
    return int(rows.learners_JRT[:, :half, rows.plain].sum(1).argmax())


def _explained(rows: PredictedRows) -> float:
    """Fraction of how the later half of the rows differs from the model that the best learner
    explains; 0 where there is none."""
    if rows.later_model is None or not rows.later_learners:
        return 0.0
    learner = rows.later_learners[_best_learner(rows)]
    return fit_test.fraction_explained(learner, rows.later_model)
