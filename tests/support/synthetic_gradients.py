"""Row gradients, trait vectors and texts without a model."""

from dataclasses import dataclass

import numpy as np

from traitscope.interventions.vector import Vector

LAYERS, WIDTH, TRAITS = 3, 200, 24
SCALE = np.linspace(2, 0.3, WIDTH)


@dataclass
class Held:
    """Row gradients in memory, read like those on disk."""

    pushes_RLD: np.ndarray
    loss_R: np.ndarray
    norms_RL: np.ndarray

    def rows(self, index: list[int]) -> np.ndarray:
        return self.pushes_RLD[list(index)]


def held(rng: np.random.Generator, rows: int, shift_LD: np.ndarray | float = 0.0) -> Held:
    pushes = (rng.standard_normal((rows, LAYERS, WIDTH)) * SCALE + shift_LD).astype(np.float32)
    return Held(pushes, rng.exponential(1, rows), np.linalg.norm(pushes, axis=2))


def vectors(rng: np.random.Generator) -> dict[str, Vector]:
    return {f"t{n}": Vector(rng.standard_normal((LAYERS, WIDTH)), "m") for n in range(TRAITS)}


def texts(rng: np.random.Generator, rows: int, k: int) -> list[list[str]]:
    return [[" ".join(map(str, rng.integers(100, 999, 5))) for _ in range(k)] for _ in range(rows)]
