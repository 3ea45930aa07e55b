"""Dialogues that are written in one text, as in Anthropic's hh-rlhf (Bai et al. 2022)."""

import re
from collections.abc import Mapping
from typing import Any

from traitscope.data.shapes.messages import Message

TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ \n]?")
"what begins a turn"
SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def dialogue_in(row: Mapping[str, Any], key: str) -> list[Message]:
    """The turns of a text that begins with one; none of another text, or of what is no text.

    The place of the last one is the key, where it stands behind the others. They have no place.
    """
    text = row.get(key)
    if not isinstance(text, str) or TURN.match(text) is None:
        return []
    parts = TURN.split(text)
    messages = []
    for speaker, said in zip(parts[1::2], parts[2::2], strict=True):
        messages.append(Message(SPEAKERS[speaker], said))
    messages[-1] = messages[-1]._replace(at=(key,))
    return messages
