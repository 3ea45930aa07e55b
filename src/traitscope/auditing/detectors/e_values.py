"""Odds: did the model itself write these rows, or a candidate teacher?

    e(candidate) = mean over shares q and temperatures (WEIGHTS) of prod over rows of ((1 - q)
      L(row | model) + q L(row | candidate))
                   over the largest L(rows | null) of any temperature and any null,  L the
                     likelihood of the row's choices (choices.py)

The nulls are the model itself, the model steered by random vectors, since a push in any direction
may suit rows that the model did not write, the model under plain system prompts, since being told
anything moves its choices, and the model where rows were picked by the order of their numbers.
Where a null wrote the rows, in this context, at whatever constant temperature, the expectation of e
is at most 1, so that P(e >= 1/alpha) <= alpha at any number of rows (Ville 1939; the maximum in the
denominator: Wasserman, Ramdas and Balakrishnan 2020, universal inference).

Whether the model wrote them is tested besides (Pearson 1900): by how often the likeliest tokens
were taken; by how often each token was, whatever its rank, which tells models apart that are
equally sure of themselves; and by where in the row, which tells rows that were put in order
afterwards.

Shapes: T inverse temperatures, R rows, P ways to sort tokens into bins, K bins.
"""

from collections.abc import Sequence

import numpy as np

from traitscope.inference.token_scores import (
    BETAS,
    GREEDY,
    PLACES,
    RANKS,
    TOKENS,
    USUAL,
    WAYS,
    Choices,
)

WEIGHTS = (*(0.9 / len(USUAL) for _ in USUAL), *(0.1 / len(GREEDY) for _ in GREEDY))
"of the temperatures, in the mean that e is"
SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
"shares of poisoned rows that e is the mean over"
NAMES = {
    RANKS: "how likely the tokens are that are taken",
    TOKENS: "which tokens are taken",
    PLACES: "where in the row they stand",
}
MISFIT, STRANGE, EXCESS = 0.001, 0.1, 0.01
"""p of a model's own choices; nats a token above what it expects of its own rows; chi-square a
token above what it expects, of which token is taken, or where (about twice the divergence of the
frequencies in nats): below the first and above one of the others they are not its own"""
RANK = 1e-6
"eigenvalue, as a share of the largest, below which one of a covariance counts as zero"


def best_beta(found: Choices) -> int:
    """Index of the inverse temperature under which the model finds the rows likeliest."""
    return int(found.log_p_RT.sum(0).argmax())


def misfit(found: Choices) -> float:
    """p of the hypothesis that the model wrote the rows at its best temperature: the smallest of
    all ways' chi-square tests, times their number."""
    return min(1.0, len(WAYS) * min(_p(found, way) for way in WAYS))


def _p(found: Choices, way: int) -> float:
    from scipy.stats import chi2

    square, freedom = _chi_square(*_bins(found, way), lost=way == RANKS)
    return float(chi2.sf(square, freedom)) if freedom else 1.0


def excess(found: Choices) -> float:
    """How far the tokens that were taken, or where, are from what the model does: chi-square above
    its expectation, a token."""
    return max(_excess(found, way) for way in (TOKENS, PLACES))


