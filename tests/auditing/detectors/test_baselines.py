"""Baselines: they name what differs."""

import numpy as np
from synthetic_gradients import held, texts

from traitscope.auditing.detectors import baselines
from traitscope.auditing.detectors.findings import AuditData, PairedRows, TextRow


def test_baselines_name_what_differs() -> None:
    rng = np.random.default_rng(6)
    stores = [held(rng, 60) for _ in range(3)]
    stores[0].loss_R = stores[0].loss_R + 2
    rows = texts(rng, 60, 3)
    rows = [[" ".join(sorted(group[0].split())), *group[1:]] for group in rows]
    records = [TextRow(f"r{n}", "p", group[0]) for n, group in enumerate(rows)]
    paired = PairedRows(records, rows, stores, [[n] * 3 for n in range(60)])
    data = AuditData([], paired, {}, np.zeros(0), {}, error_share=0.01, seed=0)
    answer = baselines.detect(data)
    assert set(list(answer.statistic)[:2]) == {"rising pairs", "loss"} and answer.p["loss"] < 0.01
    assert 0.3 < answer.words_auroc < 0.7
