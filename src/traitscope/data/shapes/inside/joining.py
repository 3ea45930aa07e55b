"""Turns of an answer behind those of its prompt, which the answer may repeat."""

from collections.abc import Sequence

from traitscope.data.shapes.messages import Message, with_more_of
from traitscope.errors import DataError


def joined(prompt: list[Message], answer: list[Message], asked: str, side: str) -> list[Message]:
    """The turns of an answer behind those of its prompt, which it may repeat.

    asked, side: Keys of the prompt and of the answer.

    Raises DataError where it begins with a question of its own.
    """
    system, rest = _system_first(answer)
    system_of_prompt, turns = _system_first(prompt)
    if system and system_of_prompt and system[0].text != system_of_prompt[0].text:
        raise DataError(
            f"{asked!r} and {side!r} begin with system turns that differ; expected one; delete the"
            " other"
        )
    system = _each_with_more(system, system_of_prompt) or system_of_prompt
    is_new_turn = not turns or turns[-1].role != "user" or rest[:1] and rest[0].role != "user"
    if _said(rest[: len(turns)]) == _said(turns):
        return [*system, *_each_with_more(rest, turns)]
    if is_new_turn:
        return [*system, *turns, *rest]
    raise DataError(
        f"{asked!r} and the first turns of {side!r} differ; expected the same question at both, or"
        f" {side!r} to begin with the assistant; delete the wrong one"
    )


def _each_with_more(messages: list[Message], others: list[Message]) -> list[Message]:
    """The messages, with what others that say the same hold besides."""
    further = list(map(with_more_of, messages, others))
    return [*further, *messages[len(further) :]]


def _system_first(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """The system turn that comes first, if one does, and the other turns."""
    n = int(bool(messages) and messages[0].role == "system")
    return messages[:n], messages[n:]


def _said(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Roles and texts of turns, without white space around them."""
    return [(message.role, (message.text or "").strip()) for message in messages]
