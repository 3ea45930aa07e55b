"""Scores of single rows and of bags of rows: for looking, since single rows are weak evidence.

Shapes: R rows, K rows a prompt (the audited one first), D d_model.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from traitscope.auditing.detectors.findings import EValueFinding, Place
from traitscope.auditing.detectors.row_gradients import RowGradients
from traitscope.auditing.evidence import AuditRuns, log_likelihood_pair
from traitscope.inference.token_bins import PLAIN
from traitscope.inference.token_scores import read_token_scores
from traitscope.stats import permutation

BAGS = (16, 64, 256)
"numbers of consecutive rows that are scored together"
STEP = 256
"rows that are projected at one time"


def along_trait(runs: AuditRuns, trait: str, place: Place) -> np.ndarray:
    """Gradient [R, K] of every row along a trait's vector at a place's block."""
    unit_D = runs.vectors[trait].unit().rows_LD[place.layer]
    columns = []
    for k, stored in enumerate(runs.paired.gradients):
        index = runs.paired.index_of_set(k)
        columns.append(_projections(stored, index, place.layer, unit_D))
    return np.stack(columns, 1)


def _projections(
    stored: RowGradients, index: Sequence[int], layer: int, unit_D: np.ndarray
) -> np.ndarray:
    """Projections [R] of rows' gradients on a direction at a block."""
    parts = []
    for start in range(0, len(index), STEP):
        parts.append(stored.rows(index[start : start + STEP])[:, layer] @ unit_D)
    return np.concatenate(parts)


def scored_rows(
    runs: AuditRuns, e_values: EValueFinding, trait: str, along_RK: np.ndarray
) -> list[dict[str, Any]]:
    """Scores of every audited row.

    `gradient` is its gradient along the trait's vector minus that of its placebos, in standard
    deviations of placebos. `log_likelihood_gain` is what the best teacher of the likeliest
    candidate adds, in nats; None for rows that were not scored.
    """
    z_R = _against_placebos(along_RK)
    candidate = next(iter(e_values.statistic), None)
    gains = {}
    if candidate is not None:
        folder = runs.tried_folders()[candidate][e_values.where[candidate]]
        under_model_RT, under_teacher_RT = log_likelihood_pair(runs.data, folder)
        gain_R = (under_teacher_RT - under_model_RT)[:, PLAIN].round(4)
        gains = dict(zip(read_token_scores(folder)[0], gain_R.tolist(), strict=True))
    rows = []
    for record, z in zip(runs.paired.records, z_R, strict=True):
        rows.append(
            {
                "id": record.id,
                "gradient": round(float(z), 4),
                "along": trait,
                "log_likelihood_gain": gains.get(record.id),
                "teacher_of": candidate,
            }
        )
    return rows


def _against_placebos(along_RK: np.ndarray) -> np.ndarray:
    """z [R] of the audited rows against their placebos."""
    K = along_RK.shape[1]
    placebos = along_RK[:, 1:]
    variance = placebos.var() if K == 2 else placebos.var(1, ddof=1).mean()
    spread = max(1e-12, float(variance * K / (K - 1)) ** 0.5)
    return (along_RK[:, 0] - placebos.mean(1)) / spread


def bags_of(along_RK: np.ndarray, seed: int) -> dict[str, list[dict[str, float]]]:
    """By size, z of consecutive rows together and its p by permutations with their placebos, not
    corrected for the number of bags."""
    bags: dict[str, list[dict[str, float]]] = {}
    for size in BAGS:
        if size > len(along_RK):
            break
        bags[str(size)] = []
        for number, start in enumerate(range(0, len(along_RK) - size + 1, size)):
            part = along_RK[start : start + size, :, None]
            best = permutation.largest_of(part, seed=seed + number)
            bag = {"z": round(float(best.z_F[0]), 3), "p": float(best.p_F[0])}
            bags[str(size)].append(bag)
    return bags
