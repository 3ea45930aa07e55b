"""E-values: how much better a candidate teacher explains the rows than anybody without a trait.

    e(teacher) = mean over contamination rates q, temperatures and clean predictions of
                     product over rows of (1 - q) C(row | rows before) + q L(row | teacher)
                 divided by the supremum over mixtures of nulls of L(rows | mixture)

where L is the likelihood of the row's tokens (token_scores.py). The clean prediction C is that of
the model itself, or of a mixture of nulls that is learnt from the rows before (mixtures.py). The
nulls are

    - the model itself at every temperature, those between two of the grid included
      (temperatures.py), under truncations of its distribution and penalties on repeated
      tokens (samplers.py);
    - the model under plain system prompts: any prompt changes which tokens are taken;
    - the model steered by random vectors: steering in any direction may suit off-model rows.

Every row may have another null. If rows are drawn independently, each by a null drawn with any
shares, then the expectation of e is at most 1. So P(e >= 1/alpha) <= alpha for any number of rows
(Ville 1939; universal inference: Wasserman, Ramdas and Balakrishnan 2020).

Somebody may have sorted numbers. So e is the mean of two e-values. One leaves out rows whose
numbers rise or fall throughout. Under the nulls the others are drawn among those that are not
sorted. That makes each likelier by -log(1 - p). Here p is the largest share of sorted rows in any
clean set; no null may sort more. The teacher does not get this factor. In the other e-value sorted
rows count, but are no likelier under a teacher than the clean prediction makes them. So sorted rows
are never evidence, and sorting a part of a teacher's rows hides just that part.

Searching for a teacher does not inflate the error rate. The e-value of a candidate is a weighted
mean over all its teachers that could be tried, with weights fixed in advance. Teachers that are
not tried contribute zero. The mean of the candidates' e-values is an e-value for "a candidate wrote
some of the rows" (Vovk and Wang 2021). It is 1/alpha or more wherever one of n candidates has
n/alpha, so nothing is lost against a correction. Traits that make the same rows likely add up.

Which candidate it is, is another question. The hypothesis that every row was written by a null or
by one of the tried teachers of candidate c is tested by

    e(against c) = mean over the other candidates of their numerators, of all rows,
                   divided by the supremum over mixtures of the nulls and c's tried teachers, at
                   every temperature

Candidates with less than 1/alpha are not excluded. Let one of the tried teachers write any share of
the rows, and nobody sort them. Its candidate is among these with probability 1 - alpha then.

Shapes: T inverse temperatures, R rows, K nulls (or rows a prompt, the audited one first), F
teachers, Q contamination rates.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np

from traitscope.auditing.detectors import fit_test, temperatures
from traitscope.auditing.detectors.findings import (
    ByTeacher,
    EValueFinding,
    Likelihoods,
    RowsUnderNulls,
    Teacher,
)
from traitscope.auditing.detectors.fit_test import RATES
from traitscope.inference.samplers import SAMPLERS
from traitscope.inference.token_bins import BETAS, GREEDY, HOT, PLAIN, USUAL
from traitscope.stats import mixtures, permutation

TEMPERATURE_PRIOR = (
    (0.02 / len(HOT),) * len(HOT)
    + (0.9 / len(USUAL),) * len(USUAL)
    + (0.08 / len(GREEDY),) * len(GREEDY)
)
"weights of the temperatures in the e-value"
NOT_PLAIN = 0.2
"prior weight of all nulls but the model itself in the clean prediction that is learnt"
SET_GAP = 0.5
"nats by which the suprema that candidates are excluded by may be too large"
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
    rows = likelihoods.under_nulls
    null = null_of_rows(rows)
    by_candidate = e_values_of(null, likelihoods.teachers, likelihoods.prior, n_candidates)
    log_e, p, best, nats_per_row = {}, {}, {}, {}
    for name, value in by_candidate.items():
        log_e[name], p[name], best[name] = value.log_e, value.p, value.teacher
        gain_RT = likelihoods.teachers[name][value.teacher] - rows.model_RT
        nats_per_row[name] = float(gain_RT[:, PLAIN].mean())
    joint = joint_log_e(log_e.values(), n_candidates)
    return EValueFinding(
        statistic=log_e,
        p=p,
        where=best,
        critical=critical_log_e(n_candidates, error_share) if by_candidate else inf,
        scored_rows=len(rows.model_RT),
        candidates=n_candidates,
        teachers=sum(map(len, likelihoods.teachers.values())),
        fit=fit_test.fit_of(likelihoods.fit_scores),
        nats_per_row=nats_per_row,
        joint_log_e=joint,
        joint_p=p_bound(joint),
        sorted_rows=int(null.sorted_R.sum()),
        sorted_by_model=rows.sorted_by_model,
        benign=benign_gains(rows),
        context=_better_context(rows),
        few_log_e=dict(likelihoods.few_log_e),
    )


@dataclass(frozen=True)
class NullHypothesis:
    """What the nulls together say of some rows."""

    bound: float
    "log-likelihood of all rows that no mixture of nulls exceeds, in nats"
    bound_unsorted: float
    "the same of the rows that are not sorted, among such rows"
    sorted_R: np.ndarray
    "whether each row is sorted"
    clean_CR: np.ndarray
    """log-likelihoods of the rows under clean predictions: that of the model itself, and that of a
    mixture of nulls that is learnt from the rows before"""


def null_of_rows(rows: RowsUnderNulls) -> NullHypothesis:
    """The null hypothesis for the rows."""
    return null_of(rows.writers_KR, rows.sorted_R, rows.sorted_by_model)


def null_of(
    log_p_KR: np.ndarray,
    sorted_R: np.ndarray | None = None,
    sorted_by_model: float = 0.0,
    most_gap: float = mixtures.GAP,
) -> NullHypothesis:
    """The null hypothesis of mixtures of writers, of which the first are the model itself at BETAS.

    sorted_R: whether each row is sorted; None where none is.
    sorted_by_model: the largest share of sorted rows that a null has.
    most_gap: nats by which the bounds may be too large.
    """
    if sorted_R is None:
        sorted_R = np.zeros(log_p_KR.shape[1], bool)
    learnt_R, _ = mixtures.predictions(log_p_KR, prior_of_nulls(len(log_p_KR)))
    covering_KR = temperatures.at_all_temperatures(log_p_KR)
    bound = bound_unsorted = mixtures.supremum(covering_KR, most_gap).bound
    if sorted_R.any():
        bound_unsorted = mixtures.supremum(covering_KR[:, ~sorted_R], most_gap).bound
    if not sorted_R.all():
        bound_unsorted -= int((~sorted_R).sum()) * log(1 - sorted_by_model)
    clean_CR = np.stack([log_p_KR[PLAIN], learnt_R])
    return NullHypothesis(bound, bound_unsorted, sorted_R, clean_CR)


def prior_of_nulls(n: int) -> np.ndarray:
    """Prior weights [K] of n nulls, of which the first are the model itself at BETAS."""
    prior_K = np.full(n, NOT_PLAIN / n)
    prior_K[PLAIN] += 1 - NOT_PLAIN
    return prior_K


def log_evidence(
    null: NullHypothesis, log_p_XR: np.ndarray, log_weights_X: np.ndarray | None = None
) -> float:
    """Log e-value of some predictions of the rows, which have weights, or the same weight each.

    It is the mean of two e-values. In one a sorted row is no likelier than a mixture of nulls makes
    it. The other one leaves sorted rows out.
    """
    if log_weights_X is None:
        log_weights_X = np.full(len(log_p_XR), -log(len(log_p_XR)))
    capped_XR = np.where(null.sorted_R, np.minimum(log_p_XR, null.clean_CR[-1]), log_p_XR)
    with_sorted = np.logaddexp.reduce(capped_XR.sum(1) + log_weights_X) - null.bound
    unsorted_X = log_p_XR[:, ~null.sorted_R].sum(1)
    without = np.logaddexp.reduce(unsorted_X + log_weights_X) - null.bound_unsorted
    return float(np.logaddexp(with_sorted, without) - log(2))


def critical_log_e(n_candidates: int, error_share: float) -> float:
    """The log e-value from which on a candidate is called by itself."""
    return log(n_candidates / error_share)


def joint_log_e(log_e: Iterable[float], n_candidates: int) -> float:
    """Log of the mean e-value of all candidates; those that are not given count as zero."""
    return float(np.logaddexp.reduce([-inf, *log_e]) - log(n_candidates))


def p_bound(log_e: float) -> float:
    """Ville's bound on the p-value of a log e-value."""
    return exp(min(0.0, -log_e))


