"""E-values: how much better a candidate teacher explains the rows than the model itself.

    e(teacher) = mean over contamination rates q and temperatures of
                     product over rows of (1 - q) L(row | model) + q L(row | teacher)
                 divided by the largest L(rows | null) of any temperature and any null

where L is the likelihood of the row's tokens (token_scores.py). The nulls are

    - the model itself;
    - the model steered by random vectors: steering in any direction may suit off-model rows;
    - the model under plain system prompts: any prompt changes which tokens are taken;
    - the model whose rows were selected, or sorted, by the order of their numbers.

If a null wrote the rows, in this context and at any constant temperature, the expectation of e is
at most 1. So P(e >= 1/alpha) <= alpha for any number of rows (Ville 1939; the maximum in the
denominator: Wasserman, Ramdas and Balakrishnan 2020, universal inference).

Searching for a teacher does not inflate the error rate. The e-value of a candidate is a weighted
mean over all its teachers that could be tried, with weights fixed in advance. Teachers that are
not tried contribute zero.

Shapes: T inverse temperatures, R rows, K rows a prompt (the audited one first), J kinds of order,
F teachers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np

from traitscope.auditing.detectors import fit_test
from traitscope.auditing.detectors.findings import ByTeacher, EValueFinding, Likelihoods, Teacher
from traitscope.auditing.detectors.fit_test import RATES
from traitscope.inference.token_bins import BETAS, GREEDY, PLAIN, USUAL
from traitscope.stats import permutation

TEMPERATURE_PRIOR = (0.9 / len(USUAL),) * len(USUAL) + (0.1 / len(GREEDY),) * len(GREEDY)
"weights of the temperatures in the e-value"
PARAPHRASED = 2
"candidates, the likeliest ones, whose prompts are also tried in other words"
FEWEST_FOR_CONTROL = 5
"candidates from which on the median of their z tells a format from a trait"


@dataclass(frozen=True)
class CandidateEValue:
    """The e-value of one candidate trait."""

    log_e: float
    "log e-value, in nats"
    p: float
    "bound on the p-value, corrected over all candidates"
    teacher: Teacher
    "the candidate's teacher that contributes most"


def detect(likelihoods: Likelihoods, n_candidates: int, error_share: float) -> EValueFinding:
    """Log e-value of every candidate that was tried; p by Ville's bound, times all candidates."""
    selection_R = selection_gain(likelihoods.orders_R, likelihoods.placebo_orders_N)
    nulls = [likelihoods.model_RT + selection_R[:, None]]
    for null in likelihoods.nulls:
        nulls.append(null.log_p_RT)
    by_candidate = e_values_of(
        likelihoods.model_RT, likelihoods.teachers, nulls, likelihoods.prior, n_candidates
    )
    log_e, p, best, nats_per_row = {}, {}, {}, {}
    for name, value in by_candidate.items():
        log_e[name], p[name], best[name] = value.log_e, value.p, value.teacher
        gain_RT = likelihoods.teachers[name][value.teacher] - likelihoods.model_RT
        nats_per_row[name] = float(gain_RT[:, PLAIN].mean())
    return EValueFinding(
        statistic=log_e,
        p=p,
        where=best,
        critical=critical_log_e(n_candidates, error_share) if by_candidate else inf,
        scored_rows=len(likelihoods.model_RT),
        candidates=n_candidates,
        teachers=sum(map(len, likelihoods.teachers.values())),
        fit=fit_test.fit_of(likelihoods.fit_scores),
        nats_per_row=nats_per_row,
        selection_gain=float(selection_R.sum()),
        context=_better_context(likelihoods),
    )


def critical_log_e(n_candidates: int, error_share: float) -> float:
    """The log e-value from which on a candidate is called."""
    return log(n_candidates / error_share)


def e_values_of(
    model_RT: np.ndarray,
    teachers: ByTeacher,
    nulls: Sequence[np.ndarray],
    prior: Mapping[Teacher, float],
    n_candidates: int,
) -> dict[str, CandidateEValue]:
    """The e-value of every candidate that was tried, largest first.

    It is the mean over teachers by the weights `prior`. A candidate without any tried teacher is
    left out: its e-value counts as zero.
    """
    values = {}
    for name, by_teacher in teachers.items():
        if not by_teacher:
            continue
        weighted = {}
        for teacher, teacher_RT in by_teacher.items():
            weighted[teacher] = log_e_value(model_RT, teacher_RT, nulls) + log(prior[teacher])
        log_e = float(np.logaddexp.reduce(list(weighted.values())))
        p = min(1.0, n_candidates * exp(min(0.0, -log_e)))
        values[name] = CandidateEValue(log_e, p, max(weighted, key=weighted.__getitem__))
    return dict(sorted(values.items(), key=lambda item: -item[1].log_e))


