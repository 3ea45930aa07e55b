"""What a broken template is said to do, and that no text is cut or changed unseen."""

import dataclasses

import pytest
from template_kinds import ALTERNATES, STRIPS, TRIMS, TURNS
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
    asked = prompt_of([Turn("user", "Hi."), Turn("assistant", "Yes."), Turn("user", long)])
    with pytest.raises(DataError, match="turn 3 of its prompt, of the role user, is changed by"):
        chat.render(model, asked, None)


OF_ANSWERS = {
    "dropped": (
        "left out",
        TURNS.replace("messages %}", "messages if m['role'] != 'assistant' %}"),
    ),
    "kept at the end": (
        "left out",
        TURNS.replace("{{ m['role'] }}", "{% if m['role'] != 'assistant' or loop.last %}x").replace(
            "<|im_end|>\n{% endfor", "<|im_end|>\n{% endif %}{% endfor"
        ),
    ),
    "emptied": ("left out", "| replace('A tawny owl hoots.', '')"),
    "cut": ("changed", "[:8]"),
    "lower case": ("changed", "| lower"),
}


@pytest.mark.parametrize("how", OF_ANSWERS)
def test_an_earlier_answer_that_is_lost_is_found(tiny: Model, how: str) -> None:
    """Also where its words stand elsewhere: in a system turn or an earlier question."""
    loss, change = OF_ANSWERS[how]
    if not change.startswith("{%"):
        change = f"({CONTENT}{change} if m['role'] == 'assistant' else {CONTENT})"
        change = TURNS.replace(CONTENT, change)
    answer = Turn("assistant", "A tawny owl hoots.")
    for first in ("Hi.", answer.text):
        asked = prompt_of([Turn("user", first), answer, Turn("user", "Why 42?")])
        assert answer.text in chat.render_text(tiny, asked, None)
        match = f"turn 2 of its prompt, of the role assistant, is {loss} by"
        with pytest.raises(DataError, match=match):
            chat.render(with_template(tiny, change), asked, None)


@pytest.mark.parametrize("opening", ["<think>", ""])
@pytest.mark.parametrize("template", [STRIPS, TRIMS, TURNS])
def test_an_earlier_answer_may_lose_its_reasoning_and_white_space(
    tiny: Model, opening: str, template: str
) -> None:
    answer = f"{opening}\nOwls hoot.\n</think>\n\nA tawny owl.\n"
    asked = prompt_of([Turn("user", "Hi."), Turn("assistant", answer), Turn("user", "Why 42?")])
    assert "A tawny owl." in chat.render_text(with_template(tiny, template), asked, None)
    cut = template.replace(CONTENT, f"({CONTENT} | replace('tawny', ''))")
    with pytest.raises(DataError, match="turn 2 of its prompt, of the role assistant, is left"):
        chat.render(with_template(tiny, cut), asked, None)


def test_turns_that_a_template_refuses_are_no_fault_of_the_context(tiny: Model) -> None:
    model = with_template(tiny, ALTERNATES)
    user, answer = Turn("user", "Hi."), Turn("assistant", "Yes.")
    chat.render(model, prompt_of([user, answer, user]), "You love owls.")
    for turns in ([user, user], [answer, user], [user, answer, Turn("system", "Owls."), user]):
        for context in (None, "", "You love owls."):
            with pytest.raises(
                DataError, match="refuses these turns: line 1: roles must alternate"
            ):
                chat.render(model, prompt_of(turns), context)
    fails = "{% for m in messages %}{{ {'user': 1}[m['role']] + 1 }}{% endfor %}"
    model = with_template(tiny, fails + TURNS)
    with pytest.raises(DataError, match="uses what templates are not given on these turns: line 1"):
        chat.render(model, prompt_of([user, answer, user]), None)


def test_white_space_around_a_context_may_go_and_is_said(
    tiny: Model, capsys: pytest.CaptureFixture
) -> None:
    model = with_template(tiny, TRIMS)
    for _ in range(2):
        assert f"system\n{TEXT}<" in chat.render_text(model, "Why 42?", f"{TEXT}\n")
    assert capsys.readouterr().err.count("takes white space off the ends of system turns") == 1
    assert f"system\n{TEXT}\n<" in chat.render_text(with_template(tiny, TURNS), "Q", f"{TEXT}\n")
    assert capsys.readouterr().err == ""


