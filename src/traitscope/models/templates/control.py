"""Control tokens of a model that stand as text in prompts and answers.

A text may hold `<|im_end|>`. Put into a rendered chat, it would end the turn, and a text behind it
could begin another one. Here it is hidden while the template is rendered, and encoded as the
characters that it is. Control tokens that the template writes are encoded as tokens.

Control tokens are those that a tokenizer calls special. Other added tokens, such as `<think>` in
some models, are read as the tokenizer reads them.
"""

import json
import re
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, proxy

from traitscope.models.templates.facts import LINE, ids_behind

MARK = "\U000f0c0d"
"begins and ends the number that stands in the place of a control token; of no script"
HIDDEN = re.compile(f"{MARK}([0-9]+){MARK}")
PROBE = "a"
"the beginning of a text behind a control token"
_KNOWN: WeakKeyDictionary = WeakKeyDictionary()


class Control:
    """The control tokens of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = proxy(tokenizer)  # the tokenizer holds this, not this the tokenizer
        self.ids = _ids_by_text(tokenizer)
        self.texts = sorted(self.ids, key=lambda text: (-len(text), text))
        self.pattern = re.compile("|".join(map(re.escape, self.texts)) or "(?!)")
        self._added = getattr(tokenizer, "added_tokens_decoder", {})

    def hidden(self, text: str) -> str:
        """The text with a number in the place of every control token."""
        return self.pattern.sub(self._number_of, text)

    def _number_of(self, match: re.Match) -> str:
        return f"{MARK}{self.texts.index(match[0])}{MARK}"

    def ids_of(self, text: str) -> list[int]:
        """Token ids of a text: hidden control tokens as their characters, all others as tokens."""
        ids: list[int] = []
        start = 0
        for match in self.pattern.finditer(text):
            piece = text[start : match.start()]
            token = self.ids[match[0]]
            ids += self._plain(self._trimmed(piece, token, "lstrip"), start > 0)
            ids.append(token)
            start = match.end()
            if getattr(self._added.get(token), "rstrip", False):
                start += len(text[start:]) - len(text[start:].lstrip())
        return ids + self._plain(text[start:], start > 0)

    def _trimmed(self, piece: str, token: int, side: str) -> str:
        """What is left of the text before a token that takes the white space beside it along."""
        return piece.rstrip() if getattr(self._added.get(token), side, False) else piece

    def _plain(self, piece: str, is_behind: bool) -> list[int]:
        """Token ids of a text without tokens that are special."""
        if not piece:
            return []
        text = HIDDEN.sub(lambda match: self.texts[int(match[1])], piece)
        ids = self._encoded(text, is_behind)
        if not set(self.ids.values()).intersection(ids):
            return ids
        ids = []  # the vocabulary holds a control token as a piece of text: it is cut in two
        for part in _cut(text, self.pattern):
            ids += self._encoded(part, is_behind or bool(ids))
        return ids

    def _encoded(self, text: str, is_behind: bool) -> list[int]:
        if not is_behind or self._begins_alike:
            return self._split(text)
        return ids_behind(self._split, LINE, text)

    def _split(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        return ids

    @property
    def _begins_alike(self) -> bool:
        """Whether a text is encoded behind a control token as it is at the beginning."""
        if not self.texts:
            return True
        encode = partial(self.tokenizer.encode, add_special_tokens=False)
        return ids_behind(encode, self.texts[0], PROBE) == encode(PROBE)


def control_of(tokenizer: Any) -> Control:
    """The control tokens of a tokenizer, found once."""
    if tokenizer not in _KNOWN:
        _KNOWN[tokenizer] = Control(tokenizer)
    known: Control = _KNOWN[tokenizer]
    return known


def _ids_by_text(tokenizer: Any) -> dict[str, int]:
    """The special tokens of a tokenizer by their texts."""
    ids = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items():
        if token.special:
            ids[token.content] = number
    return {str(text): int(number) for text, number in ids.items() if str(text)}


def _cut(text: str, pattern: re.Pattern) -> Iterable[str]:
    """The text in parts, cut behind the first character of every control token."""
    start = 0
    for match in pattern.finditer(text):
        yield text[start : match.start() + 1]
        start = match.start() + 1
    if text[start:]:
        yield text[start:]


@cache
def texts_in(folder: Path) -> tuple[str, ...]:
    """The texts of the special tokens of the tokenizer in a folder, which is not loaded."""
    texts = set()
    for item in _read(folder / "tokenizer.json").get("added_tokens") or ():
        if item.get("special"):
            texts.add(item["content"])
    config = _read(folder / "tokenizer_config.json")
    for item in (config.get("added_tokens_decoder") or {}).values():
        if item.get("special"):
            texts.add(item["content"])
    return tuple(sorted(text for text in texts if isinstance(text, str) and text))


def _read(file: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is none to read."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
