"""Gradients: along which trait's vector the rows' gradients point.

A row's gradient direction is projected on every candidate's vector at every block, as it is and
whitened. Formats move gradients, too, so this detector does not decide: it says where steered
teachers are tried as an explanation of the rows (search.py).

Shapes: B blocks of rows, K rows a prompt (the audited one first), L blocks of the model.
T traits, J kinds of projection, F features, D d_model, N clean rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from traitscope.auditing.detectors import text_features
from traitscope.auditing.detectors.findings import KINDS, AuditData, GradientFinding, Place
from traitscope.auditing.detectors.row_gradients import RowGradients
from traitscope.interventions.vector import Vector
from traitscope.stats import permutation

PERMUTATIONS = 9999
"permutations of the audited rows with their placebos"


def detect(data: AuditData) -> GradientFinding:
    """The gradient directions of the audited rows along the candidates' vectors."""
    surface_RKF = text_features.feature_groups(data.rows.prompts, data.rows.texts_RK)
    sums_BKLD = block_sums(data.rows.gradients, data.rows.pairs, seed=data.seed)
    return along_traits(
        list(data.vectors),
        [trait.name for trait in data.traits],
        projected(sums_BKLD, data.directions_LTJD),
        permutation.in_blocks(surface_RKF, seed=data.seed),
        data.error_share,
        random_directions=permutation.random_spread(sums_BKLD).round(3).tolist(),
    )


def block_sums(
    gradients: Sequence[RowGradients],
    pairs: Sequence[Sequence[int]],
    most: int = permutation.BLOCKS,
    seed: int = 0,
) -> np.ndarray:
    """Sums [B, K, L, D] of gradients over blocks of rows; a few rows are in memory at a time."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    sums = []
    for block in np.array_split(order, min(most, len(order))):
        by_set = []
        for k, stored in enumerate(gradients):
            by_set.append(stored.rows([pairs[row][k] for row in block]).sum(0))
        sums.append(np.stack(by_set))
    return np.stack(sums)


def unit_directions(vectors: Mapping[str, Vector], clean_NLD: np.ndarray) -> np.ndarray:
    """Unit directions [L, T, J, D]: of every vector at every block, as it is and whitened by the
    covariance of clean rows' gradients."""
    directions = []
    for layer in range(clean_NLD.shape[1]):
        raw_TD = np.stack([vector.rows_LD[layer] for vector in vectors.values()])
        raw_TD = raw_TD.astype(np.float64)
        raw_TD /= np.maximum(np.linalg.norm(raw_TD, axis=1, keepdims=True), 1e-300)
        whitened_TD = permutation.whitened(raw_TD, clean_NLD[:, layer])
        directions.append(np.stack([raw_TD, whitened_TD], 1))
    return np.stack(directions)


def projected(sums_BKLD: np.ndarray, directions_LTJD: np.ndarray) -> np.ndarray:
    """Projections [B, K, L, T, J] of gradients on directions."""
    return np.einsum("bkld,ltjd->bkltj", sums_BKLD, directions_LTJD, optimize=True)


def along_traits(
    names: Sequence[str],
    candidates: Sequence[str],
    values_BKLTJ: np.ndarray,
    surface_BKF: np.ndarray | None,
    alpha: float,
    permutations: int = PERMUTATIONS,
    random_directions: Sequence[float] = (),
) -> GradientFinding:
    """z of every candidate at its strongest place, from projections on the vectors of all `names`.

    z is divided by the genomic-control factor of its block, over all traits. p is by permutations
    of the audited rows with their placebos.
    """
    all_LTJ = permutation.z_scores(_flat(values_BKLTJ)).reshape(values_BKLTJ.shape[2:])
    genomic_control = {}
    control_LJ = np.ones((all_LTJ.shape[0], len(KINDS)))
    for j, kind in enumerate(KINDS):
        control_LJ[:, j] = permutation.genomic_control_factor(all_LTJ[:, :, j])
        genomic_control[kind] = control_LJ[:, j].round(3).tolist()
    columns = [list(names).index(name) for name in candidates]
    flat_BKF = _flat(values_BKLTJ[:, :, :, columns])
    shape = (values_BKLTJ.shape[2], len(columns), len(KINDS))
    control_F = np.broadcast_to(control_LJ[:, None], shape).ravel()
    maximum = permutation.largest_of(flat_BKF, control_F, permutations)
    beyond_F = _beyond_surface(flat_BKF, surface_BKF) / control_F
    z_LTJ = maximum.z_F.reshape(shape)
    places = {}
    for t, name in enumerate(candidates):
        layer, kind = np.unravel_index(z_LTJ[:, t].argmax(), (shape[0], len(KINDS)))
        places[name] = (layer, t, kind)
    p_LTJ, beyond_LTJ = maximum.p_F.reshape(shape), beyond_F.reshape(shape)
    statistic, p, where, beyond_surface = {}, {}, {}, {}
    for name in sorted(places, key=lambda name: -z_LTJ[places[name]]):
        layer, _, kind = place = places[name]
        statistic[name] = float(z_LTJ[place])
        p[name] = float(p_LTJ[place])
        where[name] = Place(int(layer), KINDS[kind])
        beyond_surface[name] = float(beyond_LTJ[place])
    return GradientFinding(
        statistic=statistic,
        p=p,
        where=where,
        critical=maximum.critical(alpha),
        beyond_surface=beyond_surface,
        genomic_control=genomic_control,
        random_directions=list(random_directions),
    )


def _beyond_surface(flat_BKF: np.ndarray, surface_BKF: np.ndarray | None) -> np.ndarray:
    """z [F] after what features of the text explain was taken away."""
    if surface_BKF is not None:
        flat_BKF = text_features.residual_groups(flat_BKF, surface_BKF)
    return permutation.z_scores(flat_BKF)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(*values.shape[:2], -1)
