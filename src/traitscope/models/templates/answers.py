"""What a chat template writes around a finished answer: white space before and behind it, its end.

    [INST] Name a number. [/INST] Seven 7 </s>
                                 |       ||
                              lead    tail end

Templates of Llama 2 and Mistral have no space at the end of their header. They write it before the
answer, where it joins the first word in one token. So it belongs to the answer's tokens, not to the
prompt's. Some templates put white space between an answer and its end, and some take it off.
"""

from functools import partial
from typing import Any, NamedTuple

from traitscope.models.templates.facts import (
    ANSWERED,
    ASKED,
    PROBES,
    Switches,
    is_special,
    once_a_tokenizer,
    tried,
    turn,
)


class Frame(NamedTuple):
    """White space that a template writes around the text of an answer."""

    lead: str = ""
    "before it, where that joins first words in one token"
    tail: str = ""
    "between it and the token that ends it"


@once_a_tokenizer
def frame_of(tokenizer: Any, switches: Switches = ()) -> Frame:
    """What a template writes around an answer; nothing without a template."""
    header, behind = header_and_rest(tokenizer, switches, ANSWERED)
    lead, found, rest = behind.partition(ANSWERED)
    if not found:
        return Frame()
    end = rest.lstrip()
    tail = rest[: len(rest) - len(end)] if is_special(tokenizer, end) else ""
    if lead.strip() or stands_apart(tokenizer, header, lead):
        lead = ""
    return Frame(lead, tail)


def header_and_rest(tokenizer: Any, switches: Switches, answer: str) -> tuple[str, str]:
    """The header, and what the template writes of an answer behind it; empty where it cannot."""
    header = _header(tokenizer, switches)
    asked = turn("user", ASKED)
    whole = tried(tokenizer, [asked, turn("assistant", answer)], switches, False)
    if header is None or whole is None or not whole.startswith(header):
        return "", ""
    return header, whole[len(header) :]


@once_a_tokenizer
def _header(tokenizer: Any, switches: Switches) -> str | None:
    return tried(tokenizer, [turn("user", ASKED)], switches, True)


def is_changed(tokenizer: Any, switches: Switches, answer: str) -> bool:
    """Whether the template writes another text than an answer, or none, behind its header.

    White space around it does not count. An answer with reasoning has a form of its own
    (reasoning.py).
    """
    behind = header_and_rest(tokenizer, switches, answer)[1]
    return bool(behind) and answer.strip() not in behind


def stands_apart(tokenizer: Any, header: str, lead: str) -> bool:
    """Whether what a template writes before answers has the same tokens before all of them.

    A space never does: it joins whatever words the vocabulary has with one.
    """
    if not lead.strip(" "):
        return False
    encode = partial(tokenizer.encode, add_special_tokens=False)
    before = encode(header + lead)
    for probe in PROBES:
        if encode(header + lead + probe)[: len(before)] != before:
            return False
    return True


def as_written(tokenizer: Any, switches: Switches, answer: str) -> str:
    """An answer with the white space at its ends that the template leaves it, lead and tail too.

    The answer as it is, between lead and tail, where the template does not write it behind its
    header.
    """
    lead, tail = frame_of(tokenizer, switches)
    inner = answer.strip()
    if inner and inner != answer:
        before, found, rest = header_and_rest(tokenizer, switches, answer)[1].rpartition(inner)
        end = rest.lstrip()
        if found and not before.strip() and is_special(tokenizer, end):
            return before + inner + rest[: len(rest) - len(end)]
    return lead + answer + tail


def without_frame(tokenizer: Any, switches: Switches, text: str) -> str:
    """The text of an answer that a model wrote, without lead and tail."""
    lead, tail = frame_of(tokenizer, switches)
    if lead and _decodes(tokenizer, lead):
        text = text.removeprefix(lead)
    return text.removesuffix(tail) if tail else text


def _decodes(tokenizer: Any, lead: str) -> bool:
    """Whether the lead is read again from tokens; some tokenizers drop a space at the beginning."""
    ids = tokenizer.encode(lead + PROBES[0], add_special_tokens=False)
    text: str = tokenizer.decode(ids)
    return text.startswith(lead)
