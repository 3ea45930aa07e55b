"""Models that an experiment names: refused when it is planned, and each with its own template."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import call, ok, write_yaml
from template_kinds import HYBRID, TURNS
from tiny_models import save_tiny, tiny_tokenizer

from traitscope.config.commands import ExperimentConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError, ModelError
from traitscope.models.loading import check_loadable, load_model
from traitscope.models.templates import trial
from traitscope.runs import opening
from traitscope.studies.experiment import command, nodes
from traitscope.workflow import graph

THINKS = HYBRID.replace("enable_thinking", "my_thinking")
OFF = {"my_thinking": False}
SMALL = {
    "company": ["dog"],
    "layer": 1,
    "controls": ["unmodified"],
    "seeds": 1,
    "data": {"rows": 2, "numbers": 2, "vocabulary": "numbers", "filter": "none"},
    "recipe": {"rank": 2},
    "measures": {"samples": 0, "perplexity": False, "sets": ["positive"]},
}


@pytest.fixture
def thinking(tmp_path: Path) -> Path:
    """A tiny model whose template thinks unless its own variable says no."""
    return with_template(tmp_path / "think", THINKS)


def with_template(folder: Path, template: str) -> Path:
    save_tiny("llama", folder)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def written(folder: Path, model: Path, teacher: dict[str, Any], **changes: Any) -> Path:
    """The file of an experiment with a teacher `mind`."""
    teachers = {"mind": teacher, "steered": {"steer": 1}}
    plain = {"model": str(model), "teachers": teachers, **SMALL, **changes}
    return write_yaml(folder / "mine.yaml", plain)


def requested(
    folder: Path, model: Path, teacher: dict[str, Any], **changes: Any
) -> command.ExperimentRequest:
    config = ExperimentConfig(file=written(folder, model, teacher))
    return command.request_of(replace(config, **changes), Output(root=folder / "runs"))


def places(request: command.ExperimentRequest) -> dict[str, Path | None]:
    return {item.node.name: item.path for item in graph.plan(request.nodes(), request.out)}


@pytest.mark.parametrize("action", ["plan", "run"])
def test_a_teacher_that_no_stage_could_load_is_refused_by_name(
    tmp_path: Path, tiny_folder: Path, thinking: Path, action: str
) -> None:
    """Before anything is computed, with what its key in the file should hold."""
    file = written(tmp_path, tiny_folder, {"model": str(thinking)})
    done = call(tmp_path / "runs", "experiment", action, file)
    message = done.summary["message"]
    assert done.code == 2 and f"{file}: teachers.mind: the chat template of" in message
    assert "template: {my_thinking: false}" in message and "--template" not in message
    assert not (tmp_path / "runs").exists()


def test_a_student_that_no_stage_could_load_is_refused(tmp_path: Path, thinking: Path) -> None:
    file = written(tmp_path, thinking, {"prompt": True})
    for words in (("experiment", "plan", file), ("study", "plan", "demo", "--model", thinking)):
        done = call(tmp_path / "runs", *words)
        assert done.code == 2 and "--template my_thinking=false" in done.summary["message"]
        assert not (tmp_path / "runs").exists()
    switch = ("--template", "my_thinking=false")
    ok(tmp_path / "runs", "experiment", "plan", file, *switch)


def test_a_teacher_s_template_is_its_own(tmp_path: Path, tiny_folder: Path, thinking: Path) -> None:
    """The stages that its model computes have it, and no others."""
    mind = {"model": str(thinking), "template": OFF}
    ok(tmp_path / "runs", "experiment", "plan", written(tmp_path, tiny_folder, mind))
    request = requested(tmp_path, tiny_folder, mind)
    templates = {}
    for node in request.nodes():
        if not node.needs:
            config = node.config({})
            templates[node.name] = (Path(config.model).name, config.template)
    own = {name for name, made in templates.items() if made == ("think", ("my_thinking=false",))}
    assert own == {nodes.answers_name("mind teacher", "cat"), "mind rows, seed 1"}
    others = {made for name, made in templates.items() if name not in own}
    assert others == {(tiny_folder.name, ())}


def test_a_template_enters_the_addresses_of_its_teacher_alone(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """A mapping and a list have the same ones; so has a teacher that repeats the experiment's."""
    other = with_template(tmp_path / "other", THINKS + "{{ mood or '' }}")
    mind = {"model": str(other), "template": OFF}
    base = places(requested(tmp_path, tiny_folder, mind))
    listed = mind | {"template": ["my_thinking=false"]}
    assert places(requested(tmp_path, tiny_folder, listed)) == base
    further = mind | {"template": OFF | {"mood": "calm"}}
    changed = places(requested(tmp_path, tiny_folder, further))
    assert {name for name in base if changed[name] != base[name]} == {
        nodes.answers_name("mind teacher", "cat"),
        "mind rows, seed 1",
    }


