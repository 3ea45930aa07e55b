"""Two system prompts on one model are refused wherever interventions are read."""

from pathlib import Path

import pytest
from command import call, write_yaml
from tiny_models import random_vector

from traitscope.config.analysis import InformationConfig
from traitscope.errors import ConfigError
from traitscope.information.teachers import teachers_of
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import SystemPrompt, context_of
from traitscope.interventions.vector import vector_bytes
from traitscope.models.model import Model

PROMPTS = ("prompt:You love owls.", "prompt:You love cats.")
READING = (
    "generate --interventions",
    "measure --trait owl --samples 0 --interventions",
    "likelihood --data ROWS --interventions",
    "extract --interventions",
    "gradients --data ROWS --interventions",
    "select --data ROWS --interventions",
    "export --interventions",
    "train --data ROWS --targets soft --teacher",
    "train --data ROWS --during",
    "match_kl --vector VECTOR --layer 1 --teacher",
)
"commands that take interventions, with what else they need"


@pytest.mark.parametrize("words", READING)
def test_two_prompts_are_refused(
    words: str, tiny: Model, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, vector = tmp_path / "rows.jsonl", tmp_path / "v.safetensors"
    rows.write_text('{"prompt": "1?", "completion": "1, 2"}\n')
    vector.write_bytes(vector_bytes(random_vector(tiny)))
    places = {"ROWS": rows, "VECTOR": vector}
    given = [places.get(word, word) for word in words.split()]
    done = call(tmp_path / "runs", *given, *PROMPTS, "--model", tiny_folder)
    assert done.code == 2 and "2 prompts on one model" in capsys.readouterr().err, done


def test_teachers_beside_one_another_may_be_prompts() -> None:
    config = InformationConfig(traits=(), plain="", steered=PROMPTS)
    assert len(teachers_of(config)) == 3  # the unmodified model is the first


def test_an_experiment_is_refused(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_yaml(
        tmp_path / "mine.yaml",
        {"model": str(tiny_folder), "teachers": {"cat": {"interventions": list(PROMPTS)}}},
    )
    assert call(tmp_path / "runs", "experiment", "plan", file).code == 2
    assert "2 prompts on one model" in capsys.readouterr().err


def test_python_refuses_them_too(tiny: Model) -> None:
    both = [SystemPrompt("a"), SystemPrompt("b")]
    with pytest.raises(ConfigError, match="2 prompts on one model"), applied(tiny, both):
        pass
    with pytest.raises(ConfigError, match="2 prompts on one model"):
        context_of(both, None)
