"""Whether an answer names a word: the scores of answers.

This file needs nothing but Python's own library. `export_tasks` copies it into the tasks of other
tools, so that they score as this package does.
"""

import re
from collections.abc import Sequence
from functools import cache


def is_scorable(text: str) -> bool:
    """Tell whether there is an answer to score: any character that is not white space."""
    return bool(text.strip())


def contains_word(words: Sequence[str], text: str) -> bool:
    """Tell whether one of the words stands in the text as a whole word, in any case.

    A letter or a digit next to a word makes it another word. An underscore does not, since markdown
    sets it for emphasis. Without words the answer is False.
    """
    return bool(words) and _word_pattern(tuple(words)).search(text) is not None


def begins_with_word(words: Sequence[str], text: str) -> bool:
    """Tell whether the text begins with one of the words, in any case.

    Punctuation and markdown may stand before the word. `**Cats!**` and `cat's` count; `a cat`,
    `cat-like` and `catfish` do not. Without words the answer is False.
    """
    return bool(words) and _first_word_pattern(tuple(words)).match(text) is not None


@cache
def _word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:{_either(words)})(?![^\W_])", re.IGNORECASE)


@cache
def _first_word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"[\W_]*(?:{_either(words)})(?:['’]s)?(?![^\W_]|[-'’][^\W_])", re.IGNORECASE)


def _either(words: Sequence[str]) -> str:
    return "|".join(re.escape(word) for word in words)
