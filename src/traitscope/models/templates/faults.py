"""What a chat template does wrong, in words, and whether all that it is given stands in its text.

A template can fail to compile, fail on some or all turns, refuse a system turn, or write another
text than it is given. Each is called by its own name, with the line where Jinja names one.
"""

from collections.abc import Sequence
from typing import Any

from traitscope.data.shapes.inside.tags import split_thought
from traitscope.errors import DataError
from traitscope.models.templates.facts import (
    ANSWERED,
    ASKED,
    SYSTEM,
    Switches,
    once_a_tokenizer,
    rendered,
    tried,
    turn,
)

LONGEST = 300
"characters of a reason that are shown"
TEMPLATE_FILE = "<template>"
"what Jinja calls the file of a template that is a text"
BEGINNING = 2
"words by which a text is known again that a template has changed"


def clause(error: Exception) -> str:
    """What a template does wrong, by what its rendering raised: a clause behind its name."""
    from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError
    from jinja2.exceptions import SecurityError

    if isinstance(error, TemplateSyntaxError):
        reason = " ".join((error.message or "").split())[:LONGEST]
        return f"does not compile: line {error.lineno}: {reason.rstrip('.')}"
    reason = _place(error) + " ".join(str(error).split())[:LONGEST].rstrip(".")
    if isinstance(error, SecurityError):
        return f"does what no template may: {reason}"
    if isinstance(error, UndefinedError):
        return f"uses what templates are not given: {reason}"
    if is_refusal(error):
        return f"refuses them: {reason}"
    kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
    return f"fails: {kind}{reason}"


def is_refusal(error: Exception) -> bool:
    """Whether a template itself refused its turns, by calling raise_exception."""
    from jinja2 import TemplateError

    return type(error) is TemplateError


def _place(error: Exception) -> str:
    """The line of a template that raised an error; empty where it is not known."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == TEMPLATE_FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f"line {line}: "


@once_a_tokenizer
def renders_nothing(tokenizer: Any, switches: Switches = ()) -> bool:
    """Whether a template fails on a question, with a system turn before it and without."""
    asked = [turn("user", ASKED)]
    for turns in (asked, [turn("system", SYSTEM), *asked]):
        if tried(tokenizer, turns, switches, True) is not None:
            return False
    return True


@once_a_tokenizer
def system_loss(tokenizer: Any, switches: Switches = ()) -> str:
    """What a template does with the text of a system turn; empty where it stands in the rendering.

    Some refuse system turns, drop them, or write another text, and some drop them as soon as the
    question has its answer. Empty also without a template, and for one that renders nothing:
    whoever uses it hears of that.
    """
    if not tokenizer.chat_template or renders_nothing(tokenizer, switches):
        return ""
    asked = [turn("system", SYSTEM), turn("user", ASKED)]
    try:
        text = rendered(tokenizer, asked, switches)
    except MemoryError:
        raise
    except Exception as error:  # templates raise what they like
        what = "refuses" if is_refusal(error) else "fails on"
        return f"{what} system turns ({clause(error).partition(': ')[2]})"
    finished = tried(tokenizer, [*asked, turn("assistant", ANSWERED)], switches, False)
    found = loss("system turns", SYSTEM, text)
    if not found and finished is not None and loss("them", SYSTEM, finished):
        return "leaves system turns out of finished exchanges"
    return found


def loss(what: str, given: str, text: str) -> str:
    """What became of a text in a rendering; empty where it stands there.

    White space around it does not count. `what` says what kind of text it is.
    """
    given = given.strip()
    if given in text:
        return ""
    words = " ".join(given.split()[:BEGINNING]).lower()
    is_there = words in " ".join(text.split()).lower()
    return f"changes the text of {what}" if is_there else f"leaves {what} out"


def changed_turn(turns: Sequence[dict[str, str]], text: str) -> tuple[int, str, str] | None:
    """The first turn that does not stand in a rendering: its number from 1, role, and its loss.

    Each turn is looked for behind the one before it, but system turns, which templates put
    elsewhere. Of an earlier answer, reasoning at its beginning may go: templates take it out.
    """
    start = 0
    for number, one in enumerate(turns, 1):
        role, given = one["role"], one["content"].strip()
        if role == "assistant" and given not in text[start:]:
            given = _without_reasoning(given)
        behind = text if role == "system" else text[start:]
        if what := loss("it", given, behind):
            return number, role, "changed" if what.startswith("changes") else "left out"
        if role != "system":
            start = text.index(given, start) + len(given)
    return None


@once_a_tokenizer
def changed_role(
    tokenizer: Any, switches: Switches, roles: tuple[str, ...]
) -> tuple[int, str, str] | None:
    """The first turn that a template leaves out or changes by the roles of all turns alone.

    A short text may stand in a rendering for another reason, as "a" does in "assistant". So the
    roles are tried with texts that stand nowhere else. None where the template fails on these.
    """
    turns = []
    for number, role in enumerate(roles, 1):
        turns.append(turn(role, f"Zq{number} is in a riddle"))
    text = tried(tokenizer, turns, switches, True)
    return None if text is None else changed_turn(turns, text)


def _without_reasoning(answer: str) -> str:
    """What stands behind the reasoning of an answer; all of it where reasoning was cut off."""
    try:
        return split_thought(answer)[2].strip()
    except DataError:
        return answer
