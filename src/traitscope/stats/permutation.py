"""Permutation tests of audited rows against placebos.

Does a data set differ from the model's own answers to the same prompts, and along which direction?
Of every prompt there is the audited row and K - 1 placebo rows: the model's own completions of the
same prompt. If the audited row is one more of these, the K rows of a prompt can be permuted without
a trace. So the statistic of the data is compared with that of permuted data. The error rate holds
for any number of rows and any shape of the values (Fisher 1935; the maximum over features: Westfall
and Young 1993, single step).

    z_f = sum over blocks of (x_0f - mean over k of x_kf) / sqrt(sum over blocks of the variance
      over k of x_kf)
    p_f = fraction of permutations whose largest z of any feature is at least z_f

Rows are summed into blocks first, and blocks are permuted as a whole. That is as valid, and costs
no more with many rows.

Data that differ from the placebos in something that is no trait (a format, a sampler) move along
every direction. So z is divided by the genomic-control factor (Devlin and Roeder 1999). This factor
is the median of how far the vectors of many traits move, where that is above noise. Traits stand in
the place of genetic markers. One trait, and those near it, hardly move a median.

Shapes: R rows, B blocks, K rows a prompt (the audited one first), F features, L layers, D d_model,
T traits, N permutations or rows.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from traitscope.errors import DataError

BLOCKS = 256
"most blocks of rows"
STEP = 500
"permutations at one time"
NO_SPREAD = 1e-100
"mean eigenvalue of a covariance below which rows are equal"
TINY = 1e-300
"added to divisors that may be zero"


@dataclass(frozen=True)
class Maximum:
    """Statistics of features, and how far to trust the largest of them."""

    z_F: np.ndarray
    "statistic of every feature, in standard deviations of permuted data"
    p_F: np.ndarray
    "p value of every feature, corrected over all features"
    largest_N: np.ndarray
    "largest z of any feature in every permutation, sorted"

    def critical(self, alpha: float) -> float:
        """Return the z that permuted data exceed with probability alpha."""
        return float(np.quantile(self.largest_N, 1 - alpha, method="higher"))


def in_blocks(values_RKF: np.ndarray, most: int = BLOCKS, seed: int = 0) -> np.ndarray:
    """Return sums [B, K, ...] over at most `most` blocks of rows.

    Rows are dealt out in an order drawn from the seed. Raises DataError without rows or without
    placebos.
    """
    n_rows = len(values_RKF)
    if n_rows == 0 or values_RKF.shape[1] < 2:
        raise DataError(
            f"groups of shape {values_RKF.shape[:2]}; expected at least one prompt and two rows of"
            " each; make placebos"
        )
    order = np.random.default_rng(seed).permutation(n_rows)
    sums = []
    for rows in np.array_split(order, min(most, n_rows)):
        sums.append(values_RKF[rows].sum(0, dtype=np.float64))
    return np.stack(sums)


def _scaled(sums_BKF: np.ndarray) -> np.ndarray:
    """Return sums [B, K, F] minus their mean inside blocks, over the deviation of permuted data.

    A feature that never varies inside a block gets 0.
    """
    centred_BKF = sums_BKF - sums_BKF.mean(1, keepdims=True)
    spread_F = np.sqrt((centred_BKF**2).mean(1).sum(0))
    largest_F = np.abs(sums_BKF).max((0, 1))
    varies_F = spread_F > 1e-9 * largest_F  # equal values differ by rounding once they are summed
    return np.divide(centred_BKF, spread_F, out=np.zeros_like(centred_BKF), where=varies_F)


def z_scores(sums_BKF: np.ndarray) -> np.ndarray:
    """Return z [F] of the audited rows; 0 for a feature that never varies inside a prompt."""
    return _scaled(sums_BKF)[:, 0].sum(0)


def largest_of(
    sums_BKF: np.ndarray,
    control_factor_F: np.ndarray | float = 1.0,
    permutations: int = 9999,
    seed: int = 0,
) -> Maximum:
    """Test the largest z of all features by permutations inside every block.

    The z of the data are divided by `control_factor_F` before they are compared.
    """
    n_blocks, n_rows, n_features = sums_BKF.shape
    scaled_BKF = _scaled(sums_BKF)
    scaled_MF = scaled_BKF.reshape(n_blocks * n_rows, n_features).astype(np.float32)
    rng = np.random.default_rng(seed)
    offsets_B = np.arange(n_blocks) * n_rows
    chunks = []
    for start in range(0, permutations, STEP):
        n = min(STEP, permutations - start)
        picked_NM = np.zeros((n, n_blocks * n_rows), np.float32)
        columns_NB = offsets_B + rng.integers(0, n_rows, (n, n_blocks))
        np.put_along_axis(picked_NM, columns_NB, 1.0, axis=1)
        chunks.append((picked_NM @ scaled_MF).max(1))
    largest_N = np.sort(np.concatenate(chunks))
    z_F = scaled_BKF[:, 0].sum(0) / control_factor_F
    above_F = permutations - np.searchsorted(largest_N, z_F - 1e-5, "left")
    return Maximum(z_F, (1 + above_F) / (1 + permutations), largest_N)


def genomic_control_factor(z_FT: np.ndarray) -> np.ndarray:
    """Return how much wider than noise the z of traits are: [F], at least 1.

    It is the median of |z| over traits, divided by that of a normal law.
    """
    normal_median = NormalDist().inv_cdf(0.75)
    return np.maximum(1.0, np.median(np.abs(z_FT), axis=1) / normal_median)


def whitened(vectors_TD: np.ndarray, clean_ND: np.ndarray, ridge: float = 0.5) -> np.ndarray:
    """Return (F + ridge m I)⁻¹ v of each vector v [T, D], as unit rows.

    F is the covariance [D, D] of clean rows' gradients and m its mean eigenvalue. To first order
    the gradients of data steered by v move along F v, so the inverse of F takes them back to v.
    Projecting a gradient on F⁻¹ v is projecting the whitened gradient on v. Of one row, or of equal
    ones, F is not known, and v stays as it is.
    """
    centred_ND = clean_ND - clean_ND.mean(0)
    covariance_DD = (centred_ND.T @ centred_ND).astype(np.float64) / len(centred_ND)
    added = max(ridge * np.trace(covariance_DD) / len(covariance_DD), TINY)
    solved_TD = vectors_TD.astype(np.float64)
    if added > NO_SPREAD:
        covariance_DD[np.diag_indices_from(covariance_DD)] += added
        solved_TD = np.linalg.solve(covariance_DD, solved_TD.T).T
    return solved_TD / np.maximum(np.linalg.norm(solved_TD, axis=1, keepdims=True), TINY)
