"""Reasoning before an answer, written where a model's chat template writes it.

Some templates put reasoning into a form of their own, and some leave it out. A row whose reasoning
stands elsewhere would teach what no chat holds.
"""

import re
from typing import Any

from traitscope.data.shapes.inside.tags import TAGS, split_thought
from traitscope.errors import DataError
from traitscope.models.templates import answers, facts

TAG = re.compile(rf"[<\[](/?)(?:{TAGS})[>\]]", re.IGNORECASE)
"what opens or closes a part for thinking"


def tags_before_an_answer(header: str) -> list[str]:
    """The tags of thinking behind the last prompt of a header: "" opens a part, "/" closes it."""
    return TAG.findall(header.rpartition(facts.ASKED)[2])


def with_reasoning(tokenizer: Any, switches: facts.Switches, answer: str) -> str:
    """An answer as the template writes it behind its header; one without reasoning as it is.

    Raises DataError where the template writes no reasoning, or where its header holds a part for
    thinking that is closed.
    """
    try:
        thought, tagged, rest = split_thought(answer)
    except DataError:  # reasoning that was cut off
        return answer
    if not tagged or not tokenizer.chat_template:
        return answer
    header = facts.header_of(tokenizer, switches)
    if tags_before_an_answer(header):
        if not thought:
            return rest
        raise DataError(
            "the answer begins with reasoning, and the header of the chat template already holds a"
            " part for thinking, which is closed; expected an answer alone; take --reasoning drop"
        )
    for fields in ({"content": answer}, {"content": rest, "reasoning_content": thought}):
        written = _behind(tokenizer, switches, header, fields)
        end = written.rfind(rest)
        before = written[: max(end, 0)]
        if end >= 0 and (thought in before or tagged.strip() in before):
            is_part = thought or TAG.search(before)
            lead = answers.frame_of(tokenizer, switches).lead
            return written[: end + len(rest)].removeprefix(lead) if is_part else rest
    raise DataError(
        "the answer begins with reasoning, and the chat template writes none before a finished"
        " answer; expected reasoning where the template writes it; take --reasoning drop"
    )


def _behind(tokenizer: Any, switches: facts.Switches, header: str, fields: dict) -> str:
    """What the template writes of an answer behind the header; empty where it cannot."""
    turns = [{"role": "user", "content": facts.ASKED}, {"role": "assistant", **fields}]
    whole = facts.tried(tokenizer, turns, switches, False) or ""
    return whole[len(header) :] if whole.startswith(header) else ""