def log_e_value(
    model_RT: np.ndarray, teacher_RT: np.ndarray, nulls: Sequence[np.ndarray] = ()
) -> float:
    """Log e-value of one teacher, from log-likelihoods [R, T] of the same rows under the model, the
    teacher and further nulls."""
    gain_RT = teacher_RT - model_RT
    terms = []
    for rate in RATES:
        mixture_RT = gain_RT
        if rate < 1:
            mixture_RT = np.logaddexp(np.log1p(-rate), np.log(rate) + gain_RT)
        terms.append((model_RT + mixture_RT).sum(0) + np.log(TEMPERATURE_PRIOR))
    numerator = np.logaddexp.reduce(np.concatenate(terms)) - np.log(len(RATES))
    denominator = -inf
    for null_RT in (model_RT, *nulls):
        denominator = max(denominator, best_log_likelihood(null_RT.sum(0)))
    return float(numerator - denominator)


def best_log_likelihood(total_T: np.ndarray) -> float:
    """The largest log-likelihood of any inverse temperature in the grid's range.

    It has one maximum: a parabola through the best three points, over the logarithm of the inverse
    temperature, finds what lies between the grid's points.
    """
    best = int(total_T.argmax())
    if not 0 < best < len(total_T) - 1:
        return float(total_T[best])
    steps = np.log(BETAS[best - 1 : best + 2]) - np.log(BETAS[best])
    bend, slope, middle = np.polyfit(steps, total_T[best - 1 : best + 2], 2)
    return float(middle - slope**2 / (4 * bend)) if bend < 0 else float(total_T[best])


def likeliest_candidates(log_e: Mapping[str, float]) -> list[str]:
    """Candidates whose prompts are also tried in other words. The others count as zero there, so
    choosing does not inflate the error rate."""
    return sorted(log_e, key=log_e.__getitem__, reverse=True)[:PARAPHRASED]


def selection_gain(orders_R: Sequence[int], placebo_orders_N: Sequence[int]) -> np.ndarray:
    """Log-likelihood [R] that the null of selected rows adds to every row, in nats.

    Under this null the model wrote the rows and someone selected or sorted them by the order of
    their numbers (text_features.order_of). The gain of a row is the log of how often its order
    occurs among these rows over how often among the model's own. Some steered models prefer rising
    numbers: a teacher has to beat this null.
    """
    if not len(orders_R):
        return np.zeros(0)
    kinds = sorted({*orders_R, *placebo_orders_N})
    rows_RJ = np.equal.outer(np.asarray(orders_R, int), kinds)
    placebos_NJ = np.equal.outer(np.asarray(placebo_orders_N, int), kinds)
    usual_J = np.ones(1)
    if len(kinds) > 1:
        usual_J = (placebos_NJ.sum(0) + 0.5) / (len(placebos_NJ) + 0.5 * len(kinds))
    return np.log(rows_RJ @ (rows_RJ.mean(0) / usual_J))


def _better_context(likelihoods: Likelihoods) -> str | None:
    """The plain system prompt under which the rows are likelier than without by more than chance:
    the best one, each at its best temperature."""
    without = best_log_likelihood(likelihoods.model_RT.sum(0))
    gains = {}
    for null in likelihoods.nulls:
        if null.system_prompt is not None:
            gains[null.system_prompt] = best_log_likelihood(null.log_p_RT.sum(0)) - without
    if not gains:
        return None
    best = max(gains, key=gains.__getitem__)
    return best if gains[best] > log(len(gains) / fit_test.FIT_ALPHA) else None


@dataclass(frozen=True)
class CandidateZ:
    """One candidate against reference rows."""

    z: float
    "z of its best teacher against permuted data"
    p: float
    "p-value, corrected over all candidates and teachers"
    teacher: Teacher
    "its best teacher"


def against_reference(gains: ByTeacher) -> dict[str, CandidateZ]:
    """z and p of every candidate by permutations with reference rows, for off-model rows.

    `gains` holds the log-likelihood [R, K] that a teacher adds to every row, the audited one first.
    With FEWEST_FOR_CONTROL candidates or more, z is divided by the genomic-control factor of the
    same teacher over all candidates.
    """
    keys = []
    columns = []
    for name, by_teacher in gains.items():
        for teacher, gain_RK in by_teacher.items():
            keys.append((name, teacher))
            columns.append(gain_RK)
    sums_BKF = permutation.in_blocks(np.stack(columns, 2))
    control_F = 1.0
    if len(gains) >= FEWEST_FOR_CONTROL:
        kinds = [str(teacher) for _, teacher in keys]
        control_F = _control(permutation.z_scores(sums_BKF), kinds)
    maximum = permutation.largest_of(sums_BKF, control_F)
    strongest: dict[str, int] = {}
    for n, (name, _) in enumerate(keys):
        best = strongest.get(name, n)
        strongest[name] = n if maximum.z_F[n] > maximum.z_F[best] else best
    results = {}
    for name, n in strongest.items():
        results[name] = CandidateZ(float(maximum.z_F[n]), float(maximum.p_F[n]), keys[n][1])
    return results


def _control(z_F: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Genomic-control factor [F] of every teacher, given how it was made: how far such teachers
    move all candidates."""
    factors_F = np.ones(len(kinds))
    for kind in set(kinds):
        same_F = np.equal(kinds, kind)
        factors_F[same_F] = permutation.genomic_control_factor(z_F[same_F][None])[0]
    return factors_F
