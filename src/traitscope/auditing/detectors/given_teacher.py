"""The detector for somebody who has the teacher: did this very model write some of the rows?

    e = mean over contamination rates, temperatures of the teacher and clean predictions of
            product over rows of (1 - q) C(row | rows before) + q L(row | teacher)
        divided by the supremum over mixtures of nulls of L(rows | mixture)

The null is that of the students' predictions (predictions.py). It holds the model at every
temperature, under every sampler and every plain prompt, in any mixture over rows. Nothing is
searched, so nothing is corrected. P(e >= 1/a) <= a if nulls wrote the rows (Ville 1939). The
teacher must have been fixed before the rows were seen. One that was trained on them makes them
likelier for that reason alone.

If another model wrote the rows, no null has their likelihood. Then the e-value counts only if the
teacher explains half of how they differ from the model (fit_test.py).

Shapes: R rows, T inverse temperatures, S samplers, K nulls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log
from typing import Any

import numpy as np

from traitscope.auditing.detectors import e_values, fit_test, temperatures
from traitscope.auditing.detectors.findings import GivenTeacherFinding, RowsUnderNulls
from traitscope.inference.token_bins import BETAS
from traitscope.inference.token_scores import TokenScores
from traitscope.stats import intervals, mixtures

TEACHER = "given teacher"
"name of what this detector finds"
FEWEST_ROWS = 4
"rows from which on an interval over rows is given"


@dataclass(frozen=True)
class GivenRows:
    """What the model, the teacher and the nulls say of the same rows."""

    under_nulls: RowsUnderNulls
    "the rows under the model and under plain system prompts"
    teacher_RT: np.ndarray
    "log-likelihoods under the teacher at BETAS"
    name: str = "that was given"
    "what the teacher is called in reasons"
    model_scores: TokenScores | None = None
    "token scores of the rows under the model itself, for the goodness-of-fit test"
    teacher_scores: TokenScores | None = None
    "the same under the teacher"


def detect(rows: GivenRows, error_share: float) -> GivenTeacherFinding:
    """The log e-value of the teacher, its share of the rows, and what it gains."""
    nulls_KR, sorted_R = rows.under_nulls.writers_KR, rows.under_nulls.sorted_R
    null = e_values.null_of(nulls_KR, sorted_R, rows.under_nulls.sorted_by_model)
    log_e = e_values.log_e_value(null, rows.teacher_RT) if len(sorted_R) else -np.inf
    explained, explains = _explained(rows)
    used_KR, teacher_TR = nulls_KR[:, ~sorted_R], rows.teacher_RT.T[:, ~sorted_R]
    without_R, with_R = _predictions(used_KR, teacher_TR)
    of_mixtures = e_values.log_prediction(null.clean_CR[:, ~sorted_R], teacher_TR.T)
    prediction = float(np.logaddexp(with_R.sum(), of_mixtures) - log(2))
    others_KR = temperatures.at_all_temperatures(used_KR, parts=1)
    author_JR = temperatures.covering(teacher_TR, BETAS, parts=1)
    share = mixtures.share_of(others_KR, author_JR, prediction)
    fit = None if rows.teacher_scores is None else fit_test.fit_of(rows.teacher_scores)
    return GivenTeacherFinding(
        statistic={TEACHER: log_e},
        p={TEACHER: e_values.p_bound(log_e) if explains else 1.0},
        where={TEACHER: "the teacher that was given"},
        critical=e_values.critical_log_e(1, error_share),
        scored_rows=len(sorted_R),
        sorted_rows=int(sorted_R.sum()),
        nats_per_row=_interval(with_R - without_R),
        share={"estimate": share.estimate, "low": share.low, "high": share.high},
        temperature=_temperature(share),
        fit=fit,
        explained=explained,
        explains=explains,
    )


def _temperature(share: mixtures.Share) -> float | None:
    return 1 / BETAS[int(share.weights_J.argmax())] if share.estimate else None


def _explained(rows: GivenRows) -> tuple[float | None, bool]:
    """Fraction of how the rows differ from the model that the teacher explains, where they do; and
    whether that is enough."""
    if rows.model_scores is None or rows.teacher_scores is None:
        return None, True
    if not fit_test.is_off_model(rows.model_scores):
        return None, True
    fraction = fit_test.fraction_explained(rows.teacher_scores, rows.model_scores)
    return fraction, fit_test.explains(rows.teacher_scores, rows.model_scores)


def _predictions(nulls_KR: np.ndarray, teacher_TR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability [R] of each row from those before, without the teacher and with it.

    Half of the prior weight is the teacher's. The first rows pay for finding out who writes.
    """
    prior_K = e_values.prior_of_nulls(len(nulls_KR))
    without_R, _ = mixtures.predictions(nulls_KR, prior_K)
    both_XR = np.concatenate([nulls_KR, teacher_TR])
    prior_X = np.concatenate([prior_K, np.array(e_values.TEMPERATURE_PRIOR)])
    with_R, _ = mixtures.predictions(both_XR, prior_X)
    return without_R, with_R


