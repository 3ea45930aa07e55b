"""Values that a template never asks for: texts at truth values and numbers, and the reverse."""

from pathlib import Path

import pytest
from command import call
from template_kinds import HYBRID, TURNS
from tiny_models import save_tiny, tiny_tokenizer

from traitscope.config.parsing import from_dict
from traitscope.config.stages import GenerateConfig
from traitscope.errors import ConfigError
from traitscope.models.loading import load_model
from traitscope.models.templates import facts
from traitscope.models.templates.truth import fault
from traitscope.models.templates.variables import check_switches

ASKS = {
    "if": "{% if x %}a{% endif %}",
    "elif": "{% if messages %}{% elif x %}a{% endif %}",
    "not": "{{ 'a' if not x else 'b' }}",
    "and": "{% if messages and x %}a{% endif %}",
    "default": "{% if x | default(false) %}a{% endif %}",
    "its own default": "{% set x = x | default(true) %}{% if x %}a{% endif %}",
    "another name": "{% set y = x if x is defined else false %}{% if y %}a{% endif %}",
    "a namespace": "{% set ns = namespace(y=x) %}{% if ns.y %}a{% endif %}",
    "a field": "{% set ns = namespace() %}{% set ns.y = x %}{% if ns.y %}a{% endif %}",
}
EXACTLY = {
    "is false": "{% if x is defined and x is false %}a{% endif %}",
    "is true": "{{ 'a' if x is true }}",
    "both": "{% if x is not none and x %}{% if x is true %}a{% endif %}{% endif %}",
}
TEXTS = {
    "written": "{{ x }}",
    "asked and written": "{% if x %}{{ x }}{% endif %}",
    "compared": "{% if x and x == 'off' %}a{% endif %}",
    "one of": "{% if x in ['off', 'no'] %}a{% endif %}",
    "a part of": "{% if x and 'o' in x %}a{% endif %}",
    "another name": "{% set y = x %}{% if y %}{{ y }}{% endif %}",
    "a field of it": "{% if x %}{{ x.name }}{% endif %}",
    "passed": "{% macro f(y) %}{{ y }}{% endmacro %}{% if x %}{{ f(x) }}{% endif %}",
    "defined": "{% if x is defined %}a{% endif %}",
    "joined": "{{ 'a' ~ x }}{{ 'a' + x }}",
}


@pytest.mark.parametrize("how", ASKS)
def test_a_text_is_no_truth_value(how: str) -> None:
    for text, meant in (("no", "true"), ("False", "true"), ("0x1", "true"), ("", "false")):
        said = fault(ASKS[how] + TURNS, "x", text)
        assert said.startswith(f"it is read as the text {text!r}, which is {meant} there; expected")
        assert said.endswith("write x=true or x=false")
    for value in (True, False, None, 0, 1, [1]):
        assert fault(ASKS[how] + TURNS, "x", value) == ""


@pytest.mark.parametrize("how", EXACTLY)
def test_what_is_compared_with_true_is_neither_number_nor_null(how: str) -> None:
    """`0 is false` does not hold in Jinja."""
    for value, shown in (
        (0, "0"),
        (1, "1"),
        (None, "null"),
        ("off", "the text 'off'"),
        ([1], "the list [1]"),
    ):
        said = fault(EXACTLY[how], "x", value)
        assert said.startswith(f"it is read as {shown}, which is neither true nor false there")
    assert fault(EXACTLY[how], "x", False) == fault(EXACTLY[how], "x", True) == ""
    equals = "{% if x == false %}a{% endif %}"
    assert "neither true nor false" in fault(equals, "x", "no") and fault(equals, "x", 0) == ""


@pytest.mark.parametrize("how", TEXTS)
def test_what_may_be_a_text_takes_one(how: str) -> None:
    for value in ("no", "off", "False", "", 0, None, True):
        assert fault(TEXTS[how], "x", value) == ""


def test_what_is_computed_with_is_a_number() -> None:
    for asks in ("{% if x > 1 %}a{% endif %}", "{% if 1 < x %}a{% endif %}", "{% set y = x * 2 %}"):
        assert "the text '.5', which is no number" in fault(asks, "x", ".5")
        assert "the object {'a': 1}, which is no number" in fault(asks, "x", {"a": 1})
        assert fault(asks, "x", 0.5) == ""


@pytest.mark.parametrize("broken", ["{{ x", "{% if x %}" * 3000, ""])
def test_a_broken_template_is_no_fault_of_the_value(broken: str) -> None:
    assert fault(broken, "x", "no") == ""


@pytest.mark.parametrize("spelled", ["False", "True", "None", "FALSE", "none", "Null", " False "])
def test_another_spelling_of_a_constant_is_refused(spelled: str) -> None:
    meant = {"none": "null"}.get(spelled.strip().lower(), spelled.strip().lower())
    with pytest.raises(ConfigError, match=f'write x={meant}, or x="{spelled}" for the text'):
        facts.switches_of([f"x={spelled}"])
    assert facts.switches_of([f'x="{spelled}"', "y=no"]) == (("x", spelled), ("y", "no"))
    texts = from_dict(GenerateConfig, {"template": {"x": spelled}}).template
    assert facts.switches_of(texts) == (("x", spelled),)


def test_several_templates_are_asked(tmp_path: Path) -> None:
    templates = {"default": TURNS + ASKS["if"], "rag": TURNS}
    with pytest.raises(ConfigError, match="--template x: the chat template of m: it is read as"):
        check_switches(templates, (("x", "no"),), "m")
    check_switches(templates, (("x", False),), "m")


@pytest.mark.parametrize("value", ["False", "no", "0", "null", "off"])
def test_a_model_is_not_loaded_with_another_meaning(tmp_path: Path, value: str) -> None:
    folder = save_tiny("llama", tmp_path / "model")
    tokenizer = tiny_tokenizer()
    asked = "enable_thinking is defined and not enable_thinking"
    exact = HYBRID.replace(asked, "enable_thinking is defined and enable_thinking is false")
    assert exact != HYBRID
    tokenizer.chat_template = exact
    tokenizer.save_pretrained(folder)
    for load in (
        lambda: load_model(str(folder), "cpu", "fp32", template=[f"enable_thinking={value}"]),
        lambda: (
            facts.switches_of([f"enable_thinking={value}"])
            and check_switches(exact, facts.switches_of([f"enable_thinking={value}"]), "m")
        ),
    ):
        with pytest.raises(ConfigError, match="write enable_thinking="):
            load()
    words = ("generate", "--n 2 --model", folder, "--template", f"enable_thinking={value}")
    done = call(tmp_path / "runs", *words)
    assert done.code == 2 and "write enable_thinking=" in done.summary["message"]
    load_model(str(folder), "cpu", "fp32", template=["enable_thinking=false"])
