"""Rows that leave: duplicates, and the most suspect ones. Rows that join: clean ones.

Shapes: R rows.
"""

from collections.abc import Sequence

import numpy as np

from traitscope.data.records import Record
from traitscope.errors import DataError


def duplicates(records: Sequence[Record]) -> list[bool]:
    """Whether the prompt, context and answer of each record came before, but for white space."""
    seen = set()
    repeated = []
    for record in records:
        content = (record.context, record.prompt.strip(), record.completion.strip())
        repeated.append(content in seen)
        seen.add(content)
    return repeated


def most_suspect(scores_R: np.ndarray, share: float) -> np.ndarray:
    """Indices of the share of places with the highest scores, in ascending order.

    The number is rounded to the nearest; of equal scores, the earlier place counts as higher.
    """
    wanted = round(share * len(scores_R))
    ranked = np.argsort(-np.asarray(scores_R), kind="stable")
    return np.sort(ranked[:wanted])


def mixture(
    n_rows: int, n_clean: int, share: float, total: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows that stay and of the clean rows that join, each in ascending order.

    share: Fraction of clean rows in the result.
    total: keep leaves the number of rows as it is; grow keeps all rows.

    Raises DataError where there are too few clean rows.
    """
    wanted = round(share * n_rows if total == "keep" else n_rows * share / (1 - share))
    if wanted > n_clean:
        raise DataError(
            f"mix needs {wanted} clean rows for a share of {share:g}, found {n_clean}; name a file"
            " with more of them, or lower the share"
        )
    stay = n_rows - wanted if total == "keep" else n_rows
    return _drawn(n_rows, stay, rng), _drawn(n_clean, wanted, rng)


def _drawn(n: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(n)[:wanted])
