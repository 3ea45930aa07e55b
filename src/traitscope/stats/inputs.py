"""Checks and grouping of the numbers that statistics are given."""

from collections.abc import Hashable, Sequence

import numpy as np

from traitscope.errors import ConfigError, DataError

Labels = Sequence[Hashable]


def label_codes(labels: Labels, n: int) -> np.ndarray:
    """Each label as an index 0..; sorted, so that the order of the rows does not matter."""
    if len(labels) != n:
        raise DataError(
            f"{len(labels)} labels for {n} values; expected one a value; pass lists of the same"
            " length"
        )
    levels = sorted(set(labels), key=lambda label: (str(label), type(label).__name__))
    index = {label: code for code, label in enumerate(levels)}
    return np.array([index[label] for label in labels], dtype=int)


def count_levels(codes: np.ndarray | None) -> int:
    return 0 if codes is None else len(np.unique(codes))


def group_means(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of the scored values of each code; NaN for a code without any."""
    weights = ~np.isnan(values)
    counts, sums = np.bincount(codes, weights), np.bincount(codes, np.where(weights, values, 0.0))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def as_floats(values: Sequence[float], what: str, unscored: bool = True) -> np.ndarray:
    """`values` as a vector; NaN is an error, as is an empty input, unless `unscored` values are
    allowed."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what}: {error}; expected a list of numbers; use NaN for an unscored value"
        ) from None
    if array.ndim != 1 or np.isinf(array).any():
        raise DataError(
            f"{what}: shape {array.shape} or an infinite value; expected a list of finite numbers;"
            " fix it"
        )
    if not unscored and (len(array) == 0 or np.isnan(array).any()):
        found = f"{what}: {int(np.isnan(array).sum())} NaN in {len(array)} values"
        raise DataError(
            f"{found}; expected at least one number and no NaN; drop and count unscored values"
        )
    return array


def has_no_spread(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def check_between(what: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise ConfigError(
            f"{what} is {value}; expected a number between {low} and {high}, both excluded;"
            " change it"
        )
