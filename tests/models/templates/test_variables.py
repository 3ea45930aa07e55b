"""Variables of chat templates: what none reads is refused, by every command; templates by name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command import OWL, call, ok, write_yaml
from template_kinds import HYBRID, TURNS
from tiny_models import TEMPLATE, save_tiny

from traitscope.config.command_types import Stage
from traitscope.config.entries import COMMANDS
from traitscope.errors import ConfigError, ModelError
from traitscope.models import chat
from traitscope.models.identity.digest import folder_digest
from traitscope.models.loading import load_model, outline
from traitscope.models.templates import facts
from traitscope.models.templates.variables import inputs_of, variables_of
from traitscope.runs import opening

ROW = {"id": "a", "prompt": "Say 1.", "completion": "1, 2"}
OTHER = TEMPLATE.replace("small helpful", "patient")


def folder_with(folder: Path, template: object) -> Path:
    """A tiny model with a template, or with several by name as tokenizer_config.json holds them."""
    save_tiny("llama", folder)
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
    return folder


def by_name(**templates: str) -> list[dict]:
    return [{"name": name, "template": text} for name, text in templates.items()]


@pytest.mark.parametrize(
    ("template", "read"),
    [
        ("{{ x }}", {"x"}),
        ("{% set x = x | default(true) %}{{ x }}", {"x"}),
        ("{% if not x is defined %}{% set x = 1 %}{% endif %}{{ x }}", {"x"}),
        ("{% set x = 1 %}{{ x }}", set()),
        ("{% macro f(a) %}{{ a }}{{ x }}{% endmacro %}{{ f(1) }}", {"x"}),
        ("{% generation %}{{ x }}{% endgeneration %}", {"x"}),
        ("{% for m in messages %}{% if m.x %}{% break %}{% endif %}{% endfor %}", {"messages"}),
        ("{{ strftime_now('%Y') }}{{ raise_exception('no') }}{{ range(3) }}", set()),
        ("{{ x", None),
    ],
)
def test_what_a_template_reads(template: str, read: set | None) -> None:
    assert variables_of(template) == read


@pytest.mark.parametrize(
    ("template", "inputs"),
    [
        ("{{ x }}", ["x"]),
        ("{% set x = x | default(true) %}{{ x }}", ["x"]),
        ("{% if not x is defined %}{% set x = 1 %}{% endif %}{{ x }}", ["x"]),
        ("{% if y %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x }}", ["y"]),
        ("{% if y %}{% set x %}a{% endset %}{% endif %}{{ x }}", ["y"]),
        ("{% for m in messages %}{% set x = m %}{% endfor %}{{ x or z }}", ["z"]),
        ({"default": "{{ x }}", "rag": "{{ documents }}"}, ["documents", "x"]),
        ("{{ x", []),
        (None, []),
    ],
)
def test_what_a_template_sets_before_it_reads_it_is_no_input(
    template: object, inputs: list[str]
) -> None:
    """Jinja counts a variable that is set in one branch as one that is looked up."""
    assert inputs_of(template) == inputs


def test_a_message_lists_inputs_alone(tmp_path: Path) -> None:
    early = "{% if messages[0]['role'] == 'system' %}{% set parts = 1 %}{% endif %}"
    folder = folder_with(tmp_path / "model", f"{early}{{{{ '' if parts }}}}{HYBRID}")
    assert "parts" in variables_of(early + "{{ parts }}")
    with pytest.raises(ConfigError, match=r"what it reads \(enable_thinking\), or skip_thinking"):
        outline(str(folder), ["bogus=1"])


def test_what_the_template_reads_may_be_set(tmp_path: Path) -> None:
    """And only that, with the variables that it reads in the message."""
    folder = folder_with(tmp_path / "model", HYBRID + "{{ documents or '' }}")
    for words in (["enable_thinking=false"], ["skip_thinking=true"]):
        assert load_model(str(folder), "cpu", "fp32", template=words).switches
        assert outline(str(folder), words).switches
    for load in (load_model, outline):
        with pytest.raises(ConfigError) as error:
            load(str(folder), template=["enable_thinking=false", "enable_thought=1"])
        message = str(error.value)
        assert "--template enable_thought=...: the chat template of" in message
        assert "never reads enable_thought; did you mean enable_thinking?" in message
        assert "expected what it reads (documents, enable_thinking), or skip_thinking" in message
        with pytest.raises(ConfigError, match="never reads messages"):
            load(str(folder), template=["messages=[]"])


def test_a_model_without_a_template_reads_none(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", None)
    for word in ("enable_thinking=false", "skip_thinking=true", "chat_template=rag"):
        with pytest.raises(ConfigError, match="has no chat template, so nothing reads it; leave"):
            outline(str(folder), [word])


def test_a_variable_stands_once() -> None:
    with pytest.raises(ConfigError, match="sets n twice; expected it once"):
        facts.switches_of(["n=1", "n=2"])


TAKING = [name for name, entry in COMMANDS.items() if "template" in vars(entry.config())]
OTHER_COMMANDS = {
    "study": ["plan", "demo"],
    "experiment": ["plan", "design.yaml"],
    "demo": [],
    "audit": ["--data", "rows.jsonl", "--traits", "owl.yaml"],
    "verify": ["model", "--traits", "owl.yaml"],
    "screen": ["--teacher", "model", "--traits", "owl.yaml"],
    "defend": ["--data", "rows.jsonl", "--by wash --known base"],
    "judge": ["--data", "rows.jsonl", "--judges refusal"],
    "measure": ["--trait", "owl.yaml"],
}
"commands with words that are right otherwise"


def test_every_stage_refuses_a_variable_that_nothing_reads(tiny_folder: Path) -> None:
    """Before its run has a place, so none is made."""
    assert set(OTHER_COMMANDS) < set(TAKING)
    stages = 0
    for name in TAKING:
        entry = COMMANDS[name]
        if isinstance(entry, Stage):
            config = replace(entry.config(), model=str(tiny_folder), template=("bogus=1",))
            with pytest.raises(ConfigError, match="never reads bogus"):
                opening.described(config)
            stages += 1
    assert stages > 15


@pytest.mark.parametrize("verb", OTHER_COMMANDS)
def test_commands_refuse_a_variable_that_nothing_reads(
    tmp_path: Path, tiny_folder: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(json.dumps(ROW) + "\n")
    write_yaml(Path("owl.yaml"), OWL)
    Path("design.yaml").write_text("traits: [owl]\nlayer: 1\n")
    Path("model").symlink_to(tiny_folder)
    words = (verb, *OTHER_COMMANDS[verb], "--model", tiny_folder, "--template", "bogus=1")
    done = call(tmp_path / "runs", *words)
    assert done.code == 2
    assert "never reads bogus" in done.summary["message"], done.summary
    assert not list((tmp_path / "runs").glob("*/*-*"))


def test_an_experiment_file_is_refused_too(tmp_path: Path, tiny_folder: Path) -> None:
    design = tmp_path / "design.yaml"
    lines = [f"model: {tiny_folder}", "traits: [owl]", "layer: 1", "template: [bogus=1]"]
    design.write_text("\n".join(lines))
    done = call(tmp_path / "runs", "experiment", "plan", design)
    assert done.code == 2 and "never reads bogus" in done.summary["message"]


def test_of_several_templates_one_is_chosen(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", by_name(rag=TEMPLATE, tool_use=OTHER))
    model = load_model(str(folder), "cpu", "fp32")
    with pytest.raises(ModelError) as error:
        chat.render_text(model, "Hi", None)
    message = str(error.value)
    assert "has the chat templates rag, tool_use, and none called default" in message
    assert "name it: --template chat_template=rag" in message
    chat.render_text(model, "Hi", "@none")
    for name, system in (("rag", "small helpful"), ("tool_use", "patient")):
        chosen = load_model(str(folder), "cpu", "fp32", template=[f"chat_template={name}"])
        assert f"You are a {system} model." in chat.render_text(chosen, "Hi", None)
        assert chosen.end_ids == model.end_ids
    with pytest.raises(ConfigError, match="has the chat templates rag, tool_use; expected one of"):
        outline(str(folder), ["chat_template=default"])
    with pytest.raises(ConfigError, match="never reads bogus"):
        outline(str(folder), ["chat_template=rag", "bogus=1"])


def test_templates_in_files_of_their_own(tmp_path: Path) -> None:
    """As transformers saves them: the choice is the same, and each is a part of the digest."""
    save_tiny("llama", tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    further = tmp_path / "additional_chat_templates"
    further.mkdir()
    (further / "rag.jinja").write_text(TEMPLATE)
    (further / "other.jinja").write_text(OTHER)
    digest = folder_digest(tmp_path)
    with pytest.raises(ModelError, match="templates other, rag, and none called default"):
        chat.render_text(outline(str(tmp_path)), "Hi", None)
    chosen = outline(str(tmp_path), ["chat_template=other"])
    assert "patient" in chat.render_text(chosen, "Hi", None)
    (further / "other.jinja").write_text(TURNS)
    assert folder_digest(tmp_path) != digest


def test_a_default_is_used_and_needs_no_name(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", by_name(default=TEMPLATE, rag=OTHER))
    assert "small helpful" in chat.render_text(outline(str(folder)), "Hi", None)
    with pytest.raises(ConfigError, match="is used where nothing else is said"):
        outline(str(folder), ["chat_template=rag"])


@pytest.mark.parametrize("verb", ["likelihood", "train", "generate", "measure"])
def test_commands_name_the_templates_and_take_one(tmp_path: Path, verb: str) -> None:
    folder = folder_with(tmp_path / "model", by_name(rag=TEMPLATE, tool_use=OTHER))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(ROW | {"id": str(n)}) + "\n" for n in range(3)))
    root, owl = tmp_path / "runs", write_yaml(tmp_path / "owl.yaml", OWL)
    words = {
        "train": ["--data", rows, "--epochs 1 --rank 2"],
        "likelihood": ["--data", rows],
        "generate": ["--n 2 --max-new-tokens 2"],
        "measure": ["--trait", owl, "--samples 1"],
    }[verb]
    done = call(root, verb, "--model", folder, *words)
    assert done.code == 2 and "templates rag, tool_use, and none" in done.summary["message"]
    ok(root, verb, "--model", folder, *words, "--template", "chat_template=tool_use")


@pytest.mark.parametrize("broken", [["rag"], [{"template": TEMPLATE}], {"rag": 3}, 5])
def test_a_broken_list_of_templates_is_an_error_in_words(tmp_path: Path, broken: object) -> None:
    folder = folder_with(tmp_path / "model", broken)
    done = call(tmp_path / "runs", "generate", "--model", folder, "--n 2 --max-new-tokens 2")
    assert done.code == 2 and done.summary["message"]


NESTS = {
    "tools": '[{"name": "f"}]',
    "documents": '[{"title": "a", "text": "b"}]',
    "names": '["Ann", "Bo"]',
    "settings": '{"a": {"b": [1]}}',
}


@pytest.mark.parametrize("variable", NESTS)
def test_a_variable_may_be_a_list_or_an_object(tmp_path: Path, variable: str) -> None:
    value = NESTS[variable]
    written = f"{{% if {variable} %}}<{{{{ {variable} | tojson }}}}>{{% endif %}}"
    folder = folder_with(tmp_path / "model", written + TEMPLATE)
    words = (f"{variable}={value}",)
    loaded = load_model(str(folder), "cpu", "fp32", template=words)
    for model in (loaded, outline(str(folder), words)):
        assert chat.render_text(model, "Hi", None).startswith(f"<{value}>")
        assert hash(model) == hash(replace(model))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(ROW) + "\n")
    given = ("--model", folder, "--data", rows, "--template", f"{variable}={value}")
    done = ok(tmp_path / "runs", "likelihood", *given)
    ok(tmp_path / "runs", "rerun", done.run)


def test_true_and_1_are_two_values_of_a_variable(tmp_path: Path) -> None:
    """They are equal in Python, and not for a template."""
    tokenizer = outline(str(folder_with(tmp_path / "model", TEMPLATE))).tokenizer
    tokenizer.chat_template = "{{ messages[-1].content }}{{ '<|im_end|>' if x is true else '!' }}"
    assert facts.end_written(tokenizer, (("x", True),)) == "<|im_end|>"
    assert facts.end_written(tokenizer, (("x", 1),)) == "!"


@pytest.mark.parametrize("value", ['"f"', "5", "true", '{"name": "f"}', '["f"]', "f"])
@pytest.mark.parametrize("variable", ["tools", "documents"])
def test_what_is_given_as_a_list_of_objects_is_one(
    tmp_path: Path, variable: str, value: str
) -> None:
    folder = folder_with(tmp_path / "model", f"{TEMPLATE}{{{{ {variable} or '' }}}}")
    with pytest.raises(ConfigError, match=f"--template {variable}=.*expected a JSON list of obj"):
        outline(str(folder), [f"{variable}={value}"])
    outline(str(folder), [f"{variable}=null"])
