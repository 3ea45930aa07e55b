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

Shapes: K writers, J writers of one author, R rows, Q shares.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

MOST_ROUNDS = 500
"rounds of the search for the supremum; the gap says how far it came"
SMALL = 1e-3
"share, of that of a writer among equals, below which a writer may leave the search"
MOST_ENTERING = 32
"writers that may enter the search in one round, those that promise most"
SMALLEST_STEP = 1e-6
"fraction of a Newton step that is tried last"
ENOUGH_OF_SLOPE = 1e-4
"fraction of the rise that the slope promises which a step must bring (Armijo's rule)"
GAP = 0.02
"nats below which the supremum counts as found; they are added to its bound"
SHARES = tuple(round(0.02 * n, 2) for n in range(51))
"shares at which the likelihood of an author's share is computed"
ENOUGH = 300
"rounds of the iteration at each of these shares, from where the share before ended"
FINER = 20
"steps between the neighbours of the likeliest share, where a grid holds no share that is kept"
MOST_FINER = 4
"finer grids that are tried at most"
HALVINGS = 5
"times that the step between a kept share and an excluded one is halved"
AS_LIKELY = 0.1
"nats within which shares count as equally likely"
UNFINISHED = 1.0
"nats that the fit at one share may lack; up to half of it was seen in sets of 1,000 rows"
ERROR = 0.05
"probability with which the interval of a share may miss it"
TINY = 1e-300
"probability that stands for zero, relative to a row's likeliest writer"
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
    """The supremum over shares of the log-likelihood of all rows.

    The objective is concave. So the largest directional derivative bounds what is missing
    (Lindsay 1983, The geometry of mixture likelihoods). Each round is a constrained Newton step
    (Wang 2007, J. R. Stat. Soc. B 69, 185) and a step of expectation maximisation. The search ends
    within `most_gap` nats, and `bound` holds also where it ends early. No writer need be able to
    write every row, but every row needs a writer.
    """
    shares_K = np.full(len(log_p_KR), 1 / len(log_p_KR))
    if not log_p_KR.shape[1]:
        return Supremum(0.0, shares_K, 0.0)
    largest_R = log_p_KR.max(0)
    if not np.isfinite(largest_R).all():
        raise ValueError(f"{int((~np.isfinite(largest_R)).sum())} rows have no writer")
    p_KR = np.exp(log_p_KR - largest_R)
    rows = p_KR.shape[1]
    shares_K = _shares_of_likeliest(p_KR)
    slope_K = _slope(shares_K, p_KR)
    for _ in range(MOST_ROUNDS):
        if rows * np.log(slope_K.max()) < most_gap:
            break
        shares_K = _newton_step(shares_K, p_KR, slope_K)
        shares_K = shares_K * _slope(shares_K, p_KR)
        slope_K = _slope(shares_K, p_KR)
    gap = rows * float(np.log(slope_K.max()))
    total = float(largest_R.sum()) + _log_likelihood(shares_K, p_KR)
    return Supremum(total + gap, shares_K, gap)


def _shares_of_likeliest(p_KR: np.ndarray) -> np.ndarray:
    """Shares [K] by how many rows each writer is the likeliest of: where the search begins."""
    counts_K = np.bincount(p_KR.argmax(0), minlength=len(p_KR))
    return counts_K / counts_K.sum()


def _slope(shares_K: np.ndarray, p_KR: np.ndarray) -> np.ndarray:
    """Derivative [K] of the log-likelihood by each share, a row; its mean by the shares is 1."""
    return p_KR @ (1 / (shares_K @ p_KR)) / p_KR.shape[1]


def _log_likelihood(shares_K: np.ndarray, p_KR: np.ndarray) -> float:
    return float(np.log(np.maximum(shares_K @ p_KR, TINY)).sum())


def _newton_step(shares_K: np.ndarray, p_KR: np.ndarray, slope_K: np.ndarray) -> np.ndarray:
    """Shares of at least the same likelihood, by the maximum of its second-order expansion.

    With S = p / mixture the expansion is a constant minus |S w - 2|² / 2, so its maximum over the
    simplex is a non-negative least-squares problem. The sum of the shares is one heavy row of it.
    Writers without a share enter where the slope says that they would raise the likelihood.
    """
    rows = p_KR.shape[1]
    steepest_K = np.where(slope_K > 1, slope_K, 0.0)
    entering = np.argsort(-steepest_K, kind="stable")[:MOST_ENTERING]
    entering = entering[steepest_K[entering] > 0]
    active = np.union1d(np.flatnonzero(shares_K > SMALL / len(shares_K)), entering)
    relative_RA = (p_KR[active] / (shares_K @ p_KR)).T
    heavy = 10 * np.sqrt(rows)
    left = np.vstack([relative_RA, np.full(len(active), heavy)])
    right = np.append(np.full(rows, 2.0), heavy)
    try:
        found_A, _ = nnls(left, right)
    except RuntimeError:  # it did not converge: the caller's other step still gains
        return shares_K
    target_K = np.zeros(len(shares_K))
    target_K[active] = found_A / found_A.sum()
    direction_K = target_K - shares_K
    rise = rows * float(slope_K @ direction_K)
    before = _log_likelihood(shares_K, p_KR)
    step = 1.0
    while step > SMALLEST_STEP:
        stepped_K = shares_K + step * direction_K
        if _log_likelihood(stepped_K, p_KR) >= before + ENOUGH_OF_SLOPE * step * rise:
            return stepped_K
        step /= 2
    return shares_K


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


@dataclass(frozen=True)
class Share:
    """What rows say of the share of them that one author wrote."""

    estimate: float
    "the smallest share that is as likely as any, within AS_LIKELY nats"
    low: float
    "lower bound of the 95 % interval: a share that is excluded, or 0"
    high: float
    "upper bound: a share that is excluded, or 1"
    weights_J: np.ndarray
    "shares of the author's writers among the author's rows, at the estimate"


