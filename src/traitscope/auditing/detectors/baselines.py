"""Baselines: features of the text, the loss and the gradient norm.

They say that data differ from the placebos, not what the data carry.

Shapes: R rows, K rows a prompt (the audited one first), F features.
"""

import numpy as np

from traitscope.auditing.detectors import text_features
from traitscope.auditing.detectors.findings import (
    AuditData,
    BaselineFinding,
    PairedRows,
    ranked_by_permutation,
)
from traitscope.stats import permutation

NAMES = (*text_features.FEATURES, "loss", "gradient norm")
"features that are compared"


def detect(data: AuditData) -> BaselineFinding:
    """What differs between the audited rows and their placebos."""
    surface_RKF = text_features.feature_groups(data.rows.prompts, data.rows.texts_RK)
    trained_RKF = loss_and_norm(data.rows)
    values_RKF = np.concatenate([surface_RKF, trained_RKF], 2)
    maximum = permutation.largest_of(permutation.in_blocks(values_RKF))
    statistic, p = ranked_by_permutation(NAMES, maximum)
    return BaselineFinding(
        statistic=statistic,
        p=p,
        where=dict.fromkeys(NAMES, "text"),
        critical=maximum.critical(data.error_share),
        words_auroc=text_features.classifier_auroc(data.rows.texts_RK),
    )


def loss_and_norm(rows: PairedRows) -> np.ndarray:
    """Loss and mean gradient norm over blocks [R, K, 2] of every row."""
    columns = []
    for k, stored in enumerate(rows.gradients):
        index_R = rows.index_of_set(k)
        columns.append(np.stack([stored.loss_R[index_R], stored.norms_RL[index_R].mean(1)], 1))
    return np.stack(columns, 1)
