"""Prompts of several turns, as texts.

A prompt is the text of a user turn, or `@turns:` with a JSON list of turns before the answer:

    @turns:[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, ...]

So a prompt stays a text wherever it goes. `models/chat.py` renders the turns by the chat template.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

MARK = "@turns:"
"begins a prompt of several turns"
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
