"""Prompts of several turns, as texts.

A prompt is the text of a user turn, or `@turns:` with a JSON list of turns before the answer:

    @turns:[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, ...]

So a prompt stays a text wherever it goes. `models/chat.py` renders the turns by the chat template.
It also says what the forms of contexts mean, which rows of this package have at `context`.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from traitscope.errors import DataError

MARK = "@turns:"
"begins a prompt of several turns"
MOVED = "@user:"
"begins a context whose text stands in the user's turn"
BARE = "@none"
"the context without a template"
ROLES = ("system", "user", "assistant", "tool")
"roles that a turn can have"


class Turn(NamedTuple):
    """What one side of a chat said."""

    role: str
    """One of ROLES."""
    text: str
    """Its text."""


def prompt_of(turns: Sequence[Turn]) -> str:
    """The turns as a prompt: of one user turn its text, of no turn the empty text."""
    if not turns:
        return ""
    is_one_text = len(turns) == 1 and turns[0].role == "user"
    if is_one_text and _parsed(turns[0].text) is None:
        return turns[0].text
    messages = []
    for turn in turns:
        messages.append({"role": turn.role, "content": turn.text})
    return MARK + json.dumps(messages, ensure_ascii=False)


def is_known_form(context: str) -> bool:
    """Whether a context that begins with an @ has a form that models/chat.py knows."""
    return context == BARE or context.startswith((MOVED, f"{BARE}:"))


def check_form(context: str | None) -> None:
    """Raise DataError for the context of a row that begins with an @ and has no known form."""
    if context and context.startswith("@") and not is_known_form(context):
        raise DataError(
            f"the context {context[:40]!r} begins with an @ and is no form of contexts; expected a"
            f" text, or one of {MOVED}TEXT, {BARE} and {BARE}:TEXT; put a system turn that begins"
            " with an @ at the key 'system', where it is text"
        )


def turns_of(prompt: str) -> list[Turn]:
    """The turns of a prompt. A text that only looks like turns is a user turn."""
    return _parsed(prompt) or [Turn("user", prompt)]


def shown(prompt: str) -> str:
    """A prompt for a reader: several turns each with their role."""
    turns = _parsed(prompt)
    if turns is None:
        return prompt
    return "\n\n".join(f"{turn.role}: {turn.text}" for turn in turns)


def texts_of(prompt: str) -> list[str]:
    """The text of every turn."""
    return [turn.text for turn in turns_of(prompt)]


def _parsed(prompt: str) -> list[Turn] | None:
    """The turns of a prompt of several; None of any other text."""
    if not prompt.startswith(MARK):
        return None
    try:
        messages = json.loads(prompt.removeprefix(MARK))
    except (ValueError, RecursionError):
        return None
    if not isinstance(messages, list) or not messages:
        return None
    turns = []
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            return None
        if message["role"] not in ROLES or not isinstance(message["content"], str):
            return None
        turns.append(Turn(message["role"], message["content"]))
    return turns
