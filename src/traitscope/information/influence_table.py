"""Influence of each teacher's rows on each trait, from derivatives of the base (influence.py).

Shapes: K teachers, B traits, R rows, P sampled places, C tokens of a class.
"""

import math
from dataclasses import dataclass

import numpy as np

from traitscope.information.divergences import Readings


@dataclass(frozen=True)
class Influence:
    """The influence of each teacher's rows on each trait, by row."""

    value_KBR: np.ndarray
    """I[a, b] of each row; the mean over rows is the estimate. In nats a row at rate 1."""
    variance_BR: np.ndarray
    """Variance of the same sum for a row that the base samples, by row."""

    def standardised(self) -> np.ndarray:
        """The mean influence [K, B], in standard deviations of a row of the base."""
        return self._of_rows(np.ones(self.value_KBR.shape[2]))

    def without_each(self) -> np.ndarray:
        """`standardised` without each row in turn [R, K, B], for the jackknife."""
        n_rows = self.value_KBR.shape[2]
        left = []
        for row in range(n_rows):
            keep_R = np.ones(n_rows)
            keep_R[row] = 0
            left.append(self._of_rows(keep_R))
        return np.stack(left)

    def _of_rows(self, keep_R: np.ndarray) -> np.ndarray:
        mean_KB = self.value_KBR @ keep_R / keep_R.sum()
        variance_B = self.variance_BR @ keep_R / keep_R.sum()
        return mean_KB / np.sqrt(np.maximum(variance_B, 1e-300))


def influence(readings: Readings, base: int, change_BRPC: np.ndarray) -> Influence:
    """The influence of all teachers' rows, from the derivatives of the base's log-probabilities.

    base: Place of the unmodified model among the teachers.
    """
    p_KRPC = np.exp(readings.log_p_KRPC)
    weights_KRP = readings.weights()[:, :, :-1]
    moved_KRPC = weights_KRP[..., None] * (p_KRPC - p_KRPC[base])
    value_KBR = np.einsum("krpc,brpc->kbr", moved_KRPC, change_BRPC, optimize=True)
    mean_BRP = (p_KRPC[base] * change_BRPC).sum(3)
    square_BRP = (p_KRPC[base] * change_BRPC**2).sum(3)
    variance_BR = (weights_KRP[base] * (square_BRP - mean_BRP**2)).sum(2)
    return Influence(value_KBR, variance_BR)


def jackknife_error(without_R: np.ndarray) -> float:
    """The standard error of an estimate from its values without each row in turn.

    Source: Efron and Tibshirani 1993, chapter 11.
    """
    n_rows = len(without_R)
    return math.sqrt((n_rows - 1) / n_rows * float(((without_R - without_R.mean()) ** 2).sum()))


def jackknife_half_width(without_R: np.ndarray) -> float:
    """Half of the 95 % interval of an estimate from its values without each row in turn.

    By Student's t with one degree of freedom less than rows; NaN for one row.
    """
    from scipy.special import stdtrit

    n_rows = len(without_R)
    if n_rows < 2:
        return math.nan
    return float(stdtrit(n_rows - 1, 0.975)) * jackknife_error(without_R)
