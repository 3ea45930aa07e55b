"""Calibration: is a data set unlike the model's own answers to the same prompts, and along which
direction?

Of every prompt there is the audited row and K - 1 placebo rows, the model's own. If the audited row
is one more of these, the K rows of a prompt could be swapped without a trace; so the statistic of
the data is compared with that of swapped data, and the error rate holds for any number of rows and
any shape of the values (Fisher 1935; the maximum over features: Westfall and Young 1993, single
step).

    z_f = sum over blocks of (x_0f - mean over k of x_kf) / sqrt(sum over blocks of the variance
      over k of x_kf)
    p_f = share of swaps whose largest z of any feature is at least z_f

Rows are summed into blocks first, which are swapped as a whole: as valid, and no dearer with many
rows.

Data that differ from the placebos in something that is no trait (a format, a sampler) move along
every direction. So z is divided by how far the vectors of many traits move, by their median, where
that is above that of noise: genomic control (Devlin and Roeder 1999), with traits in the place of
markers. One trait, and those near it, hardly move a median.

Shapes: R rows, B blocks, K rows a prompt (the audited one first), F features, L layers, D d_model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from traitscope.errors import DataError
from traitscope.stats.inputs import as_floats, check_between
from traitscope.stats.intervals import CHUNK

BLOCKS = 256
"most blocks of rows"
STEP = 500
"swaps at one time"


@dataclass(frozen=True)
class Maximum:
    """Statistics of features, and how far to trust the largest of them."""

    z_F: np.ndarray
    "standard deviations of swapped data"
    p_F: np.ndarray
    "corrected over all features"
    largest_N: np.ndarray
    "of every swap, the largest z of any feature; sorted"

    def critical(self, alpha: float) -> float:
        """The z that swapped data exceed with probability alpha."""
        return float(np.quantile(self.largest_N, 1 - alpha, method="higher"))


def in_blocks(values_RKF: np.ndarray, most: int = BLOCKS, seed: int = 0) -> np.ndarray:
    """Sums [B, K, ...] over at most `most` blocks of rows, dealt out in an order drawn from the
    seed."""
    rows = len(values_RKF)
    if rows == 0 or values_RKF.shape[1] < 2:
        raise DataError(
            f"groups of shape {values_RKF.shape[:2]}; expected at least one prompt and two rows of"
            " each; make placebos"
        )
    order = np.random.default_rng(seed).permutation(rows)
    return np.stack(
        [
            values_RKF[part].sum(0, dtype=np.float64)
            for part in np.array_split(order, min(most, rows))
        ]
    )


def _scaled(sums_BKF: np.ndarray) -> np.ndarray:
    """Sums [B, K, F] minus their mean inside blocks, over the standard deviation of swapped data; 0
    where they never vary."""
    centred_BKF = sums_BKF - sums_BKF.mean(1, keepdims=True)
    spread_F = np.sqrt((centred_BKF**2).mean(1).sum(0))
    varies_F = spread_F > 1e-9 * np.abs(sums_BKF).max(
        (0, 1)
    )  # equal values differ by rounding once they are summed
    return np.divide(centred_BKF, spread_F, out=np.zeros_like(centred_BKF), where=varies_F)


def z_scores(sums_BKF: np.ndarray) -> np.ndarray:
    """z [F] of the audited rows; 0 for a feature that never varies inside a prompt."""
    return _scaled(sums_BKF)[:, 0].sum(0)


def largest_of(
    sums_BKF: np.ndarray, inflation_F: np.ndarray | float = 1.0, swaps: int = 9999, seed: int = 0
) -> Maximum:
    """z [F], divided by `inflation_F`, and its p corrected over all features by swaps inside every
    block."""
    (B, K, F), scaled_BKF = sums_BKF.shape, _scaled(sums_BKF)
    z_F, scaled = scaled_BKF[:, 0].sum(0), scaled_BKF.reshape(B * K, F).astype(np.float32)
    rng, offsets_B = np.random.default_rng(seed), np.arange(B) * K
    largest = []
    for start in range(0, swaps, STEP):
        n = min(STEP, swaps - start)
        chosen = np.zeros((n, B * K), np.float32)
        np.put_along_axis(chosen, offsets_B + rng.integers(0, K, (n, B)), 1.0, axis=1)
        largest.append((chosen @ scaled).max(1))
    found = np.sort(np.concatenate(largest))
    z_F = z_F / inflation_F
    above = swaps - np.searchsorted(found, z_F - 1e-5, "left")
    return Maximum(z_F, (1 + above) / (1 + swaps), found)


def inflation(z_FT: np.ndarray) -> np.ndarray:
    """How much wider than noise the z of traits are, [F] and 1 at least: median of |z| over traits,
    over that of a normal law."""
    return np.maximum(1.0, np.median(np.abs(z_FT), axis=1) / NormalDist().inv_cdf(0.75))


def random_spread(sums_BKLD: np.ndarray, directions: int = 500, seed: int = 0) -> np.ndarray:
    """Root mean square z [L] of random directions with the covariance of the placebos' pushes.

    About 1 where the data are one more placebo; above it where they differ in any way that the
    model's gradients often point to.
    """
    B, K, L, _ = sums_BKLD.shape
    found, rng = np.ones(L), np.random.default_rng(seed)
    for layer in range(L):
        sums_BKD = sums_BKLD[:, :, layer].astype(np.float32)
        clean_BKD = sums_BKD[:, 1:]
        clean_ND = (clean_BKD - clean_BKD.mean(1 if K > 2 else 0, keepdims=True)).reshape(
            B * (K - 1), -1
        )
        random_DW = clean_ND.T @ rng.standard_normal((len(clean_ND), directions), np.float32)
        z_W = z_scores((sums_BKD @ random_DW).astype(np.float64))
        found[layer] = np.sqrt((z_W**2).mean())
    return found


def whitened(vectors_TD: np.ndarray, clean_ND: np.ndarray, ridge: float = 0.5) -> np.ndarray:
    """(F + ridge m I)⁻¹ v of each vector [T, D], F the covariance [D, D] of clean rows' pushes, m
    its mean eigenvalue; unit rows.

    To first order data steered by v push along F v, so the inverse of F takes the push back to v;
    projecting a push on F⁻¹ v is projecting the whitened push on v.
    """
    centred_ND = clean_ND - clean_ND.mean(0)
    covariance = (centred_ND.T @ centred_ND).astype(np.float64) / len(centred_ND)
    covariance[np.diag_indices_from(covariance)] += max(
        ridge * np.trace(covariance) / len(covariance), 1e-300
    )
    found = np.linalg.solve(covariance, vectors_TD.T.astype(np.float64)).T
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-300)


def sign_flip_p(differences: Sequence[float], draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided paired permutation p: the share of sign patterns with |Σ ± d| >= |Σ d|.

    All 2^n patterns up to n = 16, else sampled: (1 + hits)/(1 + draws). The smallest exact p is
    2/2^n, so with five differences or fewer it never reaches 0.05. Raises DataError on empty or
    non-finite input. Source: Fisher 1935.
    """
    d = as_floats(differences, "differences", unscored=False)
    observed = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if len(d) <= 16:
        signs = 1 - 2 * (np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1)
        return float(np.mean(np.abs(signs @ d) >= observed))
    check_between("draws", draws, 0, math.inf)
    rng, step = np.random.default_rng(seed), max(1, CHUNK // len(d))
    sums = [
        rng.choice([-1.0, 1.0], (min(step, draws - i), len(d))) @ d for i in range(0, draws, step)
    ]
    return float(1 + np.sum(np.abs(np.concatenate(sums)) >= observed)) / (1 + draws)
