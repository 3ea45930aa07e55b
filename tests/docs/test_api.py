"""The public API: lazy, typed, documented, and the same as its page."""

import dataclasses
import inspect
import pydoc
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from command import ENV

import traitscope
from traitscope import config
from traitscope.config.entries import COMMANDS, STAGES
from traitscope.config.fields import texts_under_fields
from traitscope.stages.behaviours.scores import UNITS, Scores

HERE = Path(__file__).parents[2]
PAGE = (HERE / "docs/reference/api.md").read_text(encoding="utf-8")


def entries() -> list[str]:
    """The full names of what the page describes, in its order."""
    return re.findall(r"^::: (\S+)$", PAGE, flags=re.MULTILINE)


def value_of(entry: str) -> Any:
    """What a full name stands for: a public name, or an object in its module."""
    module, name = entry.rsplit(".", 1)
    return getattr(import_module(module), name)


def public_functions() -> dict[str, Any]:
    """The public functions by full name, those of `ts.studies` among them."""
    functions = {}
    for name in traitscope.__all__:
        if inspect.isfunction(getattr(traitscope, name)):
            functions[f"traitscope.{name}"] = getattr(traitscope, name)
    studies = traitscope.studies
    return functions | {
        "traitscope.auditing.audit_by_source": import_module("traitscope.auditing").audit_by_source,
        "traitscope.studies.names": studies.names,
        "traitscope.studies.run": studies.run,
        "traitscope.studies.run_file": studies.run_file,
    }


def returned_types() -> set[str]:
    """Names of the classes that public functions return."""
    words = set()
    for function in public_functions().values():
        returned = inspect.signature(function).return_annotation
        text = returned if isinstance(returned, str) else inspect.formatannotation(returned)
        words |= set(re.findall(r"\b[A-Z]\w+", text))
    return words - {"Iterator"}


def test_the_page_lists_every_public_name_and_every_type_that_is_returned() -> None:
    listed = entries()
    assert len(set(listed)) == len(listed)
    public = {f"traitscope.{name}" for name in traitscope.__all__} - {"traitscope.studies"}
    public |= public_functions().keys()
    assert public <= set(listed)
    types = {entry.rsplit(".", 1)[1]: value_of(entry) for entry in set(listed) - public}
    assert all(map(inspect.isclass, types.values()))
    named = {entry.rsplit(".", 1)[1] for entry in listed}
    assert returned_types() <= named
    parts = types.keys() - returned_types()
    fields = _types_of_fields(named)
    assert parts <= fields, "a type that nothing returns"
    assert "`ts.studies`" in PAGE and 25 <= len(traitscope.__all__) <= 30


def _types_of_fields(classes: set[str]) -> set[str]:
    """Names of the types that fields of these result classes hold."""
    words = set()
    for entry in entries():
        value = value_of(entry)
        if inspect.isclass(value) and value.__name__ in classes:
            for annotation in inspect.get_annotations(value).values():
                text = annotation if isinstance(annotation, str) else repr(annotation)
                words |= set(re.findall(r"\b[A-Z]\w+", text))
    return words


@pytest.mark.parametrize("entry", entries())
def test_what_the_page_lists_is_there_and_documented(entry: str) -> None:
    value = value_of(entry)
    documentation = inspect.getdoc(value)
    assert documentation and not documentation.startswith(f"{value.__name__}("), entry


def test_scores_and_interventions_say_what_they_compute() -> None:
    """Each score with its unit; each intervention with its formula and its errors."""
    scores = inspect.getdoc(Scores)
    for name, unit in UNITS.items():
        assert re.search(rf"^ +{name} +{unit} ", scores, flags=re.MULTILINE), name
    for name in ("Steer", "Ablate", "ReplaceBase", "WeightNoise"):
        text = inspect.getdoc(getattr(traitscope, name))
        assert " <- " in text and "Raises ConfigError" in text, name
    for name in ("audit", "compare", "screen", "measure"):
        assert "Raises" in inspect.getdoc(getattr(traitscope, name)), name


def test_results_are_values_with_pages() -> None:
    """What a command writes as a page, a notebook writes with `to_html`."""
    for name in ("AuditResult", "Comparison", "Defended", "Screen", "StudyResult"):
        (entry,) = [entry for entry in entries() if entry.endswith(f".{name}")]
        assert callable(value_of(entry).to_html), entry


def test_type_checkers_see_every_public_name() -> None:
    for package in (traitscope, config):
        source = Path(package.__file__).read_text(encoding="utf-8")
        declared = set(re.findall(r"import (\w+) as \1$", source, flags=re.MULTILINE))
        assert declared == set(package.__all__)


