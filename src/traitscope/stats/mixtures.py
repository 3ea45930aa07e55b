"""Mixtures of writers: what many possible writers together say of rows.

A *writer* is a model with a context and a sampler. Every row of a data set may have another one.
So a null hypothesis that is closed under mixing has the likelihood

    sup over shares w of  product over rows of  sum over writers k of  w_k p_k(row)

A prediction of the next row can trust each writer by what it said of the rows before:

    p(row | rows before) = sum over writers k of  w_k(rows before) p_k(row)

The quotient of both is an e-value (universal inference: Wasserman, Ramdas and Balakrishnan 2020;
prediction of each row from those before: Dawid 1984). The condition is that rows are independent,
and that each has a writer of the null, drawn with shares w. Then the product of predictions is a
probability of the rows, and the supremum is at least their true likelihood. So the quotient has
expectation 1 at most.

Shapes: K writers, R rows.
"""

from dataclasses import dataclass

import numpy as np

MOST_ROUNDS = 5000
"rounds of the fixed-point iteration; the gap says how far it came"
GAP = 0.02
"nats below which the supremum counts as found; they are added to its bound"
STRENGTH = 2.0
"rows that the weights before the first row count for"


@dataclass(frozen=True)
class Supremum:
    """The largest likelihood of any mixture of writers."""

    bound: float
    "log of a number that no mixture exceeds, in nats"
    shares_K: np.ndarray
    "shares of the writers that come within `gap` of it"
    gap: float
    "how far `shares_K` may stay below, in nats"


def supremum(log_p_KR: np.ndarray, most_gap: float = GAP) -> Supremum:
    """The supremum over shares of the log-likelihood of all rows, by expectation maximisation.

    The objective is concave. So the largest directional derivative bounds what is missing
    (Lindsay 1983, The geometry of mixture likelihoods). The iteration ends within `most_gap` nats,
    and `bound` holds also where it ends early. No writer need be able to write every row,
    but every row needs a writer.
    """
    shares_K = np.full(len(log_p_KR), 1 / len(log_p_KR))
    if not log_p_KR.shape[1]:
        return Supremum(0.0, shares_K, 0.0)
    largest_R = log_p_KR.max(0)
    if not np.isfinite(largest_R).all():
        raise ValueError(f"{int((~np.isfinite(largest_R)).sum())} rows have no writer")
    p_KR = np.exp(log_p_KR - largest_R)
    rows = p_KR.shape[1]
    gap = np.inf
    for _ in range(MOST_ROUNDS):
        mixture_R = shares_K @ p_KR
        slope_K = (p_KR / mixture_R).mean(1)
        gap = rows * np.log(slope_K.max())
        if gap < most_gap:
            break
        shares_K = shares_K * slope_K
    total = float((np.log(shares_K @ p_KR) + largest_R).sum())
    return Supremum(total + float(gap), shares_K, float(gap))


def predictions(log_p_KR: np.ndarray, prior_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log of the prediction of every row [R] from those before, and the last weights [K].

    A row's weights are the prior's, plus the responsibilities of the rows before. So they depend
    on no later row, and each prediction is a probability.
    """
    weights_K = STRENGTH * np.asarray(prior_K, float) / np.sum(prior_K)
    predicted = []
    for log_p_K in log_p_KR.T:
        largest = log_p_K.max()
        joint_K = weights_K / weights_K.sum() * np.exp(log_p_K - largest)
        total = joint_K.sum()
        predicted.append(largest + np.log(total))
        weights_K = weights_K + joint_K / total
    return np.array(predicted), weights_K / weights_K.sum()