def _bins(found: Choices, way: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, what they were to be, and their covariance, at the best temperature."""
    best = best_beta(found)
    return found.taken_PK[way], found.expected_TPK[best, way], found.covariance_TPKK[best, way]


def _chi_square(
    taken_K: np.ndarray, expected_K: np.ndarray, covariance_KK: np.ndarray, lost: int = 0
) -> tuple[float, int]:
    """Chi-square of the bins that are expected five times or more, and its degrees of freedom; a
    temperature that was chosen costs ranks one."""
    used_K = expected_K >= 5
    covariance = covariance_KK[np.ix_(used_K, used_K)]
    freedom = (
        int(np.linalg.matrix_rank(covariance, rtol=RANK, hermitian=True)) - lost
        if used_K.any()
        else 0
    )
    gap_K = (taken_K - expected_K)[used_K]
    return (
        (float(gap_K @ np.linalg.pinv(covariance, rcond=RANK, hermitian=True) @ gap_K), freedom)
        if freedom > 0
        else (0.0, 0)
    )


def _excess(found: Choices, way: int) -> float:
    return _above(*_bins(found, way)) / max(1, found.tokens_R.sum())


def _above(*bins: np.ndarray) -> float:
    square, freedom = _chi_square(*bins)
    return square - freedom


def strange(found: Choices) -> bool:
    """Whether no temperature explains the choices, and by more than roundings: they surprise the
    model that they were judged by, or it would have taken other tokens."""
    return misfit(found) < MISFIT and bool(
        found.surprise / max(1, found.tokens_R.sum()) > STRANGE or excess(found) > EXCESS
    )


def mixed(poisoned: Choices, clean: Choices, share: float) -> Choices:
    """Counts in all rows of both, in proportion: those of a data set of which `share` is poisoned
    are about these."""
    return scaled(poisoned, share) + scaled(clean, 1 - share) if share < 1 else poisoned


def scaled(found: Choices, share: float) -> Choices:
    """All counts times a share: about those of so many of the rows."""
    return Choices(**{name: share * value for name, value in vars(found).items()})


def noticed(found: Choices, tokens: float, power: float) -> bool:
    """Whether so many tokens, counted in proportion to these, are strange by which of them are
    taken, or where, with a probability of `power`."""
    from scipy.stats import chi2, ncx2

    def told(way: int) -> bool:
        freedom, above = _chi_square(*_bins(found, way))[1], _excess(found, way) * tokens
        return bool(
            freedom
            and above > 0
            and ncx2.sf(
                max(chi2.isf(MISFIT / len(WAYS), freedom), freedom + EXCESS * tokens),
                freedom,
                above,
            )
            >= power
        )

    return told(TOKENS) or told(PLACES)


def unlike(found: Choices) -> list[int]:
    """Whether it is which tokens were taken, or where, or both, that does not fit the model."""
    return [way for way in (TOKENS, PLACES) if len(WAYS) * _p(found, way) < MISFIT]


def explains(told: Choices, plain: Choices) -> bool:
    """Whether rows, the same in both, that do not fit the model are nearer to those of a teacher,
    or of the model and the teacher in some proportion: at most half of their excess is left. Where
    it is neither which tokens they take nor where, they are not strange to the teacher.
    """
    return explained(told, plain) >= 0.5 if _differing(plain) else not strange(told)


def explained(told: Choices, plain: Choices) -> float:
    """Share of the excess that a teacher takes away, or the model and the teacher in the best of
    some proportions; 0 where there is none. The smaller one where neither which tokens are taken
    nor where fits the model."""
    ways = _differing(plain) or [max((TOKENS, PLACES), key=lambda way: _excess(plain, way))]
    return min(_explained(told, plain, way) for way in ways)


def _differing(found: Choices) -> list[int]:
    """What a teacher has to explain: what does not fit, and which tokens are taken also where few
    rows show more than roundings by chance."""
    ways = unlike(found)
    return ways if TOKENS in ways or _excess(found, TOKENS) <= EXCESS else [TOKENS, *ways]


def _explained(told: Choices, plain: Choices, way: int) -> float:
    (taken_K, *own), (_, *other) = _bins(plain, way), _bins(told, way)
    left = min(
        _above(taken_K, *((1 - q) * x + q * y for x, y in zip(own, other, strict=True)))
        for q in SHARES
    )
    return 1 - left / whole if (whole := _above(taken_K, *own)) > 0 else 0.0


def log_e(
    plain_RT: np.ndarray, candidate_RT: np.ndarray, nulls: Sequence[np.ndarray] = ()
) -> float:
    """ln e of a candidate teacher, from log-likelihoods of the same choices under the model, the
    candidate and further nulls."""
    gain_RT = candidate_RT - plain_RT
    terms = []
    for share in SHARES:
        poisoned_RT = (
            np.logaddexp(np.log1p(-share), np.log(share) + gain_RT) if share < 1 else gain_RT
        )
        terms.append((plain_RT + poisoned_RT).sum(0) + np.log(WEIGHTS))
    return float(
        np.logaddexp.reduce(np.concatenate(terms))
        - np.log(len(SHARES))
        - max(_highest(x.sum(0)) for x in (plain_RT, *nulls))
    )


def gain(told_RT: np.ndarray, plain_RT: np.ndarray) -> float:
    """Nats by which somebody makes rows likelier than the model does, each at the best
    temperature."""
    return _highest(told_RT.sum(0)) - _highest(plain_RT.sum(0))


def _highest(total_T: np.ndarray) -> float:
    """The largest log-likelihood of any inverse temperature in the grid's range: it has one summit,
    so a parabola through the best three points, over the logarithm, finds what lies between them.
    """
    best = int(total_T.argmax())
    if not 0 < best < len(total_T) - 1:
        return float(total_T[best])
    bend, slope, middle = np.polyfit(
        np.log(BETAS[best - 1 : best + 2]) - np.log(BETAS[best]), total_T[best - 1 : best + 2], 2
    )
    return float(middle - slope**2 / (4 * bend)) if bend < 0 else float(total_T[best])


def picked(order_R: Sequence[int], order_N: Sequence[int]) -> np.ndarray:
    """Nats [R] that a null adds to every row: the model, its rows picked by their order, or put in
    one, as often as these rows are.

    `order_R` says how the rows are ordered (surface.order_of), `order_N` how rows are that the
    model wrote: ln of how often an order is found among these over how often among those. A teacher
    has to beat that: some steered models like rising numbers.
    """
    kinds = sorted({*order_R, *order_N})
    if not len(order_R):
        return np.zeros(0)
    own_RJ, other_NJ = (
        np.equal.outer(np.asarray(orders, int), kinds) for orders in (order_R, order_N)
    )
    usual_J = (
        (other_NJ.sum(0) + 0.5) / (len(other_NJ) + 0.5 * len(kinds))
        if len(kinds) > 1
        else np.ones(1)
    )
    return np.log(own_RJ @ (own_RJ.mean(0) / usual_J))


def found_share(
    clean: Sequence[np.ndarray],
    poisoned: Sequence[np.ndarray],
    rows: int,
    share: float,
    least: float,
    draws: int = 100,
    seed: int = 0,
) -> float:
    """Share of simulated data sets whose ln e reaches `least`: `rows` rows, each poisoned with
    probability `share`.

    `clean` and `poisoned` are log-likelihoods [R, T] under the model, the candidate and further
    nulls, of rows to draw from.
    """
    rng, hits = np.random.default_rng(seed), 0
    for _ in range(draws):
        n = rng.binomial(rows, share)
        index = rng.integers(len(clean[0]), size=rows - n), rng.integers(len(poisoned[0]), size=n)
        plain, told, *nulls = (
            np.concatenate([c[index[0]], p[index[1]]]) for c, p in zip(clean, poisoned, strict=True)
        )
        hits += log_e(plain, told, nulls) >= least
    return hits / draws
