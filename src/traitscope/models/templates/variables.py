"""Variables that a model's chat template reads, and templates that are called by name."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from traitscope import template_trial
from traitscope.errors import ConfigError
from traitscope.models import weight_noise
from traitscope.models.identity.digest import chat_template
from traitscope.models.identity.finding import find_model
from traitscope.models.templates import day, facts, truth

GIVEN = {
    "messages",
    "add_generation_prompt",
    "continue_final_message",
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
    "additional_special_tokens",
    "image_token",
    "audio_token",
    "video_token",
}
"variables that are given to every template: the turns, and tokens of the tokenizer"
FOR_ANY = (facts.SKIP, facts.NAMED, day.TODAY)
"settings of any template, which are no variables of it"
LISTED = {"tools", "documents"}
"variables of a template that are lists, which transformers passes"
MOST_SHOWN = 12
"variables that a message shows"


def check_template(name: str, template: Iterable[str]) -> None:
    """Raise ConfigError for a setting that a model's chat template never reads.

    Imports no torch. name: The model's name.
    """
    switches = facts.switches_of(tuple(template))
    if switches:
        folder = find_model(weight_noise.split_name(name)[0])
        check_switches(chat_template(folder), switches, name)


def check_switches(template: Any, switches: facts.Switches, name: str) -> Any:
    """The template that the switches choose. Raises ConfigError for a switch without effect, and
    for one of a type that the template never asks for.

    template: A template, several by name, or None.
    """
    if switches and not template:
        raise ConfigError(
            f"--template {switches[0][0]}=...: {name} has no chat template, so nothing reads it;"
            " leave --template out, or use a model with a template"
        )
    template = _chosen(template, dict(switches), name)
    for variable, value in switches:
        if variable not in FOR_ANY:
            _check_variable(variable, template, name)
            _check_value(variable, value, template, name)
    return template


def _chosen(template: Any, values: dict[str, Any], name: str) -> Any:
    """The template by the name that was given; as it is where none was."""
    wanted = values.get(facts.NAMED)
    if wanted is None:
        return template
    if not isinstance(template, dict) or facts.DEFAULT in template:
        raise ConfigError(
            f"--template {facts.NAMED}={wanted}: {name} has a chat template that is used where"
            f" nothing else is said; expected several and none called {facts.DEFAULT}; leave it"
            " out"
        )
    if wanted not in template:
        raise ConfigError(
            f"--template {facts.NAMED}={wanted}: {name} has the chat templates"
            f" {', '.join(sorted(template))}; expected one of them; name one"
        )
    return template[wanted]


def _check_variable(variable: str, template: Any, name: str) -> None:
    """Raise ConfigError for a variable that no template reads."""
    read: set[str] = set()
    texts = template.values() if isinstance(template, dict) else [template]
    for text in texts:
        if isinstance(text, str):
            found = variables_of(text)
            if found is None:  # whoever renders it hears of it
                return
            read |= found
    if variable in read - GIVEN:
        return
    known = inputs_of(template)
    near = get_close_matches(variable, [*known, facts.SKIP], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    expected = f"expected {facts.SKIP}, which every template has"
    if known:
        shown = ", ".join(known[:MOST_SHOWN])
        expected = f"expected what it reads ({shown}), or {facts.SKIP}"
    raise ConfigError(
        f"--template {variable}=...: the chat template of {name} never reads {variable};"
        f" {hint}{expected}; correct the name, or leave it out"
    )


def _check_value(variable: str, value: Any, template: Any, name: str) -> None:
    """Raise ConfigError for a value of a type that a template never asks for at a variable."""
    is_list = isinstance(value, list) and all(isinstance(item, dict) for item in value)
    if variable in LISTED and value is not None and not is_list:
        raise ConfigError(
            f"--template {variable}={value!r:.40}: expected a JSON list of objects, which templates"
            f""" are given there; write it so: --template '{variable}=[{{"name": "add"}}]'"""
        )
    texts = template.values() if isinstance(template, dict) else [template]
    for text in texts:
        if isinstance(text, str) and (fault := truth.fault(text, variable, value)):
            raise ConfigError(f"--template {variable}: the chat template of {name}: {fault}")


def inputs_of(template: Any) -> list[str]:
    """Names of the variables that whoever uses a template can set, of one or several by name.

    One that the template sets before it reads it is none of them.
    """
    texts = template.values() if isinstance(template, dict) else [template]
    names: set[str] = set()
    for text in texts:
        if isinstance(text, str):
            names |= _inputs(text)
    return sorted(names)


@lru_cache(maxsize=16)
def _inputs(template: str) -> frozenset[str]:
    """The variables of one template that are read before they are set; none where it is broken."""
    from jinja2 import nodes

    read = (variables_of(template) or frozenset()) - GIVEN
    first: dict[str, str] = {}

    def visit(node: nodes.Node) -> None:
        if isinstance(node, nodes.Name):
            first.setdefault(node.name, node.ctx)
        parts = list(node.iter_child_nodes())
        if isinstance(node, nodes.Assign | nodes.AssignBlock):  # a target is set when all is read
            parts = parts[1:] + parts[:1]
        for part in parts:
            visit(part)

    if read:
        visit(template_trial.environment().parse(template))
    return frozenset(name for name in read if first.get(name) == "load")


@lru_cache(maxsize=16)
def variables_of(template: str) -> frozenset[str] | None:
    """Variables that a template looks up, the usual ones among them; None where it is broken."""
    from jinja2 import TemplateError, meta

    environment = template_trial.environment()
    try:
        return frozenset(meta.find_undeclared_variables(environment.parse(template)))
    except (TemplateError, RecursionError):
        return None
