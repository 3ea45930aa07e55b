"""Fitted vectors: along which trait's vector a vector trained on the data points.

Shapes: S sets of rows (the data, then two or more placebo sets), L blocks, D d_model, T traits.
"""

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from traitscope.auditing.detectors.findings import NO_BOUND, AuditData, FittedFinding
from traitscope.interventions.vector import Vector


def detect(data: AuditData) -> FittedFinding:
    """The vectors that were trained on the audited rows and on their placebos."""
    return nearest_traits(data.fitted_SLD, data.vectors)


def trained_block(rows_LD: np.ndarray) -> int:
    """The block behind which a fitted vector was trained: the others are zero."""
    return int(np.linalg.norm(rows_LD, axis=1).argmax())


def nearest_traits(
    fitted_SLD: Sequence[np.ndarray], vectors: Mapping[str, Vector]
) -> FittedFinding:
    """Cosine with every trait's vector, against that of placebos.

    The data's vector minus the placebos' mean is compared with every trait's vector at the trained
    block. Each placebo's vector minus the others' mean has such a cosine, too. The data's cosine is
    divided by the root mean square of these. p is that of a normal law, times the number of traits.
    """
    block = trained_block(fitted_SLD[0])
    fitted_SD = np.stack(fitted_SLD)[:, block]
    data_D, placebos_SD = fitted_SD[0], fitted_SD[1:]
    units_TD = np.stack([vector.unit().rows_LD[block] for vector in vectors.values()])
    cosine_T = _cosines(units_TD, data_D - placebos_SD.mean(0))
    null_NT = []
    for n, placebo_D in enumerate(placebos_SD):
        others_SD = np.delete(placebos_SD, n, axis=0)
        null_NT.append(_cosines(units_TD, placebo_D - others_SD.mean(0)))
    spread = max(float(np.sqrt(np.mean(np.square(null_NT)))), 1e-12)
    z_T = cosine_T / spread
    names = list(vectors)
    statistic, p, cosine = {}, {}, {}
    for t in np.argsort(-z_T, kind="stable"):
        name = names[t]
        statistic[name] = float(z_T[t])
        p[name] = min(1.0, len(names) * NormalDist().cdf(-float(z_T[t])))
        cosine[name] = round(float(cosine_T[t]), 4)
    where = dict.fromkeys(p, f"block {block}")
    return FittedFinding(statistic, p, where, NO_BOUND, cosine)


def _cosines(units_TD: np.ndarray, row_D: np.ndarray) -> np.ndarray:
    return units_TD @ (row_D / max(float(np.linalg.norm(row_D)), 1e-12))
