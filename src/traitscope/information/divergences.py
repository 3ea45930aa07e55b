"""Divergences between teachers over number rows, from their log-probabilities of digits.

    KL(a || b) = sum over sampled places t of E[ KL(a(. | x<t) || b(. | x<t)) ],  x written by a

The rows are written by a mixture q of all teachers, and one pass of each teacher over them serves
every pair. A row counts for teacher a with the weight of its beginning:

    w_a(x<t) = a(x<t) / q(x<t),    q = sum over k of share_k k

So the estimate is unbiased, and a weight is at most 1 / share_a: the balance heuristic (Veach and
Guibas 1995). The divergence of a place is exact, since all ten digits are known. Sampling is thus
left in the beginnings alone.

Shapes: K teachers, R rows, P sampled places of a row, S all places of a row, C tokens of a place's
class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from traitscope.stats.measurement import Measurement

UNIT = "nats a row"


@dataclass(frozen=True)
class Readings:
    """What every teacher says of every sampled place of the rows."""

    log_p_KRPC: np.ndarray
    """Log-probabilities over the class of the place, nats."""
    chosen_RP: np.ndarray
    """The token that stands there, as a place in its class."""
    share_K: np.ndarray
    """The part of the rows that each teacher wrote."""

    def first(self, rows: int) -> "Readings":
        """The first rows alone."""
        return Readings(self.log_p_KRPC[:, :rows], self.chosen_RP[:rows], self.share_K)

    def beginnings(self) -> np.ndarray:
        """Log-likelihood [K, R, P + 1] of each row up to every place, and of the whole row."""
        index_1RP1 = self.chosen_RP[None, :, :, None]
        taken_KRP = np.take_along_axis(self.log_p_KRPC, index_1RP1, axis=3)[..., 0]
        sums_KRP = np.cumsum(taken_KRP, axis=2)
        return np.concatenate([np.zeros_like(sums_KRP[:, :, :1]), sums_KRP], axis=2)

    def weights(self) -> np.ndarray:
        """The weight w [K, R, P + 1] of the beginning of each row for every teacher."""
        log_KRP = self.beginnings()
        return np.exp(log_KRP - log_mixture(log_KRP, self.share_K))


def log_mixture(log_KX: np.ndarray, share_K: np.ndarray) -> np.ndarray:
    """Log of the mixture of the teachers' probabilities; the first axis goes."""
    columns_K = np.log(share_K).reshape(-1, *[1] * (log_KX.ndim - 1))
    return np.logaddexp.reduce(columns_K + log_KX, axis=0)


def effective_rows(readings: Readings) -> np.ndarray:
    """How many rows of each teacher's own [K] the rows stand for: (sum w)^2 / sum w^2.

    Source: Kish 1965.
    """
    whole_KR = readings.weights()[:, :, -1]
    return whole_KR.sum(1) ** 2 / (whole_KR**2).sum(1)


def pairs(readings: Readings) -> np.ndarray:
    """KL(a || b) [K, K, R] of every pair, by row; its mean over rows is the estimate."""
    log_p_KRPC = readings.log_p_KRPC
    weights_KRP = readings.weights()[:, :, :-1]
    n_teachers, n_rows = log_p_KRPC.shape[:2]
    divergence_KKR = np.empty((n_teachers, n_teachers, n_rows))
    for row in range(n_rows):
        log_p_KX = log_p_KRPC[:, row].reshape(n_teachers, -1)
        weighted_KPC = weights_KRP[:, row, :, None] * np.exp(log_p_KRPC[:, row])
        cross_KK = weighted_KPC.reshape(n_teachers, -1) @ log_p_KX.T
        divergence_KKR[:, :, row] = np.diagonal(cross_KK)[:, None] - cross_KK
    return divergence_KKR


def against_mixture(readings: Readings, teacher: int, others: Sequence[int]) -> np.ndarray:
    """KL(a || m) [R] by row, where m writes a row as one of the others, drawn at random.

    What m says of a place depends on who of them is likely to have written the beginning.
    """
    group = list(others)
    log_p_GRPC = readings.log_p_KRPC[group]
    before_GRP = readings.beginnings()[group][:, :, :-1]
    equal_G = np.full(len(group), 1 / len(group))
    joint_RPC = log_mixture(before_GRP[..., None] + log_p_GRPC, equal_G)
    log_m_RPC = joint_RPC - log_mixture(before_GRP, equal_G)[..., None]
    log_a_RPC = readings.log_p_KRPC[teacher]
    divergence_RP = (np.exp(log_a_RPC) * (log_a_RPC - log_m_RPC)).sum(2)
    return (readings.weights()[teacher, :, :-1] * divergence_RP).sum(1)


def mean_over_rows(name: str, value_R: np.ndarray, unit: str = UNIT) -> Measurement:
    """The mean over rows with its 95 % t interval.

    Of a mean, the jackknife over rows is the usual standard error.
    """
    n_rows = len(value_R)
    return _sum_of_groups(name, [value_R / n_rows], n_rows, unit, f"t over {n_rows} rows")


def two_level_mean(
    name: str, value_R: np.ndarray, exact_X: np.ndarray, unit: str = UNIT
) -> Measurement:
    """The mean over rows, corrected by some rows in higher precision, with its 95 % t interval.

    exact_X: The values of the first X rows in higher precision. Their mean difference from the
    values in lower precision is added: two-level Monte Carlo (Giles 2008).
    """
    n_rows, n_exact = len(value_R), len(exact_X)
    first_X = value_R[:n_exact] / n_rows + (exact_X - value_R[:n_exact]) / n_exact
    groups = [first_X, value_R[n_exact:] / n_rows]
    about = f"t over {n_rows} rows, {n_exact} of them in float32"
    return _sum_of_groups(name, groups, n_rows, unit, about)


def _sum_of_groups(
    name: str, groups: Sequence[np.ndarray], n_rows: int, unit: str, about: str
) -> Measurement:
    """The sum of all terms, with a t interval from the spread inside each group of terms."""
    total = math.fsum(float(group.sum()) for group in groups)
    variance = 0.0
    for group in groups:
        if len(group) > 1:
            variance += len(group) * float(group.var(ddof=1))
    half = _t_quantile(len(groups[0]) - 1) * math.sqrt(variance)
    return Measurement(
        name=name,
        estimate=total,
        low=total - half if half > 0 else math.nan,
        high=total + half if half > 0 else math.nan,
        n=n_rows,
        n_clusters=n_rows,
        n_unscored=0,
        unit=unit,
        interval=about,
    )


def _t_quantile(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(1, freedom), 0.975))
