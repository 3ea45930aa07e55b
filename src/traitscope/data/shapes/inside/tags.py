"""Reasoning in tags at the beginning of an answer."""

import re

from traitscope.errors import DataError

TAGS = "think|thinking|thought|reasoning|seed:think"
"tags of reasoning that models write"
OPENED = re.compile(rf"\s*<({TAGS})>")
CLOSING = re.compile(rf"</({TAGS})>")
"what ends reasoning, also such whose opening tag stood in the prompt, as DeepSeek-R1 and QwQ have"


def split_thought(text: str) -> tuple[str, str, str]:
    """Reasoning in tags at the beginning of a text, the tagged parts as they stand, and the rest.

    A closing tag that stands without an opening one ends reasoning, too: the prompt opened it. The
    reasoning may be empty; the tagged parts are empty where there is none.

    Raises DataError where the reasoning does not end: the text holds no answer then.
    """
    if "<" not in text:
        return "", "", text
    thoughts, end = _tagged(text, 0)
    if not thoughts:
        first = CLOSING.search(text)
        closed = first and _end_of(text, first[1], 0, 1)
        if not (first and closed):
            return "", "", text
        thoughts, end = _tagged(text, closed.end())
        if f"<{first[1]}>" in text[end:] or f"</{first[1]}>" in text[end:]:
            return "", "", text
        thoughts.insert(0, text[: closed.start()].strip())
    return "\n".join(filter(None, thoughts)), text[:end], text[end:]


def _end_of(text: str, tag: str, start: int, depth: int) -> re.Match[str] | None:
    """The closing tag that ends as many parts as are open at a place; None where none does."""
    for mark in re.compile(rf"<(/?){tag}>\s*").finditer(text, start):
        depth += -1 if mark[1] else 1
        if not depth:
            return mark
    return None


def _tagged(text: str, start: int) -> tuple[list[str], int]:
    """The reasoning of each of the tagged parts that follow each other, and where they end.

    A part may hold others of its tag, of which each is closed. Raises DataError for a part that
    does not end.
    """
    thoughts = []
    while opened := OPENED.match(text, start):
        tag, begin = opened[1], opened.end()
        closed = _end_of(text, tag, begin, 1) or re.compile(rf"</{tag}>\s*").search(text, begin)
        if closed is None:
            raise DataError(
                f"the answer opens <{tag}> and never closes it; expected an answer behind the"
                " reasoning; delete the row: it was cut off"
            )
        thoughts.append(text[begin : closed.start()].strip())
        start = closed.end()
    return thoughts, start
