"""A teacher that learnt the audited rows cannot be told from one that wrote them."""

from pathlib import Path

import pytest
from tiny_models import random_vector

from traitscope.auditing.planning.learnt_rows import check_is_older
from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.config.stages import FilterConfig, FilterRules, TrainConfig
from traitscope.errors import ConfigError
from traitscope.interventions.vector import vector_bytes
from traitscope.models.model import Model
from traitscope.runs.given_teacher import given_teacher
from traitscope.stages.filter import run_filter
from traitscope.stages.train import run_train


def test_a_teacher_of_these_rows_is_refused(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    """Also of rows that were made from them; one of other rows is not, nor one only measured."""
    rows = [f'{{"prompt": "Say {n}.", "completion": "{n}, 2"}}\n' for n in range(6)]
    data, others = tmp_path / "rows.jsonl", tmp_path / "others.jsonl"
    data.write_text("".join(rows))
    others.write_text("".join(reversed(rows)))
    out = Output(root=tmp_path / "runs")
    kept = run_filter(FilterConfig(data, FilterRules(numbers=False)), out)
    recipe = Recipe(epochs=1, rank=2, batch_size=4, micro_batch=4, held_out=0.0)
    settings = {"model": str(tiny_folder), "device": "cpu", "dtype": "fp32", "recipe": recipe}
    for learnt in (data, kept.path):
        student = run_train(TrainConfig(data=learnt, **settings), out)
        teacher = given_teacher(str(student.path), str(tiny_folder))
        with pytest.raises(ConfigError, match="was trained on .*rows.jsonl.* older than the rows"):
            check_is_older(teacher, "student", data)
        check_is_older(teacher, "student", others)
    vector = tmp_path / "v.safetensors"
    vector.write_bytes(vector_bytes(random_vector(tiny)))
    measured = run_train(TrainConfig(data=others, eas_data=data, vector=vector, **settings), out)
    check_is_older(given_teacher(str(measured.path), str(tiny_folder)), "student", data)