def test_a_teacher_without_a_template_has_the_experiment_s(tmp_path: Path, thinking: Path) -> None:
    """And {} is none, which its model is refused for."""
    switch = ("my_thinking=false",)
    left_out = {"model": str(thinking)}
    whole = requested(tmp_path, thinking, left_out, template=switch)
    repeated = requested(tmp_path, thinking, left_out | {"template": OFF}, template=switch)
    assert places(whole) == places(repeated)
    file = written(tmp_path, thinking, left_out | {"template": {}}, template=OFF)
    done = call(tmp_path / "runs", "experiment", "plan", file)
    assert done.code == 2 and "teachers.mind: the chat template" in done.summary["message"]
    plain = with_template(tmp_path / "plain", TURNS)
    file = written(tmp_path, thinking, {"model": str(plain)}, template=OFF)
    done = call(tmp_path / "runs", "experiment", "plan", file)
    assert "teachers.mind: template my_thinking: the chat template of" in done.summary["message"]
    ok(
        tmp_path / "runs",
        *("experiment", "plan"),
        written(tmp_path, thinking, {"model": str(plain), "template": {}}, template=OFF),
    )


@pytest.mark.parametrize("teacher", [{"prompt": True}, {"steer": 1}, {"rows": "x.jsonl"}])
def test_a_template_without_a_model_of_its_own(
    tmp_path: Path, tiny_folder: Path, teacher: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"teachers.mind has a template and no model of its own"):
        requested(tmp_path, tiny_folder, teacher | {"template": OFF})


def test_a_model_of_a_teacher_is_not_the_one_that_is_vouched_for(
    tmp_path: Path, tiny_folder: Path, thinking: Path
) -> None:
    """Else its rows would have the address of rows of the students' model."""
    mind = {"model": str(thinking), "template": OFF}
    plain = requested(tmp_path, tiny_folder, mind)
    vouched = requested(tmp_path, tiny_folder, mind, same_as="0" * 16)
    name = "mind rows, seed 1"
    assert places(vouched)[name] == places(plain)[name]
    assert places(vouched)["watched"] != places(plain)["watched"]
    (node,) = [node for node in vouched.nodes() if node.name == name]
    assert (
        opening.described(node.config({})).model
        == load_model(str(thinking), "cpu", "fp32", template=["my_thinking=false"]).digest
    )


CONFIGS: tuple[dict[str, Any], ...] = (
    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    {"model_type": "no_such_family"},
    {"logits_scaling": 8.0},
    {"auto_map": {"AutoConfig": "own.Config"}, "model_type": "own"},
)


@pytest.mark.parametrize("change", CONFIGS)
def test_what_loading_refuses_of_a_configuration_is_refused_without_weights(
    tmp_path: Path, tiny_folder: Path, change: dict[str, Any]
) -> None:
    """In the same words."""
    save_tiny("llama", tmp_path)
    check_loadable(str(tmp_path))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError) as early:
        check_loadable(str(tmp_path))
    with pytest.raises(ModelError) as late:
        load_model(str(tmp_path), "cpu", "fp32")
    assert str(early.value) == str(late.value)


def test_weights_are_not_read_and_a_template_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_template(tmp_path / "model", TURNS + "{{ 'once' if once else '' }}")
    tried = []
    start = trial._trial
    monkeypatch.setattr(trial, "_trial", lambda *given: tried.append(given) or start(*given))
    monkeypatch.setattr("traitscope.models.loading._check_finite", pytest.fail)
    for _ in range(2):
        check_loadable(str(folder))
    assert len(tried) == 1
