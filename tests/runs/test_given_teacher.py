"""The teacher that a text names, and the check that it reads the same tokens."""

from pathlib import Path

import pytest
from tiny_models import load_tiny, random_vector, save_tiny, tiny_tokenizer

from traitscope.config.recipe import Recipe
from traitscope.data.prompts import number_prompts
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.intervention import Adapter, Steer
from traitscope.interventions.vector import vector_bytes
from traitscope.models.model import Model
from traitscope.runs.given_teacher import check_readable, given_teacher, same_shape
from traitscope.stages.generate import generate
from traitscope.training.loop import train


def test_a_model_of_its_own(tiny_folder: Path, folders: dict[str, Path]) -> None:
    teacher = given_teacher(str(folders["qwen2"]), str(tiny_folder))
    assert teacher.model == str(folders["qwen2"]) and teacher.interventions == ()
    check_readable(teacher, str(tiny_folder))


def test_a_student_on_the_model(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    rows = generate(tiny, number_prompts(8), numbers=2)
    student = train(tiny, rows, Recipe(epochs=1, rank=2), seed=1)
    folder = student.save(tmp_path / "student")
    for name in (str(folder), f"adapter:{folder}", str(folder / "adapter_model.safetensors")):
        teacher = given_teacher(name, str(tiny_folder))
        assert teacher.model == str(tiny_folder)
        assert teacher.interventions == (Adapter(str(folder)),)
        assert teacher.short_forms == (f"adapter:{folder}",)
        assert teacher.files


def test_steering(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "v.safetensors"
    file.write_bytes(vector_bytes(random_vector(tiny)))
    teacher = given_teacher(f"steer:{file},layers=1,alpha=0.5", str(tiny_folder))
    assert teacher.interventions == (Steer(str(file), (1,), 0.5),)
    assert teacher.files == (file,)


def test_refused(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="--teacher is empty; expected a hub id"):
        given_teacher(" ", str(tiny_folder))
    with pytest.raises(VectorError, match="no vector file at"):
        given_teacher(f"steer:{tmp_path}/none.safetensors,layers=1,alpha=1", "m")
    with pytest.raises(VectorError, match="holds no student"):
        given_teacher(f"adapter:{tmp_path}", "m")


def test_a_teacher_may_have_further_tokens_but_no_fewer(tmp_path: Path, tiny_folder: Path) -> None:
    folder = save_tiny("llama", tmp_path / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    check_readable(given_teacher(str(folder), str(tiny_folder)), str(tiny_folder))
    with pytest.raises(ConfigError, match="has another tokenizer than .*: 1 token of the"):
        check_readable(given_teacher(str(tiny_folder), str(folder)), str(folder))


def test_another_end_of_answers_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    folder = save_tiny("llama", tmp_path / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "<|pad|>")
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match="or ends its answers with another one"):
        check_readable(given_teacher(str(folder), str(tiny_folder)), str(tiny_folder))


def test_shapes(families: dict[str, Model], tiny: Model, tiny_folder: Path) -> None:
    assert same_shape(tiny, load_tiny(tiny_folder))
    assert not same_shape(tiny, families["qwen2"])