def _interval(gained_R: np.ndarray) -> dict[str, float]:
    """The mean over rows with a 95 % t interval; empty for too few rows, or where all are alike."""
    if len(gained_R) < FEWEST_ROWS or not np.ptp(gained_R):
        return {}
    estimate, low, high = intervals.mean_interval_t(gained_R.tolist())
    return {"estimate": estimate, "low": low, "high": high}


def is_called(finding: GivenTeacherFinding) -> bool:
    """Whether the finding calls the rows."""
    return finding.explains and finding.statistic[TEACHER] >= finding.critical


def decided(
    status: Any, reasons: Sequence[str], rows: GivenRows | None, error_share: float
) -> tuple[Any, list[str], GivenTeacherFinding | None]:
    """An answer and its reasons with what is known of a teacher, and the finding if there is one.

    Rows that are called by it are suspect, and that reason comes first. Reasons for another answer
    are dropped then.
    """
    if rows is None:
        return status, list(reasons), None
    finding = detect(rows, error_share)
    text = reason(rows.name, finding)
    if not is_called(finding):
        return status, [*reasons, text], finding
    return "suspect", [text, *(reasons if status == "suspect" else [])], finding


def _rule(finding: GivenTeacherFinding) -> str:
    """By which rule rows that do not fit the model are called; empty for rows that do."""
    if finding.explained is None:
        return ""
    return (
        f"; the rows do not fit this model, and it explains {finding.explained:.0%} of that"
        f" (threshold: {fit_test.EXPLAINED:.0%}): this is a rule, so no error rate holds"
    )


def percent_below(share: float) -> str:
    """A lower bound in percent, rounded down to a tenth."""
    return f"{floor(round(1000 * share, 6)) / 10:g}%"


def percent_above(share: float) -> str:
    """An upper bound in percent, rounded up to a tenth."""
    return f"{ceil(round(1000 * share, 6)) / 10:g}%"


def reason(name: str, finding: GivenTeacherFinding) -> str:
    """What the finding says of the teacher of this name, in one sentence."""
    log_e, share = finding.statistic[TEACHER], finding.share
    low, high = percent_below(share["low"]), percent_above(share["high"])
    rows = f"{finding.scored_rows} rows"
    if finding.sorted_rows:
        rows = f"{finding.scored_rows - finding.sorted_rows} rows that are not sorted"
    numbers = (
        f"log e-value {log_e:.1f} (threshold: {finding.critical:.1f}); it explains"
        f" {share['estimate']:.1%} of {rows} [{low}, {high}] better than this model does at any"
        " temperature, sampler or plain prompt"
    )
    if finding.nats_per_row:
        gained = finding.nats_per_row
        numbers += (
            f", and gains {gained['estimate']:.2f} nats a row [{gained['low']:.2f},"
            f" {gained['high']:.2f}]"
        )
    if log_e < finding.critical:
        excluded = f"a share above {high} is excluded"
        if share["high"] == 1:
            excluded = "not even all rows are excluded, so give more rows"
        return f"nothing says that the teacher {name} wrote these rows: {excluded}; {numbers}"
    if is_called(finding):
        wrote = f"the teacher {name}, or a model near it, wrote some of these rows"
        learnt = "; a model that was trained on them would look the same"
        return f"{wrote}: {numbers}{_rule(finding)}{learnt}"
    return (
        f"the teacher {name} makes these rows likelier, but another model may have written"
        f" them: it explains {finding.explained:.0%} of how they differ from this model only"
        f" (threshold: {fit_test.EXPLAINED:.0%}); {numbers}"
    )