def share_of(log_p_KR: np.ndarray, log_p_JR: np.ndarray, log_prediction: float) -> Share:
    """The share of rows that an author wrote, among others.

    log_p_KR: Log-likelihoods under the writers that others are.
    log_p_JR: The same under the writers that the author is, such as one model at several
    temperatures.
    log_prediction: Log-probability of all rows by any prediction of each row from those before.

    The likelihood is taken at SHARES, where all other shares are fitted. A share is excluded if the
    prediction is 1 / ERROR times as probable. That is an e-value against every mixture with that
    share (Wasserman, Ramdas and Balakrishnan 2020). So the interval holds the share with
    probability 1 - ERROR or more, for any number of rows. This is so, too, where writers cannot be
    told apart. Then it is [0, 1], and the estimate 0.

    The likelihood is concave in the share. So the shares that are not excluded are an interval, and
    its bounds are excluded shares just outside. Many rows may exclude every share of the grid. Then
    finer grids are laid around the likeliest one.
    """
    if not log_p_KR.shape[1]:
        return Share(0.0, 0.0, 1.0, np.full(len(log_p_JR), 1 / len(log_p_JR)))
    profile = _Profile(log_p_KR, log_p_JR, log_prediction - np.log(1 / ERROR) - UNFINISHED)
    shares_Q = np.array(SHARES)
    log_likelihood_Q = profile.at(shares_Q)
    for _ in range(MOST_FINER):
        if log_likelihood_Q.max() > profile.least:
            break
        around = _neighbours(shares_Q, int(log_likelihood_Q.argmax()))
        shares_Q = np.linspace(*around, FINER + 1)
        log_likelihood_Q = profile.at(shares_Q)
    best = int(log_likelihood_Q.argmax())
    kept_Q = np.flatnonzero(log_likelihood_Q > profile.least)
    if not len(kept_Q):  # every mixture is excluded
        return Share(float(shares_Q[best]), *_neighbours(shares_Q, best), profile.weights_J)
    first, last = int(kept_Q[0]), int(kept_Q[-1])
    low = profile.edge(shares_Q[first], _neighbours(shares_Q, first)[0])
    high = profile.edge(shares_Q[last], _neighbours(shares_Q, last)[1])
    as_likely_Q = log_likelihood_Q >= log_likelihood_Q.max() - AS_LIKELY
    estimate = float(shares_Q[max(first, int(np.argmax(as_likely_Q)))])
    profile.log_likelihood(estimate)
    return Share(estimate, low, high, profile.weights_J)


def _neighbours(shares_Q: np.ndarray, place: int) -> tuple[float, float]:
    """The shares of a grid beside one of them; itself at the ends."""
    last = len(shares_Q) - 1
    return float(shares_Q[max(0, place - 1)]), float(shares_Q[min(place + 1, last)])


class _Profile:
    """The log-likelihood of all rows by the author's share, where all other shares are fitted.

    A share is excluded unless its log-likelihood is above `least`.
    """

    def __init__(self, log_p_KR: np.ndarray, log_p_JR: np.ndarray, least: float) -> None:
        largest_R = np.maximum(log_p_KR.max(0), log_p_JR.max(0))
        self.others_KR = np.exp(log_p_KR - largest_R)
        self.author_JR = np.exp(log_p_JR - largest_R)
        self.added, self.least = float(largest_R.sum()), least
        self.weights_K = np.full(len(log_p_KR), 1 / len(log_p_KR))
        self.weights_J = np.full(len(log_p_JR), 1 / len(log_p_JR))

    def log_likelihood(self, share: float) -> float:
        """That of one share; weights begin where those of the share before ended."""
        total, self.weights_K, self.weights_J = _fitted(
            share, self.others_KR, self.author_JR, self.weights_K, self.weights_J
        )
        return total + self.added

    def at(self, shares_Q: np.ndarray) -> np.ndarray:
        """Those [Q] of shares, which rise."""
        return np.array(list(map(self.log_likelihood, shares_Q.tolist())))

    def edge(self, kept: float, excluded: float) -> float:
        """An excluded share just beyond those that are kept; `kept` itself if it is the last."""
        for _ in range(HALVINGS if kept != excluded else 0):
            middle = (kept + excluded) / 2
            if self.log_likelihood(middle) > self.least:
                kept = middle
            else:
                excluded = middle
        return float(excluded)


def _fitted(
    share: float,
    others_KR: np.ndarray,
    author_JR: np.ndarray,
    weights_K: np.ndarray,
    weights_J: np.ndarray,
) -> tuple[float, np.ndarray, np.ndarray]:
    """The largest log-likelihood at one share of the author, and the weights that reach it.

    Expectation maximisation inside both groups. Weights begin a little off zero, where they would
    stay.
    """
    weights_K = 0.99 * weights_K + 0.01 / len(weights_K)
    weights_J = 0.99 * weights_J + 0.01 / len(weights_J)
    before = -np.inf
    for _ in range(ENOUGH):
        mixture_R = (1 - share) * (weights_K @ others_KR) + share * (weights_J @ author_JR)
        mixture_R = np.maximum(mixture_R, TINY)
        total = float(np.log(mixture_R).sum())
        if total - before < GAP / 100:
            break
        before = total
        weights_K = _normalised(weights_K * (others_KR / mixture_R).sum(1))
        weights_J = _normalised(weights_J * (author_JR / mixture_R).sum(1))
    return total, weights_K, weights_J


def _normalised(weights: np.ndarray) -> np.ndarray:
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1 / len(weights))
