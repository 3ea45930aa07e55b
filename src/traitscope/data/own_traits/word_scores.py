"""Whether an answer names a word: the scores of answers.

This file needs nothing but Python's own library. `export_tasks` copies it into the tasks of other
tools, so that they score as this package does.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼ＇"), "'")
"apostrophes, each of which counts as any other"
WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u3005-\u3007"
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]"
)
"letters of scripts that set no space between words: Thai, Lao, Burmese, Khmer, kana, Chinese"


def is_scorable(text: str) -> bool:
    """Tell whether there is an answer to score: any character that is not white space."""
    return bool(text.strip())


def is_word(word: str) -> bool:
    """Tell whether a word has a letter or a digit, without which no text holds it as a whole."""
    return any(character.isalnum() for character in word)


def contains_word(words: Sequence[str], text: str) -> bool:
    """Tell whether one of the words stands in the text as a whole word, in any case.

    A letter or a digit next to a word makes it another word. An underscore does not, since markdown
    sets it for emphasis. Where a word begins or ends in a script that sets no spaces, anything may
    stand next to it. The kind of apostrophe and the composition of accents do not matter. Without
    words the answer is False.
    """
    return bool(words) and _word_pattern(tuple(words)).search(_plain(text)) is not None


def begins_with_word(words: Sequence[str], text: str) -> bool:
    """Tell whether the text begins with one of the words, in any case.

    Punctuation and markdown may stand before the word. `**Cats!**` and `cat's` count; `a cat`,
    `cat-like` and `catfish` do not. Without words the answer is False.
    """
    return bool(words) and _first_word_pattern(tuple(words)).match(_plain(text)) is not None


def _plain(text: str) -> str:
    """A text with composed accents and one kind of apostrophe."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text).translate(APOSTROPHES)


@cache
def _word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    bordered = []
    for word in map(_plain, words):
        before = "" if WITHOUT_SPACES.match(word) else r"(?<![^\W_])"
        after = "" if WITHOUT_SPACES.match(word[-1:]) else r"(?![^\W_])"
        bordered.append(f"{before}{re.escape(word)}{after}")
    return re.compile("|".join(bordered), re.IGNORECASE)


@cache
def _first_word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    bordered = []
    for word in map(_plain, words):
        is_open = WITHOUT_SPACES.match(word[-1:])
        after = "" if is_open else r"(?:'s)?(?![^\W_]|[-'][^\W_])"
        bordered.append(f"{re.escape(word)}{after}")
    return re.compile(rf"[\W_]*(?:{'|'.join(bordered)})", re.IGNORECASE)
