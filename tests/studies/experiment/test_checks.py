"""What stages would refuse of a teacher is refused when the experiment is planned."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapter_kinds import with_settings
from command import write_yaml
from tiny_models import random_vector

from traitscope.config.commands import ExperimentConfig
from traitscope.config.common import Output
from traitscope.errors import VectorError
from traitscope.interventions.vector import Vector
from traitscope.models.model import Model
from traitscope.studies.experiment import command

pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:::peft"),
]


def planned(
    folder: Path, model: Path, teacher: dict[str, Any], same_as: str | None = None
) -> command.ExperimentRequest:
    """Return the request for an experiment with one teacher of cat."""
    content = {"model": str(model), "teachers": {"cat": teacher}}
    file = write_yaml(folder / "mine.yaml", content)
    config = ExperimentConfig(file=file, same_as=same_as)
    return command.request_of(config, Output(root=folder / "runs"))


@pytest.mark.parametrize(
    "teacher",
    [
        {"steer": 0.6, "vector": "VECTOR", "layer": 1},
        {"interventions": ["steer:VECTOR,layers=1,alpha=1,scale=raw"]},
        {"interventions": ["ablate:VECTOR,layers=1"]},
        {"adapter": "ADAPTER"},
        {"interventions": ["adapter:ADAPTER"]},
    ],
)
def test_a_vector_or_an_adapter_of_another_model(
    tmp_path: Path, tiny_folder: Path, families: dict[str, Model], teacher: dict[str, Any]
) -> None:
    """The stages would refuse it after the plan was printed; who vouches may use it."""
    other, tiny = families["qwen2"], families["llama"]
    file, folder = tmp_path / "v.safetensors", tmp_path / "adapter"
    rows_LD = random_vector(tiny).rows_LD
    norms = {"residual_norms": [1.0] * len(rows_LD)}
    with_settings(other, folder, {})
    text = json.dumps(teacher).replace("VECTOR", str(file)).replace("ADAPTER", str(folder))
    Vector(rows_LD, other.digest, norms).save(file)
    with pytest.raises(VectorError, match=r"vector of model .*, but|was trained on .*, whose"):
        planned(tmp_path, tiny_folder, json.loads(text))
    if "VECTOR" in json.dumps(teacher):
        assert planned(tmp_path, tiny_folder, json.loads(text), same_as=other.digest).nodes()
        Vector(rows_LD, tiny.digest, norms).save(file)
    else:
        with_settings(tiny, folder, {})
    assert planned(tmp_path, tiny_folder, json.loads(text)).nodes()


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        (
            {"steer": 0.6, "vector": "VECTOR", "layer": 1},
            r"teachers.cat: .*v.safetensors records no residual norms, in which steer counts; .*"
            r"interventions: \['steer:.*v.safetensors,layers=1,alpha=A,scale=raw'\] in the place",
        ),
        ({"interventions": ["steer:VECTOR,layers=1,alpha=1"]}, "steer with scale=raw or scale="),
        ({"adapter": "ADAPTER"}, "settings velora_config are not understood; .* or merge it into"),
        ({"interventions": ["adapter:ADAPTER"]}, "settings velora_config are not understood"),
    ],
)
def test_a_teacher_that_its_stages_refuse(
    tmp_path: Path, tiny_folder: Path, tiny: Model, teacher: dict[str, Any], says: str
) -> None:
    file, folder = tmp_path / "v.safetensors", tmp_path / "adapter"
    replace(random_vector(tiny), about={}).save(file)
    with_settings(tiny, folder, {"velora_config": {"a": 1}})
    text = json.dumps(teacher).replace("VECTOR", str(file)).replace("ADAPTER", str(folder))
    with pytest.raises(VectorError, match=says):
        planned(tmp_path, tiny_folder, json.loads(text))
    as_raw = {"interventions": [f"steer:{file},layers=1,alpha=2,scale=raw"]}
    assert planned(tmp_path, tiny_folder, as_raw).nodes()