@pytest.mark.parametrize("name", traitscope.__all__)
def test_public_names_are_documented(name: str) -> None:
    value = getattr(traitscope, name)
    assert inspect.getdoc(value), name


@pytest.mark.parametrize("name", public_functions())
def test_public_functions_are_typed(name: str) -> None:
    """No parameter takes anything by any name."""
    signature = inspect.signature(public_functions()[name])
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, (name, parameter.name)
        any_name = parameter.kind is inspect.Parameter.VAR_KEYWORD
        assert not (any_name and parameter.annotation in (Any, "Any")), (name, parameter.name)
    assert signature.return_annotation is not inspect.Signature.empty, name


@pytest.mark.parametrize(
    ("function", "settings", "elsewhere"),
    [
        (
            traitscope.audit,
            config.AuditConfig,
            {"data", "by", "report", "sarif", "fail_on", "plan"},
        ),
        (traitscope.screen, config.ScreenConfig, {"teacher", "report"}),
        (
            traitscope.studies.run,
            config.StudyConfig,
            {"action", "all", "name", "set", "seed", "limit", "blocks", "parameters", "rate"},
        ),
        (
            traitscope.studies.run_file,
            config.ExperimentConfig,
            {"action", "all", "file", "example", "limit"},
        ),
    ],
    ids=["audit", "screen", "study", "experiment"],
)
def test_keywords_are_the_settings_of_the_command(
    function: Any, settings: type, elsewhere: set[str]
) -> None:
    """With the same defaults. What is elsewhere: arguments without a default, and what a result
    does by a method."""
    keywords = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not inspect.Parameter.empty and parameter.name != "root":
            keywords[parameter.name] = parameter.default
    defaults = {}
    for field in dataclasses.fields(settings):
        if field.name not in elsewhere:
            defaults[field.name] = field.default
    assert keywords == defaults
    assert elsewhere <= {field.name for field in dataclasses.fields(settings)}


def test_configs_of_public_commands_are_exported_and_listed() -> None:
    blocks, commands = set(), {}
    for command in COMMANDS.values():
        if command.group in ("do", "check", "study"):
            commands[command.config.__name__] = command.name
            hints = get_type_hints(command.config).values()
            blocks |= {hint.__name__ for hint in hints if dataclasses.is_dataclass(hint)}
    assert set(config.__all__) == commands.keys() | blocks
    for name in config.__all__:
        assert getattr(config, name).__name__ == name
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*) \|$", PAGE, flags=re.MULTILINE)
    assert {name: command for name, command, _ in rows} == commands
    for name, command, how in rows:
        summed_up = command in ("study", "experiment", "verify")
        assert ("`ts.run`" in how) == (command in STAGES and not summed_up), name
    for block in blocks:
        assert f"`{block}`" in PAGE
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = config.Nothing
    assert set(config.__all__) <= set(dir(config))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = traitscope.nothing


def test_import_loads_nothing_heavy() -> None:
    script = (
        "import sys, traitscope\n"
        "from traitscope.config import TrainConfig\n"
        "heavy = {'torch', 'transformers', 'scipy', 'numpy', 'yaml'} & sys.modules.keys()\n"
        "print(sorted(heavy), 'audit' in dir(traitscope))"
    )
    line = [sys.executable, "-c", script]
    done = subprocess.run(line, env=ENV, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[] True"


def test_the_audit_stays_a_function_after_its_package_was_imported() -> None:
    import traitscope.auditing.run

    assert traitscope.audit is traitscope.auditing.audit


def test_a_model_given_by_its_name_is_refused_in_words() -> None:
    """Where a loaded one is expected."""
    with pytest.raises(traitscope.TraitscopeError, match="load_model"):
        traitscope.generate("smollm2-135m", [])
    with pytest.raises(traitscope.TraitscopeError, match="load_model"):
        traitscope.measure("smollm2-135m", "cat")
    with pytest.raises(traitscope.TraitscopeError, match="load_model"):
        traitscope.extract_vectors("smollm2-135m", ["cat"])
    with pytest.raises(traitscope.TraitscopeError, match="load_model"):
        traitscope.train("smollm2-135m", [], traitscope.Recipe())


@pytest.mark.parametrize(
    "name", ["Recipe", "AuditResult", "Measurement", "Record", "Steer", "Vector"]
)
def test_help_shows_the_text_under_every_field(name: str) -> None:
    cls = getattr(traitscope, name)
    assert getattr(traitscope, name) is cls and cls.__doc__.count("Fields:") == 1
    said = " ".join(pydoc.plain(pydoc.render_doc(cls)).replace("|", " ").split())
    texts = texts_under_fields(cls)
    assert texts and set(texts) >= {field.name for field in dataclasses.fields(cls)}
    for field, text in texts.items():
        assert f"{field}: {text}" in said
