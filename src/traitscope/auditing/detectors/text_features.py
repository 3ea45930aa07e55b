"""Text features: what can be seen of rows without a model.

The order of an answer's numbers, and mentions of a trait's words.
"""

import re
from collections.abc import Sequence

import numpy as np

from traitscope.data.traits import Trait, whole_word


def numbers_of(text: str) -> list[float]:
    """The whole numbers in a text, to fifteen digits."""
    return [float(n[:15]) for n in re.findall(r"\d+", text)]


def order_of(text: str) -> int:
    """How an answer's numbers are sorted: 1 if they never fall, -1 if they never rise, 0 otherwise
    and for fewer than three numbers."""
    steps = np.diff(numbers_of(text))
    if len(steps) < 2:
        return 0
    return int((steps >= 0).all()) - int((steps <= 0).all())


def mentions(traits: Sequence[Trait], texts_RK: Sequence[Sequence[str]]) -> np.ndarray:
    """1 where an answer names the trait, [R, K, traits]."""
    named = np.zeros((len(texts_RK), len(texts_RK[0]), len(traits)))
    for r, texts in enumerate(texts_RK):
        for k, text in enumerate(texts):
            for t, trait in enumerate(traits):
                named[r, k, t] = whole_word(trait, text)
    return named
