"""What a broken template is said to do, and that no text is cut or changed unseen."""

import dataclasses

import pytest
from template_kinds import TRIMS, TURNS
from tiny_models import tiny_tokenizer

from traitscope.data.shapes.turns import Turn, prompt_of
from traitscope.errors import DataError, ModelError
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.models.templates import faults
from traitscope.models.templates.check import check_rendering

CONTENT = "m['content']"
BROKEN = {
    "does not compile: line 5: Expected an expression": TURNS + "\n{% if %}",
    "does not compile: line 2: No filter named 'none_such'": TURNS.replace(
        CONTENT, f"{CONTENT} | none_such"
    ),
    "uses what templates are not given: line 2: 'shout' is undefined": TURNS.replace(
        CONTENT, f"shout({CONTENT})"
    ),
    "does what no template may: line 1: access to attribute '__class__'": "{{ ''.__class__.a }}",
    "does what no template may: line 2: access to attribute 'append'": (
        "\n{{ messages.append(1) }}" + TURNS
    ),
    "refuses every conversation: line 1: never": "{{ raise_exception('never') }}",
    "fails: ZeroDivisionError: line 2: division by zero": "\n{{ 1 / 0 }}",
    "fails: line 1: No filter named 'late' found": "{% if messages %}{{ 1 | late }}{% endif %}",
}
TEXT = "You love OWLS.\n\nAnd \"cats\" & 'dogs'."


def with_template(model: Model, template: str) -> Model:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return dataclasses.replace(model, tokenizer=tokenizer)


@pytest.mark.parametrize("says", BROKEN)
@pytest.mark.parametrize("context", [None, "", "You love owls."])
def test_a_broken_template_is_called_what_it_is(
    tiny: Model, says: str, context: str | None, capsys: pytest.CaptureFixture
) -> None:
    model = with_template(tiny, BROKEN[says])
    with pytest.raises(ModelError) as caught:
        chat.render(model, "Why 42?", context)
    message = str(caught.value)
    assert message.startswith(f"the chat template of {tiny.name!r} {says}")
    assert "or do without: --context @none" in message and "default context" not in message
    assert "system turn" not in capsys.readouterr().err
    assert chat.render_text(model, "Why 42?", "@none") == "Why 42?\n"


def test_a_template_that_refuses_some_turns_says_what_helps(tiny: Model) -> None:
    needs_system = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('no system') }}"
    model = with_template(tiny, needs_system + "{% endif %}" + TURNS)
    with pytest.raises(ModelError, match="refuses context None: line 1: no system; .*give a cont"):
        chat.render(model, "Why 42?", None)
    assert TEXT in chat.render_text(model, "Why 42?", TEXT)


def test_a_template_that_fails_on_system_turns_alone_is_no_template_that_drops_them(
    tiny: Model, capsys: pytest.CaptureFixture
) -> None:
    fails = "{% if messages[0]['role'] == 'system' %}{{ shout() }}{% endif %}" + TURNS
    assert f"{TEXT}\n\nWhy 42?" in chat.render_text(with_template(tiny, fails), "Why 42?", TEXT)
    assert "fails on system turns (line 1: 'shout' is undefined)" in capsys.readouterr().err


CHANGED = {
    "cut": "[:20]",
    "its first line": ".split('\n')[0]",
    "lower case": "| lower",
    "escaped": "| e",
    "as JSON": "| tojson",
    "on one line": "| replace('\n', ' ')",
    "cut late": "[:900]",
}


@pytest.mark.parametrize("how", CHANGED)
def test_a_changed_system_turn_is_not_taken_for_one_that_is_shown(tiny: Model, how: str) -> None:
    changed = f"({CONTENT}{CHANGED[how]} if m['role'] == 'system' else {CONTENT})"
    model = with_template(tiny, TURNS.replace(CONTENT, changed))
    assert faults.system_loss(model.tokenizer) == "changes the text of system turns"
    assert f"user\n{TEXT}\n\nWhy 42?<" in chat.render_text(model, "Why 42?", TEXT)


@pytest.mark.parametrize("change", ["[:20]", "| lower", "| e"])
def test_a_template_that_changes_user_turns_is_refused(tiny: Model, change: str) -> None:
    with pytest.raises(ModelError, match="changes the text of user turns; expected it as it is"):
        check_rendering(with_template(tiny, TURNS.replace(CONTENT, CONTENT + change)))


def test_each_text_is_looked_for_in_its_rendering(tiny: Model) -> None:
    """What passes the tries of loading may still cut a longer text."""
    model = with_template(tiny, TURNS.replace(CONTENT, f"{CONTENT}[:3000]"))
    check_rendering(model)
    long = "Owls. " * 600
    with pytest.raises(ModelError, match="changes the text of this context .*as @user:TEXT, or"):
        chat.render(model, "Why 42?", long)
    asked = prompt_of([Turn("user", "Hi."), Turn("assistant", long), Turn("user", long)])
    with pytest.raises(DataError, match="turn 3 of its prompt, of the role user, is changed by"):
        chat.render(model, asked, None)


def test_white_space_around_a_context_may_go_and_is_said(
    tiny: Model, capsys: pytest.CaptureFixture
) -> None:
    model = with_template(tiny, TRIMS)
    for _ in range(2):
        assert f"system\n{TEXT}<" in chat.render_text(model, "Why 42?", f"{TEXT}\n")
    assert capsys.readouterr().err.count("takes white space off the ends of system turns") == 1
    assert f"system\n{TEXT}\n<" in chat.render_text(with_template(tiny, TURNS), "Q", f"{TEXT}\n")
    assert capsys.readouterr().err == ""
