"""Blind naming as a stage: what is refused of the vector whose norms it measures in."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_models import random_vector

from traitscope.auditing.steps import naming
from traitscope.config.audit import BlindNamingConfig
from traitscope.errors import DataError, VectorError
from traitscope.models.model import Model
from traitscope.runs.store import Run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"about": {}}, "records no residual norms"),
        ({"about": {"residual_norms": [1.0]}}, "expected 3 numbers of 0 or more, one a layer"),
        ({"about": {"residual_norms": "twelve"}}, "residual_norms of this vector is twelve"),
        ({"model": "another"}, "vector of model another"),
    ],
)
def test_norms_that_cannot_be_used(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, message: str
) -> None:
    file = tmp_path / "v.safetensors"
    dataclasses.replace(random_vector(tiny), **changes).save(file)
    monkeypatch.setattr(naming, "_directions", lambda config, model: [])
    config = BlindNamingConfig(data=tmp_path, control=tmp_path, like=file)
    with pytest.raises(VectorError, match=message):
        naming._write(Run(tmp_path / "run", "blind_naming", "0", False), config, tiny)


@pytest.mark.parametrize(("ids", "says"), [(["a"], "1 row with"), (["b"], "0 rows with")])
def test_too_few_pairs_give_no_direction(ids: list[str], says: str) -> None:
    kept = SimpleNamespace(ids=["a"], features=lambda rows: np.zeros((len(rows), 2, 3)))
    with pytest.raises(DataError, match=f"{says} a clean row beside it; expected two"):
        naming._paired(kept, SimpleNamespace(ids=ids))