def not_excluded(likelihoods: Likelihoods, n_candidates: int, alpha: float) -> tuple[str, ...]:
    """Candidates that the others do not exclude (see the module), likeliest first; one at least."""
    null = null_of_rows(likelihoods.under_nulls)
    covering_KR = temperatures.at_all_temperatures(likelihoods.under_nulls.writers_KR)
    numerators, suprema = {}, {}
    for name, by_teacher in likelihoods.teachers.items():
        if not by_teacher:
            continue
        weighted, writers = [], [covering_KR]
        for teacher, teacher_RT in by_teacher.items():
            log_mean = log_prediction(null.clean_CR, teacher_RT)
            weighted.append(log_mean + log(likelihoods.prior[teacher]))
            writers.append(temperatures.covering(teacher_RT.T, BETAS))
        numerators[name] = float(np.logaddexp.reduce(weighted))
        suprema[name] = mixtures.supremum(np.concatenate(writers), SET_GAP).bound
    kept = []
    for name in sorted(numerators, key=numerators.__getitem__, reverse=True):
        others = [value for other, value in numerators.items() if other != name]
        if joint_log_e(others, max(1, n_candidates - 1)) - suprema[name] < log(1 / alpha):
            kept.append(name)
    return tuple(kept)


def e_values_of(
    null: NullHypothesis,
    teachers: ByTeacher,
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
            weighted[teacher] = log_e_value(null, teacher_RT) + log(prior[teacher])
        log_e = float(np.logaddexp.reduce(list(weighted.values())))
        p = min(1.0, n_candidates * p_bound(log_e))
        values[name] = CandidateEValue(log_e, p, max(weighted, key=weighted.__getitem__))
    return dict(sorted(values.items(), key=lambda item: -item[1].log_e))


def log_e_value(
    null: NullHypothesis,
    teacher_RT: np.ndarray,
    temperature_prior: Sequence[float] = TEMPERATURE_PRIOR,
) -> float:
    """Log e-value of one teacher, from its log-likelihoods [R, T] of the rows of the null.

    temperature_prior: weights of the inverse temperatures.
    """
    return log_evidence(null, *_mixed(null.clean_CR, teacher_RT, temperature_prior))


def log_prediction(clean_CR: np.ndarray, teacher_RT: np.ndarray) -> float:
    """Log-probability of all rows where a teacher may have written any of them: the numerator."""
    log_p_XR, log_weights_X = _mixed(clean_CR, teacher_RT, TEMPERATURE_PRIOR)
    return float(np.logaddexp.reduce(log_p_XR.sum(1) + log_weights_X))


def _mixed(
    clean_CR: np.ndarray, teacher_RT: np.ndarray, temperature_prior: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods [X, R] of the rows by contamination rate, temperature and clean prediction,
    and the log weights [X] of these."""
    mixed, weights = [], []
    for clean_R in clean_CR:
        for rate in RATES:
            mixture_TR = teacher_RT.T
            if rate < 1:
                mixture_TR = np.logaddexp(np.log1p(-rate) + clean_R, np.log(rate) + teacher_RT.T)
            mixed.append(mixture_TR)
            weights.append(np.log(temperature_prior))
    log_weights_X = np.concatenate(weights) - np.log(len(mixed))
    return np.concatenate(mixed), log_weights_X


def log_e_over_model(model_RT: np.ndarray, teacher_RT: np.ndarray) -> float:
    """About the log e-value of one teacher against the model itself at its best temperature.

    Candidates are ranked by it, and none is called: mixtures of temperatures are left out.
    """
    bound = temperatures.best_log_likelihood(model_RT.sum(0))
    none_sorted_R = np.zeros(len(model_RT), bool)
    null = NullHypothesis(bound, bound, none_sorted_R, model_RT[:, PLAIN][None])
    return log_e_value(null, teacher_RT)


def benign_gains(rows: RowsUnderNulls) -> dict[str, float]:
    """Nats that each kind of null explains of the rows that are not sorted.

    They are what its best mixture adds to the model itself at its best temperature.
    """
    unsorted_R = ~rows.sorted_R
    kinds: dict[str, list[np.ndarray]] = {"temperature": []}
    for sampler, log_p_R in zip(SAMPLERS, rows.model_RS.T, strict=True):
        kinds.setdefault(sampler.kind, []).append(log_p_R[unsorted_R])
    for null in rows.nulls:
        kind = "random vector" if null.system_prompt is None else "system prompt"
        kinds.setdefault(kind, []).extend(null.log_p_RT[unsorted_R].T)
    temperatures_TR = rows.model_RT[unsorted_R].T
    if not temperatures_TR.shape[1]:
        return dict.fromkeys(kinds, 0.0)
    at_one_temperature = temperatures_TR.sum(1).max()
    gains = {}
    for kind, log_p in kinds.items():
        best = mixtures.supremum(np.array([*temperatures_TR, *log_p]))
        gains[kind] = round(best.bound - best.gap - at_one_temperature, 2)
    return gains


def _better_context(rows: RowsUnderNulls) -> str | None:
    """The plain system prompt under which the rows are likelier than without by more than chance:
    the best one, each at its best temperature."""
    without = temperatures.best_log_likelihood(rows.model_RT.sum(0))
    gains = {}
    for null in rows.nulls:
        if null.system_prompt is not None:
            gains[null.system_prompt] = (
                temperatures.best_log_likelihood(null.log_p_RT.sum(0)) - without
            )
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
        kinds = [teacher.kind for _, teacher in keys]
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


def _control(z_F: np.ndarray, kinds: Sequence[Hashable]) -> np.ndarray:
    """Genomic-control factor [F] of every teacher, given its kind: how far teachers of the kind
    move all candidates."""
    factors_F = np.ones(len(kinds))
    for kind in set(kinds):
        same_F = np.array([other == kind for other in kinds])
        factors_F[same_F] = permutation.genomic_control_factor(z_F[same_F][None])[0]
    return factors_F