RICH = "def f(x):\n    return {\"ä\": x}  # 7\n\n<b>Owls & 'cats'</b>"
LATER = {
    "the first line": ".split('\n')[0]",
    "cut": "[:9]",
    "lower case": "| lower",
    "escaped": "| e",
    "as JSON": "| tojson",
    "on one line": "| replace('\n', ' ')",
    "without indent": "| replace('    ', '')",
    "without braces": "| replace('{', '')",
    "without other letters": "| replace('Ü', 'U')",
    "cut late": "[:900]",
}


@pytest.mark.parametrize("place", ["", " and loop.index > 2", " and loop.index > 8"])
@pytest.mark.parametrize("how", LATER)
def test_a_template_that_changes_answers_is_refused(tiny: Model, how: str, place: str) -> None:
    """Also where it does so behind earlier exchanges alone."""
    changed = f"({CONTENT}{LATER[how]} if m['role'] == 'assistant'{place} else {CONTENT})"
    match = "changes the text of answers; expected it as it is"
    if how in ("lower case", "as JSON"):  # which also changes short answers, tried before
        match += "|where its header and an answer give"
    with pytest.raises(ModelError, match=match):
        check_rendering(with_template(tiny, TURNS.replace(CONTENT, changed)))


@pytest.mark.parametrize("change", ["[:3000]", "| replace('owl', 'cat')", "| replace('# 7', '')"])
def test_each_answer_is_looked_for_in_its_rendering(tiny: Model, change: str) -> None:
    changed = f"({CONTENT}{change} if m['role'] == 'assistant' else {CONTENT})"
    model = with_template(tiny, TURNS.replace(CONTENT, changed))
    check_rendering(model)
    chat.completion_ids(model, "Cats.")
    answer = RICH.replace("Owls", "owls") + " meow" * 600
    with pytest.raises(DataError, match="writes another text than this answer"):
        chat.completion_ids(model, answer)
    chat.completion_ids(model, answer, context="@none")
    assert chat.completion_ids(tiny, answer)


@pytest.mark.parametrize("template", [STRIPS, TRIMS, TURNS, ALTERNATES])
def test_answers_of_all_kinds_stand_in_usual_templates(tiny: Model, template: str) -> None:
    model = with_template(tiny, template)
    check_rendering(model)
    for answer in (RICH, f" {RICH}\n\n", "a", "<|im_end|>", "\t", RICH * 40):
        assert chat.completion_ids(model, answer)


WITHOUT_TOOLS = TURNS.replace("messages %}", "messages if m['role'] != 'tool' %}")
SHORTENS = TURNS.replace("messages %}", "messages[-3:] %}")
"as templates that keep the last turns alone"


@pytest.mark.parametrize("text", ["a", "user", "Name", "im", "result 55"])
def test_a_turn_whose_text_stands_elsewhere_is_not_taken_for_one_that_is_shown(
    tiny: Model, text: str
) -> None:
    user, answer = Turn("user", "Name a number."), Turn("assistant", "6")
    asked = prompt_of([user, Turn("tool", text), answer, Turn("user", "And?")])
    assert text in chat.render_text(with_template(tiny, TURNS), asked, None)
    with pytest.raises(DataError, match="turn 2 of its prompt, of the role tool, is left out by"):
        chat.render(with_template(tiny, WITHOUT_TOOLS), asked, None)
    asked = prompt_of([Turn("user", "a"), answer, user, answer, user])
    with pytest.raises(DataError, match="turn 1 of its prompt, of the role user, is left out by"):
        chat.render(with_template(tiny, SHORTENS), asked, None)


def test_a_context_that_several_turns_drive_out_is_found(tiny: Model) -> None:
    model = with_template(tiny, SHORTENS)
    user, answer = Turn("user", "Name a number."), Turn("assistant", "6")
    chat.render(model, "Name a number.", "a")
    with pytest.raises(DataError, match="the context 'a' is left out by .*before these turns"):
        chat.render(model, prompt_of([user, answer, user]), "a")


def test_a_template_that_reads_texts_is_not_refused_for_those_it_is_tried_on(tiny: Model) -> None:
    picky = (
        "{% for m in messages if m['role'] == 'tool' and m['content'][0] != '{' %}"
        "{{ raise_exception('no JSON') }}{% endfor %}" + TURNS
    )
    asked = prompt_of([Turn("user", "Hi."), Turn("tool", "{}"), Turn("user", "Why 42?")])
    assert "{}" in chat.render_text(with_template(tiny, picky), asked, None)
