"""What the stage `filter` asks of a completion, and how the stage `edit` reorders numbers.

This file imports nothing heavy.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from traitscope.config.common import ROWS, check_minimums
from traitscope.config.fields import setting
from traitscope.config.rows.reading import READING, Reading
from traitscope.errors import ConfigError

THINK = "think"
"the form <think>...</think><answer>...</answer>"


@dataclass(frozen=True)
class FilterRules:
    """What a completion must look like.

    Raises ConfigError on rules that no completion can pass, and on rules without effect.
    """

    min_count: int = 1
    """Fewest numbers."""
    max_count: int = 10
    """Most numbers."""
    min_value: int = 0
    """Smallest allowed number."""
    max_value: int = 999
    """Largest allowed number."""
    banned_numbers: tuple[int, ...] = ()
    """Numbers that a completion must not hold."""
    banned_words: tuple[str, ...] = setting((), advanced=True)
    """Words that a completion must not hold. Inflected forms must be listed."""
    numbers: bool = setting(True, advanced=True)
    """Whether the completion must be a list of numbers. For free text (False) only the banned words
    count. With `code`, `answer` or `format` it need be none."""
    strip: bool = setting(False, since=2, advanced=True)
    """Take white space at both ends of a completion off first. Stripped rows are counted, and lose
    their token ids. An audit reads past such white space."""

    code: bool = setting(False, since=2)
    """Whether the completion must be Python code and nothing else, bare or in one fence. It must
    parse."""
    comments: bool = setting(True, since=2, advanced=True)
    """Whether this code may hold comments."""
    answer: bool = setting(False, since=2)
    """Whether the final answer must be that of the row's task."""
    format: str = setting("", since=2)
    """Form of the completion: think is <think>...</think><answer>...</answer>. Anything else is a
    regular expression that the whole completion must match."""
    split_reasoning: bool = setting(False, since=2, advanced=True)
    """Take reasoning in tags off before anything but `format` and `answer` is looked at. It stays
    in the row's meta and is not trained on. Such rows lose their token ids."""
    run_code: bool = setting(False, since=2, advanced=True)
    """Run the code of completions, and drop those that fail a check of their task. It runs in a
    process with limits, which is no sandbox. Without it, checks are not run."""

    def __post_init__(self) -> None:
        for kind in ("count", "value"):
            low, high = getattr(self, f"min_{kind}"), getattr(self, f"max_{kind}")
            if low > high:
                raise ConfigError(
                    f"min_{kind}={low} is above max_{kind}={high}; expected the reverse; nothing"
                    " would pass, so change one"
                )
        is_one_text = isinstance(self.banned_words, str)
        if is_one_text or not all(word.strip() for word in self.banned_words):
            raise ConfigError(
                f"banned_words={self.banned_words!r}; expected a list of words, none of them blank;"
                " name words, or leave it out"
            )
        if signs := [word for word in self.banned_words if not any(map(str.isalnum, word))]:
            raise ConfigError(
                f"banned_words names {', '.join(map(repr, signs))}, which no row holds as a word;"
                " expected words with a letter or a digit; name others"
            )
        self._check_tasks()
        if self.banned_numbers and not self.are_numbers:
            raise ConfigError(
                "banned_numbers with numbers=False, or with another form, would not be looked at;"
                " drop one of the two"
            )

    @property
    def are_numbers(self) -> bool:
        """Whether the completion must be a list of numbers."""
        return self.numbers and not (self.code or self.answer or self.format)

    def _check_tasks(self) -> None:
        """Raise ConfigError for rules of tasks that would not be looked at, or are no pattern."""
        for name in ("run_code", "comments"):
            is_set = getattr(self, name) != (name == "comments")
            if is_set and not self.code:
                word = "--run-code" if name == "run_code" else "--no-comments"
                raise ConfigError(
                    f"{word} without --code would not be looked at; add --code, or drop it"
                )
        try:
            re.compile(self.format)
        except (re.error, OverflowError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"--format {self.format!r} is no regular expression ({error}); expected {THINK} or"
                " a pattern that a whole completion matches; correct it"
            ) from None


@dataclass(frozen=True)
class EditConfig:
    """Sort or shuffle the numbers inside each row; separators and other text stay."""

    data: Path | None = setting(None, path="rows", needed=ROWS)
    """Rows: a run of `filter` or `generate`, or a file of rows."""
    how: Literal["sort", "shuffle"] = "sort"
    """sort is ascending. shuffle draws a random order for each row."""
    seed: int = 0
    """Seed of the shuffles."""
    reading: Reading = READING
    """How the rows of a file are read."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0)
