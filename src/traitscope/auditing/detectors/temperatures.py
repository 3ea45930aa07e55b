"""All temperatures from a grid of them: what rows are likely to be under any, or any mixture.

The log-likelihood of a row at inverse temperature b is

    l(b) = b s - A(b),        A(b) = sum over tokens of log Z(b)

s is the sum of the logits of its tokens. A is convex, so l is concave. Let b lie between two
neighbours a and c of a grid, b = w a + (1 - w) c. With the weighted mean of logarithms below the
logarithm of the mean,

    p_b = exp(J) p_a^w p_c^(1 - w) <= exp(J) (w p_a + (1 - w) p_c),
    J = l(b) - w l(a) - (1 - w) l(c) >= 0

So multiply every column of the grid by exp(J), row by row, with the larger J of the two intervals
beside it. Then some mixture of the columns is as likely as any mixture over *all* temperatures.
Neighbours bound J: a concave l lies below the lines through the two grid points on either side.

J shrinks with the square of the step, so the grid is refined first. What is missing is
interpolated: l is smooth.

Shapes: T inverse temperatures of the grid, F of the fine grid, R rows.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from traitscope.inference.samplers import SAMPLERS
from traitscope.inference.token_bins import BETAS

PARTS = 4
"parts into which a step of the grid is divided"
NARROW = 1.5
"ratio of two neighbours up to which the step between them is divided"
NODES = 6
"points of the grid that a value between them is interpolated from"


def covering(log_p_TR: np.ndarray, betas: Sequence[float], parts: int = PARTS) -> np.ndarray:
    """Log-likelihoods [F, R] of columns that cover all inverse temperatures in `betas`' range.

    Some mixture of the columns is at least as likely as any mixture over these temperatures.

    log_p_TR: Log-likelihoods of rows at the inverse temperatures `betas`, which rise.
    parts: Parts into which steps are divided.

    The columns are no probabilities: their sum over rows that could be written may exceed 1.
    """
    fine_F, weights_FT = _interpolation(tuple(betas), parts)
    log_p_FR = weights_FT @ log_p_TR
    return log_p_FR + _excess(log_p_FR, fine_F)


def at_all_temperatures(log_p_KR: np.ndarray, parts: int = PARTS) -> np.ndarray:
    """Log-likelihoods of columns that cover the nulls at all inverse temperatures in BETAS' range.

    Some mixture of the columns is at least as likely as any mixture of these.

    log_p_KR: The model itself at BETAS, the model under SAMPLERS, and every other null at BETAS, as
    in `RowsUnderNulls.writers_KR`. Fewer rows than BETAS are taken as they are.
    """
    step = len(BETAS)
    if len(log_p_KR) < step:
        return log_p_KR
    others = step + len(SAMPLERS)
    columns = [covering(log_p_KR[:step], BETAS, parts), log_p_KR[step:others]]
    for start in range(others, len(log_p_KR), step):
        columns.append(covering(log_p_KR[start : start + step], BETAS, parts))
    return np.concatenate(columns)


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


@cache
def _interpolation(betas: tuple[float, ...], parts: int) -> tuple[np.ndarray, np.ndarray]:
    """The fine grid [F], and the weights [F, T] of the grid's values in those of the fine one."""
    grid_T = np.array(betas)
    fine, weights = [], []
    for place, beta in enumerate(betas):
        fine.append(beta)
        weights.append(np.eye(len(betas))[place])
        if place + 1 == len(betas) or len(betas) < NODES:
            continue
        step = betas[place + 1] - beta
        if betas[place + 1] > NARROW * beta:
            continue
        for part in range(1, parts):
            between = beta + step * part / parts
            fine.append(between)
            weights.append(_lagrange(grid_T, place, between))
    return np.array(fine), np.array(weights)


def _lagrange(grid_T: np.ndarray, place: int, beta: float) -> np.ndarray:
    """Weights [T] of the grid's values at `beta`: a polynomial through the points around it."""
    first = min(max(place + 1 - NODES // 2, 0), len(grid_T) - NODES)
    nodes = range(first, first + NODES)
    weights_T = np.zeros(len(grid_T))
    for node in nodes:
        others = [other for other in nodes if other != node]
        factors = (beta - grid_T[others]) / (grid_T[node] - grid_T[others])
        weights_T[node] = factors.prod()
    return weights_T


def _excess(log_p_FR: np.ndarray, beta_F: np.ndarray) -> np.ndarray:
    """The largest J [F, R] of the intervals on both sides of every point; at least 0."""
    if len(beta_F) < 2:
        return np.zeros_like(log_p_FR)
    step_I1 = np.diff(beta_F)[:, None]
    slope_IR = np.diff(log_p_FR, axis=0) / step_I1
    # What the lines through the neighbours on the left and on the right rise over the chord, for
    # each unit of the way from that end. At the ends of the grid there is one line.
    left_IR = np.full_like(slope_IR, np.inf)
    right_IR = np.full_like(slope_IR, np.inf)
    left_IR[1:] = np.maximum(slope_IR[:-1] - slope_IR[1:], 0.0)
    right_IR[:-1] = np.maximum(slope_IR[:-1] - slope_IR[1:], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        meeting_IR = step_I1 * left_IR * right_IR / (left_IR + right_IR)
    meeting_IR = np.where(np.isinf(left_IR), step_I1 * right_IR, meeting_IR)
    meeting_IR = np.where(np.isinf(right_IR), step_I1 * left_IR, meeting_IR)
    excess_IR = np.where(np.isfinite(meeting_IR), meeting_IR, 0.0)
    zero_1R = np.zeros((1, log_p_FR.shape[1]))
    return np.maximum(np.concatenate([zero_1R, excess_IR]), np.concatenate([excess_IR, zero_1R]))
