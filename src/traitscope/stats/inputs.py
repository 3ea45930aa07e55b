"""Checks and grouping of the numbers that statistics are given."""

from collections.abc import Hashable, Sequence

import numpy as np

from traitscope.errors import ConfigError, DataError

Labels = Sequence[Hashable]
"one label a value: its seed, its question, ..."


def as_floats(values: Sequence[float], what: str, unscored: bool = True) -> np.ndarray:
    """Return `values` as a vector of floats; `what` names them in messages.

    None becomes NaN, which stands for an unscored value. Raises DataError for anything that is no
    list of numbers and for infinite values. With `unscored=False` it also raises for NaN and for an
    empty input.
    """
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
    n_missing = int(np.isnan(array).sum())
    if not unscored and (len(array) == 0 or n_missing > 0):
        raise DataError(
            f"{what}: {n_missing} NaN in {len(array)} values; expected at least one number and no"
            " NaN; drop and count unscored values"
        )
    return array


def label_codes(labels: Labels, n: int) -> np.ndarray:
    """Return each label as an index from 0; raise DataError unless there are `n` labels.

    Labels are sorted first, so that the order of the rows does not matter.
    """
    if len(labels) != n:
        raise DataError(
            f"{len(labels)} labels for {n} values; expected one a value; pass lists of the same"
            " length"
        )
    levels = sorted(set(labels), key=lambda label: (str(label), type(label).__name__))
    index = {label: code for code, label in enumerate(levels)}
    return np.array([index[label] for label in labels], dtype=int)


def count_levels(codes: np.ndarray | None) -> int:
    """Return the number of different codes; 0 for None, a factor that is not there."""
    return 0 if codes is None else len(np.unique(codes))


def group_means(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean of the scored values of each code; NaN for a code without any."""
    scored = ~np.isnan(values)
    counts = np.bincount(codes, scored)
    sums = np.bincount(codes, np.where(scored, values, 0.0))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def has_no_spread(values: np.ndarray) -> bool:
    """Tell whether all values are equal, up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def check_between(what: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless low < value < high; `what` names the value in the message."""
    if not low < value < high:
        raise ConfigError(
            f"{what} is {value}; expected a number between {low} and {high}, both excluded;"
            " change it"
        )
